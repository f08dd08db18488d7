"""From a list of files to the checkpoints they are parts of, where a tool has made the list.

Such tools go by the ends of names. What is no checkpoint is told as in a directory: see `discover`.
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
    """By file: the checkpoint it is a part of, none if it is no checkpoint's.

    Left out are paths that lead to no file, and state files, which stand for their directory.
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
    with suppress(ReadProblem):  # where nobody can tell, who looks for checkpoints says why
        return filesystem.is_file(path)
    return False
