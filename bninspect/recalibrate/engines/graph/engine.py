"""Engine of a TensorFlow 1 checkpoint: its graph is rewritten once and run for each batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import RecalibrationRefused, UsageProblem
from bninspect.evidence.graph.operations import VARIABLES
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.filenames import meta_graph
from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS
from bninspect.recalibrate.engines import Array, Batch, EngineLayer, InputSpec
from bninspect.recalibrate.engines.frameworks import import_framework, parse_message
from bninspect.recalibrate.engines.graph.branches import Scalar, resolve
from bninspect.recalibrate.engines.graph.dropout import dropouts
from bninspect.recalibrate.engines.graph.inputs import GraphInputs, declared_dtype, described
from bninspect.recalibrate.engines.graph.modes import inference_modes
from bninspect.recalibrate.engines.graph.nodes import Tensor, operand
from bninspect.recalibrate.engines.graph.outputs import Output, network_outputs
from bninspect.recalibrate.engines.graph.rewriting import Rewriter, SiteTensors, layout_of
from bninspect.recalibrate.engines.graph.session import (
    GraphSession,
    refuse_operations,
    same_numbers,
)
from bninspect.recalibrate.engines.graph.sites import (
    NOT_IN_GRAPH,
    BNSite,
    GraphLayers,
    LayerSites,
)
from bninspect.recalibrate.moments import BatchMoments, merged

# How far the moments may be from those that the graph computes, as a share.
_AGREEMENT = 1e-3
_SHAPES = (
    "has an input of unknown shape, or normalizes by other than one statistic for each channel"
    " (virtual batches)"
)


class StoredGraph(NamedTuple):
    """A graph to run: its file, its MetaGraphDef, and the nodes of its outputs.

    Without `outputs` they are looked for.
    """

    path: str
    meta: Any
    outputs: tuple[str, ...] = ()


class GraphEngine:
    """The network in the graph beside a checkpoint, or in `graph`, with its BN layers.

    `fed` are the names of tensors that samples will be fed to, with the value of those that stay
    the same for all batches, else None. Raises `RecalibrationRefused` for a graph that cannot be
    run as at inference, `UsageProblem` if TensorFlow cannot run it, and a `ReadProblem` if the
    graph or a variable cannot be read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        layers: Sequence[BNLayer],
        fed: Mapping[str, Array | None] | None = None,
        graph: StoredGraph | None = None,
    ) -> None:
        tf = import_framework("tensorflow")
        self.framework = f"tensorflow {tf.__version__}"
        self._checkpoint = checkpoint
        self._path, self._meta, names = graph or _graph_beside(checkpoint)
        self._outputs = [Output(Tensor(name), Tensor(name)) for name in names]
        given = {name: value for name, value in (fed or {}).items() if value is not None}
        self._constants = {name.partition(":")[0]: value for name, value in given.items()}
        layers = [layer for layer in layers if layer.variables.keys() >= set(STATISTICS)]
        nodes = self._resolved(layers)
        samples = [name for name, value in (fed or {}).items() if value is None]
        self._inputs = GraphInputs(nodes, samples)
        graph_layers = GraphLayers(checkpoint, layers, self._path, nodes, self._meta)
        self._trained |= graph_layers.training_layers
        self._layers = graph_layers.sites()
        self._refuse_layers()
        self._prepare(nodes, graph_layers)

    def _refuse_layers(self) -> None:
        """Raise `RecalibrationRefused` if a layer of the network cannot use batch statistics.

        The layers after it would have inputs that they have neither in training nor at inference.
        """
        for layer_sites in self._layers:
            if layer_sites.why_not is not None and layer_sites.why_not != NOT_IN_GRAPH:
                raise RecalibrationRefused(
                    f"The layer {layer_sites.layer.name} {layer_sites.why_not}: its statistics"
                    " cannot be re-estimated."
                )
        if not any(layer_sites.sites for layer_sites in self._layers):
            raise RecalibrationRefused(
                f"The graph {self._path} normalizes by the statistics of none of the BN layers."
            )

    def _resolved(self, layers: Sequence[BNLayer]) -> dict[str, Any]:
        """Return the nodes of the graph at inference, with its modes as constants."""
        nodes = {node.name: node for node in self._meta.graph_def.node}
        self._trained: set[str] = set()
        functions = {
            function.signature.name: function for function in self._meta.graph_def.library.function
        }
        known = {**self._stored_scalars(nodes), **_scalars(self._constants)}

        def score(choice: Mapping[str, Scalar]) -> tuple[int, int]:
            resolved = resolve(nodes, functions, choice)
            graph_layers = GraphLayers(self._checkpoint, layers, self._path, resolved, self._meta)
            self._trained |= graph_layers.training_layers
            draws = sum(node.op.startswith("Random") for node in resolved.values())
            return graph_layers.inference_layers, -draws

        modes = inference_modes(nodes, known, score)
        for mode, fed in _scalars(self._constants).items():
            if isinstance(fed, bool):
                score({**known, mode: not fed})  # which layers training could run in batch mode
        resolved = resolve(nodes, functions, {**known, **modes})
        rewriter = Rewriter(resolved)
        tf = import_framework("tensorflow")
        self._given = [
            InputSpec(name, np.shape(value), np.asarray(value).dtype.name)
            for name, value in self._constants.items()
            if name in nodes
        ]
        for name, value in {**self._constants, **modes}.items():
            if name in resolved and resolved[name].op not in VARIABLES:
                dtype = tf.as_dtype(declared_dtype(resolved[name]))
                if not (dtype.is_bool or dtype.is_floating or dtype.is_integer):
                    raise UsageProblem(f"--feed {name}: it takes {dtype.name}, not a number.")
                rewriter.constant(name, np.asarray(value).astype(dtype.as_numpy_dtype))
        if self._given:  # shapes that the graph remembers may be those of other values
            for node in resolved.values():
                node.attr.pop("_output_shapes", None)
        return resolved

    def _stored_scalars(self, nodes: Mapping[str, Any]) -> dict[str, Scalar]:
        """Return the values of variables of one number that predicates may compare, as steps."""
        scalars = {}
        for name, node in nodes.items():
            stored = self._checkpoint.variables.get(name)
            if node.op in VARIABLES and stored is not None and stored.size == 1:
                value = stored.read().reshape(-1)[0]
                if value.dtype.kind in "iuf":
                    scalars[name] = value.item()
        return scalars

    def _prepare(self, nodes: dict[str, Any], graph_layers: GraphLayers) -> None:
        """Rewrite the sites of all layers and start the session."""
        sites = [site for layer_sites in self._layers for site in layer_sites.sites]
        self._outputs = self._outputs or network_outputs(nodes, sites, graph_layers.origin)
        outputs = [tensor for output in self._outputs for tensor in output]
        before = GraphSession(nodes, [*outputs, *_touched(nodes, sites)], self._meta, self._path)
        rewriter = Rewriter(nodes)
        for product, kept in dropouts(
            {name: nodes[name] for name in before.nodes}, before.shape_rank
        ).items():
            rewriter.identity(product, kept, before.dtype(kept))
        self._sites: list[SiteTensors] = []
        self._layers = [
            self._rewritten(layer_sites, nodes, rewriter, before) for layer_sites in self._layers
        ]
        self._refuse_layers()
        needed = [*outputs, *(tensor for site in self._sites for tensor in site.tensors)]
        self._session = GraphSession(nodes, needed, self._meta, self._path)
        self._specs = self._inputs.specs(self._session.nodes)
        refuse_operations(nodes, self._session.nodes)
        self._refuse_other_sites(graph_layers.other_sites(sites))
        self._session.load(nodes, lambda name: self._read(graph_layers, nodes, name))
        self._is_checked = False
        self._stored = {
            layer_sites.layer.name: (
                layer_sites.layer.variables["moving_mean"].read().astype(np.float64).reshape(-1),
                layer_sites.layer.variables["moving_variance"]
                .read()
                .astype(np.float64)
                .reshape(-1),
            )
            for layer_sites in self._layers
            if layer_sites.sites
        }

    def _refuse_other_sites(self, others: Iterable[str]) -> None:
        """Raise `RecalibrationRefused` for a BN layer of the network that is not stored."""
        used = [name for name in others if name in self._session.nodes]
        if used:
            raise RecalibrationRefused(
                f"The network normalizes by the statistics of a batch at {used[0]}, which belongs"
                " to no BN layer of the checkpoint."
            )

    def _rewritten(
        self,
        layer_sites: LayerSites,
        nodes: dict[str, Any],
        rewriter: Rewriter,
        before: GraphSession,
    ) -> LayerSites:
        """Rewrite the sites of a layer, or say why that cannot be."""
        channels = layer_sites.layer.variables["moving_mean"].size if layer_sites.sites else 0
        prepared = []
        for site in layer_sites.sites:
            places = (site.takes_mean, site.takes_variance)
            mean, variance = (operand(nodes[name], place) for name, place in places)
            kernel = None if site.kernel is None else nodes[site.kernel]
            layout = layout_of(kernel, before.shape(site.x), before.shape(mean), channels)
            if layout is None:
                return layer_sites._replace(sites=(), why_not=_SHAPES)
            prepared.append((site, layout, [before.dtype(t) for t in (site.x, mean, variance)]))
        self._sites += [rewriter.rewrite(*arguments) for arguments in prepared]
        return layer_sites

    def _read(self, graph_layers: GraphLayers, nodes: Mapping[str, Any], name: str) -> NDArray[Any]:
        """Return the stored value of a variable of the graph."""
        stored = graph_layers.stored_name(name)
        if stored is None:
            raise RecalibrationRefused(
                f"The network of the graph needs the variable {name}, which the checkpoint does not"
                " store."
            )
        value = self._checkpoint.variables[stored].read()
        shape = nodes[name].attr["shape"].shape
        if (
            not shape.unknown_rank
            and tuple(dimension.size for dimension in shape.dim) != value.shape
        ):
            raise RecalibrationRefused(
                f"The variable {name} is a part of the stored {stored}: networks with partitioned"
                " variables are not run."
            )
        return value

    def inputs(self) -> Sequence[InputSpec]:
        """Return the tensors that samples have to be fed to, and those that were given a value."""
        return [*self._specs.values(), *self._given]

    @property
    def batch_size(self) -> int | None:
        """The number of samples that the graph was built for; None if it takes any."""
        sizes = {spec.shape[0] for spec in self._specs.values() if spec.shape} - {None}
        return sizes.pop() if len(sizes) == 1 else None

    def layers(self) -> Sequence[EngineLayer]:
        """Return the BN layers of the network, whose moments can be taken."""
        return [
            EngineLayer(
                layer_sites.layer.name,
                layer_sites.layer.variables["moving_mean"].name,
                layer_sites.layer.variables["moving_variance"].name,
                layer_sites.layer.usual_epsilon
                if layer_sites.layer.epsilon is None
                else layer_sites.layer.epsilon,
                layer_sites.unbiased,
            )
            for layer_sites in self._layers
            if layer_sites.sites
        ]

    def batch_moments(self, batch: Batch) -> dict[str, BatchMoments]:
        """Return the moments of each layer's input, all layers on batch statistics.

        Layers that the training ran in inference mode beside others stay in it. One that normalizes
        in several places has the moments of all its inputs together.
        Raises `UsageProblem` if an input is missing or the batch has not `batch_size` samples, and
        `RecalibrationRefused` if the graph computes other moments by itself.
        """
        fed, size = self._fed(batch), self.batch_size
        if size is not None and _rows(batch) != size:
            raise UsageProblem(
                f"The graph takes batches of exactly {size} samples: use --batch {size}."
            )
        fetched = [
            tensor for site in self._sites for tensor in (site.mean, site.variance, site.size)
        ]
        checks = (
            [] if self._is_checked else [tensor for site in self._sites for tensor in site.check]
        )
        values = self._session.run([*fetched, *checks], {**fed, **self._frozen_statistics()})
        parts: dict[str, list[BatchMoments]] = {}
        moments = []
        for place, site in enumerate(self._sites):
            mean, variance, elements = values[3 * place : 3 * place + 3]
            moments.append(BatchMoments(mean, variance, int(elements) // len(mean)))
            parts.setdefault(site.layer, []).append(moments[-1])
        if not self._is_checked:
            self._check(moments, values[len(fetched) :])
            self._is_checked = True
        return {layer: merged(moments_of_sites) for layer, moments_of_sites in parts.items()}

    def _frozen_statistics(self) -> dict[Tensor, NDArray[Any]]:
        """Return what to feed where layers that were in inference mode in training normalize."""
        return {
            tensor: statistic.astype(self._session.numpy_dtype(tensor))
            for site in self._sites
            if self._trained and site.layer not in self._trained
            for tensor, statistic in zip(site.given, self._stored[site.layer], strict=True)
        }

    def _check(
        self, moments: Sequence[BatchMoments], graph_moments: Sequence[NDArray[Any]]
    ) -> None:
        """Raise `RecalibrationRefused` if the graph's own moments of a site are others."""
        remaining = iter(graph_moments)
        for site, site_moments in zip(self._sites, moments, strict=True):
            if not site.check:
                continue
            mean, variance = next(remaining), next(remaining)
            if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
                raise RecalibrationRefused(
                    f"The moments of the input of the layer {site.layer} are not finite (NaN or"
                    " infinity): look for it in the samples, and in the weights with"
                    " `bninspect check`."
                )
            expected = site_moments.variance
            if site.check_is_unbiased:
                expected = expected * site_moments.count / max(site_moments.count - 1, 1)
            size = np.maximum(np.sqrt(expected), np.abs(site_moments.mean)) + 1e-6
            if not (
                same_numbers(mean, site_moments.mean, size, _AGREEMENT)
                and same_numbers(variance, expected, size**2, _AGREEMENT)
            ):
                raise RecalibrationRefused(
                    f"The layer {site.layer} normalizes by other moments than those of its input"
                    " (virtual batches, or a normalization of its own): its statistics cannot be"
                    " re-estimated."
                )

    def outputs(
        self,
        batch: Batch,
        *,
        statistics: Mapping[str, tuple[Array, Array]] | None = None,
        on_batch_statistics: bool = False,
    ) -> list[Array]:
        """Return the logits of the network; empty if the graph does not show which they are."""
        rows, size = _rows(batch), self.batch_size
        if size is None or rows == size or on_batch_statistics:
            return self._outputs_of(batch, statistics, on_batch_statistics)
        parts = [
            self._outputs_of(_part(batch, start, size), statistics, on_batch_statistics)
            for start in range(0, rows, size)
        ]
        return [np.concatenate(output_parts)[:rows] for output_parts in zip(*parts, strict=True)]

    def _outputs_of(
        self,
        batch: Batch,
        statistics: Mapping[str, tuple[Array, Array]] | None,
        on_batch_statistics: bool,
    ) -> list[Array]:
        fed = self._fed(batch)
        if on_batch_statistics:
            fed |= self._frozen_statistics()
        for site in () if on_batch_statistics else self._sites:
            given = (statistics or {}).get(site.layer, self._stored[site.layer])
            for tensor, statistic in zip((site.mean, site.variance), given, strict=True):
                fed[tensor] = np.asarray(statistic, np.float64).reshape(-1)
        fetched = [tensor for output in self._outputs for tensor in output]
        pairs = iter(self._session.run(fetched, fed))
        # One row for each sample: pixels may be flattened for a loss, or a last axis squeezed.
        rows = _rows(batch)
        values = [
            computed if np.shape(taken)[:1] != (rows,) == np.shape(computed)[:1] else taken
            for taken, computed in zip(pairs, pairs, strict=True)
        ]
        return [np.concatenate(values)] if self._is_split(values, batch) else values

    def _is_split(self, values: Sequence[Array], batch: Batch) -> bool:
        """Return whether the outputs are those of towers, each with a part of the batch."""
        is_array = all(np.ndim(value) for value in values)
        return len(values) > 1 and is_array and _rows(batch) == sum(map(len, values))

    def _fed(self, batch: Batch) -> dict[Tensor, NDArray[Any]]:
        given = {name.removesuffix(":0"): value for name, value in batch.items()}
        fed = {}
        missing = []
        for placeholder, spec in self._specs.items():
            value = given.get(spec.name.removesuffix(":0"))
            if value is None:
                missing.append(spec)
            else:
                fed[Tensor(placeholder)] = np.asarray(value)
        if missing:
            raise UsageProblem(
                f"Nothing is given for {described(missing)}: use --feed NAME=KEY or VALUE for each."
            )
        return fed

    def close(self) -> None:
        """Free what TensorFlow holds."""
        self._session.close()


def _graph_beside(checkpoint: Checkpoint) -> StoredGraph:
    path = meta_graph(checkpoint.resolved)
    message = import_framework("tensorflow").compat.v1.MetaGraphDef
    return StoredGraph(path, parse_message(message, path))


def _rows(batch: Batch) -> int:
    """Return the number of samples in a batch, whose scalars are the same for all."""
    return max((len(array) for array in batch.values() if np.ndim(array)), default=0)


def _part(batch: Batch, start: int, size: int) -> dict[str, Array]:
    """Return `size` samples of a batch; the last one stands for those that are missing."""
    rows = np.minimum(np.arange(start, start + size), _rows(batch) - 1)
    return {name: array[rows] if np.ndim(array) else array for name, array in batch.items()}


def _scalars(values: Mapping[str, Array]) -> dict[str, Scalar]:
    return {name: np.asarray(value).item() for name, value in values.items() if np.size(value) == 1}


def _touched(nodes: Mapping[str, Any], sites: Sequence[BNSite]) -> list[Tensor]:
    """Return the tensors of sites whose types and shapes are asked for."""
    taken = [place for site in sites for place in (site.takes_mean, site.takes_variance)]
    return [*(site.x for site in sites), *(operand(nodes[name], place) for name, place in taken)]
