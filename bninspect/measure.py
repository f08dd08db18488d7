"""The numbers that rules ask of every member, for all members of a checkpoint at once.

A call of numpy costs a microsecond whatever the size of a vector, and BN vectors are short: so
those of one element type are joined, and each number is taken of all of them in one go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bninspect.model import Values, bitwise_equal

Member = tuple[NDArray[Any], tuple[float, ...]]


def measure(members: Sequence[Member]) -> list[Values]:
    """The `Values` of each member, given as its array (of any shape) and what it may start from.

    The initial value of a member is the candidate that all its channels hold bit by bit, else the
    first candidate; None without candidates.
    """
    measured: dict[int, Values] = {}
    by_type: dict[Any, list[int]] = {}
    for index, (array, candidates) in enumerate(members):
        if array.size:
            by_type.setdefault(array.dtype, []).append(index)
        else:
            measured[index] = _empty(array, candidates)
    for indexes in by_type.values():
        measured |= zip(indexes, _measure_joined([members[i] for i in indexes]), strict=True)
    return [measured[index] for index in range(len(members))]


def _measure_joined(members: list[Member]) -> list[Values]:
    """The values of members of one element type, none of them empty."""
    arrays = [array.reshape(-1) for array, _ in members]
    sizes = [array.size for array in arrays]
    joined = np.concatenate(arrays)
    starts = np.cumsum([0, *sizes[:-1]])
    lowest = np.minimum.reduceat(joined, starts).tolist()
    highest = np.maximum.reduceat(joined, starts).tolist()
    equal = {}
    for value in {value for _, candidates in members for value in candidates}:
        places = np.flatnonzero(bitwise_equal(joined, value))
        owners = np.searchsorted(starts, places, side="right") - 1
        equal[value] = np.bincount(owners, minlength=len(arrays)).tolist()
    measured = []
    for index, (array, size) in enumerate(zip(arrays, sizes, strict=True)):
        initial = None
        for candidate in members[index][1]:
            if initial is None or equal[candidate][index] == size:
                initial = candidate
        at_initial = None if initial is None else equal[initial][index]
        measured.append(
            Values(array, size, float(lowest[index]), float(highest[index]), initial, at_initial)
        )
    return measured


def _empty(array: NDArray[Any], candidates: tuple[float, ...]) -> Values:
    initial = candidates[0] if candidates else None
    at_initial = None if initial is None else 0
    return Values(array.reshape(-1), 0, math.nan, math.nan, initial, at_initial)
