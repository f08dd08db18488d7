"""The arithmetic of an ONNX model as a graph of the operations that TensorFlow has for it.

Graphs of If and Loop, and local functions at each of their calls, become a part of one graph. The
output of an operation that is not kept is a node without inputs.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from functools import cache

from bninspect.errors import Unsupported
from bninspect.formats.message_file import MessageFile
from bninspect.formats.onnx.graph import (
    ARITHMETIC,
    CONSTANT,
    EXPAND,
    REDUCE_MEAN,
    Graph,
    Model,
    Node,
    attribute_integers,
    constant_tensor,
    scope_of,
)
from bninspect.formats.onnx.tensors import Tensor
from bninspect.model.checkpoint import Arithmetic, Variable
from bninspect.model.graph import WEIGHTS, Attribute, Constant, Scalar
from bninspect.model.graph import Graph as CommonGraph

# TensorFlow's operation for one of ONNX.
_OPERATIONS: Mapping[str, str] = {
    "Div": "RealDiv",
    EXPAND: "Reshape",
    "Flatten": "Reshape",
    "Max": "Maximum",
    REDUCE_MEAN: "Mean",
    "Sum": "Add",
    "Unsqueeze": "ExpandDims",
}
_CONST = "Const"
_NUMBERS = ("float", "bfloat")
_MOST_NODES, _DEEPEST, _MOST_AXES = 1 << 18, 64, 64

_Numbers = ChainMap[str, int]


def arithmetic_of(
    file: MessageFile,
    model: Model,
    family: str,
    variable: Callable[[Tensor], Variable],
) -> Arithmetic | None:
    """Return the arithmetic of a model; None if there is none.

    `variable` gives the variable of a stored tensor. Raises `Unsupported` for far more operations
    than any real model has; `find_sites` has refused functions that call each other too often.
    """
    nodes = model.graph.nodes
    if not (model.functions or any(node.op in ARITHMETIC or node.graphs for node in nodes)):
        return None
    builder = _Builder(file, model, variable)
    numbers: _Numbers = ChainMap({})
    for name in model.graph.inputs:
        numbers[name] = builder.add(name, "Placeholder")
    builder.visit(model.graph, numbers, "")
    return Arithmetic(builder.graph(), builder.variables, family, is_onnx=True)


class _Builder:
    """The nodes of the common graph while the graphs of a model are visited."""

    def __init__(
        self, file: MessageFile, model: Model, variable: Callable[[Tensor], Variable]
    ) -> None:
        self._file, self._model, self._variable = file, model, variable
        self._names: list[str] = []
        self._operations: list[str] = []
        self._inputs: list[tuple[int, ...]] = []
        self._scalars: dict[int, Tensor] = {}
        self._weights: dict[int, Tensor] = {}
        self._integers: dict[int, Tensor] = {}
        self._constants: dict[int, Constant] = {}
        self._depth = 0
        self.variables: dict[str, Variable] = {}

    def graph(self) -> CommonGraph:
        """Return the graph of the nodes that were visited."""

        @cache
        def scalar(number: int) -> Scalar | None:
            values = self._variable(self._scalars[number]).read().reshape(-1)
            return float(values[0]) if values.dtype.kind in "fiu" else None

        @cache
        def constant(number: int) -> Constant | None:
            if number not in self._integers:
                return self._constants.get(number)
            values = self._variable(self._integers[number]).read().reshape(-1)
            return Constant(values.shape, tuple(values.tolist()))

        def attribute(number: int, name: str) -> Attribute:
            return scalar(number) if name == "value" and number in self._scalars else None

        return CommonGraph(
            path=self._file.source.path,
            names=self._names,
            operations=self._operations,
            inputs=self._inputs,
            controls=[()] * len(self._names),
            functions={},
            collections={},
            attribute=attribute,
            constant=constant,
        )

    def add(self, name: str, operation: str, inputs: tuple[int, ...] = ()) -> int:
        """Add a node; returns its number. Raises `Unsupported` for too many."""
        self._require(len(self._names) < _MOST_NODES)
        self._names.append(name)
        self._operations.append(operation)
        self._inputs.append(inputs)
        return len(self._names) - 1

    def _require(self, is_met: bool) -> None:
        """Raise `Unsupported` for far more than any real model has."""
        if not is_met:
            raise Unsupported(
                self._file.source.path,
                "it has more operations, with those of each call, than are searched for BN",
                "If it is a real model, check the one that it was exported from.",
            )

    def visit(self, graph: Graph, numbers: _Numbers, path: str) -> None:
        """Add the nodes of a graph, which sees the values of `numbers`."""
        self._require(self._depth < _DEEPEST)
        self._depth += 1
        for name, tensor in graph.initializers.items():
            numbers[name] = self._add_tensor(name, tensor)
        for node in graph.nodes:
            for inner in node.graphs:
                self.visit(inner, numbers.new_child(), path)
            self._add_node(node, numbers, path)
        self._depth -= 1

    def _add_node(self, node: Node, numbers: _Numbers, path: str) -> None:
        if node.key in self._model.functions:
            return self._call(node, numbers, path)
        if node.op == CONSTANT and (tensor := constant_tensor(self._file, node)) is not None:
            return numbers.update({tensor.name: self._add_tensor(tensor.name, tensor)})
        inputs = tuple(self._number(name, numbers) for name in node.inputs)
        if node.op == "Identity" and inputs and inputs[0] in self._weights and node.outputs:
            # Exporters store equal tensors once, and keep the names of the others so.
            name = node.outputs[0]
            return numbers.update({name: self._add_tensor(name, self._weights[inputs[0]])})
        if node.op == REDUCE_MEAN:
            inputs = self._with_axes(node, inputs)
        name = f"{path}{_name_of(node)}"
        number = self.add(name, _OPERATIONS.get(node.op, node.op), inputs)
        return numbers.update(dict.fromkeys(node.outputs[:1], number))

    def _with_axes(self, node: Node, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """Return the inputs of a mean with its axes, which were an attribute up to opset 17."""
        if "axes" not in node.attributes:
            return inputs
        axes = attribute_integers(self._file, node.attributes["axes"])
        number = self.add("", _CONST)
        self._constants[number] = Constant((len(axes),), axes)
        return (*inputs[:1], number)

    def _call(self, node: Node, numbers: _Numbers, path: str) -> None:
        """Add the nodes of a local function, as this call computes them."""
        function = self._model.functions[node.key]
        given = [self._number(name, numbers) for name in node.inputs]
        inner: _Numbers = ChainMap(dict(zip(function.inputs, given, strict=False)))
        self.visit(function.body, inner, f"{path}{node.name or node.op}/")
        for output, name in zip(function.outputs, node.outputs, strict=False):
            if output in inner:
                numbers[name] = inner[output]

    def _number(self, name: str, numbers: _Numbers) -> int:
        if name not in numbers:
            numbers[name] = self.add(name, "")
        return numbers[name]

    def _add_tensor(self, name: str, tensor: Tensor) -> int:
        """Add a constant: one of several numbers may be a weight, one alone may be an epsilon."""
        is_weight = tensor.shape and min(tensor.shape) > 0 and tensor.dtype.startswith(_NUMBERS)
        if not is_weight:
            number = self.add(name, _CONST)
            if tensor.size == 1:
                self._scalars[number] = tensor
            if tensor.dtype == "int64" and tensor.size <= _MOST_AXES:
                self._integers[number] = tensor
            return number
        known = self.variables.get(name)
        unique = name if known is None else f"{name}#{len(self._names)}"
        self.variables[unique] = self._variable(tensor)._replace(name=name)
        number = self.add(unique, WEIGHTS)
        self._weights[number] = tensor
        return number


def _name_of(node: Node) -> str:
    """Return the name of a node, after the module of PyTorch that it comes from."""
    name = (node.name or next(iter(node.outputs), "")).removeprefix("/")
    scope = scope_of(node.metadata)
    return f"{scope}/{name}" if scope else name
