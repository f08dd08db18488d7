"""`check` for a person: the verdict first, then one entry a rule, its evidence and the fix."""

from __future__ import annotations

import io
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TextIO

import click

from bninspect.errors import shortened
from bninspect.findings import (
    SEVERITIES,
    BaselineCount,
    CheckpointReport,
    Finding,
    Report,
    Severity,
    Suppressed,
    Suppression,
)

CUT_SHORT = "interrupted: what was still to be read is not in this report"
# How many layers of one entry are named without --verbose.
_NAMED = 3
_COLORS: dict[str, str] = {
    "FAIL": "red",
    "ERROR": "red",
    "WARN": "yellow",
    "PASS": "green",
    "SAME": "yellow",
    "NONE": "yellow",
    "error": "red",
    "warning": "yellow",
    "note": "cyan",
}
# What became of a checkpoint, gravest first, as the exit codes rank them.
OUTCOMES = {
    "ERROR": "unreadable",
    "FAIL": "failed",
    "WARN": "with warnings",
    "NONE": "without BN layers",
    "PASS": "passed",
}
_WIDTH, _READABLE_WIDTH = 80, 100
_NAMES_SHOWN = 3


class TextReport:
    """Writes a run: `quiet` leaves the verdicts, `verbose` names every layer.

    `width` is None where the stream is no terminal. Of several checkpoints the first line is the
    verdict on all, so that nothing is written before the end; then each has its own.
    """

    layers = False

    def __init__(
        self,
        stream: TextIO,
        *,
        width: int | None = None,
        color: bool = False,
        quiet: bool = False,
        verbose: bool = False,
    ) -> None:
        self._stream = stream
        self._width, self._color, self._quiet, self._verbose = width, color, quiet, verbose
        self._lines: list[str] = []

    def add(self, item: CheckpointReport) -> None:
        """Make the lines of one checkpoint."""
        self._lines.append(verdict_line(item, color=self._color))
        if not self._quiet:
            width = prose_width(self._width)
            self._lines += details(item, width=width, color=self._color, verbose=self._verbose)

    def end(self, report: Report) -> None:
        """Write them, with what there is to say of all."""
        several = len(report.checkpoints) > 1
        lines = self._lines
        if several:
            worst, told = verdict_on_all(report)
            lines = [f"{paint(worst, color=self._color)}  {printable(told)}", "", *lines]
        if not self._quiet or several or report.interrupted:
            if several and lines[-1]:
                lines.append("")
            lines += _of_the_run(report, width=self._width or 80, quiet=self._quiet)
            lines.append(summary(report))
        self._stream.write("\n".join(lines) + "\n")


def write_text(report: Report, stream: TextIO, **look: Any) -> None:
    """Write a whole report; `look` is that of `TextReport`."""
    writer = TextReport(stream, **look)
    for item in report.checkpoints:
        writer.add(item)
    writer.end(report)


def explain(report: Report, *, verbose: bool = False) -> str:
    """The report as `bninspect check` prints it, for a failing test or a log.

    `verbose` names every layer. Without colours, in 80 columns, without a newline at the end.
    """
    stream = io.StringIO()
    write_text(report, stream, verbose=verbose)
    return stream.getvalue().rstrip("\n")


class ConciseReport:
    """Writes one line a finding as it comes: `PATH: CODE severity LAYER: message`.

    That is for grep and editors. A checkpoint that cannot be read, has no BN layer, or none that
    could be compared where that was asked for, has a line that says so.
    """

    layers = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, item: CheckpointReport) -> None:
        """Write the lines of one checkpoint."""
        for told in _concisely(item):
            self._stream.write(printable(f"{item.path}: {told}") + "\n")
        self._stream.flush()

    def end(self, _: Report) -> None:
        """Nothing is said of all."""


def _concisely(item: CheckpointReport) -> Iterator[str]:
    if item.error:
        error = item.error
        told = f"{error.message}. {error.hint}" if error.path == item.path else str(error)
        yield f"{error.kind}: {told}"
    elif not item.layer_count:
        yield f"none: no BN layer among {plural(item.variable_count, 'variable')}"
    if item.since is not None and item.none_compared:
        yield f"none: no BN layer could be compared with {item.since.path}"
    for finding in item.findings:
        yield f"{finding.rule.code} {finding.severity} {finding.layer}: {finding.message}"


def prose_width(width: int | None) -> int:
    """How wide prose is folded: as wide as the terminal, but no wider than people like to read.

    Without a terminal (`width` is None) that is what COLUMNS says, else 80 columns.
    """
    if width is None:
        told = os.environ.get("COLUMNS", "")
        width = int(told) if told.isdecimal() and 0 < len(told) < 5 else 0
    return min(width or _WIDTH, _READABLE_WIDTH)


def printable(text: str) -> str:
    """`text` with control characters escaped: names in a file must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plural(count: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def is_unicode(stream: TextIO) -> bool:
    """Whether all characters can be written to the stream."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower()
    return encoding.replace("-", "").startswith("utf")


def verdict_line(item: CheckpointReport, *, color: bool) -> str:
    """The answer in one line, however long: that is what is read first, and grepped."""
    return f"{paint(status(item), color=color)}  {printable(verdict(item))}"


def status(item: CheckpointReport) -> str:
    """What became of a checkpoint, in the word that leads its verdict."""
    if item.error:
        return "ERROR"
    severities = {finding.severity for finding in item.findings}
    if "error" in severities:
        return "FAIL"
    if "warning" in severities:
        return "WARN"
    return "PASS" if item.layer_count and not item.none_compared else "NONE"


def verdict_on_all(report: Report) -> tuple[str, str]:
    """The answer for all checkpoints: a word and a sentence."""
    states = [status(item) for item in report.checkpoints]
    worst = min(states, key=list(OUTCOMES).index)
    told = f"{plural(len(states), 'checkpoint')}: {_outcomes(report, codes=True)}"
    if report.interrupted:
        told = f"interrupted after {told}"
    if worst in ("ERROR", "FAIL"):
        first = report.checkpoints[states.index(worst)].path
        told += f"; first {OUTCOMES[worst]}: {first}"
    return worst, told


def _outcomes(report: Report, *, codes: bool = False) -> str:
    """How many checkpoints ended how; with `codes`, by which rules."""
    told = []
    for state, word in OUTCOMES.items():
        items = [item for item in report.checkpoints if status(item) == state]
        alone = [item for item in items if state == "NONE" and item.none_compared]
        if len(items) > len(alone):
            rules = _rules_of(state, items) if codes else ""
            told.append(f"{len(items) - len(alone)} {word}{rules}")
        if alone:
            told.append(f"{len(alone)} with nothing to compare")
    return ", ".join(told)


def _rules_of(state: str, items: Iterable[CheckpointReport]) -> str:
    """The rules that made checkpoints fail, or gave them warnings, in brackets."""
    severity = {"FAIL": "error", "WARN": "warning"}.get(state)
    hit = {one.rule.code for item in items for one in item.findings if one.severity == severity}
    return f" ({', '.join(sorted(hit))})" if hit else ""


def verdict(item: CheckpointReport) -> str:
    """The answer in one sentence."""
    if item.since is not None and item.none_compared:
        lost = f"none could be compared with {item.since.path} (--since)"
        return f"{verdict(replace(item, since=None))}; {lost}"
    if item.error:
        return str(item.error)
    if not item.layer_count:
        return f"{item.path}: no BN layer among {plural(item.variable_count, 'variable')}"
    total = plural(item.layer_count, "BN layer")
    worst = worst_of(item.findings)
    if worst is None:
        return f"{item.path}: {total}, {_no_finding(item)}"
    hit = {finding.layer for finding in worst}
    rule = worst[0].rule
    told = f"{rule.code}, a note" if worst[0].severity == "note" else rule.code
    return f"{item.path}: {len(hit)} of {total}: {rule.summary} ({told})"


def _no_finding(item: CheckpointReport) -> str:
    """That nothing counts, and how much there is that does not."""
    left = [f"{len(item.known)} known"] if item.known else []
    left += [f"{len(item.suppressed)} suppressed"] if item.suppressed else []
    if not left:
        return "no finding"
    return f"no {'new ' if item.known else ''}finding ({', '.join(left)})"


def _of_the_run(report: Report, *, width: int, quiet: bool) -> list[str]:
    """What is to be said of the run as a whole, but for the counts."""
    lines = []
    if not quiet:
        lines = [line for note in report.notes for line in wrap("note: ", note, width, 6)]
        if not (report.layer_count or report.unreadable or report.interrupted):
            lines.append("nothing was checked, which is exit code 3 without --allow-empty")
    if report.baseline is not None:
        lines.append(f"baseline: {baseline_in_words(report.baseline)}")
    if report.interrupted:
        lines.append(CUT_SHORT)
    return lines


def baseline_in_words(count: BaselineCount) -> str:
    """What became of the baseline."""
    known = plural(count.known, "known finding")
    if count.gone is None:
        return f"{known}; how many have gone cannot be told, as not everything could be read"
    return f"{known}, {count.gone} gone{' (--update-baseline)' if count.gone else ''}"


def worst_of(findings: Iterable[Finding]) -> list[Finding] | None:
    """The findings to lead with: of the gravest severity, the rule that hits most layers."""
    groups: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.rule.code), []).append(finding)
    return min(
        groups.values(),
        key=lambda group: (SEVERITIES.index(group[0].severity), -len(group)),
        default=None,
    )


def notes_on(item: CheckpointReport) -> list[str]:
    """What is to be said of a checkpoint besides its findings; names may be shortened."""
    notes = [shortened(note) for note in item.notes]
    if not item.layer_count and not item.error and item.names:
        names = ", ".join(map(shortened, item.names[:_NAMES_SHOWN]))
        notes.append(
            f"no variable has the name of a BN statistic known here; names are like {names}."
            " If there is BN in it, say so with --pattern; `bninspect list -v` shows all names"
        )
    return notes


def details(item: CheckpointReport, *, width: int, color: bool, verbose: bool) -> list[str]:
    """The lines below the verdict on a checkpoint."""
    lines = [line for note in notes_on(item) for line in wrap(" " * 6, f"note: {note}", width, 6)]
    lines += entries(item.findings, width=width, color=color, verbose=verbose)
    if verbose:
        lines += _suppressed_entries(item.suppressed, width)
    return [*lines, ""] if lines else []


def entries(
    findings: Iterable[Finding],
    *,
    width: int,
    color: bool = False,
    verbose: bool = False,
    source: str = "this file",
) -> list[str]:
    """The lines that tell findings: an entry for all that say the same, an empty line before it.

    `source` is what a cause that is not proved cannot be told from.
    """
    lines = []
    for group in grouped(findings):
        lines.append("")
        lines += _entry(group, width=width, color=color, verbose=verbose, source=source)
    return lines


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings that say the same: one rule, severity, cause and fix; gravest first."""
    groups: dict[tuple[Severity, str, str | None, str], list[Finding]] = {}
    for finding in findings:
        key = (finding.severity, finding.rule.code, finding.cause, finding.fix)
        groups.setdefault(key, []).append(finding)
    return [
        groups[key] for key in sorted(groups, key=lambda key: (SEVERITIES.index(key[0]), key[1]))
    ]


def _entry(
    group: list[Finding], *, width: int, color: bool, verbose: bool, source: str
) -> list[str]:
    first = group[0]
    severity = paint(first.severity, color=color)
    lines = [f"  {severity} {first.rule.code} {first.rule.name}: {plural(len(group), 'layer')}"]
    shown = group if verbose else group[:_NAMED]
    for finding in shown:
        lines += wrap("    - ", f"{finding.layer}: {finding.message}", width, 8)
    if len(group) > len(shown):
        lines.append(f"    - and {len(group) - len(shown)} more (--verbose names them)")
    lines += wrap("    evidence  ", "; ".join(evidence_of(group, verbose=verbose)), width, 14)
    if first.cause or first.severity == "error":
        lines += wrap("    cause     ", first.cause or f"cannot be told from {source}", width, 14)
    lines += wrap("    fix       ", first.fix, width, 14)
    lines += wrap("    more      ", f"bninspect rule {first.rule.code}", width, 14)
    return lines


def _suppressed_entries(suppressed: Iterable[Suppressed], width: int) -> list[str]:
    """An entry a rule and suppression: the layers, and why their findings do not count."""
    groups: dict[tuple[str, Suppression], list[Finding]] = {}
    for finding, why in suppressed:
        groups.setdefault((finding.rule.code, why), []).append(finding)
    lines = []
    for (code, why), group in groups.items():
        lines += ["", f"  suppressed {code} {group[0].rule.name}: {plural(len(group), 'layer')}"]
        for finding in group:
            lines += wrap("    - ", f"{finding.layer}: {finding.message}", width, 8)
        until = "" if why.expires is None else f" (until {why.expires})"
        lines += wrap("    reason    ", f"{why.reason}{until}", width, 14)
    return lines


def evidence_of(group: list[Finding], *, verbose: bool) -> list[str]:
    """What the findings of an entry stand on, with the number of layers where not all share it.

    A fact that names its layer needs no number.
    """
    counts = Counter(fact for finding in group for fact in finding.evidence)
    own = {fact for one in group for fact in one.evidence if f"`{one.layer}`" in fact}
    facts = [
        fact if count == len(group) or fact in own else f"{fact} ({plural(count, 'layer')})"
        for fact, count in counts.items()
    ]
    if verbose or len(facts) <= _NAMED + 1:
        return facts
    return [*facts[:_NAMED], f"and {len(facts) - _NAMED} facts more (--verbose)"]


def summary(report: Report) -> str:
    """The counts of a run in one line."""
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


def wrap(head: str, text: str, width: int, indent: int) -> list[str]:
    """`head` and `text`, wrapped below each other; names and paths are never cut."""
    if not text:
        return []
    lines = textwrap.wrap(
        printable(text),
        max(width - indent, 20),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [head + lines[0], *(" " * indent + line for line in lines[1:])]


def paint(word: str, *, color: bool) -> str:
    """An outcome or a severity in its colour."""
    return click.style(word, fg=_COLORS[word], bold=True) if color else word
