"""Offers of `bninspect recalibrate` in the fix of a finding: only where it cures, and writes."""

from __future__ import annotations

from bninspect.model.layer import BNLayer
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules import cold, stuck

_RULES = (*stuck.RULES, *cold.RULES)
# What fixes say of re-estimated averages, without an offer and with it.
_SENTENCES = {
    "re-estimate the averages (`bninspect rule": (
        "re-estimate the averages by `bninspect recalibrate` (`bninspect rule"
    ),
    "re-estimate them on training data (`bninspect rule": (
        "re-estimate them on training data by `bninspect recalibrate` (`bninspect rule"
    ),
    # Statistics that moved are re-estimated only in layers that are named.
    "re-estimate the statistics by running training batches through the trained model.": (
        "re-estimate the statistics by `bninspect recalibrate --layer NAME`."
    ),
}
# With these, training used the stored statistics, or inference does not.
INCURABLE_CAUSES = {
    "built-with-training-false",
    "trained-in-inference-mode",
    "call-without-training",
    "layer-frozen",
    "batch-statistics-mode",
}


def with_offer(
    fix: str, rule: Rule, layer: BNLayer, violation: Violation, context: RuleContext
) -> str:
    """Return the fix of a finding, with the command that re-estimates the averages where it does.

    It does in a layer that is stuck, unless training ran in inference mode, or got too few
    updates; and in a file that stores the model beside the weights.
    """
    if rule not in _RULES or violation.cause in INCURABLE_CAUSES:
        return fix
    if not any(sentence in fix for sentence in _SENTENCES) or not _has_model(layer, context):
        return fix
    if violation.cause is None and _may_have_run_in_inference_mode(layer, context):
        return fix
    for sentence, offer in _SENTENCES.items():
        fix = fix.replace(sentence, offer)
    return fix


def _may_have_run_in_inference_mode(layer: BNLayer, context: RuleContext) -> bool:
    """Return whether training ran another layer in inference mode, and perhaps this one.

    `recalibrate` refuses the file then.
    """
    return context.inference_elsewhere() and context.mode(layer) is None


def _has_model(layer: BNLayer, context: RuleContext) -> bool:
    """Return whether the file stores a model that can be run, and written again."""
    if context.of_whole_model:
        return layer.keras is not None
    graph = context.graph(layer)
    # A GraphDef alone does not say how its training restored the variables.
    return context.of_graph_beside and graph is not None and graph.path.endswith(".meta")
