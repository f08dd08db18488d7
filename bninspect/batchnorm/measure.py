"""Minimum, maximum and initial values of all members of a checkpoint, computed together.

A call of numpy takes a microsecond for a vector of any size, and BN vectors are short. So vectors
of one element type are concatenated, and each number is computed for all of them in one call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bninspect.model.checkpoint import HALVES
from bninspect.model.layer import BNLayer, Values, equals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Member = tuple[NDArray[Any], tuple[float, ...]]


def measure(members: Sequence[Member]) -> list[Values]:
    """Return the `Values` of each member, given as array (of any shape) and initial candidates.

    The initial value of a member is the candidate that all its channels equal, else the first
    candidate; None without candidates.
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
    """Return the values of members of one element type, none of them empty."""
    arrays = [array.reshape(-1) for array, _ in members]
    sizes = [array.size for array in arrays]
    joined = np.concatenate(arrays)
    starts = np.cumsum([0, *sizes[:-1]])
    lowest = np.minimum.reduceat(joined, starts).tolist()
    highest = np.maximum.reduceat(joined, starts).tolist()
    equal = {}
    for value in {value for _, candidates in members for value in candidates}:
        positions = np.flatnonzero(equals(joined, value))
        owners = np.searchsorted(starts, positions, side="right") - 1
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


def rounded(values: Values, quantized: str) -> Values:
    """Return values that were quantized to a type after the training.

    With uint8 and uint16 a vector of one number is kept exactly, and 0 keeps its place among others
    that were rounded to it (quantize_weights of tensorflowjs/quantization.py); a type of half
    precision rounds every number. So of rounded vectors only the whole can be at its initial value,
    no single channel.
    """
    if values.constant and quantized not in HALVES:
        return values
    at_initial = values.at_initial if values.all_initial or values.initial is None else 0
    return values._replace(is_exact=False, at_initial=at_initial)


def settle_initial(layers: Sequence[BNLayer]) -> list[BNLayer]:
    """Return the layers with one initial variance where their family has several.

    The rarer value (0) is taken only if the variances of all layers of the family equal it: the
    variance of a dead layer ends at 0 too, among layers that moved.
    """
    settled = list(layers)
    for family in {layer.family for layer in layers}:
        indexes = [index for index, layer in enumerate(layers) if layer.family == family]
        initials = {
            values.initial
            for index in indexes
            if (values := layers[index].values.get("moving_variance")) and values.channels
        }
        if len(initials) > 1:
            for index in indexes:
                settled[index] = _with_usual_initial(layers[index])
    return settled


def _with_usual_initial(layer: BNLayer) -> BNLayer:
    values = layer.values.get("moving_variance")
    candidates = layer.initial.get("moving_variance", ())
    if values is None or not candidates or values.initial == candidates[0]:
        return layer
    at_initial = int(values.equal_to(candidates[0]).sum())
    if not values.is_exact and at_initial < values.channels:
        at_initial = 0
    settled = values._replace(initial=candidates[0], at_initial=at_initial)
    return layer.with_fields(values={**layer.values, "moving_variance": settled})
