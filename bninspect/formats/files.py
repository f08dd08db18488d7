"""What lies where: the one room that knows which files and directories there are.

Their bytes are the matter of `source`; what their names mean is that of `names`. Arithmetic with
names (`os.path.join`, `split`) looks at nothing and is done everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from typing import Literal

# What an entry of a directory is. A link to a directory is "linked"; one that leads nowhere counts
# as a file, since what it should be may be missed. Pipes and devices are none of these.
Kind = Literal["file", "directory", "linked"]

# (device, inode, size, time of the last change in nanoseconds) of a file.
Stamp = tuple[int, int, int, int]


def exists(path: str) -> bool:
    """Whether anything is there; a link that leads nowhere is nothing."""
    return os.path.exists(path)


def is_there(path: str) -> bool:
    """Whether anything of that name is there, if only a link that leads nowhere."""
    return os.path.lexists(path)


def is_file(path: str) -> bool:
    """Whether a file is there, or a link to one."""
    return os.path.isfile(path)


def is_directory(path: str) -> bool:
    """Whether a directory is there, or a link to one."""
    return os.path.isdir(path)


def size_of(path: str) -> int:
    """The bytes of a file; raises OSError."""
    return os.path.getsize(path)


def names_in(directory: str) -> list[str]:
    """All names in a directory, "" being the working directory; raises OSError."""
    return os.listdir(directory or ".")


def entries_in(directory: str) -> Iterator[tuple[str, Kind]]:
    """The names in a directory and what they are; raises OSError."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.name, "directory"
            elif entry.is_symlink():
                if os.path.isdir(entry.path):
                    yield entry.name, "linked"
                elif os.path.isfile(entry.path) or not os.path.exists(entry.path):
                    yield entry.name, "file"
            elif entry.is_file():
                yield entry.name, "file"


def matching(pattern: str) -> list[str]:
    """The paths that a pattern of a shell matches."""
    from glob import glob  # noqa: PLC0415 - few type one

    return glob(pattern)


def real_path(path: str) -> str:
    """The same for every path that leads to one file."""
    return os.path.realpath(path)


def directory_identity(directory: str) -> Hashable:
    """The same for every path that leads to one directory; raises OSError if there is none."""
    status = os.stat(directory)
    return status.st_dev, status.st_ino


def stamp_of(path: str) -> Stamp | None:
    """That of a file; None if it is gone or cannot be reached."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def out_of_reach(path: str) -> OSError | None:
    """Why nobody can tell whether there is a file; None where that is known."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error
    return None
