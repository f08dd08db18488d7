"""Text of every reporter: folding, counts, alignment and colours."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Container, Iterable, Iterator, Sequence
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
_NARROWEST = 20  # columns; a terminal may say that it has none
# Code in a sentence, which is copied, and what stands for its blanks while a text is folded: a
# character that no printable text has.
_CODE, _BLANK = re.compile("`[^`]*`"), "\0"


def wrap(head: str, text: str, width: int, indent: int) -> list[str]:
    """Return `head` and `text` folded below each other; names, paths and code are never cut."""
    if not text:
        return []
    lines = folded(text, width - indent)
    return [head + lines[0], *(" " * indent + line for line in lines[1:])]


@lru_cache(maxsize=256)  # what to do about a finding is the same for many checkpoints
def folded(text: str, width: int) -> tuple[str, ...]:
    """Return a text in lines of at most `width` columns, or of 20 if these are too few.

    Names, paths and code are never cut.
    """
    whole = _CODE.sub(lambda code: code[0].replace(" ", _BLANK), printable(text))
    lines = textwrap.wrap(
        whole, max(width, _NARROWEST), break_long_words=False, break_on_hyphens=False
    )
    return tuple(line.replace(_BLANK, " ") for line in lines)


def fold(lines: Iterable[str], width: int | None, indent: int = 6) -> list[str]:
    """Return lines of at most `width` columns, folded at blanks; a word is never cut.

    What follows a fold is indented by `indent` columns. Nothing is folded without a terminal
    (`width` is None): there a line is what `grep` shows.
    """
    if width is None:
        return list(lines)
    return [part for line in lines for part in _parts_of(line, width, min(indent, width // 2))]


def _parts_of(line: str, width: int, indent: int) -> Iterator[str]:
    part, *words = line.split(" ")
    length = len(click.unstyle(part))
    for word in words:
        # A word that does not fit below either stays beside what is shorter than the indent.
        if length + 1 + len(word) > width and length > indent:
            if part.strip():  # what was indented by more has no line of its own
                yield part.rstrip()
            part, length = " " * indent + word, indent + len(word)
        else:
            part, length = f"{part} {word}", length + 1 + len(word)
    yield part


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
