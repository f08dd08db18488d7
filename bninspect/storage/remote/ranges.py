"""Byte ranges: merging those to fetch in one request, and the cached ones. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise

# (start, end) of bytes, without the one at the end
Range = tuple[int, int]


def size_of(ranges: Iterable[Range]) -> int:
    """Return the number of bytes in ranges that do not overlap."""
    return sum(end - start for start, end in ranges)


def merged(wanted: Iterable[Range], waste: int) -> list[Range]:
    """Merge wanted ranges into those to fetch, in order, none of which touches another.

    Neighbours are merged, smallest gaps first, as long as all gaps together have at most `waste`
    bytes. Empty ranges are left out.
    """
    joined: list[Range] = []
    for start, end in sorted(range_ for range_ in wanted if range_[0] < range_[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    gaps = sorted((after[0] - before[1], at) for at, (before, after) in enumerate(pairwise(joined)))
    bridged = set()
    for gap, at in gaps:
        waste -= gap
        if waste < 0:
            break
        bridged.add(at)
    fetched: list[Range] = []
    for at, (start, end) in enumerate(joined):
        if at - 1 in bridged:
            fetched[-1] = fetched[-1][0], end
        else:
            fetched.append((start, end))
    return fetched


class CachedBytes:
    """The bytes of an object that have been fetched, by offset."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, start: int, data: bytes) -> None:
        """Keep `data`, none of which may be cached yet."""
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._parts.insert(at, data)
        self.size += len(data)

    def missing(self, start: int, end: int) -> list[Range]:
        """Return the parts of a range that are not cached, in order."""
        gaps = []
        at = max(bisect_right(self._starts, start) - 1, 0)
        while start < end and at < len(self._starts):
            first, last = self._starts[at], self._starts[at] + len(self._parts[at])
            if first >= end:
                break
            if first > start:
                gaps.append((start, first))
            start = max(start, last)
            at += 1
        if start < end:
            gaps.append((start, end))
        return gaps

    def get(self, start: int, end: int) -> bytes:
        """Return the bytes of a range of which nothing is missing."""
        parts = []
        at = max(bisect_right(self._starts, start) - 1, 0)
        while start < end:
            first = self._starts[at]
            part = self._parts[at][start - first : end - first]
            parts.append(part)
            start += len(part)
            at += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drop(self) -> None:
        """Keep nothing."""
        self._starts.clear()
        self._parts.clear()
        self.size = 0
