"""Which findings count: severities of the user's own, suppressions, the baseline; in this order.

Rules say what is so; here it is looked up what of that a person wants to hear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from bninspect.baseline import read_baseline
from bninspect.findings import (
    BaselineCount,
    CheckpointReport,
    Finding,
    Report,
    Rule,
    Severity,
    Suppressed,
    Suppression,
)
from bninspect.selection import layers_called

if TYPE_CHECKING:
    from bninspect.config import Config


def triage(reports: Iterable[CheckpointReport], rules: Sequence[Rule], config: Config) -> Report:
    """What `rules` found in all checkpoints, parted into what counts and what does not.

    Raises `UsageProblem` if the baseline cannot be read, before a checkpoint is.
    """
    known = {} if config.baseline is None else read_baseline(config.baseline)
    today = date.today()  # that of whoever runs this, not UTC's
    expired = [one for one in config.suppress if one.expires and one.expires < today]
    holding = [one for one in config.suppress if one not in expired]
    used: set[Suppression] = set()
    items = tuple(_parted(report, config.severity, holding, known, used) for report in reports)
    ran = _ran(rules, config)
    certain = not any(item.error for item in items)
    notes = [
        f"{one.where}: expired on {one.expires} and suppresses nothing any more: {one.reason}"
        for one in expired
    ]
    notes += [
        f"{one.where}: matches no finding of this run ({', '.join(one.rules)} in {one.layer!r})"
        for one in holding
        if certain and one not in used and any(_covers(one, code) for code in ran)
    ]
    count = None
    if config.baseline is not None:
        count = BaselineCount(
            known=sum(len(item.known) for item in items),
            gone=_gone(known, items, ran),
        )
    return Report(items, tuple(rules), tuple(notes), count)


def _parted(
    report: CheckpointReport,
    severities: Sequence[tuple[str, Severity]],
    holding: Sequence[Suppression],
    known: Mapping[str, str],
    used: set[Suppression],
) -> CheckpointReport:
    """A checkpoint's findings by what becomes of them; the suppressions that match go to `used`."""
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
    """The codes of the rules that could find something: BN107 needs an earlier checkpoint."""
    codes = {rule.code for rule in rules}
    return codes if config.since or config.all_checkpoints else codes - {"BN107"}


def _gone(known: Mapping[str, str], items: Iterable[CheckpointReport], ran: set[str]) -> int | None:
    """How many entries of rules that ran no finding has any more, suppressed or not."""
    items = tuple(items)
    seen = {finding.fingerprint for item in items for finding in _all(item)}
    gone = sum(code in ran and name not in seen for name, code in known.items())
    return None if gone and any(item.error for item in items) else gone


def _all(item: CheckpointReport) -> Iterator[Finding]:
    yield from item.findings
    yield from item.known
    yield from (finding for finding, _ in item.suppressed)
