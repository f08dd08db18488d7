"""Evidence of training in a checkpoint: the step, gamma and beta, optimizer slots.

Optimizer slots of a name-based checkpoint lie below the variable's own name
(`bn/gamma/Momentum`, tensorflow/python/training/slot_creator.py). A slot shows training
only if it starts at a known value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.layer import BNLayer, OptimizerSteps, TrainingEvidence
from bninspect.model.roles import AFFINE, STATISTICS, Role

_STEPS = ("global_step", "Global_Step")  # the second is tflearn's, a float32
_ITERATIONS = r"(^|/)(_?iterations?|iter)(:\d+)?$"
_OBJECT_STEP = r"(^|/)step(/\.ATTRIBUTES/VARIABLE_VALUE)?$"
# The groups of layers in Keras files (Keras 2.13: the second).
_WITHIN_LAYERS = ("layers/", "_layer_checkpoint_dependencies/")
_COUNTERS = ("int64", "int32", "uint64", "uint32", "float32")
_MOST_DEVICES = 4096

_UPDATE_COUNTERS = ("/local_step", "/_counter", "/counter", "/accu_counter")

# The slots that start at a known value, by the default names of optimizers
# (tensorflow/python/training/{momentum,adam,rmsprop,adagrad,adadelta,ftrl}.py,
# tensorflow/contrib/opt/python/training/).
SLOT_INITIAL = {
    "Momentum": 0.0,
    "Adam": 0.0,
    "Adam_1": 0.0,
    "AdaMax": 0.0,
    "AdaMax_1": 0.0,
    "RMSProp": 1.0,
    "RMSProp_1": 0.0,
    "Adadelta": 0.0,
    "Adadelta_1": 0.0,
    "Ftrl_1": 0.0,
    "AddSign": 0.0,
    "PowerSign": 0.0,
}


# Adam keeps beta1^(t+1) and beta2^(t+1) after t steps (tensorflow/python/training/adam.py), each a
# float32 that every step multiplies; the first is 0 after some 850 steps. Neither beta is stored:
# the usual ones are tried, and both powers must give the same t. If the first is 0, the second fits
# several t, and the smallest is a lower bound.
_ADAM_POWER = r"(?P<scope>(?:.*/)?)beta1_power(?P<again>_\d+)?"
_BETA_1, _BETA_2 = (0.9, 0.5), (0.999, 0.9, 0.99, 0.9999, 0.98)
_LEAST_NORMAL = 2.0**-126
_WHOLE = 0.01


def read_step(checkpoint: Checkpoint) -> int | None:
    """Return the training step stored in the checkpoint, or None.

    It is `global_step` in the outermost scope, else the optimizer's count of iterations, else an
    object's `step` (Sonnet's optimizers, tf.train.Checkpoint(step=…)); the largest, if there are
    several. Raises a `ReadProblem` if it is stored and cannot be read.
    """
    may_be_replicated = checkpoint.named_by == "tree"
    for variables in _step_candidates(checkpoint):
        if counts := _counts(variables, may_be_replicated=may_be_replicated):
            return max(counts)
    return None


def lone_step(checkpoint: Checkpoint) -> tuple[Variable, ...] | None:
    """Return the integer that tells the step whatever its value, unless negative; () without any.

    None if `read_step` may have to choose between several variables by their values.
    """
    for variables in _step_candidates(checkpoint):
        if len(variables) > 1:
            return None
        if variables:
            (step,) = variables
            is_integer = step.shape == () and step.dtype in ("int32", "int64")
            return (step,) if is_integer and not step.unwritten else None
    return ()


def _step_candidates(checkpoint: Checkpoint) -> Iterator[list[Variable]]:
    """Yield the variables that may be the step, those of the surest names first."""
    names = _named_steps(checkpoint)
    depth = min((name.count("/") for name in names.values()), default=0)
    yield [
        checkpoint.variables[stored] for stored, name in names.items() if name.count("/") == depth
    ]
    yield _outermost(checkpoint, _matching(checkpoint, "iter", _ITERATIONS))
    if checkpoint.named_by != "graph":
        yield [*_matching(checkpoint, "step", _OBJECT_STEP)]


def _named_steps(checkpoint: Checkpoint) -> dict[str, str]:
    known = checkpoint.known_names
    return {
        stored: name
        for stored in checkpoint.variables
        if (name := known.get(stored, stored)).rpartition("/")[2] in _STEPS
    }


def step_variables(checkpoint: Checkpoint) -> Iterator[Variable]:
    """Yield the variables that `read_step` will most likely read."""
    names = _named_steps(checkpoint)
    for stored in names:
        yield checkpoint.variables[stored]
    if not names:
        yield from _matching(checkpoint, "iter", _ITERATIONS)


def evidence_variables(checkpoint: Checkpoint, layers: Iterable[BNLayer]) -> Iterator[Variable]:
    """Yield the variables that evidence of some layers may read, for prefetching."""
    variables = checkpoint.variables
    for name in variables:
        if re.search(r"beta[12]_power(_\d+)?$", name):
            yield variables[name]
    slots = Slots(variables)
    for layer in layers:
        yield from (helper for helper in layer.helpers.values() if helper.shape == ())
        for role in AFFINE:
            if role in layer.variables:
                yield from slots.of(layer.variables[role].name)


def read_optimizer_steps(checkpoint: Checkpoint) -> tuple[OptimizerSteps, ...]:
    """Count the steps of each Adam optimizer of TF1 by the powers of beta that it stores.

    Raises a `ReadProblem` if one is stored and cannot be read.
    """
    variables = checkpoint.variables
    steps: list[OptimizerSteps] = []
    for name in variables:
        match = "beta1_power" in name and re.fullmatch(_ADAM_POWER, name)
        if not match:
            continue
        second = f"{match['scope']}beta2_power{match['again'] or ''}"
        if second in variables:
            powers = [_power(variables[power_name]) for power_name in (name, second)]
            steps += _adam_steps(name, *powers)
    return tuple(steps)


def _power(variable: Variable) -> float:
    return float(variable.read()) if variable.shape == () else math.nan


def _adam_steps(name: str, first: float, second: float) -> Iterator[OptimizerSteps]:
    """Yield the one number of steps that fits both powers, if there is one."""
    if not (0.0 <= first < 1.0 and _LEAST_NORMAL <= second < 1.0):
        return
    if first < _LEAST_NORMAL:
        # Underflowed, or a beta1 of 0 (WGAN-GP's): the second power alone fits several numbers.
        counts = {
            round(steps)
            for beta_2 in _BETA_2
            for steps in [_exponent(second, beta_2)]
            if abs(steps - round(steps)) < _WHOLE + steps * 1e-3
        }
        if least := min(counts, default=0):
            yield OptimizerSteps(name, least - 1, exact=False)
        return
    counts = {
        round(steps)
        for beta_1 in _BETA_1
        for beta_2 in _BETA_2
        for steps in [_exponent(first, beta_1)]
        if abs(steps - round(steps)) < _WHOLE
        and abs(_exponent(second, beta_2) - round(steps)) < _WHOLE + steps * 1e-3
    }
    if len(counts) == 1:
        yield OptimizerSteps(name, counts.pop() - 1)


def _exponent(power: float, base: float) -> float:
    return math.log(power) / math.log(base)


def _matching(checkpoint: Checkpoint, part: str, expression: str) -> Iterator[Variable]:
    """Yield the variables, the optimizer's too, whose names match and contain `part`."""
    known = checkpoint.known_names
    for variables in (checkpoint.variables, checkpoint.optimizer):
        for stored in variables:
            name = known.get(stored, stored)
            if part in name and re.search(expression, name):
                yield variables[stored]


def _outermost(checkpoint: Checkpoint, variables: Iterable[Variable]) -> list[Variable]:
    """Return the variables that belong to no layer, else all.

    In .keras and .weights.h5 files a model within the model keeps the optimizer that it was
    compiled with, whose steps are no steps of this training (keras/src/saving/saving_lib.py).
    """
    candidates = list(variables)
    if checkpoint.format not in ("keras-zip", "keras-weights-h5"):
        return candidates
    own = [variable for variable in candidates if not variable.name.startswith(_WITHIN_LAYERS)]
    return own or candidates


def _counts(variables: Iterable[Variable], *, may_be_replicated: bool = False) -> list[int]:
    """Return the values of those `variables` that are counters: others share their names."""
    counters = [
        variable for variable in variables if variable.dtype in _COUNTERS and not variable.unwritten
    ]
    numbers = [float(variable.read()) for variable in counters if variable.shape == ()]
    if may_be_replicated:
        numbers += [number for variable in counters for number in _replicated(variable)]
    return [int(value) for value in numbers if value.is_integer() and value >= 0]


def _replicated(variable: Variable) -> Iterator[float]:
    """Yield the number that a vector repeats for each device.

    jax.pmap takes a state that has each scalar so (flax/jax_utils.py: replicate).
    """
    if len(variable.shape) == 1 and 0 < variable.size <= _MOST_DEVICES:
        values = variable.read()
        if (values == values[0]).all():
            yield float(values[0])


class Slots:
    """The optimizer slots of a checkpoint that start at a known value."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        """Group the names of slots by those of the variables that they belong to."""
        self._variables = variables
        self._names: dict[str, list[str]] = {}
        for name in variables:
            owner, _, slot = name.rpartition("/")
            if slot in SLOT_INITIAL:
                self._names.setdefault(owner, []).append(name)

    def of(self, variable: str) -> list[Variable]:
        """Return the slots of the variable of this name."""
        return [self._variables[name] for name in self._names.get(variable, ())]


def training_evidence(
    layer: BNLayer,
    slots: Slots,
    step: int | None,
    optimizers: Sequence[OptimizerSteps] = (),
) -> TrainingEvidence:
    """Collect the evidence that `layer` was trained: step, gamma and beta, their optimizer slots.

    `layer` has its values, `optimizers` are the counts of `read_optimizer_steps`. A step proves
    nothing about a layer that the configuration calls frozen. Raises a `ReadProblem` if a slot
    cannot be read.
    """
    facts = []
    testable = step is not None or bool(optimizers)
    if step is not None and step > 0 and layer.trainable is not False:
        facts.append(f"the stored step is {step}")
    facts += [str(count) for count in optimizers if count.steps > 0]
    is_trained = bool(facts)
    unmoved: list[Role] = []
    is_trained_here = False
    for role in AFFINE:
        values = layer.values.get(role)
        if values is None:
            continue
        # A slot that never moved got no gradient, so the value has not changed since the start.
        needed = not (is_trained and values.all_initial)
        its_slots = slots.of(layer.variables[role].name) if needed else []
        slot_moved = any(map(_slot_moved, its_slots))
        is_trained_here = is_trained_here or slot_moved
        if its_slots and not slot_moved:
            unmoved.append(role)
        if slot_moved and not is_trained:
            facts.append(f"an optimizer slot of {role} moved")
        testable = testable or values.initial is not None or bool(its_slots)
        if values.has_moved and role not in unmoved:
            facts.append(f"{role} moved away from {values.initial:g}")
    return TrainingEvidence(
        tuple(facts),
        testable,
        own_updates(layer),
        tuple(unmoved),
        optimized(layer, slots),
        is_trained_here,
    )


def optimized(layer: BNLayer, slots: Slots) -> tuple[Role, ...]:
    """Return the statistics whose optimizer slots moved: gradients or weight decay reached them.

    Only slots that start at 0 count. The mean square of RMSProp shrinks without any gradient.
    Raises a `ReadProblem` if a slot cannot be read.
    """
    return tuple(
        role
        for role in STATISTICS
        if role in layer.variables
        and any(
            _slot_moved(slot)
            for slot in slots.of(layer.variables[role].name)
            if _initial_of(slot) == 0.0
        )
    )


def own_updates(layer: BNLayer) -> int | None:
    """Read the layer's own count of its updates (zero-debias, Haiku, Sonnet 2, compare_gan).

    Raises a `ReadProblem` if it is stored and cannot be read.
    """
    return max(_counts(own_counters(layer)), default=None)


def own_counters(layer: BNLayer) -> list[Variable]:
    """Return the variables in which a layer counts its updates."""
    return [variable for name, variable in layer.helpers.items() if name.endswith(_UPDATE_COUNTERS)]


def _slot_moved(slot: Variable) -> bool:
    values, initial = slot.read(), _initial_of(slot)
    return bool(np.count_nonzero(values != initial if initial else values))


def _initial_of(slot: Variable) -> float:
    return SLOT_INITIAL[slot.name.rpartition("/")[2]]
