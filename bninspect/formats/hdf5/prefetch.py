"""Prefetching of the structure of a remote HDF5 file, in rounds instead of part by part.

The path to a dataset is a chain of addresses from group to group, anywhere in the file. So each of
many looks is tried with the cached bytes, and stops where some are missing. The missing bytes of
all looks are fetched at once; then the looks that stopped are tried again.

A look only saves time: damage is reported by the code that reads the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from bninspect.formats.hdf5.attributes import parse_attribute, read_texts
from bninspect.formats.hdf5.group import Group, StoredObject, Table, prefetch_table
from bninspect.formats.hdf5.structure import Structure
from bninspect.storage.source import Look, NotFetchedYet, Window

_MOST_ROUNDS = 60
# Missing bytes are fetched in blocks of this size: HDF5 allocates its structures in 2 KiB.
_BLOCK = 8 << 10
# Larger blocks if little is missing: then a round costs more than the bytes.
_LARGE_BLOCK, _LITTLE = 32 << 10, 4
_MOST_FETCHED = 64 << 20  # bytes; more is fetched when it is read
# The most members of a group whose datasets are looked at: a layer has few, an optimizer many.
_FEW = 16


def fetch_for(looks: Iterable[Look], window: Window) -> None:
    """Fetch the bytes that some looks will read; they may return further looks. Never raises."""
    waiting = list(looks)
    left = _MOST_FETCHED
    for _ in range(_MOST_ROUNDS):
        misses: list[tuple[int, int]] = []
        again = []
        window.misses = misses
        try:
            while waiting:
                look = waiting.pop()
                try:
                    waiting += [
                        further_look for further_look in look() or () if callable(further_look)
                    ]
                except NotFetchedYet:
                    again.append(look)
                except Exception:  # noqa: S112 - reading the file reports it
                    continue
        finally:
            window.misses = None
        block = _BLOCK if len(misses) > _LITTLE else _LARGE_BLOCK
        ranges = {_with_block(*miss, block, window.size) for miss in misses}
        left -= sum(length for _, length in ranges)
        if not misses or left < 0 or window.prefetch is None:
            return
        window.prefetch(ranges)
        waiting = again


def _with_block(offset: int, length: int, block: int, size: int) -> tuple[int, int]:
    start = offset // block * block
    end = min(-(-(offset + length) // block) * block, size)
    return start, end - start


class GroupLooks:
    """Looks at groups, at all objects below them, and at the texts in an attribute of each.

    No address is looked at twice.
    """

    def __init__(
        self, structure: Structure, object_at: Callable[[int], StoredObject], attribute: str
    ) -> None:
        self._structure = structure
        self._object_at = object_at
        self._attribute = attribute
        self._seen: set[int] = set()

    def at(self, address: int, table: Table | None = None) -> list[Look]:
        """Return the looks at the object with the header at an address; none the second time.

        The symbol table of a group need not wait for the header if the link has both addresses.
        """
        if address in self._seen:
            return []
        self._seen.add(address)
        looks: list[Look] = [partial(self._object, address, table)]
        return looks if table is None else [*looks, *prefetch_table(self._structure, table)]

    def _object(self, address: int, table: Table | None) -> list[Look]:
        object_ = self._object_at(address)
        if object_.group is None:
            return []
        looks: list[Look] = [
            partial(self._texts, object_.group),
            partial(self._members, object_.group),
        ]
        if table is None and object_.group.table is not None:
            looks += prefetch_table(self._structure, object_.group.table)
        return looks

    def _members(self, group: Group) -> list[Look]:
        links = group.links
        looks: list[Look] = []
        for link in links.values():
            if link.kind == "hard" and (link.table is not None or len(links) <= _FEW):
                looks += self.at(link.address, link.table)
        return looks

    def _texts(self, group: Group) -> None:
        body = group.attributes.get(self._attribute)
        if body is not None:
            read_texts(self._structure, parse_attribute(self._structure, body))
