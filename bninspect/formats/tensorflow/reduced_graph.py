"""Encoded graphs without their large constants, so that memory grows with the number of nodes.

A frozen graph has the weights of the model as constants of many megabytes. Here a GraphDef is read
from its file field by field (https://protobuf.dev/programming-guides/encoding). Small nodes are
copied as they are. Of larger ones, values of more than a few kilobytes are left out, and the tensor
gets fields that say where in the file they are (`ConstantTensor` in `protos`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from bninspect.formats.tensorflow.sstable import read_varint
from bninspect.storage.source import Source

# Fields of ConstantTensor that no TensorProto has.
LONG_FIELD, LONG_OFFSET, LONG_SIZE = 1000, 1001, 1002

_SMALL = 1 << 12  # bytes of a message that is copied whole, or of a value
_BLOCK = 1 << 17  # bytes that are read at once
_FIELD_HEAD = 20  # two varints of 64 bits
# A file with fewer bytes than this for each field is no graph, and would take long to walk.
_LEAST_BYTES_OF_FIELD, _FREE_FIELDS = 8, 10_000

_Message = Literal[
    "saved-model",
    "meta-graph",
    "graph",
    "library",
    "function",
    "node",
    "attribute",
    "value",
    "tensor",
]
# The messages that are walked, by the number of their field in another. Field numbers are those of
# tensorflow/core/protobuf/{saved_model,meta_graph}.proto and
# tensorflow/core/framework/{graph,function,node_def,attr_value}.proto.
_CHILDREN: Mapping[_Message, Mapping[int, _Message]] = {
    "saved-model": {2: "meta-graph"},
    "meta-graph": {2: "graph"},
    "graph": {1: "node", 2: "library"},
    "library": {1: "function"},
    "function": {3: "node"},
    "node": {5: "attribute"},
    "attribute": {2: "value"},
    "value": {8: "tensor"},
    "tensor": {},
}
_CONTAINERS = ("meta-graph", "graph", "library", "function")  # walked whatever their size
_VALUE_LIST = 1  # of AttrValue: the branches of a Case, among others

_VARINT, _BYTES = 0, 2  # kinds of fields
_FIXED = {1: 8, 5: 4}  # the bytes of other kinds


class _Field(NamedTuple):
    """A field of a message: number and kind, and where it and its value are in the file."""

    number: int
    kind: int
    start: int
    value: int
    end: int


def read_reduced(source: Source, *, saved_model: bool = False) -> bytes:
    """Return the GraphDef, or with `saved_model` the SavedModel, in a file without large values.

    Raises ValueError or IndexError if it cannot be parsed, a `ReadProblem` if it cannot be read.
    """
    return bytes(
        _Reducer(source).reduced("saved-model" if saved_model else "graph", 0, source.size)
    )


class _Reducer:
    """A walk through one file, of at most some fields for its size."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = _FREE_FIELDS + source.size // _LEAST_BYTES_OF_FIELD
        self._block, self._block_start = b"", 0

    def reduced(self, message: _Message, start: int, end: int) -> bytearray:
        """Return the encoded message from `start` to `end` without its large values."""
        encoded = bytearray()
        for field in self._fields(start, end):
            size = field.end - field.value
            child = _CHILDREN[message].get(field.number) if field.kind == _BYTES else None
            if child is not None and (child in _CONTAINERS or size > _SMALL):
                body = self.reduced(child, field.value, field.end)
                encoded += _varint(field.number << 3 | _BYTES) + _varint(len(body)) + body
            elif child or field.kind != _BYTES or size <= _SMALL or _is_kept(message, field.number):
                encoded += self._read(field.start, field.end - field.start)
            elif message == "tensor":
                encoded += _varint(LONG_FIELD << 3) + _varint(field.number)
                encoded += _varint(LONG_OFFSET << 3) + _varint(field.value)
                encoded += _varint(LONG_SIZE << 3) + _varint(size)
        return encoded

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError
            head = self._read(start, min(_FIELD_HEAD, end - start))
            tag, at = read_varint(head, 0)
            kind = tag & 7
            value = start + at
            if kind == _VARINT:
                _, at = read_varint(head, at)
                field_end = start + at
            elif kind == _BYTES:
                length, at = read_varint(head, at)
                value = start + at
                field_end = value + length
            elif kind in _FIXED:
                field_end = value + _FIXED[kind]
            else:
                raise ValueError
            if field_end > end:
                raise ValueError
            yield _Field(tag >> 3, kind, start, value, field_end)
            start = field_end

    def _read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, from the block that was read last if they are in it."""
        at = offset - self._block_start
        if at < 0 or at + length > len(self._block):
            size = min(max(length, _BLOCK), self._source.size - offset)
            self._block = self._source.read(offset, size, "the graph")
            self._block_start, at = offset, 0
        return self._block[at : at + length]


def _is_kept(message: _Message, number: int) -> bool:
    """Return whether a large value says how the graph computes, such as a function's signature."""
    return message == "function" or (message == "value" and number == _VALUE_LIST)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
