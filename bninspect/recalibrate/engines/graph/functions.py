"""Functions of a graph, written out where they are called.

TensorFlow 2 and `enable_control_flow_v2` make of a `tf.cond` an If with a function for each branch
(tensorflow/python/ops/cond_v2.py). In a function an output is referred to by the name of its
argument, `node:argument:0` (tensorflow/core/framework/function.proto).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bninspect.errors import UsageProblem
from bninspect.recalibrate.engines.frameworks import import_framework
from bninspect.recalibrate.engines.graph.nodes import Tensor, is_control, operand, tensor_of

_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
CONDITIONALS = {"If", "StatelessIf"}
_MOST_NODES = 1_000_000  # after all functions are written out
_DEEPEST = 16  # calls inside of each other


def write_out(
    nodes: Mapping[str, Any],
    functions: Mapping[str, Any],
    branch: Callable[[Mapping[str, Any], Tensor], Any],
) -> dict[str, Any]:
    """Return the nodes with those of the functions that they call, in place of the calls.

    `branch` gives the value of a predicate in some nodes; where it is None, the If is left as it
    is. So are loops, and what is nested too deeply.
    """
    written = dict(nodes)
    for _ in range(_DEEPEST):
        calls = {
            name: function
            for name, node in written.items()
            if (function := _called(written, node, functions, branch)) is not None
        }
        if not calls or len(written) > _MOST_NODES:
            break
        results: dict[Tensor, str] = {}
        for name, function in calls.items():
            node = written.pop(name)
            first = int(node.op in CONDITIONALS)
            given = [reference for reference in node.input if not is_control(reference)][first:]
            body = _Body(name, function, given)
            written.update(body.nodes())
            results.update(body.results())
        written = {name: _redirected(node, results) for name, node in written.items()}
    return written


def _called(
    nodes: Mapping[str, Any],
    node: Any,
    functions: Mapping[str, Any],
    branch: Callable[[Mapping[str, Any], Tensor], Any],
) -> Any:
    """Return the function that a node calls, None if it calls none, or that is not known."""
    if node.op in _CALLS:
        return functions.get(node.attr["f"].func.name)
    if node.op in CONDITIONALS:
        value = branch(nodes, operand(node, 0))
        taken = "then_branch" if value else "else_branch"
        return None if value is None else functions.get(node.attr[taken].func.name)
    return functions.get(node.op)


def _redirected(node: Any, results: Mapping[Tensor, str]) -> Any:
    """Return a node that takes what a function returns, instead of what its call gave."""
    redirected = type(node)()
    redirected.CopyFrom(node)
    for place, reference in enumerate(node.input):
        redirected.input[place] = _returned(reference, results)
    return redirected


def _returned(reference: str, results: Mapping[Tensor, str]) -> str:
    """Return what a function returns in the end, where it returns what another does."""
    seen: set[str] = set()
    while not is_control(reference) and reference not in seen:
        seen.add(reference)
        reference = results.get(tensor_of(reference), reference)
    return reference


def operation_definition(name: str) -> Any:
    """Return TensorFlow's OpDef of an operation; None if it has no such operation."""
    return import_framework("tensorflow.python.framework.op_def_registry").get(name)


class _Body:
    """The nodes of one call of a function, in the scope of the call's name."""

    def __init__(self, scope: str, function: Any, given: Sequence[str]) -> None:
        self._scope = scope
        self._function = function
        arguments = [argument.name for argument in function.signature.input_arg]
        self._given = dict(zip(arguments, given, strict=False))
        self._operations = {node.name: node for node in function.node_def}

    def nodes(self) -> dict[str, Any]:
        """Return copies of the function's nodes with names and inputs of the graph."""
        copies = {}
        for node in self._function.node_def:
            copy = type(node)()
            copy.CopyFrom(node)
            copy.name = f"{self._scope}/{node.name}"
            del copy.input[:]
            copy.input.extend(self._reference(reference) for reference in node.input)
            copies[copy.name] = copy
        return copies

    def results(self) -> dict[Tensor, str]:
        """Return what the call's outputs are."""
        return {
            Tensor(self._scope, place): self._reference(self._function.ret[argument.name])
            for place, argument in enumerate(self._function.signature.output_arg)
        }

    def _reference(self, reference: str) -> str:
        """Return a reference of the function as one of the graph."""
        if is_control(reference):
            return f"^{self._scope}/{reference[1:]}"
        name, _, output = reference.partition(":")
        if name in self._given:
            return str(self._given[name])
        argument, _, number = output.partition(":")
        if name not in self._operations or not (number or "0").isdecimal():
            raise UsageProblem(
                f"The function {self._function.signature.name} of the graph takes"
                f" {reference or 'an output'}, which it does not compute: the graph is damaged."
            )
        place = int(number or 0) + self._first_output(self._operations[name], argument)
        return str(Tensor(f"{self._scope}/{name}", place))

    def _first_output(self, node: Any, argument: str) -> int:
        """Return the number of the first output that an operation declares by a name."""
        declared = operation_definition(node.op)
        first = 0
        for output_arg in declared.output_arg if declared is not None else ():
            if output_arg.name == argument:
                break
            if output_arg.number_attr:
                first += node.attr[output_arg.number_attr].i
            elif output_arg.type_list_attr:
                first += len(node.attr[output_arg.type_list_attr].list.type)
            else:
                first += 1
        return first
