"""Fields of serialized protocol-buffer messages, read from a file without its large values.

The encoding is that of https://protobuf.dev/programming-guides/encoding/. A message is walked field
by field: of a field with a length only its place is returned, so that a tensor of many GB costs the
few bytes before it. Messages are not nested by this module; its callers bound the depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bninspect.errors import Corrupt, Incomplete, ReadProblem
from bninspect.storage.source import Source

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_DAMAGED = "The file is damaged; export or copy it again."
# Bytes that are read at once, more while the file is read without a gap.
_AHEAD, _MOST_AHEAD = 16 << 10, 1 << 20
_LONGEST_VARINT = 10
_LONGEST_TEXT = 1 << 16  # bytes of a name


class Field(NamedTuple):
    """A field of a message: its number, wire type, and its value or place.

    `value` is that of a varint (as an unsigned 64-bit integer), else the offset in the file, and
    `size` the length in bytes (0 for a varint).
    """

    number: int
    wire: int
    value: int
    size: int

    @property
    def place(self) -> Place:
        """Return where the bytes of the field are."""
        return Place(self.value, self.value + self.size)


class Place(NamedTuple):
    """A part of the file, from `start` to before `end`, in bytes."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Return the length in bytes."""
        return self.end - self.start


class MessageFile:
    """A file whose messages are walked; raises `Corrupt` where bytes are no message."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._start = 0
        self._bytes = b""
        self._ahead = _AHEAD

    @property
    def size(self) -> int:
        """Return the length of the file in bytes."""
        return self.source.size

    def fields(self, place: Place) -> Iterator[Field]:
        """Yield the fields of the message at a place, in the order of the file."""
        at, end = place
        while at < end:
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            value = at
            if wire == LENGTH:
                size, value = self._varint(at, end)
            elif wire == VARINT:
                value, at = self._varint(at, end)
                yield Field(number, wire, value, 0)
                continue
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
            else:
                raise self.corrupt(f"a field at byte {at} is of the unknown wire type {wire}")
            at = value + size
            if at > end:
                message = f"a field at byte {value} has {size} bytes, {end - value} are left for it"
                raise self._ended(message, end)
            yield Field(number, wire, value, size)

    def text(self, field: Field) -> str:
        """Return the text of a field."""
        if field.wire != LENGTH or field.size > _LONGEST_TEXT:
            raise self.corrupt(f"the text of a field at byte {field.value} is none, or too long")
        return self._read(field.value, field.size).decode("utf-8", "surrogateescape")

    def bytes_of(self, place: Place, what: str) -> bytes:
        """Return the bytes at a place; raises a `ReadProblem` if they cannot be read."""
        if place.size <= _AHEAD:
            return self._read(place.start, place.size)
        return self.source.read(place.start, place.size, what)

    def varints(self, place: Place) -> Iterator[int]:
        """Yield packed varints as unsigned 64-bit integers."""
        at, end = place
        while at < end:
            value, at = self._varint(at, end)
            yield value

    def corrupt(self, message: str) -> Corrupt:
        """Return the error for damaged bytes."""
        return Corrupt(self.source.path, message, _DAMAGED)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return the varint at an offset, and the offset behind it."""
        index = at - self._start
        if index < 0 or index + _LONGEST_VARINT > len(self._bytes):
            self._load(at, _LONGEST_VARINT)
            index = at - self._start
        data = self._bytes
        if at < end and data[index] < 0x80:  # nearly all
            return data[index], at + 1
        value = shift = 0
        for byte in data[index : min(index + _LONGEST_VARINT, end - self._start)]:
            at += 1
            if byte < 0x80:
                return (value | byte << shift) & (1 << 64) - 1, at
            value |= (byte & 0x7F) << shift
            shift += 7
        raise self._ended(f"the number at byte {at} does not end", end)

    def _ended(self, message: str, end: int) -> ReadProblem:
        """Return the error for a message that ends too early at an offset."""
        if end < self.size:
            return self.corrupt(message)
        return Incomplete(
            self.source.path, f"this ONNX model was cut short: {message}", "Copy it again."
        )

    def _read(self, at: int, size: int) -> bytes:
        index = at - self._start
        if index < 0 or index + size > len(self._bytes):
            self._load(at, size)
            index = at - self._start
        return self._bytes[index : index + size]

    def _load(self, at: int, size: int) -> None:
        """Keep the bytes from an offset on: at least `size`, unless the file ends before."""
        if at <= self.size:
            goes_on = self._start < at <= self._start + len(self._bytes)
            self._ahead = min(2 * self._ahead, _MOST_AHEAD) if goes_on else _AHEAD
            length = min(max(size, self._ahead), self.size - at)
            self._start, self._bytes = at, self.source.read(at, length, "a message")
