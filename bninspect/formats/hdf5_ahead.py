"""What HDF5 will read from afar, found out before: it then comes in rounds instead of one by one.

HDF5 goes from a group to what is in it by addresses, and each may lie anywhere in the file. So each
of many looks is tried with the bytes that are here, and gives up where it lacks some. What all of
them lack is fetched at once; then those that gave up are tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bninspect.formats.source import Window

# A look into the file; it may return others for which it has found the way, among other things.
Look = Callable[[], Any]

_MOST_ROUNDS = 60
# Bytes around what is lacked that come with it: HDF5 allocates its structures in blocks of 2 KiB.
_BLOCK = 8 << 10


def fetch_for(looks: Iterable[Look], window: Window) -> None:
    """Let come what some looks will read; what is damaged is told by who looks in earnest."""
    waiting = list(looks)
    for _ in range(_MOST_ROUNDS):
        lacked: list[tuple[int, int]] = []
        again = []
        window.lacked = lacked
        try:
            while waiting:
                look = waiting.pop()
                before = len(lacked)
                try:
                    waiting += [one for one in look() or () if callable(one)]
                except Exception:  # whatever HDF5 makes of bytes that are not there
                    if len(lacked) > before:
                        again.append(look)
        finally:
            window.lacked = None
        if not lacked or window.expect is None:
            return
        window.expect([_with_block(*place, window.size) for place in lacked])
        waiting = again


def _with_block(offset: int, length: int, size: int) -> tuple[int, int]:
    start = offset // _BLOCK * _BLOCK
    end = min(-(-(offset + length) // _BLOCK) * _BLOCK, size)
    return start, end - start
