"""BN301 to BN305: values that no healthy layer has."""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES, STATISTICS, Role
from bninspect.model.rule import Fix, Rule, RuleContext, RuleDoc, Violation
from bninspect.rules.channels import (
    COLLAPSED_VARIANCE,
    counted_by_dead_channels,
    dead_of,
    momentum_of,
)
from bninspect.rules.fixes import FLOAT32_FIXES
from bninspect.rules.samples import KERAS_SET_WEIGHTS

# The square of float16's largest number: beyond it one standard deviation of the activations
# is no float16 any more. Raw inputs stay below: int16 audio has at most 1.1e9.
EXPLODING_VARIANCE = 65504.0**2
_HALF_PRECISION = ("float16", "bfloat16")


def not_finite(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """BN301."""
    counts = {
        role: layer.values[role].not_finite
        for role in ROLES
        if role in layer.values and layer.values[role].not_finite
    }
    if counts:
        told = ", ".join(
            f"{role} in {count} of {layer.values[role].channels} channels"
            for role, count in counts.items()
        )
        yield Violation(f"NaN or infinity: {told}")


def negative_variance(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """BN302."""
    variance = layer.values.get("moving_variance")
    if variance is not None and not variance.minimum >= 0.0:
        negative = int((variance.array < 0.0).sum())
        if negative:
            smallest = float(variance.array[variance.array < 0.0].min())
            yield Violation(
                f"moving_variance is negative in {negative} of {variance.channels} channels"
                f" (down to {smallest:g})"
            )


def dead(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """BN303."""
    if count := dead_of(layer, context):
        yield Violation(
            f"{count} of {layer.channels} channels are dead: their mean is exactly 0 and their"
            " variance has decayed",
            evidence=_updates_counted(layer, context),
        )


def _updates_counted(layer: BNLayer, context: RuleContext) -> tuple[str, ...]:
    """How many updates the dead channels show that there were, beside the stored step."""
    momentum = momentum_of(layer, context)
    counted = counted_by_dead_channels(layer, momentum)
    if counted is None:
        return ()
    told = f"their variance {counted[0]:.4g} is {momentum:g}^{counted[1]}: {counted[1]} updates"
    return (told if context.step is None else f"{told}, the stored step is {context.step}",)


def exploding_variance(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """BN304."""
    variance = layer.values.get("moving_variance")
    if variance is not None and not variance.maximum <= EXPLODING_VARIANCE:
        values = variance.array.astype("f8")
        large = values[(values > EXPLODING_VARIANCE) & (values < float("inf"))]  # inf is BN301's
        if large.size:
            yield Violation(
                f"moving_variance is up to {large.max():.3g} in {large.size} of"
                f" {variance.channels} channels"
            )


def half_precision(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """BN305."""
    halves = [
        role
        for role in STATISTICS
        if role in layer.variables and layer.variables[role].dtype in _HALF_PRECISION
    ]
    if halves:
        yield Violation(f"{' and '.join(halves)}: stored as {layer.variables[halves[0]].dtype}")


def _is_not_finite(layer: BNLayer, role: Role) -> bool:
    return role in layer.values and bool(layer.values[role].not_finite)


def _fix_not_finite(_: BNLayer, __: Violation) -> str:
    return (
        "Go back to the last checkpoint that is finite and find what diverged: the learning rate,"
        " a loss that divides by zero, a batch of one sample on a fused GPU kernel."
    )


def _fix_negative(_: BNLayer, __: Violation) -> str:
    return (
        "Check the order in which weights were set: Keras wants gamma, beta, mean, variance. If"
        " nothing was converted, train with batches of more than one sample."
    )


def _fix_dead(_: BNLayer, __: Violation) -> str:
    return (
        "Nothing to do about the statistics: they are right. If the inputs are padded with zeros,"
        " that is how it should be; else lower the learning rate, or prune the channels."
    )


def _fix_exploding(_: BNLayer, __: Violation) -> str:
    return (
        "Check the scale of the inputs and the learning rate; with float16 inference keep this"
        " layer in float32."
    )


def _fix_half(_: BNLayer, __: Violation) -> str:
    return "Keep the statistics in float32; a mixed-precision policy does that by itself."


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN301",
        name="not-finite",
        severity="error",
        summary="NaN or infinity in a member",
        doc=RuleDoc(
            meaning="gamma, beta, moving_mean or moving_variance holds a NaN or an infinity.",
            why=(
                "Every prediction that passes the channel is NaN, or 0 behind an infinite variance."
            ),
            arithmetic="""\
inference   gamma * (x - moving_mean) / sqrt(moving_variance + epsilon) + beta

A NaN in any of the four makes every output of the channel NaN.
mean 5, variance infinite, x = 8    (8 - 5) / sqrt(inf + 0.001) = 0.000""",
            causes=(
                "training diverged",
                (
                    "fused GPU batch normalization with one value a channel (a batch of 1 after"
                    " global pooling)"
                ),
                "float16 statistics that overflowed",
            ),
            fixes=(
                Fix(
                    "Any framework",
                    "Go back to the last finite checkpoint; lower the learning rate, clip the"
                    " gradients, and keep batches larger than one sample.",
                ),
            ),
        ),
        check=not_finite,
        fix=_fix_not_finite,
        concerns=_is_not_finite,
        live=True,
    ),
    Rule(
        code="BN302",
        name="negative-variance",
        severity="error",
        summary="a moving_variance is below 0",
        doc=RuleDoc(
            meaning="At least one channel's moving_variance is negative, which no variance is.",
            why=(
                "Below -epsilon the square root is NaN; above it the channel is scaled up by a"
                " number that means nothing."
            ),
            arithmetic="""\
inference   gamma * (x - moving_mean) / sqrt(moving_variance + epsilon) + beta

With mean 5, gamma 1, beta 0, epsilon 0.001:
variance -0.0005, x = 8    (8 - 5) / sqrt(-0.0005 + 0.001) = 134.2
variance -0.5, x = 8       sqrt(-0.5 + 0.001) has no value: NaN""",
            causes=(
                "set_weights in the wrong order: the means lie where the variances belong",
                (
                    "Keras 2.1.5 to 2.3.1, which multiply by n / (n - (1 + epsilon)): n = 1 turns"
                    " the sign"
                ),
                "a conversion that mixed up the members",
            ),
            fixes=(
                Fix("Keras", "The order in which Keras keeps the members.", KERAS_SET_WEIGHTS),
                Fix(
                    "A batch of one sample",
                    "If nothing was converted, train with batches of more than one sample.",
                ),
            ),
        ),
        check=negative_variance,
        fix=_fix_negative,
        members=("moving_variance",),
        live=True,
    ),
    Rule(
        code="BN303",
        name="dead-channels",
        severity="note",
        summary="channels whose input is always 0",
        doc=RuleDoc(
            meaning=(
                "A channel's mean is exactly 0 and its variance has decayed: below"
                f" {COLLAPSED_VARIANCE:g}, or to momentum^steps, or to the same number as in other"
                " such channels, or still 0 where it started there, while other channels moved."
                " That is what updates with nothing but zeros leave."
            ),
            why=(
                "The statistics are right, so this is no error: the channel gives beta, whatever"
                " the input. It costs computation and capacity."
            ),
            arithmetic="""\
inference   gamma * (x - 0) / sqrt(0 + epsilon) + beta

With gamma 1, beta 0, epsilon 0.001:
x = 0, as in training        (0 - 0) / sqrt(0 + 0.001) = 0.000
x = 0.1, if it ever fires    (0.1 - 0) / sqrt(0 + 0.001) = 3.162""",
            causes=(
                "ReLUs that never fire, after a learning rate that was too high",
                "weight decay or L1 that drove the filters before it to 0",
                "inputs that are always 0, such as padding: harmless",
            ),
            fixes=(
                Fix(
                    "Any framework",
                    "Nothing, or prune the channels. If there are many: a lower learning rate,"
                    " LeakyReLU instead of ReLU, less weight decay on gamma.",
                ),
            ),
        ),
        check=dead,
        fix=_fix_dead,
        members=STATISTICS,
    ),
    Rule(
        code="BN304",
        name="exploding-variance",
        severity="warning",
        summary="a moving_variance beyond what activations should have",
        doc=RuleDoc(
            meaning=(
                f"A moving_variance is above {EXPLODING_VARIANCE:.3g}, the square of float16's"
                " largest number: the standard deviation itself is out of float16's range."
            ),
            why=(
                "Such activations overflow in float16 inference and drown everything else in"
                " float32."
            ),
            arithmetic="""\
inference   gamma * (x - moving_mean) / sqrt(moving_variance + epsilon) + beta

The largest float16 is 65504.
one deviation of a variance of 4.3e9    sqrt(4.3e9) = 65574
An x that far from the mean is infinite in float16, and so is the output.""",
            causes=(
                "training that diverges",
                "inputs on a scale that nobody meant (timestamps, ids, unnormalised sums)",
            ),
            fixes=(
                Fix(
                    "Any framework",
                    "Normalise the inputs, lower the learning rate; keep the layer in float32 when"
                    " the rest runs in float16.",
                ),
            ),
        ),
        check=exploding_variance,
        fix=_fix_exploding,
        members=("moving_variance",),
        live=True,
    ),
    Rule(
        code="BN305",
        name="half-precision-statistics",
        severity="warning",
        summary="moving statistics kept in float16 or bfloat16",
        doc=RuleDoc(
            meaning="moving_mean or moving_variance is stored as float16 or bfloat16.",
            why=(
                "An update changes an average by (1 - momentum) of the difference. Just below 1 a"
                " bfloat16 has steps of 0.004, a float16 of 0.0005: with momentum 0.999 (bfloat16)"
                " or 0.9998 (float16) the change is rounded away, and a variance of 0 to 2 never"
                " leaves 1."
            ),
            arithmetic="""\
update   variance = momentum * variance + (1 - momentum) * batch_variance

From 1, with a batch variance of 0.25 and momentum 0.999:
float32           0.999 * 1 + (1 - 0.999) * 0.25 = 0.99925
bfloat16          the next number below 1:  1 - 2 ** -8 = 0.99609
to the nearest    0.99925 is rounded to 1, in every step
Inference then computes gamma * (x - mean) / sqrt(1 + epsilon) + beta.""",
            causes=(
                "the whole model built in half precision instead of a mixed-precision policy",
                "a checkpoint cast to half precision for deployment: fine there, not for training",
            ),
            fixes=FLOAT32_FIXES,
        ),
        check=half_precision,
        fix=_fix_half,
        members=STATISTICS,
        live=True,
    ),
)
