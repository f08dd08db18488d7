"""Momentum of update nodes: the constant in the arithmetic before them.

An average is moved by `variable -= (variable - value) * (1 - momentum)` or set to
`variable * momentum + value * (1 - momentum)`. The constant is written out, is 1 minus another
constant, or is chosen by a training switch whose other branch moves nothing
(tensorflow/python/training/moving_averages.py, tensorflow/python/keras/layers/normalization.py).
TensorFlow 2's fused kernel averages by itself, by its attribute exponential_avg_factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bninspect.evidence.graph import operations as ops
from bninspect.evidence.graph.updates import origin_of
from bninspect.model.graph import Graph

_LONGEST_PATH = 8
_MOST_VALUES = 8
_DIGITS = 6  # that a float32 near 1 holds


def common_momentum(graph: Graph, variables: Sequence[int], updates: Iterable[int]) -> float | None:
    """Return the momentum of all `updates`, None unless it is one constant for all.

    `variables` says of each node which variable it passes on. The momentum is 1.0 if no update has
    a branch in which it moves the average.
    """
    momenta = {_momentum(graph, variables, node) for node in updates}
    return momenta.pop() if len(momenta) == 1 else None


def _momentum(graph: Graph, variables: Sequence[int], update: int) -> float | None:
    target, value = graph.inputs[update][0], origin_of(graph, graph.inputs[update][1])
    if value is None:
        return None
    operation, operands = graph.operations[value], graph.inputs[value]
    shares: set[float] = set()
    if operation in ops.AVERAGING_BATCH_NORMS:
        factor = graph.attribute(value, "exponential_avg_factor")
        shares = {factor} if isinstance(factor, float) else set()
    elif operation in ops.PRODUCTS and "Sub" in graph.operations[update]:
        shares = _factor(graph, operands)
    elif operation in ops.SUMS and "Assign" in graph.operations[update]:
        shares = _shares_of_sum(graph, variables, variables[target], operands)
    return _momentum_of_shares({round(share, _DIGITS) for share in shares})


def _momentum_of_shares(shares: set[float]) -> float | None:
    """Return 1 minus the one share; a share of 0 beside others is the branch for inference."""
    if shares == {0.0}:
        return 1.0
    momenta = {round(1.0 - share, _DIGITS) for share in shares if 0.0 < share <= 1.0}
    return momenta.pop() if len(momenta) == 1 else None


def _shares_of_sum(
    graph: Graph, variables: Sequence[int], variable: int, operands: Sequence[int]
) -> set[float]:
    """Return 1 minus each constant that a sum multiplies the variable by."""
    products = [origin_of(graph, node) for node in operands]
    return {
        1.0 - factor
        for product in products
        if product is not None and graph.operations[product] in ops.PRODUCTS
        if any(node >= 0 and variables[node] == variable for node in graph.inputs[product])
        for factor in _factor(graph, graph.inputs[product])
    }


def _factor(graph: Graph, operands: Sequence[int]) -> set[float]:
    """Return the values of the one constant operand of a product; several if it is chosen."""
    constants = [
        values for operand in operands if (values := _constants(graph, operand, _LONGEST_PATH))
    ]
    return constants[0] if len(constants) == 1 else set()


def _constants(graph: Graph, node: int, depth: int) -> set[float]:
    """Return the constants that a node may evaluate to; none if it is no constant."""
    if node < 0 or not depth:
        return set()
    operation, inputs = graph.operations[node], graph.inputs[node]
    if operation == ops.CONSTANT:
        value = graph.attribute(node, "value")
        return {value} if isinstance(value, float) else set()
    if operation in ops.SAME_VALUES and inputs:
        return _constants(graph, inputs[0], depth - 1)
    if operation in ops.DIFFERENCES and len(inputs) == 2:
        left, right = (_constants(graph, operand, depth - 1) for operand in inputs)
        return _few({a - b for a in left for b in right})
    branches = inputs[:2] if operation in ops.MERGES else ()
    branches = inputs[1:3] if operation in ops.SELECTS else branches
    values = [_constants(graph, branch, depth - 1) for branch in branches]
    return _few(set().union(*values)) if values and all(values) else set()


def _few(values: set[float]) -> set[float]:
    return values if len(values) <= _MOST_VALUES else set()
