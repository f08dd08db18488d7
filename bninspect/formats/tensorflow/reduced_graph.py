"""Encoded graphs without their large constants, so that memory grows with the number of nodes.

A frozen graph has the weights of the model as constants of many megabytes. Here a GraphDef is read
from its file field by field. Small nodes are copied as they are. Of larger ones, values of more
than a few kilobytes are left out, and the tensor gets fields that say where in the file they are
(`ConstantTensor` in `protos`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from bninspect.formats.message_file import LENGTH, MessageFile, Place
from bninspect.storage.varint import encoded_varint

# Fields of ConstantTensor that no TensorProto has.
LONG_FIELD, LONG_OFFSET, LONG_SIZE = 1000, 1001, 1002

_SMALL = 1 << 12  # bytes of a message that is copied whole, or of a value
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


def read_reduced(file: MessageFile, *, saved_model: bool = False) -> bytes:
    """Return the GraphDef, or with `saved_model` the SavedModel, in a file without large values.

    Raises ValueError if it has too many fields, a `ReadProblem` if it cannot be read or parsed.
    """
    message: _Message = "saved-model" if saved_model else "graph"
    return bytes(_Reducer(file).reduced(message, Place(0, file.size)))


class _Reducer:
    """The reduction of one file, of at most some fields for its size."""

    def __init__(self, file: MessageFile) -> None:
        self._file = file
        self._left = _FREE_FIELDS + file.size // _LEAST_BYTES_OF_FIELD

    def reduced(self, message: _Message, place: Place) -> bytearray:
        """Return the encoded message at a place without its large values."""
        encoded = bytearray()
        for field in self._file.fields(place):
            self._left -= 1
            if self._left < 0:
                raise ValueError
            has_length = field.wire == LENGTH
            child = _CHILDREN[message].get(field.number) if has_length else None
            if child is not None and (child in _CONTAINERS or field.size > _SMALL):
                body = self.reduced(child, field.place)
                encoded += (
                    encoded_varint(field.number << 3 | LENGTH) + encoded_varint(len(body)) + body
                )
            elif field.size <= _SMALL or _is_kept(message, field.number):
                encoded += self._file.bytes_of(field.whole, "the graph")
            elif message == "tensor":
                encoded += encoded_varint(LONG_FIELD << 3) + encoded_varint(field.number)
                encoded += encoded_varint(LONG_OFFSET << 3) + encoded_varint(field.value)
                encoded += encoded_varint(LONG_SIZE << 3) + encoded_varint(field.size)
        return encoded


def _is_kept(message: _Message, number: int) -> bool:
    """Return whether a large value says how the graph computes, such as a function's signature."""
    return message == "function" or (message == "value" and number == _VALUE_LIST)
