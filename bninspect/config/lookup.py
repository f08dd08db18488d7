"""Finding the configuration file: the given one, or the nearest in this directory or one above.

In a directory `bninspect.toml` comes before `pyproject.toml`, which counts only if it has a table
`[tool.bninspect]` (ruff and pytest do the same). No parser is imported unless there is such a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from bninspect.config.model import OWN_FILE, PROJECT_FILE, Config
from bninspect.errors import UsageProblem

_LARGEST = 1 << 20  # bytes; a configuration written by hand is a thousandth of it


def base_config(file: str | os.PathLike[str] | None = None, *, isolated: bool = False) -> Config:
    """Read the configuration from `file`, else from the nearest file; with `isolated` from none.

    Raises `UsageProblem` for a file that is not a configuration, naming the key at fault. Only in a
    `pyproject.toml` the keys stand below `[tool.bninspect]`, else at the top.
    """
    if file is not None and isolated:
        raise UsageProblem("--config cannot be combined with --isolated, which reads no file.")
    if file is not None:
        return _named(os.fspath(file))
    return Config() if isolated else _nearest()


def _named(file: str) -> Config:
    from bninspect.config.toml_file import parse_config

    text = _content(file)
    if text is None:
        reason = "this is not a file" if os.path.exists(file) else "file not found"
        raise UsageProblem(f"--config {file}: {reason}.")
    config = parse_config(text, file)
    if config is None:
        raise UsageProblem(f"--config {file}: it has no table [tool.bninspect].")
    return config


def _nearest() -> Config:
    for file, text in _candidates():
        from bninspect.config.toml_file import parse_config

        config = parse_config(text, os.path.relpath(file))
        if config is not None:
            return config
    return Config()


def _candidates() -> Iterator[tuple[str, bytes]]:
    """Yield the files that may hold a configuration, from the working directory to the root."""
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # it has been removed
        return
    while True:
        if os.access(directory, os.X_OK):  # else nothing is known of its files
            own = os.path.join(directory, OWN_FILE)
            text = _content(own)
            if text is not None:
                yield own, text
            project = os.path.join(directory, PROJECT_FILE)
            text = _content(project)
            if text is not None and b"bninspect" in text:
                yield project, text
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent


def _content(file: str) -> bytes | None:
    """Return the content of a file, None if there is none; raises `UsageProblem` if unreadable.

    A device or a named pipe does not count: reading it could wait for ever.
    """
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return None
        with open(file, "rb") as stream:
            text = stream.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return None
    except OSError as error:
        raise UsageProblem(
            f"{file} cannot be read ({error.strerror or error}). Use --isolated to ignore it."
        ) from error
    if len(text) > _LARGEST:
        raise UsageProblem(f"{file} is too large for a configuration ({_LARGEST} bytes at most).")
    return text
