"""Opening the checkpoint that a path names: the one user of both `locate` and `formats`."""

from __future__ import annotations

import os
from collections.abc import Callable

from bninspect.errors import NotFound, ReadProblem
from bninspect.formats.opening import open_target
from bninspect.locate.locate import as_typed, locate
from bninspect.model.checkpoint import Checkpoint, Engine
from bninspect.model.target import CheckpointLocation
from bninspect.storage import filesystem, run_scope
from bninspect.storage.urls import strip_credentials


def open_checkpoint(path: str | os.PathLike[str], engine: Engine = "native") -> Checkpoint:
    """Open the checkpoint that `path` names: a prefix, a file of it, a directory, a Keras file.

    Only names are read now; values are read when a variable's `read` is called. Close the
    checkpoint, or use it as a context manager. `engine` reads the files: `native` or `tensorflow`.
    Raises a `ReadProblem`, also for a directory of several models: name one of them.
    """
    [path] = strip_credentials([os.fspath(path)])
    run_scope.begin_run()
    if filesystem.is_directory(path):
        from bninspect.locate.discover import one_of

        return open_target(path, one_of(path), engine)
    return open_target(path, locate(path), engine)


def find_checkpoints(
    path: str, *, every: bool = False, skips: Callable[[str], bool] | None = None
) -> list[CheckpointLocation]:
    """Return all checkpoints that `path` names; `discover` is imported only if it is needed.

    Nothing is searched for below the directories that `skips` returns True for.
    """
    try:
        if not every and not filesystem.is_directory(path):
            return [CheckpointLocation(path, locate(path))]
    except NotFound:
        pass  # it may be a pattern
    except ReadProblem as problem:
        return [CheckpointLocation(path, None, as_typed(path, problem))]
    from bninspect.locate.discover import discover

    return discover(path, every=every, skips=skips or (lambda _: False))
