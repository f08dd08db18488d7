"""What single channels show: never updated, or dead.

A dead channel has an input that is always 0 (a ReLU that never fires): its mean stays 0 and its
variance shrinks by the momentum with each update, to momentum^updates, the same number in every
dead channel, until it is nothing. That is no sign of missing updates but of their presence.
"""

from __future__ import annotations

from bninspect.model import BNLayer, RuleContext

# Far below every epsilon in use (1e-6 and more) and far above where float32 ends (1e-38).
COLLAPSED_VARIANCE = 1e-12
# How far momentum^steps, multiplied out in float32, may lie from the exact power.
_POWER_TOLERANCE = 1e-3


def has_statistics(layer: BNLayer) -> bool:
    """Whether both statistics are there, with the same number of channels and known initials."""
    mean, variance = layer.values.get("moving_mean"), layer.values.get("moving_variance")
    return (
        mean is not None
        and variance is not None
        and mean.channels == variance.channels > 0
        and mean.initial is not None
        and variance.initial is not None
    )


def untouched_channels(layer: BNLayer) -> int:
    """Channels with both statistics bit by bit at their initial values."""
    mean, variance = layer.values["moving_mean"], layer.values["moving_variance"]
    if mean.initial is None or variance.initial is None or not mean.at_initial:
        return 0
    both = mean.equal_to(mean.initial) & variance.equal_to(variance.initial)
    return int(both.sum())


def dead_channels(layer: BNLayer, context: RuleContext) -> int:
    """Channels whose mean is exactly 0 and whose variance decayed as only zeros make it decay.

    That is: it has collapsed below `COLLAPSED_VARIANCE`, or it is momentum^steps where both are
    known, or at least two such channels hold the same number between 0 and 1.
    """
    mean, variance = layer.values["moving_mean"], layer.values["moving_variance"]
    if mean.initial != 0.0 or not mean.at_initial or variance.all_initial:
        return 0
    silent = variance.array[mean.equal_to(0.0)].astype("f8")
    silent = silent[(silent >= 0.0) & (silent < 1.0)]
    values = sorted(silent.tolist())
    power = _decayed(layer, context)
    return sum(
        value < COLLAPSED_VARIANCE
        or values.count(value) > 1
        or (power is not None and abs(value - power) <= _POWER_TOLERANCE * power)
        for value in values
    )


def _decayed(layer: BNLayer, context: RuleContext) -> float | None:
    momentum = layer.momentum if layer.momentum is not None else context.momentum
    if momentum is None or context.step is None or not 0.0 < momentum < 1.0:
        return None
    return float(momentum**context.step)
