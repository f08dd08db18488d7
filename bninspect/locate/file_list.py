"""The checkpoints that a list of files belongs to; the list is made by a tool such as pre-commit.

Such tools select files by the ends of their names, so each file is judged like a file in a
directory: see `discover`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from bninspect.errors import ReadProblem
from bninspect.locate.discover import among, found_at, parts_in
from bninspect.model.filenames import STATE_FILE, checkpoint_of
from bninspect.model.target import CheckpointLocation
from bninspect.storage import filesystem


def listed_files(paths: Iterable[str]) -> dict[str, list[CheckpointLocation]]:
    """Return by file the checkpoint that it is a part of; an empty list if it is of none.

    Paths without a file are left out, and so are state files, which stand for their directory.
    """
    parts: dict[str, dict[str, set[str]]] = {}
    by_checkpoint: dict[str, list[CheckpointLocation]] = {}
    by_file: dict[str, list[CheckpointLocation]] = {}
    for path in paths:
        directory, name = os.path.split(path)
        if name == STATE_FILE or not _is_file(path):
            continue
        if directory not in parts:
            parts[directory] = parts_in(directory)
        whole = checkpoint_of(path)
        if whole not in by_checkpoint:
            names = {name, *parts[directory].get(checkpoint_of(name), ())}
            by_checkpoint[whole] = [found_at(candidate) for candidate in among(directory, names)]
        by_file[path] = by_checkpoint[whole]
    return by_file


def _is_file(path: str) -> bool:
    with suppress(ReadProblem):  # finding checkpoints raises it
        return filesystem.is_file(path)
    return False
