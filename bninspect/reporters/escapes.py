"""Escapes for untrusted text: control characters, logging commands, spreadsheet formulas.

Names in a file are untrusted. Every reporter writes them through these functions, and nothing else
escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

# Azure Pipelines obeys `##vso[` and `##[`, GitHub `##[`, anywhere in a line (microsoft/
# azure-pipelines-agent, src/Agent.Sdk/CommandStringConvertor.cs; actions/runner,
# src/Runner.Common/ActionCommand.cs).
_LOG_COMMANDS = ("##[", "##vso[")
# A cell that begins so is a formula to a spreadsheet (OWASP, CSV Injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    r"""Escape characters that control a terminal or a CI log, as `\x1b` in a Python string.

    These are all characters that are not printable (bidirectional marks among them), and the second
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


def write_line(stream: TextIO, text: str) -> None:
    """Write one line, without folding it: names and paths stay in one piece, to be copied."""
    write_lines(stream, [printable(text)])


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
