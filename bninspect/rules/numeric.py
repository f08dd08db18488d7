"""BN301 to BN305: values that no healthy layer has."""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES, STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.channels import (
    counted_by_dead_channels,
    dead_of,
    momentum_of,
)
from bninspect.rules.optimized import optimizer_writes

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
    count = dead_of(layer, context)
    if count and not optimizer_writes(layer, context):
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


NOT_FINITE = Rule(
    code="BN301",
    name="not-finite",
    severity="error",
    summary="NaN or infinity in a member",
    check=not_finite,
    fix=_fix_not_finite,
    concerns=_is_not_finite,
    live=True,
)
NEGATIVE_VARIANCE = Rule(
    code="BN302",
    name="negative-variance",
    severity="error",
    summary="a moving_variance is below 0",
    check=negative_variance,
    fix=_fix_negative,
    members=("moving_variance",),
    live=True,
)
RULES: tuple[Rule, ...] = (
    NOT_FINITE,
    NEGATIVE_VARIANCE,
    Rule(
        code="BN303",
        name="dead-channels",
        severity="note",
        summary="channels whose input is always 0",
        check=dead,
        fix=_fix_dead,
        members=STATISTICS,
    ),
    Rule(
        code="BN304",
        name="exploding-variance",
        severity="warning",
        summary="a moving_variance beyond what activations should have",
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
        check=half_precision,
        fix=_fix_half,
        members=STATISTICS,
        live=True,
    ),
)
