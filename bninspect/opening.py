"""Opening the checkpoint that a path names: the one user of both `locate` and `formats`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bninspect.errors import NotFound, ReadProblem
from bninspect.formats.opening import open_target
from bninspect.locate.locate import as_typed, locate
from bninspect.model.checkpoint import Checkpoint, Engine
from bninspect.model.filenames import STATE_FILE
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


def find_checkpoints(path: str, *, every: bool = False) -> list[CheckpointLocation]:
    """Return all checkpoints that `path` names."""
    location = _locate_one(path, every=every)
    return discover_below(path, every=every) if location is None else [location]


def locate_each(paths: Sequence[str], *, every: bool) -> Iterator[CheckpointLocation | None]:
    """Yield for each path the one checkpoint that it names; None where `discover_below` finds some.

    These paths are directories and patterns, and those of nothing at all. With `every` it is None,
    too, for a state file, which stands for all that it names.
    """
    return filesystem.map_ahead(partial(_locate_one, every=every), paths)


def _locate_one(path: str, *, every: bool) -> CheckpointLocation | None:
    stands_for_all = every and os.path.basename(path) == STATE_FILE
    try:
        if not stands_for_all and not filesystem.is_directory(path):
            return CheckpointLocation(path, locate(path))
    except NotFound:
        pass  # it may be a pattern
    except ReadProblem as problem:
        return CheckpointLocation(path, None, as_typed(path, problem))
    return None


def discover_below(
    path: str,
    *,
    every: bool,
    skips: Callable[[str], bool] = lambda _: False,
    find: Callable[[CheckpointLocation], None] | None = None,
) -> list[CheckpointLocation]:
    """Return the checkpoints that a directory or pattern names.

    Nothing is searched for below the directories that `skips` returns True for. `find` is that of
    `discover`.
    """
    from bninspect.locate.discover import discover

    return discover(path, every=every, skips=skips, find=find)
