"""Why statistics stand still: the cause that the files prove, and the facts it stands on.

What is so by design is said by the layer's family or stored configuration; else the graph beside a
checkpoint may prove a cause. A graph alone is no finding, and one without an optimizer proves
nothing. An update that a training op depends on did not run for a reason that is not stored (a
placeholder fed False, a branch not taken, another graph than this): no cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE, Role
from bninspect.model.rule import RuleContext
from bninspect.rules.fixes import (
    run_collected_updates,
    run_uncollected_updates,
    switched_off,
    train_in_training_mode,
)
from bninspect.wording import listed

if TYPE_CHECKING:
    from bninspect.model.graph import GraphEvidence, Update

# Causes: statistics that their layer does not use, a layer called with training=False.
NEVER_USED, INFERENCE = "batch-statistics-mode", "built-with-training-false"
# The family whose accumulators are filled after training.
FILLED_LATER = "compare_gan"
_NAMED = 3


class Proof(NamedTuple):
    """The cause, None if none is proved, its facts, and what to do (None: as without a cause)."""

    cause: str | None = None
    facts: tuple[str, ...] = ()
    fix: str | None = None


def by_design(layer: BNLayer) -> Proof | None:
    """Why training is not to update the statistics at all; None if it is."""
    if layer.family == FILLED_LATER:
        told = "these accumulators are filled before evaluation or export, not in training"
        return Proof(facts=(told,))
    # keras/layers/normalization.py of Keras 1: mode 1 normalises each sample by itself, mode 2
    # each batch, at inference too; neither updates or uses the averages.
    mode = None if layer.keras is None else layer.keras.config.get("mode")
    if mode in (1, 2):
        return Proof(NEVER_USED, (f"the stored configuration says mode={mode}",))
    return None


def in_inference_mode(layer: BNLayer) -> Proof | None:
    """That the stored model calls the layer in inference mode; None if it does not say so."""
    if layer.keras is None or not layer.keras.inference_only:
        return None
    return Proof(INFERENCE, ("the stored model calls it with training=False",))


def why_not_updated(layer: BNLayer, context: RuleContext, roles: Sequence[Role]) -> Proof:
    """Why the statistics `roles` of a layer stand still, as far as the graph tells."""
    graph = context.graph(layer)
    if graph is None:
        return Proof()
    if not graph.training_ops:
        none = "no optimizer op (Apply…) is in the graph beside it"
        return Proof(facts=(f"{none}: what a training step runs cannot be told from that",))
    updates = [update for update in graph.updates if update.role in roles]
    if any(update.run_by for update in updates):
        return Proof(facts=_facts_of_run(graph, roles), fix=switched_off(_placeholders(graph)))
    if updates:
        return _updates_not_run(layer, graph, updates)
    if not graph.complete or graph.updates or not all(role in graph.statistics for role in roles):
        return Proof()
    return _never_built(layer, graph)


def _updates_not_run(layer: BNLayer, graph: GraphEvidence, updates: Sequence[Update]) -> Proof:
    if graph.stored:
        kept = "no optimizer depends on the updates, but something else that keeps a result does"
        return Proof(facts=(kept, "what a training step ran is not stored"))
    nodes = [update.node for update in updates]
    whose = f"`{layer.name}`"
    if len(updates) < len(graph.updates):
        whose = f"{' and '.join(dict.fromkeys(update.role for update in updates))} of {whose}"
    ops = _names(graph.training_ops)
    one = len(graph.training_ops) == 1
    count = f"the graph has {graph.total} update {'op' if graph.total == 1 else 'ops'}"
    if graph.total_run:
        told = (
            f"{count} of BN statistics and training ops depend on {graph.total_run} of them, but"
            f" {ops} {'does' if one else 'do'} not depend on those of {whose}"
        )
    else:
        told = f"{count}, but {ops} {'does' if one else 'do'} not depend on them"
    if graph.collected:
        where = f"UPDATE_OPS holds those of {whose}: {_names(nodes)}"
        fix = run_collected_updates(layer)
    else:
        where = f"UPDATE_OPS does not hold those of {whose}: {_names(nodes)}"
        fix = run_uncollected_updates(layer)
    return Proof("update-ops-not-run", (told, where, *_switched(graph)), fix)


def _switched(graph: GraphEvidence) -> tuple[str, ...]:
    """What else keeps updates from changing anything, even if they are run by hand."""
    placeholders = _placeholders(graph)
    if not placeholders:
        return ()
    one = len(placeholders) == 1
    switch = f"the {'placeholder' if one else 'placeholders'} {_names(placeholders)}"
    return (
        f"{switch} can switch them off; what {'it was' if one else 'they were'} fed is not stored",
    )


def _placeholders(graph: GraphEvidence) -> tuple[str, ...]:
    return tuple(one.name for one in graph.conditions if one.kind == "placeholder")


def _never_built(layer: BNLayer, graph: GraphEvidence) -> Proof:
    """The graph has the statistics as variables, and no node that updates one."""
    none = "no node of the graph updates " + " or ".join(
        f"`{name}`" for name in graph.statistics.values()
    )
    # Hand-written layers may use the statistics in one branch, and those of the batch in another.
    plain = bool(graph.modes) or not (graph.chosen or graph.moments)
    if not graph.reads or True in graph.modes or not plain:
        return Proof(facts=(none,))
    ops = _names(graph.training_ops)
    reads = f"what {ops} {_compute(graph)} uses them: the layer is in inference mode"
    mode = ("its fused kernel has is_training=False",) if graph.modes else ()
    if not graph.optimized and _affine_moved(layer):
        return Proof(facts=(none, reads, *mode))
    if not graph.optimized:
        frozen = "no optimizer node changes its gamma or beta"
        return Proof("layer-frozen", (none, reads, frozen), train_in_training_mode(frozen=True))
    return Proof(INFERENCE, (none, reads, *mode), train_in_training_mode())


def _affine_moved(layer: BNLayer) -> bool:
    """Whether gamma or beta changed, whatever the graph says of it."""
    if layer.since and any(
        layer.since.changes[r].moved for r in AFFINE if r in layer.since.changes
    ):
        return True
    return any(fact.startswith(AFFINE) for fact in layer.training.facts)


def _compute(graph: GraphEvidence) -> str:
    return "computes" if len(graph.training_ops) == 1 else "compute"


def _facts_of_run(graph: GraphEvidence, roles: Sequence[Role]) -> tuple[str, ...]:
    """Which training ops run updates of which statistics, and which do not."""
    by_ops: dict[tuple[str, ...], list[str]] = {}
    for role in roles:
        run = {name for one in graph.updates if one.role == role for name in one.run_by}
        if run:
            by_ops.setdefault(tuple(sorted(run)), []).append(role)
    facts = []
    for run_by, updated in by_ops.items():
        others = [name for name in graph.training_ops if name not in run_by]
        depend = "depends" if len(run_by) == 1 else "depend"
        fact = f"in the graph {_names(run_by)} {depend} on updates of {' and '.join(updated)}"
        facts.append(f"{fact}, {_names(others)} not" if others else fact)
    return (*facts, *(_switched(graph) or ("why they changed nothing is not stored",)))


def left_out_by_saver(layer: BNLayer, context: RuleContext, missing: Sequence[Role]) -> Proof:
    """Whether the graph has the variables that a checkpoint lacks."""
    graph = context.graph(layer)
    there = (
        []
        if graph is None
        else [graph.statistics[role] for role in missing if role in graph.statistics]
    )
    if len(there) < len(missing):
        return Proof()
    return Proof(
        "saver-omitted-statistics",
        (f"the graph has the {_variables(there)} {_names(there)}, the checkpoint does not",),
    )


def _variables(names: Sequence[str]) -> str:
    return "variable" if len(names) == 1 else "variables"


def _names(names: Sequence[str]) -> str:
    """Some names: `` `a`, `b` ``, and how many more."""
    return listed([f"`{name}`" for name in names], _NAMED)
