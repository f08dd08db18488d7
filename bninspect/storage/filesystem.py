"""Filesystem queries (exists, list, stat) for local paths and URLs.

`source` reads the bytes of files, `model.filenames` knows the meaning of their names. Paths are
joined and split everywhere (`os.path.join`, `split`): that needs no disk and works with URLs.

Behind URLs there are no links, pipes or devices. If a server does not answer, a query raises a
`ReadProblem`; listing a directory raises an OSError that holds it, as for local directories.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, TypeVar

from bninspect.errors import ReadProblem
from bninspect.storage import overwrites
from bninspect.storage.run_scope import of_run
from bninspect.storage.urls import WEB, is_url, quoted, scheme_of

if TYPE_CHECKING:
    from bninspect.storage.remote.listings import Listings

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# The kind of an entry of a directory. A link to a directory is "linked". A broken link counts as a
# file, since it stands for a missing one. Pipes and devices are not listed.
Kind = Literal["file", "directory", "linked"]

# The `LocalStamp` of a file. For a remote object: 0, its URL with the version, the size and the
# time.
Stamp = tuple[int, int | str, int, int]


def _listings() -> Listings:
    """Return the listings of this run; imported for URLs only."""
    from bninspect.storage.remote.cache import RemoteFiles

    return of_run(RemoteFiles).listings


def unchanged(path: str) -> AbstractContextManager[None]:
    """Return a context in which the files of a checkpoint must not change.

    If a file that is opened in it has changed at its end, it raises `Overwritten` for a local one,
    `Incomplete` for a remote one, whose old bytes may still be cached.
    """
    if is_url(path):
        from bninspect.storage.remote.cache import unchanged as remote_unchanged

        return remote_unchanged()
    return overwrites.unchanged()


def map_ahead(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    path_of: Callable[[_Item], str] = str,
) -> Iterator[_Result]:
    """Yield the result of a function for each item, in order.

    For the items of URLs it runs in threads ahead, so that their requests overlap: see `read_ahead`
    of `remote`. Raises what the function raises.
    """
    if len(items) < 2 or not any(is_url(path_of(item)) for item in items):
        return map(function, items)
    from bninspect.storage.remote import read_ahead

    return read_ahead.map_ahead(function, items, path_of)


def is_read_ahead(path: str) -> bool:
    """Return whether `map_ahead` reads a file before its turn."""
    if not is_url(path):
        return False
    from bninspect.storage.remote import read_ahead

    return read_ahead.is_ahead()


def wait_for_turn(path: str) -> None:
    """Wait until the results of all earlier items of `map_ahead` have been taken (URLs only).

    Raises `Incomplete` if an object that was read is replaced: see `unchanged`.
    """
    if is_url(path):
        from bninspect.storage.remote import cache

        cache.wait_for_turn()


def exists(path: str) -> bool:
    """Return whether there is anything at a path; a broken link does not count."""
    if is_url(path):
        return _listings().lookup(path) is not None
    try:
        return os.access(path, os.F_OK)  # without the exception that `os.stat` raises
    except ValueError:  # a NUL character
        return False


def stands_alone(path: str) -> bool:
    """Return whether a URL is that of a bucket, a server or a repository, without siblings."""
    if not is_url(path):
        return False
    from bninspect.storage.remote.listings import is_top

    return is_top(path.rstrip("/"))


def is_there(path: str) -> bool:
    """Return whether there is anything at a path, even if it is a broken link."""
    if is_url(path):
        return exists(path)
    return os.path.lexists(path)


def is_file(path: str) -> bool:
    """Return whether a path is that of a file, or of a link to one."""
    if is_url(path):
        info = None if path.endswith("/") else _listings().lookup(path)
        return info is not None and not info.directory
    return os.path.isfile(path)


def is_directory(path: str) -> bool:
    """Return whether a path is that of a directory, or of a link to one."""
    if is_url(path):
        return _listings().is_directory(path)
    return os.path.isdir(path)


def size_of(path: str) -> int:
    """Return the size of a file in bytes; raises OSError."""
    if is_url(path):
        info = _listings().lookup(path)
        if info is None:
            raise FileNotFoundError(path)
        return info.size
    return os.path.getsize(path)


def names_in(directory: str) -> list[str]:
    """Return all names in a directory, "" being the working directory; raises OSError."""
    if is_url(directory):
        return list(_listings().entries(directory))
    return os.listdir(directory or ".")


def entries_in(directory: str) -> Iterator[tuple[str, Kind]]:
    """Yield the names in a directory, each with its kind; raises OSError."""
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
    """Return the path of `name`, which a file in a directory gives relative to that directory.

    A name never becomes a URL unless the directory is one; in web URLs its special characters are
    escaped.
    """
    if is_url(directory):
        name = quoted(name) if scheme_of(directory) in WEB else name
    elif is_url(name):
        directory = directory or "."  # a local file can have such a name
    return os.path.join(directory, name)


def name_below(name: str) -> str | None:
    """Return the name that a file gives, relative to its directory, without parts that are `.`.

    None if it names no file in the directory or below it: it is absolute, a URL, leads out, or has
    half of a character, as JSON may.
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    is_whole = not os.path.isabs(name) and not is_url(name) and name.rpartition("/")[2] in parts
    if not is_whole or ".." in parts or os.path.splitdrive(name)[0] or set(name) & {"\\", "\0"}:
        return None
    return "/".join(parts)


def real_path(path: str) -> str:
    """Return the path without links: the same for every path that leads to one file."""
    if is_url(path):
        return path.rstrip("/")
    return os.path.realpath(path)


def directory_identity(directory: str) -> Hashable:
    """Return an object that is equal for all paths to one directory; raises OSError without one."""
    if is_url(directory):
        _listings().entries(directory)
        return directory.rstrip("/")
    status = os.stat(directory)
    return status.st_dev, status.st_ino


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a file; None if it is gone or cannot be reached."""
    if is_url(path):
        try:
            info = _listings().lookup(path)
        except ReadProblem:
            return None
        if info is None:
            return None
        version = f"{path} {info.etag} {info.time}"  # objects get no other name
        return 0, version, info.size, _nanoseconds(info.time)
    try:
        status = os.stat(path)
    except OSError:
        return None
    return overwrites.stamp(status)


def out_of_reach(path: str) -> OSError | None:
    """Return the error that hides whether a file exists; None if there is no such error."""
    if is_url(path):
        from bninspect.storage.remote.listings import OutOfReach

        problem = _listings().why_not(path)
        return None if problem is None else OutOfReach(problem)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error
    return None


def list_below(directory: str) -> None:
    """Prefetch the listings of all directories below one (remote directories only)."""
    if is_url(directory):
        _listings().list_below(directory)


def problem_of(error: OSError) -> ReadProblem | None:
    """Return the problem that an OSError of a remote directory holds; None for a local one."""
    problem: ReadProblem | None = getattr(error, "problem", None)
    return problem


def _nanoseconds(time: str) -> int:
    try:
        return int(float(time) * 1e9)
    except (ValueError, OverflowError):  # a server may say "inf"
        return 0
