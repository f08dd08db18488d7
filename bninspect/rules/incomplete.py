"""BN201 to BN204: members that are missing, not written, or of different sizes."""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.checkpoint import Variable
from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES, STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.causes import left_out_by_saver
from bninspect.rules.situation_fixes import freeze_for_inference


def statistics_missing(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if neither statistic is stored (BN201)."""
    if any(role in layer.variables for role in STATISTICS):
        return
    stored = " and ".join(role for role in ROLES if role in layer.variables)
    # A scope called batch_norm is Sonnet's, but anyone may write one that keeps no averages.
    certain = layer.family not in ("sonnet-1", "graph")
    is_omitted = certain and not context.frozen
    proof = left_out_by_saver(layer, context, STATISTICS)
    by_name = (f"{layer.family} layers always have both statistics",) if certain else ()
    yield Violation(
        f"{stored} {'are' if ' and ' in stored else 'is'} stored, moving_mean and moving_variance"
        " are not",
        evidence=proof.facts or by_name,
        cause=proof.cause or ("saver-omitted-statistics" if is_omitted else None),
        fix=freeze_for_inference() if context.frozen else None,
    )


def statistics_half_missing(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if only one of the statistics is stored (BN202)."""
    stored = [role for role in STATISTICS if role in layer.variables]
    if len(stored) == 1:
        missing: Role = next(role for role in STATISTICS if role not in layer.variables)
        proof = left_out_by_saver(layer, context, (missing,))
        yield Violation(f"{stored[0]} is stored, {missing} is not", proof.facts, proof.cause)


def shape_mismatch(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the members have different numbers of channels (BN203)."""
    sizes = {role: _channels(layer.variables[role]) for role in ROLES if role in layer.variables}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{role} {size}" for role, size in sizes.items())
        yield Violation(f"its members disagree on the number of channels: {counts}")


def _channels(variable: Variable) -> int:
    """Return the last dimension that is not 1: conditional BN has a gamma per class, (N, C)."""
    shape = variable.shape
    if len(shape) == 1:  # nearly all
        return shape[0]
    return next((size for size in reversed(shape) if size != 1), 1)


def statistics_not_written(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the file has space for values that were never written (BN204)."""
    variables = {role: layer.variables[role] for role in ROLES if _is_unwritten(layer, role)}
    if variables:
        counts = ", ".join(
            f"{role} ({variable.unwritten} of {variable.size})"
            for role, variable in variables.items()
        )
        yield Violation(f"the file reserves a place for values that were never written: {counts}")


def _is_unwritten(layer: BNLayer, role: Role) -> bool:
    return role in layer.variables and layer.variables[role].unwritten > 0


def _is_stored(layer: BNLayer, role: Role) -> bool:
    return role in layer.variables


def _is_missing(layer: BNLayer, role: Role) -> bool:
    return role not in layer.variables


def _fix_saver(layer: BNLayer, _: Violation) -> str:
    if layer.family in ("keras", "keras-1"):
        return "Save the model again with model.save or model.save_weights."
    if layer.family == "flax":
        return (
            "Save batch_stats with the parameters, best the whole train state. If no other file has"
            " them, they are lost: re-estimate them on training data, and save again."
        )
    if layer.family == "haiku":
        return (
            "Save the state that `init` and `apply` return with the parameters. If no other file"
            " has it, re-estimate it on training data, and save again."
        )
    return (
        "Save every variable: `tf.train.Saver()` instead of"
        " `tf.train.Saver(tf.trainable_variables())`. The statistics of this checkpoint are lost;"
        " restore it, re-estimate them on training data, and save again."
    )


def _fix_half(layer: BNLayer, violation: Violation) -> str:
    if layer.family in ("keras", "keras-1", "flax", "haiku"):
        return _fix_saver(layer, violation)
    return (
        "Check the list of variables that was saved or converted: one statistic was left out. If"
        " it is there under a name of its own, name it with --pattern."
    )


def _fix_shapes(_: BNLayer, __: Violation) -> str:
    return (
        "Check how this file was put together: gamma, beta and the statistics come from different"
        " layers. Load them again from where each came from."
    )


def _fix_unwritten(_: BNLayer, __: Violation) -> str:
    return (
        "Save the model again where it was trained, and let the program close the file before"
        " the file is copied. If a conversion made it, check which variables that leaves out."
    )


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN201",
        name="statistics-missing",
        severity="error",
        summary="gamma or beta is stored, the moving statistics are not",
        check=statistics_missing,
        fix=_fix_saver,
        members=STATISTICS,
        passes_plain=True,
    ),
    Rule(
        code="BN202",
        name="statistics-half-missing",
        severity="error",
        summary="only one of the two moving statistics is stored",
        check=statistics_half_missing,
        fix=_fix_half,
        members=STATISTICS,
        concerns=_is_missing,
        passes_plain=True,
    ),
    Rule(
        code="BN203",
        name="shape-mismatch",
        severity="error",
        summary="members of one layer disagree on the number of channels",
        check=shape_mismatch,
        fix=_fix_shapes,
        concerns=_is_stored,
        passes_plain=True,
    ),
    Rule(
        code="BN204",
        name="statistics-not-written",
        severity="error",
        summary="the file reserves a place for values that were never written",
        check=statistics_not_written,
        fix=_fix_unwritten,
        concerns=_is_unwritten,
        passes_plain=True,
    ),
)
