"""Prefetching of the structure of a remote HDF5 file, in rounds instead of part by part.

The way to a dataset leads from group to group by addresses, and each may lie anywhere in the file.
So each of many looks is tried with the bytes that are here, and gives up where it misses some. What
all of them miss is fetched at once; then those that gave up are tried again.

A look changes nothing but the time that it takes: what is damaged is reported by the code that
reads the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from bninspect.formats.hdf5.attributes import parse_attribute, read_texts
from bninspect.formats.hdf5.group import Group, Table, prefetch_table
from bninspect.formats.hdf5.structure import Structure
from bninspect.storage.source import Look, NotFetchedYet, Window

if TYPE_CHECKING:
    from bninspect.formats.hdf5.file import _Object

_MOST_ROUNDS = 60
# Bytes around what is missing that come with it: HDF5 allocates its structures in blocks of 2 KiB.
_BLOCK = 8 << 10
# More of them where little is missing: the way is only found, and a round costs more than bytes.
_LARGE_BLOCK, _LITTLE = 32 << 10, 4
_MOST_FETCHED = 64 << 20  # bytes; what a file needs beyond comes when it is read
# Members of a group of which the datasets are looked at: a layer has few, an optimizer many.
_FEW = 16


def fetch_for(looks: Iterable[Look], window: Window) -> None:
    """Fetch what some looks will read; they may return further looks. Never raises."""
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
                    waiting += [found for found in look() or () if callable(found)]
                except NotFetchedYet:
                    again.append(look)
                except Exception:  # noqa: S112 - reading the file reports it
                    continue
        finally:
            window.misses = None
        block = _BLOCK if len(misses) > _LITTLE else _LARGE_BLOCK
        places = {_with_block(*place, block, window.size) for place in misses}
        left -= sum(length for _, length in places)
        if not misses or left < 0 or window.prefetch is None:
            return
        window.prefetch(places)
        waiting = again


def _with_block(offset: int, length: int, block: int, size: int) -> tuple[int, int]:
    start = offset // block * block
    end = min(-(-(offset + length) // block) * block, size)
    return start, end - start


class GroupLooks:
    """Looks at groups, at all that is below them, and at the texts in an attribute of each.

    No address is looked at twice.
    """

    def __init__(
        self, structure: Structure, object_at: Callable[[int], _Object], attribute: str
    ) -> None:
        self._structure = structure
        self._object_at = object_at
        self._attribute = attribute
        self._seen: set[int] = set()

    def at(self, address: int, table: Table | None = None) -> list[Look]:
        """Return the looks at the object whose header lies at an address; none if there were some.

        The symbol table of a group need not wait for its header where the link to it tells both.
        """
        if address in self._seen:
            return []
        self._seen.add(address)
        looks: list[Look] = [partial(self._object, address, table)]
        return looks if table is None else [*looks, *prefetch_table(self._structure, table)]

    def _object(self, address: int, table: Table | None) -> list[Look]:
        found = self._object_at(address)
        if found.group is None:
            return []
        looks: list[Look] = [partial(self._texts, found.group), partial(self._members, found.group)]
        if table is None and found.group.table is not None:
            looks += prefetch_table(self._structure, found.group.table)
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
