"""The structure of an ONNX model: its graphs, local functions and nodes, as far as BN needs them.

Fields are those of ModelProto, GraphProto, NodeProto, AttributeProto and FunctionProto in
onnx/onnx.proto. Of the nodes those are kept that normalize, pass values on unchanged, hold graphs
or call functions; of the others nothing but marks of BN that was folded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from bninspect.batchnorm.folded_names import KERNEL, PRODUCT, SUM, folded_layer
from bninspect.errors import Incomplete, Unsupported
from bninspect.formats.message_file import FIXED32, LENGTH, VARINT, Field, MessageFile, Place
from bninspect.formats.onnx.tensors import Tensor, read_entry, read_tensor

BATCH_NORMALIZATION, CONSTANT = "BatchNormalization", "Constant"
EXPAND, REDUCE_MEAN = "Expand", "ReduceMean"
# Operations whose output has the values of their first input, in the same order.
PASSING = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
# Operations whose output repeats values, in a shape that is not known before the model runs.
FILLS = {EXPAND, "ConstantOfShape"}
STANDARD_DOMAINS = ("", "ai.onnx")

# Field numbers.
_MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION = 2, 7, 8, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_SPARSE = 1, 5, 11, 15
_SPARSE_VALUES = 1
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE, _NODE_METADATA = 1, 2, 5, 9
_NODE_TEXTS = {3: "name", 4: "op", 7: "domain", 8: "overload"}
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TENSOR = 1, 2, 3, 5
_ATTRIBUTE_GRAPHS, _ATTRIBUTE_FLOATS, _ATTRIBUTE_INTEGERS = (6, 11), 7, 8
_FUNCTION_NAME, _FUNCTION_DOMAIN, _FUNCTION_OVERLOAD = 1, 10, 13
_FUNCTION_INPUT, _FUNCTION_OUTPUT, _FUNCTION_NODE, _FUNCTION_OPSET = 4, 5, 7, 9

# Far more than any real model has.
_MOST_NODES, _MOST_KEPT, _MOST_FIELDS = 1 << 20, 1 << 17, 1 << 16
_DEEPEST = 32
_MOST_AXES = 64
# What an exporter leaves where it folded BN into another operation: tf2onnx (tf2onnx/optimizer/
# back_to_back_optimizer.py) in the names of weights, TensorFlow in those of operations (see
# `folded_names`), onnxscript (rewriter/rules/common/_fuse_batchnorm.py) in metadata.
_FUSED_WEIGHTS = re.compile(r"_(weights|bias)_fused_bn(__\d+)?")
_FUSING_RULES = "FuseBatchNorm"
RULE, SCOPES = "pkg.onnxscript.rewriter.rule_name", "pkg.torch.onnx.name_scopes"

# Operations that may spell BN out, and those between them.
ARITHMETIC = {"Sub", "Mul", "Div", "Add", "Sum", "Sqrt", "Pow", "Reciprocal", "Neg"}
ARITHMETIC |= {"Max", "Relu", "Abs", "Transpose", EXPAND, REDUCE_MEAN}
# LayerNormalization, InstanceNormalization, LpNormalization: what they give is normalized already.
_NORMALIZATION = re.compile(r"\w*Norm\w*")

_KEPT = {BATCH_NORMALIZATION, CONSTANT, *PASSING, *FILLS, *ARITHMETIC}
_WITH_ATTRIBUTES = {BATCH_NORMALIZATION, CONSTANT, REDUCE_MEAN}
_WITH_METADATA = {BATCH_NORMALIZATION, *ARITHMETIC}
_FOLDING = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Mul", "Add"}

FunctionKey = tuple[str, str, str]  # domain, name, overload


class Node(NamedTuple):
    """A node that is kept: its operation, its names, and the graphs that its attributes hold.

    `attributes` has the places of the attributes' messages by name; `metadata` those entries that
    say where the node comes from.
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Place]
    graphs: tuple[Graph, ...] = ()
    overload: str = ""
    metadata: Mapping[str, str] = {}

    @property
    def key(self) -> FunctionKey:
        """Return the key of the local function that it calls, if there is one."""
        return self.domain, self.op, self.overload

    @property
    def is_standard(self) -> bool:
        """Return whether its operation is one of ONNX itself."""
        return self.domain in STANDARD_DOMAINS


@dataclass
class Graph:
    """A graph: the nodes that are kept, and the tensors that it names.

    `sparse` are the names of sparse initializers, `inputs` those of the graph's inputs. `folded`
    are the names of BN layers that an exporter folded into other operations.
    """

    nodes: list[Node] = field(default_factory=list)
    initializers: dict[str, Tensor] = field(default_factory=dict)
    sparse: set[str] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)
    folded: tuple[str, ...] = ()


@dataclass
class Function:
    """A local function: its parameters, its body, and the opset that this is of."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    body: Graph = field(default_factory=Graph)
    opset: int = 0


class Model(NamedTuple):
    """An ONNX model; `functions` are its local functions."""

    producer: str
    opset: int
    graph: Graph
    functions: Mapping[FunctionKey, Function]


def read_model(file: MessageFile) -> Model:
    """Return the structure of a model; raises a `ReadProblem` if the file is damaged or cut off."""
    producer, opset = "", None
    graph: Place | None = None
    functions: list[Place] = []
    for item in file.fields(Place(0, file.size)):
        if item.number == _MODEL_PRODUCER:
            producer = file.text(item)
        elif item.number == _MODEL_GRAPH and item.wire == LENGTH:
            graph = item.place
        elif item.number == _MODEL_OPSET and item.wire == LENGTH:
            opset = max(opset or 0, _standard_opset(file, item.place))
        elif item.number == _MODEL_FUNCTION and item.wire == LENGTH:
            functions.append(item.place)
            _require(file, len(functions) <= _MOST_FIELDS, "functions")
    if graph is None or opset is None:
        missing = "graph" if graph is None else "version of its operations (opset_import)"
        raise Incomplete(
            file.source.path,
            f"this ONNX model was cut short: it has no {missing}",
            "Copy it again.",
        )
    reader = _Reader(file, {_function_key(file, place) for place in functions})
    return Model(
        producer,
        opset,
        reader.graph(graph),
        {_function_key(file, place): reader.function(place) for place in functions},
    )


def attribute_value(file: MessageFile, place: Place | None) -> float | int | None:
    """Return the number that an attribute holds; None without one, or if it refers to another."""
    for item in file.fields(place) if place is not None else ():
        if item.number == _ATTRIBUTE_FLOAT and item.wire == FIXED32:
            stored = np.frombuffer(file.bytes_of(item.place, "an attribute"), "<f4")[0]
            return float(str(stored))  # 0.9, not the double that a float32 of 0.9 is
        if item.number == _ATTRIBUTE_INTEGER and item.wire == VARINT:
            return item.value
    return None


def attribute_integers(file: MessageFile, place: Place) -> tuple[int, ...]:
    """Return the first integers that an attribute holds, as unsigned numbers."""
    numbers: list[int] = []
    for item in file.fields(place):
        if item.number == _ATTRIBUTE_INTEGERS and item.wire == VARINT:
            numbers.append(item.value)
        elif item.number == _ATTRIBUTE_INTEGERS and item.wire == LENGTH:
            numbers += islice(file.varints(item.place), _MOST_AXES)
        if len(numbers) > _MOST_AXES:
            break
    return tuple(numbers[:_MOST_AXES])


def constant_tensor(file: MessageFile, node: Node) -> Tensor | None:
    """Return the dense tensor that a Constant node holds, by the name of its output, or None."""
    for place in node.attributes.values() if node.outputs else ():
        for item in file.fields(place):
            if item.number == _ATTRIBUTE_TENSOR and item.wire == LENGTH:
                return read_tensor(file, item.place)._replace(name=node.outputs[0])
            if item.number == _ATTRIBUTE_FLOATS:
                size = sum(one.size for one in file.fields(place) if one.number == item.number)
                return Tensor(node.outputs[0], (size // 4,), "float32", place, field=item.number)
    return None


def _standard_opset(file: MessageFile, place: Place) -> int:
    """Return the version that an OperatorSetIdProto states for ONNX's own operations; else 0."""
    domain, version = "", 0
    for item in file.fields(place):
        if item.number == _OPSET_DOMAIN:
            domain = file.text(item)
        elif item.number == _OPSET_VERSION and item.wire == VARINT:
            version = item.value
    return version if domain in STANDARD_DOMAINS else 0


def _function_key(file: MessageFile, place: Place) -> FunctionKey:
    texts = {_FUNCTION_DOMAIN: "", _FUNCTION_NAME: "", _FUNCTION_OVERLOAD: ""}
    for item in file.fields(place):
        if item.number in texts:
            texts[item.number] = file.text(item)
    return texts[_FUNCTION_DOMAIN], texts[_FUNCTION_NAME], texts[_FUNCTION_OVERLOAD]


def _require(file: MessageFile, is_met: bool, what: str) -> None:
    """Raise `Unsupported` for far more of something than any real model has."""
    if not is_met:
        raise Unsupported(
            file.source.path,
            f"this ONNX model has more {what} than any that is known",
            "If it is a real model, check the one that it was exported from.",
        )


class _Fields(NamedTuple):
    """The fields of a node as they are in the file."""

    inputs: list[Field]
    outputs: list[Field]
    attributes: list[Place]
    metadata: list[Place]
    texts: dict[str, str]


class _Reader:
    """The reader of the graphs of one model, which counts what it reads."""

    def __init__(self, file: MessageFile, functions: Set[FunctionKey]) -> None:
        self._file = file
        self._functions = functions
        self._nodes = self._kept = self._depth = 0

    def graph(self, place: Place) -> Graph:
        """Return the graph whose message is at a place."""
        graph = Graph()
        marks: list[_Mark] = []
        for item in self._file.fields(place):
            if item.wire != LENGTH:
                continue
            if item.number == _GRAPH_NODE:
                self._add(graph, marks, item.place)
            elif item.number == _GRAPH_INITIALIZER:
                tensor = read_tensor(self._file, item.place)
                graph.initializers[tensor.name] = tensor
                self._count_kept()
            elif item.number == _GRAPH_INPUT:
                graph.inputs.add(self._first_text(item.place))
                self._count_kept()
            elif item.number == _GRAPH_SPARSE:
                graph.sparse.add(self._sparse_name(item.place))
                self._count_kept()
        graph.folded = _folded(graph, marks)
        return graph

    def function(self, place: Place) -> Function:
        """Return the local function whose message is at a place."""
        function, marks = Function(), list[_Mark]()
        for item in self._file.fields(place):
            if item.wire != LENGTH:
                continue
            if item.number in (_FUNCTION_INPUT, _FUNCTION_OUTPUT):
                is_input = item.number == _FUNCTION_INPUT
                (function.inputs if is_input else function.outputs).append(self._file.text(item))
                self._count_kept()
            elif item.number == _FUNCTION_NODE:
                self._add(function.body, marks, item.place)
            elif item.number == _FUNCTION_OPSET:
                opset = _standard_opset(self._file, item.place)
                function.opset = max(function.opset, opset)
        function.body.folded = _folded(function.body, marks)
        return function

    def _add(self, graph: Graph, marks: list[_Mark], place: Place) -> None:
        """Add a node to its graph if it is kept, and its mark if BN was folded into it."""
        self._nodes += 1
        _require(self._file, self._nodes <= _MOST_NODES, "nodes")
        fields = self._fields(place)
        op, domain = fields.texts["op"], fields.texts["domain"]
        attributes, graphs = self._attributes(fields.attributes, op)
        is_standard = domain in STANDARD_DOMAINS
        is_called = (domain, op, fields.texts["overload"]) in self._functions
        is_kept = (is_standard and op in _KEPT) or _NORMALIZATION.fullmatch(op)
        if is_called or graphs or is_kept:
            self._count_kept()
            metadata = self._metadata(fields) if op in _WITH_METADATA else {}
            node = self._node(fields, attributes, graphs, metadata)
            graph.nodes.append(node)
        if is_standard and op in _FOLDING and (mark := self._mark(fields)) is not None:
            self._count_kept()
            marks.append(mark)

    def _count_kept(self) -> None:
        self._kept += 1
        _require(self._file, self._kept <= _MOST_KEPT, "tensors and nodes")

    def _fields(self, place: Place) -> _Fields:
        """Return the fields of the node at a place."""
        fields = _Fields([], [], [], [], dict.fromkeys(_NODE_TEXTS.values(), ""))
        for count, item in enumerate(self._file.fields(place)):
            _require(self._file, count < _MOST_FIELDS, "inputs of one node")
            if item.number in _NODE_TEXTS:
                fields.texts[_NODE_TEXTS[item.number]] = self._file.text(item)
            elif item.wire != LENGTH:
                continue
            elif item.number == _NODE_INPUT:
                fields.inputs.append(item)
            elif item.number == _NODE_OUTPUT:
                fields.outputs.append(item)
            elif item.number == _NODE_ATTRIBUTE:
                fields.attributes.append(item.place)
            elif item.number == _NODE_METADATA:
                fields.metadata.append(item.place)
        return fields

    def _node(
        self,
        fields: _Fields,
        attributes: Mapping[str, Place],
        graphs: tuple[Graph, ...],
        metadata: Mapping[str, str],
    ) -> Node:
        texts = fields.texts
        return Node(
            texts["op"],
            texts["domain"],
            texts["name"],
            tuple(map(self._file.text, fields.inputs)),
            tuple(map(self._file.text, fields.outputs)),
            attributes,
            graphs,
            texts["overload"],
            metadata,
        )

    def _attributes(
        self, places: list[Place], op: str
    ) -> tuple[dict[str, Place], tuple[Graph, ...]]:
        """Return the attributes of a node by name, where they are used, and all its graphs."""
        attributes: dict[str, Place] = {}
        graphs: list[Graph] = []
        for place in places:
            for item in self._file.fields(place):
                if item.number == _ATTRIBUTE_NAME and op in _WITH_ATTRIBUTES:
                    attributes[self._file.text(item)] = place
                elif item.number in _ATTRIBUTE_GRAPHS and item.wire == LENGTH:
                    graphs.append(self._nested(item.place))
        return attributes, tuple(graphs)

    def _nested(self, place: Place) -> Graph:
        """Return a graph within a node."""
        self._depth += 1
        _require(self._file, self._depth <= _DEEPEST, "graphs within each other")
        graph = self.graph(place)
        self._depth -= 1
        return graph

    def _metadata(self, fields: _Fields) -> dict[str, str]:
        """Return the entries of a node's metadata that say where it comes from."""
        entries: dict[str, str] = {}
        for place in fields.metadata:
            key = self._first_text(place)
            if key in (RULE, SCOPES):
                entries[key] = read_entry(self._file, place)[1]
        return entries

    def _mark(self, fields: _Fields) -> _Mark | None:
        """Return the mark of BN that was folded into a node; None without one."""
        name, op = fields.texts["name"], fields.texts["op"]
        if op in ("Mul", "Add"):
            layer = folded_layer(name, PRODUCT, SUM)
            inputs = tuple(map(self._file.text, fields.inputs[:2]))
            return None if layer is None else _Mark(layer, inputs)
        metadata = self._metadata(fields)
        if metadata.get(RULE, "").startswith(_FUSING_RULES):
            return _Mark(scope_of(metadata) or name)
        output = self._file.text(fields.outputs[0]) if fields.outputs else ""
        if (layer := folded_layer(output, KERNEL)) is not None:
            return _Mark(layer)
        inputs = tuple(map(self._file.text, fields.inputs[:3]))
        return _Mark(name) if any(map(_FUSED_WEIGHTS.search, inputs)) else None

    def _sparse_name(self, place: Place) -> str:
        """Return the name of a sparse initializer: that of its values."""
        for item in self._file.fields(place):
            if item.number == _SPARSE_VALUES and item.wire == LENGTH:
                return read_tensor(self._file, item.place).name
        return ""

    def _first_text(self, place: Place) -> str:
        """Return the text of field 1 of a message: a name or a key; empty without one."""
        for item in self._file.fields(place):
            if item.number == 1:
                return self._file.text(item)
        return ""


class _Mark(NamedTuple):
    """A node that BN was folded into; if `operands` are given, one of them must be constant."""

    layer: str
    operands: tuple[str, ...] = ()


def _folded(graph: Graph, marks: list[_Mark]) -> tuple[str, ...]:
    """Return the layers of those marks that are proved."""
    constants = {name for node in graph.nodes if node.op == CONSTANT for name in node.outputs}
    return tuple(
        dict.fromkeys(
            mark.layer
            for mark in marks
            if not mark.operands
            or any(name in graph.initializers or name in constants for name in mark.operands)
        )
    )


def scope_of(metadata: Mapping[str, str]) -> str:
    """Return the module of PyTorch that a node comes from; empty where it is not stored.

    Its exporter writes a list of Python: all modules around the node, then the node itself.
    """
    scopes = re.findall(r"'([^']*)'", metadata.get(SCOPES, ""))
    return scopes[-2] if len(scopes) > 1 else ""
