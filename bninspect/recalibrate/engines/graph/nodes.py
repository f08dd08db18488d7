"""Nodes of a GraphDef by name, and references between them.

A reference is written `name`, `name:1` or, for a control input, `^name`
(tensorflow/core/framework/node_def.proto).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from bninspect.errors import UsageProblem
from bninspect.evidence.graph.operations import ENTERS

EXITS = {"Exit", "RefExit"}

Nodes = Mapping[str, Any]  # NodeDef messages


class Tensor(NamedTuple):
    """One output of a node."""

    node: str
    output: int = 0

    def __str__(self) -> str:
        """Return the reference as NodeDefs write it."""
        return f"{self.node}:{self.output}" if self.output else self.node


def tensor_of(reference: str) -> Tensor:
    """Return the tensor that a data input refers to; raises `UsageProblem` if it is none."""
    name, _, output = reference.partition(":")
    if output and not (output.isascii() and output.isdecimal()):
        raise UsageProblem(f"The graph is damaged: {reference} is not the name of a tensor.")
    return Tensor(name, int(output or 0))


def is_control(reference: str) -> bool:
    """Return whether an input only says that another node runs before."""
    return reference.startswith("^")


def data_inputs(node: Any) -> list[Tensor]:
    """Return the tensors that a node takes."""
    return [tensor_of(reference) for reference in node.input if not is_control(reference)]


def operand(node: Any, place: int) -> Tensor:
    """Return the tensor that a node takes at a place: control inputs come last.

    Raises `UsageProblem` if the node has no such input.
    """
    if place >= len(node.input):
        raise UsageProblem(f"The graph is damaged: {node.name} lacks inputs of {node.op}.")
    return tensor_of(node.input[place])


def consumers_of(nodes: Nodes) -> dict[str, list[str]]:
    """Return the nodes that take an output of each node, control inputs left out."""
    consumers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for taken in dict.fromkeys(tensor.node for tensor in data_inputs(node)):
            consumers.setdefault(taken, []).append(name)
    return consumers


def ancestors(
    nodes: Nodes, needed: Iterable[str], ends: Callable[[str], bool] = lambda _: False
) -> list[str]:
    """Return the nodes that compute `needed`, themselves among them, in the order of `nodes`.

    The search goes no further back than to nodes for which `ends` is true.
    """
    visited: set[str] = set()
    waiting = list(needed)
    while waiting:
        name = waiting.pop()
        if name in visited or name not in nodes:
            continue
        visited.add(name)
        if not ends(name):
            waiting += (tensor_of(reference.lstrip("^")).node for reference in nodes[name].input)
    return [name for name in nodes if name in visited]


def nodes_in_loops(nodes: Nodes) -> set[str]:
    """Return the nodes between an Enter and an Exit: those of the loops of TensorFlow 1.

    A loop has a frame of its own, in which all inputs of a node have to be
    (tensorflow/core/common_runtime/executor.cc).
    """
    consumers = consumers_of(nodes)
    in_loops: set[str] = set()
    waiting = [name for name, node in nodes.items() if node.op in ENTERS]
    while waiting:
        name = waiting.pop()
        if name not in in_loops and nodes[name].op not in EXITS:
            in_loops.add(name)
            waiting += consumers.get(name, ())
    return in_loops
