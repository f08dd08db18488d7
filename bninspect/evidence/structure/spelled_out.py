"""BN that a converted model spells out as arithmetic, beside the layers that its operations name.

Converters compute what depends on constants alone. Where they did not, variance and epsilon are
still under a root, and the layer is judged. Else a difference with the mean and a product are left,
and of a mean of 0 the product and a sum alone: then the groups say what was not judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bninspect.evidence.graph import operations as ops
from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.evidence.structure.bn_structures import Site, find_sites
from bninspect.evidence.structure.dataflow import Dataflow, Value
from bninspect.evidence.structure.frozen import KnownLayers
from bninspect.evidence.structure.layers import layers_by_structure, limited_search
from bninspect.evidence.structure.without_statistics import folded_name, is_over_batch
from bninspect.model.checkpoint import Arithmetic, Checkpoint, UncheckedGroup, Variable
from bninspect.model.graph import Graph
from bninspect.model.layer import BNLayer, OnnxNode

_SCALES = ops.PRODUCTS | {"RealDiv", "Div", "DivNoNan"}
_SHIFTS = ops.SUMS | ops.DIFFERENCES | {"BiasAdd", "BiasAddV1"}
_ROOTS = {"Rsqrt", "Sqrt", "Pow", "Reciprocal", "Inv"}
_LONGEST_CHAIN = 4  # products between the difference and the sum
_VARIANCE_FOLDED = (
    "it subtracts a constant of each channel and multiplies by others, into which the variance of"
    " a BN layer was folded, so there is no moving_variance left to check"
)
_MAYBE_FOLDED = (
    "it multiplies by a constant of each channel and adds another, which a BN layer may have been"
    " folded into; then there are no statistics left to check"
)
_WITH_EPSILON = (
    "its arithmetic has the form of BN, but adds no epsilon to the variance, which may hold it"
    " already, so that it cannot be compared with the initial value"
)
_BY_BATCH = (
    "it normalizes by the moments of each batch, as in training, and by no stored statistics"
)


class SpelledOut(NamedTuple):
    """All layers of a converted model, and the groups of its arithmetic that cannot be judged."""

    layers: list[BNLayer]
    unchecked: tuple[UncheckedGroup, ...]


def with_spelled_out(
    known: Sequence[BNLayer], checkpoint: Checkpoint, arithmetic: Arithmetic
) -> SpelledOut:
    """Return the known layers of a converted model with those that its arithmetic spells out.

    Raises a `ReadProblem` for a graph that takes far longer to search than any real one.
    """
    graph = arithmetic.graph
    layers: list[BNLayer] = []
    with limited_search(graph):
        dataflow = Dataflow(GraphTraversal(graph))
        sites = find_sites(dataflow)
        groups = [*_folded(dataflow, sites, arithmetic.variables), *_by_batch(dataflow, sites)]
    if any(site.means and site.variances for site in sites):  # no training averages moments here
        as_frozen = replace(checkpoint, variables=arithmetic.variables, frozen=True)
        layers = layers_by_structure(as_frozen, (graph,))
    judged = KnownLayers(known)
    added = [layer for layer in layers if judged.same_as(layer) is None]
    groups += [(one.name, _WITH_EPSILON) for one in added if one.epsilon is None]
    names = {layer.name for layer in known}
    return SpelledOut(
        [
            *known,
            *(_named(one, names, arithmetic) for one in added if one.epsilon is not None),
        ],
        tuple(_unchecked(groups, checkpoint.converted_from)),
    )


def folded_into_constants(
    graphs: Iterable[Graph], variables: Mapping[str, Variable]
) -> tuple[UncheckedGroup, ...]:
    """Return the arithmetic of frozen graphs that BN may have been folded into.

    `variables` are the constants by name. Raises as `with_spelled_out`.
    """
    groups: list[tuple[str, str]] = []
    for graph in graphs:
        with limited_search(graph):
            dataflow = Dataflow(GraphTraversal(graph))
            groups += _folded(dataflow, find_sites(dataflow), variables)
    return tuple(_unchecked(groups, "the checkpoint that the graph was frozen from"))


def _unchecked(groups: Iterable[tuple[str, str]], source: str) -> Iterator[UncheckedGroup]:
    """Yield groups without the names of constants: equal ones are stored once, and shared."""
    for name, reason in groups:
        yield UncheckedGroup(name, (), f"{reason}; check {source}", nameable=False)


def _by_batch(dataflow: Dataflow, sites: Iterable[Site]) -> Iterator[tuple[str, str]]:
    """Yield the name and the reason of BN that takes the moments of each batch."""
    for site in sites:
        has_constant = site.means or site.variances or site.normalization.fused
        if has_constant or (site.gamma is None and site.beta is None):
            continue
        if any(is_over_batch(dataflow, mean) for mean in site.batch_means):
            yield dataflow.graph.names[site.normalization.node], _BY_BATCH


def _named(layer: BNLayer, names: Collection[str], arithmetic: Arithmetic) -> BNLayer:
    """Return a layer as one of its container, under a name that no other layer has."""
    name = f"{layer.name} (arithmetic)" if layer.name in names else layer.name
    node = (
        OnnxNode(layer.name, in_training=False, is_arithmetic=True) if arithmetic.is_onnx else None
    )
    return replace(layer, name=name, family=arithmetic.family, onnx=node)


def _folded(
    dataflow: Dataflow, sites: Iterable[Site], variables: Mapping[str, Variable]
) -> Iterator[tuple[str, str]]:
    """Yield the name and the reason of scales that BN may have been folded into."""
    subtractions = {site.normalization.takes_mean.node for site in sites}
    search = _Search(dataflow, variables, subtractions)
    for node, operation in enumerate(dataflow.graph.operations):
        if operation in _SCALES and (group := search.group_of(Value(node))) is not None:
            yield group


class _Scale(NamedTuple):
    """A product or quotient of the value `of` with a constant of each channel."""

    value: Value
    of: Value


class _Search:
    """The search for folded BN in one graph; `judged` are the subtractions of found structures."""

    def __init__(
        self, dataflow: Dataflow, variables: Mapping[str, Variable], judged: set[int]
    ) -> None:
        self._dataflow = dataflow
        self._graph = dataflow.graph
        self._variables = variables
        self._judged = judged

    def group_of(self, product: Value) -> tuple[str, str] | None:
        """Return name and reason for the first scale of a chain; None if nothing speaks for BN."""
        scale = self._scale(product)
        if scale is None:
            return None
        before = self._dataflow.operation(scale.of)
        shift = self._shift_after(scale)
        if before in ops.DIFFERENCES:
            operands = self._dataflow.operands(scale.of)
            mean = self._channels(operands[1]) if len(operands) == 2 else None
            if mean is not None and scale.of.node not in self._judged:
                if shift is None and self._is_input(operands[0]):
                    return None  # an input normalizer
                return self._graph.names[scale.of.node], _VARIANCE_FOLDED
        if shift is None or self._is_normalized(scale.of) or self._is_input(scale.of):
            return None
        if folded_name(self._dataflow, shift.node) is not None:
            return None  # named by what tools call it
        return self._graph.names[product.node], _MAYBE_FOLDED

    def _is_normalized(self, value: Value) -> bool:
        """Return whether a value was normalized or scaled already: the scale is its gamma then."""
        operation = self._dataflow.operation(value)
        if operation not in _SCALES:
            return operation in _ROOTS or "Norm" in operation
        factors = self._dataflow.sources(value, _SCALES)
        return (
            operation not in ops.PRODUCTS
            or self._scale(value) is not None
            or any(self._dataflow.operation(factor) in _ROOTS for factor in factors)
        )

    def _is_input(self, value: Value) -> bool:
        return self._dataflow.operation(self._dataflow.origin(value)) in ops.PLACEHOLDERS

    def _scale(self, value: Value) -> _Scale | None:
        """Return the factors of a product with a constant of each channel; None for others."""
        operands = self._dataflow.operands(value)
        if len(operands) != 2:
            return None
        is_product = self._dataflow.operation(value) in ops.PRODUCTS
        for index in (1, 0) if is_product else (1,):
            constant = self._channels(operands[index])
            other = self._dataflow.origin(operands[1 - index])
            if constant is not None and not self._dataflow.variable(other):
                return _Scale(value, other)
        return None

    def _channels(self, value: Value) -> int | None:
        """Return the node of a constant with one number for each of several channels, or None."""
        origin = self._dataflow.origin(value)
        if not self._dataflow.variable(origin):
            return None
        variable = self._variables.get(self._graph.names[origin.node])
        if variable is None or sum(size != 1 for size in variable.shape) != 1:
            return None
        return origin.node

    def _shift_after(self, scale: _Scale) -> Value | None:
        """Return the sum with a constant that ends a chain of scales; None without one."""
        value = scale.value
        for _ in range(_LONGEST_CHAIN):
            following = None
            for consumer, index in self._dataflow.consumers(value):
                operation = self._dataflow.operation(consumer)
                if operation in _SHIFTS and self._takes_constant(consumer, 1 - index):
                    return consumer
                if operation in _SCALES and self._scale(consumer) is not None:
                    following = consumer
            if following is None:
                break
            value = following
        return None

    def _takes_constant(self, value: Value, index: int) -> bool:
        operands = self._dataflow.operands(value)
        return len(operands) == 2 and self._channels(operands[index]) is not None
