"""How every reporter writes words: folded, counted, coloured, and harmless to a terminal."""

from __future__ import annotations

import os
import textwrap
from typing import TextIO

import click

_COLORS: dict[str, str] = {
    "FAIL": "red",
    "ERROR": "red",
    "WARN": "yellow",
    "PASS": "green",
    "SAME": "yellow",
    "NONE": "yellow",
    "error": "red",
    "warning": "yellow",
    "note": "cyan",
}
_WIDTH, _READABLE_WIDTH = 80, 100


def printable(text: str) -> str:
    """`text` with control characters escaped: names in a file must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_unicode(stream: TextIO) -> bool:
    """Whether all characters can be written to the stream."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower()
    return encoding.replace("-", "").startswith("utf")


def prose_width(width: int | None) -> int:
    """How wide prose is folded: as wide as the terminal, but no wider than people like to read.

    Without a terminal (`width` is None) that is what COLUMNS says, else 80 columns.
    """
    if width is None:
        told = os.environ.get("COLUMNS", "")
        width = int(told) if told.isdecimal() and 0 < len(told) < 5 else 0
    return min(width or _WIDTH, _READABLE_WIDTH)


def wrap(head: str, text: str, width: int, indent: int) -> list[str]:
    """`head` and `text`, wrapped below each other; names and paths are never cut."""
    if not text:
        return []
    lines = textwrap.wrap(
        printable(text),
        max(width - indent, 20),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [head + lines[0], *(" " * indent + line for line in lines[1:])]


def paint(word: str, *, color: bool) -> str:
    """An outcome or a severity in its colour."""
    return click.style(word, fg=_COLORS[word], bold=True) if color else word
