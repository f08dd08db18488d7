"""BN110: averages of statistics (tf.train.ExponentialMovingAverage) that are not updated."""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.channels import channels_in_words


def shadows_never_updated(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the statistics moved and an average of them is still initial (BN110).

    An evaluation that restores `variables_to_restore()` loads the averages in place of the
    statistics (tensorflow/python/training/moving_averages.py).
    """
    still = [role for role in layer.shadow_values if _is_still(layer, role)]
    if still:
        initial = [f"that of {role} still {layer.shadow_values[role].initial:g}" for role in still]
        yield Violation(
            f"an ExponentialMovingAverage of the statistics is not updated: {' and '.join(initial)}"
            f" in {channels_in_words(layer)}, while {' and '.join(still)} moved",
            evidence=tuple(_values(layer, role) for role in still),
        )


def _is_still(layer: BNLayer, role: Role) -> bool:
    values = layer.values.get(role)
    return layer.shadow_values[role].all_initial and values is not None and not values.all_initial


def _values(layer: BNLayer, role: Role) -> str:
    values = layer.values[role]
    return f"{role} itself is {values.minimum:g} to {values.maximum:g}"


def _concerns(layer: BNLayer, role: Role) -> bool:
    return role in layer.shadow_values and _is_still(layer, role)


def _fix(_: BNLayer, __: Violation) -> str:
    return (
        "An evaluation that restores ema.variables_to_restore() loads these averages. Run the op of"
        " ema.apply(statistics) in each training step, or restore the statistics themselves."
    )


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN110",
        name="shadows-never-updated",
        severity="warning",
        summary="averages of the statistics are still at their initial values",
        check=shadows_never_updated,
        fix=_fix,
        members=STATISTICS,
        concerns=_concerns,
        passes_plain=True,
    ),
)
