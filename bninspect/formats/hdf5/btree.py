"""B-trees of HDF5, of both versions (Specification, III.A): what lies in their leaves, in order.

Every level is read at once, from the root down. A node that is reached twice, siblings that do not
lead to each other and levels that do not count down are damage: HDF5 follows the siblings, and
never ends where they form a circle.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from bninspect.formats.hdf5.structure import UNDEFINED, Damage, Structure

GROUP_NODES, CHUNK_NODES = 0, 1

_NODE = struct.Struct("<4sBBHQQ")  # signature, type, level, entries in use, left and right sibling
_READ_FIRST = 544  # bytes of a group's node, with the sizes that HDF5 has by default
_ADDRESS_SIZE = 8

# signature, version, type, size of a node and of a record, depth, root, its records, all records
_HEADER = struct.Struct("<4sBBIHHxxQHQ")
_HEADER_SIZE = _HEADER.size + 4
_NODE_OVERHEAD = 10  # bytes of a node of version 2: signature, version, type, checksum


class Entry(NamedTuple):
    """An entry of a leaf of version 1: its key, and the address of what it leads to."""

    key: bytes
    child: int


def read_leaves(structure: Structure, root: int, kind: int, key_size: int) -> list[Entry]:
    """Return the entries of all leaves of a B-tree of version 1; raises `Damage`."""
    seen: set[int] = set()
    addresses = [root]
    level: int | None = None
    while True:
        if len(seen | {*addresses}) < len(seen) + len(addresses):
            raise Damage("a B-tree that leads to itself")
        seen.update(addresses)
        heads = structure.read_each((address, _READ_FIRST) for address in addresses)
        entries: list[Entry] = []
        levels = set()
        for number, head in enumerate(heads):
            _, found_kind, found_level, used, left, right = structure.unpack(_NODE, head)
            beside = (
                addresses[number - 1] if number else UNDEFINED,
                addresses[number + 1] if number + 1 < len(addresses) else UNDEFINED,
            )
            if not head.startswith(b"TREE") or found_kind != kind or (left, right) != beside:
                raise Damage(f"a damaged node of a B-tree at {addresses[number]}")
            levels.add(found_level)
            entries += _entries(structure, addresses[number], head, used, key_size)
        if len(levels) != 1 or level not in (None, *(found + 1 for found in levels)):
            raise Damage("a B-tree whose levels do not count down")
        (level,) = levels
        if not level:
            return entries
        addresses = [entry.child for entry in entries]


def _entries(
    structure: Structure, address: int, head: bytes, used: int, key_size: int
) -> list[Entry]:
    size = key_size + _ADDRESS_SIZE
    data = head[_NODE.size : _NODE.size + used * size]
    if len(data) < used * size:
        data = structure.read(address + _NODE.size, used * size)
    layout = struct.Struct(f"<{key_size}sQ")
    return [Entry(*fields) for fields in layout.iter_unpack(data)]


def read_records(structure: Structure, header: int, kind: int) -> list[bytes]:
    """Return the records of a B-tree of version 2 in their order; raises `Damage`."""
    block = structure.read_sealed(header, _HEADER_SIZE, b"BTHD")
    _, _, found, node_size, record, depth, root, used, total = _HEADER.unpack(block)
    if found != kind or not record or node_size <= _NODE_OVERHEAD + record:
        raise Damage("a B-tree of another kind than expected")
    if root == UNDEFINED or not total:
        return []
    shapes = _node_shapes(node_size, record, depth)
    records: list[bytes] = []
    seen: set[int] = set()

    def visit(address: int, used: int, level: int) -> None:
        if address in seen or used > shapes[level].most:
            raise Damage("a B-tree that leads to itself, or a damaged node of it")
        seen.add(address)
        shape = shapes[level]
        pointer = _ADDRESS_SIZE + shape.count_size + shape.total_size
        pointers = (used + 1) * pointer if level else 0
        size = _NODE_OVERHEAD + used * record + pointers
        data = structure.read_sealed(address, size, b"BTIN" if level else b"BTLF")[6:]
        for number in range(used + 1):
            if level:
                at = used * record + number * pointer
                child = int.from_bytes(data[at : at + _ADDRESS_SIZE], "little")
                at += _ADDRESS_SIZE
                count = int.from_bytes(data[at : at + shape.count_size], "little")
                visit(child, count, level - 1)
            if number < used:
                records.append(data[number * record : (number + 1) * record])

    visit(root, used, depth)
    if len(records) != total:
        raise Damage(f"a B-tree of {len(records)} records that claims {total}")
    return records


class _NodeShape(NamedTuple):
    """Nodes of a level: how many records one holds, how many bytes count those of its children."""

    most: int
    count_size: int
    total_size: int


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
        shapes.append(_NodeShape(most, count_size, total_size))
        all_below = (most + 1) * all_below + most
        total_size = _bytes_for(all_below)
    return shapes


_MOST_LEVELS = 16


def _bytes_for(number: int) -> int:
    return (number.bit_length() + 7) // 8
