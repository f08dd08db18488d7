"""Paths → Report: what the commands do.

A checkpoint that cannot be read becomes a result with an error; the others are still read. One that
several paths name is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

from bninspect.config.model import Config
from bninspect.errors import NotFound, UnknownFormat, UsageProblem
from bninspect.model.report import CheckpointReport, Report
from bninspect.model.rule import Rule
from bninspect.rules import select_rules
from bninspect.runs.sequential import (
    Named,
    Rules,
    compares_with_previous,
    examine_in_turn,
    name_checkpoints,
    paths_of_run,
    read_since,
)

if TYPE_CHECKING:
    from bninspect.runs.resume import Results
    from bninspect.verdicts.triage import Triage
from bninspect.runs.observer import PathName, RunObserver


def check_paths(
    paths: Iterable[PathName],
    config: Config,
    observer: RunObserver | None = None,
    results: Results | None = None,
) -> Report:
    """`check` for options that are already a Config.

    What `observer` has been told is not kept whole: the report's checkpoints are then without their
    layers, and an interrupt from the keyboard ends in a report of those that are done. What is
    among the `results` of an earlier run, and has not changed since, is not read again.
    """
    rules = select_rules(config.select, config.ignore)
    if not rules:
        raise UsageProblem("No rule is left: all that are selected are ignored, too.")
    has_earlier = config.since or config.all_checkpoints or config.trends
    if not has_earlier and all(rule.needs_earlier for rule in rules):
        codes = ", ".join(rule.code for rule in rules)
        raise UsageProblem(
            f"{codes} needs an earlier checkpoint to compare with: give it with --since CHECKPOINT."
        )
    named = name_checkpoints(paths_of_run(paths), config)
    if compares_with_previous(config, rules):
        named = _in_trainings(named, config)
    triage = _triage(rules, config)
    items: list[CheckpointReport] = []
    counts = _Counts()
    interrupted = False
    if observer is not None:
        observer.begin(sum(len(one.found) for one in named))
    try:
        layers = observer is None or observer.needs_layers
        for item in examine_all(named, config, rules, layers=layers, results=results):
            sorted_ = item if triage is None else triage.sort(item)
            if observer is not None:
                observer.add(sorted_)
                sorted_ = (
                    sorted_.without_layers() if observer.needs_checkpoints else counts.of(sorted_)
                )
            items.append(sorted_)
    except KeyboardInterrupt:
        if observer is None:
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
            self._known[key] = replace(
                item.without_layers(), path="", resolved=None, notes=(), unchecked=()
            )
        return self._known[key]


def _triage(rules: tuple[Rule, ...], config: Config) -> Triage | None:
    if not (config.severity or config.suppress or config.baseline is not None):
        return None
    from bninspect.verdicts.triage import Triage

    return Triage(rules, config)


def _in_trainings(named: Sequence[Named], config: Config) -> list[Named]:
    from bninspect.runs.order import in_trainings

    return in_trainings(named, config.engine)


def list_paths(paths: Iterable[PathName], config: Config) -> Report:
    """`list_layers` for options that are already a Config."""
    named = name_checkpoints(paths_of_run(paths), config)
    return Report(tuple(examine_all(named, config, None)))


def read_values(path: PathName, config: Config) -> Report:
    """The layers of one checkpoint with all their values, without judging them.

    With `config.all_checkpoints` those of all that `path` names. Raises a `ReadProblem` if it
    names several otherwise, or if none of them can be read.
    """
    typed = paths_of_run((path,))
    named = name_checkpoints(typed, config)
    report = Report(tuple(examine_all(named, config, ())))
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


def examine_all(
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
        holding = results.holds(found, together=compares_with_previous(config, rules))
        found = [item for item, holds in zip(found, holding, strict=True) if not holds]
        done = iter(holding)
    if config.scheduler is not None or (config.jobs > 1 and len(found) > 1):
        from bninspect.runs.parallel import examine_in_parallel

        reports = examine_in_parallel(found, config, rules, needs_layers=layers)
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
            from bninspect.locate.discover import nothing_in

            yield CheckpointReport(path, error=nothing_in(path))
