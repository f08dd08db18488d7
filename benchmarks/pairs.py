"""Runs of two programs that alternate, so that both see the same machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

Measured = Sequence[float]


def measure_pairs(
    ours: Callable[[], Measured], theirs: Callable[[], Measured], count: int
) -> list[tuple[Measured, Measured]]:
    """Return what `count` pairs of runs measured, after a pair that is not counted.

    The first pair compiles modules, and fills the page cache.
    """
    pairs = [(ours(), theirs()) for _ in range(count + 1)]
    return pairs[1:]


def medians(rows: Sequence[Measured]) -> list[float]:
    """Return the median of each number that the runs measured."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def median_ratio(pairs: Sequence[tuple[Measured, Measured]]) -> float:
    """Return the median of the ratios of pairs, by the first number that each run measured."""
    return statistics.median(one[0] / other[0] for one, other in pairs)
