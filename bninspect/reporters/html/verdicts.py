"""Views of verdicts and findings, in the words of `check`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bninspect.model.report import CheckpointReport, Finding, Report, Suppression
from bninspect.model.rule import Rule
from bninspect.reporters.check_text import evidence_of
from bninspect.reporters.html.layers import gravest
from bninspect.reporters.verdict_text import (
    CUT_SHORT,
    baseline_in_words,
    grouped,
    notes_on,
    status,
    summary,
    suspects_in_words,
    verdict,
    verdict_on_all,
    worst_of,
)
from bninspect.rules import CAUSES

_CAUSES = {cause.name: cause for cause in CAUSES}
_NO_CAUSE = "cannot be told from this file"


class Group(NamedTuple):
    """Findings with the same rule, cause and fix; `state` is their severity, or `muted`.

    `layers` are (name, message). `cause` is None if the files cannot prove one. `muted` is the
    reason why they do not count, empty if they count.
    """

    rule: Rule
    severity: str
    state: str
    layers: tuple[tuple[str, str], ...]
    evidence: tuple[str, ...]
    cause: str | None
    likely: tuple[str, ...]
    fix: str
    muted: str = ""


class CheckpointView(NamedTuple):
    """A checkpoint: the verdict and its evidence; `lead` is the group to begin with."""

    id: str
    path: str
    status: str
    verdict: str
    lead: Group | None
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


class RunView(NamedTuple):
    """The verdict on all checkpoints."""

    status: str
    verdict: str
    summary: str
    notes: tuple[str, ...]


def run_view(report: Report) -> RunView:
    """Return the answer for a run; for one checkpoint, that of the checkpoint."""
    if len(report.checkpoints) == 1:
        item = report.checkpoints[0]
        word, sentence = status(item), verdict(item)
    elif report.checkpoints:
        word, sentence = verdict_on_all(report)
    else:
        word, sentence = "NONE", "no checkpoint was looked at"
    notes = list(report.notes)
    if report.baseline is not None:
        notes.append(f"baseline: {baseline_in_words(report.baseline)}")
    if report.interrupted:
        notes.append(CUT_SHORT)
    return RunView(word, sentence, summary(report), tuple(notes))


def checkpoint_view(item: CheckpointReport, id_: str = "") -> CheckpointView:
    """Return the view of one checkpoint."""
    groups = (*(_group(findings) for findings in grouped(item.findings)), *_muted(item))
    worst = worst_of(item.findings)
    lead = None
    if worst is not None:
        names = {finding.layer for finding in worst}
        lead = max(
            (group for group in groups if group.rule is worst[0].rule and group.state != "muted"),
            key=lambda group: sum(name in names for name, _ in group.layers),
        )
    return CheckpointView(
        id=id_,
        path=item.path,
        status=status(item),
        verdict=verdict(item),
        lead=lead,
        groups=groups,
        notes=tuple(notes_on(item)),
        facts=tuple(_facts(item)),
    )


def leading(views: Sequence[CheckpointView]) -> CheckpointView | None:
    """Return the checkpoint whose finding comes first: the first of those with the gravest."""
    worst = gravest(item.lead.state for item in views if item.lead is not None)
    return next(
        (view for view in views if view.lead is not None and view.lead.state == worst), None
    )


def _group(findings: list[Finding], muted: str = "") -> Group:
    first = findings[0]
    cause = None
    if first.cause is not None:
        summary_ = f": {_CAUSES[first.cause].summary}" if first.cause in _CAUSES else ""
        cause = f"{first.cause}{summary_}"
    elif first.severity == "error":
        cause = _NO_CAUSE
    return Group(
        rule=first.rule,
        severity=first.severity,
        state="muted" if muted else first.severity,
        layers=tuple((finding.layer, finding.message) for finding in findings),
        evidence=tuple(evidence_of(findings, verbose=True)),
        cause=cause,
        likely=tuple(suspects_in_words(first)),
        fix=first.fix,
        muted=muted,
    )


def _muted(item: CheckpointReport) -> Iterator[Group]:
    """Return the findings that do not count, and why not."""
    reasons: dict[Suppression, list[Finding]] = {}
    for finding, why in item.suppressed:
        reasons.setdefault(why, []).append(finding)
    for why, findings in reasons.items():
        until = "" if why.expires is None else f" (until {why.expires})"
        for group in grouped(findings):
            yield _group(group, f"suppressed: {why.reason}{until}")
    for group in grouped(item.known):
        yield _group(group, "known: it is in the baseline")


def _facts(item: CheckpointReport) -> Iterable[tuple[str, str]]:
    if item.error is not None:
        return
    if item.resolved and item.resolved != item.path:
        yield "opened", item.resolved
    yield "format", item.format or ""
    yield "step", "not stored" if item.step is None else str(item.step)
    yield "variables", str(item.variable_count)
    yield "BN layers", str(item.layer_count)
    if item.since is not None:
        yield "compared with", item.since.path
