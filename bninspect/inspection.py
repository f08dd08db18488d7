"""Paths → Report: what the commands do, and the package's public face.

A checkpoint that cannot be read becomes a result with an error; the others are still read. One that
several paths name is read once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol

from bninspect.batch import (
    Named,
    Rules,
    by_itself,
    examine_in_turn,
    name_checkpoints,
    paths_of_run,
    read_since,
)
from bninspect.config import Config, make_config
from bninspect.config.lookup import base_config
from bninspect.errors import NotFound, UnknownFormat, UsageProblem
from bninspect.findings import CheckpointReport, Report, Rule
from bninspect.formats import find_checkpoints
from bninspect.formats.locate import Found
from bninspect.model import Engine
from bninspect.rules import select_rules

if TYPE_CHECKING:
    from bninspect.comparison import Comparison
    from bninspect.resuming import Results
    from bninspect.triage import Triage

PathName = str | os.PathLike[str]


def check(
    *paths: PathName,
    select: str | Iterable[str] = (),
    ignore: str | Iterable[str] = (),
    momentum: float | None = None,
    patterns: str | Iterable[str] = (),
    all_checkpoints: bool = False,
    engine: Engine = "native",
    since: PathName | None = None,
    config: PathName | None = None,
) -> Report:
    """Apply the rules to every checkpoint that `paths` name.

    A path is a prefix, a file of a checkpoint, a directory or a pattern. A training directory
    stands for its newest checkpoint, with `all_checkpoints` for all of them; a directory without
    a state file stands for every checkpoint below it. `select` and `ignore` are rule codes or
    their beginnings, `momentum` (0 to 1) stands in where none is stored, `patterns` are
    `ROLE=REGEX` for variable names of your own, `engine` is what reads the files. A checkpoint that
    cannot be read is reported with its `error`. Raises `UsageProblem` for a wrong option.

    `since` is an earlier checkpoint of the training, with which all are compared (BN107); raises a
    `ReadProblem` if it cannot be read; `none_compared` of the report says if no layer could be
    compared. Without it, `all_checkpoints` compares each checkpoint with the one before it in the
    same directory whose name differs in numbers alone, if it has the same layers and its step is
    later; a note says where that is not so and it matters.

    No configuration file is looked for: `config` names the one to use (`bninspect.toml`, or a
    `pyproject.toml` with a table `[tool.bninspect]`), with its suppressions and its baseline.
    """
    options = make_config(
        select,
        ignore,
        momentum,
        patterns,
        all_checkpoints=all_checkpoints,
        engine=engine,
        since=since,
        base=None if config is None else base_config(config),
    )
    return check_paths(paths, options)


def list_layers(
    *paths: PathName,
    patterns: str | Iterable[str] = (),
    all_checkpoints: bool = False,
    engine: Engine = "native",
) -> Report:
    """Find and read the BN layers of every checkpoint that `paths` name, without judging them.

    Where the values are missing (an index without its shards) the layers are listed without.
    `all_checkpoints` and `engine` are those of `check`.
    """
    config = make_config(patterns=patterns, all_checkpoints=all_checkpoints, engine=engine)
    return list_paths(paths, config)


def compare(
    *paths: PathName,
    patterns: str | Iterable[str] = (),
    engine: Engine = "native",
) -> Comparison:
    """Say what became of each BN layer from checkpoint to checkpoint of one training.

    `paths` name two checkpoints or more, oldest first; a directory stands for all that it keeps.
    Statistics that stood still while training went on are findings (BN107), and so are NaN (BN301)
    and a negative variance (BN302): errors if they last up to the newest checkpoint, else warnings.
    A checkpoint that cannot be read is among the `unreadable` of the result; with fewer than two
    that can be read, raises that `ReadProblem`. Raises `UsageProblem` if so few are named, or if a
    directory holds the folders of several trainings. `patterns` and `engine` are those of `check`.
    """
    return compare_paths(paths, make_config(patterns=patterns, engine=engine))


class Watcher(Protocol):
    """Who follows a check: first how many checkpoints there are at most, then each as it comes.

    `layers` says whether the layers are asked for; without, several processes send less. Unless
    `kept`, only counts are left of a checkpoint that has come.
    """

    layers: bool
    kept: bool

    def begin(self, total: int) -> None:
        """`total` checkpoints at most will come."""

    def add(self, item: CheckpointReport) -> None:
        """One has come."""


def check_paths(
    paths: Iterable[PathName],
    config: Config,
    watcher: Watcher | None = None,
    results: Results | None = None,
) -> Report:
    """`check` for options that are already a Config.

    What `watcher` has been told is not kept whole: the report's checkpoints are then without their
    layers, and an interrupt from the keyboard ends in a report of those that are done. What is
    among the `results` of an earlier run, and has not changed since, is not read again.
    """
    rules = select_rules(config.select, config.ignore)
    if not rules:
        raise UsageProblem("No rule is left: all that are selected are ignored, too.")
    if not config.since and not config.all_checkpoints and [r.code for r in rules] == ["BN107"]:
        raise UsageProblem("BN107 compares: give an earlier checkpoint with --since CHECKPOINT.")
    named = name_checkpoints(paths_of_run(paths), config)
    triage = _triage(rules, config)
    items: list[CheckpointReport] = []
    counts = _Counts()
    interrupted = False
    if watcher is not None:
        watcher.begin(sum(len(one.found) for one in named))
    try:
        layers = watcher is None or watcher.layers
        for item in _examine_all(named, config, rules, layers=layers, results=results):
            sorted_ = item if triage is None else triage.sort(item)
            if watcher is not None:
                watcher.add(sorted_)
                sorted_ = sorted_.without_layers() if watcher.kept else counts.of(sorted_)
            items.append(sorted_)
    except KeyboardInterrupt:
        if watcher is None:
            raise
        interrupted = True
    report = Report(tuple(items), rules, interrupted=interrupted)
    return report if triage is None else triage.conclude(report)


class _Counts:
    """What is left of checkpoints that are not kept: one for all that count the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], CheckpointReport] = {}

    def of(self, item: CheckpointReport) -> CheckpointReport:
        """One that counts the same, and is called nothing."""
        key = (
            item.error is None,
            item.layer_count,
            tuple((one.rule.code, one.severity) for one in item.findings),
            len(item.suppressed),
            len(item.known),
            item.since is None,
            item.none_compared,
        )
        if key not in self._known:
            self._known[key] = replace(item.without_layers(), path="", resolved=None, notes=())
        return self._known[key]


def _triage(rules: tuple[Rule, ...], config: Config) -> Triage | None:
    if not (config.severity or config.suppress or config.baseline is not None):
        return None
    from bninspect.triage import Triage  # noqa: PLC0415 - few have told what they want to hear

    return Triage(rules, config)


def list_paths(paths: Iterable[PathName], config: Config) -> Report:
    """`list_layers` for options that are already a Config."""
    named = name_checkpoints(paths_of_run(paths), config)
    return Report(tuple(_examine_all(named, config, None)))


def read_values(path: PathName, config: Config) -> Report:
    """The layers of one checkpoint with all their values, without judging them.

    With `config.all_checkpoints` those of all that `path` names. Raises a `ReadProblem` if it
    names several otherwise, or if none of them can be read.
    """
    typed = paths_of_run((path,))
    named = name_checkpoints(typed, config)
    report = Report(tuple(_examine_all(named, config, ())))
    several = len(report.checkpoints)
    if several > 1 and not config.all_checkpoints:
        raise NotFound(
            typed[0],
            f"it names {several} checkpoints",
            f"Name one of them ({report.checkpoints[0].path}), or use --all-checkpoints.",
        )
    problem = report.checkpoints[0].error
    if problem is not None and report.unreadable == several:
        raise problem
    return report


def compare_paths(paths: Iterable[PathName], config: Config) -> Comparison:
    """`compare` for options that are already a Config."""
    from bninspect.comparison import compare_checkpoints  # noqa: PLC0415 - other commands do without

    typed = paths_of_run(paths)
    known = {path: find_checkpoints(path, every=True) for path in typed}
    for path, found in known.items():
        _refuse_several_trainings(path, found)
    everything = replace(config, all_checkpoints=True)
    reports = tuple(_examine_all(name_checkpoints(typed, everything, known), everything, ()))
    readable = sum(report.error is None for report in reports)
    problem = next((report.error for report in reports if report.error is not None), None)
    if readable < 2 and problem is not None:
        raise problem
    if readable < 2:
        given = ", ".join(typed) or "nothing"
        one = "names the same one" if len(typed) > 1 else "names one"
        raise UsageProblem(
            f"compare needs at least two checkpoints of a training, and {given}"
            f" {one if readable else 'names none'}."
        )
    return compare_checkpoints(reports)


def _refuse_several_trainings(path: str, found: Sequence[Found]) -> None:
    """Raise `UsageProblem` if a directory or pattern stands for more than one training."""
    from bninspect.formats.discover import trainings_in  # noqa: PLC0415

    folders = trainings_in(path, found)
    if len(folders) > 1:
        some = ", ".join(folders[:3]) + (", ..." if len(folders) > 3 else "")
        raise UsageProblem(
            f"compare takes the checkpoints of one training, and {path} holds those of"
            f" {len(folders)} folders: {some}. Compare one folder at a time, or name the"
            " checkpoints, oldest first."
        )


def _examine_all(
    named: Sequence[Named],
    config: Config,
    rules: Rules,
    *,
    layers: bool = True,
    results: Results | None = None,
) -> Iterator[CheckpointReport]:
    """What is in all checkpoints, in their order; raises a `ReadProblem` for `--since`.

    The order does not depend on how many processes read them. With several the reports may be
    without layers unless `layers`. What `results` have is taken from there.
    """
    found = [item for one in named for item in one.found]
    done: Iterator[bool] = repeat(False)
    if results is not None:
        holding = results.holds(found, together=by_itself(config, rules))
        found = [item for item, holds in zip(found, holding, strict=True) if not holds]
        done = iter(holding)
    if config.scheduler is not None or (config.jobs > 1 and len(found) > 1):
        from bninspect.workers import examine_in_pool  # noqa: PLC0415 - only with --jobs

        reports = examine_in_pool(found, config, rules, layers=layers)
    else:
        reports = examine_in_turn(found, config, rules, read_since(config))
    for path, items, told in named:
        empty = told
        for item in items:
            earlier = results if next(done) else None
            report = next(reports) if earlier is None else earlier.report(item.path)
            # What is no checkpoint, and was not claimed to be one, is passed over.
            if item.claimed or not isinstance(report.error, UnknownFormat):
                empty = False
                yield report
        if empty:
            from bninspect.formats.discover import nothing_in  # noqa: PLC0415

            yield CheckpointReport(path, error=nothing_in(path))
