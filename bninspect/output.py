"""Output files that appear whole or not at all, and never in place of an input."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bninspect.errors import UsageProblem
from bninspect.formats.names import SAVED_MODEL, STATE_FILE, checkpoint_of


def refuse_input(path: str, inputs: Iterable[str]) -> None:
    """Raise `UsageProblem` if writing to `path` would destroy a file of a checkpoint to read."""
    target = os.path.realpath(path)
    if not os.path.isfile(target):
        return
    for given in inputs:
        source = os.path.realpath(given.replace("\0", ""))  # no file has a NUL in its name
        if checkpoint_of(target) == checkpoint_of(source) or _is_inside(target, source):
            raise UsageProblem(f"--output {path} is a file of the checkpoint {given}.")
        around, name = os.path.split(target)
        if name == STATE_FILE and around in (source, os.path.dirname(source)):
            raise UsageProblem(f"--output {path} is the state file that leads to {given}.")


def _is_inside(target: str, directory: str) -> bool:
    """Whether a file is one of the SavedModel in `directory`."""
    within = target.startswith(os.path.join(directory, ""))
    return within and os.path.exists(os.path.join(directory, SAVED_MODEL))


@contextmanager
def atomic_output(path: str, *, binary: bool = False) -> Iterator[IO[Any]]:
    """A stream whose content becomes the file `path` when the block ends without an exception.

    Text is UTF-8, with escapes for what that lacks. A link's target is replaced, not the link; a
    file that is there keeps its mode; a device or a named pipe is written to directly. Raises
    `UsageProblem` if the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.is_symlink():  # only one that leads to itself is left
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
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
