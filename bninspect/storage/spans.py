"""Pieces of files that lie near each other, and are read at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

# Pieces as near to each other come in one read: a page costs no more than a system call.
_LARGEST_GAP = 4096  # bytes

# File, offset and size of bytes that are read at once.
Span = tuple[int, int, int]

# Bytes that are stored together: a tuple that begins with the number of their file, their offset
# and their size.
_Piece = TypeVar("_Piece", bound=tuple[Any, ...])


def join_pieces(pieces: Iterable[_Piece]) -> tuple[list[Span], dict[_Piece, int]]:
    """Return the bytes to read at once, and where each piece begins in all of them joined."""
    spans: list[Span] = []
    starts: dict[_Piece, int] = {}
    before = 0
    for piece in sorted(pieces):
        number, start, length = piece[:3]
        file, offset, size = spans[-1] if spans else (-1, 0, 0)
        if number == file and start <= offset + size + _LARGEST_GAP:
            spans[-1] = (file, offset, max(size, start + length - offset))
        else:
            before += size
            spans.append((number, start, length))
        starts[piece] = before + start - spans[-1][1]
    return spans, starts
