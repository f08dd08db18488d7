"""BN107: statistics that stand still from one checkpoint to a later one, while training goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bninspect.model.layer import BNLayer, Change
from bninspect.model.roles import AFFINE, STATISTICS, Role
from bninspect.model.rule import Fix, Rule, RuleContext, RuleDoc, Violation
from bninspect.rules.causes import (
    INFERENCE,
    NEVER_USED,
    Proof,
    by_design,
    in_inference_mode,
    why_not_updated,
)
from bninspect.rules.channels import COLLAPSED_VARIANCE, saw_only_zeros
from bninspect.rules.fixes import FLOAT32_FIXES, REESTIMATE_FIXES, UPDATE_FIXES, run_the_updates
from bninspect.rules.samples import KERAS_PRETRAINED

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
        f"{' and '.join(same)} {'are' if len(same) > 1 else 'is'} bit by bit what"
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
        doc=RuleDoc(
            meaning=(
                "This checkpoint is compared with an earlier one of the same training: the one"
                " given by --since, with --all-checkpoints the one before it, in `bninspect"
                " compare` each with the next. moving_mean and moving_variance are bit by bit the"
                " same in both, and training went on. For a layer with gamma or beta that means"
                " that one of them moved; for a layer without, that the stored step went up or that"
                " gamma or beta of another layer moved."
                "\n\n"
                "What is no finding: a layer whose gamma and beta stood still too, since training"
                " left it out as a whole (unless its stored configuration says trainable=false,"
                " see below); and statistics that no update can move any more, because the input"
                " is constant or they are NaN."
                "\n\n"
                "It is an error, and a note where the files say that the statistics are meant to"
                " stay: a stored configuration with trainable=false (whether gamma and beta moved"
                " or not), a stored model that calls the layer with training=False, a graph that"
                " trains it in inference mode with statistics other than the initial ones, mode=1"
                " or 2 of Keras 1, and compare_gan's accumulators, which are filled before"
                " evaluation."
                "\n\n"
                "The graph beside the later checkpoint may prove the cause: update ops that no"
                " training op depends on, or none at all and a layer in inference mode. Where it"
                " runs the updates, the reason is not stored and no cause is named."
            ),
            why=(
                "The statistics are those of earlier weights, while training normalised by those of"
                " each batch. The weights before the layer have moved on, so that its input is"
                " neither centred nor scaled any more; the longer training goes on, the worse the"
                " model predicts, although its training loss falls."
            ),
            arithmetic="""\
inference   gamma * (x - moving_mean) / sqrt(moving_variance + epsilon) + beta

Statistics of mean 5 and deviation 3 stayed; by now the activations have
mean 12 and deviation 6. With gamma 1, beta 0, epsilon 0.001:
training, x = 18     (18 - 12) / sqrt(36 + 0.001) = 1.000
inference, x = 18    (18 - 5) / sqrt(9 + 0.001) = 4.333
The output has mean 2.333 and deviation 2 instead of 0 and 1.""",
            causes=(
                "UPDATE_OPS never run: no control_dependencies(update_ops) around minimize",
                (
                    "UPDATE_OPS collected before the layers were built: get_collection returns an"
                    " empty list, silently"
                ),
                "a training that was resumed by a script that forgets the update ops",
                "the mode switched to training=False at some step, with gamma and beta trained on",
                "Keras: model(x) in a loop or train_step of one's own, without training=True",
                "Keras layers in a hand-written TF1 loop that ignores model.updates",
                "a Keras 3 stateless loop that drops the updated non-trainable variables",
                "statistics in float16 or bfloat16, which a high momentum cannot move",
                "frozen on purpose: fine-tuning with the statistics of a pretrained model",
            ),
            fixes=(
                *UPDATE_FIXES,
                *FLOAT32_FIXES,
                Fix(
                    "Frozen on purpose, Keras",
                    "Freeze gamma and beta with the statistics. That leaves a note, no error.",
                    KERAS_PRETRAINED,
                ),
                *REESTIMATE_FIXES,
            ),
        ),
        check=statistics_frozen,
        fix=_fix_frozen,
        members=STATISTICS,
        needs_earlier=True,
        live=True,
    ),
)
