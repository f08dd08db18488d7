"""Remote objects as bytes at an offset: the cache of their bytes, and fetching of more.

Fetched bytes are kept until the run ends or the cache is full. A small object is fetched whole. Of
a larger one the requested bytes are fetched, to the borders of blocks; a reader that knows which
bytes it will read prefetches all of them in one round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, local

from bninspect.errors import Corrupt, Incomplete, NotFound, ReadProblem, UnknownFormat
from bninspect.storage.remote import read_ahead, stores
from bninspect.storage.remote.errors import replaced
from bninspect.storage.remote.listings import Listings
from bninspect.storage.remote.ranges import CachedBytes, Range, merged, size_of
from bninspect.storage.run_scope import of_run

# Measured: see benchmarks/remote.py.
_SMALL = 256 << 10  # bytes of an object that is fetched whole
_BLOCK = 16 << 10
# Bytes that may be fetched without need, to save requests: this number, or this part of the object.
_LEAST_WASTE, _WASTED_PART = 64 << 10, 400
_MOST_PREFETCHED = 64 << 20  # bytes
_MOST_CACHED = 256 << 20  # bytes of all objects together
_MOST_OBJECTS = 512
_AHEAD = 32  # objects of a walk whose ends are fetched at once


class RemoteObject:
    """One object; all its bytes are of the version it had first. `fetches` counts the requests."""

    def __init__(self, url: str, info: stores.Info) -> None:
        self._url, self._info = url, info._replace(data=b"")
        self.fetches = 0
        self._cached = CachedBytes()
        self._lock = Lock()
        if info.data:
            self._cached.add(0, info.data)

    @property
    def size(self) -> int:
        """Return the length of the object in bytes."""
        return self._info.size

    @property
    def cached(self) -> int:
        """Return the number of cached bytes."""
        return self._cached.size

    @property
    def info(self) -> stores.Info:
        """Return the server's answer from when the object was opened."""
        return self._info

    def has(self, start: int, length: int) -> bool:
        """Return whether some bytes are cached."""
        with self._lock:
            return not self._cached.missing(start, start + length)

    def read(self, start: int, length: int) -> bytes:
        """Return bytes within `size`; raises a `ReadProblem` if they cannot be fetched."""
        end = start + length
        with self._lock:
            missing = self._to_read(start, end)
            if not missing:
                return self._cached.get(start, end)
        read_ahead.admit(size_of(missing))
        with self._lock:
            self._fetch(self._to_read(start, end))
            return self._cached.get(start, end)

    def _to_read(self, start: int, end: int) -> list[Range]:
        """Return the ranges to fetch for some bytes: the whole of a small object, else blocks."""
        missing = self._cached.missing(start, end)
        if missing and self.size <= _SMALL:
            return self._cached.missing(0, self.size)
        if missing:
            first = missing[0][0] // _BLOCK * _BLOCK
            last = min(-(-missing[-1][1] // _BLOCK) * _BLOCK, self.size)
            return self._cached.missing(first, last)
        return []

    def read_once(self, start: int, length: int) -> bytes:
        """Return bytes without caching those that are fetched for it; raises as `read`."""
        if self.size <= _SMALL or self.has(start, length):
            return self.read(start, length)
        read_ahead.admit(length)
        (data,) = self._request([(start, start + length)])
        return data

    def prefetch(self, ranges: Iterable[Range]) -> None:
        """Fetch ranges that will be read, neighbours in one request.

        Ranges beyond the end of the object are ignored, and those beyond `_MOST_PREFETCHED` bytes.
        """
        wanted = []
        left = _MOST_PREFETCHED
        for start, end in ranges:
            if 0 <= start < end <= self.size:
                left -= end - start
                if left < 0:
                    break
                wanted.append((start, end))
        with self._lock:
            missing = self._to_prefetch(wanted)
        if missing:
            read_ahead.admit(size_of(missing))
            with self._lock:
                self._fetch(self._to_prefetch(wanted))

    def _to_prefetch(self, ranges: Iterable[Range]) -> list[Range]:
        """Return the ranges to fetch so that some others are cached."""
        wanted = [gap for range_ in ranges for gap in self._cached.missing(*range_)]
        if wanted and self.size <= _SMALL:
            wanted = self._cached.missing(0, self.size)
        waste = max(_LEAST_WASTE, self.size // _WASTED_PART)
        # Cached bytes in a gap between two ranges are not fetched again.
        return [part for gap in merged(wanted, waste) for part in self._cached.missing(*gap)]

    def drop(self) -> None:
        """Keep no bytes in the cache."""
        with self._lock:
            self._cached.drop()

    def _fetch(self, ranges: list[Range]) -> None:
        if ranges:
            for (start, _), data in zip(ranges, self._request(ranges), strict=True):
                self._cached.add(start, data)

    def _request(self, ranges: list[Range]) -> list[bytes]:
        """Return the bytes of some ranges; raises a `ReadProblem` if the server sends fewer."""
        self.fetches += 1
        parts = stores.fetch(self._url, ranges, self._info)
        for (start, end), data in zip(ranges, parts, strict=True):
            if len(data) != end - start:
                read_ahead.note_failure()
                raise Incomplete(
                    self._url,
                    f"the server sent {len(data)} of {end - start} bytes at offset {start}",
                    "The connection was cut, or the object was replaced; try again.",
                )
        return parts


class RemoteFiles:
    """The remote files of one run: the listings, and the objects that were opened."""

    def __init__(self) -> None:
        self.listings = Listings()
        self._objects: dict[str, RemoteObject] = {}
        self._lock = Lock()  # several threads may read

    def open(self, url: str) -> RemoteObject:
        """Return the object at a URL, with the bytes of it that are cached.

        Raises `NotFound` if there is none, `UnknownFormat` if it is a directory, another
        `ReadProblem` if the server does not answer.
        """
        info = self.listings.lookup(url)
        if info is None:
            raise self.listings.why_not(url) or NotFound(url, "no such file", "Check the URL.")
        if info.directory:
            hint = "Give the URL of a file in it, or a checkpoint's prefix."
            raise UnknownFormat(url, "this is not a file but a directory", hint)
        with self._lock:
            remote_object = self._objects.pop(url, None)
            if remote_object is None or remote_object.info != info._replace(data=b""):
                remote_object = RemoteObject(url, info)
            self._objects[url] = remote_object
            self._evict()
        if info.data:
            self.listings.release_data(url)
        return remote_object

    def fetch_ends(self, url: str, length: int) -> None:
        """Prefetch the head and tail of an object and of the next objects in the listing."""
        known = self._objects.get(url)
        if known is not None and known.has(0, min(length, known.size)):
            return
        following = self.listings.followed_by(url, _AHEAD)
        following = [url_ahead for url_ahead in following if url_ahead not in self._objects]
        if len(following) < 2:
            alone = self.open(url)
            if not alone.has(0, min(length, alone.size)):
                head = min(stores.head_of(url), alone.size)
                alone.prefetch([(0, head), (alone.size - _BLOCK, alone.size)])
            return
        objects = [self.open(url_ahead) for url_ahead in following if self._is_object(url_ahead)]
        if objects:
            read_ahead.in_threads(lambda object_ahead: _fetch_ends(object_ahead, length), objects)

    def drop(self, url: str, remote_object: RemoteObject) -> None:
        """Drop the bytes of a large object that has been read: nothing reads them again."""
        if url in self._objects and remote_object.size > _SMALL:
            remote_object.drop()

    def _is_object(self, url: str) -> bool:
        """Return whether a URL can be opened: a directory may have the name of an object."""
        info = self.listings.lookup(url)
        return info is not None and not info.directory

    def _evict(self) -> None:
        """Drop the objects that were opened least recently, if the cache is too large."""
        while len(self._objects) > 1 and (
            len(self._objects) > _MOST_OBJECTS
            or sum(remote_object.cached for remote_object in self._objects.values()) > _MOST_CACHED
        ):
            self._objects.pop(next(iter(self._objects)), None)


def _fetch_ends(remote_object: RemoteObject, length: int) -> None:
    with suppress(ReadProblem):  # reading raises it
        ends = min(length, remote_object.size)
        remote_object.prefetch([(0, ends), (remote_object.size - ends, remote_object.size)])


class _Block:
    """The objects that are read in a block of `unchanged`, by URL."""

    def __init__(self) -> None:
        self.opened: dict[str, RemoteObject] = {}
        self._verified: dict[str, int] | None = None  # the number of fetches

    def require_unchanged(self) -> None:
        """Raise `Incomplete` if an object was replaced; only asked again if more was fetched."""
        fetches = {url: remote_object.fetches for url, remote_object in self.opened.items()}
        if fetches == self._verified:
            return
        for url in stores.changed({url: opened.info for url, opened in self.opened.items()}):
            raise replaced(url)
        self._verified = fetches


_of_thread = local()  # `block`: the block of `unchanged` in which a thread is


def open_object(url: str) -> RemoteObject:
    """Return the object at a URL, as `RemoteFiles.open` does."""
    remote_object = of_run(RemoteFiles).open(url)
    block: _Block | None = getattr(_of_thread, "block", None)
    if block is not None:
        block.opened.setdefault(url, remote_object)
    return remote_object


@contextmanager
def unchanged() -> Iterator[None]:
    """Raise `Incomplete` if an object that is read in this block is replaced before its end.

    It is also raised in place of the error for an object that looks damaged because it changed.
    """
    block = _of_thread.block = _Block()
    try:
        yield
    except (Corrupt, Incomplete, UnknownFormat):
        block.require_unchanged()
        raise
    else:
        block.require_unchanged()
    finally:
        _of_thread.block = None
        for url, remote_object in block.opened.items():
            of_run(RemoteFiles).drop(url, remote_object)


def wait_for_turn() -> None:
    """Wait until the results of all earlier checkpoints have been taken.

    All has been read by then, in most cases. So first it is asked whether an object was replaced,
    as at the end of a block of `unchanged`: that request need not wait for the turn.
    """
    block: _Block | None = getattr(_of_thread, "block", None)
    if block is not None and read_ahead.is_ahead():
        block.require_unchanged()
    read_ahead.wait_for_turn()
