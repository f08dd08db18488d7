"""BN109: a variance that decayed because every batch had one value per channel."""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.layer import BNLayer, Values
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules import averages
from bninspect.rules.channels import channels_in_words

# The defaults of Keras, tf.layers and slim, and others in frequent use.
_USUAL_MOMENTUMS = (0.9, 0.95, 0.99, 0.997, 0.999, 0.9997)


def batches_of_one_value(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the variance is momentum^updates in every channel, and the mean moved.

    Then each batch had a variance of 0 in every channel (BN109). The stored step must confirm the
    number of updates if nothing is left of the variance, or if there is only one channel. It is a
    note if there is a dead layer: the layers after it get the same input in every sample.
    """
    statistics = layer.statistics
    if statistics is None or statistics[0].all_initial or layer.zero_debiased:
        return
    mean, variance = statistics
    if not _is_decayed(variance):
        return
    momentum, updates = _explained(layer, variance, context)
    if momentum is None or updates is None:
        return
    left = (
        f"{updates} updates by a variance of 0 leave {momentum:g}^{updates} of the initial"
        f" {variance.initial:g}"
    )
    known = () if context.step is None else (f"the stored step is {context.step}",)
    if averages.known_momentum(layer, context) is None:
        known = (*known, f"no momentum is stored; of the usual ones {momentum:g} fits the step")
    yield Violation(
        f"moving_variance is {variance.minimum:.4g} in {channels_in_words(layer)}, as batches with"
        f" one value per channel leave it, while moving_mean moved ({mean.minimum:.4g} to"
        f" {mean.maximum:.4g})",
        evidence=(left, *known),
        severity="note" if context.dead else None,
        fix=_BEHIND_A_DEAD_LAYER if context.dead else None,
    )


def _explained(
    layer: BNLayer, variance: Values, context: RuleContext
) -> tuple[float | None, int | None]:
    """Return the momentum and the number of updates that explain the variance; None if none do.

    If the momentum is unknown, the usual ones are tried; one of them must explain the variance of
    several channels by the stored step.
    """
    momentum = averages.known_momentum(layer, context)
    expected = averages.expected_updates(layer, context)
    if momentum is not None:
        return momentum, _updates_that_leave(variance, momentum, expected)
    if expected and variance.channels > 1 and variance.maximum > averages.LEAST_NORMAL:
        for usual in _USUAL_MOMENTUMS:
            if averages.is_power(
                variance.maximum, averages.power(variance.initial or 0.0, usual, expected)
            ):
                return usual, expected
    return None, None


def _is_decayed(variance: Values) -> bool:
    """Return whether all channels hold one number between 0 and the initial one."""
    return (
        variance.is_exact
        and bool(variance.initial)
        and 0.0 <= variance.minimum == variance.maximum < (variance.initial or 0.0)
    )


def _updates_that_leave(
    variance: Values, momentum: float | None, expected: int | None
) -> int | None:
    """Return the number of updates that leave this variance, None if it is not certain."""
    if momentum is None or not 0.0 <= momentum < 1.0:
        return None
    initial = variance.initial or 0.0
    if variance.maximum <= averages.LEAST_NORMAL:
        return expected if averages.is_forgotten(initial, momentum, expected) else None
    updates = averages.whole_power(variance.maximum, initial, momentum)
    is_sure = variance.channels > 1 or updates == expected
    return updates if updates and is_sure else None


_BEHIND_A_DEAD_LAYER = (
    "Mend the dead layer first (`bninspect rule BN303`): behind it every sample has the same"
    " values, which have no variance. If this layer lies elsewhere, give it batches with more than"
    " one value per channel."
)


def _fix_one_value(_: BNLayer, __: Violation) -> str:
    return (
        "Give the layer batches with more than one value per channel: a larger batch, or batch"
        " normalization before the global pooling. With batches of one sample leave batch"
        " normalization out there, or use it in inference mode with pretrained statistics."
    )


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN109",
        name="batches-of-one-value",
        severity="error",
        summary="moving_variance decayed as batches with one value per channel make it decay",
        check=batches_of_one_value,
        fix=_fix_one_value,
        members=("moving_variance",),
        passes_plain=True,
    ),
)
