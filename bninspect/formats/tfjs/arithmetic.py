"""The arithmetic of a TensorFlow.js graph model as a graph, with the functions of its loops.

The topology is a GraphDef in the JSON of protocol buffers (its names are in camel case). A constant
has no value there: weights have the names of their nodes. With control_flow_v2 the converter leaves
loops and branches to functions, which take constants as arguments, so it computes nothing of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from bninspect.formats.tensorflow.output_number import output_number
from bninspect.formats.tfjs.weights import TfjsWeights
from bninspect.formats.weights_file import Weights
from bninspect.model.checkpoint import Arithmetic, Variable
from bninspect.model.graph import ARGUMENT, WEIGHTS, Attribute, Constant, Function, Graph

FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_CONST = "Const"
_OTHER_NORMALIZATION = "BatchNormalization"  # a node that is a layer already
_FAMILY = "graph"
_NUMBERS = ("float",)
_EPSILON = 1e-4  # the default of the fused operations (tensorflow/core/ops/nn_ops.cc)
_MISSING = -1
_MOST_AXES = 64

Node = Mapping[str, Any]


def arithmetic_of(weights: TfjsWeights, topology: Mapping[str, Any]) -> Arithmetic:
    """Return the arithmetic of a graph model, and the fused nodes of its functions."""
    names = [name for name in weights.names if _may_be_weight(weights.variable(name))]
    builder = _Builder(weights, {*names})
    builder.add_nodes(_dicts(topology, "node"), is_function=False)
    functions = {}
    for stored in _dicts(topology.get("library"), "function"):
        signature = stored.get("signature")
        if isinstance(signature, dict) and isinstance(name := signature.get("name"), str):
            functions[name] = builder.add_function(signature, stored)
    variables = Weights(dict.fromkeys(names, weights))
    return Arithmetic(builder.graph(functions), variables, _FAMILY)


def _may_be_weight(variable: Variable) -> bool:
    """Return whether a constant may be a weight: numbers with a fraction, and no scalar."""
    shape = variable.shape
    return bool(shape) and min(shape) > 0 and variable.dtype.startswith(_NUMBERS)


def _dicts(stored: Any, key: str) -> list[dict[str, Any]]:
    """Return the messages of a repeated field, as far as they are any."""
    items = stored.get(key) if isinstance(stored, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _texts(stored: Any, key: str) -> list[str]:
    items = stored.get(key) if isinstance(stored, dict) else None
    return [item for item in items if isinstance(item, str)] if isinstance(items, list) else []


class _Builder:
    """The nodes of a graph while a topology is read; `names` are the weights among constants."""

    def __init__(self, weights: TfjsWeights, names: set[str]) -> None:
        self._weights, self._constants = weights, names
        self._scalars = {name for name in weights.names if weights.variable(name).size == 1}
        weights.prefetch(self._scalars)
        self._known = {*weights.names}
        self._values: dict[str, float | None] = {}
        self._names: list[str] = []
        self._operations: list[str] = []
        self._inputs: list[tuple[int, ...]] = []
        self._nodes: list[Node] = []
        self._references: list[tuple[str, ...]] = []

    def graph(self, functions: Mapping[str, Function]) -> Graph:
        """Return the graph of the nodes that were added."""
        return Graph(
            path=self._weights.path,
            names=self._names,
            operations=self._operations,
            inputs=self._inputs,
            controls=[()] * len(self._names),
            functions=functions,
            collections={},
            attribute=self._attribute,
            constant=self._constant,
            output=self._output,
        )

    def add_function(self, signature: Mapping[str, Any], stored: Mapping[str, Any]) -> Function:
        """Add the nodes of a function; returns it."""
        first = len(self._names)
        arguments = [str(one.get("name")) for one in _dicts(signature, "inputArg")]
        for name in arguments:
            self._add(name, ARGUMENT, {})
        numbers = {name: first + index for index, name in enumerate(arguments)}
        start = len(self._names)
        numbers |= self.add_nodes(_dicts(stored, "nodeDef"), is_function=True, known=numbers)
        returned = stored.get("ret")
        references = returned if isinstance(returned, dict) else {}
        outputs = []
        for one in _dicts(signature, "outputArg"):
            reference = references.get(str(one.get("name")))
            name = reference if isinstance(reference, str) else ""
            outputs.append((numbers.get(name.partition(":")[0], _MISSING), _number_in(name)))
        results = tuple(node for node, _ in outputs if node != _MISSING)
        nodes = range(first, len(self._names))
        return Function(range(first, start), nodes, results, tuple(outputs))

    def add_nodes(
        self, nodes: list[dict[str, Any]], *, is_function: bool, known: Mapping[str, int] = {}
    ) -> dict[str, int]:
        """Add the nodes of one graph; returns their numbers by name."""
        numbers: dict[str, int] = {}
        start = len(self._names)
        for node in nodes:
            name, operation = str(node.get("name")), str(node.get("op"))
            if operation == _CONST and name in self._constants:
                operation = WEIGHTS
            elif operation in FUSED and not is_function:
                operation = _OTHER_NORMALIZATION
            numbers[name] = self._add(name, operation, node)
        visible = {**known, **numbers}
        for number, node in enumerate(nodes, start):
            references = [one for one in _texts(node, "input") if not one.startswith("^")]
            self._references[number] = tuple(references)
            self._inputs[number] = tuple(
                visible.get(reference.partition(":")[0], _MISSING) for reference in references
            )
        return numbers

    def _add(self, name: str, operation: str, node: Node) -> int:
        self._names.append(name)
        self._operations.append(operation)
        self._inputs.append(())
        self._references.append(())
        self._nodes.append(node)
        return len(self._names) - 1

    def _output(self, number: int, index: int) -> int:
        references = self._references[number]
        return _number_in(references[index]) if index < len(references) else 0

    def _attribute(self, number: int, name: str) -> Attribute:
        """Return an attribute of a node, and of a constant of one element its value."""
        if name == "value":
            is_scalar = self._operations[number] == _CONST and self._names[number] in self._scalars
            return self._scalar(self._names[number]) if is_scalar else None
        attributes = self._nodes[number].get("attr")
        value = attributes.get(name) if isinstance(attributes, dict) else None
        stored = value if isinstance(value, dict) else {}
        if self._operations[number] in FUSED:
            return _of_fused(name, stored)
        return tuple(_functions(stored)) or None

    def _constant(self, number: int) -> Constant | None:
        """Return the values of a constant of a few integers, such as axes; None for others."""
        name = self._names[number]
        if self._operations[number] != _CONST or name not in self._known:
            return None
        variable = self._weights.variable(name)
        if variable.dtype != "int32" or variable.size > _MOST_AXES:
            return None
        values = variable.read().reshape(-1)
        return Constant(values.shape, tuple(values.tolist()))

    def _scalar(self, name: str) -> float | None:
        """Return the value of a constant of one number; raises a `ReadProblem`."""
        if name not in self._values:
            values = self._weights.variable(name).read().reshape(-1)
            self._values[name] = float(values[0]) if values.dtype.kind in "fiu" else None
        return self._values[name]


def _of_fused(name: str, stored: Mapping[str, Any]) -> Attribute:
    """Return is_training and epsilon of a fused node; TensorFlow.js runs it for inference."""
    if name == "is_training":
        return stored.get("b") is True
    if name == "epsilon":
        epsilon = stored.get("f", _EPSILON)
        is_possible = isinstance(epsilon, float) and 0.0 <= epsilon < math.inf
        return epsilon if is_possible else None
    return None


def _functions(stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the functions that an attribute names."""
    listed = stored.get("list")
    for function in (stored.get("func"), *_dicts(listed, "func")):
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str):
            yield name


def _number_in(reference: str) -> int:
    """Return the number of the output in a reference; 0 for one that is none."""
    return output_number(reference.encode("utf-8", "replace"))
