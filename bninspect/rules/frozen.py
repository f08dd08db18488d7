"""BN107: statistics that stand still from one checkpoint to a later one, while training goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bninspect.model.layer import BNLayer, Change
from bninspect.model.roles import AFFINE, STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.causes import (
    INFERENCE,
    NEVER_USED,
    Proof,
    by_design,
    in_inference_mode,
    why_not_updated,
)
from bninspect.rules.channels import COLLAPSED_VARIANCE, saw_only_zeros
from bninspect.rules.fixes import run_the_updates

_HALF_PRECISION = ("float16", "bfloat16")
_FROZEN = "layer-frozen"
_ON_PURPOSE = (_FROZEN, INFERENCE, NEVER_USED)


def statistics_frozen(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN107."""
    since = layer.since
    if since is None or not _stands_still(layer):
        return
    proof = _told(layer)
    moved = [role for role in AFFINE if role in since.changes and since.changes[role].moved]
    has_weights = any(role in layer.variables for role in AFFINE)
    frozen = proof is not None and proof.cause == _FROZEN
    if not moved and (not since.facts or (has_weights and not frozen)):
        # Nothing was trained in between, or the layer was left out as a whole: a frozen backbone
        # that keeps the statistics it came with.
        return
    same = [role for role in STATISTICS if role in layer.variables]
    initial = ("both are still at their initial values (BN101)",) if layer.all_initial else ()
    far = [_how_far(role, since.changes[role]) for role in moved]
    if proof is None:
        proof = why_not_updated(layer, context, same)
        if proof.cause in _ON_PURPOSE and not layer.all_initial:
            # Statistics that the layer came with may be meant to stay.
            proof = proof._replace(fix=None)
    on_purpose = by_design(layer) or (proof.cause in _ON_PURPOSE and proof.fix is None)
    yield Violation(
        f"{' and '.join(same)} {'are' if len(same) > 1 else 'is'} exactly what"
        f" {'they were' if len(same) > 1 else 'it was'} at {since.earlier}, while"
        f" {' and '.join(far) or 'training went on'}",
        evidence=(*proof.facts, *since.facts, *initial),
        cause=proof.cause,
        severity="note" if on_purpose else None,
        fix=proof.fix,
    )


def _stands_still(layer: BNLayer) -> bool:
    """Whether all statistics that are stored are those of the earlier checkpoint.

    Not where updates would leave them: a layer whose input has been constant for so long that its
    variance is nothing, and statistics that are NaN, which they stay.
    """
    if layer.since is None:
        return False
    stored = [role for role in STATISTICS if role in layer.variables]
    changes = layer.since.changes
    if not stored or any(role not in changes or changes[role].moved for role in stored):
        return False
    if any(layer.values[role].not_finite == layer.values[role].channels for role in stored):
        return False
    variance = layer.values.get("moving_variance")
    at_rest = (
        variance is not None
        and not variance.all_initial
        and 0.0 <= variance.minimum <= variance.maximum < COLLAPSED_VARIANCE
    )
    return not at_rest and not saw_only_zeros(layer)


def _told(layer: BNLayer) -> Proof | None:
    """Why the layer stands still, where its own file says so, on purpose mostly."""
    return by_design(layer) or _frozen(layer) or in_inference_mode(layer) or _rounded_away(layer)


def _frozen(layer: BNLayer) -> Proof | None:
    if layer.keras is None or not layer.keras.frozen:
        return None
    return Proof(_FROZEN, ("the stored configuration says trainable=false",))


def _rounded_away(layer: BNLayer) -> Proof | None:
    if layer.dtype not in _HALF_PRECISION:
        return None
    return Proof(
        facts=(
            f"the statistics are {layer.dtype}: an update below half a step of the type is lost",
        ),
        fix=(
            "Keep the statistics in float32 (a mixed-precision policy does) and see that the"
            " updates run with every training step; then train on."
        ),
    )


def _how_far(role: Role, change: Change) -> str:
    if change.largest is None or not math.isfinite(change.largest):
        return f"{role} moved"
    return f"{role} moved by up to {change.largest:.3g}"


def _fix_frozen(layer: BNLayer, violation: Violation) -> str:
    if violation.cause == NEVER_USED:
        return "Nothing to fix: with this mode the layer neither updates nor uses its averages."
    if violation.cause == _FROZEN:
        return (
            "Nothing to fix if the layer is meant to keep the statistics it came with. Else set"
            " trainable=True, compile again and train on."
        )
    if violation.cause == INFERENCE:
        return (
            "Nothing to fix if the layer is meant to be trained in inference mode, with the"
            " statistics it came with. Else build the model without training=False in its call,"
            " and train on."
        )
    return run_the_updates(layer)


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN107",
        name="statistics-frozen",
        severity="error",
        summary="moving_mean and moving_variance stood still while training went on",
        check=statistics_frozen,
        fix=_fix_frozen,
        members=STATISTICS,
        needs_earlier=True,
        live=True,
    ),
)
