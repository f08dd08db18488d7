"""Layers before BN layers in a stored graph: what computes their inputs, and the bias of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bninspect.evidence.graph import operations as ops
from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.model.graph import ARGUMENT

_LONGEST_PATH = 16


class LayerBefore(NamedTuple):
    """The node that computes a layer's input, and the variable of the bias that is added to that.

    Each is None where there is none, or where the layer is called several times with different
    ones.
    """

    node: int | None
    bias: int | None


def find_layers_before(
    traversal: GraphTraversal, owners: Mapping[int, str]
) -> dict[str, LayerBefore]:
    """Find the layer right before each BN layer, by the BN layer's name.

    `owners` names the layer of each variable. Between both only operations may stand that keep the
    values, so that there is no activation.
    """
    nodes: dict[str, set[int | None]] = {}
    biases: dict[str, set[int | None]] = {}
    for name, value in _inputs(traversal, owners):
        before = _before(traversal, value)
        nodes.setdefault(name, set()).add(before.node)
        biases.setdefault(name, set()).add(before.bias)
    return {name: LayerBefore(_only(nodes[name]), _only(biases[name])) for name in nodes}


def _only(values: set[int | None]) -> int | None:
    return next(iter(values)) if len(values) == 1 else None


def _inputs(traversal: GraphTraversal, owners: Mapping[int, str]) -> Iterator[tuple[str, int]]:
    """Yield the layers' names with the nodes whose values they normalize."""
    graph, variables = traversal.graph, traversal.variables
    for node, operation in enumerate(graph.operations):
        if operation not in ops.FUSED_BATCH_NORMS | ops.DIFFERENCES:
            continue
        inputs = graph.inputs[node]
        names = [
            owners[variables[source]]
            for source in inputs
            if source >= 0 and variables[source] in owners
        ]
        if not names:
            continue
        if operation in ops.FUSED_BATCH_NORMS:
            yield names[0], inputs[0]
        elif inputs[0] >= 0 and variables[inputs[0]] in owners:
            # tf.nn.batch_normalization: x * scale + (beta - mean * scale)
            for value in _scaled_inputs(traversal, node):
                yield names[0], value


def _scaled_inputs(traversal: GraphTraversal, shift: int) -> Iterator[int]:
    """Yield the values that are multiplied by a scale before `shift` is added."""
    graph = traversal.graph
    for total in traversal.consumers[shift] or ():
        if graph.operations[total] not in ops.SUMS:
            continue
        for product in graph.inputs[total]:
            if product != shift and product >= 0 and graph.operations[product] in ops.PRODUCTS:
                yield from graph.inputs[product][:1]


def _before(traversal: GraphTraversal, node: int) -> LayerBefore:
    """Return what computed a value, and the variable that was added last to it."""
    graph = traversal.graph
    node = _computed_by(traversal, node)
    inputs = graph.inputs[node] if node >= 0 else ()
    if not inputs or graph.operations[node] not in ops.BIAS_ADDS:
        return LayerBefore(_named(traversal, node), None)
    bias = traversal.variables[inputs[-1]] if inputs[-1] >= 0 else -1
    if bias < 0:
        return LayerBefore(_named(traversal, node), None)
    return LayerBefore(_named(traversal, _computed_by(traversal, inputs[0])), bias)


def _computed_by(traversal: GraphTraversal, node: int) -> int:
    """Return the node whose values a node passes on; -1 if that is too far away or missing."""
    graph = traversal.graph
    for _ in range(_LONGEST_PATH):
        if node < 0 or graph.operations[node] not in ops.SAME_VALUES | ops.EXPANSIONS:
            return node
        node = graph.inputs[node][0] if graph.inputs[node] else -1
    return -1


def _named(traversal: GraphTraversal, node: int) -> int | None:
    """Return a node, None for one that is missing or the argument of a function."""
    return node if node >= 0 and traversal.graph.operations[node] != ARGUMENT else None
