"""A walk through a directory and all below it: each directory once, and the names of its files."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterator
from typing import NamedTuple

from bninspect.model.filenames import PART, SAVED_MODEL, natural_order
from bninspect.storage import filesystem


class Directory(NamedTuple):
    """One that the walk came to, and the names of its files; `fault` says why it has none.

    `total` counts the names of all kinds.
    """

    path: str
    names: set[str]
    total: int = 0
    fault: OSError | None = None


def walk(root: str, *, without: Collection[str]) -> Iterator[Directory]:
    """`root`, then its sub-directories in natural order.

    Links to directories come last, so that what they lead to is met by its own name if it has one
    here, and are never followed out to what lies around `root`. What is hidden is left out, and so
    are the sub-directories of a SavedModel that are called as in `without`.
    """
    ahead, links = [root], list[str]()
    seen: set[Hashable] = set()
    home = filesystem.real_path(root)
    while ahead or links:
        path = ahead.pop() if ahead else links.pop(0)
        try:
            place = filesystem.directory_identity(path)
            if place in seen:
                continue
            seen.add(place)
            names, below, linked = _entries(path)
        except OSError as error:
            # One below that is gone was there a moment ago, and is no longer part of the tree.
            if path == root or not isinstance(error, FileNotFoundError | NotADirectoryError):
                yield Directory(path, set(), fault=error)
            continue
        if SAVED_MODEL in names:
            below = [name for name in below if name not in without]
        ahead += (os.path.join(path, name) for name in reversed(below))
        targets = (os.path.join(path, name) for name in linked)
        links += (target for target in targets if not _leads_out(target, home))
        yield Directory(path, names, len(names) + len(below) + len(linked))


def _entries(directory: str) -> tuple[set[str], list[str], list[str]]:
    """Names in a directory: files, directories, links to directories; none that are hidden.

    A link that leads nowhere counts as a file: what it should be may be missed.
    """
    names, below, linked = set[str](), list[str](), list[str]()
    for name, kind in filesystem.entries_in(directory):
        part = PART.fullmatch(name)
        if name.startswith(".") and not (part and part[1] == ""):
            continue  # a prefix may have an empty basename: `.index`
        if kind == "file":
            names.add(name)
        else:
            (below if kind == "directory" else linked).append(name)
    return names, sorted(below, key=natural_order), sorted(linked, key=natural_order)


def _leads_out(link: str, home: str) -> bool:
    """Whether a link leads to a directory around the walk, which would be a walk of all of that."""
    target = filesystem.real_path(link)
    return os.path.join(home, "").startswith(os.path.join(target, ""))
