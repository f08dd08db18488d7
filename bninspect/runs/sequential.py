"""Many checkpoints: which there are, each once, and what is in them, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bninspect.config.model import Config
from bninspect.errors import NotFound
from bninspect.model.report import CheckpointReport
from bninspect.model.rule import Rule
from bninspect.model.target import Found, Training
from bninspect.opening import find_checkpoints
from bninspect.runs.one_checkpoint import examine
from bninspect.storage import run_caches
from bninspect.storage.urls import strip_credentials

Rules = tuple[Rule, ...] | None


def paths_of_run(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The paths as a run knows them, with which it begins: see `urls.strip_credentials`."""
    run_caches.clear_all()
    return strip_credentials([os.fspath(path) for path in paths])


class Named(NamedTuple):
    """A path as typed and the checkpoints that it names, without those that an earlier path names.

    `told` says that a path which turns out to hold no checkpoint is a problem to report.
    """

    path: str
    found: tuple[Found, ...]
    told: bool


def name_checkpoints(
    paths: Iterable[str], config: Config, known: Mapping[str, list[Found]] | None = None
) -> list[Named]:
    """What each path names; `known` holds what has been looked for already."""
    typed = list(paths)
    listed = _listed(typed) if config.skip_unknown else {}
    known = {**(known or {}), **listed}
    named = []
    seen: set[str] = set()
    for path in typed:
        found = (
            known[path] if path in known else find_checkpoints(path, every=config.all_checkpoints)
        )
        new = found
        if len(typed) > 1 or len(found) > 1:
            new = _unseen(found, seen)
        named.append(Named(path, tuple(new), path not in listed and len(new) == len(found)))
    return named


def _unseen(found: Iterable[Found], seen: set[str]) -> list[Found]:
    """The checkpoints that are not in `seen`, where they go."""
    from bninspect.locate.trainings import identity

    new = []
    for item in found:
        opened = identity(item)
        if opened not in seen:
            seen.add(opened)
            new.append(item)
    return new


def examine_in_turn(
    found: Iterable[Found], config: Config, rules: Rules, since: CheckpointReport | None
) -> Iterator[CheckpointReport]:
    """Yield the report of each checkpoint, compared with `since`.

    Where the run follows trainings, `found` must be in their order: each checkpoint is then
    compared with the one before it of its training, unless there is a `since`.
    """
    follows = compares_with_previous(config, rules)
    since = since if _compares(rules) else None
    latest: dict[Training, CheckpointReport] = {}
    for item in found:
        previous = latest.get(item.training) if follows and item.training else None
        state = _fingerprint_of(item) if config.states else None  # before it is read
        report = examine(item, config, rules, since=since, previous=previous)
        if state is not None:
            report = replace(report, state=state)
        if follows and item.training and not report.error:
            latest[item.training] = report
        yield report


def compares_with_previous(config: Config, rules: Rules) -> bool:
    """Return whether each checkpoint is compared with the one before it of its training."""
    return config.trends or (config.all_checkpoints and config.since is None and _compares(rules))


def _compares(rules: Rules) -> bool:
    return any(rule.needs_earlier for rule in rules or ())


def read_since(config: Config) -> CheckpointReport | None:
    """The one earlier checkpoint that `--since` names, None without one; raises a `ReadProblem`."""
    if config.since is None:
        return None
    [path] = strip_credentials([config.since])
    found = find_checkpoints(path)
    if len(found) != 1:
        from bninspect.locate.discover import nothing_in

        if not found:
            raise nothing_in(path)
        several = f"--since is to name one checkpoint, and this names {len(found)}"
        raise NotFound(path, several, f"Name one of them ({found[0].path}).")
    report = examine(found[0], config, ())
    if report.error is not None:
        raise report.error
    return report


def _fingerprint_of(found: Found) -> str | None:
    from bninspect.locate.fingerprint import fingerprint_of

    return fingerprint_of(found)


def _listed(paths: Sequence[str]) -> dict[str, list[Found]]:
    from bninspect.locate.file_list import listed_files

    return listed_files(paths)
