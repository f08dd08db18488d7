"""Counts of work, for tests of how the cost of a call grows: no clock is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from tests.support.tools import ROOT

PACKAGE = str(ROOT / "bninspect")
# What `growth` is for work that grows as the size, or with its logarithm a little faster.
LINEAR = 2.5


def work_of(call: Callable[[], object], *, most: int = 100_000_000) -> int:
    """Return how many lines of the package and how many other Python functions a call runs.

    A loop counts its line once for each iteration. A call that does more than `most` is ended with
    an AssertionError. What a C function does is counted as nothing.
    """
    count = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event in ("call", "line")
        assert count <= most, f"more than {most} lines are run"
        return trace if frame.f_code.co_filename.startswith(PACKAGE) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def growth(prepare: Callable[[int], Callable[[], object]], size: int) -> float:
    """Return by how much the work grows when what was added to the size doubles.

    Two is linear in the size, four is quadratic. `prepare` makes the call for a size; sizes are
    `size`, twice that and four times that. What a call costs whatever its size takes no part.
    """
    prepare(size)()  # imports and caches
    small, middle, large = (work_of(prepare(times * size)) for times in (1, 2, 4))
    assert small < middle
    return (large - middle) / (middle - small)
