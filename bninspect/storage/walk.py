"""Traversal of a directory tree: each directory once, with the names of its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterator
from typing import NamedTuple

from bninspect.model.filenames import (
    GRAPHS_OF_SAVED_MODEL,
    ORBAX_UNFINISHED,
    PART,
    is_of_orbax,
    natural_order,
)
from bninspect.storage import filesystem


class Directory(NamedTuple):
    """A directory of the tree and the names of its files.

    `total` counts the names of all kinds. `fault` says why the directory could not be read.
    """

    path: str
    names: set[str]
    total: int = 0
    fault: OSError | None = None


def walk(
    root: str,
    *,
    without: Collection[str],
    skips: Callable[[str], bool] = lambda _: False,
) -> Iterator[Directory]:
    """Yield `root` and all directories below it, in natural order.

    Links to directories come last, so that a directory is yielded under its own name if it has one
    in the tree. A link to a directory that contains `root` is not followed. Hidden names are left
    out, and so are the sub-directories of a SavedModel that are named in `without`, those of a step
    of Orbax, its steps that are not finished, and directories that `skips` returns True for.
    """
    ahead, links = [root], list[str]()
    seen: set[Hashable] = set()
    real_root = filesystem.real_path(root)
    while ahead or links:
        path = ahead.pop() if ahead else links.pop(0)
        try:
            identity = filesystem.directory_identity(path)
            if identity in seen:
                continue
            seen.add(identity)
            names, below, linked = _entries(path)
        except OSError as error:
            # A directory that is gone was deleted since its parent was listed.
            if path == root or not isinstance(error, FileNotFoundError | NotADirectoryError):
                yield Directory(path, set(), fault=error)
            continue
        if not names.isdisjoint(GRAPHS_OF_SAVED_MODEL):
            below = [name for name in below if name not in without]
        if is_of_orbax(names):
            below, linked = [], []
        directories = (os.path.join(path, name) for name in below)
        ahead += reversed([directory for directory in directories if not skips(directory)])
        targets = (os.path.join(path, name) for name in linked)
        links += (
            target for target in targets if not _leads_out(target, real_root) and not skips(target)
        )
        yield Directory(path, names, len(names) + len(below) + len(linked))


def _entries(directory: str) -> tuple[set[str], list[str], list[str]]:
    """Return the names in a directory that are not hidden: files, directories, links to those.

    A broken link counts as a file: it stands for a missing one.
    """
    names, below, linked = set[str](), list[str](), list[str]()
    for name, kind in filesystem.entries_in(directory):
        if kind != "file" and ORBAX_UNFINISHED in name:
            continue
        if name.startswith(".") and not ((part := PART.fullmatch(name)) and part[1] == ""):
            continue  # a checkpoint's prefix may have an empty basename: `.index`
        if kind == "file":
            names.add(name)
        else:
            (below if kind == "directory" else linked).append(name)
    return names, sorted(below, key=natural_order), sorted(linked, key=natural_order)


def _leads_out(link: str, real_root: str) -> bool:
    """Return whether a link leads to a directory that contains the tree."""
    target = filesystem.real_path(link)
    return os.path.join(real_root, "").startswith(os.path.join(target, ""))
