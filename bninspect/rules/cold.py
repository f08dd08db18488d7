"""BN106: statistics that moved, but not far enough from where they started."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.averages import (
    USUAL_MOMENTUM,
    known_momentum,
    momentum_of,
    updates_a_step,
    updates_at_most,
)
from bninspect.rules.channels import counted_by_dead_channels

# The share of the initial value above which the averages count as cold.
COLD_SHARE = 0.05
# The highest momentum in use (0.9997 in slim's inception, 0.9999 here and there).
_HIGHEST_MOMENTUM = 0.9999


class _Updates(NamedTuple):
    """How often averages were updated, and with which momentum.

    `is_stored` says that the layer or the user tells the momentum, not the graph. `counted` is that
    of `counted_by_dead_channels`.
    """

    number: int
    momentum: float
    is_stored: bool
    counted: tuple[float, int] | None

    @property
    def share(self) -> float:
        """The share of the initial value that is left."""
        return float(self.momentum**self.number)


def statistics_cold(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if more than `COLD_SHARE` of the initial values is left (BN106)."""
    if not _has_moved(layer) or not layer.is_finite or context.restarted:
        return
    updates = _updates(layer, context)
    if updates is None or updates.share <= COLD_SHARE or _is_restarted(updates, context):
        return
    momentum, share = updates.momentum, updates.share
    needed = math.ceil(math.log(COLD_SHARE) / math.log(momentum))
    yield Violation(
        f"the initial values still make up {share:.0%} of the averages after {updates.number}"
        f" updates with momentum {momentum:g}",
        evidence=(
            *_counts(updates, context),
            *(() if updates.is_stored else (f"the graph has momentum {momentum:g}",)),
            f"{momentum:g}^{updates.number} = {share:.3f}",
            f"it takes {needed} updates to bring that below {COLD_SHARE:.0%}",
        ),
        cause="too-few-updates",
    )


def _has_moved(layer: BNLayer) -> bool:
    """Return whether both statistics moved and still hold a share of what they started from."""
    both = layer.statistics
    if both is None or layer.zero_debiased:
        return False
    return not (both[0].all_initial or both[1].all_initial)


def _updates(layer: BNLayer, context: RuleContext) -> _Updates | None:
    """Return the updates of a layer; None if their number or their momentum is not known.

    The graph is asked only where the values leave it possible that the averages are cold.
    """
    updates = updates_at_most(layer, context)
    if not updates:
        return None
    stored = momentum_of(layer, context)
    momentum = stored
    if momentum is None and _may_be_cold(updates, context):
        momentum = known_momentum(layer, context)
    if momentum is None or not 0.0 < momentum < 1.0:
        return None
    times = updates_a_step(layer, context) if momentum**updates > COLD_SHARE else 1
    if times is None:
        return None
    counted = counted_by_dead_channels(layer, momentum)
    number = min(updates * times, counted[1]) if counted else updates * times
    return _Updates(number, momentum, stored is not None, counted)


def not_judged(layers: Sequence[BNLayer], context: RuleContext) -> str | None:
    """Return a sentence if averages may be cold, and no momentum tells whether they are.

    Not of a layer that training does not update by the graph: the step counts none of its updates,
    whatever the momentum.
    """
    if (least_share(layers) or 0.0) <= COLD_SHARE:
        return None
    for layer in layers:
        updates = updates_at_most(layer, context)
        if not updates or not _has_moved(layer) or not layer.is_finite:
            continue
        if USUAL_MOMENTUM**updates <= COLD_SHARE:
            continue
        if known_momentum(layer, context) is None and updates_a_step(layer, context):
            return (
                f"BN106 was not judged: no momentum is stored, and after {updates} steps the"
                " averages may still hold a part of their initial values; give --momentum"
                f" ({USUAL_MOMENTUM} is the default of Keras and tf.layers)"
            )
    return None


def least_share(layers: Iterable[BNLayer]) -> float | None:
    """Return `RuleContext.least_share`; None if no layer tells."""
    shares = (share for layer in layers if (share := most_initial(layer)) is not None)
    return min(shares, default=None)


def most_initial(layer: BNLayer) -> float | None:
    """Return the most that can be left of the initial value: no true variance is negative.

    Of a layer that did not move, or forgets where it started from, nothing is known. Nor of one
    whose statistics are all exactly 0, which may have been written.
    """
    both = layer.statistics
    if both is None or both[1].all_initial or not both[1].initial or layer.zero_debiased:
        return None
    if _is_zero(layer):
        return None
    return both[1].minimum / both[1].initial


def _is_zero(layer: BNLayer) -> bool:
    """Return whether both statistics are exactly 0 in every channel."""
    return layer.statistics is not None and all(
        values.minimum == values.maximum == 0.0 for values in layer.statistics
    )


def _may_be_cold(updates: int, context: RuleContext) -> bool:
    """Return whether the values leave it possible that averages are cold."""
    if context.least_share is None or not context.least_share > COLD_SHARE:
        return False
    return _HIGHEST_MOMENTUM**updates > COLD_SHARE


def _is_restarted(updates: _Updates, context: RuleContext) -> bool:
    """Return `RuleContext.restarted`, if all layers have the momentum of the graph."""
    if updates.is_stored or context.least_share is None:
        return False
    return context.least_share < updates.share * (1 - 1e-3)


def _counts(updates: _Updates, context: RuleContext) -> Iterator[str]:
    """Yield what is stored about the number of updates, contradictions included."""
    if context.step is not None:
        yield f"the stored step is {context.step}"
    for one in context.optimizer_steps:
        yield str(one)
    if updates.counted is not None:
        value, number = updates.counted
        told = f"its dead channels have variance {value:.4g} = {updates.momentum:g}^{number}"
        if context.step is not None and number < context.step:
            told += f": it was updated in {number} of {context.step} steps only"
        yield told


def older_than_step(layer: BNLayer, context: RuleContext) -> bool:
    """Return whether a variance shows more updates than the step allows, as in a fine-tuned model.

    The initial value's share and a true variance, which is not negative, add up to what is
    stored, so nothing may lie below the share. 1e-3 is for float32's rounding.
    """
    momentum, updates = momentum_of(layer, context), updates_at_most(layer, context)
    if layer.statistics is None or momentum is None or updates is None or layer.zero_debiased:
        return False
    if not 0.0 < momentum < 1.0 or _is_zero(layer):
        return False
    _, variance = layer.statistics
    least = momentum**updates * (variance.initial or 0.0)
    return variance.minimum < least * (1 - 1e-3)


def _fix_cold(_: BNLayer, __: Violation) -> str:
    return (
        "Train longer, or lower the momentum (0.9 instead of 0.99 or 0.999), or re-estimate the"
        " statistics by running training batches through the trained model."
    )


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN106",
        name="statistics-cold",
        severity="warning",
        summary="the averages are still partly their initial values",
        check=statistics_cold,
        fix=_fix_cold,
        members=STATISTICS,
    ),
)
