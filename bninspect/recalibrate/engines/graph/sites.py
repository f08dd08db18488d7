"""Places where a graph normalizes by the statistics of its BN layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bninspect.errors import UsageProblem
from bninspect.evidence.graph.operations import FUSED_BATCH_NORMS
from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.evidence.structure.bn_structures import Site, Structure, find_bn_structures
from bninspect.evidence.structure.dataflow import Dataflow, TooComplexError, Value
from bninspect.evidence.structure.layers import StoredNames
from bninspect.formats.tensorflow.graph_def import parse_graphs
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.layer import BNLayer
from bninspect.recalibrate.engines.graph.nodes import Nodes, Tensor, nodes_in_loops, operand

NOT_IN_GRAPH = "is not in the graph"
_FUNCTION = "is in a loop of the graph, or in a branch of a function"
_REPLICA = re.compile(r"/replica_\d+$")  # of MirroredStrategy, all with one value
_PARTITIONED = "has partitioned statistics"
_HELPERS = {
    "renorm": "uses batch renormalization",
    "biased": "keeps averages that are corrected for their start (zero-debias)",
    "local_step": "keeps averages that are corrected for their start (zero-debias)",
}


class BNSite(NamedTuple):
    """One place that normalizes for a layer, in terms of nodes.

    `x` is the layer's input. The operations take the statistics at `takes_mean` and
    `takes_variance`, a node and the place among its inputs. `moments` are the tensors of the
    batch's moments that the graph itself computes, None if it computes none. `kernel` is the fused
    operation, None if several operations normalize.
    """

    layer: str
    x: Tensor
    takes_mean: tuple[str, int]
    takes_variance: tuple[str, int]
    moments: tuple[Tensor, Tensor] | None
    kernel: str | None


class LayerSites(NamedTuple):
    """The sites of one layer, or why there are none that can be used (`why_not`).

    `reads_variables` says that they are those of inference: they take the stored statistics.
    """

    layer: BNLayer
    sites: tuple[BNSite, ...] = ()
    unbiased: bool = False
    reads_variables: bool = False
    why_not: str | None = None


class GraphLayers:
    """The BN layers of a checkpoint in one form of its graph.

    Raises `UsageProblem` for a graph that takes far longer to search than any real one.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        layers: Sequence[BNLayer],
        path: str,
        nodes: Nodes,
        meta: Any,
    ) -> None:
        self._checkpoint = checkpoint
        self._names = list(nodes)
        self._places = {name: place for place, name in enumerate(nodes)}
        self._in_loops = nodes_in_loops(nodes)
        self._nodes = nodes
        (graph,) = parse_graphs(path, _encoded(nodes, meta))
        self.dataflow = Dataflow(GraphTraversal(graph))
        self.stored = StoredNames(checkpoint, self.dataflow)
        try:
            structures = find_bn_structures(self.dataflow, self.stored.saved)
        except TooComplexError as error:
            raise UsageProblem(
                f"{path}: searching the graph for BN layers takes too long."
            ) from error
        self._structures: dict[str, Structure] = {}
        self._not_stored: list[Structure] = []
        for structure in structures:
            variable = self.stored.variable(structure.members["moving_mean"])
            if variable is None:
                self._not_stored.append(structure)
            elif variable.name not in self._structures or self._is_named(structure, variable.name):
                self._structures[variable.name] = structure
        self._layers = layers

    @property
    def inference_layers(self) -> int:
        """How many layers take their stored statistics wherever they normalize."""
        return sum(
            all(_takes_variables(site) for site in structure.sites)
            for layer in self._layers
            if (structure := self._structure(layer)) is not None
        )

    @property
    def training_layers(self) -> set[str]:
        """The names of the layers that take the moments of a batch somewhere."""
        return {
            layer.name
            for layer in self._layers
            if (structure := self._structure(layer)) is not None
            and not all(_takes_variables(site) for site in structure.sites)
        }

    def sites(self) -> list[LayerSites]:
        """Return the sites to use of each layer: of inference if all layers have such."""
        by_layer = [self._structure(layer) for layer in self._layers]
        structures = [structure for structure in by_layer if structure is not None]
        for_inference = all(
            any(_takes_variables(site) for site in structure.sites) for structure in structures
        )
        return [
            LayerSites(layer, why_not=NOT_IN_GRAPH)
            if structure is None
            else self._sites_of(layer, structure, for_inference)
            for layer, structure in zip(self._layers, by_layer, strict=True)
        ]

    def other_sites(self, used: Iterable[BNSite]) -> list[str]:
        """Return the nodes that normalize by batch statistics and are not of a used site.

        Fused kernels do that without averages, too.
        """
        known = {name for site in used for name in (site.kernel, site.takes_mean[0])}
        sites = [site for structure in self._structures.values() for site in structure.sites]
        sites += [site for structure in self._not_stored for site in structure.sites]
        places = {site.normalization.takes_mean.node for site in sites if site.batch_means}
        normalizing = {self._names[place] for place in places if place < len(self._names)}
        normalizing |= {
            name
            for name, node in self._nodes.items()
            if node.op in FUSED_BATCH_NORMS and node.attr["is_training"].b and name in self._names
        }
        return sorted(normalizing - known)

    def _is_named(self, structure: Structure, name: str) -> bool:
        """Return whether it is the structure of the stored variable, not of another replica."""
        node = structure.members["moving_mean"][0]
        return node < len(self._names) and self._names[node] == name

    def _structure(self, layer: BNLayer) -> Structure | None:
        variable = layer.variables.get("moving_mean")
        return None if variable is None else self._structures.get(variable.name)

    def _sites_of(self, layer: BNLayer, structure: Structure, for_inference: bool) -> LayerSites:
        # Functions were written out where they are called; gradients refer to them, too.
        in_graph = [site for site in structure.sites if self._is_in_graph(site)] or structure.sites
        sites = [site for site in in_graph if _takes_variables(site)]
        training = [site for site in in_graph if not _takes_variables(site)]
        reads_variables = for_inference or not training
        chosen = sites if reads_variables else training
        why_not = self._why_not(layer, structure, chosen)
        if why_not is not None:
            return LayerSites(layer, why_not=why_not)
        return LayerSites(
            layer,
            tuple(self._site(layer.name, site) for site in chosen),
            unbiased=any(site.normalization.fused for site in structure.sites),
            reads_variables=reads_variables,
        )

    def _why_not(self, layer: BNLayer, structure: Structure, chosen: Iterable[Site]) -> str | None:
        for role in ("moving_mean", "moving_variance"):
            variable = layer.variables[role]
            if len(structure.members[role]) > 1:
                return _PARTITIONED
            scope = variable.name.rpartition("/")[0]
            for helper, reason in _HELPERS.items():
                beside = (f"{variable.name}/{helper}", f"{scope}/{helper}_mean")
                if any(name in self._checkpoint.variables for name in beside):
                    return reason
        return None if all(map(self._is_outside, chosen)) else _FUNCTION

    def _is_outside(self, site: Site) -> bool:
        """Return whether a site is in no function and in no loop."""
        place = site.normalization.takes_x.node
        return self._is_in_graph(site) and self._names[place] not in self._in_loops

    def _is_in_graph(self, site: Site) -> bool:
        return site.normalization.takes_x.node < len(self._names)

    def _site(self, layer: str, site: Site) -> BNSite:
        normalization = site.normalization
        name, place = self._names[normalization.takes_x.node], normalization.takes_x.place
        is_kernel = normalization.fused and self._nodes[name].op in FUSED_BATCH_NORMS
        moments = [
            next((self._tensor(value) for value in values if self._is_top_level(value)), None)
            for values in (site.batch_means, site.batch_variances)
        ]
        mean, variance = moments
        return BNSite(
            layer,
            operand(self._nodes[name], place),
            (self._names[normalization.takes_mean.node], normalization.takes_mean.place),
            (self._names[normalization.takes_variance.node], normalization.takes_variance.place),
            None if mean is None or variance is None else (mean, variance),
            name if is_kernel else None,
        )

    def _is_top_level(self, value: Value) -> bool:
        return value.node < len(self._names)

    def _tensor(self, value: Value) -> Tensor:
        return Tensor(self._names[value.node], value.output)

    def _place(self, name: str) -> int:
        """Return the number of a node; raises `UsageProblem` if the graph has none of this name."""
        if name not in self._places:
            raise UsageProblem(f"The graph is damaged: it has no node {name}, which others take.")
        return self._places[name]

    def origin(self, tensor: Tensor) -> Tensor:
        """Return the tensor that another is a copy of, as far as there is only one."""
        value = self.dataflow.origin(Value(self._place(tensor.node), tensor.output))
        return self._tensor(value) if self._is_top_level(value) else tensor

    def stored_name(self, node: str) -> str | None:
        """Return the name under which a variable of the graph is stored; None if it is not."""
        variable = self.stored.variable((self._place(node),))
        if variable is None and (replica := _REPLICA.search(node)) is not None:
            return self.stored_name(node[: replica.start()])
        return None if variable is None else variable.name


def _encoded(nodes: Nodes, meta: Any) -> bytes:
    """Return the nodes as an encoded MetaGraphDef with the functions of `meta`."""
    message = type(meta)()
    message.graph_def.node.extend(nodes.values())
    message.graph_def.library.CopyFrom(meta.graph_def.library)
    encoded: bytes = message.SerializeToString()
    return encoded


def _takes_variables(site: Site) -> bool:
    """Return whether a site normalizes by the stored statistics alone, as at inference."""
    if site.normalization.fused and site.normalization.is_training:
        return False
    return not site.batch_means and not site.batch_variances
