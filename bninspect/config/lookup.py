"""Where the configuration lies: the file that is named, or the nearest from here upward.

A directory's `bninspect.toml` goes before its `pyproject.toml`, and that counts only if it has a
table `[tool.bninspect]` (as ruff and pytest look for theirs). Nothing is parsed, and no parser
imported, unless such a file is there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from bninspect.config.model import OWN_FILE, PROJECT_FILE, Config
from bninspect.errors import UsageProblem

_LARGEST = 1 << 20  # bytes; a configuration that persons write is a thousandth of it


def base_config(file: str | os.PathLike[str] | None = None, *, isolated: bool = False) -> Config:
    """What the configuration file says: `file`, or the nearest one, or with `isolated` none.

    The keys of a file of any name but `pyproject.toml` stand at its top. Raises `UsageProblem` for
    a file that is no such configuration, naming the key at fault.
    """
    if file is not None and isolated:
        raise UsageProblem("--isolated reads no configuration file: give it or --config, not both.")
    if file is not None:
        return _named(os.fspath(file))
    return Config() if isolated else _nearest()


def _named(file: str) -> Config:
    from bninspect.config.toml_file import parse_config

    text = _content(file)
    if text is None:
        missing = "there is no such file" if not os.path.exists(file) else "it is no file"
        raise UsageProblem(f"--config {file}: {missing}.")
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
    """Files that may hold a configuration, from the working directory to the root."""
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # it has been removed: nothing lies in it
        return
    while True:
        if os.access(directory, os.X_OK):  # of one that may not be searched nothing can be told
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
    """What a file holds, None if none is there; raises `UsageProblem` if it cannot be told.

    A device or a named pipe is no file: reading it could wait for ever.
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
            f"{file} cannot be read ({error.strerror or error}); --isolated does without it."
        ) from error
    if len(text) > _LARGEST:
        raise UsageProblem(f"{file} is too large for a configuration ({_LARGEST} bytes at most).")
    return text
