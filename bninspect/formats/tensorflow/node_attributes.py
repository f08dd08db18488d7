"""Attributes, constants and inputs of a graph's nodes, decoded on demand.

The formats are those of tensorflow/core/framework/{node_def,attr_value,tensor}.proto.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from bninspect.formats.tensorflow.output_number import output_number
from bninspect.formats.tensorflow.protos import DecodeError, declare
from bninspect.model.graph import Attribute, Constant, Scalar

AttributePair, AttributeValue = declare("AttributePair", "AttributeValue")

# Elements of a constant, by the number of their type (types.proto).
_SCALARS = {
    1: ("<f", "float_val"),
    2: ("<d", "double_val"),
    3: ("<i", "int_val"),
    9: ("<q", "int64_val"),
    10: ("<?", "bool_val"),
}
_STRING = 7
_LARGEST_SCALAR = 1 << 12  # bytes of an attribute that may be a scalar
_MOST_ELEMENTS = 1 << 16  # of a constant that is decoded, unless all its elements are equal


class NodeAttributes:
    """The encoded nodes of a graph and its functions, by the numbers of a `Graph`.

    `nodes` has the messages of the graph and then of each function, `starts` the number of the
    first node of each.
    """

    def __init__(self, starts: Sequence[int], nodes: Sequence[Sequence[Any]]) -> None:
        self._starts = starts
        self._nodes = nodes

    def attribute(self, number: int, name: str) -> Attribute:
        """Return one attribute of a node; None if it is missing, damaged or of another type."""
        value = self._value(number, name)
        return None if value is None else _decode(value)

    def constant(self, number: int) -> Constant | None:
        """Return the tensor of a Const of numbers or strings; None for others and large ones."""
        tensor = self.tensor(number)
        return None if tensor is None else _constant(tensor)

    def tensor(self, number: int) -> Any:
        """Return the encoded tensor of a Const as a `ConstantTensor` message, None without one."""
        value = self._value(number, "value")
        return value.tensor if value is not None and value.HasField("tensor") else None

    def shape(self, number: int) -> tuple[int, ...] | None:
        """Return the shape that a node has as its attribute; None if it is missing or not known."""
        value = self._value(number, "shape")
        if value is None or not value.HasField("shape") or value.shape.unknown_rank:
            return None
        sizes = tuple(dimension.size for dimension in value.shape.dim)
        return sizes if min(sizes, default=0) >= 0 else None

    def output(self, number: int, index: int) -> int:
        """Return the number of the output that a node takes as its input at `index`."""
        node = self._node(number)
        # Control inputs come last (node_def.proto).
        if node is None or index >= len(node.input) or node.input[index].startswith(b"^"):
            return 0
        return output_number(node.input[index])

    def _node(self, number: int) -> Any:
        scope = bisect_right(self._starts, number) - 1
        index = number - self._starts[scope]
        # What is missing is an argument of the next function.
        return self._nodes[scope][index] if index < len(self._nodes[scope]) else None

    def _value(self, number: int, name: str) -> Any:
        """Return an attribute as a message; of two with one name the last, as protocol buffers do.

        An attribute that cannot be parsed counts as missing: it says nothing about other nodes.
        """
        node = self._node(number)
        if node is None:
            return None
        key = name.encode()
        try:
            pairs = (AttributePair.FromString(data) for data in node.attr)
            values = [pair.value for pair in pairs if pair.key == key]
            return AttributeValue.FromString(values[-1]) if values else None
        except DecodeError:
            return None


def _decode(value: Any) -> Attribute:
    if value.HasField("b"):
        return bool(value.b)
    if value.HasField("f"):
        return float(value.f)
    if value.HasField("func"):
        return (_text(value.func.name),)
    if value.HasField("list"):
        return tuple(_text(function.name) for function in value.list.func)
    if value.HasField("tensor") and len(value.tensor.tensor_content) <= _LARGEST_SCALAR:
        constant = _constant(value.tensor)
        if constant is not None and all(size == 1 for size in constant.shape):
            first = constant.elements[0]
            return None if len(constant.elements) > 1 or isinstance(first, str) else first
    return None


def _constant(tensor: Any) -> Constant | None:
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    if tensor.HasField("long_field"):
        return None
    if tensor.dtype == _STRING and tensor.string_val:
        return Constant(shape, tuple(map(_text, tensor.string_val)))
    if tensor.dtype not in _SCALARS:
        return None
    code, field = _SCALARS[tensor.dtype]
    elements: Sequence[Scalar] = getattr(tensor, field)
    if not elements:  # without any, all are 0
        zeros = bytes(struct.calcsize(code))
        elements = _unpacked(tensor.tensor_content or zeros, code)
    if not 0 < len(elements) <= _MOST_ELEMENTS:
        return None
    return Constant(shape, tuple(elements))


def _unpacked(content: bytes, code: str) -> Sequence[Scalar]:
    """Return the elements of a tensor in its raw form; one if all are equal."""
    size = struct.calcsize(code)
    first = content[:size]
    if len(content) % size or len(first) < size:
        return ()
    if content == first * (len(content) // size):
        return struct.unpack(code, first)
    if len(content) > size * _MOST_ELEMENTS:
        return ()
    return struct.unpack(f"<{len(content) // size}{code[1]}", content)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
