"""Types and shapes in HDF5: the datatype and dataspace messages (Specification, IV.A.2.d and b)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from bninspect.formats.hdf5.structure import Damage, Structure
from bninspect.frozen import NamedTuple

_MOST_DIMENSIONS = 32  # H5S_MAX_RANK
_HEAD = struct.Struct("<BB2xI")  # class and version, first bits, size
_PRECISION = struct.Struct("<HH")  # first bit, bits
_FLOAT = struct.Struct("<HHBBBBI")  # of the value, the exponent and the mantissa; bias
_OTHERS = {2: "time", 4: "bitfield", 6: "compound", 7: "reference", 10: "array"}
_BIG_ENDIAN, _SIGNED = 0x01, 0x08
_NULL_TERMINATED = 0

# (first bit, bits, exponent's place and size, mantissa's place and size, bias) → name
_KNOWN_FLOATS = {
    (0, 16, 10, 5, 0, 10, 15): "float16",
    (0, 32, 23, 8, 0, 23, 127): "float32",
    (0, 64, 52, 11, 0, 52, 1023): "float64",
    (0, 16, 7, 8, 0, 7, 127): "bfloat16",
}


class Datatype(NamedTuple):
    """The type of an element: its size in bytes, its name and numpy's code.

    `name` is TensorFlow's name of a number's type, else a word for the kind. `number` is numpy's
    code of it (`<f4`), empty if it is no number; that of bfloat16 is the integer of its bits.
    `text` says that elements are strings: of `size` bytes each, or of any length elsewhere.
    """

    name: str
    size: int
    number: str = ""
    text: Literal["", "fixed", "variable"] = ""
    null_terminated: bool = False


class _Malformed(ValueError):
    """A message contradicts the format."""


def read_datatype(message: bytes) -> Datatype:
    """Return the type that a datatype message describes; raises `Damage`."""
    try:
        return _datatype(message)
    except (_Malformed, struct.error) as error:
        raise Damage("a type that cannot be") from error


@lru_cache(maxsize=256)
def _datatype(message: bytes) -> Datatype:
    kind, bits, size = _HEAD.unpack_from(message)
    kind &= 0x0F
    if not size:
        raise _Malformed
    parse = _PARSERS.get(kind)
    if parse is None:
        return Datatype(_OTHERS.get(kind, "unknown"), size)
    return parse(bits, size, message[_HEAD.size :])


def _integer(bits: int, size: int, properties: bytes) -> Datatype:
    sign = "" if bits & _SIGNED else "u"
    name = f"{sign}int{8 * size}"
    if _PRECISION.unpack_from(properties) != (0, 8 * size) or size not in (1, 2, 4, 8):
        return Datatype(f"other {name}", size)
    return Datatype(name, size, f"{_order(bits)}{'i' if bits & _SIGNED else 'u'}{size}")


def _float(bits: int, size: int, properties: bytes) -> Datatype:
    layout = _FLOAT.unpack_from(properties)
    name = _KNOWN_FLOATS.get(layout, "")
    if not name or layout[1] != 8 * size or bits & 0x40:  # the order of a VAX
        return Datatype(f"other float{8 * size}", size)
    return Datatype(name, size, f"{_order(bits)}{'u2' if name == 'bfloat16' else f'f{size}'}")


def _string(bits: int, size: int, _: bytes) -> Datatype:
    return Datatype("string", size, "", "fixed", bits & 0x0F == _NULL_TERMINATED)


def _opaque(_: int, size: int, __: bytes) -> Datatype:
    # HDF5 lacks bfloat16: Keras 3 stores it as two opaque bytes.
    return Datatype("bfloat16", 2, "<u2") if size == 2 else Datatype(f"opaque{8 * size}", size)


def _enumeration(_: int, __: int, properties: bytes) -> Datatype:
    """Return the type of an enumeration: its numbers, or bool as h5py stores it."""
    base = _datatype(properties)
    if base.size == 1 and b"FALSE\0" in properties and b"TRUE\0" in properties:
        return Datatype("bool", 1, "?")
    return base


def _variable(bits: int, size: int, _: bytes) -> Datatype:
    is_text = bits & 0x0F == 1
    return Datatype("string" if is_text else "sequence", size, "", "variable" if is_text else "")


def _order(bits: int) -> str:
    return ">" if bits & _BIG_ENDIAN else "<"


_PARSERS: dict[int, Callable[[int, int, bytes], Datatype]] = {
    0: _integer,
    1: _float,
    3: _string,
    5: _opaque,
    8: _enumeration,
    9: _variable,
}


def read_shape(structure: Structure, message: bytes) -> tuple[int, ...] | None:
    """Return the shape that a dataspace message describes, None for no elements at all."""
    version, rank = message[:2] if len(message) >= 4 else (0, 0)
    if version not in (1, 2) or rank > _MOST_DIMENSIONS:
        raise Damage("a shape that cannot be")
    if version == 2 and message[3] == 2:
        return None
    head = 8 if version == 1 else 4
    return structure.unpack(struct.Struct(f"<{rank}Q"), message, head)
