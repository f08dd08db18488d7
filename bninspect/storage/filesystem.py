"""What lies where: the one room that knows which files and directories there are.

Their bytes are the matter of `source`; what their names mean is that of `names`. Arithmetic with
names (`os.path.join`, `split`) looks at nothing and is done everywhere: it takes URLs, too.

Behind URLs there are no links, pipes or devices. Where it is not known what lies at one, that is a
`ReadProblem`; whoever lists a directory gets an OSError that holds it, as for local ones.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

from bninspect.errors import ReadProblem
from bninspect.storage import overwrites
from bninspect.storage.urls import WEB, is_url, quoted, scheme_of

# What an entry of a directory is. A link to a directory is "linked"; one that leads nowhere counts
# as a file, since what it should be may be missed. Pipes and devices are none of these.
Kind = Literal["file", "directory", "linked"]

# (device, inode, size, time of the last change in nanoseconds) of a file; of an object 0, its URL
# and what tells its version, the size, and when it changed.
Stamp = tuple[int, int | str, int, int]


def _listings() -> Any:
    """What knows URLs; a local path never brings it in."""
    from bninspect.storage.remote import listings

    return listings


def unchanged(path: str) -> AbstractContextManager[None]:
    """Return a context in which the files of a checkpoint must stay what they are.

    If a file that is opened in it has changed at its end, it raises `Overwritten` for a local one,
    `Incomplete` for a remote one, whose old bytes may still be cached.
    """
    if is_url(path):
        from bninspect.storage.remote.cache import unchanged as remote_unchanged

        return remote_unchanged()
    return overwrites.unchanged()


def exists(path: str) -> bool:
    """Whether anything is there; a link that leads nowhere is nothing."""
    if is_url(path):
        return _listings().lookup(path) is not None
    return os.path.exists(path)


def stands_alone(path: str) -> bool:
    """Whether nothing lies beside it: it is a bucket, a server, a repository."""
    return is_url(path) and bool(_listings().is_top(path.rstrip("/")))


def is_there(path: str) -> bool:
    """Whether anything of that name is there, if only a link that leads nowhere."""
    if is_url(path):
        return exists(path)
    return os.path.lexists(path)


def is_file(path: str) -> bool:
    """Whether a file is there, or a link to one."""
    if is_url(path):
        found = None if path.endswith("/") else _listings().lookup(path)
        return found is not None and not found.directory
    return os.path.isfile(path)


def is_directory(path: str) -> bool:
    """Whether a directory is there, or a link to one."""
    if is_url(path):
        return bool(_listings().is_directory(path))
    return os.path.isdir(path)


def size_of(path: str) -> int:
    """The bytes of a file; raises OSError."""
    if is_url(path):
        found = _listings().lookup(path)
        if found is None:
            raise FileNotFoundError(path)
        return int(found.size)
    return os.path.getsize(path)


def names_in(directory: str) -> list[str]:
    """All names in a directory, "" being the working directory; raises OSError."""
    if is_url(directory):
        return list(_listings().entries(directory))
    return os.listdir(directory or ".")


def entries_in(directory: str) -> Iterator[tuple[str, Kind]]:
    """The names in a directory and what they are; raises OSError."""
    if is_url(directory):
        for name, info in _listings().entries(directory).items():
            yield name, "directory" if info.directory else "file"
        return
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


def named_in(directory: str, name: str) -> str:
    """The path of what a file in a directory calls `name`; never of what lies behind a URL.

    Unless the directory does. There what has a meaning in web URLs is escaped, for `name` has none.
    """
    if is_url(directory):
        name = quoted(name) if scheme_of(directory) in WEB else name
    elif is_url(name):
        directory = directory or "."  # a file can be called so
    return os.path.join(directory, name)


def real_path(path: str) -> str:
    """The same for every path that leads to one file."""
    if is_url(path):
        return path.rstrip("/")
    return os.path.realpath(path)


def directory_identity(directory: str) -> Hashable:
    """The same for every path that leads to one directory; raises OSError if there is none."""
    if is_url(directory):
        _listings().entries(directory)
        return directory.rstrip("/")
    status = os.stat(directory)
    return status.st_dev, status.st_ino


def stamp_of(path: str) -> Stamp | None:
    """That of a file; None if it is gone or cannot be reached."""
    if is_url(path):
        try:
            found = _listings().lookup(path)
        except ReadProblem:
            return None
        if found is None:
            return None
        version = f"{path} {found.etag} {found.time}"  # objects get no other name
        return 0, version, found.size, _nanoseconds(found.time)
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def out_of_reach(path: str) -> OSError | None:
    """Why nobody can tell whether there is a file; None where that is known."""
    if is_url(path):
        problem = _listings().why_not(path)
        return None if problem is None else _listings().OutOfReach(problem)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error
    return None


def list_below(directory: str) -> None:
    """Prepare for a look at all that lies below a directory: behind a URL it is asked for once."""
    if is_url(directory):
        _listings().list_below(directory)


def problem_of(error: OSError) -> ReadProblem | None:
    """The sentence about what lies behind a URL; None for what the system says of a local path."""
    problem: ReadProblem | None = getattr(error, "problem", None)
    return problem


def _nanoseconds(time: str) -> int:
    try:
        return int(float(time) * 1e9)
    except (ValueError, OverflowError):  # a server may say "inf"
        return 0
