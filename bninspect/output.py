"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bninspect.errors import UsageProblem


@contextmanager
def atomic_output(path: str, *, binary: bool = False) -> Iterator[Any]:
    """A stream whose content becomes the file `path` when the block ends without an exception.

    Text is UTF-8, with escapes for what that lacks. A device or a named pipe is written to
    directly. Raises `UsageProblem` if the file cannot be written.
    """
    target = Path(path)
    mode, encoding, errors = ("wb", None, None) if binary else ("w", "utf-8", "backslashreplace")
    try:
        if target.exists() and not target.is_file():
            with target.open(mode, encoding=encoding, errors=errors) as stream:
                yield stream
            return
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise UsageProblem(f"Cannot write {path}: {error.strerror or error}.") from error
    try:
        with os.fdopen(descriptor, mode, encoding=encoding, errors=errors) as stream:
            yield stream
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp's own mode hides the file from others
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
