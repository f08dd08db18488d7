"""BN104 and BN105: channels, and whole layers, that training left as they were made."""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.channels import channels_in_words, saw_only_zeros, untouched_channels


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
    if not layer.all_initial:
        return
    if layer.training.facts or not layer.training.testable or saw_only_zeros(layer):
        return  # BN101, BN303
    untrained = context.step == 0 and not context.trained
    may_freeze = layer.keras is not None and layer.keras.frozen
    frozen = may_freeze and (context.trained or bool(context.step))
    evidence = ["no sign of training: gamma, beta and optimizer slots, where stored, are initial"]
    if context.step is not None:
        evidence.append(f"the stored step is {context.step}")
    if frozen:
        evidence.append("the stored configuration says trainable=false")
    yield Violation(
        f"all that is stored of the layer is at its initial value, in {channels_in_words(layer)}",
        evidence=tuple(evidence),
        cause="untrained" if untrained else "layer-frozen" if frozen else None,
        severity="note" if untrained else None,
    )


def _is_stored(layer: BNLayer, role: Role) -> bool:
    return role in layer.variables


def _fix_channels(_: BNLayer, __: Violation) -> str:
    return (
        "If channels were added or copied in, train on, so that they get statistics. If they pad"
        " the layer to a size, nothing uses them: ignore BN104."
    )


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


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN104",
        name="channels-never-updated",
        severity="warning",
        summary="some channels are exactly at their initial values while others moved",
        check=channels_never_updated,
        fix=_fix_channels,
        members=STATISTICS,
    ),
    Rule(
        code="BN105",
        name="layer-untouched",
        severity="warning",
        summary="everything stored of the layer is at its initial value",
        check=layer_untouched,
        fix=_fix_untouched,
        concerns=_is_stored,
    ),
)
