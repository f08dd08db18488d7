"""Evidence of a stored graph for BN layers: whether training runs the updates of their statistics.

An update runs with a step if a training op depends on it, by data or by control. Updates that no
training op depends on may be run by hand, so nothing here is a finding by itself; and a graph
without an optimizer proves nothing about training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain

from bninspect.batchnorm.families import FAMILIES
from bninspect.errors import ReadProblem
from bninspect.evidence.graph.conditions import StoredScalar, find_conditions
from bninspect.evidence.graph.layer_before import LayerBefore, find_layers_before
from bninspect.evidence.graph.modes import find_modes
from bninspect.evidence.graph.momentum import common_momentum
from bninspect.evidence.graph.training_ops import TrainingOps, find_training_ops
from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.evidence.graph.updates import (
    find_other_results,
    find_sources,
    find_updates,
    takes_one_pass_variance,
)
from bninspect.model.checkpoint import Variable
from bninspect.model.graph import Graph, GraphEvidence, Operation, Scalar, Update
from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE, STATISTICS, Role

_MOST_GRAPHS = 8

Names = Mapping[str, str]
Members = dict[Role, int]  # the nodes of a layer's variables


def graph_evidence(
    graphs: Sequence[Graph],
    layers: Sequence[BNLayer],
    known_names: Names,
    variables: Mapping[str, Variable] | None = None,
) -> dict[str, GraphEvidence]:
    """Return the evidence of the graphs of one file about each layer, by its name.

    It is empty without graphs. Of several graphs (of a SavedModel), the first one that trains is
    used. `known_names` and `variables` are those of the checkpoint.
    """
    if not graphs:
        return {}
    traversals = [GraphTraversal(graph) for graph in graphs[:_MOST_GRAPHS]]
    candidates = [(traversal, find_training_ops(traversal)) for traversal in traversals]
    traversal, ops = next((pair for pair in candidates if pair[1].named), candidates[0])
    members = _find_members(traversal, layers, known_names)
    facts = _GraphFacts(traversal, ops, members, _stored_scalars(variables or {}, known_names))
    return {layer.name: facts.of(layer.name) for layer in layers}


class _GraphFacts:
    """The facts of one graph about all BN layers, each found once."""

    def __init__(
        self,
        traversal: GraphTraversal,
        ops: TrainingOps,
        members: Mapping[str, Members],
        stored: StoredScalar,
    ) -> None:
        graph = traversal.graph
        self._traversal, self._graph, self._ops = traversal, graph, ops
        self._members, self._stored = members, stored
        owners = {node: name for name, layer in members.items() for node in layer.values()}
        statistics = {
            node for layer in members.values() for role, node in layer.items() if role in STATISTICS
        }
        self._updates = find_updates(traversal, statistics)
        self._run_by = _training_ops_behind(traversal, ops, self._updates.nodes)
        self._modes = find_modes(traversal, ops.optimizing, self._updates.nodes)
        self._sources = find_sources(traversal, owners)
        self._before = find_layers_before(traversal, owners)
        self._optimizing = traversal.ancestors(ops.optimizing)
        self._behind_other_results = traversal.ancestors(
            find_other_results(traversal, self._updates.nodes)
        )
        collections = graph.collections
        self._collected = (
            None if collections is None else traversal.ancestors(collections.get("update_ops", ()))
        )
        self._optimizers: dict[int, list[int]] = {}
        for node in traversal.optimizers:
            if graph.inputs[node]:
                variable = traversal.variables[graph.inputs[node][0]]
                self._optimizers.setdefault(variable, []).append(node)

    def of(self, name: str) -> GraphEvidence:
        """Return the evidence of the layer called `name`."""
        graph, modes, members = self._graph, self._modes, self._members[name]
        roles = {variable: role for role, variable in members.items()}
        own = [node for node, variable in self._updates.nodes.items() if variable in roles]
        statistics = {role: members[role] for role in STATISTICS if role in members}
        affine = [members[role] for role in AFFINE if role in members]
        before = self._before.get(name, LayerBefore(None, None))
        return GraphEvidence(
            path=graph.path,
            training_ops=tuple(self._ops.named),
            updates=tuple(self._update(node, roles) for node in own),
            total=len(self._updates.nodes),
            total_run=sum(map(bool, self._run_by.values())),
            complete=self._updates.complete,
            conditions=find_conditions(self._traversal, own, self._stored),
            stored=any(self._behind_other_results[node] and not self._run_by[node] for node in own),
            momentum=common_momentum(graph, self._traversal.variables, own),
            one_pass=any(takes_one_pass_variance(self._traversal, node) for node in own),
            statistics={role: graph.names[node] for role, node in statistics.items()},
            reads=not modes.reads.isdisjoint(statistics.values()),
            modes=frozenset().union(*(modes.fused.get(node, ()) for node in members.values())),
            chosen=not modes.chosen.isdisjoint(statistics.values()),
            moments=modes.moments,
            input_from=None if before.node is None else self._operation(before.node),
            bias_before=None if before.bias is None else graph.names[before.bias],
            computes_affine=not modes.computes.isdisjoint(affine),
            optimized=not affine or any(node in self._optimizers for node in affine),
            optimizer_writes={
                role: tuple(graph.names[writer] for writer in self._optimizers[node])
                for role, node in statistics.items()
                if node in self._optimizers
            },
            assigned_from={
                role: graph.names[self._sources[node]]
                for role, node in members.items()
                if node in self._sources
            },
        )

    def _update(self, node: int, roles: Mapping[int, Role]) -> Update:
        return Update(
            self._graph.names[node],
            roles[self._updates.nodes[node]],
            tuple(self._run_by[node]),
            self._traversal.in_loop(node),
            self._traversal.can_be_run(node),
            bool(self._optimizing[node]),
            None if self._collected is None else bool(self._collected[node]),
        )

    def _operation(self, node: int) -> Operation:
        return Operation(self._graph.names[node], self._graph.operations[node])


def _training_ops_behind(
    traversal: GraphTraversal, ops: TrainingOps, updates: Mapping[int, int]
) -> dict[int, list[str]]:
    """Return for each update the names of the training ops that run it.

    An op without a name that a user knows is given only if no other runs the update.
    """
    run_by: dict[int, list[str]] = {node: [] for node in updates}
    for name, starts in chain(ops.named.items(), ops.unnamed.items()):
        reached = traversal.ancestors(starts)
        for node, names in run_by.items():
            if reached[node] and (name in ops.named or not names):
                names.append(name)
    return run_by


def _find_members(
    traversal: GraphTraversal, layers: Sequence[BNLayer], known_names: Names
) -> dict[str, Members]:
    """Find the nodes of each layer's variables, of statistics also those that are not stored."""
    names = traversal.graph.names
    nodes = {
        names[node]: node for node, variable in enumerate(traversal.variables) if variable == node
    }
    return {layer.name: _members(layer, known_names, nodes) for layer in layers}


def _members(layer: BNLayer, known_names: Names, nodes: Mapping[str, int]) -> Members:
    members: Members = {
        role: nodes[name] for role, name in layer.graph_names.items() if name in nodes
    }
    scope = ""
    for role, variable in layer.variables.items():
        name = known_names.get(variable.name, variable.name)
        scope = name.rpartition("/")[0]
        if name in nodes:
            members.setdefault(role, nodes[name])
    for role in STATISTICS:
        if role not in layer.variables and role not in members:
            leaves = (family.leaves[role] for family in FAMILIES if family.name == layer.family)
            candidates = (f"{scope}/{leaf}" for names in leaves for leaf in names)
            node = next((nodes[name] for name in candidates if name in nodes), None)
            if node is not None:
                members[role] = node
    return members


def _stored_scalars(variables: Mapping[str, Variable], known_names: Names) -> StoredScalar:
    """Return a function that reads the stored value of a variable of one element by its name."""
    keys: dict[str, str] = {}

    def stored(name: str) -> Scalar | None:
        if not keys:
            keys.update((known_names.get(key, key), key) for key in variables)
        variable = variables[keys[name]] if name in keys else None
        if variable is None or variable.size != 1:
            return None
        with suppress(ReadProblem):
            value: Scalar = variable.read().reshape(()).item()
            return value
        return None

    return stored
