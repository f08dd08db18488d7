"""The checkpoints that the paths of a run name, each once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bninspect.config.model import Config
from bninspect.frozen import NamedTuple
from bninspect.model.target import CheckpointLocation
from bninspect.opening import discover_below, locate_each
from bninspect.storage import run_scope
from bninspect.storage.urls import strip_credentials
from bninspect.wording import listed

PathName = str | os.PathLike[str]
Find = Callable[[CheckpointLocation], None]


class ExpandedPath(NamedTuple):
    """A typed path and the checkpoints that it names, without those that an earlier path names.

    `must_hold_one` says that the path is an error if none of these turns out to be a checkpoint.
    `left_out` are the paths below it that the patterns of the configuration left out.
    """

    path: str
    locations: tuple[CheckpointLocation, ...]
    must_hold_one: bool
    left_out: tuple[str, ...] = ()


def begin_run(paths: Iterable[PathName]) -> list[str]:
    """Clear the caches of the run before, and return the paths without their credentials."""
    run_scope.begin_run()
    return strip_credentials([os.fspath(path) for path in paths])


def expand_paths(
    paths: Sequence[str],
    config: Config,
    known: Mapping[str, list[CheckpointLocation]] | None = None,
    find: Find | None = None,
) -> list[ExpandedPath]:
    """Find the checkpoints that each path names; `known` holds those that were found before.

    `find` is called with those below a local directory, as soon as they are found, unless the
    configuration may leave them out.
    """
    files: Mapping[str, list[CheckpointLocation]] = {}
    if config.skip_unknown:
        from bninspect.locate.file_list import listed_files

        files = listed_files(paths)
    known = {**(known or {}), **files}
    expanded = []
    seen: dict[str, bool] = {}
    unknown = [path for path in paths if path not in known]
    found = find_in_each(unknown, config, every=config.all_checkpoints, find=find)
    for path in paths:
        if path in known:
            locations, left_out = known[path], tuple[str, ...]()
        else:
            locations, left_out = next(found)
        new = _unseen(locations, seen) if len(paths) > 1 or len(locations) > 1 else locations
        must_hold_one = path not in files and len(new) == len(locations) and not left_out
        expanded.append(ExpandedPath(path, tuple(new), must_hold_one, left_out))
    return _with_claims(expanded, seen)


def find_in_each(
    paths: Sequence[str], config: Config, *, every: bool, find: Find | None = None
) -> Iterator[tuple[list[CheckpointLocation], tuple[str, ...]]]:
    """Yield the checkpoints of each path, and what the configuration leaves out of them.

    `find` is that of `expand_paths`.
    """
    for path, location in zip(paths, locate_each(paths, every=every), strict=True):
        if not (config.exclude or config.include):
            yield [location] if location else discover_below(path, every=every, find=find), ()
            continue
        from bninspect.locate.left_out import PathFilter

        chosen = PathFilter(config.exclude, config.include)
        if location is not None:
            yield [location], ()
            continue
        locations = discover_below(path, every=every, skips=chosen.skips_directory)
        kept = [item for item in locations if item.path == path or chosen.keeps(item)]
        yield kept, tuple(chosen.left_out)


def notes_on_left_out(expanded: Iterable[ExpandedPath]) -> tuple[str, ...]:
    """Return a note for each path of which something was left out."""
    return tuple(
        f"{item.path}: {listed(list(item.left_out))} left out (exclude, include)"
        for item in expanded
        if item.left_out
    )


def _unseen(
    locations: Iterable[CheckpointLocation], seen: dict[str, bool]
) -> list[CheckpointLocation]:
    """Return the checkpoints that are not in `seen`, and add them to it.

    `seen` has for each identity whether a path claimed it.
    """
    from bninspect.locate.trainings import identity

    new = []
    for item in locations:
        opened = identity(item)
        if opened not in seen:
            new.append(item)
        seen[opened] = item.claimed or seen.get(opened, False)
    return new


def _with_claims(expanded: list[ExpandedPath], seen: Mapping[str, bool]) -> list[ExpandedPath]:
    """Return the paths with a claim on each file that a directory did not claim and a path names.

    It would else be passed over if it is no checkpoint, and nothing would be said of the path.
    """
    if all(item.claimed for path in expanded for item in path.locations):
        return expanded
    from bninspect.locate.trainings import identity

    return [
        path._replace(
            locations=tuple(
                item
                if item.claimed or not seen.get(identity(item), False)
                else item._replace(claimed=True)
                for item in path.locations
            )
        )
        for path in expanded
    ]
