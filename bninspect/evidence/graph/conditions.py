"""Conditions that decide whether an update changes a statistic: the mode, or the step.

A condition stands between an update and the statistics of the batch, or around the update:
tf.cond as Switch and Merge or as If with its branches, tf.where as Select
(tensorflow/python/ops/control_flow_ops.py, cond_v2.py), or a factor of the update that is fed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from bninspect.evidence.graph import operations as ops
from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.model.graph import ARGUMENT, Condition, Graph, Scalar

# The statistics of the batch are computed by other operations, so the traversal ends there. A
# constant that was made inside of a tf.cond waits for the branch, by a control input.
_UPDATE = ops.PASSES | ops.ARITHMETIC | ops.RESHAPES | ops.MERGES | set(ops.SELECTS)
_UPDATE |= ops.RELATIVE_ASSIGNS | {ops.CONSTANT, "AssignVariableOp"}
_PREDICATE = ops.PASSES | ops.LOGIC | ops.RESHAPES
_WITH_DEFAULT = "PlaceholderWithDefault"

# The value of a stored variable of one element, None if it is not stored.
StoredScalar = Callable[[str], Scalar | None]


def find_conditions(
    traversal: GraphTraversal, updates: Iterable[int], stored: StoredScalar
) -> tuple[Condition, ...]:
    """Find the conditions on which `updates` change anything, each by its placeholder or variable.

    A constant that lets the updates run is no condition.
    """
    updates = [*updates]
    predicates = [*_predicates(traversal, updates)]
    conditions = [_condition(traversal, node, stored) for node in _fed_factors(traversal, updates)]
    for predicate in predicates:
        conditions += _conditions_of(traversal, predicate, stored)
    return tuple({(condition.kind, condition.name): condition for condition in conditions}.values())


def _predicates(traversal: GraphTraversal, updates: Iterable[int]) -> Iterator[int]:
    """Yield the nodes whose values choose the inputs of the updates, or whether they run."""
    updates = [*updates]
    graph = traversal.graph
    nodes, complete = traversal.backwards(updates, _UPDATE)
    for node in nodes:
        index = ops.PREDICATES.get(graph.operations[node], -1)
        predicate = graph.inputs[node][index] if 0 <= index < len(graph.inputs[node]) else -1
        if predicate >= 0 and graph.operations[predicate] != ops.LOOP_PREDICATE:
            yield predicate
    if not complete:
        yield nodes[-1]
    for update in updates:
        for call in traversal.calls_around(update):
            if graph.operations[call] in ops.BRANCHES and graph.inputs[call]:
                yield graph.inputs[call][0]


def _fed_factors(traversal: GraphTraversal, updates: Iterable[int]) -> Iterator[int]:
    """Yield the placeholders that stand in the arithmetic of the updates themselves."""
    nodes, _ = traversal.backwards(updates, _UPDATE)
    return (node for node in nodes if traversal.graph.operations[node] in ops.PLACEHOLDERS)


def _conditions_of(
    traversal: GraphTraversal, predicate: int, stored: StoredScalar
) -> Iterator[Condition]:
    """Yield the conditions that a predicate is computed from."""
    graph = traversal.graph
    if predicate < 0:
        return
    nodes, _ = traversal.backwards([predicate], _PREDICATE)
    leaves = [node for node in nodes if not _is_followed(traversal, node)]
    constants = [node for node in leaves if graph.operations[node] == ops.CONSTANT]
    values = {graph.attribute(node, "value") for node in constants}
    if len(constants) == len(leaves):
        if values != {True} or any(graph.operations[node] in ops.LOGIC for node in nodes):
            yield Condition("constant", graph.names[predicate])
        return
    bound = _bound(graph, nodes)
    derived = any(graph.operations[node] in ops.LOGIC for node in nodes)
    for node in leaves:
        if node not in constants:
            condition = _condition(traversal, node, stored)
            yield condition._replace(bound=bound, derived=derived)


def _is_followed(traversal: GraphTraversal, node: int) -> bool:
    """Return whether the value of a node comes from others: logic, or a function's argument."""
    operation = traversal.graph.operations[node]
    return operation in _PREDICATE or (
        operation == ARGUMENT and next(traversal.given_to(node), None) is not None
    )


def _bound(graph: Graph, nodes: Iterable[int]) -> Scalar | None:
    """Return the one constant that the nodes of a predicate compare with, if there is one."""
    bounds = {
        graph.attribute(source, "value")
        for node in nodes
        if graph.operations[node] in ops.COMPARISONS
        for source in graph.inputs[node]
        if source >= 0 and graph.operations[source] == ops.CONSTANT
    }
    numbers = [value for value in bounds if isinstance(value, int | float)]
    return numbers[0] if len(numbers) == 1 else None


def _condition(traversal: GraphTraversal, node: int, stored: StoredScalar) -> Condition:
    """Return the condition for a node that a predicate or a factor reads."""
    graph = traversal.graph
    name, operation = graph.names[node], graph.operations[node]
    if operation == _WITH_DEFAULT:
        default = graph.attribute(graph.inputs[node][0], "value") if graph.inputs[node] else None
        return Condition("placeholder", name, default if isinstance(default, int | float) else None)
    if operation in ops.PLACEHOLDERS:
        return Condition("placeholder", name)
    if operation in ops.VARIABLES:
        return Condition("variable", name, stored(name))
    return Condition("op", name)
