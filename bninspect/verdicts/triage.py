"""Which findings count: severities of the user's own, suppressions, the baseline; in this order.

Rules say what is so; here it is looked up what of that a person wants to hear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from bninspect.model.report import (
    BaselineCount,
    CheckpointReport,
    Finding,
    Report,
    Suppressed,
    Suppression,
)
from bninspect.model.rule import Rule, Severity
from bninspect.verdicts.baseline import read_baseline
from bninspect.verdicts.selection import layers_called

if TYPE_CHECKING:
    from bninspect.config.model import Config


class Triage:
    """What `rules` found, parted checkpoint by checkpoint into what counts and what does not.

    Raises `UsageProblem` if the baseline cannot be read, before a checkpoint is.
    """

    def __init__(self, rules: Sequence[Rule], config: Config) -> None:
        self._config = config
        self._known = {} if config.baseline is None else read_baseline(config.baseline)
        today = date.today()  # that of whoever runs this, not UTC's
        self._expired = [one for one in config.suppress if not one.holds(today)]
        self._holding = [one for one in config.suppress if one.holds(today)]
        self._ran = _ran(rules, config)
        self._used: set[Suppression] = set()
        self._seen: set[str] = set()  # fingerprints, suppressed or not

    def sort(self, item: CheckpointReport) -> CheckpointReport:
        """A checkpoint's findings by what becomes of them."""
        if self._config.baseline is not None:
            self._seen.update(finding.fingerprint for finding in item.findings)
        return _parted(item, self._config.severity, self._holding, self._known, self._used)

    def conclude(self, report: Report) -> Report:
        """The report of a run whose checkpoints have all been sorted, with what can be said now."""
        certain = not report.unreadable and not report.interrupted
        notes = [
            f"{one.where}: expired on {one.expires} and suppresses nothing any more: {one.reason}"
            for one in self._expired
        ]
        notes += [
            f"{one.where}: matches no finding of this run ({', '.join(one.rules)} in {one.layer!r})"
            for one in self._holding
            if certain and one not in self._used and any(_covers(one, code) for code in self._ran)
        ]
        count = None
        if self._config.baseline is not None:
            known = sum(len(item.known) for item in report.checkpoints)
            count = BaselineCount(known, self._gone(certain=certain))
        return replace(report, notes=(*report.notes, *notes), baseline=count)

    def _gone(self, *, certain: bool) -> int | None:
        """How many entries of rules that ran no finding has any more."""
        gone = sum(
            code in self._ran and name not in self._seen for name, code in self._known.items()
        )
        return None if gone and not certain else gone


def _parted(
    report: CheckpointReport,
    severities: Sequence[tuple[str, Severity]],
    holding: Sequence[Suppression],
    known: Mapping[str, str],
    used: set[Suppression],
) -> CheckpointReport:
    """A checkpoint's findings by what becomes of them; the suppressions that match go to `used`."""
    if not report.findings:
        return report
    names = {layer.name for layer in report.layers}
    meant = {one: set(layers_called(one.layer, names)) for one in holding}
    counting, suppressed, old = [], [], []
    for found in report.findings:
        finding = _rated(found, severities)
        matching = [
            one
            for one in holding
            if finding.layer in meant[one] and _covers(one, finding.rule.code)
        ]
        used.update(matching)
        if matching:
            suppressed.append(Suppressed(finding, matching[0]))
        elif known and finding.fingerprint in known:
            old.append(finding)
        else:
            counting.append(finding)
    return replace(report, findings=tuple(counting), suppressed=tuple(suppressed), known=tuple(old))


def _rated(finding: Finding, severities: Sequence[tuple[str, Severity]]) -> Finding:
    """A finding with the severity that the longest beginning of its rule's code has been given."""
    given = [pair for pair in severities if finding.rule.code.startswith(pair[0])]
    if not given:
        return finding
    return finding._replace(severity=max(given, key=lambda pair: len(pair[0]))[1])


def _covers(suppression: Suppression, code: str) -> bool:
    return code.startswith(suppression.rules)


def _ran(rules: Iterable[Rule], config: Config) -> set[str]:
    """Return the codes of the rules that could find something in this run."""
    has_earlier = config.since is not None or config.all_checkpoints
    return {rule.code for rule in rules if has_earlier or not rule.needs_earlier}
