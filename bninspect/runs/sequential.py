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
from bninspect.model.target import Found
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
    from bninspect.locate.discover import identity

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
    """What is in each, compared with `since`, or with the one before it of the same training."""
    alone = compares_with_previous(config, rules)
    asked = since if _compares(rules) else None
    latest: dict[tuple[str, str], CheckpointReport] = {}
    for item in found:
        training = _training_of(item) if alone else None
        earlier = latest.get(training) if training else asked
        state = _state_of(item) if config.states else None  # before: it may change meanwhile
        report = examine(item, config, rules, earlier, certain=since is not None)
        if state is not None:
            report = replace(report, state=state)
        if training and not report.error:
            latest[training] = report
        yield report


def compares_with_previous(config: Config, rules: Rules) -> bool:
    """Whether each checkpoint is compared with the one before it of its training."""
    return config.all_checkpoints and config.since is None and _compares(rules)


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


def _state_of(found: Found) -> str | None:
    from bninspect.locate.fingerprint import state_of

    return state_of(found)


def _listed(paths: Sequence[str]) -> dict[str, list[Found]]:
    from bninspect.locate.file_list import listed_files

    return listed_files(paths)


def _training_of(found: Found) -> tuple[str, str] | None:
    from bninspect.locate.discover import training_of

    return training_of(found)
