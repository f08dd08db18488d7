"""An object behind a URL as bytes at an offset: what is here of it, and when more is fetched.

What was fetched stays until the run ends or room is needed, so that who opens an object anew finds
it. A small object is fetched whole. Of a larger one what is asked for, to the borders of blocks;
who knows beforehand what will be read tells it by `prefetch`, and all of that is fetched at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Lock, local

from bninspect.errors import Corrupt, Incomplete, NotFound, ReadProblem, UnknownFormat
from bninspect.storage import run_caches
from bninspect.storage.remote import listings, stores
from bninspect.storage.remote.errors import replaced
from bninspect.storage.remote.ranges import Held, Range, merged

# Measured: see benchmarks/remote.py.
_SMALL = 256 << 10  # bytes of an object that is fetched whole
_BLOCK = 16 << 10
# What may be fetched though nobody asks for it, to save requests.
_LEAST_WASTE, _WASTED_PART = 64 << 10, 400
_MOST_EXPECTED = 64 << 20  # bytes that are fetched before they are asked for
_MOST_HELD = 256 << 20  # bytes of all objects together
_MOST_OBJECTS = 512
_AHEAD = 32  # objects in a walk whose ends are fetched at once


class Fetched:
    """One object; `size` is its length. Its bytes are those of the version it had at first."""

    def __init__(self, url: str, info: stores.Info) -> None:
        self._url, self._info = url, info
        self._held = Held()
        self._lock = Lock()
        if info.data:
            self._held.add(0, info.data)

    @property
    def size(self) -> int:
        """The length of the object in bytes."""
        return self._info.size

    @property
    def held(self) -> int:
        """How many of its bytes are here."""
        return self._held.size

    @property
    def info(self) -> stores.Info:
        """What it was when it was opened."""
        return self._info

    def has(self, start: int, length: int) -> bool:
        """Whether some bytes are here."""
        with self._lock:
            return not self._held.missing(start, start + length)

    def read(self, start: int, length: int) -> bytes:
        """Some bytes, which lie within `size`; raises a `ReadProblem` if they cannot be fetched."""
        end = start + length
        with self._lock:
            missing = self._held.missing(start, end)
            if missing and self.size <= _SMALL:
                self._fetch(self._held.missing(0, self.size))
            elif missing:
                first = missing[0][0] // _BLOCK * _BLOCK
                last = min(-(-missing[-1][1] // _BLOCK) * _BLOCK, self.size)
                self._fetch(self._held.missing(first, last))
            return self._held.get(start, end)

    def read_once(self, start: int, length: int) -> bytes:
        """Return some bytes without keeping those that are fetched for it; raises as `read`."""
        if self.size <= _SMALL or self.has(start, length):
            return self.read(start, length)
        (data,) = self._sent([(start, start + length)])
        return data

    def prefetch(self, ranges: Iterable[Range]) -> None:
        """Fetch what will be read, neighbours together; what lies beyond the end is left out."""
        wanted = []
        room = _MOST_EXPECTED
        with self._lock:
            for start, end in ranges:
                if 0 <= start < end <= self.size:
                    room -= end - start
                    if room < 0:
                        break
                    wanted += self._held.missing(start, end)
            if wanted and self.size <= _SMALL:
                wanted = self._held.missing(0, self.size)
            waste = max(_LEAST_WASTE, self.size // _WASTED_PART)
            # What is here already is not fetched again where it lies in a gap.
            parts = [self._held.missing(*one) for one in merged(wanted, waste)]
            self._fetch([part for several in parts for part in several])

    def drop(self) -> None:
        """Keep no bytes."""
        with self._lock:
            self._held.drop()

    def _fetch(self, ranges: list[Range]) -> None:
        if ranges:
            for (start, _), data in zip(ranges, self._sent(ranges), strict=True):
                self._held.add(start, data)

    def _sent(self, ranges: list[Range]) -> list[bytes]:
        """Return what the server sends for some ranges; raises a `ReadProblem` if it is less."""
        parts = stores.fetch(self._url, ranges, self._info)
        for (start, end), data in zip(ranges, parts, strict=True):
            if len(data) != end - start:
                raise Incomplete(
                    self._url,
                    f"the server sent {len(data)} of {end - start} bytes at offset {start}",
                    "The connection was cut, or the object was replaced; try again.",
                )
        return parts


_objects: dict[str, Fetched] = {}
_of_all = Lock()  # several threads may have runs
_of_thread = local()  # `opened`: the objects that are read in a block of `unchanged`


def open_object(url: str) -> Fetched:
    """The object at a URL, perhaps with bytes that an earlier look has fetched.

    Raises `NotFound` if there is none, `UnknownFormat` if it is a directory, another `ReadProblem`
    if nobody can tell.
    """
    info = listings.lookup(url)
    if info is None:
        raise listings.why_not(url) or NotFound(url, "no such file", "Check the URL.")
    if info.directory:
        hint = "Give the URL of a file in it, or a checkpoint's prefix."
        raise UnknownFormat(url, "this is not a file but a directory", hint)
    with _of_all:
        found = _objects.pop(url, None)
        if found is None or found.info != info:
            found = Fetched(url, info)
        _objects[url] = found
        _make_room()
    opened = getattr(_of_thread, "opened", None)
    if opened is not None:
        opened.setdefault(url, found)
    return found


def fetch_ends(url: str, length: int) -> None:
    """Let the first and last bytes of an object come, and those of the next in a walk."""
    known = _objects.get(url)
    if known is not None and known.has(0, min(length, known.size)):
        return
    following = [one for one in listings.followed_by(url, _AHEAD) if one not in _objects]
    if len(following) < 2:
        one = open_object(url)
        if not one.has(0, min(length, one.size)):
            one.prefetch([(0, min(stores.head_of(url), one.size)), (one.size - _BLOCK, one.size)])
        return
    there = [open_object(one) for one in following if _is_object(one)]
    if there:
        with ThreadPoolExecutor(len(there)) as pool:
            list(pool.map(lambda one: _fetch_ends(one, length), there))


def _is_object(url: str) -> bool:
    """Whether it can be read: what has the name of a directory, too, is found as that one."""
    found = listings.lookup(url)
    return found is not None and not found.directory


def _fetch_ends(one: Fetched, length: int) -> None:
    with suppress(ReadProblem):  # who reads it is told
        ends = min(length, one.size)
        one.prefetch([(0, ends), (one.size - ends, one.size)])


def _make_room() -> None:
    """Keep the objects that were opened last."""
    while len(_objects) > 1 and (
        len(_objects) > _MOST_OBJECTS or sum(one.held for one in _objects.values()) > _MOST_HELD
    ):
        _objects.pop(next(iter(_objects)), None)


@run_caches.register
def forget() -> None:
    """Know nothing of any object, as when a run begins."""
    with _of_all:
        _objects.clear()


@contextmanager
def unchanged() -> Iterator[None]:
    """What is read in this block are objects that are the same at its end as when it began.

    Raises `Incomplete` if one was replaced, also where that made it look damaged.
    """
    opened: dict[str, Fetched] = {}
    _of_thread.opened = opened
    try:
        yield
    except (Corrupt, Incomplete, UnknownFormat):
        _require_unchanged(opened)
        raise
    else:
        _require_unchanged(opened)
    finally:
        _of_thread.opened = None
        for url, one in opened.items():
            if url in _objects and one.size > _SMALL:
                one.drop()  # what is read once need not stay


def _require_unchanged(opened: dict[str, Fetched]) -> None:
    for url in stores.changed({url: one.info for url, one in opened.items()}):
        raise replaced(url)
