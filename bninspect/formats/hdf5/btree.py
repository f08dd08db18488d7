"""B-trees of HDF5, of both versions (Specification, III.A): the entries of their leaves, in order.

Every level is read at once, from the root down. A node that is reached twice, siblings that do not
refer to each other and levels that do not count down are damage: HDF5 follows the siblings, and
loops for ever if they form a circle.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from bninspect.formats.hdf5.structure import UNDEFINED, Damage, Structure
from bninspect.frozen import NamedTuple

GROUP_NODES, CHUNK_NODES = 0, 1

_NODE = struct.Struct("<4sBBHQQ")  # signature, type, level, entries in use, left and right sibling
_READ_FIRST = 544  # bytes of a group's node, with the sizes that HDF5 has by default
_ADDRESS_SIZE = 8

# signature, version, type, size of a node and of a record, depth, root, its records, all records
_HEADER = struct.Struct("<4sBBIHHxxQHQ")
_HEADER_SIZE = _HEADER.size + 4
_MOST_LEVELS = 16
_NODE_OVERHEAD = 10  # bytes of a node of version 2: signature, version, type, checksum


class Entry(NamedTuple):
    """An entry of a leaf of version 1: its key, and the address that it refers to."""

    key: bytes
    child: int


def read_leaves(structure: Structure, root: int, kind: int, key_size: int) -> list[Entry]:
    """Return the entries of all leaves of a B-tree of version 1; raises `Damage`."""
    seen: set[int] = set()
    addresses, above = [root], None
    while True:
        if len({*addresses}) < len(addresses) or not seen.isdisjoint(addresses):
            raise Damage("a B-tree that leads to itself")
        seen.update(addresses)
        level, entries = _read_level(structure, addresses, kind, key_size)
        if above is not None and level != above - 1:
            raise Damage("a B-tree whose levels do not count down")
        if not level:
            return entries
        if not entries:
            raise Damage("a B-tree without leaves")
        addresses, above = [entry.child for entry in entries], level


def _read_level(
    structure: Structure, addresses: list[int], kind: int, key_size: int
) -> tuple[int, list[Entry]]:
    """Return the level of some nodes, which are each other's siblings, and all their entries."""
    heads = structure.read_each(((address, _READ_FIRST) for address in addresses), _NODE.size)
    lefts = [UNDEFINED, *addresses[:-1]]
    rights = [*addresses[1:], UNDEFINED]
    levels: set[int] = set()
    entries: list[Entry] = []
    for address, head, *siblings in zip(addresses, heads, lefts, rights, strict=True):
        signature, stored_kind, level, used, *stored = structure.unpack(_NODE, head)
        if signature != b"TREE" or stored_kind != kind or stored != siblings:
            raise Damage(f"a damaged node of a B-tree at {address}")
        levels.add(level)
        entries += _entries(structure, address, head, used, key_size)
    if len(levels) != 1:
        raise Damage("a B-tree whose levels do not count down")
    return levels.pop(), entries


def _entries(
    structure: Structure, address: int, head: bytes, used: int, key_size: int
) -> list[Entry]:
    data = structure.read_rest(address, head, _NODE.size, used * (key_size + _ADDRESS_SIZE))
    layout = struct.Struct(f"<{key_size}sQ")
    return [Entry(*fields) for fields in layout.iter_unpack(data)]


def read_records(structure: Structure, header: int, kind: int) -> list[bytes]:
    """Return the records of a B-tree of version 2 in their order; raises `Damage`."""
    block = structure.read_sealed(header, _HEADER_SIZE, b"BTHD")
    _, _, stored_kind, node_size, record, depth, root, used, total = _HEADER.unpack(block)
    if stored_kind != kind or not record or node_size <= _NODE_OVERHEAD + record:
        raise Damage("a B-tree of another kind than expected")
    if root == UNDEFINED or not total:
        return []
    tree = _Tree(structure, record, _node_shapes(node_size, record, depth))
    tree.visit(root, used, depth)
    if len(tree.records) != total:
        raise Damage(f"a B-tree of {len(tree.records)} records that claims {total}")
    return tree.records


class _Tree:
    """A B-tree of version 2 that is being read; `records` are those found so far."""

    def __init__(self, structure: Structure, record: int, shapes: Sequence[_NodeShape]) -> None:
        self.records: list[bytes] = []
        self._structure = structure
        self._record, self._shapes = record, shapes
        self._seen: set[int] = set()

    def visit(self, address: int, used: int, level: int) -> None:
        """Append the records at and below a node that has `used` of them; raises `Damage`."""
        shape = self._shapes[level]
        if address in self._seen or used > shape.most:
            raise Damage("a B-tree that leads to itself, or a damaged node of it")
        self._seen.add(address)
        stored = used * self._record
        pointers = (used + 1) * shape.pointer if level else 0
        size = _NODE_OVERHEAD + stored + pointers
        data = self._structure.read_sealed(address, size, b"BTIN" if level else b"BTLF")[6:]
        records = [data[at : at + self._record] for at in range(0, stored, self._record)]
        if not level:
            self.records += records
            return
        for number in range(used + 1):
            at = stored + number * shape.pointer
            middle = at + _ADDRESS_SIZE
            child = int.from_bytes(data[at:middle], "little")
            count = int.from_bytes(data[middle : middle + shape.count_size], "little")
            self.visit(child, count, level - 1)
            self.records += records[number : number + 1]


class _NodeShape(NamedTuple):
    """Nodes of a level: the most records in one, the bytes of a pointer and of its count."""

    most: int
    pointer: int
    count_size: int


def _node_shapes(node_size: int, record: int, depth: int) -> list[_NodeShape]:
    """Return the shape of the nodes of each level, that of the leaves first (H5B2hdr.c)."""
    most = all_below = (node_size - _NODE_OVERHEAD) // record
    count_size, total_size = _bytes_for(most), 0
    shapes = [_NodeShape(most, 0, 0)]
    for _ in range(depth):
        pointer = _ADDRESS_SIZE + count_size + total_size
        most = (node_size - _NODE_OVERHEAD - pointer) // (record + pointer)
        if most < 1 or len(shapes) > _MOST_LEVELS:
            raise Damage("a B-tree whose nodes hold nothing")
        shapes.append(_NodeShape(most, pointer, count_size))
        all_below = (most + 1) * all_below + most
        total_size = _bytes_for(all_below)
    return shapes


def _bytes_for(number: int) -> int:
    return (number.bit_length() + 7) // 8
