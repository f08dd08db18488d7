"""Paths that a search leaves out: patterns as in a .gitignore file.

A pattern is about what is found below a directory or by a pattern of the shell. A file or a prefix
that was typed by itself is never left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from pathspec import GitIgnoreSpec

from bninspect.errors import UsageProblem
from bninspect.model.target import CheckpointLocation, PathPattern
from bninspect.storage.urls import is_url


class PathFilter:
    """The patterns of `exclude` and `include`; `left_out` are the paths that they left out.

    With `include`, only checkpoints that match one of those are kept. Raises `UsageProblem` for a
    pattern that is not valid.
    """

    def __init__(self, exclude: Iterable[PathPattern], include: Iterable[PathPattern]) -> None:
        self._exclude = _compiled(exclude)
        self._include = _compiled(include)
        self.left_out: list[str] = []

    def skips_directory(self, path: str) -> bool:
        """Return whether nothing below a directory is searched."""
        if not _matches(self._exclude, path, "/"):
            return False
        self.left_out.append(path)
        return True

    def keeps(self, item: CheckpointLocation) -> bool:
        """Return whether a checkpoint, or a problem, that was found counts."""
        names = [item.path]
        if item.target is not None:
            index = ".index" if item.target.kind == "tensor-bundle" else ""
            names.append(item.target.path + index)
        elif item.problem is not None:
            names.append(item.problem.path)
        excluded = any(_matches(self._exclude, name) for name in names)
        included = not self._include or any(_matches(self._include, name) for name in names)
        if included and not excluded:
            return True
        self.left_out.append(item.path)
        return False


_Specs = Sequence[tuple[str, GitIgnoreSpec]]


def _compiled(patterns: Iterable[PathPattern]) -> _Specs:
    by_base: dict[str, list[str]] = {}
    for base, text in patterns:
        by_base.setdefault(os.path.abspath(base), []).append(text)
    try:
        return [(base, GitIgnoreSpec.from_lines(texts)) for base, texts in by_base.items()]
    except ValueError as error:
        expected = "exclude and include: expected patterns as in a .gitignore file"
        raise UsageProblem(f"{expected}. {error}.") from error


def _matches(specs: _Specs, path: str, end: str = "") -> bool:
    return any(spec.match_file(_seen_from(base, path) + end) for base, spec in specs)


def _seen_from(base: str, path: str) -> str:
    """Return a path relative to a directory if it lies below it, else without its root."""
    if is_url(path):
        return path.partition("://")[2]
    absolute = os.path.abspath(path)
    below = os.path.join(base, "")
    return absolute[len(below) :] if absolute.startswith(below) else absolute.lstrip(os.sep)
