"""Shell patterns: the paths that match, by the same rules for local paths and URLs.

`*`, `?` and `[…]` stand for characters of one name, `**` for any number of directories. Hidden
names match only a part that begins with a dot.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Hashable
from typing import NamedTuple

from bninspect.model.filenames import natural_order
from bninspect.storage import filesystem
from bninspect.storage.urls import is_url

_MAGIC = re.compile(r"[*?[]")
_ANY_DEPTH = "**"


class Matches(NamedTuple):
    """The paths that a pattern matches, and the directories that could not be read for it."""

    paths: list[str]
    faults: dict[str, OSError]


def is_pattern(path: str) -> bool:
    """Return whether a path has characters of a pattern; the name of a file may have them, too."""
    return _MAGIC.search(path) is not None


def matching(pattern: str, *, endings: tuple[str, ...] = ("",)) -> Matches:
    """Return the paths that match a pattern with one of `endings` appended, in natural order.

    Paths below a directory that matches are left out. Links to directories are followed, but no
    directory is searched twice for the same part. A directory that cannot be read is a fault: its
    matches are unknown.
    """
    root, parts = _split(pattern)
    search = _Search(parts, endings, only_directories=pattern.endswith(("/", os.sep)))
    search.run(root)
    return Matches(sorted(set(search.paths), key=natural_order), search.faults)


def _split(pattern: str) -> tuple[str, list[str]]:
    """Return the directory before the first part with a magic character, and the parts from it."""
    if is_url(pattern):
        scheme, separator, rest = pattern.partition("://")
    else:  # Windows has two separators, and no shell that expands patterns
        scheme, separator, rest = "", "", pattern.replace(os.sep, "/")
    parts = rest.split("/")
    first = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    root = "/".join(parts[:first])
    if first and not root:
        root = "/"
    return scheme + separator + root, [part for part in parts[first:] if part]


class _Search:
    """One search. Its positions are indexes into `parts`: those that a name may match next."""

    def __init__(
        self, parts: list[str], endings: tuple[str, ...], *, only_directories: bool
    ) -> None:
        if parts[-1] == _ANY_DEPTH:
            parts = [*parts[:-1], "*"]  # a directory stands for all below it
        self._parts, self._endings = parts, endings
        self._only_directories = only_directories
        self._seen: set[tuple[Hashable, frozenset[int]]] = set()
        # Links come last, so that a directory is found under its own name if it has one here.
        self._ahead: list[tuple[str, frozenset[int]]] = []
        self._links: list[tuple[str, frozenset[int]]] = []
        self._listed_below: list[str] = []
        self.paths: list[str] = []
        self.faults: dict[str, OSError] = {}

    def run(self, root: str) -> None:
        """Search a directory and all below it."""
        self._ahead.append((root, frozenset([0])))
        while self._ahead or self._links:
            directory, positions = self._ahead.pop() if self._ahead else self._links.pop()
            positions = self._closure(positions)
            if any(_MAGIC.search(self._parts[at]) for at in positions):
                self._list(directory, positions)
            else:  # without a listing, which may be forbidden even if its files may be opened
                for at in positions:
                    self._look_up(directory, at)

    def _list(self, directory: str, positions: frozenset[int]) -> None:
        """Match all names in a directory."""
        listed = directory or "."
        try:
            visit = filesystem.directory_identity(listed), positions
            if visit in self._seen:
                return
            self._seen.add(visit)
            any_depth = any(self._parts[at] == _ANY_DEPTH for at in positions)
            if any_depth and not listed.startswith(tuple(self._listed_below)):
                filesystem.list_below(listed)
                self._listed_below.append(os.path.join(listed, ""))
            for name, kind in list(filesystem.entries_in(listed)):
                self._match(directory, name, kind, positions)
        except (FileNotFoundError, NotADirectoryError):
            return  # it was there a moment ago
        except OSError as error:
            self.faults[listed] = error

    def _match(
        self, directory: str, name: str, kind: filesystem.Kind, positions: frozenset[int]
    ) -> None:
        path = os.path.join(directory, name)
        following = set()
        for at in positions:
            part = self._parts[at]
            if part == _ANY_DEPTH:
                following |= {at} if not name.startswith(".") else set()
            elif at < len(self._parts) - 1:
                following |= {at + 1} if _fits(name, part) else set()
            elif any(_fits(name, part + ending) for ending in self._endings):
                if kind != "file" or not self._only_directories:
                    self.paths.append(path)
                return
        if following and kind != "file":
            waiting = self._links if kind == "linked" else self._ahead
            waiting.append((path, frozenset(following)))

    def _look_up(self, directory: str, at: int) -> None:
        """Match a part that is a plain name."""
        path = os.path.join(directory, self._parts[at])
        if at < len(self._parts) - 1:
            if self._exists(path, filesystem.is_directory):
                self._ahead.append((path, frozenset([at + 1])))
            return
        exists = filesystem.is_directory if self._only_directories else filesystem.is_there
        self.paths += (
            path + ending for ending in self._endings if self._exists(path + ending, exists)
        )

    def _exists(self, path: str, exists: Callable[[str], bool]) -> bool:
        if exists(path):
            return True
        if (error := filesystem.out_of_reach(path)) is not None:
            self.faults[os.path.dirname(path) or "."] = error
        return False

    def _closure(self, positions: frozenset[int]) -> frozenset[int]:
        """Return the positions with those that follow a `**`, which may stand for no directory."""
        closed = set(positions)
        for at in positions:
            following = at
            while self._parts[following] == _ANY_DEPTH:
                following += 1
                closed.add(following)
        return frozenset(closed)


def _fits(name: str, part: str) -> bool:
    return fnmatch.fnmatchcase(name, part) and part.startswith(".") >= name.startswith(".")
