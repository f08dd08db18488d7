"""BN106: statistics that moved, but not far enough from where they started."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.channels import counted_by_dead_channels, known_momentum, momentum_of

# The share of the initial value above which the averages count as cold.
COLD_SHARE = 0.05
# The highest momentum in use (0.9997 in slim's inception, 0.9999 here and there).
_HIGHEST_MOMENTUM = 0.9999
_USUAL_MOMENTUM = 0.99


def statistics_cold(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN106."""
    both = layer.statistics
    if both is None or both[0].all_initial or both[1].all_initial or layer.zero_debiased:
        return
    momentum, updates = momentum_of(layer, context), updates_at_most(layer, context)
    known = momentum is not None
    if not known and updates and _may_be_cold(updates, context):
        momentum = known_momentum(layer, context)
    if momentum is None or not updates or not 0.0 < momentum < 1.0:
        return
    times = updates_a_step(layer, context) if momentum**updates > COLD_SHARE else 1
    if times is None:
        return
    updates *= times
    counted = counted_by_dead_channels(layer, momentum)
    if counted is not None and counted[1] < updates:
        updates = counted[1]
    share = momentum**updates
    if share <= COLD_SHARE or context.restarted or _restarted(share, context, known=known):
        return
    needed = math.ceil(math.log(COLD_SHARE) / math.log(momentum))
    yield Violation(
        f"the initial values still make up {share:.0%} of the averages after {updates} updates with"
        f" momentum {momentum:g}",
        evidence=(
            *_counts(counted, momentum, context),
            *(() if known else (f"the graph has momentum {momentum:g}",)),
            f"{momentum:g}^{updates} = {share:.3f}",
            f"it takes {needed} updates to bring that below {COLD_SHARE:.0%}",
        ),
        cause="too-few-updates",
    )


def updates_a_step(layer: BNLayer, context: RuleContext) -> int | None:
    """How often a training step updates the variance, by the graph; None if that is not known.

    A layer that is built twice (reuse=True) is updated twice; one whose updates no training op
    runs, by hand or not at all; one in a loop, as often as the loop goes round.
    """
    graph = context.graph(layer)
    if graph is None or not graph.training_ops:
        return 1
    updates = [update for update in graph.updates if update.role == "moving_variance"]
    if any(update.in_loop for update in updates):
        return None
    return len([update for update in updates if update.run_by]) or None


def not_judged(layers: Sequence[BNLayer], context: RuleContext) -> str | None:
    """A sentence if averages may be cold, and no momentum tells whether they are.

    Not of a layer that training does not update by the graph: the step counts none of its updates,
    whatever the momentum.
    """
    if (least_share(layers) or 0.0) <= COLD_SHARE:
        return None
    for layer in layers:
        both, updates = layer.statistics, updates_at_most(layer, context)
        if both is None or both[0].all_initial or both[1].all_initial or layer.zero_debiased:
            continue
        if not updates or _USUAL_MOMENTUM**updates <= COLD_SHARE:
            continue
        if known_momentum(layer, context) is None and updates_a_step(layer, context):
            return (
                f"after {updates} steps the averages may still be partly their initial values, but"
                f" no momentum is stored: BN106 was not judged; give --momentum"
                f" ({_USUAL_MOMENTUM} is the default of Keras and tf.layers)"
            )
    return None


def updates_at_most(layer: BNLayer, context: RuleContext) -> int | None:
    """How many updates the stored step allows; None for a layer that training does not update."""
    steps = context.step
    if steps is None and all(one.exact for one in context.optimizer_steps):
        steps = max((one.steps for one in context.optimizer_steps), default=None)
    if layer.keras is None:
        return steps
    if not layer.keras.trainable or layer.keras.inference_only or steps is None:
        return None
    return steps * layer.keras.calls


def least_share(layers: Iterable[BNLayer]) -> float | None:
    """`RuleContext.least_share`; None if no layer tells."""
    shares = (share for layer in layers if (share := most_initial(layer)) is not None)
    return min(shares, default=None)


def most_initial(layer: BNLayer) -> float | None:
    """The most that can be left of the initial value: no true variance is negative.

    Of a layer that did not move, or forgets where it started from, nothing is known.
    """
    both = layer.statistics
    if both is None or both[1].all_initial or not both[1].initial or layer.zero_debiased:
        return None
    return both[1].minimum / both[1].initial


def _may_be_cold(updates: int, context: RuleContext) -> bool:
    """Whether it is worth reading a graph for its momentum: some values rule a cold layer out."""
    if context.least_share is None or not context.least_share > COLD_SHARE:
        return False
    return _HIGHEST_MOMENTUM**updates > COLD_SHARE


def _restarted(share: float, context: RuleContext, *, known: bool) -> bool:
    """`RuleContext.restarted` by the momentum of the graph, taken to be that of all layers."""
    if known or context.least_share is None:
        return False
    return context.least_share < share * (1 - 1e-3)


def _counts(
    counted: tuple[float, int] | None, momentum: float, context: RuleContext
) -> Iterator[str]:
    """What is stored about the number of updates, contradictions and all."""
    if context.step is not None:
        yield f"the stored step is {context.step}"
    for one in context.optimizer_steps:
        yield str(one)
    if counted is not None:
        value, updates = counted
        told = f"its dead channels have variance {value:.4g} = {momentum:g}^{updates}"
        if context.step is not None and updates < context.step:
            told += f": it was updated in {updates} of {context.step} steps only"
        yield told


def older_than_step(layer: BNLayer, context: RuleContext) -> bool:
    """Whether a variance shows more updates than the step allows, as in a fine-tuned model.

    The initial value's share and a true variance, which is not negative, add up to what is
    stored, so nothing may lie below the share. 1e-3 is for float32's rounding.
    """
    momentum, updates = momentum_of(layer, context), updates_at_most(layer, context)
    if layer.statistics is None or momentum is None or updates is None or layer.zero_debiased:
        return False
    if not 0.0 < momentum < 1.0:
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
