"""Frozen graphs: a GraphDef in which the values of variables have become constants.

freeze_graph and convert_variables_to_constants of TensorFlow 1 give a constant the name of the
variable (`bn/moving_mean`). convert_variables_to_constants_v2 of TensorFlow 2 names it after what
reads it (`bn/FusedBatchNormV3/ReadVariableOp/resource`), so what the graph computes decides which
constant is a statistic. Tensors are those of tensorflow/core/framework/tensor.{proto,cc}.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import Corrupt, UnknownFormat, Unsupported
from bninspect.formats.tensorflow.dtypes import DTYPES, widened
from bninspect.formats.tensorflow.graph_def import read_frozen
from bninspect.formats.tensorflow.node_attributes import NodeAttributes
from bninspect.model.checkpoint import HALVES, Checkpoint, Variable
from bninspect.model.graph import STORED_VARIABLES, WEIGHTS, Attribute, Graph
from bninspect.storage.source import Budget, Source
from bninspect.wording import listed, plural

_CONSTANT = "Const"
_MAX_RANK = 32  # numpy's own limit before 2.0; a BN constant has five at most
_CONTENT = 4  # the field of TensorProto with all elements as bytes
# The fields of TensorProto with one number for each element, by the number of the type: the name,
# the number, and numpy's type of its bytes (half_val has varints).
_ELEMENTS: dict[int, tuple[str, int, str | None]] = {
    1: ("float_val", 5, "<f4"),
    2: ("double_val", 6, "<f8"),
    14: ("half_val", 13, None),
    19: ("half_val", 13, None),
}
_DAMAGED = "The file is damaged; copy it again, or freeze the graph again."


def open_frozen_graph(path: str, file: str, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Return the frozen graph in a file as a checkpoint of its constants.

    `path` is what the user typed. Raises `UnknownFormat` if the graph has variables, whose values
    are elsewhere, and another `ReadProblem` if it cannot be read or parsed.
    """
    graph, attributes = read_frozen(file)
    if names := variable_names(graph):
        raise UnknownFormat(
            file,
            f"this graph is not frozen: it lacks the values of {plural(len(names), 'variable')}"
            f" ({listed(names)})",
            "Check the checkpoint that was saved with it.",
        )
    return constants_as_checkpoint(path, graph, attributes, notes)


def constants_as_checkpoint(
    path: str, graph: Graph, attributes: NodeAttributes, notes: tuple[str, ...] = ()
) -> Checkpoint:
    """Return a checkpoint whose variables are the constants of a graph."""
    reader = _ConstantReader(graph.path)
    graph = _with_names_of_functions(graph)
    _require_unique_names(graph)
    weights = dict(_weights(graph, attributes, reader))
    _require_values(graph.path, attributes, weights)
    frozen = with_weights(graph, weights)
    return Checkpoint(
        path=path,
        resolved=graph.path,
        format="graph-def",
        variables={variable.name: variable for variable in weights.values()},
        notes=notes,
        frozen=True,
        graphs=lambda: (frozen,),
        close=reader.close,
    )


def variable_names(graph: Graph) -> list[str]:
    """Return the names of a graph's variables, whose values are not in it."""
    nodes = zip(graph.names, graph.operations, strict=True)
    return [name for name, operation in nodes if operation in STORED_VARIABLES]


def with_weights(graph: Graph, weights: Collection[int]) -> Graph:
    """Return a graph in which the nodes `weights` stand for variables; they have no value here."""

    def attribute(number: int, name: str) -> Attribute:
        return None if name == "value" and number in weights else graph.attribute(number, name)

    operations = [
        WEIGHTS if number in weights else operation
        for number, operation in enumerate(graph.operations)
    ]
    return graph._replace(operations=operations, attribute=attribute)


def _with_names_of_functions(graph: Graph) -> Graph:
    """Return a graph whose constants have names of their own: functions may use the same ones."""
    if not graph.functions:
        return graph
    names = [*graph.names]
    for owner, function in graph.functions.items():
        for number in function.nodes:
            if graph.operations[number] == _CONSTANT:
                names[number] = f"{owner}/{names[number]}"
    return graph._replace(names=names)


def _weights(
    graph: Graph, attributes: NodeAttributes, reader: _ConstantReader
) -> Iterator[tuple[int, Variable]]:
    """Yield the constants that may be weights, by node: numbers with a fraction, not scalars."""
    for number, operation in enumerate(graph.operations):
        if operation != _CONSTANT:
            continue
        tensor = attributes.tensor(number)
        if tensor is None or tensor.dtype not in _ELEMENTS:
            continue
        shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
        if 0 < len(shape) <= _MAX_RANK and min(shape) > 0:
            name = graph.names[number]
            dtype, _ = DTYPES[tensor.dtype]
            load = partial(reader.read, name, tensor, shape)
            quantized = dtype if dtype in HALVES else None
            yield number, Variable(name, shape, dtype, load, quantized=quantized)


def _require_unique_names(graph: Graph) -> None:
    """Raise `Corrupt` if two constants have one name, which TensorFlow refuses (Graph::AddNode)."""
    nodes = zip(graph.names, graph.operations, strict=True)
    seen: set[str] = set()
    for name in (name for name, operation in nodes if operation == _CONSTANT):
        if name in seen:
            raise Corrupt(graph.path, f"it has {name} more than once", _DAMAGED)
        seen.add(name)


def _require_values(path: str, attributes: NodeAttributes, weights: Collection[int]) -> None:
    """Raise `Unsupported` if no constant has a value, each of which would then be read as 0.

    The converter of TensorFlow.js cleared them up to 0.8 (tensorflowjs_model.pb), and wrote them to
    shards that weights_manifest.json lists.
    """
    tensors = [attributes.tensor(number) for number in weights]
    if tensors and not any(tensor is not None and _has_values(tensor) for tensor in tensors):
        raise Unsupported(
            path,
            "the constants of this graph have no values, which TensorFlow.js before 1.0 kept in"
            " other files",
            "Check what it was converted from, or convert that again.",
        )


def _has_values(tensor: Any) -> bool:
    field, _, _ = _ELEMENTS[tensor.dtype]
    return bool(tensor.HasField("long_field") or tensor.tensor_content or getattr(tensor, field))


class _ConstantReader:
    """Reader of the values of constants; it opens the file only for those that are large."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._source: Source | None = None
        self._budget = Budget()

    def close(self) -> None:
        """Close the file."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def read(self, name: str, tensor: Any, shape: Sequence[int]) -> NDArray[Any]:
        """Return the values of a constant; raises a `ReadProblem` if they do not fit its shape.

        The last of the elements that are stored stands for those behind it, 0 if none is stored
        (Tensor::FromProto of tensorflow/core/framework/tensor.cc).
        """
        dtype, code = DTYPES[tensor.dtype]
        disk_type = np.dtype(f"<{code}")
        count = math.prod(shape)
        self._budget.take(count * disk_type.itemsize, self._path)
        stored, is_whole = self._stored(name, tensor, disk_type)
        if stored.size != count and (is_whole or stored.size > count):
            raise Corrupt(
                self._path,
                f"{name} of shape {list(shape)} has {stored.size} elements",
                _DAMAGED,
            )
        values = np.full(count, stored[-1] if stored.size else 0, disk_type)
        values[: stored.size] = stored
        return widened(values.reshape(shape), dtype)

    def _stored(
        self, name: str, tensor: Any, disk_type: np.dtype[Any]
    ) -> tuple[NDArray[Any], bool]:
        """Return the elements that are stored, and whether these have to be all."""
        field, number, code = _ELEMENTS[tensor.dtype]
        if tensor.HasField("long_field"):
            is_content = tensor.long_field == _CONTENT
            if not is_content and (tensor.long_field != number or code is None):
                raise Unsupported(
                    self._path, f"the values of {name} are stored in an unusual way", _DAMAGED
                )
            data = self._read_bytes(name, tensor.long_offset, tensor.long_size)
            return self._unpacked(
                name, data, disk_type if is_content else np.dtype(code)
            ), is_content
        if tensor.tensor_content:
            return self._unpacked(name, tensor.tensor_content, disk_type), True
        elements = getattr(tensor, field)
        if code is not None:
            return np.array(elements, disk_type), False
        # The bits of 16-bit numbers, as integers.
        bits = np.array(elements, np.int64).astype(np.uint16)
        return bits.view(disk_type), False

    def _unpacked(self, name: str, data: bytes, disk_type: np.dtype[Any]) -> NDArray[Any]:
        if len(data) % disk_type.itemsize:
            raise Corrupt(self._path, f"{name} has {len(data)} bytes, not whole numbers", _DAMAGED)
        return np.frombuffer(data, disk_type)

    def _read_bytes(self, name: str, offset: int, size: int) -> bytes:
        if self._source is None:
            self._source = Source(self._path)
            self._budget.grant(self._source.size)
        return self._source.read(offset, size, name)
