"""BN layers of frozen graphs: the graph decides which constants are theirs, and which have none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.evidence.structure.dataflow import Dataflow
from bninspect.evidence.structure.layers import (
    Merged,
    found_by_graph,
    found_by_names,
    limited_search,
)
from bninspect.evidence.structure.without_statistics import COMPUTED, groups_without_statistics
from bninspect.model.checkpoint import UncheckedGroup
from bninspect.model.graph import Graph
from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES, STATISTICS, Role
from bninspect.wording import listed

_GRAPH = "the graph"


def layers_without_statistics(graphs: Sequence[Graph]) -> tuple[UncheckedGroup, ...]:
    """Return the BN of frozen graphs that has no statistics; raises as `layers_by_structure`."""
    groups: dict[str, UncheckedGroup] = {}
    for graph in graphs:
        with limited_search(graph):
            for group in groups_without_statistics(Dataflow(GraphTraversal(graph))):
                groups.setdefault(group.name, group)
    return tuple(groups.values())


def merge_frozen(
    by_names: Sequence[BNLayer],
    by_graph: Sequence[BNLayer],
    without_statistics: Iterable[UncheckedGroup],
) -> Merged:
    """Return the layers of both searches; what the graph computes counts where they differ.

    A layer of the graph is that of the names if these give its constants the same roles. Other
    layers of the names are left out if the graph uses their statistics otherwise, or computes them:
    nothing is missing then. Notes say which layers only one search found, and why layers have no
    statistics.
    """
    used = {one.name for layer in by_graph for one in layer.variables.values()}
    merged: list[BNLayer] = []
    computed: dict[str, BNLayer] = {}
    added = []
    known = KnownLayers(by_names)
    for layer in by_graph:
        named = known.same_as(layer)
        if named is None:
            added.append(layer.name)
        merged.append(layer if named is None else replace(named, epsilon=layer.epsilon))
        computed[merged[-1].name] = layer
    left = [
        layer
        for layer in by_names
        if used.isdisjoint(_deciding(layer)) and layer.name not in computed
    ]
    explained = _explained(left, without_statistics)
    of_computed = explained.pop(COMPUTED, [])
    left = [layer for layer in left if layer.name not in of_computed]
    without = {name for names in explained.values() for name in names}
    notes = [found_by_graph(added, _GRAPH)] if added else []
    notes += [f"{listed(names)}: {reason}" for reason, names in explained.items()]
    if unused := [layer.name for layer in left if layer.name not in without]:
        notes.append(found_by_names(unused, _GRAPH))
    return Merged([*merged, *left], tuple(notes), computed)


class KnownLayers:
    """Layers that were found by names or operations, looked up by those of a graph's arithmetic."""

    def __init__(self, layers: Iterable[BNLayer]) -> None:
        self._layers = [one for one in layers if all(role in one.variables for role in STATISTICS)]
        # The roles of members → their names → the layer.
        self._by_members: dict[tuple[Role, ...], dict[tuple[str, ...], BNLayer]] = {}

    def same_as(self, by_graph: BNLayer) -> BNLayer | None:
        """Return the layer in which a graph's constants have the same roles; None without one."""
        roles = tuple(role for role in ROLES if role in by_graph.variables)
        if roles not in self._by_members:
            by_names = self._by_members[roles] = {}
            for layer in self._layers:
                if all(role in layer.variables for role in roles):
                    by_names.setdefault(_names_of(layer, roles), layer)
        return self._by_members[roles].get(_names_of(by_graph, roles))


def _names_of(layer: BNLayer, roles: Iterable[Role]) -> tuple[str, ...]:
    return tuple(layer.variables[role].name for role in roles)


def _deciding(layer: BNLayer) -> set[str]:
    """Return the constants that another use shows to be those of another layer.

    Layers may share gamma or beta, where equal constants became one.
    """
    statistics = {layer.variables[role].name for role in STATISTICS if role in layer.variables}
    return statistics or _names(layer)


def _names(layer: BNLayer) -> set[str]:
    return {variable.name for variable in layer.variables.values()}


def _explained(
    layers: Iterable[BNLayer], without_statistics: Iterable[UncheckedGroup]
) -> dict[str, list[str]]:
    """Return the layers that have no statistics, by the reason."""
    reasons = {name: group.reason for group in without_statistics for name in group.variables}
    explained: dict[str, list[str]] = {}
    for layer in layers:
        known = [reasons[name] for name in sorted(_names(layer)) if name in reasons]
        if known:
            explained.setdefault(known[0], []).append(layer.name)
    return explained
