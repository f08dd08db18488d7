"""Layers before BN layers in a stored graph: the biases that are added to their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bninspect.evidence.graph.operations import (
    BIAS_ADDS,
    DIFFERENCES,
    EXPANSIONS,
    FUSED_BATCH_NORMS,
    PRODUCTS,
    SAME_VALUES,
    SUMS,
)
from bninspect.evidence.graph.traversal import GraphTraversal

_LONGEST_PATH = 16


def find_biases_before(traversal: GraphTraversal, owners: Mapping[int, str]) -> dict[str, int]:
    """Find the bias right before each BN layer that has just one, by the layer's name.

    `owners` names the layer of each variable. Between the bias and the layer only operations may
    stand that keep the values, so that there is no activation.
    """
    biases_by_layer: dict[str, set[int | None]] = {}
    for name, node in _inputs(traversal, owners):
        biases_by_layer.setdefault(name, set()).add(_bias_added_to(traversal, node))
    only = {name: biases.pop() for name, biases in biases_by_layer.items() if len(biases) == 1}
    return {name: bias for name, bias in only.items() if bias is not None}


def _inputs(traversal: GraphTraversal, owners: Mapping[int, str]) -> Iterator[tuple[str, int]]:
    """Yield the layers' names with the nodes whose values they normalize."""
    graph, variables = traversal.graph, traversal.variables
    for node, operation in enumerate(graph.operations):
        if operation not in FUSED_BATCH_NORMS | DIFFERENCES:
            continue
        inputs = graph.inputs[node]
        names = [
            owners[variables[source]]
            for source in inputs
            if source >= 0 and variables[source] in owners
        ]
        if not names:
            continue
        if operation in FUSED_BATCH_NORMS:
            yield names[0], inputs[0]
        elif inputs[0] >= 0 and variables[inputs[0]] in owners:
            # tf.nn.batch_normalization: x * scale + (beta - mean * scale)
            for value in _scaled_inputs(traversal, node):
                yield names[0], value


def _scaled_inputs(traversal: GraphTraversal, shift: int) -> Iterator[int]:
    """Yield the values that are multiplied by a scale before `shift` is added."""
    graph = traversal.graph
    for total in traversal.consumers[shift] or ():
        if graph.operations[total] not in SUMS:
            continue
        for product in graph.inputs[total]:
            if product != shift and product >= 0 and graph.operations[product] in PRODUCTS:
                yield graph.inputs[product][0]


def _bias_added_to(traversal: GraphTraversal, node: int) -> int | None:
    """Return the variable that was added last to a value, before it was only passed on."""
    graph = traversal.graph
    for _ in range(_LONGEST_PATH):
        inputs = graph.inputs[node] if node >= 0 else ()
        if not inputs:
            return None
        if graph.operations[node] in BIAS_ADDS:
            variable = traversal.variables[inputs[-1]] if inputs[-1] >= 0 else -1
            return variable if variable >= 0 else None
        if graph.operations[node] not in SAME_VALUES | EXPANSIONS:
            return None
        node = inputs[0]
    return None
