"""The run of `watch`: each checkpoint that arrives in a directory, read and judged.

Only counts are kept of a checkpoint, and the layers of the last one of each training.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from bninspect.errors import ReadProblem, UnknownFormat
from bninspect.formats.opening import require_whole
from bninspect.locate.arrivals import Arrival, Arrivals, Timing
from bninspect.locate.trainings import with_trainings
from bninspect.model.report import BaselineCount, CheckpointReport, Report
from bninspect.model.rule import Severity, at_least, no_graph
from bninspect.rules import require_rules
from bninspect.runs.one_checkpoint import examine
from bninspect.storage import filesystem
from bninspect.verdicts.triage import Triage

if TYPE_CHECKING:
    from bninspect.config.model import Config
    from bninspect.model.target import CheckpointLocation, Training

# A file that has not changed for this time is complete, or its content shows that it is not.
_SETTLE = 1.0
_MISSED = (
    "at least {} checkpoints were deleted before they could be checked: a shorter --interval misses"
    " fewer"
)
# More trainings than run in one directory: file names may make each checkpoint a new one.
_MOST_TRAININGS = 100


class Pace(NamedTuple):
    """Times of a watch, in seconds.

    The directory is listed every `interval`. A file that claims to be a checkpoint and cannot be
    read is reported when it has not changed for `grace`. The watch ends when nothing has arrived
    for `timeout` and no file is waited for; never, if that is None.
    """

    interval: float = 10.0
    grace: float = 60.0
    timeout: float | None = None


@dataclass
class Tally:
    """Counts of a watch so far.

    `unreadable` are the paths of checkpoints that could not be read, and still cannot.
    """

    checkpoints: int = 0
    layers: int = 0
    findings: Counter[Severity] = field(default_factory=Counter)
    suppressed: int = 0
    known: int = 0
    unreadable: set[str] = field(default_factory=set)

    def add(self, item: CheckpointReport) -> None:
        """Count one checkpoint."""
        if item.error is not None:
            self.unreadable.add(item.path)
            return
        self.unreadable.discard(item.path)
        self.checkpoints += 1
        self.layers += item.layer_count
        self.findings.update(finding.severity for finding in item.findings)
        self.suppressed += len(item.suppressed)
        self.known += len(item.known)

    def any_at_least(self, severity: str) -> bool:
        """Return whether a finding is at least as severe as that; none is as `never`."""
        return any(self.findings[level] for level in at_least(severity))


class Conclusion(NamedTuple):
    """The end of a watch.

    `ended` says why: `timeout`, `until-step`, `fail-fast`, `interrupted` (by the keyboard) or
    `terminated` (by a signal). `unchecked` are the paths that had arrived and were not checked:
    they were still being written, or the watch ended before.
    """

    directory: str
    ended: str
    seconds: float
    tally: Tally
    unchecked: tuple[str, ...]
    notes: tuple[str, ...]
    baseline: BaselineCount | None


class DirectoryWatch:
    """A watch of `directory`, which need not exist yet, by listing it at intervals.

    `clock` returns seconds and never goes back, `sleep` waits for a number of seconds. Raises
    `UsageProblem` if no rule is left, or if the baseline cannot be read.
    """

    def __init__(
        self,
        directory: str,
        config: Config,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._directory, self._config, self._pace = directory, config, pace
        self._clock, self._sleep = clock, sleep
        self._rules = require_rules(config.rules)
        self._compares = any(rule.needs_earlier for rule in self._rules)
        self._triage = Triage(self._rules, config)
        self._settle = min(_SETTLE, pace.interval)
        self._arrivals = Arrivals(
            directory,
            Timing(self._settle, pace.grace, pace.interval),
            every=config.all_checkpoints,
        )
        self._latest: dict[Training, CheckpointReport] = {}
        self._begun = clock()
        self._tally = Tally()

    def reports(self) -> Iterator[CheckpointReport]:
        """Yield the report of each checkpoint that arrives; ends only by the timeout."""
        last = self._begun
        while True:
            for report in self._list():
                yield report
                last = self._clock()
            if self._arrivals.unchecked:
                last = self._clock()
            pause = self._settle if self._arrivals.unsettled else self._pace.interval
            if self._pace.timeout is not None:
                left = last + self._pace.timeout - self._clock()
                if left <= 0:
                    return
                pause = min(pause, left)
            self._sleep(pause)

    def rest(self, sleep: Callable[[float], None]) -> Iterator[CheckpointReport]:
        """Yield the reports of complete checkpoints that have arrived since the last listing."""
        yield from self._list()
        if self._arrivals.unsettled:
            sleep(self._settle)
            yield from self._list()

    def conclude(self, ended: str) -> Conclusion:
        """Return the end of the watch; `ended` says why it ends."""
        is_incomplete = bool(self._tally.unreadable)
        report = self._triage.conclude(Report((), self._rules, interrupted=is_incomplete))
        count = report.baseline and report.baseline._replace(known=self._tally.known)
        missed = self._arrivals.missed
        notes = (*report.notes, *([_MISSED.format(missed)] if missed else ()))
        return Conclusion(
            self._directory,
            ended,
            self._clock() - self._begun,
            self._tally,
            tuple(self._arrivals.unchecked),
            notes,
            count,
        )

    def _list(self) -> Iterator[CheckpointReport]:
        """List the directory; yield reports of complete checkpoints and of abandoned ones.

        Checkpoints that arrived together behind URLs are read ahead.
        """
        arrived = [
            (arrival, with_trainings(arrival.locations))
            for arrival in self._arrivals.look(self._clock())
        ]
        every_location = [location for _, locations in arrived for location in locations]
        examined = filesystem.map_ahead(self._examine, every_location, attrgetter("path"))
        for arrival, locations in arrived:
            reports = [next(examined) for _ in locations]
            if arrival.has_changed():
                self._arrivals.changed(arrival, self._clock())
                continue
            if not arrival.overdue and any(map(_fails, locations, reports)):
                self._arrivals.failed(arrival)
                continue
            self._arrivals.settled(arrival)
            for location, report in zip(locations, reports, strict=True):
                if not _is_passed_over(location, report):
                    self._remember(location, report)
                    yield self._counted(report, arrival)

    def _counted(self, report: CheckpointReport, arrival: Arrival) -> CheckpointReport:
        """Return the report with a note on why it is final, and count it."""
        if report.error is not None and arrival.stamps:
            note = (
                f"nothing has been written to it for {self._pace.grace:g} s (--grace); it is read"
                " again when it changes"
            )
            report = replace(report, notes=(note, *report.notes))
        report = self._triage.sort(report)
        self._tally.add(report)
        return report

    def _examine(self, location: CheckpointLocation) -> CheckpointReport:
        """Return the report of one checkpoint, compared with the one before it.

        All its parts must be there, also those that are not read.
        """
        try:
            require_whole(location)
        except ReadProblem as problem:
            return CheckpointReport(location.path, error=problem)
        previous = partial(self._previous, location)
        return examine(location, self._config, self._rules, previous=previous)

    def _previous(self, location: CheckpointLocation) -> CheckpointReport | None:
        """Return the last report of a training, once those of all earlier checkpoints are kept.

        Raises `Incomplete` if an object was replaced meanwhile.
        """
        filesystem.wait_for_turn(location.path)
        return self._latest.get(location.training) if location.training else None

    def _remember(self, location: CheckpointLocation, report: CheckpointReport) -> None:
        """Keep the report that the next checkpoint of the same training is compared with."""
        training = location.training
        if training is None or report.error is not None or not self._compares:
            return
        self._latest.pop(training, None)
        self._latest[training] = replace(report, findings=(), notes=(), graph=no_graph)
        if len(self._latest) > _MOST_TRAININGS:
            del self._latest[next(iter(self._latest))]


def _fails(location: CheckpointLocation, report: CheckpointReport) -> bool:
    """Return whether a checkpoint cannot be read."""
    return report.error is not None and not _is_passed_over(location, report)


def _is_passed_over(location: CheckpointLocation, report: CheckpointReport) -> bool:
    """Return whether a file is no checkpoint, and neither its name nor its directory claims it."""
    return not location.claimed and isinstance(report.error, UnknownFormat)
