"""What single channels show: never updated, or dead.

A dead channel has an input that is always 0 (a ReLU that never fires): its mean stays 0 and its
variance shrinks by the momentum with each update, to momentum^updates, the same number in every
dead channel, until it is nothing. That is no sign of missing updates but of their presence.
"""

from __future__ import annotations

import math
from collections import Counter

from bninspect.model.layer import BNLayer, Values
from bninspect.model.rule import RuleContext

# Far below every epsilon in use (1e-6 and more) and far above where float32 ends (1e-38).
COLLAPSED_VARIANCE = 1e-12
# How far momentum^steps, multiplied out in float32, may lie from the exact power.
_POWER_TOLERANCE = 1e-3


def channels_in_words(layer: BNLayer) -> str:
    """All of a layer's channels, as part of a sentence."""
    return "its only channel" if layer.channels == 1 else f"all {layer.channels} channels"


def untouched_channels(mean: Values, variance: Values) -> int:
    """Channels with both statistics equal to their initial values.

    Where a variance starts at 0 that is none: updates with nothing but zeros leave it there, and
    the other channels show that there were updates (see `dead_channels`).
    """
    return 0 if variance.initial == 0.0 else _at_initial(mean, variance)


def saw_only_zeros(layer: BNLayer) -> bool:
    """Whether the layer counts updates and its statistics are still the 0 they started from.

    Then its whole input is always 0: a dead layer, not one that was forgotten.
    """
    both = layer.statistics
    return (
        both is not None
        and bool(layer.training.updates)
        and all(values.all_initial and values.initial == 0.0 for values in both)
    )


def _at_initial(mean: Values, variance: Values) -> int:
    if mean.initial is None or variance.initial is None:
        return 0
    if not mean.at_initial or not variance.at_initial:
        return 0
    both = mean.equal_to(mean.initial) & variance.equal_to(variance.initial)
    return int(both.sum())


def dead_channels(mean: Values, variance: Values, momentum: float | None, step: int | None) -> int:
    """Channels whose mean is exactly 0 and whose variance decayed as only zeros make it decay.

    That is: it has collapsed below `COLLAPSED_VARIANCE`, or it is momentum^steps of the initial
    value where both are known, or at least two such channels hold the same number between 0 and
    the initial value. A variance that starts at 0 does not decay: it is still there.
    """
    initial = variance.initial
    if mean.initial != 0.0 or not mean.at_initial or variance.all_initial or initial is None:
        return 0
    if initial == 0.0:
        return _at_initial(mean, variance)
    silent = variance.array[mean.equal_to(0.0) & ~variance.equal_to(initial)].astype("f8")
    counts = Counter(silent[(silent >= 0.0) & (silent < initial)].tolist())
    power = _decayed(initial, momentum, step)
    return sum(
        count
        for value, count in counts.items()
        if value < COLLAPSED_VARIANCE
        or count > 1
        or (power is not None and abs(value - power) <= _POWER_TOLERANCE * power)
    )


def dead_of(layer: BNLayer, context: RuleContext) -> int:
    """How many channels of a layer are dead; 0 where its statistics were not read."""
    if layer.statistics is None:
        return 0
    if saw_only_zeros(layer):
        return layer.statistics[0].channels
    return dead_channels(*layer.statistics, momentum_of(layer, context), context.step)


def _decayed(initial: float, momentum: float | None, step: int | None) -> float | None:
    if momentum is None or step is None or not 0.0 < momentum < 1.0:
        return None
    return float(initial * momentum**step)


def counted_by_dead_channels(layer: BNLayer, momentum: float | None) -> tuple[float, int] | None:
    """The variance that several dead channels share, and how many updates made it that.

    None if there is none, or if it is no whole power of the momentum.
    """
    if layer.statistics is None or momentum is None or not 0.0 < momentum < 1.0:
        return None
    mean, variance = layer.statistics
    if mean.initial != 0.0 or not mean.at_initial or not variance.initial:
        return None
    silent = variance.array[mean.equal_to(0.0) & ~variance.equal_to(variance.initial)].astype("f8")
    shared = [
        (count, value)
        for value, count in Counter(silent.tolist()).items()
        if count > 1 and COLLAPSED_VARIANCE < value < variance.initial
    ]
    if not shared:
        return None
    value = max(shared)[1]
    updates = round(math.log(value / variance.initial) / math.log(momentum))
    power = variance.initial * momentum**updates
    # Less than half the way to the next power, or any number would do.
    near = min(_POWER_TOLERANCE, (1.0 - momentum) / 4)
    return (value, updates) if abs(value - power) <= near * power else None


def known_momentum(layer: BNLayer, context: RuleContext) -> float | None:
    """`momentum_of`, else the one that the graph has: asked only for a finding."""
    momentum = momentum_of(layer, context)
    if momentum is None and (graph := context.graph(layer)) is not None:
        return graph.momentum
    return momentum


def momentum_of(layer: BNLayer, context: RuleContext) -> float | None:
    """The layer's own momentum, else the one that the user gave."""
    return layer.momentum if layer.momentum is not None else context.momentum
