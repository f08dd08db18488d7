"""Destinations of results: standard output, or a file that appears whole or not at all.

Files that are read are never overwritten.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TextIO

from bninspect.cli.exit_codes import OUTPUT_CLOSED
from bninspect.errors import UsageProblem

if TYPE_CHECKING:
    from bninspect.config.model import Config
    from bninspect.model.report import Report


class Destination(NamedTuple):
    """A format and the file it is written to; `path` is None for standard output."""

    format: str
    path: str | None


def destinations(
    formats: Sequence[tuple[str, str | None]], output: str | None
) -> list[Destination]:
    """Return the destination of each format; standard output comes last.

    `formats` are the formats of the command line, each with its own file or None; `output` is the
    file of the one that has none. A file `-` is standard output. Raises `UsageProblem` if two have
    the same destination, or if no format is left for `output`.
    """
    without_file = [name for name, path in formats if path is None]
    if len(without_file) > 1:
        raise UsageProblem(
            f"The formats {' and '.join(without_file)} cannot both go to"
            f" {output or 'standard output'}: use --format {without_file[0]}=FILE."
        )
    if output is not None and not without_file:
        raise UsageProblem(f"No format is left for --output {output}: each has a file of its own.")
    named = [(name, output if path is None else path) for name, path in formats]
    placed = [Destination(name, None if path == "-" else path) for name, path in named]
    seen: set[str | None] = set()
    for _, path in placed:
        target = None if path is None else os.path.realpath(path)
        if target in seen:
            raise UsageProblem(
                f"Two formats cannot both be written to {path or 'standard output'}."
            )
        if target is None or os.path.isfile(target) or not os.path.exists(target):
            seen.add(target)
    # The reader of standard output may close it early, which ends the program.
    return sorted(placed, key=lambda destination: destination.path is None)


@contextmanager
def output_stream(path: str | None, *, binary: bool = False) -> Iterator[Any]:
    """Open the stream to write to: standard output, or the file `path`.

    The program exits here if the reader of standard output closes it early. Raises `UsageProblem`
    if the file cannot be written, or if standard output was closed before the start.
    """
    if path is None:
        printed = standard_output()
        try:
            yield printed
            printed.flush()
        except OSError as error:
            if not is_closed_pipe(error):
                raise
            discard_output()  # click would exit with 1, "findings"
            sys.exit(OUTPUT_CLOSED)
        return
    with atomic_output(path, binary=binary) as stream:
        yield stream


def is_closed_pipe(error: OSError) -> bool:
    """Return whether the reader is gone; Windows calls that an invalid argument."""
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)


def standard_output() -> TextIO:
    """Return standard output; raises `UsageProblem` if it was closed before the start."""
    if sys.stdout is None:
        raise UsageProblem("Standard output is closed; use --output FILE.")
    return sys.stdout


def discard_output() -> None:
    """Discard the buffer of a broken standard output, which is written when the program ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_colored(stream: TextIO, color: str) -> bool:
    """Return whether a stream gets colours: `color` is auto, always or never."""
    if color != "auto":
        return color == "always"
    is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    return is_terminal and "NO_COLOR" not in os.environ


def terminal_width(stream: TextIO) -> int | None:
    """Return the terminal's width in columns; None if the stream is no terminal."""
    if not stream.isatty():
        return None
    from shutil import get_terminal_size

    return get_terminal_size().columns


def refuse_to_overwrite_inputs(path: str, inputs: Iterable[str]) -> None:
    """Raise `UsageProblem` if `path` is a file of one of the checkpoints in `inputs`.

    Of a directory, files of TensorFlow checkpoints that the run does not read are among them.
    """
    target = os.path.realpath(path)
    if not os.path.isfile(target):
        return
    from bninspect.model.filenames import STATE_FILE, checkpoint_of
    from bninspect.storage.named_files import is_part_of

    for typed in inputs:
        source = os.path.realpath(typed.replace("\0", ""))  # no file has a NUL in its name
        is_named = checkpoint_of(target) == checkpoint_of(source) or is_part_of(target, source)
        if is_named or _is_in_directory(target, source):
            raise UsageProblem(
                f"Refusing to overwrite {path}: it is a file of the checkpoint {typed}."
            )
        # Of a training only the newest checkpoint may be read.
        if target.startswith(os.path.join(source, "")) and checkpoint_of(target) != target:
            name = os.path.basename(checkpoint_of(target))
            raise UsageProblem(
                f"Refusing to overwrite {path}: it is a file of the checkpoint {name} in {typed}."
            )
        directory, name = os.path.split(target)
        if name == STATE_FILE and directory in (source, os.path.dirname(source)):
            raise UsageProblem(
                f"Refusing to overwrite {path}: it is the state file that leads to {typed}."
            )


def refuse_to_overwrite_settings(paths: Iterable[str], settings: Iterable[str | None]) -> None:
    """Raise `UsageProblem` if one of `paths` is a file that configures this run (`settings`)."""
    read = {os.path.realpath(file) for file in settings if file is not None}
    for path in paths:
        if os.path.realpath(path) in read:
            raise UsageProblem(
                f"Refusing to overwrite {path}: this run reads it as its configuration, baseline"
                " or results."
            )


def refuse_to_overwrite_config(targets: Sequence[Destination], config: Config) -> None:
    """Raise `UsageProblem` if a destination is the configuration file or the baseline."""
    files = (path for _, path in targets if path is not None)
    refuse_to_overwrite_settings(files, (config.file, config.baseline))


def opened_paths(report: Report) -> Iterator[str]:
    """Yield the file that was opened for each checkpoint: a directory or pattern names several."""
    return (item.resolved or item.path for item in report.checkpoints)


def _is_in_directory(target: str, directory: str) -> bool:
    """Return whether a file belongs to the SavedModel or the step of Orbax in `directory`."""
    from bninspect.model.filenames import GRAPHS_OF_SAVED_MODEL, is_of_orbax

    if not target.startswith(os.path.join(directory, "")):
        return False
    try:
        names = os.listdir(directory)
    except OSError:
        return False
    return not {*names}.isdisjoint(GRAPHS_OF_SAVED_MODEL) or is_of_orbax(names)


def require_directory(path: str) -> None:
    """Raise `UsageProblem` if the directory of the file `path` does not exist or takes no file.

    A device or a named pipe is written to directly.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        return
    directory = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(directory):
        raise _cannot_write(path, OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _cannot_write(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))


@contextmanager
def atomic_output(path: str, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a stream whose content becomes the file `path` if the block ends without an exception.

    Until then the content has no name, so that nothing is left of a program that is killed. Text
    is UTF-8, with escapes for what that lacks. A link's target is replaced, not the link; an
    existing file keeps its mode; a device or a named pipe is written to directly. Raises
    `UsageProblem` if the file cannot be written.
    """
    import tempfile

    if not path:
        raise UsageProblem("The name of the file to write is empty.")
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            # By the typed name: /dev/stdout may be a pipe, whose resolved name is no path.
            with open(path, "wb" if binary else "w", **_encoding(binary=binary)) as stream:
                yield stream
            return
        target = os.path.realpath(path)
        if os.path.islink(target):  # a link that leads to itself
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        with tempfile.TemporaryFile(
            "w+b" if binary else "w+", dir=os.path.dirname(target), **_encoding(binary=binary)
        ) as stream:
            yield stream
            stream.flush()
            _replace(target, getattr(stream, "buffer", stream))
    except OSError as error:
        raise _cannot_write(path, error) from error


def _encoding(*, binary: bool) -> dict[str, Any]:
    return {} if binary else {"encoding": "utf-8", "errors": "backslashreplace"}


def _replace(target: str, content: IO[bytes]) -> None:
    """Replace the file `target` by `content` in one step."""
    import shutil

    content.seek(0)
    temporary = os.path.join(
        os.path.dirname(target), f".bninspect-{os.getpid()}-{os.urandom(4).hex()}"
    )
    try:
        with open(temporary, "xb") as copy:
            shutil.copyfileobj(content, copy)
        if os.path.exists(target):
            os.chmod(temporary, os.stat(target).st_mode)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def growing_output(path: str, *, appends: bool) -> Iterator[IO[str]]:
    """Open a stream to the file `path` itself: its content stays if the run breaks off.

    With `appends` the present content of the file stays. Raises `UsageProblem` if the file cannot
    be written.
    """
    try:
        with open(path, "a" if appends else "w", **_encoding(binary=False)) as stream:
            yield stream
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: str, error: OSError) -> UsageProblem:
    from bninspect.storage.urls import is_url

    if is_url(path):
        return UsageProblem(
            f"Cannot write {path}: it is a URL, and results are written to local files. Write to a"
            " file and copy it there."
        )
    return UsageProblem(f"Cannot write {path}: {error.strerror or error}.")
