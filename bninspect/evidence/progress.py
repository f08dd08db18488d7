"""How far training got, and whether a layer took part in it: step, gamma and beta, slots.

Optimizer slots of a name-based checkpoint lie below the variable's own name
(`bn/gamma/Momentum`, tensorflow/python/training/slot_creator.py). Only those that start at a known
value can show anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from bninspect.model import AFFINE, BNLayer, Checkpoint, TrainingEvidence, Values, Variable

_STEPS = ("global_step", "Global_Step")  # the second is tflearn's, a float32
_ITERATIONS = r"(^|/)(_?iterations?|iter)(:\d+)?$"
_OBJECT_STEP = r"(^|/)step(/\.ATTRIBUTES/VARIABLE_VALUE)?$"
_COUNTERS = ("int64", "int32", "uint64", "uint32", "float32")

_UPDATE_COUNTERS = ("/local_step", "/_counter", "/counter", "/accu_counter")

# tensorflow/python/training/{momentum,adam,rmsprop,adagrad,adadelta,ftrl}.py
_SLOT_INITIAL = {
    "Momentum": 0.0,
    "Adam": 0.0,
    "Adam_1": 0.0,
    "RMSProp": 1.0,
    "RMSProp_1": 0.0,
    "Adadelta": 0.0,
    "Adadelta_1": 0.0,
    "Ftrl_1": 0.0,
}


def read_step(checkpoint: Checkpoint) -> int | None:
    """The training step stored in the checkpoint, or None.

    That is `global_step`, the one in the outermost scope, else the optimizer's count of
    iterations, else an object's `step` (Sonnet's optimizers, tf.train.Checkpoint(step=…)); the
    largest, if there are several. Raises a `ReadProblem` if it is stored and
    cannot be read.
    """
    known = checkpoint.known_names
    names = {
        stored: name
        for stored in checkpoint.variables
        if (name := known.get(stored, stored)).rpartition("/")[2] in _STEPS
    }
    depth = min((name.count("/") for name in names.values()), default=0)
    steps = _counts(
        checkpoint.variables[stored] for stored, name in names.items() if name.count("/") == depth
    )
    steps = steps or _counts(_matching(checkpoint, "iter", _ITERATIONS))
    if not steps and checkpoint.named_by == "object":
        steps = _counts(_matching(checkpoint, "step", _OBJECT_STEP))
    return max(steps, default=None)


def _matching(checkpoint: Checkpoint, part: str, expression: str) -> Iterator[Variable]:
    """The variables, the optimizer's too, whose names match; `part` is quick to look for."""
    known = checkpoint.known_names
    for variables in (checkpoint.variables, checkpoint.optimizer):
        for stored in variables:
            name = known.get(stored, stored)
            if part in name and re.search(expression, name):
                yield variables[stored]


def _counts(variables: Iterable[Variable]) -> list[int]:
    """The scalars among `variables` that count something; other variables share their names."""
    scalars = [
        float(variable.read())
        for variable in variables
        if variable.shape == () and variable.dtype in _COUNTERS
    ]
    return [int(value) for value in scalars if value.is_integer() and value >= 0]


def training_evidence(
    layer: BNLayer, variables: Mapping[str, Variable], step: int | None
) -> TrainingEvidence:
    """What shows that `layer` was trained: step, gamma and beta, and their optimizer slots.

    `layer` has its values. A step says nothing of a layer that the configuration calls frozen.
    Raises a `ReadProblem` if a slot cannot be read.
    """
    facts = []
    testable = step is not None
    if step is not None and step > 0 and layer.trainable is not False:
        facts.append(f"the stored step is {step}")
    trained = bool(facts)
    for role in AFFINE:
        values = layer.values.get(role)
        if values is None:
            continue
        # Slots are asked only where the step does not tell. One that never moved has seen no
        # gradient: whatever the value is now, it started there.
        slots = [] if trained else _slots(layer.variables[role].name, variables)
        slot_moved = any(_slot_moved(slot) for slot in slots)
        if slot_moved:
            facts.append(f"an optimizer slot of {role} moved")
        testable = testable or values.initial is not None or bool(slots)
        if values.initial is not None and _moved(values) and (slot_moved or not slots):
            facts.append(f"{role} moved away from {values.initial:g}")
    return TrainingEvidence(tuple(facts), testable, _updates(layer))


def _updates(layer: BNLayer) -> int | None:
    """The updates that the layer counts for its averages (zero-debias, Sonnet 2, compare_gan)."""
    counters = (
        variable for name, variable in layer.helpers.items() if name.endswith(_UPDATE_COUNTERS)
    )
    return max(_counts(counters), default=None)


def _moved(values: Values) -> bool:
    """Whether training moved gamma or beta.

    Channels that all hold one other number prove nothing: that is how a different constant
    initializer looks, such as the zeros some networks give the last gamma of a block.
    """
    if values.all_initial:
        return False
    return not values.constant or (values.channels == 1 and values.minimum != 0.0)


def _slots(owner: str, variables: Mapping[str, Variable]) -> list[Variable]:
    """The optimizer slots of a variable that start at a known value."""
    names = (f"{owner}/{slot}" for slot in _SLOT_INITIAL)
    return [variables[name] for name in names if name in variables]


def _slot_moved(slot: Variable) -> bool:
    values = slot.read()
    return bool((values != _SLOT_INITIAL[slot.name.rpartition("/")[2]]).any())
