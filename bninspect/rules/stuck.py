"""BN101 to BN106: statistics that training did not move, or hardly.

All comparisons with an initial value are bit by bit. Healthy layers come within 1e-4 of 0 and
within 1e-5 of 1, so a tolerance would condemn them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from bninspect.model import BNLayer, Rule, RuleContext, RuleDoc, Values, Violation
from bninspect.rules.channels import dead_channels, momentum_of, untouched_channels
from bninspect.rules.fixes import UPDATE_CODE, run_the_updates

# The share of the initial value above which the averages count as cold.
COLD_SHARE = 0.05
# Half a step of the type below 1.0: what an update must exceed to move a variance of 1.
_HALF_STEP_BELOW_ONE = {"bfloat16": 2.0**-9, "float16": 2.0**-12}


def _all(layer: BNLayer) -> str:
    return "its only channel" if layer.channels == 1 else f"all {layer.channels} channels"


def _number(value: float | None) -> str:
    return f"{value:g}"


def statistics_never_updated(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """BN101."""
    both = layer.statistics
    if both is None or not both[0].all_initial or not both[1].all_initial:
        return
    if layer.training.testable and not layer.training.facts:
        return  # BN105: nothing says that the layer was trained
    mean, variance = both
    cause, proof = _cause_in_config(layer)
    facts = layer.training.facts or (
        "nothing is stored that could show whether the layer was trained",
    )
    yield Violation(
        f"moving_mean is still {_number(mean.initial)} and moving_variance still"
        f" {_number(variance.initial)} in {_all(layer)}",
        evidence=(*facts, *proof),
        cause=cause,
    )


def _cause_in_config(layer: BNLayer) -> tuple[str | None, tuple[str, ...]]:
    """The cause that a stored Keras configuration proves, and the proof."""
    if layer.keras is None:
        return None, ()
    # keras/layers/normalization.py of Keras 1: mode 1 and 2 always normalise by the batch.
    mode = layer.keras.config.get("mode")
    if mode in (1, 2):
        return "batch-statistics-mode", (f"the stored configuration says mode={mode}",)
    if layer.keras.inference_only:
        return "built-with-training-false", ("the stored model calls it with training=False",)
    return None, ()


def mean_never_updated(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN102."""
    both = layer.statistics
    if both is None or not both[0].all_initial or both[1].all_initial:
        return
    mean, variance = both
    moved = variance.channels - (variance.at_initial or 0)
    below_one = variance.channels == 1 and 0.0 <= variance.maximum < 1.0  # may be a dead channel
    momentum = momentum_of(layer, context)
    if below_one or dead_channels(mean, variance, momentum, context.step) == moved:
        return
    yield Violation(
        f"moving_mean is still {_number(mean.initial)} in {_all(layer)}, while moving_variance"
        f" moved ({_number(variance.minimum)} to {_number(variance.maximum)})",
        evidence=(f"moving_variance moved in {moved} of {variance.channels} channels",),
    )


def variance_never_updated(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN103."""
    both = layer.statistics
    if both is None or not both[1].all_initial or both[0].all_initial:
        return
    mean, variance = both
    evidence = [f"moving_mean moved ({_number(mean.minimum)} to {_number(mean.maximum)})"]
    stuck_by_type = _stuck_by_type(layer, context)
    yield Violation(
        f"moving_variance is still {_number(variance.initial)} in {_all(layer)}, while moving_mean"
        " moved",
        evidence=(*evidence, *stuck_by_type),
        cause="half-precision" if stuck_by_type else None,
    )


def _stuck_by_type(layer: BNLayer, context: RuleContext) -> tuple[str, ...]:
    """Why a half-precision variance cannot have left 1.0, if the numbers show it.

    An update moves it by at most (1 - momentum) for any true variance in [0, 1]; less than half
    a step of the type is rounded away.
    """
    dtype = layer.variables["moving_variance"].dtype
    momentum = momentum_of(layer, context)
    half_step = _HALF_STEP_BELOW_ONE.get(dtype)
    initial = layer.values["moving_variance"].initial
    if half_step is None or momentum is None or initial != 1.0 or 1.0 - momentum >= half_step:
        return ()
    return (
        (
            f"one update changes it by at most {1.0 - momentum:g}, half a step of {dtype} at 1 is"
            f" {half_step:g}"
        ),
    )


def channels_never_updated(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """BN104."""
    both = layer.statistics
    if both is None or both[0].all_initial or both[1].all_initial:
        return
    untouched = untouched_channels(*both)
    if untouched:
        yield Violation(
            f"{untouched} of {layer.channels} channels have both statistics exactly at their"
            " initial values, the others moved",
        )


def layer_untouched(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN105."""
    both = layer.statistics
    if both is None or not both[0].all_initial or not both[1].all_initial:
        return
    if layer.training.facts or not layer.training.testable:
        return  # BN101
    at_step_0 = context.step == 0
    frozen = layer.trainable is False and not at_step_0
    evidence = ["no sign of training: gamma, beta and optimizer slots, where stored, are initial"]
    if context.step is not None:
        evidence.append(f"the stored step is {context.step}")
    if frozen:
        evidence.append("the stored configuration says trainable=false")
    yield Violation(
        f"all that is stored of the layer is at its initial value, in {_all(layer)}",
        evidence=tuple(evidence),
        cause="untrained" if at_step_0 else "layer-frozen" if frozen else None,
        severity="note" if at_step_0 else None,
    )


def statistics_cold(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN106."""
    both = layer.statistics
    momentum, step = momentum_of(layer, context), context.step
    if both is None or momentum is None or not step or not 0.0 < momentum < 1.0:
        return
    mean, variance = both
    share = momentum**step
    frozen = layer.trainable is False
    if share <= COLD_SHARE or mean.all_initial or variance.all_initial or frozen:
        return
    if layer.zero_debiased or _older_than(variance, share):
        return
    needed = math.ceil(math.log(COLD_SHARE) / math.log(momentum))
    yield Violation(
        f"{share:.0%} of the initial values is still in the averages after {step} steps with"
        f" momentum {momentum:g}",
        evidence=(
            f"{momentum:g}^{step} = {share:.3f}",
            f"it takes {needed} steps to bring that below {COLD_SHARE:.0%}",
        ),
        cause="too-few-updates",
    )


def _older_than(variance: Values, share: float) -> bool:
    """Whether a variance shows more updates than the step counts (a fine-tuned model).

    The initial value's share and a true variance, which is not negative, add up to what is
    stored, so nothing may lie below the share. 1e-3 is for float32's rounding.
    """
    return variance.initial is not None and variance.minimum < share * variance.initial * (1 - 1e-3)


def _fix_updates(layer: BNLayer, violation: Violation) -> str:
    if violation.cause == "batch-statistics-mode":
        return (
            "This layer normalises by the batch at inference too, by design. Predict in batches"
            " as large as in training, or train it with mode=0."
        )
    if violation.cause == "built-with-training-false":
        return (
            "Build the model without training=False in the layer's call, so that fit can train it,"
            " and train again. If it was meant to stay frozen, load pretrained statistics into it."
        )
    return run_the_updates(layer)


def _fix_variance(layer: BNLayer, violation: Violation) -> str:
    if violation.cause == "half-precision":
        return "Keep the statistics in float32 (a mixed-precision policy does), then train again."
    return run_the_updates(layer)


def _fix_untouched(_: BNLayer, violation: Violation) -> str:
    if violation.cause == "untrained":
        return "Nothing to fix if an untrained model was meant to be saved; else train it first."
    if violation.cause == "layer-frozen":
        return (
            "A frozen layer with initial statistics passes its input through. Load pretrained"
            " weights into it, or set trainable=True and train."
        )
    return (
        "If this model was trained, this layer was not: check that it is part of the network, that"
        " it is not frozen, and that its weights were loaded. Else train the model first."
    )


def _fix_cold(_: BNLayer, __: Violation) -> str:
    return (
        "Train longer, or lower the momentum (0.9 instead of 0.99 or 0.999), or re-estimate the"
        " statistics by running training batches through the trained model."
    )


_WHY_STUCK = (
    "In training BN divides by the batch's own statistics; at inference it uses the stored ones."
    " With mean 0 and variance 1 it computes gamma * x / sqrt(1 + epsilon) + beta: nothing is"
    " normalised, every later layer sees a scale it was never trained on, and a model that"
    " trained well predicts nonsense. Only where training ran in inference mode too are the two"
    " consistent, and then the layer was never more than a scale and a shift."
)
_CAUSES_STUCK = (
    "UPDATE_OPS never run: no control_dependencies(update_ops) around minimize",
    "slim: a plain optimizer.minimize where create_train_op is wanted",
    "the layer built or called with training=False, which is the default of tf.layers",
    "Keras layers in a hand-written TF1 loop that ignores model.updates",
    "a Keras 3 stateless loop that drops the updated non-trainable variables",
    "a training placeholder that was fed False while training",
    "Keras 1 layers with mode=1 or 2, which never update by design",
)

RULES: tuple[Rule, ...] = (
    Rule(
        code="BN101",
        name="statistics-never-updated",
        severity="error",
        summary="moving_mean and moving_variance are still at their initial values",
        doc=RuleDoc(
            meaning=(
                "Every channel's moving_mean is bit by bit the initial 0 and every"
                " moving_variance the initial 1, although the file shows that training ran (a step"
                " above 0, gamma or beta moved, optimizer slots moved), or stores nothing that"
                " could show it."
            ),
            why=_WHY_STUCK,
            causes=_CAUSES_STUCK,
            fixes=UPDATE_CODE,
        ),
        check=statistics_never_updated,
        fix=_fix_updates,
    ),
    Rule(
        code="BN102",
        name="mean-never-updated",
        severity="error",
        summary="moving_mean is still at its initial value while moving_variance moved",
        doc=RuleDoc(
            meaning=(
                "Every channel's moving_mean is bit by bit 0, but the variances moved and do not"
                " look like those of dead channels (BN303)."
            ),
            why=(
                "Inference computes gamma * (x - 0) / sqrt(variance + epsilon) + beta: the scale is"
                " right, but the mean that training subtracted is not, so the output is off by"
                " gamma * mean / sqrt(variance + epsilon) in every channel."
            ),
            causes=(
                "only one of the two update ops is run, as in sess.run([train_op, update_ops[1]])",
                "a hand-written layer that assigns only the variance",
                "weights copied from another framework without the means, or in the wrong order",
            ),
            fixes=UPDATE_CODE,
        ),
        check=mean_never_updated,
        fix=_fix_updates,
    ),
    Rule(
        code="BN103",
        name="variance-never-updated",
        severity="error",
        summary="moving_variance is still at its initial value while moving_mean moved",
        doc=RuleDoc(
            meaning="Every channel's moving_variance is bit by bit 1, but the means moved.",
            why=(
                "Inference computes gamma * (x - mean) / sqrt(1 + epsilon) + beta: the output is"
                " centred, but its scale is that of the raw activations."
            ),
            causes=(
                "only one of the two update ops is run",
                "a hand-written layer that assigns only the mean",
                (
                    "statistics in bfloat16 or float16 with a high momentum: an update smaller than"
                    " half a step of the type is rounded away"
                ),
                "weights copied from another framework without the variances",
            ),
            fixes=UPDATE_CODE,
        ),
        check=variance_never_updated,
        fix=_fix_variance,
    ),
    Rule(
        code="BN104",
        name="channels-never-updated",
        severity="warning",
        summary="some channels are exactly at their initial values while others moved",
        doc=RuleDoc(
            meaning=(
                "Some channels have both mean 0 and variance 1, bit by bit, in a layer whose other"
                " channels moved. Training updates all channels of a layer together."
            ),
            why=(
                "These channels are not normalised at inference; what the rest of the network"
                " makes of them has nothing to do with training."
            ),
            causes=(
                "a layer widened after training (channels added with fresh statistics)",
                "weights of a smaller layer copied into a larger one",
                "padding of channels to a hardware multiple: harmless if they are cut off again",
            ),
            fixes=UPDATE_CODE,
        ),
        check=channels_never_updated,
        fix=_fix_updates,
    ),
    Rule(
        code="BN105",
        name="layer-untouched",
        severity="warning",
        summary="everything stored of the layer is at its initial value",
        doc=RuleDoc(
            meaning=(
                "Statistics, gamma and beta are all bit by bit what a new layer has, and nothing"
                " stored (step, optimizer slots) shows that it was trained. At step 0 this is a"
                " note, since every model looks like this before training."
            ),
            why=(
                "Such a layer passes its input through, divided by sqrt(1 + epsilon). In a trained"
                " model it was left out of training; in an untrained one there is nothing to"
                " predict with."
            ),
            causes=(
                "the model was saved before training",
                "the layer is frozen (trainable=False) and no pretrained weights were loaded",
                "the layer is not part of the network that was trained",
                "batch normalization was folded into the layer before, which leaves an identity",
            ),
            fixes={
                "Keras": """\
model.load_weights("pretrained.h5")  # before freezing: layer.trainable = False""",
            },
        ),
        check=layer_untouched,
        fix=_fix_untouched,
    ),
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
