"""Causes of statistics that stand still, each with the facts that prove it.

The layer's family or stored configuration may show that it is by design; otherwise the graph beside
the checkpoint may prove a cause. A graph alone is no finding, and one without an optimizer proves
nothing. If a training op depends on the updates, or a condition can switch them off, the reason is
not stored (a placeholder fed False, a branch not taken, another graph): then no cause is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bninspect.frozen import NamedTuple
from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE, STATISTICS, Role
from bninspect.model.rule import RuleContext
from bninspect.rules.fixes import (
    run_collected_updates,
    run_the_updates,
    run_uncollected_updates,
    switch_on,
    train_in_training_mode,
)
from bninspect.rules.graph_fixes import (
    checks_of,
    copy_statistics,
    load_or_build,
    load_statistics,
    not_run_or_switched_off,
    run_by_hand_until,
    switched_off,
    train_the_training_network,
    written,
)
from bninspect.rules.mode_fixes import keep_the_updates, train_in_batch_mode
from bninspect.wording import listed, plural

if TYPE_CHECKING:
    from bninspect.model.graph import Condition, GraphEvidence, Update

# Causes: statistics that their layer does not use, a layer called with training=False.
NEVER_USED, INFERENCE = "batch-statistics-mode", "built-with-training-false"
NOT_LOADED = "statistics-not-loaded"
# The family whose accumulators are filled after training.
FILLED_LATER = "compare_gan"
_NAMED = 3


class Proof(NamedTuple):
    """A cause (None if none is proved), its facts, and a fix (None for the one without a cause)."""

    cause: str | None = None
    facts: tuple[str, ...] = ()
    fix: str | None = None


def by_design(layer: BNLayer) -> Proof | None:
    """Return the proof that training never updates the statistics by design; None if it should."""
    if layer.family == FILLED_LATER:
        fact = "these accumulators are filled before evaluation or export, not in training"
        return Proof(facts=(fact,))
    # keras/layers/normalization.py of Keras 1: mode 1 normalises each sample by itself, mode 2
    # each batch, at inference too; neither updates or uses the averages.
    mode = None if layer.keras is None else layer.keras.config.get("mode")
    if mode in (1, 2):
        return Proof(NEVER_USED, (f"the stored configuration says mode={mode}",))
    return None


def in_inference_mode(layer: BNLayer, context: RuleContext) -> Proof | None:
    """Return the proof that the model calls the layer in inference mode, or None.

    None for a frozen layer: its statistics would stand still in training mode, too.
    """
    if layer.keras is None or not layer.keras.inference_only or layer.keras.frozen:
        return None
    model = "the model" if context.live else "the stored model"
    return Proof(INFERENCE, (f"{model} calls the layer with training=False",))


def why_not_updated(layer: BNLayer, context: RuleContext, roles: Sequence[Role]) -> Proof:
    """Return the cause why the statistics `roles` stand still, as graph and bias prove it."""
    proof = _by_graph(layer, context, roles)
    if proof.cause is not None:
        return proof
    mode = context.mode(layer)
    if mode is None:
        return proof
    proof = proof._replace(facts=(*proof.facts, mode.fact))
    if mode.mode == "inference":
        return _in_inference_mode(layer, context, roles, proof)
    return _in_batch_mode(layer, context, roles, proof)


def _in_inference_mode(
    layer: BNLayer, context: RuleContext, roles: Sequence[Role], proof: Proof
) -> Proof:
    """Return the proof for a layer that training ran in inference mode."""
    if len(roles) < len(STATISTICS):
        return proof
    graph = context.graph(layer)
    checks = checks_of(graph.conditions) if graph is not None and graph.conditions else None
    return proof._replace(cause="trained-in-inference-mode", fix=train_in_batch_mode(layer, checks))


def _in_batch_mode(
    layer: BNLayer, context: RuleContext, roles: Sequence[Role], proof: Proof
) -> Proof:
    """Return the proof for batch statistics in training: no condition switched the updates off."""
    graph = context.graph(layer)
    if graph is None or not graph.training_ops:
        return proof._replace(fix=keep_the_updates(layer))
    updates = [update for update in graph.updates if update.role in roles]
    is_reached = any(update.run_by for update in updates)
    if not updates or is_reached or graph.stored or graph.moved_before is not None:
        return proof
    return proof._replace(cause="update-ops-not-run", fix=_run(layer, updates))


def _by_graph(layer: BNLayer, context: RuleContext, roles: Sequence[Role]) -> Proof:
    """Return the cause why the statistics `roles` stand still, as far as the graph proves it."""
    graph = context.graph(layer)
    if graph is None or (context.frozen and not graph.training_ops):
        return Proof()
    if not graph.training_ops:
        which = "the graph of the session" if context.live else "the graph beside it"
        none = f"no optimizer op (Apply…) is in {which}"
        return Proof(facts=(f"{none}: what a training step runs cannot be told from that",))
    updates = [update for update in graph.updates if update.role in roles]
    if any(update.run_by for update in updates):
        return Proof(
            facts=_facts_of_run(graph, roles, live=context.live),
            fix=switched_off(graph.conditions, switch_on(layer)),
        )
    if updates:
        return _updates_not_run(layer, graph, updates, live=context.live)
    if not graph.complete or graph.updates or not all(role in graph.statistics for role in roles):
        return Proof()
    return _never_built(layer, graph, roles)


def _updates_not_run(
    layer: BNLayer, graph: GraphEvidence, updates: Sequence[Update], *, live: bool
) -> Proof:
    """Return the proof for updates that no training op depends on."""
    if graph.stored:
        fact = "no optimizer depends on the updates, but something else that keeps a result does"
        return Proof(facts=(fact, f"what a training step ran {_is_not_known(live=live)}"))
    whose = f"`{layer.name}`"
    if len(updates) < len(graph.updates):
        whose = f"{' and '.join(dict.fromkeys(update.role for update in updates))} of {whose}"
    unreached = _unreached(graph, whose)
    if graph.in_inference_mode:
        facts = (unreached, *_inference_facts(graph))
        return Proof(INFERENCE, facts, train_the_training_network())
    collection = () if graph.collected is None else (_collection(updates, whose),)
    facts = (unreached, *collection, *condition_facts(graph.conditions, live=live))
    fix = _run(layer, updates)
    if not any(update.can_be_run for update in updates):
        alone = "no op that session.run can fetch depends on them: nothing can run them"
        return Proof("update-ops-not-run", (*facts, alone), fix)
    if graph.moved_before is not None:
        by_hand = f"the statistics moved {graph.moved_before}: something ran the updates then"
        return Proof(facts=(*facts, by_hand), fix=run_by_hand_until(graph.moved_before, fix))
    if graph.conditions:
        return Proof(facts=facts, fix=not_run_or_switched_off(graph.conditions, fix))
    return Proof("update-ops-not-run", facts, fix)


def _run(layer: BNLayer, updates: Sequence[Update]) -> str:
    """Return the fix for updates that do not run, by whether UPDATE_OPS has them all.

    Where that is not stored, the layer's framework tells.
    """
    if any(update.collected is None for update in updates):
        return run_the_updates(layer)
    if all(update.collected for update in updates):
        return run_collected_updates(layer)
    return run_uncollected_updates(layer)


def _collection(updates: Sequence[Update], whose: str) -> str:
    """Return the fact which of the updates UPDATE_OPS holds."""
    held = [update.node for update in updates if update.collected]
    others = [update.node for update in updates if not update.collected]
    if held and others:
        return f"of those of {whose} UPDATE_OPS holds {_names(held)}, but not {_names(others)}"
    holds = "holds" if held else "does not hold"
    return f"UPDATE_OPS {holds} those of {whose}: {_names(held or others)}"


def _unreached(graph: GraphEvidence, whose: str) -> str:
    """Return the fact that training ops depend on none of some updates, and on how many others."""
    does = "does" if len(graph.training_ops) == 1 else "do"
    ops = f"{_names(graph.training_ops)} {does} not depend on"
    count = f"the graph has {plural(graph.total, 'update op')}"
    if not graph.total_run:
        return f"{count}, but {ops} them"
    return (
        f"{count} of BN statistics and training ops depend on {graph.total_run} of them, but"
        f" {ops} those of {whose}"
    )


def condition_facts(conditions: Sequence[Condition], *, live: bool = False) -> tuple[str, ...]:
    """Return a fact per condition that can switch the updates off, even if they run by hand."""
    return tuple(_condition_fact(condition, live=live) for condition in conditions[:_NAMED])


def _is_not_known(*, live: bool) -> str:
    """Return the end of a clause on what neither a file nor the graph of a session shows."""
    return "is not in the graph" if live else "is not stored"


def _condition_fact(condition: Condition, *, live: bool) -> str:
    name, value = f"`{condition.name}`", written(condition.value)
    unknown = _is_not_known(live=live)
    if condition.kind == "placeholder":
        default = "" if value is None else f"its default is {value}, "
        return f"the placeholder {name} can switch them off; {default}what it was fed {unknown}"
    if condition.kind == "variable" and condition.bound is not None:
        stored = "" if value is None else f" (stored as {value})"
        return (
            f"a condition that compares the variable {name}{stored} with"
            f" {written(condition.bound)} can switch them off"
        )
    if condition.kind == "variable":
        stored = f"its value {unknown}" if value is None else f"it is stored as {value}"
        return f"the variable {name} can switch them off; {stored}"
    if condition.kind == "constant":
        return f"the condition {name}, a constant of the graph, can switch them off"
    return f"the output of {name} can switch them off; what it gave {unknown}"


def _never_built(layer: BNLayer, graph: GraphEvidence, roles: Sequence[Role]) -> Proof:
    """Return the proof for statistics that are variables which no node updates."""
    none = "no node of the graph updates " + " or ".join(
        f"`{name}`" for name in graph.statistics.values()
    )
    assigned = [role for role in AFFINE if role in graph.assigned_from]
    if assigned and not graph.optimized and len(roles) == len(STATISTICS):
        sources = _names([graph.assigned_from[role] for role in assigned])
        copied = f"the graph assigns {' and '.join(assigned)} from {sources}"
        return Proof(NOT_LOADED, (copied, none), copy_statistics(assigned))
    if not graph.in_inference_mode:
        return Proof(facts=(none,), fix=load_or_build())
    facts = (none, *_inference_facts(graph))
    if graph.optimized:
        return Proof(INFERENCE, facts, train_in_training_mode())
    frozen = "no optimizer node changes its gamma or beta"
    if _affine_moved(layer):
        return Proof(facts=(*facts, frozen), fix=load_statistics())
    return Proof("layer-frozen", (*facts, frozen), train_in_training_mode(frozen=True))


def _inference_facts(graph: GraphEvidence) -> tuple[str, ...]:
    compute = "computes" if len(graph.training_ops) == 1 else "compute"
    ops = f"what {_names(graph.training_ops)} {compute} uses the statistics"
    mode = ("its fused kernel has is_training=False",) if graph.modes else ()
    return (f"{ops}: the layer is in inference mode", *mode)


def _affine_moved(layer: BNLayer) -> bool:
    """Return whether gamma or beta changed, whatever the graph says."""
    if layer.since and any(
        layer.since.changes[r].moved for r in AFFINE if r in layer.since.changes
    ):
        return True
    return any(fact.startswith(AFFINE) for fact in layer.training.facts)


def _facts_of_run(graph: GraphEvidence, roles: Sequence[Role], *, live: bool) -> tuple[str, ...]:
    """Return which training ops run updates of which statistics, and which do not, as facts."""
    by_ops: dict[tuple[str, ...], list[str]] = {}
    for role in roles:
        run = {name for update in graph.updates if update.role == role for name in update.run_by}
        if run:
            by_ops.setdefault(tuple(sorted(run)), []).append(role)
    facts = []
    for run_by, updated in by_ops.items():
        not_run_by = [name for name in graph.training_ops if name not in run_by]
        depend = "depends" if len(run_by) == 1 else "depend"
        fact = f"in the graph {_names(run_by)} {depend} on updates of {' and '.join(updated)}"
        facts.append(f"{fact}, {_names(not_run_by)} not" if not_run_by else fact)
    unknown = (f"why they changed nothing {_is_not_known(live=live)}",)
    return (*facts, *(condition_facts(graph.conditions, live=live) or unknown))


def left_out_by_saver(layer: BNLayer, context: RuleContext, missing: Sequence[Role]) -> Proof:
    """Return the proof that the graph has the variables that a checkpoint lacks, if it has."""
    graph = context.graph(layer)
    names = (
        []
        if graph is None
        else [graph.statistics[role] for role in missing if role in graph.statistics]
    )
    if len(names) < len(missing):
        return Proof()
    return Proof(
        "saver-omitted-statistics",
        (f"the graph has the {_variables(names)} {_names(names)}, the checkpoint does not",),
    )


def _variables(names: Sequence[str]) -> str:
    return "variable" if len(names) == 1 else "variables"


def _names(names: Sequence[str]) -> str:
    """Return the first names in quotes, and the number of the others: `` `a`, `b` and 3 more ``."""
    return listed([f"`{name}`" for name in names], _NAMED)
