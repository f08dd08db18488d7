"""Verdicts in words, on a checkpoint and on a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from bninspect.errors import shortened
from bninspect.model.report import BaselineCount, CheckpointReport, Finding, Report
from bninspect.model.rule import SEVERITIES, Severity
from bninspect.reporters.escapes import printable
from bninspect.reporters.text_utils import paint
from bninspect.rules import CAUSES
from bninspect.wording import listed, plural

CUT_SHORT = "interrupted: what was still to be read is not in this report"
NOTHING_CHECKED = (
    "Nothing was checked: no file had a BN layer that can be checked, or none could be compared as"
    " asked for."
)
# The outcomes of a checkpoint, gravest first, as the exit codes rank them.
OUTCOMES = {
    "ERROR": "unreadable",
    "FAIL": "failed",
    "WARN": "with warnings",
    "NONE": "without BN layers",
    "PASS": "passed",
}
# Of checkpoints that have, or may have, BN layers, and none that was judged.
_NOTHING_JUDGED = ("with nothing to compare", "with no BN layer that can be checked")
_NAMES_SHOWN = 3


def verdict_line(item: CheckpointReport, *, color: bool) -> str:
    """Return the answer in one line, however long: it is read first, and grepped."""
    return f"{paint(status(item), color=color)}  {printable(verdict(item))}"


def answer(report: Report, *, color: bool = False) -> list[str]:
    """Return the first line of a short report; nothing where no checkpoint was read."""
    if len(report.checkpoints) > 1:
        worst, sentence = verdict_on_all(report)
        return [f"{paint(worst, color=color)}  {printable(sentence)}"]
    return [verdict_line(item, color=color) for item in report.checkpoints]


def status(item: CheckpointReport) -> str:
    """Return the word that begins the verdict on a checkpoint."""
    if item.error:
        return "ERROR"
    if item.findings:
        severities = {finding.severity for finding in item.findings}
        if "error" in severities:
            return "FAIL"
        if "warning" in severities:
            return "WARN"
    return "PASS" if item.layer_count and not item.none_compared else "NONE"


def verdict_on_all(report: Report) -> tuple[str, str]:
    """Return the answer for all checkpoints: a word and a sentence."""
    states = [status(item) for item in report.checkpoints]
    # As for the exit code, a checkpoint without a BN layer counts only if no other has one.
    worst = min([state for state in states if state != "NONE"] or states, key=list(OUTCOMES).index)
    sentence = f"{plural(len(states), 'checkpoint')}: {_outcomes(report, codes=True)}"
    if report.interrupted:
        sentence = f"interrupted after {sentence}"
    if worst in ("ERROR", "FAIL"):
        first = report.checkpoints[states.index(worst)].path
        sentence += f"; first {OUTCOMES[worst]}: {first}"
    return worst, sentence


def _outcomes(report: Report, *, codes: bool = False) -> str:
    """Return the number of checkpoints with each outcome; with `codes`, by which rules."""
    by_outcome: dict[tuple[str, str], list[CheckpointReport]] = {
        (state, word): []
        for state, words in OUTCOMES.items()
        for word in ((words, *_NOTHING_JUDGED) if state == "NONE" else (words,))
    }
    for item in report.checkpoints:
        by_outcome[_outcome(item)].append(item)
    return ", ".join(
        f"{len(items)} {word}{_rules_of(state, items) if codes else ''}"
        for (state, word), items in by_outcome.items()
        if items
    )


def _outcome(item: CheckpointReport) -> tuple[str, str]:
    """Return the outcome of a checkpoint, and the words for it."""
    state = status(item)
    if state == "NONE" and (item.none_compared or item.unchecked):
        return state, _NOTHING_JUDGED[0 if item.none_compared else 1]
    return state, OUTCOMES[state]


def _rules_of(state: str, items: Iterable[CheckpointReport]) -> str:
    """Return the rules that made checkpoints fail, or gave them warnings, in brackets."""
    severity = {"FAIL": "error", "WARN": "warning"}.get(state)
    hit = {
        finding.rule.code
        for item in items
        for finding in item.findings
        if finding.severity == severity
    }
    return f" ({', '.join(sorted(hit))})" if hit else ""


def verdict(item: CheckpointReport) -> str:
    """Return the answer in one sentence, with the names of what was not checked."""
    names = [shortened(group.name) for group in item.unchecked]
    return f"{_verdict(item)}; not checked: {listed(names)}" if names else _verdict(item)


def _verdict(item: CheckpointReport) -> str:
    if item.since is not None and item.none_compared:
        lost = f"none could be compared with {item.since.path} (--since)"
        return f"{_verdict(replace(item, since=None))}; {lost}"
    if item.error:
        return str(item.error)
    if not item.layer_count:
        return f"{item.path}: {nothing_checked(item)}"
    total = plural(item.layer_count, "BN layer")
    worst = worst_of(item.findings)
    if worst is None:
        return f"{item.path}: {total}, {_no_finding(item)}"
    hit = {finding.layer for finding in worst}
    rule = worst[0].rule
    source = f"{rule.code}, a note" if worst[0].severity == "note" else rule.code
    return f"{item.path}: {len(hit)} of {total}: {rule.summary} ({source})"


def nothing_checked(item: CheckpointReport) -> str:
    """Return the words for a checkpoint without a BN layer, or with none whose roles are proved."""
    among = plural(item.variable_count, "variable")
    return f"no BN layer{' that can be checked' if item.unchecked else ''} among {among}"


def _no_finding(item: CheckpointReport) -> str:
    """Return the words for no finding that counts, with the number of those that do not."""
    left = [f"{len(item.known)} known"] if item.known else []
    left += [f"{len(item.suppressed)} suppressed"] if item.suppressed else []
    if not left:
        return "no finding"
    return f"no {'new ' if item.known else ''}finding ({', '.join(left)})"


def baseline_in_words(count: BaselineCount) -> str:
    """Return how many findings are in the baseline, and how many have gone."""
    known = plural(count.known, "known finding")
    if count.gone is None:
        return f"{known}; how many have gone cannot be told, as not everything could be read"
    return f"{known}, {count.gone} gone{' (--update-baseline)' if count.gone else ''}"


def worst_of(findings: Iterable[Finding]) -> list[Finding] | None:
    """Return the findings of the headline: the gravest, of the rule that hits most layers."""
    groups: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.rule.code), []).append(finding)
    return min(
        groups.values(),
        key=lambda group: (SEVERITIES.index(group[0].severity), -len(group)),
        default=None,
    )


def notes_on(item: CheckpointReport) -> list[str]:
    """Return the notes on a checkpoint, which may shorten names."""
    notes = [shortened(note) for note in item.notes]
    if item.layer_count or item.unchecked or item.error:
        return notes
    if item.converted_from:
        notes.append(
            "no operation is BN, nor has its arithmetic the form of BN. If a converter folded BN"
            f" into other constants, nothing of it is left: check {item.converted_from}"
        )
    elif item.names:
        names = ", ".join(map(shortened, item.names[:_NAMES_SHOWN]))
        notes.append(
            f"no variable has the name of a BN statistic known here; names are like {names}."
            " If there is BN in it, say so with --pattern; `bninspect list -v` shows all names"
        )
    return notes


def summary(report: Report) -> str:
    """Return the counts of a run in one line."""
    parts = [plural(report.count(severity), severity) for severity in SEVERITIES]
    head = (
        f"{plural(len(report.checkpoints), 'checkpoint')},"
        f" {plural(report.layer_count, 'BN layer')}: {', '.join(parts)}"
    )
    if report.suppressed:
        head += f", {report.suppressed} suppressed"
    if len(report.checkpoints) > 1:
        return f"{head}; {_outcomes(report)}"
    return f"{head}, {report.unreadable} unreadable" if report.unreadable else head


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Return findings grouped by severity, rule, cause and fix, the gravest first."""
    groups: dict[tuple[Severity, str, Any], list[Finding]] = {}
    for finding in findings:
        same = (finding.cause, finding.fix, finding.possible_causes)
        key = (finding.severity, finding.rule.code, same)
        groups.setdefault(key, []).append(finding)
    return [
        groups[key] for key in sorted(groups, key=lambda key: (SEVERITIES.index(key[0]), key[1]))
    ]


def cause_in_words(finding: Finding, source: str = "this file") -> str:
    """Return the proved cause, or that `source`, which was read, does not tell it.

    Empty for a rule for whose findings no cause can be proved.
    """
    if not any(finding.rule.code in cause.rules for cause in CAUSES):
        return ""
    return finding.cause or f"cannot be told from {source}"


def source_of(item: CheckpointReport) -> str:
    """Return what was read, as part of a sentence: states in memory are not files."""
    return "this file" if item.resolved else item.path


def suspects_in_words(finding: Finding) -> list[str]:
    """Return a sentence or two on each reason that may be behind a finding, and how to test it."""
    return [f"{one.cause}: {one.speaks_for}. {one.test}" for one in finding.possible_causes]


def in_a_paragraph(finding: Finding) -> str:
    """Return a finding in one line. Its first sentence says what is wrong: lists show only that."""
    parts = [f"{finding.layer}: {finding.message}."]
    if finding.evidence:
        parts.append(f"Evidence: {'; '.join(finding.evidence)}.")
    if cause := cause_in_words(finding):
        parts.append(f"Cause: {cause}.")
    if finding.possible_causes:
        parts.append(f"Likely: {suspects_in_words(finding)[0]}")
    parts.append(f"Fix: {finding.fix}")
    return " ".join(printable(shortened(part)) for part in parts)


def more_on(findings: Sequence[Finding]) -> str:
    """Return the command that shows the page of the rule of some findings.

    It asks for their framework, if only one is known among them.
    """
    frameworks = {finding.framework for finding in findings if finding.framework is not None}
    framework = f" --for {frameworks.pop()}" if len(frameworks) == 1 else ""
    return f"bninspect rule {findings[0].rule.code}{framework}"
