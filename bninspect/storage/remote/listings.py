"""Listings of remote directories, and names that are looked up in them.

Each remote directory is listed once in a run. HTTP has no listings, and some credentials may read
objects but not list them: there each name costs a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from urllib.parse import urlsplit

from bninspect.errors import NotFound, ReadProblem, Unreachable, Unsupported
from bninspect.model.filenames import PART, SAVED_MODEL, STATE_FILE, natural_order
from bninspect.storage.remote import read_ahead
from bninspect.storage.remote.errors import is_denied, is_missing, problem_of, refuse
from bninspect.storage.remote.stores import Info, store_of
from bninspect.storage.urls import WEB, scheme_of

_MOST_NAMES = 1_000_000  # that the listings of a run keep
# Of names that were looked up one by one: the names, and the first bytes of their objects.
_MOST_SINGLE, _MOST_SINGLE_BYTES = 100_000, 32 << 20
_MAGIC = re.compile(r"[*?[]")
# Schemes whose URLs name a server or a bucket; others may need no name there.
_SERVED = (*WEB, "s3", "s3a", "gs", "gcs", "az", "abfs", "hf")


class OutOfReach(OSError):
    """A directory that cannot be listed; `problem` is the sentence about it."""

    def __init__(self, problem: ReadProblem) -> None:
        self.problem = problem
        super().__init__(problem.message)


class _Denied(Unreachable):
    """A directory that may not be listed, though its objects may be readable."""


class _SingleNames:
    """The last names that were looked up one by one, without a listing."""

    def __init__(self) -> None:
        self._infos: dict[str, Info | None] = {}
        self._size = 0  # bytes
        self._refused: dict[str, ReadProblem] = {}

    def __getitem__(self, url: str) -> Info | None:
        return self._infos[url]

    def add(self, url: str, info: Info | None, refused: ReadProblem | None) -> None:
        """Keep the answer for a URL, or the reason why a web server refused one."""
        self._drop(url)
        self._size += _size_of(info)
        while self._infos and (len(self._infos) >= _MOST_SINGLE or self._size > _MOST_SINGLE_BYTES):
            self._drop(next(iter(self._infos)))
        self._infos[url] = info
        if refused is not None:
            self._refused[url] = refused

    def release_data(self, url: str) -> None:
        """Keep the entry of a URL without the first bytes of its object."""
        info = self._infos.get(url)
        if info is not None:
            self._size -= _size_of(info)
            self._infos[url] = info._replace(data=b"")

    def _drop(self, url: str) -> None:
        self._size -= _size_of(self._infos.pop(url, None))
        self._refused.pop(url, None)

    def refusal(self, url: str) -> ReadProblem | None:
        """Return the reason why a web server refused an answer for a URL, or None."""
        return self._refused.get(url)


class _OneAtATime:
    """Locks of URLs: what one thread is asking for, another need not ask for, too."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._locks: dict[str, tuple[Lock, int]] = {}  # with the number of their users

    @contextmanager
    def lock(self, url: str) -> Iterator[None]:
        """Let one thread at a time ask for a URL."""
        read_ahead.admit()
        with self._lock:
            lock, users = self._locks.get(url, (Lock(), 0))
            self._locks[url] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                users = self._locks[url][1] - 1
                if users:
                    self._locks[url] = lock, users
                else:
                    del self._locks[url]


class Listings:
    """The listings of remote files and directories of one run.

    Several threads may use them. All methods take URLs without credentials and raise a
    `ReadProblem` if the server does not answer.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._asking = _OneAtATime()
        self._directories: dict[str, dict[str, Info]] = {}
        self._unlistable: dict[str, ReadProblem] = {}
        self._single = _SingleNames()
        # The objects below the traversed directory, in about the order of the traversal.
        self._walked: list[str] = []
        self._positions: dict[str, int] = {}

    def lookup(self, url: str) -> Info | None:
        """Return the entry of the object or directory at a URL; None if there is none.

        Raises a `ReadProblem` if the server does not answer.
        """
        _require_server(url)
        url = _without_slash(url)
        if is_top(url):
            return self._lookup_top(url)
        directory, _, name = url.rpartition("/")
        if not directory.endswith("/"):  # a key with // in it is in no listing under its name
            try:
                return self.entries(directory).get(name)
            except OutOfReach as fault:
                if not isinstance(fault.problem, _Denied):
                    raise fault.problem from None
        with suppress(KeyError):
            return self._single[url]
        with self._asking.lock(url):
            with suppress(KeyError):
                return self._single[url]
            return self._ask(url)

    def _lookup_top(self, url: str) -> Info | None:
        """Return the entry of a bucket; None for a web server, which is no directory."""
        if scheme_of(url) in WEB:
            return None
        try:
            names = self.entries(url)
        except OutOfReach as out_of_reach:
            raise out_of_reach.problem from None
        if not names:
            fault = "no such bucket or server, or it is empty"
            raise NotFound(url, fault, "Check the URL.")
        return Info(0, directory=True)

    def _ask(self, url: str) -> Info | None:
        """Request one object's entry, and keep the answer."""
        info = refused = None
        try:
            info = store_of(url).info(url)
        except Exception as error:  # whatever the library of a scheme raises
            # Without the right to list, or with the signature of one object alone, a missing object
            # is denied, too (AWS: HeadObject, permissions).
            if not is_denied(error):
                refuse(url, error)
            if scheme_of(url) in WEB:
                refused = problem_of(url, error)
        if info is not None and _is_page(url.rpartition("/")[2], info.data):
            info = None
        with self._lock:
            self._single.add(url, info, refused)
        return info

    def release_data(self, url: str) -> None:
        """Keep no first bytes of an object: who opens it has them now."""
        with self._lock:
            self._single.release_data(url)

    def entries(self, directory: str) -> dict[str, Info]:
        """Return the entries directly in a directory, by name; raises `OutOfReach`."""
        directory = _without_slash(directory)
        names = self._listed(directory)
        if names is None:
            with self._asking.lock(directory):
                names = self._listed(directory)
                if names is None:
                    names = self._list(directory)
        return names

    def _listed(self, directory: str) -> dict[str, Info] | None:
        """Return the kept listing of a directory, or None; raises `OutOfReach` if it was denied."""
        if problem := self._unlistable.get(directory):
            raise OutOfReach(problem)
        return self._directories.get(directory)

    def _list(self, directory: str) -> dict[str, Info]:
        """Request the listing of a directory, and keep it; raises `OutOfReach`."""
        try:
            names = store_of(directory).listing(directory)
        except Exception as error:  # whatever the library of a scheme raises
            if not is_missing(error):
                raise OutOfReach(self._no_listing(directory, error)) from None
            names = {}
        self._keep(directory, names)
        return names

    def _no_listing(self, directory: str, error: Exception) -> ReadProblem:
        problem = problem_of(directory, error)
        if scheme_of(directory) in WEB or is_denied(error):
            problem = _Denied(problem.path, problem.message, problem.hint)
            self._unlistable[directory] = problem
        return problem

    def _keep(self, directory: str, names: dict[str, Info]) -> None:
        with self._lock:
            self._directories[directory] = names
            if len(self._directories) % 1000 == 0:
                while sum(map(len, self._directories.values())) > _MOST_NAMES:
                    del self._directories[next(iter(self._directories))]

    def list_below(self, directory: str) -> None:
        """List all objects below a directory at once. Errors are ignored: `entries` raises them."""
        directory = _without_slash(directory)
        try:
            objects = store_of(directory).find(directory)
        except Exception:
            return
        # Keys may have an empty name in them, to which no path leads.
        objects = {path: info for path, info in objects.items() if "" not in path.split("/")}
        for listed, names in _by_directory(directory, objects).items():
            self._keep(listed, names)
        whole = (path for path in objects if not PART.fullmatch(path))
        walked = [f"{directory}/{path}" for path in sorted(whole, key=natural_order)]
        with self._lock:
            self._walked = walked
            self._positions = {url: position for position, url in enumerate(walked)}

    def followed_by(self, url: str, most: int) -> list[str]:
        """Return an object and those that follow it in the traversal, as far as is known."""
        position = self._positions.get(url)
        return [url] if position is None else self._walked[position : position + most]

    def is_directory(self, url: str) -> bool:
        """Return whether a URL is that of a directory; by HTTP, whether it has a file of one."""
        _require_server(url)
        if scheme_of(url) not in WEB:
            info = self.lookup(url)
            return info is not None and info.directory
        may_be_object = not url.endswith("/") and not is_top(url)
        if may_be_object and (self.lookup(url + ".index") is not None or self._is_object(url)):
            return False
        plain = url.rstrip("/")
        return any(self._is_object(f"{plain}/{name}") for name in (STATE_FILE, SAVED_MODEL))

    def _is_object(self, url: str) -> bool:
        info = self.lookup(url)
        return info is not None and not info.directory

    def why_not(self, url: str) -> ReadProblem | None:
        """Return the problem that hides what is at a URL; None if there is none."""
        try:
            info = self.lookup(url)
        except ReadProblem as problem:
            return problem
        if info is not None:
            return None
        url = url.rstrip("/")
        if scheme_of(url) in WEB:
            return self._single.refusal(url)
        return self._unlistable.get(url.rpartition("/")[0])


def _size_of(info: Info | None) -> int:
    return 0 if info is None else len(info.data)


def _by_directory(root: str, objects: dict[str, Info]) -> dict[str, dict[str, Info]]:
    """Return the listing of each directory below `root`, from all objects by their path from it."""
    listings: dict[str, dict[str, Info]] = {root: {}}
    for path, info in objects.items():
        parts = path.split("/")
        for depth in range(len(parts)):
            directory = "/".join([root, *parts[:depth]])
            is_last = depth == len(parts) - 1
            names = listings.setdefault(directory, {})
            names[parts[depth]] = info if is_last else Info(0, directory=True)
    return listings


def _is_page(name: str, data: bytes) -> bool:
    """Return whether the object at a name that was only tried is the error page of a server."""
    tried = name.endswith(".index") or name in (STATE_FILE, SAVED_MODEL)
    return tried and data[:256].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _without_slash(url: str) -> str:
    """Return a URL without the slashes at its end; those of `scheme://` stay."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rstrip('/')}"


def _require_server(url: str) -> None:
    """Raise `Unsupported` unless a URL names a bucket or server."""
    scheme, _, rest = url.partition("://")
    server = rest.partition("/")[0]
    if scheme in _SERVED and not server:
        raise Unsupported(url, "this URL names no bucket or server", "Check the URL.")
    if scheme in WEB:
        try:
            _ = urlsplit(url).port
        except ValueError:
            fault = "the server's name or port is not valid"
            raise Unsupported(url, fault, "Check the URL.") from None
    elif scheme in _SERVED and _MAGIC.search(server):
        fault = "a pattern can match names in a bucket, but not the bucket itself"
        raise Unsupported(url, fault, "Name the bucket.")


def is_top(url: str) -> bool:
    """Return whether a URL is that of a bucket, a server or a repository, without siblings.

    Repositories of Hugging Face have two names, and those of datasets and spaces a kind before
    them (https://huggingface.co/docs/huggingface_hub/guides/hf_file_system).
    """
    scheme, _, rest = url.partition("://")
    names = rest.split("/")
    if scheme == "hf":
        return len(names) <= (3 if names[0] in ("buckets", "datasets", "spaces") else 2)
    return len(names) == 1
