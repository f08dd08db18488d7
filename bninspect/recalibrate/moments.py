"""Moments of a BN layer's input: those of one batch, and those pooled over all batches.

Pooling is by the law of total variance, E[v] + Var[m], weighted by the number of elements and in
float64, so the pooled variance is that of all elements together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# How many groups of batches the standard errors are estimated from, at most. Older batches are
# merged, so that memory does not grow with the number of batches.
_MOST_GROUPS = 64
# Elements that are converted to float64 at once.
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)  # the methods of a tuple would hide `count`
class BatchMoments:
    """The moments of a layer's input over one batch.

    `mean` and `variance` have shape (C,) and type float64; the variance is that of the population
    (divided by `count`). `count` is the number of elements per channel, 0 for no elements.
    """

    mean: FloatArray
    variance: FloatArray
    count: int


def moments_of(values: NDArray[Any]) -> BatchMoments:
    """Return the moments of `values` of shape (elements, C), computed in float64."""
    elements, channels = values.shape
    rows = max(1, _CHUNK // max(1, channels))
    chunks = (values[start : start + rows] for start in range(0, elements, rows))
    empty = BatchMoments(np.zeros(channels), np.zeros(channels), 0)
    return merged([empty, *map(_chunk_moments, chunks)])


def _chunk_moments(values: NDArray[Any]) -> BatchMoments:
    exact = values.astype(np.float64)
    with np.errstate(all="ignore"):  # NaN and infinity are seen by who uses the result
        return BatchMoments(exact.mean(axis=0), exact.var(axis=0), len(exact))


def merged(parts: Iterable[BatchMoments]) -> BatchMoments:
    """Return the moments of all elements of some parts together."""
    return reduce(_merge, parts)


def _merge(first: BatchMoments, second: BatchMoments) -> BatchMoments:
    count = first.count + second.count
    if not first.count or not second.count:
        return second if second.count else first
    share = second.count / count
    with np.errstate(all="ignore"):
        apart = second.mean - first.mean
        mean = first.mean + share * apart
        within = (1.0 - share) * first.variance + share * second.variance
        return BatchMoments(mean, within + share * (1.0 - share) * apart**2, count)


class PooledMoments:
    """The moments of one layer's input over all batches that were added.

    Standard errors are estimated from the spread between batches. So they hold for batches that
    are independent of each other, and grow large where the samples are sorted.
    """

    def __init__(self) -> None:
        self.batches = 0
        self._groups: list[BatchMoments] = []
        self._group_size = 1  # batches in each group but the last
        self._in_last = 0  # batches in the last group

    def add(self, batch: BatchMoments) -> None:
        """Add the moments of one batch; one without elements is ignored."""
        if not batch.count:
            return
        self.batches += 1
        if self._groups and self._in_last < self._group_size:
            self._groups[-1] = _merge(self._groups[-1], batch)
            self._in_last += 1
            return
        if len(self._groups) == _MOST_GROUPS:
            pairs = zip(self._groups[::2], self._groups[1::2], strict=True)
            self._groups = [_merge(*pair) for pair in pairs]
            self._group_size *= 2
        self._groups.append(batch)
        self._in_last = 1

    @property
    def total(self) -> BatchMoments:
        """The moments of all elements; raises `ValueError` if there are none."""
        if not self._groups:
            raise ValueError("no batch with elements was added")
        return merged(self._groups)

    @property
    def mean(self) -> FloatArray:
        """The pooled mean, of shape (C,)."""
        return self.total.mean

    @property
    def variance(self) -> FloatArray:
        """The pooled variance of the population, of shape (C,)."""
        return self.total.variance

    @property
    def count(self) -> int:
        """Elements per channel in all batches."""
        return sum(group.count for group in self._groups)

    def mean_errors(self, epsilon: float) -> FloatArray:
        """Return the standard error of each mean in deviations, sqrt(variance + epsilon).

        That is what inference divides by. The errors are infinite for fewer than two batches.
        """
        total = self.total
        means = [group.mean for group in self._groups]
        errors: FloatArray = self._errors(means, total.mean) / np.sqrt(total.variance + epsilon)
        return errors

    def variance_errors(self, epsilon: float) -> FloatArray:
        """Return the standard error of each variance as a share of variance + epsilon.

        The errors are infinite for fewer than two batches.
        """
        total = self.total
        spreads = [group.variance + (group.mean - total.mean) ** 2 for group in self._groups]
        return self._errors(spreads, total.variance) / (total.variance + epsilon)

    def _errors(self, parts: list[FloatArray], pooled: FloatArray) -> FloatArray:
        """Return the standard errors of a weighted mean of independent parts."""
        number = len(parts)
        if number < 2:
            return np.full(pooled.shape, np.inf)
        weights = np.array([group.count for group in self._groups]) / self.count
        apart = np.stack(parts) - pooled
        errors: FloatArray = np.sqrt(
            number / (number - 1) * np.einsum("i,ic->c", weights**2, apart**2)
        )
        return errors
