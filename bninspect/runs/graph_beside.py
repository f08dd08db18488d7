"""The graph beside a checkpoint: read once, when layers or evidence are searched in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bninspect.batchnorm.find_layers import in_natural_order, search_layers
from bninspect.errors import ReadProblem
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.layer import BNLayer

if TYPE_CHECKING:
    from bninspect.batchnorm.name_patterns import Patterns
    from bninspect.model.graph import Graph, GraphEvidence


class GraphBeside:
    """The graphs of one checkpoint; `notes` are sentences about them.

    If a graph cannot be read, a note says so, and it counts as missing.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._graphs: Sequence[Graph] | None = None
        self.notes: tuple[str, ...] = ()

    def search_layers(self, patterns: Patterns) -> list[BNLayer]:
        """Return the BN layers by names, and by the graph if names may not find all."""
        search = search_layers(self._checkpoint, patterns)
        graphs = self._read() if search.may_lack_some else ()
        if not graphs:
            return search.layers
        from bninspect.evidence.structure.layers import layers_by_structure, merge

        try:
            merged = merge(search.layers, layers_by_structure(self._checkpoint, graphs))
        except ReadProblem as problem:
            self.notes += (str(problem),)
            return search.layers
        self.notes += merged.notes
        return merged.layers if self._checkpoint.in_order else in_natural_order(merged.layers)

    def evidence_of(self, layers: Sequence[BNLayer]) -> Callable[[BNLayer], GraphEvidence | None]:
        """Return a function from one of `layers` to the evidence of the graph, or None.

        The graph is read at its first call.
        """
        evidence: dict[str, GraphEvidence] | None = None

        def of(layer: BNLayer) -> GraphEvidence | None:
            nonlocal evidence
            if evidence is None:
                evidence = self._find_evidence(layers)
            layer_evidence = evidence.get(layer.name)
            if layer_evidence is None or any(update.run_by for update in layer_evidence.updates):
                return layer_evidence
            if layer.since is None or layer.since.moved_before is None:
                return layer_evidence
            from bninspect.evidence.changes import moved_before_with

            return layer_evidence._replace(
                moved_before=moved_before_with(layer, self._checkpoint.graphs)
            )

        return of

    def _read(self) -> Sequence[Graph]:
        if self._graphs is None:
            try:
                self._graphs = self._checkpoint.graphs()
            except ReadProblem as problem:
                self._graphs = ()
                self.notes += (f"the graph beside it cannot be read: {problem}",)
        return self._graphs

    def _find_evidence(self, layers: Sequence[BNLayer]) -> dict[str, GraphEvidence]:
        graphs = self._read()
        if not graphs:
            return {}
        from bninspect.evidence.graph.layer_evidence import graph_evidence

        checkpoint = self._checkpoint
        evidence = graph_evidence(graphs, layers, checkpoint.known_names, checkpoint.variables)
        beside = graphs[0].path
        # The graph of a SavedModel belongs to its variables, even if its names differ.
        if beside.endswith(".meta") and not any(
            layer_evidence.statistics for layer_evidence in evidence.values()
        ):
            fault = "has no variable by the name of a BN statistic here and proves nothing"
            self.notes += (f"the graph beside it, {beside}, {fault}: is it of another model?",)
        return evidence
