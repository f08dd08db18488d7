"""Text of every reporter: folding, counts, alignment and colours."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import TextIO

import click

from bninspect.frozen import NamedTuple
from bninspect.reporters.escapes import printable

_COLORS: dict[str, str] = {
    "FAIL": "red",
    "ERROR": "red",
    "WARN": "yellow",
    "PASS": "green",
    "SAME": "yellow",
    "NONE": "yellow",
    "CURED": "green",
    "CURABLE": "green",
    "REFUSED": "red",
    "error": "red",
    "warning": "yellow",
    "note": "cyan",
}
_WIDTH, _READABLE_WIDTH = 80, 100


def is_unicode(stream: TextIO) -> bool:
    """Return whether the stream's encoding has all characters."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower()
    return encoding.replace("-", "").startswith("utf")


class TextStyle(NamedTuple):
    """The style of a text: the terminal's width in columns, colours, and how much is shown.

    `width` is None if the stream is no terminal. `quiet` leaves the verdict or the names, `verbose`
    shows everything.
    """

    width: int | None = None
    color: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def prose_width(self) -> int:
        """Return the width of prose: that of the terminal, but at most 100 columns.

        Without a terminal it is the value of COLUMNS, else 80.
        """
        width = self.width
        if width is None:
            columns = os.environ.get("COLUMNS", "")
            width = int(columns) if columns.isdecimal() and 0 < len(columns) < 5 else 0
        return min(width or _WIDTH, _READABLE_WIDTH)


PLAIN = TextStyle()


def wrap(head: str, text: str, width: int, indent: int) -> list[str]:
    """Return `head` and `text` folded below each other; names and paths are never cut."""
    if not text:
        return []
    lines = _folded(text, max(width - indent, 20))
    return [head + lines[0], *(" " * indent + line for line in lines[1:])]


@lru_cache(maxsize=256)  # what to do about a finding is the same for many checkpoints
def _folded(text: str, width: int) -> tuple[str, ...]:
    return tuple(
        textwrap.wrap(printable(text), width, break_long_words=False, break_on_hyphens=False)
    )


def align(rows: Sequence[Sequence[str]], *, right: Container[str] = ()) -> list[str]:
    """Return rows of equal length as lines with aligned columns, two spaces apart.

    The first row names the columns. Those in `right` are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.rjust if name in right else str.ljust for name in rows[0]]
    lines = []
    for row in rows:
        cells = [side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def paint(word: str, *, color: bool) -> str:
    """Return an outcome or a severity in its colour."""
    return click.style(word, fg=_COLORS[word], bold=True) if color else word


def bold(text: str, *, color: bool) -> str:
    """Return a text in bold face where colours are shown."""
    return click.style(text, bold=True) if color else text
