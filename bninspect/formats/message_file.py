"""Files of serialized protocol-buffer messages, read field by field without their large values.

The encoding is that of https://protobuf.dev/programming-guides/encoding/. Of a field with a length
only its place is returned, so that a tensor of many GB costs the few bytes before it. Messages are
not nested by this module; its callers bound the depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bninspect.errors import Corrupt, Incomplete, ReadProblem
from bninspect.storage.source import Source
from bninspect.storage.varint import LONGEST_VARINT, read_varint

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
# Bytes that are read at once, more while the file is read without a gap.
_AHEAD, _MOST_AHEAD = 16 << 10, 1 << 20
_LONGEST_TEXT = 1 << 16  # bytes of a name
_LARGEST_NUMBER = (1 << 29) - 1  # of a field


class Field(NamedTuple):
    """A field of a message: its number, wire type, and its value or place.

    `value` is that of a varint (as an unsigned 64-bit integer), else the offset in the file, and
    `size` the length in bytes (0 for a varint). `whole` is where the field is with its number.
    """

    number: int
    wire: int
    value: int
    size: int
    whole: Place

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
    """A file whose messages are read; raises `Corrupt` or `Incomplete` where bytes are no message.

    Errors call the file `what` (`the graph`), and give `hint`. `ahead` bytes are read at once.
    """

    def __init__(self, source: Source, what: str, hint: str, ahead: int = _AHEAD) -> None:
        self.source = source
        self._what, self._hint = what, hint
        self._start = 0
        self._bytes = b""
        self._least_ahead = self._ahead = ahead

    @property
    def size(self) -> int:
        """Return the length of the file in bytes."""
        return self.source.size

    def fields(self, place: Place) -> Iterator[Field]:
        """Yield the fields of the message at a place, in the order of the file."""
        at, end = place
        while at < end:
            start = at
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if not 0 < number <= _LARGEST_NUMBER:  # as where blocks of a file are zeros
                raise self._unparsable(
                    f"a field at byte {start} has the impossible number {number}"
                )
            value = at
            if wire == LENGTH:
                size, value = self._varint(at, end)
            elif wire == VARINT:
                value, at = self._varint(at, end)
                yield Field(number, wire, value, 0, Place(start, at))
                continue
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
            else:
                raise self._unparsable(f"a field at byte {at} is of the unknown wire type {wire}")
            at = value + size
            if at > end:
                message = f"a field at byte {value} has {size} bytes, {end - value} are left for it"
                raise self._ended(message, end)
            yield Field(number, wire, value, size, Place(start, at))

    def text(self, field: Field) -> str:
        """Return the text of a field."""
        if field.wire != LENGTH or field.size > _LONGEST_TEXT:
            raise self._unparsable(f"a field at byte {field.value} should be a short text")
        return self._read(field.value, field.size).decode("utf-8", "surrogateescape")

    def bytes_of(self, place: Place, what: str) -> bytes:
        """Return the bytes at a place; raises a `ReadProblem` if they cannot be read."""
        if place.size <= self._least_ahead:
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
        return Corrupt(self.source.path, message, self._hint)

    def _unparsable(self, message: str) -> Corrupt:
        return self.corrupt(f"{self._what} cannot be parsed: {message}")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return the varint at an offset, and the offset behind it."""
        index = at - self._start
        if index < 0 or index + LONGEST_VARINT > len(self._bytes):
            self._load(at, LONGEST_VARINT)
            index = at - self._start
        if at < end and self._bytes[index] < 0x80:  # nearly all
            return self._bytes[index], at + 1
        head = self._bytes[index : min(index + LONGEST_VARINT, end - self._start)]
        try:
            value, size = read_varint(head, 0)
        except IndexError as error:
            message = f"the number at byte {at} does not end"
            if at + LONGEST_VARINT <= end:
                raise self._unparsable(message) from error
            raise self._ended(message, end) from error
        return value, at + size

    def _ended(self, message: str, end: int) -> ReadProblem:
        """Return the error for a message that ends too early at an offset."""
        if end < self.size:
            return self._unparsable(message)
        return Incomplete(
            self.source.path, f"{self._what} was cut short: {message}", "Copy it again."
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
            self._ahead = min(2 * self._ahead, _MOST_AHEAD) if goes_on else self._least_ahead
            length = min(max(size, self._ahead), self.size - at)
            self._start, self._bytes = at, self.source.read(at, length, "a message")
