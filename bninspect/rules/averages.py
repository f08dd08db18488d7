"""Arithmetic of moving averages: momentum, number of updates, share of the initial value left.

After n updates with momentum m an average holds m^n of its initial value.
"""

from __future__ import annotations

import math

from bninspect.model.layer import BNLayer
from bninspect.model.rule import RuleContext

# The smallest normal float32. Below it TensorFlow flushes to 0, or stops at this number where an
# update subtracts a share of the difference.
LEAST_NORMAL = 2.0**-126
USUAL_MOMENTUM = 0.99  # the default of Keras and tf.layers
# The largest relative error of a power of the momentum that was multiplied out in float32; and that
# of one more update.
_POWER_TOLERANCE, _ROUNDING = 1e-3, 2.0**-23


def momentum_of(layer: BNLayer, context: RuleContext) -> float | None:
    """Return the layer's own momentum, else the one that the user gave."""
    return layer.momentum if layer.momentum is not None else context.momentum


def known_momentum(layer: BNLayer, context: RuleContext) -> float | None:
    """Return `momentum_of`, else that of the graph, which is slow: only call it for a finding.

    The graph's momentum is None unless all its updates have the same.
    """
    momentum = momentum_of(layer, context)
    if momentum is None and (graph := context.graph(layer)) is not None:
        return graph.momentum
    return momentum


def updates_at_most(layer: BNLayer, context: RuleContext) -> int | None:
    """Return the number of updates by the stored step: one per step and call of the layer.

    None if no step is stored, or if the layer's configuration says that training does not update
    it.
    """
    steps = context.step
    if steps is None and all(count.exact for count in context.optimizer_steps):
        steps = max((count.steps for count in context.optimizer_steps), default=None)
    if layer.keras is None:
        return steps
    if layer.keras.frozen or layer.keras.inference_only or steps is None:
        return None
    return steps * layer.keras.calls


def updates_a_step(layer: BNLayer, context: RuleContext) -> int | None:
    """Return how often a training step updates the variance, by the graph; None if unknown.

    A layer that is built twice (reuse=True) is updated twice. The number is unknown for updates in
    a loop, and for those that no training op runs.
    """
    graph = context.graph(layer)
    if graph is None or not graph.training_ops:
        return 1
    updates = [update for update in graph.updates if update.role == "moving_variance"]
    if any(update.in_loop for update in updates):
        return None
    return len([update for update in updates if update.run_by]) or None


def expected_updates(layer: BNLayer, context: RuleContext) -> int | None:
    """Return how many updates the variance got by the stored step; None if that is not known."""
    updates = updates_at_most(layer, context)
    if updates is None:
        return None
    times = updates_a_step(layer, context)
    return None if times is None else updates * times


def is_forgotten(initial: float, momentum: float | None, updates: int | None) -> bool:
    """Return whether `updates` updates by 0 leave nothing of `initial`; False if unknown."""
    if momentum is None or updates is None:
        return False
    return abs(initial) * momentum**updates <= LEAST_NORMAL


def power(initial: float, momentum: float | None, updates: int | None) -> float | None:
    """Return the part of `initial` that is left; None if the momentum is not between 0 and 1."""
    if momentum is None or updates is None or not 0.0 < momentum < 1.0:
        return None
    return float(initial * momentum**updates)


def is_power(value: float, exact: float | None) -> bool:
    """Return whether a variance is an exact power of the momentum, but for float32's rounding."""
    return exact is not None and abs(value - exact) <= _POWER_TOLERANCE * exact


def whole_power(value: float, initial: float, momentum: float | None) -> int | None:
    """Return the number of updates that leave `value` of `initial`; None if no whole number does.

    `value` lies between 0 and `initial`.
    """
    if momentum is None or not 0.0 < momentum < 1.0:
        return None
    updates = _nearest_power(value, initial, momentum)
    exact = initial * momentum**updates
    return updates if abs(value - exact) <= _near(momentum) * exact else None


def is_no_power(value: float, initial: float, momentum: float) -> bool:
    """Return whether it is certain that no number of updates leaves `value` of `initial`.

    It is uncertain if float32's rounding error is as large as the gap to the next power.
    """
    if not 0.0 < momentum < 1.0:
        return True
    if whole_power(value, initial, momentum) is not None:
        return False
    return _nearest_power(value, initial, momentum) * _ROUNDING < _near(momentum)


def _nearest_power(value: float, initial: float, momentum: float) -> int:
    return round(math.log(value / initial) / math.log(momentum))


def _near(momentum: float) -> float:
    """Return a tolerance below half the gap to the next power, so that not every number fits."""
    return min(_POWER_TOLERANCE, (1.0 - momentum) / 4)
