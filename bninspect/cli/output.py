"""Where the result goes: standard output, or a file that appears whole or not at all.

A file never takes the place of an input. How the result looks depends on where it goes, too.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TextIO

from bninspect.errors import UsageProblem

if TYPE_CHECKING:
    from bninspect.config.model import Config
    from bninspect.model.report import Report

# What a shell reports of a program that SIGPIPE ended.
OUTPUT_CLOSED = 141


def destinations(
    formats: Sequence[tuple[str, str | None]], output: str | None
) -> list[tuple[str, str | None]]:
    """(format, file) of all that is to be written, None for standard output, which comes last.

    `formats` are those asked for, each with its own file or None; `output` is the file of the one
    that has none. Raises `UsageProblem` if two would go to one place, or `output` has no format.
    """
    without = [name for name, path in formats if path is None]
    if len(without) > 1:
        raise UsageProblem(
            f"The formats {' and '.join(without)} cannot both go to"
            f" {output or 'standard output'}: use --format {without[0]}=FILE."
        )
    if output is not None and not without:
        raise UsageProblem(f"No format is left for --output {output}: each has a file of its own.")
    placed = [(name, output if path is None else path) for name, path in formats]
    seen: set[str] = set()
    for _, path in placed:
        target = None if path is None else os.path.realpath(path)
        if target in seen:
            raise UsageProblem(f"Two formats cannot both be written to {path}.")
        if target is not None and (os.path.isfile(target) or not os.path.exists(target)):
            seen.add(target)
    # Whoever reads standard output may stop reading, which ends the program.
    return sorted(placed, key=lambda one: one[1] is None)


@contextmanager
def output_stream(path: str | None, *, binary: bool = False) -> Iterator[Any]:
    """The stream to write to: standard output, or the file `path`.

    The program ends here, as others do, if whoever reads standard output has seen enough.
    """
    if path is None:
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read our output has seen enough; click would exit with 1
            drop_output()
            sys.exit(OUTPUT_CLOSED)
        return
    with atomic_output(path, binary=binary) as stream:
        yield stream


def drop_output() -> None:
    """Let what is still buffered for a broken output go nowhere when the program ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def look(stream: TextIO, color: str, *, quiet: bool, verbose: bool) -> dict[str, Any]:
    """How a reporter for persons is to write; `color` is what was asked for."""
    width = terminal_width(stream)
    colored = is_colored(stream, color)
    return {"width": width, "color": colored, "quiet": quiet, "verbose": verbose}


def is_colored(stream: TextIO, color: str) -> bool:
    """Return whether a stream gets colours: `color` is auto, always or never."""
    if color != "auto":
        return color == "always"
    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    return terminal and "NO_COLOR" not in os.environ


def terminal_width(stream: TextIO) -> int | None:
    """The terminal's width; None where the stream is no terminal."""
    if not stream.isatty():
        return None
    from shutil import get_terminal_size

    return get_terminal_size().columns


def refuse_input(path: str, inputs: Iterable[str]) -> None:
    """Raise `UsageProblem` if writing to `path` would destroy a file of a checkpoint to read."""
    from bninspect.model.filenames import STATE_FILE, checkpoint_of

    target = os.path.realpath(path)
    if not os.path.isfile(target):
        return
    for given in inputs:
        source = os.path.realpath(given.replace("\0", ""))  # no file has a NUL in its name
        if checkpoint_of(target) == checkpoint_of(source) or _is_inside(target, source):
            raise UsageProblem(f"The output {path} is a file of the checkpoint {given}.")
        around, name = os.path.split(target)
        if name == STATE_FILE and around in (source, os.path.dirname(source)):
            raise UsageProblem(f"The output {path} is the state file that leads to {given}.")


def refuse_settings(paths: Iterable[str], settings: Iterable[str | None]) -> None:
    """Raise `UsageProblem` if writing to one of `paths` would destroy a file that a run goes by."""
    there = {os.path.realpath(file) for file in settings if file is not None}
    for path in paths:
        if os.path.realpath(path) in there:
            raise UsageProblem(f"The output {path} is what this run goes by.")


def _is_inside(target: str, directory: str) -> bool:
    """Whether a file is one of the SavedModel in `directory`."""
    from bninspect.model.filenames import SAVED_MODEL

    within = target.startswith(os.path.join(directory, ""))
    return within and os.path.exists(os.path.join(directory, SAVED_MODEL))


@contextmanager
def atomic_output(path: str, *, binary: bool = False) -> Iterator[IO[Any]]:
    """A stream whose content becomes the file `path` when the block ends without an exception.

    Text is UTF-8, with escapes for what that lacks. A link's target is replaced, not the link; a
    file that is there keeps its mode; a device or a named pipe is written to directly. Raises
    `UsageProblem` if the file cannot be written.
    """
    import tempfile

    if not path:
        raise UsageProblem("The name of the file to write is empty.")
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            # By the name that was given: that of a pipe, which /dev/stdout may lead to, is no path.
            with _open(path, binary=binary) as stream:
                yield stream
            return
        target = os.path.realpath(path)
        if os.path.islink(target):  # only one that leads to itself is left
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        with tempfile.TemporaryDirectory(
            dir=os.path.dirname(target), prefix=".bninspect"
        ) as folder:
            temporary = os.path.join(folder, "whole")
            with _open(temporary, binary=binary) as stream:
                yield stream
            if os.path.exists(target):
                os.chmod(temporary, os.stat(target).st_mode)
            os.replace(temporary, target)
    except OSError as error:
        raise _cannot_write(path, error) from error


@contextmanager
def growing_output(path: str, *, appends: bool) -> Iterator[IO[str]]:
    """A stream to the file `path` itself: what is written stays if the run breaks.

    With `appends` what is in the file stays, too. Raises `UsageProblem` if it cannot be written.
    """
    try:
        mode = "a" if appends else "w"
        with open(path, mode, encoding="utf-8", errors="backslashreplace") as stream:
            yield stream
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: str, error: OSError) -> UsageProblem:
    from bninspect.storage.urls import is_url

    if is_url(path):
        return UsageProblem(
            f"Cannot write {path}: it is a URL, and what is written goes to files of this machine."
            " Give one, and copy it there."
        )
    return UsageProblem(f"Cannot write {path}: {error.strerror or error}.")


def _open(path: str, *, binary: bool) -> IO[Any]:
    if binary:
        return open(path, "wb")
    return open(path, "w", encoding="utf-8", errors="backslashreplace")


def keep_settings(targets: Sequence[tuple[str, str | None]], config: Config) -> None:
    """Raise `UsageProblem` if a file to write is what this run goes by."""
    written = (file for _, file in targets if file is not None)
    refuse_settings(written, (config.file, config.baseline))


def opened_paths(report: Report) -> Iterator[str]:
    """What was read besides what was typed: a directory or a pattern names files, too."""
    return (item.resolved or item.path for item in report.checkpoints)
