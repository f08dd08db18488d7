"""Findings: a violation with its fix, and what may be behind it. Imported where there is one."""

from __future__ import annotations

from bninspect.model.layer import BNLayer
from bninspect.model.report import Finding
from bninspect.model.rule import PossibleCause, Rule, RuleContext, Violation
from bninspect.rules.frameworks import framework_for
from bninspect.rules.recalibration_offer import with_offer
from bninspect.rules.situation_fixes import at_the_source, convert_again, export_again
from bninspect.rules.suspects import possible_causes


def finding_of(rule: Rule, layer: BNLayer, violation: Violation, context: RuleContext) -> Finding:
    """Return the finding of a rule on a layer; without a cause, with what may be behind it."""
    severity = violation.severity or rule.severity
    suspects: tuple[PossibleCause, ...] = ()
    if violation.cause is None and severity != "note":
        suspects = possible_causes(rule.code, layer, context)
    fix = violation.fix or rule.fix(layer, violation)
    return Finding(
        rule=rule,
        severity=severity,
        layer=layer.name,
        message=violation.message,
        cause=violation.cause,
        evidence=(*violation.evidence, *_facts_of_quantization(layer, rule)),
        fix=_fix_with_place(fix, rule, layer, violation, context),
        possible_causes=suspects,
        framework=framework_for(rule, layer, context),
    )


def _facts_of_quantization(layer: BNLayer, rule: Rule) -> tuple[str, ...]:
    """Return the sentences on the quantized statistics that a finding is about."""
    if not any(variable.quantized for variable in layer.variables.values()):
        return ()
    from bninspect.rules.quantized import facts_of_quantization

    return tuple(facts_of_quantization(layer, rule))


def _fix_with_place(
    fix: str, rule: Rule, layer: BNLayer, violation: Violation, context: RuleContext
) -> str:
    """Return the fix of a finding, with what has to be fixed instead of the file, or by what."""
    is_note = (violation.severity or rule.severity) == "note"
    if context.frozen:
        return at_the_source(fix)
    if context.format == "tfjs":
        return fix if is_note else convert_again(fix, layer)
    if layer.onnx is not None:
        return fix if is_note else export_again(fix)
    return with_offer(fix, rule, layer, violation, context)
