"""Heaps of HDF5, which store names, texts of any length, links, attributes (Specification, III).

A local heap has the names of a group (III.D), a global heap texts of any length (III.E), a fractal
heap the links or attributes that are too many for a header (III.G).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from itertools import accumulate

from bninspect.formats.hdf5.btree import read_records
from bninspect.formats.hdf5.structure import UNDEFINED, Damage, NotRead, Structure
from bninspect.frozen import NamedTuple

_LOCAL = struct.Struct("<4sB3xQ8xQ")  # signature, version, size and address of the names
_LOCAL_READ_FIRST = 512  # bytes, as H5HL_SPEC_READ_SIZE of HDF5: the names mostly follow the head

_GLOBAL = struct.Struct("<4sB3xQ")  # signature, version, size
_GLOBAL_READ_FIRST = 4096  # bytes, the least that a global heap takes (H5HG_MINSIZE)
_OBJECT = struct.Struct("<H6xQ")  # number, size


class LocalHeap:
    """The names of a group, each by its offset and with a NUL behind it."""

    def __init__(self, structure: Structure, address: int) -> None:
        self._structure = structure
        head = structure.read_up_to(address, _LOCAL_READ_FIRST, _LOCAL.size)
        signature, version, size, names_at = structure.unpack(_LOCAL, head)
        if signature != b"HEAP" or version:
            raise Damage(f"no heap of names at {address}")
        start = names_at - address
        self._names = head[start : start + size] if start >= _LOCAL.size else b""
        if len(self._names) < size:
            self._names = structure.read(names_at, size)

    def name(self, offset: int) -> bytes:
        """Return the name at an offset; raises `Damage` if there is none."""
        name = self.key(offset)
        if not name:
            raise Damage("an object without a name")
        return name

    def key(self, offset: int) -> bytes:
        """Return the name at an offset, which may be empty; raises `Damage` if there is none."""
        end = self._names.find(b"\0", offset)
        if end < offset:
            raise Damage("a name that is not in its heap")
        # Many names may be the ends of one, so together they may be longer than the file.
        self._structure.count(end - offset)
        return self._names[offset:end]


def read_global_heap(structure: Structure, address: int) -> dict[int, bytes]:
    """Return the objects of a global heap by their number; raises `Damage`."""
    head = structure.read_up_to(address, _GLOBAL_READ_FIRST, _GLOBAL.size)
    signature, version, size = structure.unpack(_GLOBAL, head)
    if signature != b"GCOL" or version != 1:
        raise Damage(f"no heap of texts at {address}")
    data = head[:size] if size <= len(head) else structure.read(address, size)
    objects: dict[int, bytes] = {}
    at = _GLOBAL.size
    while at + _OBJECT.size <= len(data):
        number, length = _OBJECT.unpack_from(data, at)
        if not number:
            break  # free space up to the end
        at += _OBJECT.size
        if at + length > len(data):
            raise Damage("a damaged heap of texts")
        objects[number] = data[at : at + length]
        at += (length + 7) // 8 * 8
    return objects


# Signature, version, size of an ID and of the filters, flags, largest object; columns of the table,
# size of its first block and of the largest direct one, bits of an offset, root, rows.
_FRACTAL = struct.Struct("<4sBHHBI96xHQQH2xQH")
_FRACTAL_SIZE = _FRACTAL.size + 4
_CHECKSUMS = 0x02  # flag: direct blocks have one
_MANAGED = 0x00  # bits of an ID for the kind of storage: in a block of the heap
_KIND = 0x30
_INFO = struct.Struct("<QQ")  # addresses of the heap and of the B-tree by name


class _Block(NamedTuple):
    """A direct block: its offset in the heap and its address in the file."""

    offset: int
    address: int
    size: int


class FractalHeap:
    """Objects by their ID: a table of blocks, each row of which has blocks twice as large."""

    def __init__(self, structure: Structure, address: int) -> None:
        self._structure = structure
        self._address = address
        head = structure.read_sealed(address, _FRACTAL_SIZE, b"FRHP")
        (_, _, _, filters, self._flags, most, self._columns, first, largest, bits, root, rows) = (
            _FRACTAL.unpack(head)
        )
        if filters:
            raise NotRead("a group or its attributes are compressed")
        if not (first and self._columns and first <= largest and bits <= 64):
            raise Damage("a heap of links or attributes that cannot be")
        self._offset_size = (bits + 7) // 8
        self._length_size = min((largest.bit_length() + 6) // 8, (most.bit_length() + 7) // 8)
        self._row_sizes = [first, *accumulate([first] * 64, lambda size, _: size * 2)]
        self._direct_rows = sum(size <= largest for size in self._row_sizes)
        self._blocks: list[_Block] = []
        self._seen: set[int] = set()
        if root != UNDEFINED:
            if rows:
                self._add_rows(root, 0, rows)
            else:
                self._blocks.append(_Block(0, root, first))
        self._starts = [block.offset for block in self._blocks]
        self._read: dict[int, bytes] = {}

    def _add_rows(self, address: int, offset: int, rows: int) -> None:
        """Append the direct blocks below the indirect block at an address."""
        structure = self._structure
        if address in self._seen or rows > len(self._row_sizes):
            raise Damage("a heap of links or attributes that leads to itself")
        self._seen.add(address)
        head = 4 + 1 + 8 + self._offset_size
        size = head + rows * self._columns * 8 + 4
        data = structure.read_sealed(address, size, b"FHIB")[head:]
        addresses = iter(struct.unpack(f"<{rows * self._columns}Q", data))
        for row_size in self._row_sizes[:rows]:
            for _ in range(self._columns):
                block_at = next(addresses)
                if block_at != UNDEFINED:
                    self._add_block(block_at, offset, row_size)
                offset += row_size

    def _add_block(self, address: int, offset: int, size: int) -> None:
        if size <= self._row_sizes[self._direct_rows - 1]:
            self._blocks.append(_Block(offset, address, size))
            return
        # An indirect block has as many rows as make up its size.
        whole = [*accumulate(row * self._columns for row in self._row_sizes)]
        if size not in whole:
            raise Damage("a heap of links or attributes that cannot be")
        self._add_rows(address, offset, whole.index(size) + 1)

    def object(self, identity: bytes) -> bytes:
        """Return the object of an ID; raises `Damage`, or `NotRead` if it is very large."""
        if len(identity) < 1 + self._offset_size + self._length_size:
            raise Damage("a damaged link or attribute")
        if identity[0] & _KIND != _MANAGED:
            raise NotRead("an attribute of it is too large")
        middle = 1 + self._offset_size
        offset = int.from_bytes(identity[1:middle], "little")
        length = int.from_bytes(identity[middle : middle + self._length_size], "little")
        index = bisect_right(self._starts, offset) - 1
        block = self._blocks[index] if index >= 0 else _Block(0, UNDEFINED, 0)
        start = offset - block.offset
        if start + length > block.size:
            raise Damage("a link or attribute that is not in its heap")
        self._structure.count(length)
        return self._data(block)[start : start + length]

    def _data(self, block: _Block) -> bytes:
        data = self._read.get(block.address)
        if data is None:
            data = self._structure.read(block.address, block.size)
            if not data.startswith(b"FHDB"):
                raise Damage(f"no block of links or attributes at {block.address}")
            if self._flags & _CHECKSUMS:
                self._verify(data)
            self._read[block.address] = data
        return data

    def _verify(self, data: bytes) -> None:
        """Verify a direct block, in whose head the checksum was 0 when it was computed."""
        at = 4 + 1 + 8 + self._offset_size
        blank = data[:at] + bytes(4) + data[at + 4 :]
        self._structure.verify(blank + data[at : at + 4])


def read_dense(
    structure: Structure, message: bytes, order_size: int, kind: int, id_at: int = 0
) -> list[bytes]:
    """Return the links or attributes that an info message leads to; none if in the header.

    They are in a fractal heap. The B-tree of version 2 and type `kind` has their IDs, at `id_at` of
    its records. Raises `Damage`.
    """
    # Version, flags, and the highest creation order where that is tracked.
    at = 2 + (order_size if message[1:2] and message[1] & 0x01 else 0)
    heap_at, tree = structure.unpack(_INFO, message, at)
    if heap_at == UNDEFINED:
        return []
    heap = FractalHeap(structure, heap_at)
    return [heap.object(record[id_at:]) for record in read_records(structure, tree, kind)]
