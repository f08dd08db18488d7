"""The graph beside a checkpoint: read once, when layers or evidence are searched in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from bninspect.batchnorm.find_layers import in_natural_order, search_layers
from bninspect.errors import OtherGraph, ReadProblem
from bninspect.model.checkpoint import Checkpoint, UncheckedGroup
from bninspect.model.filenames import graph_files, meta_graph, shared_graph
from bninspect.model.layer import BNLayer
from bninspect.storage import filesystem
from bninspect.storage.urls import is_url

if TYPE_CHECKING:
    from bninspect.batchnorm.name_patterns import Patterns
    from bninspect.model.graph import Graph, GraphEvidence


def has_graph_beside(prefix: str) -> bool:
    """Return whether a graph lies beside a name-based checkpoint; it may be of another training."""
    graphs = (meta_graph(prefix), *graph_files(prefix, in_url=is_url(prefix)))
    return any(map(filesystem.exists, graphs))


class GraphBeside:
    """The graphs of one `checkpoint`; `notes` are sentences about them.

    If a graph cannot be read, a note says so, and it counts as missing. `computed` has the layers
    as the graph computes them, by name, once it was searched, and `unchecked` the BN of a frozen
    graph that has no statistics.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._graphs: Sequence[Graph] | None = None
        self._other: OtherGraph | None = None
        self.notes: tuple[str, ...] = ()
        self.computed: Mapping[str, BNLayer] = {}
        self.unchecked: tuple[UncheckedGroup, ...] = ()

    def search_layers(self, patterns: Patterns, *, always: bool = False) -> list[BNLayer]:
        """Return the BN layers by names, and by the graph if names may not find all, or `always`.

        With `always`, a note says so if there is no graph.
        """
        search = search_layers(self.checkpoint, patterns)
        if self.checkpoint.converted_from:
            self.notes += tuple(_no_graph(self.checkpoint)) if always else ()
            return self._with_spelled_out(search.layers)
        # The names of a frozen graph's constants prove nothing.
        always = always or self.checkpoint.frozen
        graphs = self._read() if search.may_lack_some or always else ()
        if always and not graphs and not self.notes:
            other = None if self._other is None else (str(self._other),)
            self.notes += other or tuple(_no_graph(self.checkpoint))
        if not graphs:
            return search.layers
        from bninspect.evidence.structure.layers import layers_by_structure, merge

        try:
            by_graph = layers_by_structure(self.checkpoint, graphs)
            if self.checkpoint.frozen:
                from bninspect.evidence.structure.frozen import (
                    layers_without_statistics,
                    merge_frozen,
                )
                from bninspect.evidence.structure.spelled_out import folded_into_constants

                self.unchecked = layers_without_statistics(graphs)
                merged = merge_frozen(search.layers, by_graph, self.unchecked)
                self.unchecked += folded_into_constants(graphs, self.checkpoint.variables)
            else:
                merged = merge(search.layers, by_graph)
        except ReadProblem as problem:
            self.notes += (str(problem),)
            return search.layers
        self.notes += merged.notes
        self.computed = merged.computed
        return merged.layers if self.checkpoint.in_order else in_natural_order(merged.layers)

    def _with_spelled_out(self, known: list[BNLayer]) -> list[BNLayer]:
        """Return the known layers, with those that the arithmetic of a converted model computes."""
        try:
            arithmetic = self.checkpoint.arithmetic()
            if arithmetic is None:
                return known
            from bninspect.evidence.structure.spelled_out import with_spelled_out

            found = with_spelled_out(known, self.checkpoint, arithmetic)
        except ReadProblem as problem:
            group = UncheckedGroup("its arithmetic", (), problem.message, nameable=False)
            self.unchecked = (group,)
            return known
        self.unchecked = found.unchecked
        return found.layers

    def evidence_of(self, layers: Sequence[BNLayer]) -> Callable[[BNLayer], GraphEvidence | None]:
        """Return a function from one of `layers` to the evidence of the graph, or None.

        The graph is read at its first call.
        """
        evidence = cache(lambda: self._find_evidence(layers))

        def of(layer: BNLayer) -> GraphEvidence | None:
            of_layers = evidence()
            if not of_layers:  # no graph, as beside most checkpoints
                return None
            layer_evidence = of_layers.get(layer.name)
            if layer_evidence is None or any(update.run_by for update in layer_evidence.updates):
                return layer_evidence
            if layer.since is None or layer.since.moved_before is None:
                return layer_evidence
            from bninspect.evidence.changes import moved_before_with

            return layer_evidence._replace(
                moved_before=moved_before_with(layer, self.checkpoint.graphs)
            )

        return of

    def _read(self) -> Sequence[Graph]:
        if self._graphs is None:
            try:
                self._graphs = self.checkpoint.graphs()
            except OtherGraph as problem:
                self._graphs, self._other = (), problem
            except ReadProblem as problem:
                self._graphs = ()
                self.notes += (f"the graph beside it cannot be read: {problem}",)
        return self._graphs

    def _find_evidence(self, layers: Sequence[BNLayer]) -> dict[str, GraphEvidence]:
        graphs = self._read()
        if self._other is not None:
            self._note(str(self._other))
        if not graphs:
            return {}
        from bninspect.evidence.graph.layer_evidence import graph_evidence

        checkpoint = self.checkpoint
        evidence = graph_evidence(graphs, layers, checkpoint.known_names, checkpoint.variables)
        beside = graphs[0].path
        # The graph of a SavedModel belongs to its variables, even if its names differ.
        if beside.endswith(".meta") and not any(
            layer_evidence.statistics for layer_evidence in evidence.values()
        ):
            fault = "has no variable by the name of a BN statistic here and proves nothing"
            self._note(f"the graph beside it, {beside}, {fault}: is it of another model?")
        if shared := shared_graph(beside):
            self._note(f"the graph is {shared}, which has the variables of this checkpoint")
        return evidence

    def _note(self, note: str) -> None:
        if note not in self.notes:  # what is read ahead is judged twice
            self.notes += (note,)


def _no_graph(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield a sentence on the file that would say how training computes the layers."""
    if checkpoint.keras_layers is not None or checkpoint.layers is not None:
        return
    if checkpoint.format in ("keras-h5", "keras-weights-h5", "keras-zip"):
        yield (
            "no model configuration is stored: list the whole model (`model.save`), which has one"
        )
    elif checkpoint.format == "tfjs":
        yield "a TensorFlow.js model has no graph that trains: list what it was converted from"
    elif checkpoint.format == "orbax":
        yield "no graph is stored: Orbax saves none"
    elif checkpoint.named_by == "object":
        yield "no graph is stored: object-based checkpoints have none; list the model's SavedModel"
    else:
        yield (
            f"no graph is stored beside it: put {os.path.basename(meta_graph(checkpoint.resolved))}"
            " there, which tf.train.Saver writes with each checkpoint"
        )
