"""Checkpoints of Orbax: the directory of a saved step, and the newest step of a training.

A step is a directory (see `model.filenames`). Orbax writes it under a temporary name, or stores a
file last (orbax/checkpoint/_src/path/atomicity.py): so a step that was not saved to its end shows.
Only local directories are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from bninspect.errors import Incomplete, ReadProblem, Unsupported
from bninspect.model.filenames import (
    ORBAX_COMMIT,
    ORBAX_MARKERS,
    ORBAX_STEP,
    ORBAX_STEP_NAME,
    ORBAX_UNFINISHED,
    holds_orbax_arrays,
    is_of_orbax,
    natural_order,
)
from bninspect.model.target import CheckpointLocation, Target
from bninspect.storage import filesystem
from bninspect.storage.source import Source
from bninspect.storage.urls import is_url
from bninspect.wording import listed

_ZARR = (".zarray", "zarr.json")
_DATA = "d"  # the directory of the data files of a database
_LARGEST_STEP_FILE = 1 << 20  # bytes
_MOST_STEPS = 100  # that are looked at for the newest
_MOST_ITEMS = 100  # of a step, which saves a few: a numbered directory of runs may have thousands
_HINT = "Check an earlier step; delete it if the training has ended."


class Unfinished(Incomplete):
    """A step that was not saved to its end."""


def locate_orbax(path: str) -> Target | None:
    """Return the step that a directory is, or is a part of; None if it is neither.

    Raises `Incomplete` if it was not saved to its end.
    """
    step = _step_at(_without_slash(path))
    if step is None:
        return None
    _require_finished(step)
    if os.path.normpath(step) == os.path.normpath(path):
        return Target("orbax", step)
    return Target("orbax", step, (f"{path} is a part of {step}, which was opened",))


def locate_orbax_file(path: str) -> Target | None:
    """Return the step that a file, of a name as `ORBAX_FILE`, is a part of; None if of none.

    Raises `Unsupported` for a file behind a URL, `Incomplete` for a step that is not whole.
    """
    directory, name = os.path.split(path)
    if is_url(path):
        if name not in ORBAX_MARKERS:
            return None
        raise Unsupported(
            path,
            "this is a part of an Orbax checkpoint, which is read from the local disk alone",
            "Copy the directory of the step here, and check it there.",
        )
    if name in _ZARR or os.path.basename(directory) == _DATA:
        directory = os.path.dirname(directory)
    step = _step_at(directory or ".")
    if step is None:
        return None
    _require_finished(step)
    return Target("orbax", step)


def newest_step(path: str) -> Target | None:
    """Return the newest step of the training that writes into a directory; None if it is none's.

    Steps that were not saved to their end are passed over, with a note. Raises `Incomplete` if no
    other is there.
    """
    numbered = _steps_in(path)
    unfinished = list(unfinished_in(path))
    for step in numbered[-1 : -_MOST_STEPS - 1 : -1]:
        if _step_at(step) != step:
            continue
        try:
            _require_finished(step)
        except Unfinished:
            unfinished.append(step)
            continue
        note = f"{step} is the newest step in {path}"
        return Target("orbax", step, (note, *notes_on_unfinished(unfinished)))
    if unfinished:
        raise _unfinished(unfinished[-1])
    return None


def unfinished_in(path: str) -> Iterator[str]:
    """Yield the steps in a local directory that are still saved, or were not saved to their end."""
    with suppress(OSError):
        for name in sorted(filesystem.names_in(path), key=natural_order):
            if ORBAX_UNFINISHED in name:
                yield os.path.join(path, name)


def step_of(directory: str) -> str:
    """Return the step that a directory of Orbax is, or is a part of."""
    return directory if is_url(directory) else _step_at(directory) or directory


def without_unfinished(
    locations: list[CheckpointLocation], unfinished: Iterable[str]
) -> list[CheckpointLocation]:
    """Return the locations without steps that are not whole, and a note on these and `unfinished`.

    If no checkpoint is left that could have the note, the last of these steps is the result.
    """
    steps = [
        *unfinished,
        *(item.path for item in locations if isinstance(item.problem, Unfinished)),
    ]
    rest = [item for item in locations if not isinstance(item.problem, Unfinished)]
    for number, item in enumerate(rest):
        if item.target is not None:
            notes = (*item.target.notes, *notes_on_unfinished(steps))
            noted = item._replace(target=item.target._replace(notes=notes))
            return [*rest[:number], noted, *rest[number + 1 :]]
    if steps and not rest:
        return [CheckpointLocation(steps[-1], None, _unfinished(steps[-1]))]
    return rest


def notes_on_unfinished(steps: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence on steps that are passed over; nothing without any."""
    steps = [*steps]
    if not steps:
        return ()
    them = "it" if len(steps) == 1 else "them"
    return (f"passed over {listed(steps)}: Orbax has not saved {them} to the end",)


def _without_slash(path: str) -> str:
    return path.rstrip(os.sep) or path


def _steps_in(path: str) -> list[str]:
    """Return the directories that are named as the steps of one training, oldest first."""
    steps: dict[str, list[str]] = {}
    with suppress(OSError):
        for name, kind in filesystem.entries_in(path or "."):
            match = ORBAX_STEP_NAME.fullmatch(name)
            if match is not None and kind != "file":
                steps.setdefault(match[1] or "", []).append(name)
    if len(steps) != 1:
        return []
    (names,) = steps.values()
    return [os.path.join(path, name) for name in sorted(names, key=natural_order)]


def _step_at(directory: str) -> str | None:
    """Return the step that a directory is, or is a part of, by the files in it; None if neither."""
    names = _names_in(directory)
    if ORBAX_STEP in names:
        return directory
    parent = os.path.dirname(directory) or "."
    is_part = holds_orbax_arrays(names) or _is_zarr(directory, names)
    if is_part:
        beside = _names_in(parent)
        is_step = ORBAX_STEP_NAME.fullmatch(os.path.basename(os.path.abspath(parent))) is not None
        is_numbered = ORBAX_STEP_NAME.fullmatch(os.path.basename(directory)) is not None
        if is_of_orbax(beside) or (is_step and not is_numbered and os.path.basename(directory)):
            return _step_at(parent) or parent
        return directory
    if ORBAX_STEP_NAME.fullmatch(os.path.basename(directory)) and any(
        holds_orbax_arrays(_names_in(item)) for item in _directories_in(directory)
    ):
        return directory  # a step as Orbax wrote it before it had a file for it
    return None


def _is_zarr(directory: str, names: Iterable[str]) -> bool:
    """Return whether the directories in a directory hold an array each, of Orbax's names."""
    return any(
        filesystem.is_file(os.path.join(directory, name, file))
        for name in [name for name in names if "." in name][:1]
        for file in _ZARR
    )


def _directories_in(directory: str) -> list[str]:
    with suppress(OSError):
        entries = filesystem.entries_in(directory)
        directories = (os.path.join(directory, name) for name, kind in entries if kind != "file")
        return list(islice(directories, _MOST_ITEMS))
    return []


def _names_in(directory: str) -> list[str]:
    with suppress(OSError):
        return filesystem.names_in(directory)
    return []


def _require_finished(step: str) -> None:
    """Raise `Incomplete` if a step was not saved to its end."""
    if ORBAX_UNFINISHED in os.path.basename(step) or _lacks_commit(step):
        raise _unfinished(step)


def _lacks_commit(step: str) -> bool:
    """Return whether the step has no sign of its end, and its writer leaves one.

    Only some versions, and some storages, have a file for it: the items of the step, and the steps
    beside it, show whether this writer stores it.
    """
    names = _names_in(step)
    if ORBAX_COMMIT in names:
        return False
    if ORBAX_STEP in names and _was_begun_only(os.path.join(step, ORBAX_STEP)):
        return True
    parent = os.path.dirname(step) or "."
    beside = [os.path.join(step, name) for name in names]
    if ORBAX_STEP_NAME.fullmatch(os.path.basename(step)):
        beside += _steps_in(parent)[-_MOST_STEPS:]
    return any(filesystem.is_file(os.path.join(path, ORBAX_COMMIT)) for path in beside)


def _was_begun_only(path: str) -> bool:
    """Return whether the file of a step has the time of its begin alone."""
    import json

    try:
        with Source(path) as source:
            stored: Any = json.loads(source.read(0, min(source.size, _LARGEST_STEP_FILE), "it"))
    except (ReadProblem, ValueError, RecursionError):
        return False
    if not isinstance(stored, dict) or "commit_timestamp_nsecs" not in stored:
        return False
    return bool(stored.get("init_timestamp_nsecs")) and not stored["commit_timestamp_nsecs"]


def _unfinished(step: str) -> Unfinished:
    return Unfinished(step, "Orbax has not saved this step to its end", _HINT)
