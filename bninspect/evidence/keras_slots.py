"""Optimizer slots in Keras files: which weights they belong to, and statistics that have some.

`.h5` files and Orbax store the names of slots, which hold those of the weights. `.keras` and
`.weights.h5` files number them: as many for each variable that the optimizer trains, of the
variable's own shape and one behind the other (`build` in keras/src/optimizers/*.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import gcd

from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS, Role

# The slots that start at 0 (keras/src/optimizers/*.py); averages of squared gradients have the
# power 2.
KERAS_SLOTS = {"v": 2, "velocity": 2, "rms": 2, "m": 1, "momentum": 1}

# The formats that store the names of slots.
SLOTS_BY_NAME = ("keras-h5", "orbax")
_NUMBERED = "optimizer/vars/"
_MOST_SLOTS, _MOST_COUNTERS = 3, 3  # of one variable, of an optimizer
# What else a file keeps that no optimizer trains.
_NOT_TRAINED = ("seed_generator/", "metrics/")


def slot_keys(parts: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the weights that a slot may belong to, with the slot's name."""
    weight, _, slot = parts[-1].rpartition("_")
    if weight and slot in KERAS_SLOTS:
        yield weight, slot
    elif parts[-1] in KERAS_SLOTS:
        for start in range(max(len(parts) - 5, 0), len(parts) - 1):
            yield "_".join(parts[start:-1]), parts[-1]
    for index, part in enumerate(parts[:-1]):
        if part in KERAS_SLOTS:
            yield "_".join(parts[index + 1 :]), part
            return


def name_parts(stored: str) -> list[str]:
    """Return the parts of a stored name, which slashes separate in Keras files, points in Orbax."""
    name = stored.partition(":")[0]
    return name.split("/" if "/" in name else ".")


def weight_name(stored: str) -> str:
    """Return the name that an optimizer gives a weight: that of its group left out, joined by `_`.

    The weights of a layer are below a group of its name: `model_weights/conv/conv/bias:0`. Orbax
    separates by points: `trainable_variables.net.conv.bias`.
    """
    parts = name_parts(stored)
    start = 2 if parts[0] == "model_weights" else 1
    return "_".join(parts[start:])


def optimized_statistics(
    checkpoint: Checkpoint, layers: Sequence[BNLayer]
) -> dict[str, tuple[Role, ...]]:
    """Return the statistics whose optimizer slots moved, by the name of their layer.

    Slots are read only where statistics have some, which they do in no healthy file. Raises a
    `ReadProblem` if one cannot be read.
    """
    if checkpoint.format in SLOTS_BY_NAME:
        return _by_names(checkpoint, layers)
    slots = _slots_of_everything(checkpoint)
    moved = {size: all(map(_has_moved, of_size)) for size, of_size in slots.items()}
    return {
        layer.name: tuple(role for role in STATISTICS if role in layer.variables)
        for layer in layers
        if moved.get(layer.channels or 0)
    }


def may_have_slots(checkpoint: Checkpoint, layers: Sequence[BNLayer]) -> bool:
    """Return whether a statistic has an optimizer slot, moved or not, by names and shapes."""
    if checkpoint.format in SLOTS_BY_NAME:
        return any(True for _ in _slots_by_name(checkpoint, layers))
    return bool(_slots_of_everything(checkpoint))


def _slots_by_name(
    checkpoint: Checkpoint, layers: Sequence[BNLayer]
) -> Iterator[tuple[BNLayer, Role, str]]:
    """Yield the statistics that have a slot by name, with its stored name."""
    owners: dict[str, list[tuple[BNLayer, Role]]] = {}
    for layer in layers:
        for role in STATISTICS:
            if role in layer.variables:
                weight = weight_name(layer.variables[role].name)
                owners.setdefault(weight, []).append((layer, role))
    ends = {
        name_parts(layer.variables[role].name)[-1]
        for of_name in owners.values()
        for layer, role in of_name
    }
    for stored in checkpoint.optimizer:
        if not any(end in stored for end in ends):
            continue
        for weight, _ in slot_keys(name_parts(stored)):
            # Where two layers have one name, the slot may be that of the other.
            if len(owners.get(weight, ())) == 1:
                ((layer, role),) = owners[weight]
                yield layer, role, stored


def _by_names(checkpoint: Checkpoint, layers: Sequence[BNLayer]) -> dict[str, tuple[Role, ...]]:
    """Return the statistics that have a slot by name which moved."""
    moved: dict[str, set[Role]] = {}
    for layer, role, stored in _slots_by_name(checkpoint, layers):
        if _has_moved(checkpoint.optimizer[stored]):
            moved.setdefault(layer.name, set()).add(role)
    return {name: tuple(role for role in STATISTICS if role in one) for name, one in moved.items()}


def _slots_of_everything(checkpoint: Checkpoint) -> Mapping[int, list[Variable]]:
    """Return the slots of vectors by their length, if the optimizer trains all of the model.

    That is so if it has equally many slots of each shape for every float of the model. Then each
    statistic has some; which, their numbers do not tell.
    """
    names = [name for name in checkpoint.variables if not any(one in name for one in _NOT_TRAINED)]
    stored = [name for name in checkpoint.optimizer if name.startswith(_NUMBERED)]
    if len(stored) < len(checkpoint.optimizer) or not _may_be_all(len(names), len(stored)):
        return {}
    model = [one for one in map(checkpoint.variables.__getitem__, names) if _is_trained(one)]
    stored.sort(key=lambda name: (len(name), name))
    slots = [one for one in map(checkpoint.optimizer.__getitem__, stored) if _is_trained(one)]
    of_one = gcd(*(len([*run]) for _, run in groupby(slots, lambda one: one.shape)))
    expected = {shape: of_one * count for shape, count in Counter(v.shape for v in model).items()}
    if expected != Counter(one.shape for one in slots):
        return {}
    by_length: dict[int, list[Variable]] = {}
    for slot in slots:
        if len(slot.shape) == 1:
            by_length.setdefault(slot.size, []).append(slot)
    return by_length


def _may_be_all(variables: int, slots: int) -> bool:
    """Return whether so many variables of an optimizer can be slots of all of a model's."""
    return any(
        slots - counters == each * variables
        for each in range(1, _MOST_SLOTS + 1)
        for counters in range(_MOST_COUNTERS + 1)
    )


def _is_trained(variable: Variable) -> bool:
    return variable.shape != () and "float" in variable.dtype


def _has_moved(slot: Variable) -> bool:
    return bool(slot.read().any())
