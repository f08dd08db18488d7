"""The messages of a V2 index, parsed by hand: BundleHeader, BundleEntry, TensorShape, TensorSlice.

An index holds one for each variable. To declare them to the protobuf library, and to import that,
takes longer than to read a whole checkpoint. Fields from
tensorflow/core/protobuf/tensor_bundle.proto and tensorflow/core/framework/{tensor_shape,
tensor_slice}.proto, the encoding from https://protobuf.dev/programming-guides/encoding: of a field
that occurs several times the last counts, a message that does is merged, a field of another type is
passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bninspect.frozen import NamedTuple
from bninspect.storage.varint import read_varint

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# The bytes of a value by its type on the wire, None where a varint tells. Groups, the types 3 and
# 4, were given up before there were such messages.
_SIZES = {_VARINT: None, _FIXED64: 8, _BYTES: None, _FIXED32: 4}
_LONGEST_TAG = 5  # bytes
_ZERO = b"\0"  # stands for a number that is left out
# An entry as TensorFlow writes it: the fields 1 to 6, in this order, zeros left out. One match
# parses it, since parsing an entry field by field takes twice as long.
_NUMBER = rb"([\x80-\xff]{0,9}[\x00-\x7f])"
_USUAL_ENTRY = re.compile(
    rb"\x08([\x00-\x7f])\x12([\x00-\x7f])(.*?)"
    rb"(?:\x18" + _NUMBER + rb")?(?:\x20" + _NUMBER + rb")?(?:\x28" + _NUMBER + rb")?\x35(.{4})",
    re.DOTALL,
)
_WHOLE = -1  # kFullExtent of tensorflow/core/framework/tensor_slice.h; so is no length at all


# Start and length of a tensor slice in each dimension; a length of None stands for all of it.
Extents = tuple[tuple[int, int | None], ...]


class MessageError(ValueError):
    """Bytes that are no message of the expected type."""


class BundleHeader(NamedTuple):
    """The header of an index; `min_consumer` is the oldest reader that may read it.

    `endianness` is 0 for little-endian values, 1 for big-endian ones.
    """

    num_shards: int
    endianness: int
    min_consumer: int


class BundleEntry(NamedTuple):
    """Where the bytes of a tensor lie, and what they are.

    `dtype` is a number of `DTYPES`, `shape` an encoded TensorShape. `offset` and `size` are in
    bytes of the shard number `shard_id`; `crc32c` is the masked checksum of these bytes and
    `crc32c_at` its position in the encoded message, None where it is left out. `slices` are
    those of a partitioned variable.
    """

    dtype: int
    shape: bytes
    shard_id: int
    offset: int
    size: int
    crc32c: int
    crc32c_at: int | None
    slices: tuple[Extents, ...]


def parse_header(message: bytes) -> BundleHeader:
    """Return a BundleHeader; raises `MessageError`."""
    numbers = {1: 0, 2: 0}
    version = b""
    for number, kind, value, _ in _fields(message):
        if kind == _VARINT and number in numbers:
            numbers[number] = _signed(value, 32)
        elif kind == _BYTES and number == 3:
            version += value
    return BundleHeader(numbers[1], numbers[2], _signed(_number(version, 2) or 0, 32))


def parse_entry(message: bytes) -> BundleEntry:
    """Return a BundleEntry; raises `MessageError`."""
    match = _USUAL_ENTRY.fullmatch(message)
    if match is not None:
        dtype, length, shape, shard_id, offset, size, crc32c = match.groups()
        if len(shape) == length[0]:
            return BundleEntry(
                dtype=dtype[0],
                shape=shape,
                shard_id=_signed(read_varint(shard_id or _ZERO, 0)[0], 32),
                offset=_signed(read_varint(offset or _ZERO, 0)[0], 64),
                size=_signed(read_varint(size or _ZERO, 0)[0], 64),
                crc32c=int.from_bytes(crc32c, "little"),
                crc32c_at=len(message) - len(crc32c),
                slices=(),
            )
    return _parse_any_entry(message)


def _parse_any_entry(message: bytes) -> BundleEntry:
    """Return a BundleEntry with fields in any order; raises `MessageError`."""
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}
    crc32c, crc32c_at = 0, None
    shape, slices = b"", []
    for number, kind, value, start in _fields(message):
        if kind == _VARINT and number in numbers:
            numbers[number] = value
        elif kind == _BYTES and number == 2:
            shape += value
        elif kind == _FIXED32 and number == 6:
            crc32c, crc32c_at = int.from_bytes(value, "little"), start
        elif kind == _BYTES and number == 7:
            slices.append(parse_slice(value))
    return BundleEntry(
        dtype=_signed(numbers[1], 32),
        shape=shape,
        shard_id=_signed(numbers[3], 32),
        offset=_signed(numbers[4], 64),
        size=_signed(numbers[5], 64),
        crc32c=crc32c,
        crc32c_at=crc32c_at,
        slices=tuple(slices),
    )


def parse_shape(message: bytes) -> tuple[tuple[int, ...], bool]:
    """Return the dimensions of a TensorShape, and whether its rank is unknown.

    Raises `MessageError`.
    """
    dimensions = []
    for number, kind, value, _ in _fields(message):
        if kind == _BYTES and number == 2:
            dimensions.append(_number(value, 1) or 0)
    return tuple(dimensions), bool(_number(message, 3))


def parse_slice(message: bytes) -> Extents:
    """Return the extents of a TensorSlice; raises `MessageError`."""
    extents = []
    for number, kind, value, _ in _fields(message):
        if kind == _BYTES and number == 1:
            length = _number(value, 2)
            extents.append((_number(value, 1) or 0, None if length == _WHOLE else length))
    return tuple(extents)


def _number(message: bytes, wanted: int) -> int | None:
    """Return the int64 in field `wanted` of a message, None without it."""
    field_value = None
    for number, kind, value, _ in _fields(message):
        if kind == _VARINT and number == wanted:
            field_value = _signed(value, 64)
    return field_value


def _signed(value: int, bits: int) -> int:
    """Return a number in two's complement of so many bits; higher bits are dropped."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _fields(message: bytes) -> Iterator[tuple[int, int, Any, int]]:
    """Yield number, type on the wire, value and the value's position of each field.

    The value is an int of a varint, else bytes. Raises `MessageError`. Nearly all numbers are below
    128, one byte each: that is written out, since this loop is what reading an index costs.
    """
    at, end = 0, len(message)
    try:
        while at < end:
            tag = message[at]
            at += 1
            if tag >= 0x80:
                tag, at = read_varint(message, at - 1, _LONGEST_TAG)
            kind = tag & 7
            if tag < 8 or kind not in _SIZES:
                raise MessageError
            size = _SIZES[kind]
            if size is None:  # the field begins with a varint
                value = message[at]
                at += 1
                if value >= 0x80:
                    value, at = read_varint(message, at - 1)
                if kind == _VARINT:
                    yield tag >> 3, kind, value, at
                    continue
                size = value
            start, at = at, at + size
            if at > end:
                raise MessageError
            yield tag >> 3, kind, message[start:at], start
    except IndexError as error:
        raise MessageError from error
