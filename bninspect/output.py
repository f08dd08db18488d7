"""Output files that appear whole or not at all, and never in place of an input."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bninspect.errors import UsageProblem

# The files of one checkpoint beside its prefix, and the shards of a V1 one.
_PART = r"(\.(index|meta|data-\d{5}-of-\d{5})|-[\d?]{5,}-of-\d{5,})$"


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
