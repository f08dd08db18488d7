"""BN101 to BN103: statistics that training did not move.

A statistic is initial if it equals the initial value (-0.0 equals 0). Healthy layers come within
1e-4 of 0 and within 1e-5 of 1, so a tolerance would condemn them.
"""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.causes import (
    FILLED_LATER,
    INFERENCE,
    NEVER_USED,
    Proof,
    by_design,
    in_inference_mode,
    why_not_updated,
)
from bninspect.rules.channels import (
    channels_in_words,
    dead_channels,
    known_momentum,
    momentum_of,
    saw_only_zeros,
)
from bninspect.rules.fixes import run_the_updates

# Half a step of the type below 1.0: what an update must exceed to move a variance of 1.
_HALF_STEP_BELOW_ONE = {"bfloat16": 2.0**-9, "float16": 2.0**-12}


def _number(value: float | None) -> str:
    return f"{value:g}"


def statistics_never_updated(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN101."""
    both = layer.statistics
    if both is None or not layer.all_initial:
        return
    if saw_only_zeros(layer):
        return  # BN303
    if layer.training.testable and not layer.training.facts:
        return  # BN105: nothing says that the layer was trained
    mean, variance = both
    proof = _proof(layer, context)
    facts = layer.training.facts or (
        "nothing stored could show training: whether the layer was trained cannot be told",
    )
    yield Violation(
        f"moving_mean is still {_number(mean.initial)} and moving_variance still"
        f" {_number(variance.initial)} in {channels_in_words(layer)}",
        evidence=(*proof.facts, *_own_count(layer), *facts),
        cause=proof.cause,
        severity="note" if by_design(layer) else None,
        fix=proof.fix,
    )


def _own_count(layer: BNLayer) -> tuple[str, ...]:
    """What the layer's own count of updates says, a contradiction too."""
    updates = layer.training.updates
    if not updates:
        return () if updates is None else ("its own count of updates is 0",)
    if layer.family == FILLED_LATER:
        return ()
    return (f"its own count says {updates} updates: they did not reach what stands still",)


def _proof(layer: BNLayer, context: RuleContext) -> Proof:
    """The cause that the configuration proves, else the graph, and the proof."""
    return (
        by_design(layer) or in_inference_mode(layer) or why_not_updated(layer, context, STATISTICS)
    )


def _half_proof(layer: BNLayer, context: RuleContext, role: Role) -> Proof:
    """Why one statistic stands still while the other moved."""
    proof = why_not_updated(layer, context, (role,))
    count = _own_count(layer)
    step = () if context.step is None else (f"the stored step is {context.step}",)
    return proof._replace(facts=(*proof.facts, *count, *(step if count else ())))


def mean_never_updated(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN102."""
    both = layer.statistics
    if both is None or not both[0].all_initial or both[1].all_initial:
        return
    mean, variance = both
    moved = variance.channels - (variance.at_initial or 0)
    momentum = momentum_of(layer, context)
    dead = dead_channels(mean, variance, momentum, context.step)
    if dead == moved and variance.initial != 0.0:
        return
    undecided = momentum is None or context.step is None
    if variance.channels == 1 and undecided and 0.0 <= variance.maximum < 1.0:
        return  # alone below 1, it may as well be a dead channel
    proof = _half_proof(layer, context, "moving_mean")
    yield Violation(
        f"moving_mean is still {_number(mean.initial)} in {channels_in_words(layer)}, while"
        f" moving_variance moved ({_number(variance.minimum)} to {_number(variance.maximum)})",
        evidence=(
            f"moving_variance moved in {moved} of {variance.channels} channels",
            *proof.facts,
        ),
        cause=proof.cause,
        fix=proof.fix,
    )


def variance_never_updated(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN103."""
    both = layer.statistics
    if both is None or not both[1].all_initial or both[0].all_initial:
        return
    mean, variance = both
    evidence = [f"moving_mean moved ({_number(mean.minimum)} to {_number(mean.maximum)})"]
    proof = _half_proof(layer, context, "moving_variance")
    if proof.cause is None and not _no_update_in_graph(layer, context):
        proof = _proof_by_type(layer, context) or proof
    yield Violation(
        f"moving_variance is still {_number(variance.initial)} in {channels_in_words(layer)},"
        " while moving_mean moved",
        evidence=(*evidence, *proof.facts),
        cause=proof.cause,
        fix=proof.fix,
    )


def _no_update_in_graph(layer: BNLayer, context: RuleContext) -> bool:
    """Whether the graph trains and has no update of the variance, whose type then is no reason."""
    graph = context.graph(layer)
    if graph is None or not graph.training_ops:
        return False
    return not any(update.role == "moving_variance" for update in graph.updates)


def _proof_by_type(layer: BNLayer, context: RuleContext) -> Proof | None:
    """Why a half-precision variance cannot have left 1.0, if the numbers show it.

    An update moves it by at most (1 - momentum) for any true variance in [0, 2]; less than half
    a step of the type is rounded away.
    """
    dtype = layer.variables["moving_variance"].dtype
    half_step = _HALF_STEP_BELOW_ONE.get(dtype)
    initial = layer.values["moving_variance"].initial
    if half_step is None or initial != 1.0:
        return None
    momentum = known_momentum(layer, context)
    if momentum is None or 1.0 - momentum >= half_step:
        return None
    told = (
        f"one update by a variance of 0 to 2 changes it by at most {1.0 - momentum:g}, half a step"
        f" of {dtype} below 1 is {half_step:g}"
    )
    return Proof("half-precision", (told,))


def _fix_updates(layer: BNLayer, violation: Violation) -> str:
    if violation.cause == NEVER_USED:
        return (
            "By design this layer never uses its averages: mode=1 normalises each sample by"
            " itself, mode=2 each batch, at inference too. With mode=2 predict in batches as large"
            " as in training; or train the layer with mode=0."
        )
    if violation.cause == INFERENCE:
        return (
            "Build the model without training=False in the layer's call, so that fit can train it,"
            " and train again. If it was meant to stay frozen, load pretrained statistics into it."
        )
    return run_the_updates(layer)


def _fix_variance(layer: BNLayer, _: Violation) -> str:
    if layer.variables["moving_variance"].dtype in _HALF_STEP_BELOW_ONE:
        return (
            "Keep the statistics in float32 (a mixed-precision policy does), then train again: in"
            " half precision small updates are rounded away."
        )
    return run_the_updates(layer)


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN101",
        name="statistics-never-updated",
        severity="error",
        summary="moving_mean and moving_variance are still at their initial values",
        check=statistics_never_updated,
        fix=_fix_updates,
        members=STATISTICS,
        live=True,
    ),
    Rule(
        code="BN102",
        name="mean-never-updated",
        severity="error",
        summary="moving_mean is still at its initial value while moving_variance moved",
        check=mean_never_updated,
        fix=_fix_updates,
        members=("moving_mean",),
        live=True,
    ),
    Rule(
        code="BN103",
        name="variance-never-updated",
        severity="error",
        summary="moving_variance is still at its initial value while moving_mean moved",
        check=variance_never_updated,
        fix=_fix_variance,
        members=("moving_variance",),
        live=True,
    ),
)
