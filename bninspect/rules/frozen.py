"""BN107: statistics that stand still from one checkpoint to a later one, while training goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bninspect.model.layer import BNLayer, Change, Since
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
from bninspect.rules.fixes import lower_the_momentum, run_the_updates
from bninspect.rules.live_causes import FROZEN, call_without_training, facts_of_live_model
from bninspect.rules.situation_fixes import kept_or_update
from bninspect.rules.stuck import MOMENTUM_ONE, with_momentum_one

_HALF_PRECISION = ("float16", "bfloat16")
_ON_PURPOSE = (FROZEN, INFERENCE, NEVER_USED)


def statistics_frozen(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the statistics stood still while the layer was trained (BN107)."""
    since = layer.since
    if since is None or not _stands_still(layer):
        return
    moved = [role for role in AFFINE if role in since.changes and since.changes[role].moved]
    if not moved and not _was_trained(layer, context, since):
        return
    same = [role for role in STATISTICS if role in layer.variables]
    initial = ("both are still at their initial values (BN101)",) if layer.all_initial else ()
    far = [_how_far(role, since.changes[role]) for role in moved]
    proof = _proof_in_file(layer, context) or _proof_of_graph(layer, context, same)
    live = facts_of_live_model(layer, context) if proof.cause is None else ()
    are, they_were = ("are", "they were") if len(same) > 1 else ("is", "it was")
    yield Violation(
        f"{' and '.join(same)} {are} exactly what {they_were} at {since.earlier}, while"
        f" {' and '.join(far) or 'training went on'}",
        evidence=(*proof.facts, *since.facts, *initial, *live),
        cause=proof.cause,
        severity="note" if _is_on_purpose(layer, proof) else None,
        fix=proof.fix,
    )


def _was_trained(layer: BNLayer, context: RuleContext, since: Since) -> bool:
    """Return whether training reached a layer whose gamma and beta stood still.

    False for a layer that has gamma or beta and was left out as a whole, such as a frozen backbone
    that keeps its statistics; but True if its configuration says that it is frozen.
    """
    if not since.facts:
        return False
    is_frozen = by_design(layer) is None and _frozen(layer, context) is not None
    return is_frozen or not any(role in layer.variables for role in AFFINE)


def _proof_of_graph(layer: BNLayer, context: RuleContext, roles: Sequence[Role]) -> Proof:
    """Return the proof by the graph for statistics that stood still."""
    proof = why_not_updated(layer, context, roles)
    if proof.cause in _ON_PURPOSE and not layer.all_initial:
        # Statistics that were loaded may be meant to stay.
        return proof._replace(fix=None)
    return proof


def _is_on_purpose(layer: BNLayer, proof: Proof) -> bool:
    """Return whether the files show that the statistics are meant to stay."""
    return bool(by_design(layer)) or (proof.cause in _ON_PURPOSE and proof.fix is None)


def _stands_still(layer: BNLayer) -> bool:
    """Return whether all stored statistics equal those of the earlier checkpoint.

    False if updates would not change them: if the variance has decayed to 0 because the input is
    constant, or if the statistics are NaN.
    """
    if layer.since is None:
        return False
    stored = [role for role in STATISTICS if role in layer.variables]
    changes = layer.since.changes
    if not stored or any(role not in changes or changes[role].moved for role in stored):
        return False
    if any(layer.values[role].not_finite == layer.values[role].channels for role in stored):
        return False
    return not _is_at_rest(layer) and not saw_only_zeros(layer)


def _is_at_rest(layer: BNLayer) -> bool:
    """Return whether the variance is below `COLLAPSED_VARIANCE` in every channel."""
    variance = layer.values.get("moving_variance")
    if variance is None or variance.all_initial:
        return False
    return 0.0 <= variance.minimum <= variance.maximum < COLLAPSED_VARIANCE


def _proof_in_file(layer: BNLayer, context: RuleContext) -> Proof | None:
    """Return the cause that the layer's own file proves, mostly on purpose; else None."""
    return (
        by_design(layer)
        or _frozen(layer, context)
        or in_inference_mode(layer, context)
        or with_momentum_one(layer, context)
        or call_without_training(layer, context)
        or _rounded_away(layer)
    )


def _frozen(layer: BNLayer, context: RuleContext) -> Proof | None:
    if layer.keras is None or not layer.keras.frozen:
        return None
    if context.live:
        return Proof(FROZEN, ("the layer has trainable=False",))
    return Proof(FROZEN, ("the stored configuration says trainable=false",))


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


def _may_be_finetuned(layer: BNLayer) -> bool:
    """Return whether a Keras layer may be called with training=False on purpose.

    Keras's guides fine-tune so. Only the configurations of Keras 2 show it.
    """
    if layer.all_initial or layer.family != "keras":
        return False
    return layer.keras is None or not layer.keras_version.startswith("2")


def _fix_frozen(layer: BNLayer, violation: Violation) -> str:
    if violation.cause == NEVER_USED:
        return "Nothing to fix: with this mode the layer neither updates nor uses its averages."
    if violation.cause == FROZEN:
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
    if violation.cause == MOMENTUM_ONE:
        return lower_the_momentum()
    if violation.cause is None and _may_be_finetuned(layer):
        return kept_or_update(layer)
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
        passes_plain=True,
    ),
)
