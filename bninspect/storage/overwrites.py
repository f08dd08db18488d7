"""Detection of local files that are overwritten while they are read.

A file that is written in place while it is read gives a mixture of two checkpoints, and no format
shows that. So the stamp of a file is taken when it is opened, and compared after all was read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

from bninspect.errors import Overwritten, ReadProblem

# The kernel sets times of files by a clock that ticks every 1 to 10 ms (CONFIG_HZ): the second of
# two writes within a tick does not change the time.
_TICK = 0.012  # seconds

# (device, inode, size, time of the last change in nanoseconds)
LocalStamp = tuple[int, int, int, int]

_of_thread = local()  # `opened`: the stamps of the files that were opened in a block of `unchanged`


def note_opened(path: str, descriptor: int) -> os.stat_result:
    """Note that a file has been opened, and return its status."""
    status = os.fstat(descriptor)
    opened: dict[str, LocalStamp] | None = getattr(_of_thread, "opened", None)
    if opened is None or path in opened:
        return status
    age = time.time() - status.st_mtime
    if 0 <= age < _TICK:
        time.sleep(_TICK - age)
        status = os.fstat(descriptor)
    opened[path] = stamp(status)
    return status


@contextmanager
def unchanged() -> Iterator[None]:
    """Raise `Overwritten` if a file that is opened in this block has changed at its end.

    It is also raised in place of the error for a file that looks damaged because it changed. A
    file that is deleted meanwhile is read as it was.
    """
    opened: dict[str, LocalStamp] = {}
    _of_thread.opened = opened
    try:
        yield
    except ReadProblem:
        _require_unchanged(opened)
        raise
    else:
        _require_unchanged(opened)
    finally:
        _of_thread.opened = None


def _require_unchanged(opened: dict[str, LocalStamp]) -> None:
    for path, before in opened.items():
        try:
            now = stamp(os.stat(path))
        except OSError:
            continue
        if now != before:
            raise Overwritten(
                path, "it was overwritten while it was read", "Try again when it has been written."
            )


def stamp(status: os.stat_result) -> LocalStamp:
    """Return the stamp of a file by its status."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
