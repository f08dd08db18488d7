"""BN104 and BN105: channels, and whole layers, that are still initial."""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.layer import BNLayer, Values
from bninspect.model.roles import AFFINE, STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.channels import channels_in_words, saw_only_zeros, untouched_channels
from bninspect.rules.stuck import is_loaded


def channels_never_updated(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """Yield a violation if both statistics are initial in some channels, not in all (BN104)."""
    statistics = layer.statistics
    if statistics is None or statistics[0].all_initial or statistics[1].all_initial:
        return
    if any(one.not_finite for one in statistics):
        return  # BN301: that channels are padded or new explains nothing where others diverged
    untouched = untouched_channels(*statistics)
    if untouched:
        yield Violation(
            f"{untouched} of {layer.channels} channels have both statistics exactly at their"
            " initial values, the others moved",
        )


def layer_untouched(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the statistics are initial and nothing shows training (BN105)."""
    if not layer.all_initial or saw_only_zeros(layer):
        return  # BN303
    if layer.training.facts or not layer.training.testable or is_loaded(layer):
        return  # BN101
    is_new = context.step == 0 and not context.trained
    yield Violation(
        _untouched_in_words(layer),
        evidence=tuple(_evidence(layer, context)),
        cause=_cause(layer, context, is_new=is_new),
        severity="note" if is_new else None,
        fix=_load_or_train() if _has_other_values(layer) else None,
    )


def _has_other_values(layer: BNLayer) -> bool:
    """Return whether gamma or beta differ from their initial values from channel to channel."""
    return any(layer.values[role].has_moved for role in AFFINE if role in layer.values)


def _untouched_in_words(layer: BNLayer) -> str:
    """Return a sentence about the layer's values."""
    channels = channels_in_words(layer)
    moved = [role for role in AFFINE if role in layer.values and not layer.values[role].all_initial]
    if not moved:
        return f"all that is stored of the layer is at its initial value, in {channels}"
    ranges = " and ".join(_range_in_words(role, layer.values[role]) for role in moved)
    return f"moving_mean and moving_variance are at their initial values in {channels}; {ranges}"


def _range_in_words(role: Role, values: Values) -> str:
    if values.constant:
        return f"{role} is {values.minimum:g} in every channel"
    return f"{role} is {values.minimum:.3g} to {values.maximum:.3g}"


def _evidence(layer: BNLayer, context: RuleContext) -> Iterator[str]:
    """Yield the facts that show that the layer was not trained."""
    if layer.training.unmoved:
        yield f"the optimizer slots of {' and '.join(layer.training.unmoved)} never moved"
    if context.step is None:
        if context.may_store_step:
            yield "no training step is stored"
    else:
        yield f"the stored step is {context.step}"
    if layer.keras is not None and layer.keras.frozen:
        yield "the stored configuration says trainable=false"
        if context.step == 0 and layer.keras_version.startswith("3"):
            yield "Keras 3 counts no step of a model of which nothing is trainable"


def _cause(layer: BNLayer, context: RuleContext, *, is_new: bool) -> str | None:
    """Return the cause that configuration and step prove.

    Keras 3 counts no step of a frozen model, so a step of 0 does not prove that such a layer is
    new, nor that it is old.
    """
    is_frozen = layer.keras is not None and layer.keras.frozen
    if is_frozen and (context.trained or context.step):
        return "layer-frozen"
    if not is_new or _has_other_values(layer) or (is_frozen and not _counts_frozen_steps(layer)):
        return None
    return "untrained"


def _counts_frozen_steps(layer: BNLayer) -> bool:
    return layer.keras_version.startswith(("1", "2"))


def _load_or_train() -> str:
    """Return the fix for a gamma that may have been loaded, or started random."""
    return (
        "If the weights were loaded, load moving_mean and moving_variance with them. If gamma"
        " starts random and the model is new, train it first."
    )


def _fix_channels(_: BNLayer, __: Violation) -> str:
    return (
        "If channels were added or copied in, train on, so that they get statistics. If they pad"
        " the layer to a size, nothing uses them: ignore BN104."
    )


def _is_stored(layer: BNLayer, role: Role) -> bool:
    return role in layer.variables


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
        passes_plain=True,
    ),
    Rule(
        code="BN105",
        name="layer-untouched",
        severity="warning",
        summary="everything stored of the layer is at its initial value",
        check=layer_untouched,
        fix=_fix_untouched,
        concerns=_is_stored,
        passes_plain=True,
    ),
)
