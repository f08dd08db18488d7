"""BN106: statistics that moved, but not far enough from where they started."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bninspect.model import BNLayer, Rule, RuleContext, RuleDoc, Violation
from bninspect.rules.channels import momentum_of

# The share of the initial value above which the averages count as cold.
COLD_SHARE = 0.05


def statistics_cold(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN106."""
    both = layer.statistics
    momentum, updates = momentum_of(layer, context), updates_at_most(layer, context)
    if both is None or momentum is None or not updates or not 0.0 < momentum < 1.0:
        return
    share = momentum**updates
    if share <= COLD_SHARE or both[0].all_initial or both[1].all_initial:
        return
    if context.restarted or layer.zero_debiased:
        return
    needed = math.ceil(math.log(COLD_SHARE) / math.log(momentum))
    yield Violation(
        f"the initial values still make up {share:.0%} of the averages after {updates} updates with"
        f" momentum {momentum:g}",
        evidence=(
            f"the stored step is {context.step}",
            f"{momentum:g}^{updates} = {share:.3f}",
            f"it takes {needed} updates to bring that below {COLD_SHARE:.0%}",
        ),
        cause="too-few-updates",
    )


def updates_at_most(layer: BNLayer, context: RuleContext) -> int | None:
    """How many updates the stored step allows; None for a layer that training does not update."""
    if layer.keras is None:
        return context.step
    if not layer.keras.trainable or layer.keras.inference_only or context.step is None:
        return None
    return context.step * layer.keras.calls


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
        doc=RuleDoc(
            meaning=(
                "After n updates with momentum m (slim calls it decay) an average holds"
                f" m^n of its initial value. That share is above {COLD_SHARE:.0%}. The momentum"
                " comes from the stored configuration or from --momentum, n from the stored step."
                " Not with zero-debias, and not where a variance shows more updates than that."
            ),
            why=(
                "The stored variance is m^n * 1 + (1 - m^n) * (the running average). With momentum"
                " 0.999 and 1000 steps 37% of it is the 1 it started from, with 0.9997 it is 74%:"
                " inference normalises by numbers that are mostly made up."
            ),
            causes=(
                (
                    "a momentum of 0.99 (Keras), 0.999 (slim) or 0.9997 (slim's inception) and a"
                    " short training"
                ),
                "large batches: few steps an epoch",
                "a checkpoint from early in the training: later ones will be fine",
            ),
            fixes={
                "TF1 layers": "x = tf.layers.batch_normalization(x, momentum=0.9, training=True)",
                "slim": "slim.batch_norm(x, decay=0.9, is_training=True)",
                "Keras": """\
keras.layers.BatchNormalization(momentum=0.9)

# or re-estimate: forward passes in training mode update the averages and nothing else
for x, _ in dataset:
    model(x, training=True)""",
            },
        ),
        check=statistics_cold,
        fix=_fix_cold,
    ),
)
