"""The checkpoints that a list of files belongs to, where a tool such as pre-commit made the list.

Such tools select files by the ends of their names, so each file is judged as one that is found in a
directory: see `discover`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from bninspect.errors import ReadProblem
from bninspect.locate.discover import among, found_at, parts_in
from bninspect.model.filenames import STATE_FILE, checkpoint_of
from bninspect.model.target import Found
from bninspect.storage import filesystem


def listed_files(paths: Iterable[str]) -> dict[str, list[Found]]:
    """Return by file the checkpoint that it is a part of; an empty list if it is of none.

    Paths without a file are left out, and so are state files, which stand for their directory.
    """
    parts: dict[str, dict[str, set[str]]] = {}
    found: dict[str, list[Found]] = {}
    by_file: dict[str, list[Found]] = {}
    for path in paths:
        directory, name = os.path.split(path)
        if name == STATE_FILE or not _is_file(path):
            continue
        if directory not in parts:
            parts[directory] = parts_in(directory)
        whole = checkpoint_of(path)
        if whole not in found:
            names = {name, *parts[directory].get(checkpoint_of(name), ())}
            found[whole] = [found_at(candidate) for candidate in among(directory, names)]
        by_file[path] = found[whole]
    return by_file


def _is_file(path: str) -> bool:
    with suppress(ReadProblem):  # finding checkpoints raises it
        return filesystem.is_file(path)
    return False
