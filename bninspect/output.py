"""Where the result goes: standard output, or a file that appears whole or not at all.

A file never takes the place of an input. How the result looks depends on where it goes, too.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from bninspect.errors import UsageProblem

# The files of one checkpoint beside its prefix, and the shards of a V1 one.
_PART = r"(\.(index|meta|data-\d{5}-of-\d{5})|-[\d?]{5,}-of-\d{5,})$"

# What a shell reports of a program that SIGPIPE ended.
_OUTPUT_CLOSED = 141


@contextmanager
def output_stream(
    path: str | None, inputs: Iterable[str], *, binary: bool = False
) -> Iterator[Any]:
    """The stream to write to: standard output, or the file `path`, which is none of `inputs`.

    The program ends here, as others do, if whoever reads standard output has seen enough.
    """
    if path is None:
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read our output has seen enough; click would exit with 1
            drop_output()
            sys.exit(_OUTPUT_CLOSED)
        return
    refuse_input(path, inputs)
    with atomic_output(path, binary=binary) as stream:
        yield stream


def drop_output() -> None:
    """Let what is still buffered for a broken output go nowhere when the program ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def look(stream: TextIO, color: str, *, quiet: bool, verbose: bool) -> dict[str, Any]:
    """How a reporter for persons is to write; `color` is what was asked for."""
    if color == "auto":
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        colored = terminal and "NO_COLOR" not in os.environ
    else:
        colored = color == "always"
    width = terminal_width(stream)
    return {"width": width, "color": colored, "quiet": quiet, "verbose": verbose}


def terminal_width(stream: TextIO) -> int | None:
    """The terminal's width; None where the stream is no terminal."""
    if not stream.isatty():
        return None
    from shutil import get_terminal_size  # noqa: PLC0415 - a slow import

    return get_terminal_size().columns


def refuse_input(path: str, inputs: Iterable[str]) -> None:
    """Raise `UsageProblem` if writing to `path` would destroy a file of a checkpoint to read."""
    target = Path(path).resolve()
    for given in inputs:
        source = Path(given).resolve()
        parts = (re.sub(_PART, "", str(file)) for file in (source, target))
        inside = source in target.parents and (source / "saved_model.pb").exists()
        if target.is_file() and (target == source or inside or len({*parts}) == 1):
            raise UsageProblem(f"--output {path} is a file of the checkpoint {given}.")


@contextmanager
def atomic_output(path: str, *, binary: bool = False) -> Iterator[IO[Any]]:
    """A stream whose content becomes the file `path` when the block ends without an exception.

    Text is UTF-8, with escapes for what that lacks. A link's target is replaced, not the link; a
    file that is there keeps its mode; a device or a named pipe is written to directly. Raises
    `UsageProblem` if the file cannot be written.
    """
    import tempfile  # noqa: PLC0415 - few write to a file

    target = Path(path).resolve()
    try:
        if target.exists() and not target.is_file():
            with _open(target, binary=binary) as stream:
                yield stream
            return
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".bninspect") as folder:
            temporary = Path(folder, "whole")
            with _open(temporary, binary=binary) as stream:
                yield stream
            if target.exists():
                temporary.chmod(target.stat().st_mode)
            temporary.replace(target)
    except OSError as error:
        raise UsageProblem(f"Cannot write {path}: {error.strerror or error}.") from error


def _open(path: Path, *, binary: bool) -> IO[Any]:
    if binary:
        return path.open("wb")
    return path.open("w", encoding="utf-8", errors="backslashreplace")
