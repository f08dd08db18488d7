"""Text of every reporter: folding, counts, colours, and escapes for what would steer a reader.

Names in a file are untrusted. They reach terminals, logs of CI systems and spreadsheets, each of
which obeys some texts: control characters, workflow commands, formulas. All escapes are here.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Container, Iterable, Sequence
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


# Azure Pipelines obeys `##vso[` and `##[`, GitHub `##[`, anywhere in a line (microsoft/
# azure-pipelines-agent, src/Agent.Sdk/CommandStringConvertor.cs; actions/runner,
# src/Runner.Common/ActionCommand.cs).
_LOG_COMMANDS = ("##[", "##vso[")
# A cell that begins so is a formula to a spreadsheet (OWASP, CSV Injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    r"""Escape what steers a terminal or the log of a CI system, as `\x1b` in a string of Python.

    That is every character that is not printable (bidirectional marks among them), and the second
    character of a logging command.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    for command in _LOG_COMMANDS if "##" in text else ():
        text = text.replace(command, f"#\\x23{command[2:]}")
    return text


def write_lines(stream: TextIO, lines: Iterable[str]) -> None:
    """Write lines of prose, none of which is a command to the log of a CI system.

    GitHub takes a line that begins with `::`, after white space, for a workflow command
    (actions/runner, src/Runner.Common/ActionCommand.cs). Names were escaped by `printable`.
    """
    stream.write("".join(f"{_no_command(line)}\n" for line in lines))


def _no_command(line: str) -> str:
    text = line.lstrip()
    if not text.startswith("::"):
        return line
    return f"{line[: len(line) - len(text)]}\\x3a{text[1:]}"


def json_text(document: object, *, indent: int | None = None) -> str:
    """Return a document as JSON in which no text is a logging command; it reads back the same.

    Raises `ValueError` for a float that JSON lacks.
    """
    import json

    separators = (",", ":") if indent is None else None
    text = json.dumps(document, indent=indent, separators=separators, allow_nan=False)
    return text.replace("##", "#\\u0023")  # two of them stand only within a string


def csv_text(text: str) -> str:
    """Escape a text for a cell of a CSV file: as prose, and never a formula."""
    text = _no_command(printable(text))
    return f"'{text}" if text.startswith(_FORMULA) else text


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
    """An outcome or a severity in its colour."""
    return click.style(word, fg=_COLORS[word], bold=True) if color else word


def bold(text: str, *, color: bool) -> str:
    """Return a text in bold face where colours are shown."""
    return click.style(text, bold=True) if color else text
