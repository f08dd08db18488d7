"""Reading checkpoints one after the other, each compared with an earlier one if asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Literal

from bninspect.config.model import Config
from bninspect.errors import NotFound
from bninspect.model.report import CheckpointReport
from bninspect.model.rule import Rule
from bninspect.model.target import CheckpointLocation, Training
from bninspect.opening import find_checkpoints
from bninspect.runs.known_layouts import KnownLayouts
from bninspect.runs.one_checkpoint import EarlierReports, Wanted, examine
from bninspect.storage import filesystem, run_scope
from bninspect.storage.urls import strip_credentials

# None if layers are only listed, for which their values need not be readable.
Rules = tuple[Rule, ...] | None

# What reports must have of their layers: variables that can still be read, values, or their number.
Needs = Literal["variables", "values", "nothing"]


def examine_sequentially(
    locations: Sequence[CheckpointLocation],
    config: Config,
    rules: Rules,
    since: CheckpointReport | None,
    *,
    needs: Needs = "variables",
) -> Iterator[CheckpointReport]:
    """Yield the report of each checkpoint, compared with `since`.

    It may lack what `needs` does not ask for.

    If the run follows trainings, `locations` must be in their order: each checkpoint is then
    compared with the previous one of its training, unless there is a `since`.
    """
    sequence = _Sequence(config, rules, since, needs)
    reports = filesystem.map_ahead(sequence.examine, locations, attrgetter("path"))
    for item, report in zip(locations, reports, strict=True):
        sequence.keep(item, report)
        yield report


class _Sequence:
    """The examination of checkpoints in their order; those of URLs may be read ahead in threads."""

    def __init__(
        self, config: Config, rules: Rules, since: CheckpointReport | None, needs: Needs
    ) -> None:
        self._config, self._rules = config, rules
        self._follows = compares_with_previous(config, rules)
        self._since = since if needs_earlier(rules) else None
        self._by_layout = _ByLayout(config, rules, needs, follows=self._follows)
        self._latest: dict[Training, CheckpointReport] = {}

    def examine(self, item: CheckpointLocation) -> CheckpointReport:
        """Return the report of one checkpoint; that of the previous one is awaited if needed."""
        state = None
        if self._config.fingerprints:  # taken before the checkpoint is read
            from bninspect.locate.fingerprint import fingerprint_of

            state = fingerprint_of(item)
        previous = partial(self._previous, item) if self._follows and item.training else None
        report = self._by_layout.report(item, EarlierReports(self._since, previous))
        if report is None:
            report = examine(item, self._config, self._rules, since=self._since, previous=previous)
            self._by_layout.learn(item, report)
        return report if state is None else report.with_fields(state=state)

    def keep(self, item: CheckpointLocation, report: CheckpointReport) -> None:
        """Keep a report with which the next checkpoint of its training is compared."""
        if self._follows and item.training and not report.error:
            self._latest[item.training] = report

    def _previous(self, item: CheckpointLocation) -> CheckpointReport | None:
        """Return the last report of a training, once those of all earlier checkpoints are kept.

        Raises `Incomplete` if an object was replaced meanwhile.
        """
        filesystem.wait_for_turn(item.path)
        return self._latest.get(item.training) if item.training else None


class _ByLayout:
    """The reports of checkpoints whose layout this run knows.

    If it `follows` trainings, later checkpoints are compared with their layers.
    """

    def __init__(self, config: Config, rules: Rules, needs: Needs, *, follows: bool) -> None:
        self._layouts: KnownLayouts | None = None
        # Notes say of each checkpoint which patterns match nothing in it.
        if not rules or config.engine != "native" or config.patterns:
            return
        self._layouts = run_scope.of_run(KnownLayouts)
        self._wanted = Wanted(
            config,
            rules,
            values=follows or needs != "nothing",
            variables=follows or needs == "variables",
            passes_plain=all(rule.passes_plain for rule in rules),
        )

    def report(self, item: CheckpointLocation, earlier: EarlierReports) -> CheckpointReport | None:
        """Return the report of a checkpoint, compared with `earlier` ones; None if none is sure."""
        if self._layouts is None:
            return None
        return self._layouts.report(item, self._wanted, earlier)

    def learn(self, item: CheckpointLocation, report: CheckpointReport) -> None:
        """Learn the layout of a checkpoint that was examined in the ordinary way."""
        if self._layouts is not None and report.error is None:
            self._layouts.learn(item)


def compares_with_previous(config: Config, rules: Rules) -> bool:
    """Return whether each checkpoint is compared with the one before it of its training."""
    follows = config.all_checkpoints and config.since is None
    return config.trends or (follows and needs_earlier(rules))


def needs_earlier(rules: Rules) -> bool:
    """Return whether a rule compares with an earlier checkpoint."""
    return any(rule.needs_earlier for rule in rules or ())


def read_since(config: Config) -> CheckpointReport | None:
    """Read the earlier checkpoint of `--since`; None without that option.

    Raises a `ReadProblem` if the option does not name exactly one checkpoint that can be read.
    """
    if config.since is None:
        return None
    [path] = strip_credentials([config.since])
    locations = find_checkpoints(path)
    if len(locations) != 1:
        from bninspect.locate.discover import nothing_in

        if not locations:
            raise nothing_in(path)
        several = f"--since must name one checkpoint, but this names {len(locations)}"
        raise NotFound(path, several, f"Name one of them ({locations[0].path}).")
    report = examine(locations[0], config, ())
    if report.error is not None:
        raise report.error
    return report
