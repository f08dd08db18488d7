"""BN301 to BN305: values that a healthy layer does not have."""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES, STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Severity, Violation
from bninspect.rules import averages
from bninspect.rules.channels import counted_by_dead_channels, dead_of, decayed_as_expected
from bninspect.rules.optimized import optimizer_writes

# The square of float16's largest number: beyond it one standard deviation of the activations
# is no float16 any more. Raw inputs stay below: int16 audio has at most 1.1e9.
EXPLODING_VARIANCE = 65504.0**2
# The largest half step of a type as a share of the number: just above a power of 2.
_HALF_STEP = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
# The largest share by which rounding may hold an average off for a mere note.
ROUNDING_SHARE = 0.05
# From this sum of the shares of n simultaneous updates on, an average diverges.
_DIVERGES = 2.0


_UPDATE_ONCE = (
    "Update the averages once a step, whatever the number of calls, or raise the momentum until the"
    " shares of all updates stay well below 1 in sum."
)


_CONVERT_IN_FULL = (
    "Check the file that the model was converted from. If its statistics are finite, convert it"
    " without quantizing them; else go back to the last checkpoint that is finite and find what"
    " diverged."
)


def not_finite(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if a member holds NaN or infinity (BN301)."""
    counts = {
        role: layer.values[role].not_finite
        for role in ROLES
        if role in layer.values and layer.values[role].not_finite
    }
    if not counts:
        return
    members = ", ".join(
        f"{role} in {count} of {layer.values[role].channels} channels"
        for role, count in counts.items()
    )
    fix = evidence = None
    if any(role in STATISTICS for role in counts):
        evidence, fix = _update_defects(layer, context)
        if any(role in counts and layer.variables[role].quantized for role in STATISTICS):
            fix = _CONVERT_IN_FULL
    yield Violation(f"NaN or infinity: {members}", evidence=evidence or (), fix=fix)


def negative_variance(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if a moving_variance is below 0 (BN302)."""
    variance = layer.values.get("moving_variance")
    if variance is None or variance.minimum >= 0.0:
        return
    negative = variance.array[variance.array < 0.0]
    if negative.size:
        evidence, fix = _update_defects(layer, context)
        yield Violation(
            f"moving_variance is negative in {negative.size} of {variance.channels} channels"
            f" (down to {float(negative.min()):g})",
            evidence=evidence,
            fix=fix,
        )


def _update_defects(layer: BNLayer, context: RuleContext) -> tuple[tuple[str, ...], str | None]:
    """Return the defects of the updates by graph or configuration, as facts, and their fix."""
    facts, fixes = [], []
    if overshooting := overshoot(layer, context):
        facts.append(overshooting)
        fixes.append(_UPDATE_ONCE)
    if cancellation := _cancellation(layer, context):
        facts.append(cancellation)
        fixes.append(
            "Take the variance as the mean of the squared distance from the mean"
            " (`tf.nn.moments`), or compute it in float64."
        )
    if fixes:
        fixes.append("Then go back to the last checkpoint without such values, or train again.")
    return tuple(facts), " ".join(fixes) or None


def overshoot(layer: BNLayer, context: RuleContext) -> str | None:
    """Return the fact that a step makes so many updates that they overshoot, or None."""
    momentum = averages.known_momentum(layer, context)
    times = averages.updates_a_step(layer, context)
    if momentum is None or times is None:
        return None
    if layer.keras is not None:
        times *= layer.keras.calls
    total = times * (1.0 - momentum)
    if times == 1 or total < _DIVERGES:
        return None
    return (
        f"a training step makes {times} updates of an average, each by {1.0 - momentum:.3g} of the"
        f" difference: {total:.3g} in all. If each starts from the same value they overshoot,"
        f" which diverges from {_DIVERGES:g} on"
    )


def _cancellation(layer: BNLayer, context: RuleContext) -> str | None:
    """Return the fact that the graph computes the variance as a difference of squares, or None."""
    graph = context.graph(layer)
    if graph is None or not graph.one_pass:
        return None
    fact = "the graph takes the variance as the mean of the squares minus the square of the mean"
    mean = layer.values.get("moving_mean")
    if mean is None or mean.not_finite or not mean.channels:
        return fact
    largest = max(abs(mean.minimum), abs(mean.maximum))
    return (
        f"{fact}; with a mean of {largest:.4g} float32 rounds these squares by"
        f" {largest**2 * 2.0**-24:.2g}, which may exceed the variance"
    )


def dead(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if channels look dead and nothing contradicts that (BN303)."""
    count = dead_of(layer, context)
    if count and not optimizer_writes(layer, context):
        agrees = decayed_as_expected(layer, context)
        are = "are" if agrees else "look"
        decayed = "too" if layer.values["moving_variance"].initial == 0.0 else "has decayed"
        yield Violation(
            f"{count} of {layer.channels} channels {are} dead: their mean is exactly 0 and their"
            f" variance {decayed}",
            evidence=_updates_counted(layer, context),
            fix=_DEAD_AND_RIGHT if agrees else None,
        )


def _updates_counted(layer: BNLayer, context: RuleContext) -> tuple[str, ...]:
    """Return the number of updates that the dead channels show, beside the stored step."""
    momentum = averages.momentum_of(layer, context)
    counted = counted_by_dead_channels(layer, momentum)
    if counted is None:
        return ()
    fact = f"their variance {counted[0]:.4g} is {momentum:g}^{counted[1]}: {counted[1]} updates"
    return (fact if context.step is None else f"{fact}, the stored step is {context.step}",)


def exploding_variance(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if a moving_variance is finite and above `EXPLODING_VARIANCE` (BN304)."""
    variance = layer.values.get("moving_variance")
    if variance is None or variance.maximum <= EXPLODING_VARIANCE:
        return
    values = variance.array.astype("f8")
    large = values[(values > EXPLODING_VARIANCE) & (values < float("inf"))]  # inf is BN301's
    if large.size:
        overshooting = overshoot(layer, context)
        yield Violation(
            f"moving_variance is up to {large.max():.3g} in {large.size} of"
            f" {variance.channels} channels",
            evidence=(overshooting,) if overshooting else (),
            fix=f"{_UPDATE_ONCE} Then train again." if overshooting else None,
        )


def half_precision(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if a statistic is kept in half precision (BN305).

    It is a note if rounding cannot hold an average off by more than `ROUNDING_SHARE`: an update by
    (1 - momentum) of a difference is lost if that is less than half a step of the type.
    """
    if layer.onnx is not None or context.frozen:
        return  # tools convert after the training: then the averages were rounded once
    halves = [
        role
        for role in STATISTICS
        if role in layer.variables and layer.variables[role].dtype in _HALF_STEP
    ]
    if not halves:
        return
    dtype = layer.variables[halves[0]].dtype
    momentum = averages.known_momentum(layer, context)
    severity: Severity | None = None
    unknown = "no momentum is stored; " if momentum is None else ""
    momentum = averages.USUAL_MOMENTUM if momentum is None else momentum
    if momentum >= 1.0:
        evidence = f"with momentum {momentum:g} no update changes an average"
    else:
        share = _HALF_STEP[dtype] / (1.0 - momentum)
        severity = "note" if share <= ROUNDING_SHARE else None
        evidence = (
            f"{unknown}with momentum {momentum:g} rounding can hold an average off by up to"
            f" {share:.1%}: half a step of {dtype} is {_HALF_STEP[dtype]:.2%} of a number, an"
            f" update {1.0 - momentum:.2g} of the difference"
        )
    yield Violation(
        f"{' and '.join(halves)}: stored as {dtype}", evidence=(evidence,), severity=severity
    )


def _is_not_finite(layer: BNLayer, role: Role) -> bool:
    return role in layer.values and bool(layer.values[role].not_finite)


def _fix_not_finite(_: BNLayer, __: Violation) -> str:
    return (
        "Go back to the last checkpoint that is finite and find what diverged: the learning rate,"
        " a loss that divides by zero, a batch of one sample on a fused GPU kernel."
    )


def _fix_negative(layer: BNLayer, _: Violation) -> str:
    if layer.family in ("keras", "keras-1"):
        return (
            "Check the order in which weights were set: Keras wants gamma, beta, mean, variance. If"
            " nothing was converted, train with batches of more than one sample."
        )
    moments = "" if layer.family in ("pytorch", "onnx") else " (`tf.nn.moments` does not)"
    return (
        "Check what wrote the variance: a conversion that mixed up the members, updates that"
        " overshoot since several run in one step, or a variance computed as the mean of the"
        f" squares minus the square of the mean{moments}."
    )


_DEAD_AND_RIGHT = (
    "Nothing to do about the statistics: they are right. If the inputs are padded with zeros, that"
    " is how it should be; else lower the learning rate, or prune the channels."
)


def _fix_dead(_: BNLayer, __: Violation) -> str:
    return (
        "Nothing to do about the statistics if the input of these channels is always 0, as after a"
        " ReLU that never fires or where zeros pad it. If it is not, the statistics were set to 0:"
        " load them again with the weights."
    )


def _fix_exploding(_: BNLayer, __: Violation) -> str:
    return (
        "Check the scale of the inputs and the learning rate; with float16 inference keep this"
        " layer in float32."
    )


def _fix_half(_: BNLayer, violation: Violation) -> str:
    if violation.severity == "note":
        return "Nothing to fix at this momentum. With a higher one keep the statistics in float32."
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
    passes_plain=True,
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
    passes_plain=True,
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
        passes_plain=True,
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
        passes_plain=True,
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
        passes_plain=True,
    ),
)
