"""BN106: statistics that moved, but not far enough from where they started."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from bninspect.frozen import NamedTuple
from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules import averages
from bninspect.rules.channels import counted_by_dead_channels

# The share of the initial value above which the averages count as cold.
COLD_SHARE = 0.05
# The highest momentum in use (0.9997 in slim's inception, 0.9999 here and there).
HIGHEST_MOMENTUM = 0.9999
# The momentum from which it takes thousands of updates until averages are not cold.
SLOW_MOMENTUM = 0.999


class _Updates(NamedTuple):
    """The number and the momentum of the updates of averages.

    `is_stored` says that the momentum is the layer's or the user's, not that of the graph.
    `counted` is the result of `counted_by_dead_channels`.
    """

    number: int
    momentum: float
    is_stored: bool
    counted: tuple[float, int] | None

    @property
    def share(self) -> float:
        """Return the share of the initial value that is left."""
        return float(self.momentum**self.number)


def statistics_cold(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if more than `COLD_SHARE` of the initial values is left (BN106)."""
    if not _has_moved(layer) or not layer.is_finite or context.restarted:
        return
    updates = _updates(layer, context)
    if updates is None or updates.share <= COLD_SHARE or _is_restarted(updates, context):
        return
    momentum, share = updates.momentum, updates.share
    yield Violation(
        f"the initial values still make up {_share_in_words(share)} of the averages after"
        f" {updates.number} updates with momentum {momentum:g}",
        evidence=(
            *_counts(updates, context),
            *(() if updates.is_stored else (f"the graph has momentum {momentum:g}",)),
            f"{momentum:g}^{updates.number} = {share:.3f}",
            f"it takes {_needed(momentum)} updates to bring that below {COLD_SHARE:.0%}",
        ),
        cause="too-few-updates",
    )


def _share_in_words(share: float) -> str:
    """Return a share as a percentage; not 100%, since the averages moved."""
    return "more than 99%" if share > 0.99 else f"{share:.0%}"


def _has_moved(layer: BNLayer) -> bool:
    """Return whether both statistics moved and may hold a share of their initial values."""
    statistics = layer.statistics
    if statistics is None or layer.zero_debiased:
        return False
    return not (statistics[0].all_initial or statistics[1].all_initial)


def _updates(layer: BNLayer, context: RuleContext) -> _Updates | None:
    """Return the updates of a layer; None if their number or their momentum is not known.

    The graph is read only if the values leave it possible that the averages are cold.
    """
    updates = averages.updates_at_most(layer, context)
    if not updates:
        return None
    stored = averages.momentum_of(layer, context)
    momentum = stored
    if momentum is None and _may_be_cold(updates, context):
        momentum = averages.known_momentum(layer, context)
    if momentum is None or not 0.0 < momentum < 1.0:
        return None
    times = averages.updates_a_step(layer, context) if momentum**updates > COLD_SHARE else 1
    if times is None:
        return None
    counted = counted_by_dead_channels(layer, momentum)
    number = min(updates * times, counted[1]) if counted else updates * times
    return _Updates(number, momentum, stored is not None, counted)


def not_judged(layers: Sequence[BNLayer], context: RuleContext) -> str | None:
    """Return a sentence if averages may be cold, and no momentum or step is known to judge that.

    A layer that no training op updates is left out: the step counts none of its updates.
    """
    if (least_share(layers) or 0.0) <= COLD_SHARE:
        return None
    moved = [layer for layer in layers if _has_moved(layer) and layer.is_finite]
    sentences = (_why_not_judged(layer, context) for layer in moved)
    return next((sentence for sentence in sentences if sentence is not None), None)


def _why_not_judged(layer: BNLayer, context: RuleContext) -> str | None:
    """Return a sentence if a layer's averages may be cold for all that is known, else None."""
    updates = averages.updates_at_most(layer, context)
    momentum = averages.momentum_of(layer, context)
    if updates is None and context.step is None:
        return _without_step(layer, momentum)
    if not updates or averages.USUAL_MOMENTUM**updates <= COLD_SHARE:
        return None
    is_unknown = averages.known_momentum(layer, context) is None
    if not is_unknown or not averages.updates_a_step(layer, context):
        return None
    return (
        f"BN106 was not judged: no momentum is stored, and after {updates} steps the averages may"
        " still hold a part of their initial values; give --momentum"
        f" ({averages.USUAL_MOMENTUM} is the default of Keras and tf.layers)"
    )


def _without_step(layer: BNLayer, momentum: float | None) -> str | None:
    """Return a sentence if it takes a long training until a layer's averages are not cold."""
    if momentum is None or not SLOW_MOMENTUM <= momentum < 1.0:
        return None
    if layer.keras is not None and (layer.keras.frozen or layer.keras.inference_only):
        return None
    return (
        f"BN106 was not judged: no step is stored, and with momentum {momentum:g} it takes"
        f" {_needed(momentum)} updates to bring the initial values below {COLD_SHARE:.0%} of the"
        " averages"
    )


def _needed(momentum: float) -> int:
    """Return how many updates leave no more than `COLD_SHARE` of the initial values."""
    return math.ceil(math.log(COLD_SHARE) / math.log(momentum))


def least_share(layers: Iterable[BNLayer]) -> float | None:
    """Return `RuleContext.least_share`; None if it is known of no layer."""
    shares = (share for layer in layers if (share := most_initial(layer)) is not None)
    return min(shares, default=None)


def most_initial(layer: BNLayer) -> float | None:
    """Return the largest share of the initial value that can be left: no variance is negative.

    None for a layer that did not move, for zero-debiased averages, and for statistics that are all
    exactly 0, which may have been written.
    """
    if layer.statistics is None or layer.zero_debiased or _is_zero(layer):
        return None
    _, variance = layer.statistics
    if variance.all_initial or not variance.initial:
        return None
    return variance.minimum / variance.initial


def _is_zero(layer: BNLayer) -> bool:
    """Return whether both statistics are exactly 0 in every channel."""
    return layer.statistics is not None and all(
        values.minimum == values.maximum == 0.0 for values in layer.statistics
    )


def _may_be_cold(updates: int, context: RuleContext) -> bool:
    """Return whether the values leave it possible that averages are cold."""
    if context.least_share is None or not context.least_share > COLD_SHARE:
        return False
    return HIGHEST_MOMENTUM**updates > COLD_SHARE


def _is_restarted(updates: _Updates, context: RuleContext) -> bool:
    """Return `RuleContext.restarted`, if all layers have the momentum of the graph."""
    if updates.is_stored or context.least_share is None:
        return False
    return context.least_share < updates.share * (1 - 1e-3)


def _counts(updates: _Updates, context: RuleContext) -> Iterator[str]:
    """Yield what is stored about the number of updates, contradictions included."""
    if context.step is not None:
        yield f"the stored step is {context.step}"
    for steps in context.optimizer_steps:
        yield str(steps)
    if updates.counted is not None:
        value, number = updates.counted
        fact = f"its dead channels have variance {value:.4g} = {updates.momentum:g}^{number}"
        if context.step is not None and number < context.step:
            fact += f": it was updated in {number} of {context.step} steps only"
        yield fact


def older_than_step(layer: BNLayer, context: RuleContext) -> bool:
    """Return whether a variance shows more updates than the step allows, as in a fine-tuned model.

    The initial value's share and a true variance, which is not negative, add up to what is
    stored, so nothing may lie below the share. 1e-3 is for float32's rounding.
    """
    momentum = averages.momentum_of(layer, context)
    updates = averages.updates_at_most(layer, context)
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
        passes_plain=True,
    ),
)
