"""Which findings count: the user's severities, suppressions and baseline, in this order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from bninspect.model.rule import Rule
from bninspect.verdicts.baseline import Entry, entry_of, read_baseline
from bninspect.verdicts.selection import matching_layers

if TYPE_CHECKING:
    from bninspect.config.model import Config


class Triage:
    """A sorter of the findings of a run, checkpoint by checkpoint.

    Raises `UsageProblem` if the baseline cannot be read, before any checkpoint is.
    """

    def __init__(self, rules: Sequence[Rule], config: Config) -> None:
        self._config = config
        self._baseline = None if config.baseline is None else read_baseline(config.baseline)
        today = date.today()  # in the time zone of the user
        self._expired = [item for item in config.suppress if not item.holds(today)]
        self._holding = [item for item in config.suppress if item.holds(today)]
        self._applied_rules = _applied_rules(rules, config)
        self._used: set[Suppression] = set()
        self._places: set[str] = set()  # of the checkpoints that were read
        self._seen: set[Entry] = set()  # of their findings, suppressed or not

    def sort(self, item: CheckpointReport) -> CheckpointReport:
        """Split a checkpoint's findings into those that count, suppressed and known ones."""
        known: frozenset[Entry] = frozenset()
        place = ""
        if self._baseline is not None and item.error is None:
            known, place = self._baseline.entries, self._baseline.place_of(item)
            self._places.add(place)
            self._seen.update(entry_of(finding, place) for finding in item.findings)
        if not item.findings:
            return item
        names = {layer.name for layer in item.layers}
        holding = [
            (suppression, set(matching_layers(suppression.layer, names)))
            for suppression in self._holding
        ]
        counting, suppressed, old = [], [], []
        for original in item.findings:
            finding = self._with_severity(original)
            suppression = self._suppression_of(finding, holding)
            if suppression is not None:
                suppressed.append(Suppressed(finding, suppression))
            elif entry_of(finding, place) in known:
                old.append(finding)
            else:
                counting.append(finding)
        return replace(
            item, findings=tuple(counting), suppressed=tuple(suppressed), known=tuple(old)
        )

    def conclude(self, report: Report) -> Report:
        """Add to the report of a whole run the notes and counts that need all checkpoints."""
        is_complete = not report.unreadable and not report.interrupted
        notes = [
            f"{item.where}: expired on {item.expires} and no longer suppresses anything:"
            f" {item.reason}"
            for item in self._expired
        ]
        notes += [
            f"{item.where}: matches no finding of this run"
            f" ({', '.join(item.rules)} in {item.layer!r})"
            for item in self._holding
            if is_complete
            and item not in self._used
            and any(code.startswith(item.rules) for code in self._applied_rules)
        ]
        count = None
        if self._baseline is not None:
            notes += self._baseline.notes
            known = sum(len(item.known) for item in report.checkpoints)
            count = BaselineCount(known, self._gone(is_complete=is_complete))
        return replace(report, notes=(*report.notes, *notes), baseline=count)

    def _suppression_of(
        self, finding: Finding, holding: Sequence[tuple[Suppression, set[str]]]
    ) -> Suppression | None:
        """Return the first suppression that matches, and mark all that do as used."""
        matching = [
            suppression
            for suppression, names in holding
            if finding.layer in names and finding.rule.code.startswith(suppression.rules)
        ]
        self._used.update(matching)
        return matching[0] if matching else None

    def _with_severity(self, finding: Finding) -> Finding:
        """Return the finding with the user's severity, if there is one for its rule."""
        setting = self._config.setting_of(finding.rule.code)
        if setting is None or setting == "off":
            return finding
        return finding._replace(severity=setting)

    def _gone(self, *, is_complete: bool) -> int | None:
        """Return how many entries of the checkpoints that were read are no findings any more.

        Only rules that were applied count. None if a checkpoint that was not read may have some.
        """
        entries = self._baseline.entries if self._baseline is not None else ()
        gone = sum(
            entry.rule in self._applied_rules
            and entry.place in self._places
            and entry not in self._seen
            for entry in entries
        )
        return None if gone and not is_complete else gone


def _applied_rules(rules: Iterable[Rule], config: Config) -> set[str]:
    """Return the codes of the rules that could find something in this run."""
    compares = bool(config.since or config.all_checkpoints)
    return {rule.code for rule in rules if compares or not rule.needs_earlier}
