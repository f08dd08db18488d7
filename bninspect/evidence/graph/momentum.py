"""The momentum that the update nodes of a graph take: the constant in the arithmetic before them.

An average is moved by `variable -= (variable - value) * (1 - momentum)` or set to
`variable * momentum + value * (1 - momentum)`; the constant is written out, is 1 minus another
constant, or is chosen by a training switch whose other branch moves nothing
(tensorflow/python/training/moving_averages.py, tensorflow/python/keras/layers/normalization.py).
TensorFlow 2's fused kernel averages by itself, by its attribute exponential_avg_factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bninspect.model.graph import Graph

_SAME = {"Identity", "Switch", "Enter", "Cast", "Reshape", "Squeeze"}
_CHOICES = {"Merge": slice(0, None), "Select": slice(1, 3), "SelectV2": slice(1, 3)}
_DIFFERENCES = {"Sub"}
_SUMS = {"Add", "AddV2"}
_PRODUCTS = {"Mul"}
_FUSED = {"FusedBatchNormV3"}
_DEPTH = 8
_MOST_VALUES = 8
_DIGITS = 6  # what a float32 near 1 keeps of them


def common_momentum(graph: Graph, variables: Sequence[int], updates: Iterable[int]) -> float | None:
    """The momentum of all `updates`, None where it is not one constant for all.

    `variables` tells of each node which variable it passes on.
    """
    found = {_momentum(graph, variables, node) for node in updates}
    return found.pop() if len(found) == 1 else None


def _momentum(graph: Graph, variables: Sequence[int], update: int) -> float | None:
    inputs = graph.inputs[update]
    value = _through(graph, inputs[1])
    operands = graph.inputs[value] if value >= 0 else ()
    operation = graph.operations[value] if value >= 0 else ""
    shares: set[float] = set()
    if operation in _FUSED:
        factor = graph.attribute(value, "exponential_avg_factor")
        shares = {factor} if isinstance(factor, float) else set()
    elif operation in _PRODUCTS and "Sub" in graph.operations[update]:
        shares = _factor(graph, operands)
    elif operation in _SUMS and "Assign" in graph.operations[update]:
        kept = [
            1.0 - factor
            for product in (_through(graph, one) for one in operands)
            if product >= 0 and graph.operations[product] in _PRODUCTS
            if any(
                one >= 0 and variables[one] == variables[inputs[0]] for one in graph.inputs[product]
            )
            for factor in _factor(graph, graph.inputs[product])
        ]
        shares = set(kept)
    # A share of 0 is that of the branch for inference.
    momenta = {round(1.0 - share, _DIGITS) for share in shares if 0.0 < share <= 1.0}
    return momenta.pop() if len(momenta) == 1 else None


def _factor(graph: Graph, operands: Sequence[int]) -> set[float]:
    """The constants that the one constant operand of a product may be."""
    constants = [found for one in operands if (found := _constants(graph, one, _DEPTH))]
    return constants[0] if len(constants) == 1 else set()


def _through(graph: Graph, node: int) -> int:
    """What computed the value that `node` passes on."""
    for _ in range(_DEPTH):
        if node < 0 or graph.operations[node] not in _SAME or not graph.inputs[node]:
            return node
        node = graph.inputs[node][0]
    return node


def _constants(graph: Graph, node: int, depth: int) -> set[float]:
    """The numbers that a node may give if it gives a constant, else none."""
    if node < 0 or not depth:
        return set()
    operation, inputs = graph.operations[node], graph.inputs[node]
    if operation == "Const":
        value = graph.attribute(node, "value")
        return {value} if isinstance(value, float) else set()
    if operation in _SAME and inputs:
        return _constants(graph, inputs[0], depth - 1)
    parts = inputs[_CHOICES[operation]] if operation in _CHOICES else ()
    if operation in _DIFFERENCES and len(inputs) == 2:
        left, right = (_constants(graph, one, depth - 1) for one in inputs)
        found = {a - b for a in left for b in right}
    else:
        branches = [_constants(graph, one, depth - 1) for one in parts[:2]]
        found = set().union(*branches) if branches and all(branches) else set()
    return found if len(found) <= _MOST_VALUES else set()
