"""Signs in a checkpoint that an optimizer writes statistics: their slots, or values near the start.

TensorFlow 1's optimizers store a slot below the name of each variable that they write
(`bn/moving_variance/Momentum`, tensorflow/python/training/slot_creator.py); a variable without a
gradient gets none (optimizer.py, apply_gradients). Gradient descent has no slots; then the values
are the sign. Statistics that only an optimizer writes start at 0 and 1 and move by small steps, or
shrink by weight decay alike in all channels. Statistics of batches are seldom so near to 0 and 1 in
every channel of most layers. A sign is no proof: it is a reason to read the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bninspect.evidence.progress import SLOT_INITIAL
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.layer import BNLayer, Values
from bninspect.model.roles import STATISTICS

# Names below that of a variable that are not slots.
_NO_SLOTS = {"ExponentialMovingAverage", "biased", "local_step"}
# The distance from its start at which a mean (in standard deviations) and a variance (as a factor)
# still count as near.
NEAR_MEAN, NEAR_VARIANCE = 0.5, 2.0


def with_signs_of_optimizers(checkpoint: Checkpoint, layers: Sequence[BNLayer]) -> list[BNLayer]:
    """Return the layers, each marked if an optimizer may write its statistics.

    Only name-based checkpoints and Keras files show that. The layers must have values and training
    evidence. Raises a `ReadProblem` if a slot cannot be read.
    """
    if checkpoint.named_by != "graph":
        return _with_slots_of_keras(checkpoint, layers)
    marked = {layer.name for layer in layers if layer.training.optimized}
    marked |= _with_unknown_slots(checkpoint.variables, layers)
    near = {layer.name for layer in layers if layer.name not in marked and _is_near_start(layer)}
    # An optimizer that writes statistics writes those of most layers: all are among its variables.
    if len(near) * 2 > len(layers) and not stores_slots(checkpoint.variables):
        marked |= near
    if not marked:
        return [*layers]
    return [layer.with_fields(may_be_optimized=layer.name in marked) for layer in layers]


def _with_slots_of_keras(checkpoint: Checkpoint, layers: Sequence[BNLayer]) -> list[BNLayer]:
    """Return the layers of a Keras file, marked if optimizer slots of their statistics moved."""
    if not checkpoint.optimizer:
        return [*layers]
    from bninspect.evidence.keras_slots import optimized_statistics

    moved = optimized_statistics(checkpoint, layers)
    return [
        replace(
            layer,
            may_be_optimized=True,
            training=layer.training._replace(optimized=moved[layer.name]),
        )
        if layer.name in moved
        else layer
        for layer in layers
    ]


def _with_unknown_slots(variables: Mapping[str, Variable], layers: Iterable[BNLayer]) -> set[str]:
    """Find the layers with a variable below a statistic's name that may be a slot.

    It is a slot of an optimizer that is not among the known ones; its initial value is unknown.
    """
    owners = {
        layer.variables[role].name: layer.name
        for layer in layers
        for role in STATISTICS
        if role in layer.variables
    }
    parts = (name.rpartition("/") for name in variables)
    known = _NO_SLOTS | SLOT_INITIAL.keys()
    return {owners[owner] for owner, _, last in parts if owner in owners and last not in known}


def stores_slots(variables: Mapping[str, Variable]) -> bool:
    """Return whether any variable is an optimizer's slot of another one."""
    parts = (name.rpartition("/") for name in variables)
    return any(last not in _NO_SLOTS and owner in variables for owner, _, last in parts)


def _is_near_start(layer: BNLayer) -> bool:
    """Return whether the statistics moved, and are near their initial values in every channel."""
    if layer.statistics is None or layer.all_initial:
        return False
    mean, variance = layer.statistics
    start = variance.initial
    if mean.initial != 0.0 or not start or not variance.minimum > 0.0:
        return False
    if mean.all_initial and variance.constant and variance.maximum < start:
        return True
    return _is_near(mean, variance, start)


def _is_near(mean: Values, variance: Values, start: float) -> bool:
    near_mean = max(-mean.minimum, mean.maximum) <= NEAR_MEAN * start**0.5
    near_variance = start / NEAR_VARIANCE <= variance.minimum <= variance.maximum
    return near_mean and near_variance and variance.maximum <= start * NEAR_VARIANCE
