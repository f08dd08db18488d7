"""Branches of a graph: the one that each predicate takes, as far as its value is known.

`tf.cond` of TensorFlow 1 makes a Switch for each value that a branch takes, and a Merge for each
that it returns (tensorflow/python/ops/control_flow_ops.py); later it makes an If of two functions.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bninspect.evidence.graph.operations import MERGES, PLACEHOLDERS, SWITCHES, VARIABLES
from bninspect.recalibrate.engines.frameworks import import_framework
from bninspect.recalibrate.engines.graph.functions import CONDITIONALS, write_out
from bninspect.recalibrate.engines.graph.nodes import (
    Nodes,
    Tensor,
    data_inputs,
    is_control,
    nodes_in_loops,
    operand,
    tensor_of,
)

Scalar = bool | int | float
_COPIES = {"Identity", "ReadVariableOp", "StopGradient", "Cast", "Squeeze", "Reshape", "Snapshot"}
_OPERATORS: Mapping[str, Callable[..., Scalar]] = {
    "LogicalNot": operator.not_,
    "LogicalAnd": lambda one, other: one and other,
    "LogicalOr": lambda one, other: one or other,
    "Equal": operator.eq,
    "NotEqual": operator.ne,
    "Less": operator.lt,
    "LessEqual": operator.le,
    "Greater": operator.gt,
    "GreaterEqual": operator.ge,
}
_DEEPEST = 64  # operations between a predicate and what it reads


class Predicates:
    """Values of the predicates of a graph, computed from those of `known` nodes and constants."""

    def __init__(self, nodes: Nodes, known: Mapping[str, Scalar]) -> None:
        self._nodes = nodes
        self._known = known

    def value(self, tensor: Tensor, depth: int = 0) -> Scalar | None:
        """Return the value of a scalar; None if it is not known."""
        node = self._nodes.get(tensor.node)
        if node is None or depth > _DEEPEST:
            return None
        if tensor.node in self._known:
            return self._known[tensor.node]
        if node.op == "Const":
            return constant(node)
        is_copy = node.op in _COPIES or node.op in SWITCHES or node.op == "PlaceholderWithDefault"
        if not is_copy and node.op not in _OPERATORS:
            return None
        inputs = [operand(node, place) for place in range(1 if is_copy else _operands(node.op))]
        values = [
            value
            for tensor_read in inputs
            if (value := self.value(tensor_read, depth + 1)) is not None
        ]
        return _applied(node, values) if len(values) == len(inputs) else None

    def reads(self, tensor: Tensor) -> set[str]:
        """Return the placeholders and variables that a predicate is computed from."""
        sources: set[str] = set()
        seen: set[str] = set()
        waiting = [tensor.node]
        while waiting:
            name = waiting.pop()
            node = self._nodes.get(name)
            if node is None or name in seen:
                continue
            seen.add(name)
            if node.op in PLACEHOLDERS or node.op in VARIABLES:
                sources.add(name)
            elif node.op in _COPIES or node.op in _OPERATORS or node.op in SWITCHES:
                waiting += (tensor_read.node for tensor_read in data_inputs(node))
        return sources


def _operands(operation: str) -> int:
    return 1 if operation == "LogicalNot" else 2


def _applied(node: Any, values: Sequence[Scalar]) -> Scalar:
    """Return what a copy or an operator gives for its values."""
    if node.op in _OPERATORS:
        return _OPERATORS[node.op](*values)
    return _cast(values[0], node.attr["DstT"].type) if node.op == "Cast" else values[0]


def _cast(value: Scalar, dtype: int) -> Scalar:
    """Return a number in another type: TensorFlow cuts off fractions."""
    numpy_dtype = np.dtype(import_framework("tensorflow").as_dtype(dtype).as_numpy_dtype)
    if numpy_dtype.kind not in "biuf":
        return value
    with np.errstate(all="ignore"):
        number: Scalar = np.asarray(value).astype(numpy_dtype).item()
    return number


def constant(node: Any) -> Scalar | None:
    """Return the element of a constant that has only one; None for others."""
    if node.op != "Const":
        return None
    tensor = node.attr["value"].tensor
    if any(dimension.size != 1 for dimension in tensor.tensor_shape.dim):
        return None
    value = import_framework("tensorflow").make_ndarray(tensor).reshape(-1)
    return value[0].item() if value.size == 1 and value.dtype.kind in "biuf" else None


def predicates_of(nodes: Nodes) -> list[Tensor]:
    """Return what the branches of a graph depend on."""
    places = {**SWITCHES, **dict.fromkeys(CONDITIONALS, 0)}
    predicates = (operand(node, places[node.op]) for node in nodes.values() if node.op in places)
    return list(dict.fromkeys(predicates))


def resolve(
    nodes: Nodes, functions: Mapping[str, Any], known: Mapping[str, Scalar]
) -> dict[str, Any]:
    """Return copies of the nodes that can run, without the branches whose predicate is known.

    Functions are written out where they are called. Control inputs are left out: they order updates
    and assertions. Constants in loops keep theirs, which hold them in the loop.
    """
    nodes = write_out(
        nodes, functions, lambda written, predicate: Predicates(written, known).value(predicate)
    )
    predicates = Predicates(nodes, known)
    taken = {
        name: value
        for name, node in nodes.items()
        if node.op in SWITCHES
        and (value := predicates.value(operand(node, SWITCHES[node.op]))) is not None
    }
    dead = _dead_nodes(nodes, taken)
    replaced = {
        Tensor(name, output): operand(nodes[name], 0) for name in taken for output in (0, 1)
    }
    for name, node in nodes.items():
        live = [tensor for tensor in data_inputs(node) if not _is_dead(tensor, dead, taken)]
        if node.op in MERGES and len(live) == 1 and name not in dead:
            replaced[Tensor(name)] = live[0]
    in_loops = nodes_in_loops(nodes)
    kept = {
        name: node
        for name, node in nodes.items()
        if name not in dead and name not in taken and Tensor(name) not in replaced
    }
    return {name: _connected(node, replaced, in_loops & kept.keys()) for name, node in kept.items()}


def _dead_nodes(nodes: Nodes, taken: Mapping[str, Scalar]) -> set[str]:
    """Return the nodes that never run, since a branch is not taken."""
    users: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for reference in node.input:
            users.setdefault(tensor_of(reference.lstrip("^")).node, []).append(name)
    dead: set[str] = set()
    waiting = [user for name in taken for user in users.get(name, ())]
    while waiting:
        name = waiting.pop()
        node = nodes[name]
        if name in dead:
            continue
        lost = [_is_dead(tensor, dead, taken) for tensor in data_inputs(node)]
        is_stopped = any(reference[1:] in dead for reference in node.input if is_control(reference))
        if all(lost) if node.op in MERGES else is_stopped or any(lost):
            dead.add(name)
            waiting += users.get(name, ())
    return dead


def _is_dead(tensor: Tensor, dead: set[str], taken: Mapping[str, Scalar]) -> bool:
    if tensor.node in dead:
        return True
    return tensor.node in taken and tensor.output != int(bool(taken[tensor.node]))


def _connected(node: Any, replaced: Mapping[Tensor, Tensor], in_loops: set[str]) -> Any:
    """Return a copy of a node whose inputs are what switches and merges pass on to it."""
    copy = type(node)()
    copy.CopyFrom(node)
    del copy.input[:]
    copy.device = ""
    copy.attr.pop("_class", None)
    copy.input.extend(str(_source(tensor, replaced)) for tensor in data_inputs(node))
    if not copy.input:
        copy.input.extend(
            reference
            for reference in node.input
            if is_control(reference) and reference[1:] in in_loops
        )
    return copy


def _source(tensor: Tensor, replaced: Mapping[Tensor, Tensor]) -> Tensor:
    """Return what a tensor is replaced by in the end; loops may go in circles."""
    seen = {tensor}
    while tensor in replaced and replaced[tensor] not in seen:
        tensor = replaced[tensor]
        seen.add(tensor)
    return tensor
