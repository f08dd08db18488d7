"""Counts of channels that were never updated, and of dead channels.

A dead channel has an input that is always 0 (a ReLU that never fires). Its mean stays 0. Its
variance shrinks by the momentum with each update, to momentum^updates, the same number in every
dead channel, until it underflows. Dead channels show that updates ran.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from bninspect.model.layer import BNLayer, Values
from bninspect.model.rule import RuleContext
from bninspect.rules import averages

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Far below every epsilon in use (1e-6 and more) and far above the smallest float32 (1e-38).
COLLAPSED_VARIANCE = 1e-12
# What is left of the largest variance in use (1e8) when its mean has decayed to exactly 0.
FORGOTTEN_VARIANCE = 1e-30
# A mean that a channel may have had when it died: a smaller one is forgotten sooner.
_SMALL_MEAN = 1e-6
# Lower than any momentum in use but 0.
_LOW_MOMENTUM = 0.5


def channels_in_words(layer: BNLayer) -> str:
    """Return all of a layer's channels, as part of a sentence."""
    return "its only channel" if layer.channels == 1 else f"all {layer.channels} channels"


def untouched_channels(mean: Values, variance: Values) -> int:
    """Count the channels with both statistics equal to their initial values.

    0 if the variance starts at 0: updates by zeros leave it there, and the other channels show that
    there were updates (see `dead_channels`).
    """
    return 0 if variance.initial == 0.0 else _at_initial(mean, variance)


def saw_only_zeros(layer: BNLayer) -> bool:
    """Return whether the layer counts updates and its statistics are still their initial 0.

    Then its whole input is always 0: a dead layer, not one that was forgotten.
    """
    statistics = layer.statistics
    return (
        statistics is not None
        and bool(layer.training.updates)
        and all(values.all_initial and values.initial == 0.0 for values in statistics)
    )


def _at_initial(mean: Values, variance: Values) -> int:
    if mean.initial is None or variance.initial is None:
        return 0
    if not mean.at_initial or not variance.at_initial:
        return 0
    mask = mean.equal_to(mean.initial) & variance.equal_to(variance.initial)
    return int(mask.sum())


def dead_channels(mean: Values, variance: Values, momentum: float | None, step: int | None) -> int:
    """Count the channels whose mean is exactly 0 and whose variance decayed as by updates by zeros.

    A variance decayed so if it is below `COLLAPSED_VARIANCE`, or momentum^steps of the initial
    value if both are known, or the same number between 0 and the initial value in at least two
    such channels. A variance that starts at 0 stays 0.
    """
    if mean.initial != 0.0 or not mean.at_initial or variance.all_initial:
        return 0
    if not variance.is_exact and variance.maximum >= COLLAPSED_VARIANCE:
        return 0  # rounded to one number, or to almost 0
    if variance.initial == 0.0:
        return _at_initial(mean, variance)
    silent, initial = _silent(mean, variance)
    exact = averages.power(initial, momentum, step)
    counts = Counter(silent[(silent >= 0.0) & (silent < initial)].tolist())
    return sum(
        count
        for value, count in counts.items()
        if value < COLLAPSED_VARIANCE or count > 1 or averages.is_power(value, exact)
    )


def _silent(mean: Values, variance: Values) -> tuple[NDArray[Any], float]:
    """Return the variances that moved in channels with a mean of 0, and the initial variance."""
    initial = variance.initial or 0.0
    return variance.array[_silent_channels(mean, variance)].astype("f8"), initial


def _silent_channels(mean: Values, variance: Values) -> NDArray[Any]:
    mask: NDArray[Any] = mean.equal_to(0.0) & ~variance.equal_to(variance.initial or 0.0)
    return mask


def dead_of(layer: BNLayer, context: RuleContext) -> int:
    """Count the dead channels of a layer; 0 if its statistics were not read."""
    if layer.statistics is None:
        return 0
    if saw_only_zeros(layer):
        return layer.statistics[0].channels
    count = dead_channels(*layer.statistics, averages.momentum_of(layer, context), context.step)
    return 0 if count and contradictions(layer, context) else count


def is_all_dead(layer: BNLayer, context: RuleContext) -> bool:
    """Return whether all channels of a layer look dead, by its statistics alone."""
    if layer.statistics is None or not layer.statistics[0].all_initial:
        return False
    momentum = averages.momentum_of(layer, context)
    return dead_channels(*layer.statistics, momentum, context.step) == layer.channels


def contradictions(layer: BNLayer, context: RuleContext) -> tuple[str, ...]:
    """Return facts that contradict a layer without a live channel being dead; empty if none does.

    Such a layer has a mean of 0 in every channel, and variances that moved. If its input is always
    0, no gradient reaches gamma, which is multiplied by the normalised input, and a variance is
    momentum^updates of the initial one. That is not so for zeros that were written into the
    statistics, and for a variance that weight decay shrinks.

    Layers with a live channel have no contradictions: a channel may have been dead before a
    training that counts its steps anew.
    """
    if layer.statistics is None:
        return ()
    mean, variance = layer.statistics
    if mean.initial != 0.0 or not mean.all_initial:
        return ()
    if variance.all_initial or not variance.initial:
        return ()
    silent, initial = _silent(mean, variance)
    if not ((silent >= 0.0) & (silent < initial)).all():
        return ()
    momentum = averages.known_momentum(layer, context)
    updates = averages.expected_updates(layer, context)
    facts = []
    if _gamma_moved(layer, _silent_channels(mean, variance)) and not _may_have_died_later(
        silent, momentum, updates, all_dead=context.all_dead
    ):
        facts.append("gamma moved, which no gradient reaches where the input is always 0")
    facts += _no_power_of_momentum(layer, silent.tolist(), initial, momentum)
    if not silent.any() and not context.restarted:
        facts += not_enough_updates(initial, momentum, updates)
    return tuple(facts)


def _gamma_moved(layer: BNLayer, channels: NDArray[Any]) -> bool:
    """Return whether gradients moved gamma in some channels.

    False if all hold one number, which another initializer or weight decay without gradients may
    give. Also False if gamma starts random.
    """
    gamma = layer.values.get("gamma")
    if gamma is None or gamma.initial is None or gamma.channels != channels.size:
        return False
    if gamma.all_initial or "gamma" in layer.training.unmoved:
        return False
    values = gamma.array[channels]
    return bool(values.min() < values.max())


def _may_have_died_later(
    variances: NDArray[Any], momentum: float | None, updates: int | None, *, all_dead: bool
) -> bool:
    """Return whether there were enough updates to forget everything before the input became 0.

    Then both statistics have decayed, and gamma may have moved before. If the number of updates is
    unknown, a variance just above 0 shows that it decayed. Other unknowns are decided in favour of
    a layer that died among live ones, and against a network without a live layer.
    """
    if variances.max() > FORGOTTEN_VARIANCE:
        return False
    if updates is None:
        return bool(variances.any()) or not all_dead
    if momentum is None:
        momentum = averages.USUAL_MOMENTUM if all_dead else _LOW_MOMENTUM
    return averages.is_forgotten(_SMALL_MEAN, momentum, updates)


def _no_power_of_momentum(
    layer: BNLayer, values: list[float], initial: float, momentum: float | None
) -> list[str]:
    """Return the fact that no number of updates leaves one of the variances, if that is so."""
    if momentum is None or layer.dtype != "float32" or not _is_exact(layer):
        return []
    wrong = [
        value
        for value in dict.fromkeys(values)
        if value > COLLAPSED_VARIANCE and averages.is_no_power(value, initial, momentum)
    ]
    if not wrong:
        return []
    factor = "" if initial == 1.0 else f"{initial:g} * "
    return [f"{wrong[0]:.4g} is not {factor}{momentum:g}^n for any number n of updates"]


def _is_exact(layer: BNLayer) -> bool:
    return layer.statistics is not None and layer.statistics[1].is_exact


def not_enough_updates(initial: float, momentum: float | None, updates: int | None) -> list[str]:
    """Return the fact that the updates leave a variance above 0, if they do."""
    if updates == 0:
        return ["the stored step is 0: no update brought the variance to 0"]
    if updates is None:
        return []
    if momentum is None:
        if averages.is_forgotten(initial, _LOW_MOMENTUM, updates):
            return []
        return [f"{updates} updates with a momentum of {_LOW_MOMENTUM} or more leave more than 0"]
    if averages.is_forgotten(initial, momentum, updates):
        return []
    left = initial * momentum**updates
    return [f"{updates} updates with momentum {momentum:g} leave a variance of {left:.4g}, not 0"]


def decayed_as_expected(layer: BNLayer, context: RuleContext) -> bool:
    """Return whether momentum and step agree with the variances of a layer's dead channels.

    A variance that starts at 0 stays there: other channels, or the layer's own count, show updates.
    """
    if layer.statistics is None:
        return False
    mean, variance = layer.statistics
    if variance.initial == 0.0:
        return True
    silent, initial = _silent(mean, variance)
    momentum = averages.momentum_of(layer, context)
    exact = averages.power(initial, momentum, averages.updates_at_most(layer, context))
    dead = Counter(silent[(silent >= 0.0) & (silent < initial)].tolist())
    return all(
        exact is not None and exact < COLLAPSED_VARIANCE
        if value < COLLAPSED_VARIANCE
        else averages.is_power(value, exact)
        or (count > 1 and averages.whole_power(value, initial, momentum))
        for value, count in dead.items()
    )


def counted_by_dead_channels(layer: BNLayer, momentum: float | None) -> tuple[float, int] | None:
    """Return the variance that several dead channels share, and the number of updates it shows.

    None if no channels share one, or if it is not a whole power of the momentum.
    """
    if layer.statistics is None:
        return None
    mean, variance = layer.statistics
    if mean.initial != 0.0 or not mean.at_initial or not variance.initial:
        return None
    silent, initial = _silent(mean, variance)
    shared = [
        (count, value)
        for value, count in Counter(silent.tolist()).items()
        if count > 1 and COLLAPSED_VARIANCE < value < initial
    ]
    if not shared:
        return None
    value = max(shared)[1]
    updates = averages.whole_power(value, initial, momentum)
    return None if updates is None else (value, updates)
