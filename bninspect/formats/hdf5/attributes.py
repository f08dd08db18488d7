"""Texts in the attributes of an HDF5 object (Specification, IV.A.2.m), of fixed or of any length.

Keras stores names and configurations in them. Nothing is allocated only because the file states a
size: a text is never longer than its stored bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from bninspect.formats.hdf5.datatype import Datatype, read_datatype, read_shape
from bninspect.formats.hdf5.heap import read_dense, read_global_heap
from bninspect.formats.hdf5.object_header import ATTRIBUTE, ATTRIBUTE_INFO, Message
from bninspect.formats.hdf5.structure import Damage, NotRead, Structure
from bninspect.frozen import NamedTuple

_SIZES = struct.Struct("<BBHHH")  # version, flags, and the sizes of name, type and shape
_SHARED_TYPE = 0x01
_ORDER_SIZE = 2  # bytes of a creation order
_ATTRIBUTES_BY_NAME = 8  # type of a B-tree of version 2
_DESCRIPTOR = struct.Struct("<IQI")  # length of a text, address of its heap, number in it

_MOST_TEXTS = 16 << 20  # bytes of one attribute; the configuration of a ResNet-152 takes 0.5 MB


class Attribute(NamedTuple):
    """An attribute, its value not yet read; `shape` is None if it has none."""

    type: Datatype
    shape: tuple[int, ...] | None
    data: bytes


def read_attributes(structure: Structure, messages: Sequence[Message]) -> dict[str, bytes]:
    """Return the attribute messages of an object, by the attribute's name; raises `Damage`."""
    stored = [
        message.body for message in messages if message.kind == ATTRIBUTE and not message.shared
    ]
    for message in messages:
        if message.kind == ATTRIBUTE_INFO:
            # Where there are many or large ones, they are outside of the header.
            stored += read_dense(structure, message.body, _ORDER_SIZE, _ATTRIBUTES_BY_NAME)
    return {_name(structure, body): body for body in stored}


def _name(structure: Structure, body: bytes) -> str:
    start, (name_size, _, _) = _parts(structure, body)
    return body[start : start + name_size].partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _parts(structure: Structure, body: bytes) -> tuple[int, tuple[int, int, int]]:
    """Return the position of the name of an attribute, and the sizes of name, type and shape."""
    version, _, name, type_, shape = structure.unpack(_SIZES, body)
    if version not in (1, 2, 3):
        raise Damage(f"an attribute of version {version}")
    return _SIZES.size + (version == 3), (name, type_, shape)


def parse_attribute(structure: Structure, body: bytes) -> Attribute:
    """Return the attribute that a message describes; raises `Damage`."""
    start, (name_size, type_size, shape_size) = _parts(structure, body)
    if body[0] > 1 and body[1] & _SHARED_TYPE:
        raise NotRead("an attribute has a type that is stored apart")
    step = 8 if body[0] == 1 else 1  # version 1 pads each part
    at = start + _padded(name_size, step)
    type_ = read_datatype(body[at : at + type_size])
    at += _padded(type_size, step)
    shape = read_shape(structure, body[at : at + shape_size])
    return Attribute(type_, shape, body[at + _padded(shape_size, step) :])


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step


def read_texts(structure: Structure, attribute: Attribute) -> list[str]:
    """Return the texts of an attribute, none if it is empty.

    Raises `Damage` if its values are no texts, are not stored or are more than 16 MiB.
    """
    if attribute.shape is None or not math.prod(attribute.shape):
        return []
    count, type_ = math.prod(attribute.shape), attribute.type
    if not type_.text:
        raise Damage("an attribute that is no text")
    if count * type_.size > len(attribute.data):
        raise Damage(f"an attribute of {count} texts that are not stored")
    cells = [attribute.data[at * type_.size : (at + 1) * type_.size] for at in range(count)]
    if type_.text == "fixed":
        texts = [
            cell.partition(b"\0")[0] if type_.null_terminated else cell.rstrip(b"\0")
            for cell in cells
        ]
    else:
        texts = _variable_texts(structure, cells)
    return [text.decode("utf-8", "surrogateescape") for text in texts]


def _variable_texts(structure: Structure, cells: list[bytes]) -> list[bytes]:
    """Return texts of any length, each given by its length and its number in a global heap."""
    heaps = structure.texts
    texts = []
    left = _MOST_TEXTS
    for cell in cells:
        length, address, number = structure.unpack(_DESCRIPTOR, cell)
        if not length or not address:
            texts.append(b"")
            continue
        if address not in heaps:
            heaps[address] = read_global_heap(structure, address)
        stored = heaps[address].get(number, b"")
        if len(stored) < length:
            raise Damage(f"a text of {length} bytes that is not stored")
        left -= length
        if left < 0:
            raise Damage("texts too large for any model")
        # HDF5 returns a text up to the first NUL.
        texts.append(stored[:length].partition(b"\0")[0])
    return texts
