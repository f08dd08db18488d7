"""Optimizer slots of a weights file: the number of trained vectors of each length.

An optimizer keeps as many slots for each variable that it trains, of the variable's own shape and
one behind the other (`build` in keras/src/optimizers/*.py): one for momentum, two for Adam. They
have numbers, no names; so their shapes are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import gcd

Shape = tuple[int, ...]


def trained_vectors(model: Iterable[Shape], slots: Sequence[Shape]) -> dict[int, int] | None:
    """Return the number of vectors of each length that an optimizer trains, by its slots' shapes.

    `model` has the shapes of all floats of the model, `slots` those of the slots in their order.
    None if they prove nothing: unless there are equally many slots for each matrix or kernel, a
    part of the model is frozen, or the optimizer keeps slots of other shapes (Adafactor). As many
    must follow each other, else there are matrices that are not trained (masks of pruning).
    """
    stored, slot_counts = Counter(model), Counter(slots)
    slots_of_each = {
        slot_counts[shape] / count if shape in slot_counts else 0.0
        for shape, count in stored.items()
        if len(shape) > 1
    }
    if len(slots_of_each) != 1:
        return None
    (of_one,) = slots_of_each
    if of_one != gcd(*(len([*run]) for _, run in groupby(slots))):
        return None
    vectors = [shape for shape in stored if len(shape) == 1]
    if not of_one or any(slot_counts[shape] % of_one for shape in vectors):
        return None
    return {shape[0]: int(slot_counts[shape] / of_one) for shape in vectors}
