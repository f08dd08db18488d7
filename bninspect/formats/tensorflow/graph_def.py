"""Graphs: the MetaGraphDef beside a checkpoint (`.meta`) and those of a `saved_model.pb`.

A graph is read only when something needs it. It may have a hundred thousand nodes and constants of
many megabytes, so only names, operations and inputs are decoded. The attributes of a node stay
encoded until one is needed. The notation of inputs is that of
tensorflow/core/framework/node_def.proto and function.proto.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from bninspect.errors import Corrupt, ReadProblem
from bninspect.formats.message_file import MessageFile
from bninspect.formats.tensorflow.graph_text import encode_text, refuse_variables
from bninspect.formats.tensorflow.node_attributes import NodeAttributes
from bninspect.formats.tensorflow.output_number import output_number
from bninspect.formats.tensorflow.protos import DecodeError, declare
from bninspect.formats.tensorflow.reduced_graph import read_reduced
from bninspect.model.graph import ARGUMENT, Function, Graph
from bninspect.storage.signatures import HEAD, is_message_text
from bninspect.storage.source import Source

GraphDef, MetaGraph, SavedModel = declare("GraphDef", "MetaGraph", "SavedModel")

_Kind = Literal["GraphDef", "SavedModel"]
COLLECTIONS = ("train_op", "update_ops")
_MISSING = -1
# A node takes about 150 bytes: a name, an operation, attributes. A file with fewer than this for
# each node is no graph, and would take many times its size in memory.
_LEAST_BYTES_OF_NODE, _FREE_NODES = 32, 100
_COPY_AGAIN = "Copy the file again, or remove it."
# The size of a protocol buffer is a signed 32-bit integer.
_LARGEST_GRAPH = (1 << 31) - 1  # bytes


def read_graphs(path: str, *, saved_model: bool = False) -> tuple[Graph, ...]:
    """Return the graph of a MetaGraphDef, or with `saved_model` those of a SavedModel.

    Raises a `ReadProblem` if the file cannot be read or parsed.
    """
    data = read_bytes(path)
    if is_message_text(data):
        data = encode_text(path, data, "SavedModel" if saved_model else "MetaGraph")
    return parse_graphs(path, data, saved_model=saved_model)


def read_bytes(path: str) -> bytes:
    """Return the encoded graphs of a file. Raises a `ReadProblem` if it is none by its size."""
    try:
        with Source(path) as source:
            _refuse_size(source)
            return source.read(0, source.size, "the graph")
    except MemoryError as error:
        raise _too_large(path) from error


def parse_graphs(path: str, data: bytes, *, saved_model: bool = False) -> tuple[Graph, ...]:
    """Return the graphs of an encoded MetaGraphDef or SavedModel; `path` is named in messages.

    Raises a `ReadProblem` if it cannot be parsed.
    """
    try:
        message = (SavedModel if saved_model else MetaGraph).FromString(data)
        meta_graphs = message.meta_graphs if saved_model else [message]
        return tuple(
            _Reader(path, len(data)).read(meta_graph.graph_def, meta_graph.collection_def)[0]
            for meta_graph in meta_graphs
        )
    except (DecodeError, ValueError) as error:
        raise _damaged(path) from error
    except MemoryError as error:
        raise _too_large(path) from error


def parse_graph(name: str, graph_def: bytes, collections: Mapping[str, Iterable[str]]) -> Graph:
    """Return the graph of an encoded GraphDef, as of a session; `name` stands for its path.

    `collections` has the names of the nodes in each collection. Raises a `ReadProblem` if it cannot
    be parsed.
    """
    meta_graph = MetaGraph()
    for key, nodes in collections.items():
        pair = meta_graph.collection_def.add()
        pair.key = key.encode()
        pair.value.node_list.value.extend(node.encode() for node in nodes)
    try:
        message = GraphDef.FromString(graph_def)
        return _Reader(name, len(graph_def)).read(message, meta_graph.collection_def)[0]
    except (DecodeError, ValueError) as error:
        raise _damaged(name) from error


def read_frozen(path: str, *, saved_model: bool = False) -> tuple[Graph, NodeAttributes]:
    """Return the graph of a GraphDef, or the first of a SavedModel, and its nodes' attributes.

    Large constants are left out (see `reduced_graph`); the file may be in the text form. Raises
    `UnknownFormat` for a GraphDef in the text form that has variables, and another `ReadProblem` if
    the file cannot be read or parsed.
    """
    return _read(path, "SavedModel" if saved_model else "GraphDef", may_train=saved_model)


def read_training_graph(path: str) -> tuple[Graph, NodeAttributes]:
    """Return the graph of a GraphDef as `read_frozen` does; it may have variables."""
    return _read(path, "GraphDef", may_train=True)


def _read(path: str, kind: _Kind, *, may_train: bool) -> tuple[Graph, NodeAttributes]:
    try:
        data = _read_reduced(path, kind, may_train=may_train)
        if kind == "GraphDef":
            message = GraphDef.FromString(data)
        else:
            message = SavedModel.FromString(data).meta_graphs[0].graph_def
        return _Reader(path, len(data)).read(message)
    except (DecodeError, ValueError, IndexError) as error:
        raise _damaged(path) from error
    except MemoryError as error:
        raise _too_large(path) from error


def _read_reduced(path: str, kind: _Kind, *, may_train: bool) -> bytes:
    with Source(path) as source:
        _refuse_size(source)
        if not is_message_text(source.read(0, min(source.size, HEAD), "the graph")):
            file = MessageFile(source, "the graph", _COPY_AGAIN)
            return read_reduced(file, saved_model=kind == "SavedModel")
    text = read_bytes(path)
    if not may_train:
        refuse_variables(path, text)
    return encode_text(path, text, kind)


def _damaged(path: str) -> ReadProblem:
    return Corrupt(path, "the graph cannot be parsed", _COPY_AGAIN)


def _too_large(path: str) -> ReadProblem:
    return ReadProblem(
        path, "reading it takes more memory than there is", "Check it on a larger machine."
    )


def _refuse_size(source: Source) -> None:
    """Raise `Corrupt` for a file without a graph by its size, before it is read."""
    if 0 < source.size <= _LARGEST_GRAPH:
        return
    fault = f"the file is larger than any graph ({source.size} bytes)"
    raise Corrupt(source.path, fault if source.size else "the file is empty", _COPY_AGAIN)


class _Reader:
    """Decoder of one graph, which numbers its nodes and those of its functions."""

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._max_nodes = size // _LEAST_BYTES_OF_NODE + _FREE_NODES
        self._names: list[str] = []
        self._operations: list[str] = []
        self._inputs: list[Sequence[int]] = []
        self._controls: list[Sequence[int]] = []
        self._nodes: list[Sequence[Any]] = []  # of the graph, then of each function
        self._starts: list[int] = []

    def read(
        self, graph_def: Any, named_nodes: Sequence[Any] | None = None
    ) -> tuple[Graph, NodeAttributes]:
        """Return the graph of a GraphDef, and the attributes of its nodes.

        `named_nodes` are the collections of a MetaGraphDef, None without one. Raises ValueError or
        DecodeError if the graph is damaged.
        """
        numbers = self._number(graph_def.node)
        self._connect(graph_def.node, numbers)
        functions = {
            _text(function.signature.name): self._function(function)
            for function in graph_def.library.function
        }
        collections = {
            key: _known(collection.value.node_list.value, numbers)
            for collection in named_nodes or ()
            if (key := _text(collection.key)) in COLLECTIONS
        }
        attributes = NodeAttributes(self._starts, self._nodes)
        graph = Graph(
            path=self._path,
            names=self._names,
            operations=self._operations,
            inputs=self._inputs,
            controls=self._controls,
            functions=functions,
            collections=None if named_nodes is None else collections,
            attribute=attributes.attribute,
            constant=attributes.constant,
            output=attributes.output,
        )
        return graph, attributes

    def _function(self, message: Any) -> Function:
        first = len(self._names)
        arguments = [argument.name for argument in message.signature.input_arg]
        for name in arguments:
            self._add(name, ARGUMENT)
        numbers = {name: first + number for number, name in enumerate(arguments)}
        start = len(self._names)
        numbers |= self._number(message.node_def)
        self._connect(message.node_def, numbers)
        returned = {pair.key: pair.value for pair in message.ret}
        controls = [pair.value for pair in message.control_ret]
        outputs = message.signature.output_arg
        references = [returned.get(output.name, b"") for output in outputs]
        return Function(
            arguments=range(first, start),
            nodes=range(first, len(self._names)),
            results=_known(chain(returned.values(), controls), numbers),
            outputs=tuple(
                (numbers.get(name.partition(b":")[0], _MISSING), output_number(name))
                for name in references
            ),
        )

    def _number(self, nodes: Sequence[Any]) -> dict[bytes, int]:
        if len(self._starts) > self._max_nodes:  # a function without a node takes memory, too
            raise ValueError
        self._starts.append(len(self._names))
        self._nodes.append(nodes)
        numbers = {}
        for node in nodes:
            name = node.name
            numbers[name] = len(self._names)
            self._add(name, _text(node.op))
        return numbers

    def _add(self, name: bytes, operation: str) -> None:
        if len(self._names) >= self._max_nodes:
            raise ValueError
        self._names.append(_text(name))
        self._operations.append(sys.intern(operation))
        self._inputs.append(())
        self._controls.append(())

    def _connect(self, nodes: Sequence[Any], numbers: dict[bytes, int]) -> None:
        for number, node in enumerate(nodes, self._starts[-1]):
            inputs, controls = [], []
            for name in node.input:
                if name.startswith(b"^"):
                    controls.append(numbers.get(name[1:], _MISSING))
                else:
                    inputs.append(numbers.get(name.partition(b":")[0], _MISSING))
            if inputs:
                self._inputs[number] = tuple(inputs)
            if controls:
                self._controls[number] = tuple(
                    control for control in controls if control != _MISSING
                )


def _known(names: Iterable[bytes], numbers: dict[bytes, int]) -> tuple[int, ...]:
    """Return the numbers of the nodes that references such as `^a` and `b:0` name."""
    nodes = (name.lstrip(b"^").partition(b":")[0] for name in names)
    return tuple(numbers[name] for name in nodes if name in numbers)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
