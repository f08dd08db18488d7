"""The checkpoints that the paths of a run name, each once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bninspect.config.model import Config
from bninspect.model.target import CheckpointLocation
from bninspect.opening import find_checkpoints
from bninspect.storage import run_scope
from bninspect.storage.urls import strip_credentials

PathName = str | os.PathLike[str]


class ExpandedPath(NamedTuple):
    """A typed path and the checkpoints that it names, without those that an earlier path names.

    `must_hold_one` says that the path is an error if none of these turns out to be a checkpoint.
    """

    path: str
    locations: tuple[CheckpointLocation, ...]
    must_hold_one: bool


def begin_run(paths: Iterable[PathName]) -> list[str]:
    """Clear the caches of the run before, and return the paths without their credentials."""
    run_scope.begin_run()
    return strip_credentials([os.fspath(path) for path in paths])


def expand_paths(
    paths: Sequence[str],
    config: Config,
    known: Mapping[str, list[CheckpointLocation]] | None = None,
) -> list[ExpandedPath]:
    """Find the checkpoints that each path names; `known` holds those that were found before."""
    listed: Mapping[str, list[CheckpointLocation]] = {}
    if config.skip_unknown:
        from bninspect.locate.file_list import listed_files

        listed = listed_files(paths)
    known = {**(known or {}), **listed}
    expanded = []
    seen: set[str] = set()
    for path in paths:
        locations = known.get(path)
        if locations is None:
            locations = find_checkpoints(path, every=config.all_checkpoints)
        new = _unseen(locations, seen) if len(paths) > 1 or len(locations) > 1 else locations
        must_hold_one = path not in listed and len(new) == len(locations)
        expanded.append(ExpandedPath(path, tuple(new), must_hold_one))
    return expanded


def _unseen(locations: Iterable[CheckpointLocation], seen: set[str]) -> list[CheckpointLocation]:
    """Return the checkpoints that are not in `seen`, and add them to it."""
    from bninspect.locate.trainings import identity

    new = []
    for item in locations:
        opened = identity(item)
        if opened not in seen:
            seen.add(opened)
            new.append(item)
    return new
