"""Runs of the commands: from paths and options to a report.

A checkpoint that cannot be read becomes a result with an error; the others are still read. A
checkpoint that several paths name is read once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bninspect.config.model import Config
from bninspect.errors import NotFound, UnknownFormat, UsageProblem
from bninspect.model.report import CheckpointReport, Report
from bninspect.model.rule import Rule
from bninspect.model.target import CheckpointLocation
from bninspect.rules import require_rules
from bninspect.runs.observer import Examined
from bninspect.runs.paths import (
    ExpandedPath,
    PathName,
    begin_run,
    expand_paths,
    notes_on_left_out,
)
from bninspect.runs.sequential import Needs, Rules, compares_with_previous, needs_earlier
from bninspect.runs.shared_run import SharedRun

if TYPE_CHECKING:
    from bninspect.runs.observer import RunObserver
    from bninspect.runs.resume import Results
    from bninspect.verdicts.triage import Triage


def check_paths(
    paths: Iterable[PathName],
    config: Config,
    observer: RunObserver | None = None,
    results: Results | None = None,
) -> Report:
    """Apply the rules to all checkpoints that `paths` name.

    With an `observer` the checkpoints of the report are without their layers, and an interrupt from
    the keyboard ends the run with a report of the checkpoints so far. A checkpoint with a valid
    result in `results`, those of an earlier run, is not read again.

    Raises `UsageProblem` if no rule can be applied, a `ReadProblem` if `--since` cannot be read.
    """
    rules = _rules_of(config)
    render = None if observer is None else observer.render
    with SharedRun(config, rules, needs=_needs_of(observer, config), render=render) as run:
        finds_early = run.reads_early() and results is None
        expanded = expand_paths(begin_run(paths), config, find=run.find if finds_early else None)
        return _check(expanded, config, rules, run, observer, results)


def _check(
    expanded: Sequence[ExpandedPath],
    config: Config,
    rules: tuple[Rule, ...],
    run: SharedRun,
    observer: RunObserver | None,
    results: Results | None,
) -> Report:
    """Apply the rules to the checkpoints that were found."""
    notes = notes_on_left_out(expanded)
    if compares_with_previous(config, rules):
        from bninspect.runs.order import in_trainings

        expanded = in_trainings(expanded, config.engine)
    elif config.since is None and needs_earlier(rules):
        notes += tuple(_notes_on_steps(expanded))
    triage = _triage(rules, config)
    collector = _Collector(observer, triage)
    if observer is not None:
        observer.begin(sum(len(path.locations) for path in expanded))
    is_interrupted = False
    try:
        for item in _examine_all(expanded, config, rules, run, results):
            collector.add(*item)
    except KeyboardInterrupt:
        if observer is None:
            raise
        is_interrupted = True
    report = Report(tuple(collector.items), rules, notes, interrupted=is_interrupted)
    return report if triage is None else triage.conclude(report)


def _needs_of(observer: RunObserver | None, config: Config) -> Needs:
    """Return what reports must have of layers; those of several processes hold no open file."""
    if observer is None:
        return "variables" if config.jobs == 1 and config.scheduler is None else "values"
    return "values" if observer.needs_layers else "nothing"


def _rules_of(config: Config) -> tuple[Rule, ...]:
    """Return the rules to apply; raises `UsageProblem` if none can be."""
    rules = require_rules(config.rules)
    has_earlier = config.since or config.all_checkpoints or config.trends
    if not has_earlier and all(rule.needs_earlier for rule in rules):
        codes = ", ".join(rule.code for rule in rules)
        raise UsageProblem(
            f"{codes} needs an earlier checkpoint to compare with: give it with --since CHECKPOINT."
        )
    return rules


def _notes_on_steps(expanded: Sequence[ExpandedPath]) -> Iterator[str]:
    """Yield a note if several checkpoints look like steps of one training."""
    locations = [item for path in expanded for item in path.locations]
    if len(locations) < 2:
        return
    from bninspect.locate.trainings import trainings_of

    counts: Counter[Any] = Counter()
    first: dict[Any, str] = {}
    for item, training in zip(locations, trainings_of(locations), strict=True):
        if training is not None:
            counts[training] += 1
            first.setdefault(training, item.path)
    several = [(training, count) for training, count in counts.items() if count > 1]
    if several:
        training, count = several[0]
        more = f", as in {len(several) - 1} other places" if len(several) > 1 else ""
        yield (
            f"the names of {count} checkpoints like {first[training]} differ only in numbers{more}."
            " If they are steps of one training, --all-checkpoints compares each with the one"
            " before it (BN107)"
        )


class _Collector:
    """The reports of a run, sorted by the triage, and shown to the observer."""

    def __init__(self, observer: RunObserver | None, triage: Triage | None) -> None:
        self._observer, self._triage = observer, triage
        self._stand_ins: dict[tuple[Any, ...], CheckpointReport] = {}
        self.items: list[CheckpointReport] = []

    def add(self, item: CheckpointReport, rendered: Any) -> None:
        """Keep a report; with an observer, without its layers.

        `rendered` is what the observer's `render` made of it, None if that was not called.
        """
        if self._triage is not None:
            item = self._triage.sort(item)
        if self._observer is not None:
            render = self._observer.render
            if rendered is None and render is not None:
                rendered = render(item)
            self._observer.add(item, rendered)
            item = (
                item.without_layers() if self._observer.needs_checkpoints else self._stand_in(item)
            )
        self.items.append(item)

    def _stand_in(self, item: CheckpointReport) -> CheckpointReport:
        """Return one report for all with the same counts, so that a long run keeps only a few."""
        key = (
            item.error is None,
            item.layer_count,
            tuple((finding.rule.code, finding.severity) for finding in item.findings),
            len(item.suppressed),
            len(item.known),
            item.since is None,
            item.none_compared,
        )
        if key not in self._stand_ins:
            self._stand_ins[key] = replace(
                item.without_layers(), path="", resolved=None, notes=(), unchecked=()
            )
        return self._stand_ins[key]


def _triage(rules: tuple[Rule, ...], config: Config) -> Triage | None:
    if not (config.severity or config.suppress or config.baseline is not None):
        return None
    from bninspect.verdicts.triage import Triage

    return Triage(rules, config)


def list_paths(paths: Iterable[PathName], config: Config) -> Report:
    """Read the BN layers of all checkpoints that `paths` name, without judging them."""
    expanded = expand_paths(begin_run(paths), config)
    reports = tuple(examine_all(expanded, config, None))
    return Report(reports, notes=notes_on_left_out(expanded))


def read_values(path: PathName, config: Config) -> Report:
    """Read the layers of one checkpoint with all their values, without judging them.

    With `config.all_checkpoints`, read those of all checkpoints that `path` names. Otherwise raises
    a `ReadProblem` if it names several. Raises one, too, if none can be read.
    """
    typed = begin_run((path,))
    config = replace(config, exclude=(), include=())  # the path is that of one checkpoint
    report = Report(tuple(examine_all(expand_paths(typed, config), config, ())))
    count = len(report.checkpoints)
    if count > 1 and not config.all_checkpoints:
        raise NotFound(
            typed[0],
            f"it names {count} checkpoints",
            f"Name one of them ({report.checkpoints[0].path}), or use --all-checkpoints.",
        )
    problem = report.checkpoints[0].error
    if problem is not None and report.unreadable == count:
        raise problem
    return report


def examine_all(
    expanded: Sequence[ExpandedPath], config: Config, rules: Rules
) -> Iterator[CheckpointReport]:
    """Yield the report of each checkpoint, in the order of the paths.

    A file that neither its name nor its directory marks as a checkpoint is left out if it is not
    one. Raises a `ReadProblem` for `--since`.
    """
    with SharedRun(config, rules, needs="variables") as run:
        for item in _examine_all(expanded, config, rules, run, None):
            yield item.report


def _examine_all(
    expanded: Sequence[ExpandedPath],
    config: Config,
    rules: Rules,
    run: SharedRun,
    results: Results | None,
) -> Iterator[Examined]:
    """Yield the report of each checkpoint; those in `results` are not read again."""
    locations = [item for path in expanded for item in path.locations]
    reports = _examine_or_reuse(locations, config, rules, run, results)
    for path in expanded:
        is_empty = path.must_hold_one
        for item, examined in zip(path.locations, reports, strict=False):  # takes none too many
            if item.claimed or not isinstance(examined.report.error, UnknownFormat):
                is_empty = False
                yield examined
        if is_empty:
            from bninspect.locate.discover import nothing_in

            yield Examined(CheckpointReport(path.path, error=nothing_in(path.path)))


def _examine_or_reuse(
    locations: Sequence[CheckpointLocation],
    config: Config,
    rules: Rules,
    run: SharedRun,
    results: Results | None,
) -> Iterator[Examined]:
    """Yield the report of each checkpoint, from `results` if they hold a valid one."""
    if results is None:
        yield from run.reports(locations)
        return
    is_valid = results.are_valid(locations, together=compares_with_previous(config, rules))
    pairs = list(zip(locations, is_valid, strict=True))
    reports = run.reports([item for item, valid in pairs if not valid])
    for item, valid in pairs:
        yield Examined(results.report(item.path)) if valid else next(reports)
