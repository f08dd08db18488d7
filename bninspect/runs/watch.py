"""A training that is followed: each checkpoint that arrives in its directory, read and judged.

Nothing is kept of a checkpoint but counts, and of the last of each training its layers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from bninspect.errors import ReadProblem, UnknownFormat, UsageProblem
from bninspect.formats.opening import require_whole
from bninspect.locate.arrivals import Arrival, Arrivals, Timing
from bninspect.locate.trainings import with_trainings
from bninspect.model.report import BaselineCount, CheckpointReport, Report
from bninspect.model.rule import Severity, at_least, no_graph
from bninspect.rules import select_rules
from bninspect.runs.one_checkpoint import examine
from bninspect.verdicts.triage import Triage

if TYPE_CHECKING:
    from bninspect.config.model import Config
    from bninspect.model.target import Found, Training

# A file that no program has written to for so long has been closed, or is told by its content.
_SETTLE = 1.0
_MISSED = (
    "of what came, {} or more had been deleted before they could be checked: a shorter --interval"
    " misses fewer"
)
# More trainings than anybody runs in one directory; names may hold what makes each a new one.
_MOST_TRAININGS = 100


class Pace(NamedTuple):
    """How a directory is watched, in seconds.

    A look every `interval`. What claims to be a checkpoint and cannot be read is reported when it
    has not changed for `grace`. It ends when nothing came for `timeout` and nothing is waited for;
    never, if that is None.
    """

    interval: float = 10.0
    grace: float = 60.0
    timeout: float | None = None


@dataclass
class Tally:
    """What a watch has seen so far, in numbers.

    `unreadable` are the checkpoints that could not be read and have not come whole since.
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
        """Whether a finding had that severity or a graver one; none has `never`."""
        return any(self.findings[one] for one in at_least(severity))


class Conclusion(NamedTuple):
    """What there is to say at the end of a watch.

    `ended` says why: `timeout`, `until-step`, `fail-fast`, `interrupted` (by the keyboard) or
    `terminated` (by a signal). `unchecked` are what had come and was not checked: it was still
    being written, or there was no time for it.
    """

    directory: str
    ended: str
    seconds: float
    tally: Tally
    unchecked: tuple[str, ...]
    notes: tuple[str, ...]
    baseline: BaselineCount | None


class DirectoryWatch:
    """Follows `directory`, which need not be there yet, by looking at it every now and then.

    `clock` gives seconds and never goes back, `sleep` waits for so many. Raises `UsageProblem` if
    no rule is left, or if the baseline cannot be read.
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
        self._rules = select_rules(config.select, config.ignore)
        if not self._rules:
            raise UsageProblem("No rule is left: all that are selected are ignored, too.")
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
        """Each checkpoint as it comes; ends by the timeout alone."""
        last = self._begun
        while True:
            for report in self._look():
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
        """What has come since the last look and is whole, for who cannot wait for more."""
        yield from self._look()
        if self._arrivals.unsettled:
            sleep(self._settle)
            yield from self._look()

    def conclude(self, ended: str) -> Conclusion:
        """What there is to say at the end, `ended` being why that has come."""
        uncertain = bool(self._tally.unreadable)
        told = self._triage.conclude(Report((), self._rules, interrupted=uncertain))
        count = told.baseline and told.baseline._replace(known=self._tally.known)
        missed = self._arrivals.missed
        notes = (*told.notes, *([_MISSED.format(missed)] if missed else ()))
        return Conclusion(
            self._directory,
            ended,
            self._clock() - self._begun,
            self._tally,
            tuple(self._arrivals.unchecked),
            notes,
            count,
        )

    def _look(self) -> Iterator[CheckpointReport]:
        """What is whole by now, and what was abandoned before it was."""
        for arrival in self._arrivals.look(self._clock()):
            arrived = with_trainings(arrival.found)
            reports = [self._examine(found) for found in arrived]
            if arrival.has_changed():
                self._arrivals.changed(arrival, self._clock())
                continue
            if not arrival.overdue and any(map(_fails, arrived, reports)):
                self._arrivals.failed(arrival)
                continue
            self._arrivals.settled(arrival)
            for found, report in zip(arrived, reports, strict=True):
                if not _is_passed_over(found, report):
                    self._remember(found, report)
                    yield self._counted(report, arrival)

    def _counted(self, report: CheckpointReport, arrival: Arrival) -> CheckpointReport:
        """What is told of a checkpoint, after it has been counted."""
        if report.error is not None and arrival.stamps:
            given_up = (
                f"nothing has been written to it for {self._pace.grace:g} s (--grace); it is read"
                " again when it changes"
            )
            report = replace(report, notes=(given_up, *report.notes))
        told = self._triage.sort(report)
        self._tally.add(told)
        return told

    def _examine(self, found: Found) -> CheckpointReport:
        """Return the report of one checkpoint, compared with the one before it.

        All its parts must be there, also those that are not read.
        """
        previous = self._latest.get(found.training) if found.training else None
        try:
            require_whole(found)
        except ReadProblem as problem:
            return CheckpointReport(found.path, error=problem)
        return examine(found, self._config, self._rules, previous=previous)

    def _remember(self, found: Found, report: CheckpointReport) -> None:
        """Keep of a report what the next one of its training is compared with."""
        training = found.training
        if training is None or report.error is not None or not self._compares:
            return
        self._latest.pop(training, None)
        self._latest[training] = replace(report, findings=(), notes=(), graph=no_graph)
        if len(self._latest) > _MOST_TRAININGS:
            del self._latest[next(iter(self._latest))]


def _fails(found: Found, report: CheckpointReport) -> bool:
    """Whether a checkpoint cannot be read."""
    return report.error is not None and not _is_passed_over(found, report)


def _is_passed_over(found: Found, report: CheckpointReport) -> bool:
    """Whether it is no checkpoint, and neither its name nor its place says that it is one."""
    return not found.claimed and isinstance(report.error, UnknownFormat)
