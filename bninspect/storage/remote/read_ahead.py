"""Reading ahead: while one checkpoint is judged, the next ones behind URLs are read.

Each checkpoint is read and judged in a thread of its own, and the results are taken in order. The
requests are those of reading one by one; they only overlap. Limited are the checkpoints that are
read ahead, the bytes that are fetched for them, and (in `stores`) the requests at once.

A server may refuse so many requests. So what failed is repeated, in its turn and with no other
request under way, and fewer checkpoints are read ahead from then on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import islice
from threading import Condition, Event
from typing import Any, TypeVar

from bninspect.storage.urls import is_url

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

MOST_AHEAD = 32  # checkpoints that are read at the same time
MOST_BYTES = 64 << 20  # fetched for checkpoints whose turn has not come, all together
_MOST_THREADS = 64  # for the requests of one checkpoint


class Stopped(BaseException):
    """The end of a run, raised in the threads that still read ahead."""


class _Place:
    """The place of one call in the order; `has_failed` says that one of its requests failed."""

    def __init__(self, order: _Order, number: int) -> None:
        self.order, self.number = order, number
        self.turn = Event()
        self.fetched = 0  # bytes
        self.has_failed = False


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


class _Order:
    """The calls whose results are taken in order: which of them may send requests."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._first = 0  # the number of the call whose turn it is
        self._most = MOST_AHEAD
        self._fetched = 0  # bytes, by the calls whose results have not been taken
        self._under_way: set[Future[Any]] = set()
        self._is_stopped = False

    def admit(self, place: _Place, size: int) -> None:
        """Wait until a call may fetch `size` more bytes; raises `Stopped`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._may_fetch(place, size))
            if self._is_stopped:
                raise Stopped
            place.fetched += size
            self._fetched += size

    def _may_fetch(self, place: _Place, size: int) -> bool:
        if place.number <= self._first:
            return True
        return place.number < self._first + self._most and self._fetched + size <= MOST_BYTES

    @contextmanager
    def under_way(self, request: Future[Any]) -> Iterator[None]:
        """Cancel a request if the run ends in this block; raises `Stopped` then."""
        with self._changed:
            self._under_way.add(request)
            if self._is_stopped:
                request.cancel()
        try:
            yield
        finally:
            with self._changed:
                self._under_way.discard(request)
                self._changed.notify_all()
                if self._is_stopped:
                    raise Stopped

    def take(self, place: _Place, future: Future[_Result], again: Callable[[], _Result]) -> _Result:
        """Return the result of a call in its turn; it is called `again` if a request failed."""
        with self._changed:
            self._first = place.number
            self._changed.notify_all()
        place.turn.set()
        wait([future])
        with self._changed:
            self._fetched -= place.fetched
            if not place.has_failed:
                self._most = min(self._most + 1, MOST_AHEAD)
                return future.result()
            fewer, self._most = max(self._most // 2, 1), 1
            self._changed.wait_for(lambda: not self._under_way)
        try:
            return again()
        finally:
            self._most = fewer

    def stop(self, places: Iterable[_Place]) -> None:
        """Cancel all requests, and raise `Stopped` in all threads."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
            requests = list(self._under_way)
        for request in requests:
            request.cancel()
        for place in places:
            place.turn.set()

    def require_running(self) -> None:
        """Raise `Stopped` if the run has ended."""
        if self._is_stopped:
            raise Stopped


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], path_of: Callable[[_Item], str]
) -> Iterator[_Result]:
    """Yield the result of a function for each item, in order; for those of URLs it runs ahead.

    Raises what the function raises, in the order of the items. All threads have ended when the
    iterator is closed.
    """
    order = _Order()
    rest = enumerate(items)
    waiting: deque[tuple[_Item, _Place, Future[_Result] | None]] = deque()
    pool = ThreadPoolExecutor(MOST_AHEAD)
    try:
        while True:
            for number, item in islice(rest, MOST_AHEAD - len(waiting)):
                place = _Place(order, number)
                is_remote = is_url(path_of(item))
                future = pool.submit(_call_at, place, function, item) if is_remote else None
                waiting.append((item, place, future))
            if not waiting:
                return
            item, place, future = waiting[0]
            if future is None:
                result = function(item)
            else:
                result = order.take(place, future, partial(function, item))
            waiting.popleft()
            yield result
    finally:
        order.stop([place for _, place, _ in waiting])
        pool.shutdown(cancel_futures=True)


def _call_at(place: _Place, function: Callable[[_Item], _Result], item: _Item) -> _Result:
    """Return the result of a function that runs at a place of the order."""
    token = _place.set(place)
    try:
        place.order.require_running()
        return function(item)
    finally:
        _place.reset(token)


def admit(size: int = 0) -> None:
    """Wait until this thread may fetch `size` bytes: at once unless it reads ahead.

    It must hold no lock, since another thread may need that for its turn.
    """
    place = _place.get()
    if place is not None:
        place.order.admit(place, size)


def is_ahead() -> bool:
    """Return whether this thread reads ahead, and it is not its turn yet."""
    place = _place.get()
    return place is not None and not place.turn.is_set()


def wait_for_turn() -> None:
    """Wait until all earlier results have been taken: at once unless this thread reads ahead."""
    place = _place.get()
    if place is not None:
        place.turn.wait()
        place.order.require_running()


def note_failure() -> None:
    """Note that a request of this thread failed, so that the call is repeated in its turn."""
    place = _place.get()
    if place is not None:
        place.has_failed = True


def result_of(request: Future[_Result], seconds: float | None = None) -> _Result:
    """Return the result of a request, which is cancelled if the run ends."""
    place = _place.get()
    if place is None:
        return request.result(seconds)
    with place.order.under_way(request):
        return request.result(seconds)


def in_threads(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Return the results of a function that runs for all items at once, at this thread's place."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(len(items), _MOST_THREADS)) as pool:
        futures = [pool.submit(copy_context().run, function, item) for item in items]
        return [future.result() for future in futures]
