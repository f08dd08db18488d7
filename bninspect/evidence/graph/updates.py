"""Writes to the variables of BN layers: updates of statistics, copies, results kept elsewhere.

A node updates a statistic if it assigns a computed value to the variable, through whatever passes a
variable on (Identity, Switch, Enter, ReadVariableOp, the arguments of functions). The names of
nodes prove nothing: they are AssignMovingAvg, update_moving_mean, mean_ema_op, AssignNewValue, ….
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator
from typing import NamedTuple

from bninspect.evidence.graph import operations as ops
from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.model.graph import ARGUMENT, Graph

_LONGEST_PATH = 32
_UPDATE = ops.PASSES | ops.ARITHMETIC | ops.RESHAPES | ops.RELATIVE_ASSIGNS | {"AssignVariableOp"}


class Updates(NamedTuple):
    """The nodes that update a statistic, with its variable; `complete` if these are all."""

    nodes: dict[int, int]
    complete: bool


def find_updates(traversal: GraphTraversal, statistics: Container[int]) -> Updates:
    """Find the nodes that update one of the variables `statistics`."""
    nodes: dict[int, int] = {}
    complete = True
    for node, operation in enumerate(traversal.graph.operations):
        inputs = traversal.graph.inputs[node]
        if not inputs or inputs[0] < 0:
            continue
        variable = traversal.variables[inputs[0]]
        if operation.startswith(ops.OTHER_WRITES):
            complete = complete and variable >= 0 and variable not in statistics
        elif operation in ops.ASSIGNS and len(inputs) > 1:
            if variable in statistics and is_computed(traversal, node):
                nodes[node] = variable
            elif variable < 0 or (variable in statistics and _is_given(traversal.graph, node)):
                complete = False
    return Updates(nodes, complete)


def find_other_results(traversal: GraphTraversal, updates: Container[int]) -> Iterator[int]:
    """Yield the nodes that keep a result, besides `updates` and the optimizers.

    These accumulate gradients, or train by assignments of their own. What runs them is not stored,
    so a training step may run the updates with them.
    """
    for node, operation in enumerate(traversal.graph.operations):
        inputs = traversal.graph.inputs[node]
        if operation.startswith(ops.STORES) or (
            operation in ops.ASSIGNS
            and len(inputs) > 1
            and inputs[0] >= 0
            and node not in updates
            and is_computed(traversal, node)
        ):
            yield node


def find_sources(traversal: GraphTraversal, variables: Collection[int]) -> dict[int, int]:
    """Find those of `variables` that the graph assigns from another variable, and that variable.

    That is a copy, or an average of both as target networks have it: the assigned value is computed
    from variables and constants alone. Initialisers are left out.
    """
    graph = traversal.graph
    sources: dict[int, int] = {}
    for node, operation in enumerate(graph.operations):
        if operation not in ops.ASSIGNS - ops.RELATIVE_ASSIGNS or len(graph.inputs[node]) < 2:
            continue
        target, value = graph.inputs[node][:2]
        variable = traversal.variables[target] if target >= 0 else -1
        if variable in variables and not _is_initialiser(graph, node, variable):
            nodes, complete = traversal.backwards([value], _UPDATE)
            leaves = {leaf for leaf in nodes if graph.operations[leaf] not in _UPDATE}
            variables_read = {leaf for leaf in leaves if graph.operations[leaf] in ops.VARIABLES}
            copied = variables_read - {variable}
            other_operations = {graph.operations[leaf] for leaf in leaves - copied - {variable}}
            if complete and len(copied) == 1 and other_operations <= {ops.CONSTANT}:
                sources[variable] = copied.pop()
    return sources


def is_computed(traversal: GraphTraversal, node: int) -> bool:
    """Return whether an assigned value is computed: not initial, restored, copied or set."""
    graph = traversal.graph
    target, value = graph.inputs[node][:2]
    if graph.operations[node] in ops.RELATIVE_ASSIGNS:
        return True
    if _is_initialiser(graph, node, traversal.variables[target]):
        return False
    origin = origin_of(graph, value)
    return origin is not None and graph.operations[origin] not in ops.NO_UPDATES | {ARGUMENT}


def takes_one_pass_variance(traversal: GraphTraversal, update: int) -> bool:
    """Return whether an update computes the variance as E[x^2] - E[x]^2 (imprecise in float32)."""
    graph = traversal.graph
    nodes, _ = traversal.backwards([update], _UPDATE)
    differences = (
        graph.inputs[node] for node in nodes if graph.operations[node] in ops.DIFFERENCES
    )
    return any(
        len(inputs) == 2
        and _is_chain(graph, inputs[0], ("Mean", "square"))
        and _is_chain(graph, inputs[1], ("square", "Mean"))
        for inputs in differences
    )


def _is_chain(graph: Graph, node: int, operations: tuple[str, ...]) -> bool:
    """Return whether a value is computed by these operations, the last one first to run."""
    for wanted in operations:
        origin = origin_of(graph, node)
        if origin is None or wanted != _kind(graph, origin) or not graph.inputs[origin]:
            return False
        node = graph.inputs[origin][0]
    return True


def _kind(graph: Graph, node: int) -> str:
    """Return the operation of a node, `square` for every way to square a value."""
    operation, inputs = graph.operations[node], graph.inputs[node]
    is_square = operation in {"Square", "Pow"} or (
        operation in ops.PRODUCTS and len(inputs) == 2 and inputs[0] == inputs[1]
    )
    return "square" if is_square else operation


def _is_initialiser(graph: Graph, node: int, variable: int) -> bool:
    return variable >= 0 and graph.names[node] == f"{graph.names[variable]}/Assign"


def _is_given(graph: Graph, node: int) -> bool:
    """Return whether the assigned value is an argument of a function."""
    origin = origin_of(graph, graph.inputs[node][1])
    return origin is not None and graph.operations[origin] == ARGUMENT


def origin_of(graph: Graph, node: int) -> int | None:
    """Return the node that computed a value, before it was passed on or reshaped."""
    for _ in range(_LONGEST_PATH):
        if node < 0:
            return None
        inputs = graph.inputs[node]
        if graph.operations[node] not in ops.SAME_VALUES or not inputs:
            return node
        node = inputs[0]
    return None
