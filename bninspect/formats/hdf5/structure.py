"""Bounded reads of the structure of an HDF5 file, by address, and the errors of that structure.

The structure of a file (headers, trees, heaps) is linked by addresses, and a damaged or hostile
file can link to the same bytes again and again. So all bytes of structure that are read are
counted, and a file that needs many times its own size is refused. HDF5 itself does not count: a
B-tree node whose right sibling is itself makes it loop for ever.

Format: HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from bninspect.formats.hdf5.checksum import lookup3
from bninspect.storage.source import NotFetchedYet, Window

# Hints of errors.
DAMAGED = "The file is damaged or was cut short; copy it again or use another one."
SAVE_AGAIN = "Save the model again with Keras, then check that."

UNDEFINED = (1 << 64) - 1  # the address of an object that is not stored

# Bytes of structure that may be read of a file of n bytes: _FREE + _GROWTH * n, but at most _MOST.
# A sound file is read once. The structure of a ResNet-50 with its optimizer takes 1 MB.
_FREE, _GROWTH, _MOST = 1 << 20, 4, 64 << 20
_CHECKSUM_SIZE = 4
# Bytes that are read at once. HDF5 allocates structure in blocks of 2 KiB, so that the parts of a
# group are neighbours.
_PAGE, _MOST_PAGES = 8 << 10, 256


class Damage(ValueError):
    """A structure that contradicts the format; the text says how."""


class NotRead(ValueError):
    """A structure that Keras never writes and bninspect does not read; the text says which."""


class Structure:
    """The structure of an HDF5 file: its bytes by address, counted from the superblock.

    `base` is the offset of the superblock in the window: a user block may precede it. `texts` are
    the global heaps that were read, by their address.
    """

    def __init__(self, window: Window, base: int = 0) -> None:
        self._window = window
        self._base = base
        self._pages: dict[int, bytes] = {}
        self.texts: dict[int, dict[int, bytes]] = {}
        self.left = min(_FREE + _GROWTH * window.size, _MOST)

    def read(self, address: int, length: int) -> bytes:
        """Return the `length` bytes at an address.

        Raises `Damage` if the file ends before, or if more was read than a sound file has.
        """
        self.left -= length if length > 0 else 1  # as `count` does; a file has thousands of reads
        if self.left < 0:
            raise _endless()
        number, start = divmod(self._base + address, _PAGE)
        if start + length > _PAGE:
            return self.read_values(address, length)
        page = self._pages.get(number)
        if page is None:
            page = self._read_page(number)
        data = page[start : start + length]
        if len(data) < length:
            raise Damage(f"the file has no {length} bytes at {address}")
        return data

    def _read_page(self, number: int) -> bytes:
        """Return a page of the window, which is shorter at the end and empty behind it."""
        if len(self._pages) >= _MOST_PAGES:
            self._pages.clear()
        start = number * _PAGE
        length = min(_PAGE, self._window.size - start)
        page = self._pages[number] = self._window.read_at(start, length) if length > 0 else b""
        return page

    def read_up_to(self, address: int, length: int, least: int) -> bytes:  # noqa: ARG002
        """Return the `length` bytes at an address, or fewer at the end of the file.

        `length` is how many are likely needed, `least` how many are needed for sure.
        """
        left = self._window.size - self._base - address
        return self.read(address, length if length <= left else max(left, 0))

    def read_rest(self, address: int, head: bytes, start: int, length: int) -> bytes:
        """Return `length` bytes at `start` of the part at an address whose `head` was read."""
        data = head[start : start + length]
        return data if len(data) == length else self.read(address + start, length)

    def read_each(self, ranges: Iterable[tuple[int, int]], least: int) -> list[bytes]:
        """Return the bytes at several addresses, as `read_up_to`; a prefetch gets all misses."""
        blocks = []
        missing: NotFetchedYet | None = None
        for address, length in ranges:
            try:
                blocks.append(self.read_up_to(address, length, least))
            except NotFetchedYet as error:  # noqa: PERF203 - the others are still read
                missing = error
        if missing:
            raise missing
        return blocks

    def read_sealed(self, address: int, length: int, signature: bytes) -> bytes:
        """Return a block of `length` bytes that begins with a signature and ends with a checksum.

        The checksum is verified and left out. Raises `Damage` if either is wrong.
        """
        block = self.read(address, length)
        if not block.startswith(signature):
            raise Damage(f"no {signature.decode()} block at {address}")
        self.verify(block)
        return block[:-_CHECKSUM_SIZE]

    def verify(self, block: bytes) -> None:
        """Raise `Damage` unless the last four bytes of a block are the checksum of the others."""
        stored = int.from_bytes(block[-_CHECKSUM_SIZE:], "little")
        if lookup3(block[:-_CHECKSUM_SIZE]) != stored:
            raise Damage(f"a {block[:4].decode('latin-1')} block fails its checksum")

    def read_values(self, address: int, length: int) -> bytes:
        """Return `length` bytes at an address that are values: they are not counted here."""
        try:
            return self._window.read_at(self._base + address, length)
        except NotFetchedYet:
            raise
        except OSError as error:
            raise Damage(f"the file has no {length} bytes at {address}") from error

    def place(self, address: int, length: int) -> tuple[int, int]:
        """Return the offset in the window and the length of some bytes at an address."""
        return self._base + address, length

    def count(self, length: int) -> None:
        """Count bytes of structure; raises `Damage` if a sound file of this size has fewer."""
        self.left -= length if length > 0 else 1
        if self.left < 0:
            raise _endless()

    def unpack(self, layout: struct.Struct, data: bytes, at: int = 0) -> tuple[Any, ...]:
        """Return the fields of a part of some bytes; raises `Damage` if they end before."""
        try:
            return layout.unpack_from(data, at)
        except (struct.error, OverflowError) as error:
            raise Damage("a part of its structure is missing") from error


class RecordedStructure(Structure):
    """A structure that records the bytes which are read of it, by their offset in the window.

    No more is read than is needed: a file in which these bytes are the same has the same structure.
    """

    def __init__(self, window: Window, base: int, record: dict[int, bytes]) -> None:
        super().__init__(window, base)
        self._record = record

    def read(self, address: int, length: int) -> bytes:
        """Return the `length` bytes at an address, and record them; raises `Damage`."""
        data = super().read(address, length)
        offset = self._base + address
        if len(data) > len(self._record.get(offset, b"")):
            self._record[offset] = data
        return data

    def read_up_to(self, address: int, length: int, least: int) -> bytes:
        """Return the first bytes at an address that are needed for sure."""
        return super().read_up_to(address, min(length, least), least)


def _endless() -> Damage:
    return Damage("its parts lead to each other, or overlap, without end")
