"""What HDF5 will read from afar, found out before: it then comes in rounds instead of one by one.

HDF5 goes from a group to what is in it by addresses, and each may lie anywhere in the file. So each
of many looks is tried with the bytes that are here, and gives up where it lacks some. What all of
them lack is fetched at once; then those that gave up are tried again.

The library reads the parts of a group one after the other, so for groups the looks follow the
addresses themselves: File Format Specification, III.A.1 (B-trees of version 1), III.B (nodes of a
group's symbol table), III.C (their entries), III.D (local heaps), IV.A (object headers). They only
foretell: what they make of a damaged file, or of groups as newer versions store them, changes
nothing but what it costs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import partial

from bninspect.formats.hdf5.attributes import attribute_data, messages
from bninspect.storage.source import Look, Window

_MOST_ROUNDS = 60
# Bytes around what is misses that come with it: HDF5 allocates its structures in blocks of 2 KiB.
_BLOCK = 8 << 10
# More of them where little is misses: the way is only found, and a round costs more than bytes.
_LARGE_BLOCK, _LITTLE = 32 << 10, 4
_MOST_FETCHED = 64 << 20  # bytes; what a file needs beyond comes when it is read

_SYMBOL_TABLE = 0x11
_PLACES = struct.Struct("<QQ")  # addresses of the B-tree and of the heap of names
_NODE = struct.Struct("<4sBBH16x")  # signature, type, level, entries in use, siblings
_NODE_ENTRY = struct.Struct("<QQ")  # key, address of what is below
_SYMBOLS = struct.Struct("<4sBxH")  # signature, version, symbols
_SYMBOL = struct.Struct("<8xQI4x16s")  # address of the object's header, what is kept of it
_KEPT_PLACES = 1  # of a group, its `_PLACES`
_HEAP = struct.Struct("<4sB3xQ8xQ")  # signature, version, size and address of the names
_DESCRIPTOR = struct.Struct("<IQI")  # length of a text, address of a heap, number in it

# What such a part takes in files with the sizes that HDF5 has by default; of a header, and of the
# heap behind its head, what the library reads at first (H5O_SPEC_READ_SIZE, H5HL_SPEC_READ_SIZE).
_NODE_SIZE, _SYMBOLS_SIZE, _READ_FIRST = 544, 328, 512
_TEXTS_SIZE = 4096  # of a heap of texts, at least
# Bytes: of one part, and of all that is looked at. What a file claims to need beyond is left alone.
_LARGEST_PART, _MOST_READ = 1 << 20, 256 << 20
# Nodes of a group of which the datasets are looked at, too: a layer has few, an optimizer many.
_FEW = 2


def fetch_for(looks: Iterable[Look], window: Window) -> None:
    """Let come what some looks will read; what is damaged is told by who looks in earnest."""
    waiting = list(looks)
    room = _MOST_FETCHED
    for _ in range(_MOST_ROUNDS):
        misses: list[tuple[int, int]] = []
        again = []
        window.misses = misses
        try:
            while waiting:
                look = waiting.pop()
                before = len(misses)
                try:
                    waiting += [one for one in look() or () if callable(one)]
                except Exception:  # whatever HDF5 makes of bytes that are not there
                    if len(misses) > before:
                        again.append(look)
        finally:
            window.misses = None
        block = _BLOCK if len(misses) > _LITTLE else _LARGE_BLOCK
        places = {_with_block(*place, block, window.size) for place in misses}
        room -= sum(length for _, length in places)
        if not misses or room < 0 or window.prefetch is None:
            return
        window.prefetch(places)
        waiting = again


def _with_block(offset: int, length: int, block: int, size: int) -> tuple[int, int]:
    start = offset // block * block
    end = min(-(-(offset + length) // block) * block, size)
    return start, end - start


class Groups:
    """Looks at groups, and at the texts of variable length in an attribute of each.

    Addresses are counted from `base`, and no place is looked at twice.
    """

    def __init__(self, window: Window, base: int, attribute: bytes) -> None:
        self._window, self._base, self._attribute = window, base, attribute
        self._seen: set[int] = set()
        self._left = _MOST_READ

    def at(self, header: int) -> list[Look]:
        """What to look at for the object whose header lies at an address."""
        return self._first(self._object, header)

    def _object(self, header: int) -> list[Look]:
        self._here(header, _READ_FIRST)
        found = [body for kind, _, body in messages(self._read, header) if kind == _SYMBOL_TABLE]
        looks: list[Look] = [partial(self._texts, header)] if found else []
        return looks + [look for places in found for look in self._table(places)]

    def _table(self, places: bytes) -> list[Look]:
        tree, heap = _PLACES.unpack_from(places)
        return [*self._first(self._node, tree), *self._first(self._names, heap)]

    def _node(self, address: int) -> list[Look]:
        data = self._here(address, _NODE_SIZE)
        signature, kind, level, used = _NODE.unpack_from(data)
        if signature != b"TREE" or kind != 0:
            return []
        data = self._read(address + _NODE.size, used * _NODE_ENTRY.size)
        below = [child for _, child in _NODE_ENTRY.iter_unpack(data)]
        if level:
            return [look for child in below for look in self._first(self._node, child)]
        symbols = partial(self._symbols, few=used <= _FEW)
        return [look for child in below for look in self._first(symbols, child)]

    def _symbols(self, address: int, *, few: bool) -> list[Look]:
        signature, _, count = _SYMBOLS.unpack_from(self._here(address, _SYMBOLS_SIZE))
        if signature != b"SNOD":
            return []
        data = self._read(address + _SYMBOLS.size, count * _SYMBOL.size)
        looks: list[Look] = []
        for header, kept, places in _SYMBOL.iter_unpack(data):
            if kept == _KEPT_PLACES:
                looks += [*self._first(self._texts, header), *self._table(places)]
            elif few:
                looks += self._first(self._object, header)
        return looks

    def _names(self, address: int) -> None:
        signature, _, size, place = _HEAP.unpack_from(self._here(address, _READ_FIRST))
        if signature == b"HEAP":
            self._read(place, size)

    def _texts(self, header: int) -> list[Look]:
        self._here(header, _READ_FIRST)
        data = attribute_data(self._read, header, self._attribute) or b""
        whole = data[: len(data) // _DESCRIPTOR.size * _DESCRIPTOR.size]
        heaps = {heap for length, heap, _ in _DESCRIPTOR.iter_unpack(whole) if length}
        return [look for heap in heaps for look in self._first(self._heap, heap)]

    def _heap(self, address: int) -> None:
        self._here(address, _TEXTS_SIZE)

    def _first(self, look: Callable[[int], list[Look] | None], address: int) -> list[Look]:
        """A look at an address; none if there was one."""
        if address in self._seen:
            return []
        self._seen.add(address)
        return [partial(look, address)]

    def _read(self, address: int, length: int) -> bytes:
        self._left -= length
        if length > _LARGEST_PART or self._left < 0:
            raise ValueError("more than groups take")
        return self._window.read_at(self._base + address, length)

    def _here(self, address: int, length: int) -> bytes:
        """So many bytes, or those up to the end."""
        return self._read(address, min(length, self._window.size - self._base - address))
