"""The links in a group of HDF5: its members by name, in all forms in which HDF5 stores them.

Old files have a symbol table: a B-tree, whose leaves hold names in a local heap (Specification,
III.A to III.D). Newer ones have link messages in the header, or in a fractal heap if there are many
(IV.A.2.c and g).
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Literal

from bninspect.formats.hdf5.attributes import read_attributes
from bninspect.formats.hdf5.btree import GROUP_NODES, Entry, read_leaves
from bninspect.formats.hdf5.heap import LocalHeap, read_dense
from bninspect.formats.hdf5.object_header import (
    LINK,
    LINK_INFO,
    SYMBOL_TABLE,
    Message,
    read_header,
)
from bninspect.formats.hdf5.structure import UNDEFINED, Damage, Structure
from bninspect.frozen import NamedTuple

_OF_GROUPS = (SYMBOL_TABLE, LINK_INFO, LINK)  # messages that only a group has
_TABLE = struct.Struct("<QQ")  # addresses of the B-tree and of the heap of names
_KEY_SIZE = 8
_SYMBOLS = struct.Struct("<4sBxH")  # signature, version, symbols
_SYMBOLS_READ_FIRST = 328  # bytes, with the sizes that HDF5 has by default
_SYMBOL = struct.Struct("<QQI4x16s")  # name, address of the object's header, kind, scratch-pad
_GROUP_SYMBOL, _SOFT_SYMBOL = 1, 2

_ORDER_SIZE = 8  # bytes of a creation order
_LINKS_BY_NAME = 5  # type of a B-tree of version 2
_ID_AT = 4  # in its records, behind the hash of the name
_HARD, _SOFT, _EXTERNAL = 0, 1, 64
_LENGTH = struct.Struct("<H")
_ADDRESS = struct.Struct("<Q")


class Table(NamedTuple):
    """The addresses of the symbol table of an old group: its B-tree and its heap of names."""

    tree: int
    heap: int


class Link(NamedTuple):
    """A link in a group: the address of an object's header if it is hard, else its target.

    `table` is the symbol table of the group that it refers to, if the link keeps that.
    """

    kind: Literal["hard", "soft", "external", "other"]
    address: int = UNDEFINED
    target: str = ""
    file: str = ""
    table: Table | None = None


class Group:
    """The links and attributes of a group, given by the messages of its header.

    `find` reads only the node of a symbol table that may have the name: in a file with an
    optimizer's group the other nodes are between the values, which costs requests.
    """

    def __init__(self, structure: Structure, messages: Sequence[Message]) -> None:
        self._structure = structure
        self._messages = messages

    def find(self, name: str) -> Link | None:
        """Return the link of a name, None if there is none; raises `Damage`."""
        return self.links.get(name) if self._symbols is None else self._symbols.find(name)

    @property
    def table(self) -> Table | None:
        """Return the place of the symbol table, None in a newer group."""
        for message in self._messages:
            if message.kind == SYMBOL_TABLE:
                return Table(*self._structure.unpack(_TABLE, message.body))
        return None

    @cached_property
    def _symbols(self) -> SymbolTable | None:
        return None if self.table is None else SymbolTable(self._structure, self.table)

    @cached_property
    def links(self) -> dict[str, Link]:
        """Return all links by name, in the order of names; raises `Damage`."""
        links = [] if self._symbols is None else self._symbols.links()
        for message in self._messages:
            if message.kind == LINK_INFO:
                links += _dense_links(self._structure, message.body)
            elif message.kind == LINK:
                links.append(_link(self._structure, message.body))
        names = [name for name, _ in links]
        if len({*names}) < len(names):
            raise Damage("a group with two objects of one name")
        return dict(sorted(links, key=_name))

    @cached_property
    def attributes(self) -> dict[str, bytes]:
        """Return the attribute messages by the attribute's name; raises `Damage`."""
        return read_attributes(self._structure, self._messages)


class StoredObject:
    """An object of the file: the messages of its header, and its members if it is a group."""

    def __init__(self, structure: Structure, address: int) -> None:
        self.messages = read_header(structure, address)
        kinds = {message.kind for message in self.messages}
        self.group = None if kinds.isdisjoint(_OF_GROUPS) else Group(structure, self.messages)


class SymbolTable:
    """The links of an old group: nodes with a few of them each, in the order of names."""

    def __init__(self, structure: Structure, table: Table) -> None:
        self._structure = structure
        leaves = read_nodes(structure, table.tree)
        self._heap = LocalHeap(structure, table.heap)
        self._nodes = [leaf.child for leaf in leaves]
        # A node has the names after its own key, up to the key of the next (H5G__node_cmp3).
        self._keys = [self._heap.key(int.from_bytes(leaf.key, "little")) for leaf in leaves]
        self._read: dict[int, dict[str, Link]] = {}

    def find(self, name: str) -> Link | None:
        """Return the link of a name, None if there is none; raises `Damage`."""
        number = bisect_left(self._keys, name.encode("utf-8", "surrogateescape")) - 1
        if number < 0:
            return None
        node = self._nodes[number]
        if node not in self._read:
            self._read[node] = dict(self._symbols(node))
        return self._read[node].get(name)

    def links(self) -> list[tuple[str, Link]]:
        """Return all links with their names; raises `Damage`."""
        return [link for node in self._nodes for link in self._symbols(node)]

    def _symbols(self, node: int) -> Iterator[tuple[str, Link]]:
        """Yield the links of a node with their names."""
        structure = self._structure
        head = structure.read_up_to(node, _SYMBOLS_READ_FIRST, _SYMBOLS.size)
        signature, _, count = structure.unpack(_SYMBOLS, head)
        if signature != b"SNOD":
            raise Damage(f"no names of a group at {node}")
        data = structure.read_rest(node, head, _SYMBOLS.size, count * _SYMBOL.size)
        for offset, header, kind, scratch_pad in _SYMBOL.iter_unpack(data):
            name = _decoded(self._heap.name(offset))
            if kind == _SOFT_SYMBOL:
                (target,) = struct.unpack_from("<I", scratch_pad)
                yield name, Link("soft", target=_decoded(self._heap.name(target)))
            else:
                table = Table(*_TABLE.unpack(scratch_pad)) if kind == _GROUP_SYMBOL else None
                yield name, Link("hard", header, table=table)


def prefetch_table(structure: Structure, table: Table) -> list[Callable[[], Any]]:
    """Return functions that read a symbol table at the same time: its nodes, and its names."""

    def nodes() -> None:
        leaves = read_nodes(structure, table.tree)
        structure.read_each(((leaf.child, _SYMBOLS_READ_FIRST) for leaf in leaves), _SYMBOLS.size)

    return [nodes, partial(LocalHeap, structure, table.heap)]


def read_nodes(structure: Structure, tree: int) -> list[Entry]:
    """Return the entries of a symbol table's B-tree, each with the address of a node."""
    leaves = read_leaves(structure, tree, GROUP_NODES, _KEY_SIZE)
    if len({leaf.child for leaf in leaves}) < len(leaves):
        raise Damage("two leaves of a group that are one")
    return leaves


def _dense_links(structure: Structure, message: bytes) -> list[tuple[str, Link]]:
    """Return the links that a link info message leads to; none if they are in the header."""
    stored = read_dense(structure, message, _ORDER_SIZE, _LINKS_BY_NAME, _ID_AT)
    return [_link(structure, body) for body in stored]


def _link(structure: Structure, message: bytes) -> tuple[str, Link]:
    """Return the name and the link in a link message."""
    if len(message) < 3 or message[0] != 1:
        raise Damage("a link that cannot be")
    flags = message[1]
    kind, at = (message[2], 3) if flags & 0x08 else (_HARD, 2)
    at += (8 if flags & 0x04 else 0) + (1 if flags & 0x10 else 0)  # creation order, encoding
    width = 1 << (flags & 0x03)
    length = int.from_bytes(message[at : at + width], "little")
    at += width
    name, rest = message[at : at + length], message[at + length :]
    if not name or len(name) < length:
        raise Damage("a link without a name")
    return _decoded(name), _leading(structure, kind, rest)


def _leading(structure: Structure, kind: int, rest: bytes) -> Link:
    if kind == _HARD:
        return Link("hard", *structure.unpack(_ADDRESS, rest))
    (length,) = structure.unpack(_LENGTH, rest)
    value = rest[_LENGTH.size : _LENGTH.size + length]
    if kind == _SOFT:
        return Link("soft", target=_decoded(value))
    if kind == _EXTERNAL:
        file, _, target = value[1:].rstrip(b"\0").partition(b"\0")
        return Link("external", target=_decoded(target), file=_decoded(file))
    return Link("other")


def _name(named: tuple[str, Link]) -> str:
    return named[0]


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
