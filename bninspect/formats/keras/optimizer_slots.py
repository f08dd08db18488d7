"""Optimizer slots of a weights file: how many vectors of each length an optimizer trains.

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
    """Return how many vectors of each length an optimizer trains, by the shapes of its slots.

    `model` has the shapes of all floats of the model, `slots` those of the slots in their order.
    None where they tell nothing: unless there are equally many slots for each matrix or kernel, a
    part of the model is frozen, or the optimizer keeps slots of other shapes (Adafactor). As many
    have to lie behind each other, else there are matrices that are not trained (masks of pruning).
    """
    stored, kept = Counter(model), Counter(slots)
    each = {
        kept[shape] / count if shape in kept else 0.0
        for shape, count in stored.items()
        if len(shape) > 1
    }
    if len(each) != 1:
        return None
    (of_one,) = each
    if of_one != gcd(*(len([*run]) for _, run in groupby(slots))):
        return None
    vectors = [shape for shape in stored if len(shape) == 1]
    if not of_one or any(kept[shape] % of_one for shape in vectors):
        return None
    return {shape[0]: int(kept[shape] / of_one) for shape in vectors}
