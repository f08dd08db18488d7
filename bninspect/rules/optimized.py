"""BN108: statistics that an optimizer writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Severity, Violation
from bninspect.rules.causes import condition_facts
from bninspect.rules.channels import channels_in_words
from bninspect.rules.fixes import AGAIN
from bninspect.wording import listed

if TYPE_CHECKING:
    from bninspect.model.graph import Condition, GraphEvidence


_KEEP_OUT = (
    "Keep moving_mean and moving_variance out of the optimizer and of the weight decay: create them"
    " with trainable=False and in no collection of trainable variables (slim:"
    " `variables_collections`), or pass `minimize` a `var_list` without them."
)
_GIVE_TRAINABLE = (
    "Give the optimizer `model.trainable_variables`, not `model.variables` or `model.weights`, and"
    " create the statistics of a layer of your own with trainable=False."
)


def statistics_optimized(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if an optimizer writes the statistics (BN108)."""
    writes = optimizer_writes(layer, context)
    if not writes:
        return
    graph = _training_graph(layer, context)
    updates = () if graph is None else graph.updates
    conditions = () if graph is None else graph.conditions
    run_by = sorted({name for update in updates for name in update.run_by})
    message = f"an optimizer writes {' and '.join(writes)}"
    facts = tuple(f"{writer} {role}" for role, writer in writes.items())
    severity: Severity | None = None
    if _mean_stands_still(layer) and (not run_by or conditions):
        message += f", and no update moved the mean, which is still 0 in {channels_in_words(layer)}"
        facts = (*facts, *_variances(layer))
    elif run_by:
        severity = "warning"
        message += _beside_updates(conditions)
        facts = (*facts, _run_by(run_by), *condition_facts(conditions))
    elif graph is None:
        severity = "warning"
        facts = (*facts, "without a graph of the training it is not known whether updates run too")
    else:
        message += ", and training runs no update of the averages"
        facts = (*facts, "no training op depends on an update of the averages")
    yield Violation(message, facts, severity=severity)


def optimizer_writes(layer: BNLayer, context: RuleContext) -> dict[Role, str]:
    """Return the statistics that an optimizer writes, each with the evidence; mostly empty.

    The evidence is the optimizer's node in the stored graph, else a slot in the checkpoint. A slot
    that never moved does not count: that optimizer added only zeros.
    """
    if not layer.may_be_optimized:
        return {}
    graph, moved = _training_graph(layer, context), layer.training.optimized
    if graph is None:
        return dict.fromkeys(moved, "an optimizer's slot that moved belongs to")
    return {
        role: f"`{graph.optimizer_writes[role][0]}` writes"
        for role in moved or STATISTICS
        if role in graph.optimizer_writes
    }


def _training_graph(layer: BNLayer, context: RuleContext) -> GraphEvidence | None:
    """Return the evidence of the graph if it trains and has the statistics of the layer."""
    graph = context.graph(layer)
    return graph if graph is not None and graph.training_ops and graph.statistics else None


def _mean_stands_still(layer: BNLayer) -> bool:
    return layer.statistics is not None and layer.statistics[0].all_initial


def _variances(layer: BNLayer) -> tuple[str, ...]:
    """Return the fact that weight decay shrank the variances, if all channels hold one number."""
    variance = layer.values["moving_variance"]
    if not variance.constant or variance.channels < 2:
        return ()
    return (f"moving_variance is {variance.minimum:g} in every channel, as weight decay leaves it",)


def _beside_updates(conditions: Sequence[Condition]) -> str:
    if not conditions:
        return " besides the updates of the averages"
    return ", and a condition decides whether the updates of the averages run too"


def _run_by(names: Sequence[str]) -> str:
    ops = listed([f"`{name}`" for name in names])
    depend = "depends" if len(names) == 1 else "depend"
    return f"in the graph {ops} {depend} on updates of the averages"


def _fix_optimized(layer: BNLayer, violation: Violation) -> str:
    keep = _GIVE_TRAINABLE if layer.family == "keras" else _KEEP_OUT
    if violation.severity == "warning":
        return f"{keep} What the optimizer adds to the averages is wrong."
    return f"{keep} Run the update ops with every training step, and train {AGAIN}"


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN108",
        name="statistics-optimized",
        severity="error",
        summary="an optimizer writes moving_mean or moving_variance",
        check=statistics_optimized,
        fix=_fix_optimized,
        members=STATISTICS,
        passes_plain=True,
    ),
)
