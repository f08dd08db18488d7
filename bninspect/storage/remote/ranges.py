"""Byte ranges: which of those that are wanted to fetch in one request. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise

# (start, end) of bytes, the end not among them
Range = tuple[int, int]


def merged(wanted: Iterable[Range], waste: int) -> list[Range]:
    """The ranges to fetch for those that are wanted: in order, and none touches another.

    Neighbours become one, smallest gaps first, as long as all gaps together hold at most `waste`
    bytes that nobody wants. Empty ranges are left out.
    """
    joined: list[Range] = []
    for start, end in sorted(one for one in wanted if one[0] < one[1]):
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


class Held:
    """The bytes of an object that are here, by where they lie."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, start: int, data: bytes) -> None:
        """Keep `data`, of which nothing may be here yet."""
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._parts.insert(at, data)
        self.size += len(data)

    def missing(self, start: int, end: int) -> list[Range]:
        """What is not here of a range, in order."""
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
        """The bytes of a range of which nothing is missing."""
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
