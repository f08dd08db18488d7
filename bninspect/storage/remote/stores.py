"""Requests to the servers behind URLs. The only user of fsspec, imported only for a URL.

Functions of this module raise no exception of a library: see `errors`.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from threading import Lock
from typing import Any, NamedTuple, TypeVar

try:
    import fsspec
    import fsspec.asyn
except ImportError:  # using it raises `Unsupported`, which names the extra
    fsspec = None

from bninspect.errors import NotFound, ReadProblem, Unreachable
from bninspect.storage.remote import read_ahead
from bninspect.storage.remote.errors import is_denied, is_missing, missing_package, refuse
from bninspect.storage.remote.http import AT_ONCE, HEAD, LONG_HEAD, Http, is_other
from bninspect.storage.remote.ranges import Range
from bninspect.storage.urls import WEB, credentials_of, scheme_of, url_with_credentials

_Result = TypeVar("_Result")

_LIMIT = 60.0  # seconds for one request, with all retries of the library
_WITHOUT_USER = ("s3", "s3a", "gs", "gcs")
# Timeouts of the libraries themselves, by scheme.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": 10,
            "read_timeout": 30,
            "max_pool_connections": AT_ONCE,  # 10 by default
        }
    },
}
# Loggers of the libraries, whose records hold URLs and answers. They are not printed, but passed
# on to a program around this one that collects logs.
_LOGGING = (
    *("adlfs", "aiobotocore", "aiohttp", "asyncio", "azure", "botocore", "fsspec", "gcsfs"),
    *("google", "huggingface_hub", "s3fs", "urllib3"),
)
_ETAGS = ("ETag", "etag", "generation", "xet_hash", "blob_id", "md5Hash", "sha256")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


class Info(NamedTuple):
    """An object or directory in a listing; `etag` and `time` of the last change, "" if unknown.

    `data` are the first bytes of the object, where they came with the answer.
    """

    size: int
    etag: str = ""
    time: str = ""
    directory: bool = False
    data: bytes = b""


class Store:
    """The objects behind URLs of one scheme, by its class of fsspec.

    Methods take URLs without credentials; they raise the exceptions of the library.
    """

    def __init__(self, filesystem: Any) -> None:
        self._fs = filesystem
        self._pool: ThreadPoolExecutor | None = None
        self._limit = asyncio.Semaphore(AT_ONCE)

    def listing(self, url: str) -> dict[str, Info]:
        """Return the entries directly in a directory, by name."""
        path = self._path(url)
        entries = self._call("ls", path, detail=True, refresh=True)
        return {name: info for name, info in self._below(path, entries) if "/" not in name}

    def find(self, url: str) -> dict[str, Info]:
        """Return all objects below a directory, by their path from it."""
        path = self._path(url)
        entries = self._call("find", path, detail=True)
        return dict(self._below(path, entries.values()))

    def info(self, url: str) -> Info | None:
        """Return the present state of an object; None if there is none."""
        try:
            return _info(self._call("info", self._path(url), refresh=True))
        except Exception as error:
            if is_missing(error):
                return None
            raise

    def differs(self, url: str, known: Info) -> bool:
        """Return whether an object has changed since it was `known`, or is gone."""
        now = self.info(url)
        return now is None or is_other(_version(now), _version(known))

    def fetch(self, url: str, ranges: Sequence[Range], _: Info) -> list[bytes]:
        """Return the bytes of each range, fetched at the same time."""
        path = self._path(url)
        if self._fs.async_impl:
            loop: asyncio.AbstractEventLoop = self._fs.loop
            return _answer_of(loop, self._fetch_all(path, ranges))
        waiting = [self._threads.submit(self._fetch_one, path, *range_) for range_ in ranges]
        return [_result_of(future, _LIMIT) for future in waiting]

    async def _fetch_all(self, path: str, ranges: Sequence[Range]) -> list[bytes]:
        cat: Callable[..., Awaitable[bytes]] = self._fs._cat_file  # noqa: SLF001 - documented for use
        parts = (_limited(self._limit, cat, path, start=start, end=end) for start, end in ranges)
        return await asyncio.gather(*parts)

    def _fetch_one(self, path: str, start: int, end: int) -> bytes:
        with self._fs.open(path, "rb", cache_type="none") as stream:
            stream.seek(start)
            data: bytes = stream.read(end - start)
            return data

    def _call(self, name: str, *given: Any, **options: Any) -> Any:
        if self._fs.async_impl:
            method = getattr(self._fs, "_" + name)
            asked = _limited(self._limit, method, *given, **options)
            return _answer_of(self._fs.loop, asked)
        return _result_of(self._threads.submit(getattr(self._fs, name), *given, **options), _LIMIT)

    @property
    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(AT_ONCE)
        return self._pool

    def _path(self, url: str) -> str:
        if credentials_of(url)["query"]:
            fault = f"a {scheme_of(url)}:// URL cannot have a query or a second URL"
            hint = "Remove it: credentials come from the environment."
            raise ReadProblem(url, fault, hint)
        opened = url_with_credentials(url)
        if opened != url and scheme_of(url) in _WITHOUT_USER:
            fault = f"a {scheme_of(url)}:// URL cannot have a user or a key"
            hint = "Remove it: credentials come from the environment."
            raise ReadProblem(url, fault, hint)
        return str(self._fs._strip_protocol(opened))  # noqa: SLF001 - documented for use

    @staticmethod
    def _below(path: str, entries: Iterable[Any]) -> Iterable[tuple[str, Info]]:
        around = path.rstrip("/") + "/"
        for entry in entries:
            name = str(entry["name"]).rstrip("/")
            if name.startswith(around):
                yield name[len(around) :], _info(entry)


class WebStore:
    """The objects behind HTTP URLs. HTTP has no directories."""

    def __init__(self, filesystem: Any) -> None:
        self._loop = filesystem.loop
        self._http = Http(filesystem.set_session, filesystem.encode_url)

    def listing(self, url: str) -> dict[str, Info]:
        """Raise `NotFound`: nothing can be listed."""
        hint = "Give the URL of the checkpoint's file, or its prefix."
        raise NotFound(url, "an HTTP server does not list what a directory holds", hint)

    def find(self, url: str) -> dict[str, Info]:
        """Raise `NotFound`: nothing can be listed."""
        return self.listing(url)

    def info(self, url: str) -> Info | None:
        """Return the present state of an object and its first bytes; None if there is none."""
        given = (url_with_credentials(url), url, head_of(url))
        head = _answer_of(self._loop, _limited(self._http.limit, self._http.head, *given))
        if head is None:
            return None
        return Info(head.size, head.etag, head.modified, head.directory, head.data)

    def differs(self, url: str, known: Info) -> bool:
        """Return whether an object has changed since it was `known`, or is gone."""
        given = (url_with_credentials(url), url, _version(known))
        return _answer_of(self._loop, _limited(self._http.limit, self._http.differs, *given))

    def fetch(self, url: str, ranges: Sequence[Range], known: Info) -> list[bytes]:
        """Return the bytes of each range; raises a `ReadProblem` if the object is not `known`."""
        sent = url_with_credentials(url), url, ranges, _version(known), _LIMIT
        return _answer_of(self._loop, self._http.fetch(*sent))


async def _limited(
    limit: asyncio.Semaphore,
    method: Callable[..., Awaitable[_Result]],
    *given: Any,
    **options: Any,
) -> _Result:
    async with limit:
        return await asyncio.wait_for(method(*given, **options), _LIMIT)


def _answer_of(loop: asyncio.AbstractEventLoop, request: Coroutine[Any, Any, _Result]) -> _Result:
    return _result_of(asyncio.run_coroutine_threadsafe(request, loop))


def _result_of(request: Future[_Result], seconds: float | None = None) -> _Result:
    """Return the result of a request; note it if the server did not answer."""
    try:
        return read_ahead.result_of(request, seconds)
    except Unreachable:
        read_ahead.note_failure()
        raise
    except ReadProblem:
        raise
    except Exception as error:  # whatever the library of a scheme raises
        if not is_missing(error) and not is_denied(error):
            read_ahead.note_failure()
        raise


def _info(entry: dict[str, Any]) -> Info:
    if entry.get("type") == "directory":
        return Info(0, directory=True)
    etag = next((str(entry[key]) for key in _ETAGS if entry.get(key)), "")
    time = next((_time_text(entry[key]) for key in _TIMES if entry.get(key)), "")
    return Info(int(entry.get("size") or 0), etag.strip('"'), time)


def _version(info: Info) -> tuple[int, str, str]:
    return info.size, info.etag, info.time


def _time_text(time: Any) -> str:
    """Return a time as text; the same library may return it as a number or as a date."""
    seconds = time.timestamp() if isinstance(time, datetime) else time
    return f"{seconds:.6f}" if isinstance(seconds, float | int) else str(seconds)


def head_of(url: str) -> int:
    """Return the number of bytes in the first request for an object, by its name."""
    return LONG_HEAD if url.lower().endswith((".h5", ".hdf5", ".keras")) else HEAD


_stores: dict[tuple[str, str], Store | WebStore] = {}
_making = Lock()


def store_of(url: str) -> Store | WebStore:
    """Return the store of a URL's server; raises a `ReadProblem` if nothing can read it."""
    scheme = scheme_of(url)
    server = "" if scheme in WEB else "/".join(url_with_credentials(url).split("/", 3)[:3])
    with _making:  # a store has a limit of requests, and connections that are used again
        store = _stores.get((scheme, server))
        if store is None:
            store = _stores[scheme, server] = _make_store(scheme, url)
    return store


def _make_store(scheme: str, url: str) -> Store | WebStore:
    if fsspec is None:
        raise missing_package(url)
    try:
        return _new_store(scheme, url_with_credentials(url))
    except Exception as error:  # whatever the library of a scheme raises
        if isinstance(error, ValueError) and "not known" in str(error):
            fault = f"{scheme}:// is not a scheme that can be read"
            hint = "fsspec has s3, gs, az, hf, https and others."
            raise NotFound(url, fault, hint) from None
        refuse(url, error)


def _new_store(scheme: str, url: str) -> Store | WebStore:
    for name in _LOGGING:
        logging.getLogger(name).addHandler(logging.NullHandler())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Google's, about old versions of Python
        kind = fsspec.get_filesystem_class(scheme)
    # An exception that nothing awaits would be logged with its URL.
    fsspec.asyn.get_loop().set_exception_handler(lambda _, __: None)
    if scheme in WEB:
        web = kind(encoded=True, client_kwargs={"trust_env": True}, skip_instance_cache=True)
        return WebStore(web)
    from_url = kind._get_kwargs_from_urls(url)  # noqa: SLF001 - documented for use
    options = {**_OPTIONS.get(scheme, {}), **{k: v for k, v in from_url.items() if k != "protocol"}}
    # Not a cached instance: the program around this one may use the library, too.
    filesystem = kind(use_listings_cache=False, skip_instance_cache=True, **options)
    if scheme == "s3":
        filesystem.retries = 2  # beside those of botocore
    return Store(filesystem)


def changed(known: Mapping[str, Info]) -> list[str]:
    """Return the objects that have changed since they were `known`; all requests run at once.

    Raises a `ReadProblem` if the server does not answer.
    """
    read_ahead.admit()
    are_changed = read_ahead.in_threads(_differs, list(known.items()))
    return [url for url, differs in zip(known, are_changed, strict=True) if differs]


def _differs(object_: tuple[str, Info]) -> bool:
    url, known = object_
    try:
        return store_of(url).differs(url, known)
    except Exception as error:  # whatever the library of a scheme raises
        refuse(url, error)


def fetch(url: str, ranges: Sequence[Range], known: Info) -> list[bytes]:
    """Return the bytes of each range, all requests sent at once; raises a `ReadProblem`."""
    try:
        return store_of(url).fetch(url, ranges, known)
    except Exception as error:  # whatever the library of a scheme raises
        refuse(url, error)
