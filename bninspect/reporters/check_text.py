"""`check` as text: the verdict first, then one entry per rule with its evidence and fix."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TextIO

from bninspect.model.report import CheckpointReport, Finding, Report, Suppressed, Suppression
from bninspect.reporters.escapes import printable, write_lines
from bninspect.reporters.text_utils import PLAIN, TextStyle, fold, paint, wrap
from bninspect.reporters.verdict_text import (
    CUT_SHORT,
    answer,
    baseline_in_words,
    cause_in_words,
    grouped,
    more_on,
    notes_on,
    nothing_checked,
    source_of,
    summary,
    suspects_in_words,
    verdict_line,
)
from bninspect.wording import and_more, plural

# How many layers of one entry are named without --verbose.
_NAMED = 3


class TextReport:
    """Writer of a run as text.

    The first line is the verdict on all checkpoints, so nothing is written before the end.
    """

    needs_layers = False
    needs_checkpoints = True

    def __init__(self, stream: TextIO, style: TextStyle = PLAIN) -> None:
        self._stream, self._style = stream, style
        self._lines: list[str] = []
        self.render = partial(lines_of, style=style)

    def add(self, _: CheckpointReport, lines: Iterable[str]) -> None:
        """Keep the lines of one checkpoint."""
        self._lines += lines

    def end(self, report: Report) -> None:
        """Write the lines of all checkpoints, then those about the run."""
        several = len(report.checkpoints) > 1
        lines = self._lines
        if several:
            lines = [*answer(report, color=self._style.color), "", *lines]
        elif not (report.checkpoints or report.interrupted):
            lines = [f"{paint('NONE', color=self._style.color)}  no checkpoint was checked"]
        if not self._style.quiet or several or report.interrupted:
            if several and lines[-1]:
                lines.append("")
            lines += of_the_run(report, width=self._style.width or 80, quiet=self._style.quiet)
            lines.append(summary(report))
        write_lines(self._stream, fold(lines, self._style.width))


def lines_of(item: CheckpointReport, style: TextStyle) -> list[str]:
    """Return the lines of one checkpoint."""
    verdict = verdict_line(item, color=style.color)
    return [verdict] if style.quiet else [verdict, *details(item, style)]


def write_text(report: Report, stream: TextIO, style: TextStyle = PLAIN) -> None:
    """Write a whole report."""
    writer = TextReport(stream, style)
    for item in report.checkpoints:
        writer.add(item, writer.render(item))
    writer.end(report)


def explain(report: Report, *, verbose: bool = False) -> str:
    """Return the report as `bninspect check` prints it, for a failing test or a log.

    `verbose` names every layer. Without colours, in 80 columns, without a newline at the end.
    """
    stream = io.StringIO()
    write_text(report, stream, TextStyle(verbose=verbose))
    return stream.getvalue().rstrip("\n")


class ConciseReport:
    """Writer of one line per finding as it arrives: `PATH: CODE severity LAYER: message`.

    The format is for grep and editors. There is also a line for a checkpoint that cannot be read,
    has no BN layer or none that could be compared (--since), and for each unchecked group.
    """

    needs_layers = False
    needs_checkpoints = True

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.render = _concise_lines

    def add(self, _: CheckpointReport, lines: Iterable[str]) -> None:
        """Write the lines of one checkpoint."""
        write_lines(self._stream, lines)
        self._stream.flush()

    def end(self, _: Report) -> None:
        """Do nothing: each checkpoint's lines are written by `add`."""


def _concise_lines(item: CheckpointReport) -> list[str]:
    return [printable(f"{item.path}: {line}") for line in _concisely(item)]


def _concisely(item: CheckpointReport) -> Iterator[str]:
    if item.error:
        error = item.error
        message = f"{error.message}. {error.hint}" if error.path == item.path else str(error)
        yield f"{error.kind}: {message}"
    elif not item.layer_count:
        yield f"none: {nothing_checked(item)}"
    if item.since is not None and item.none_compared:
        yield f"none: no BN layer could be compared with {item.since.path}"
    for group in item.unchecked:
        yield f"unchecked: {group.name}: {group.reason}"
    for finding in item.findings:
        yield f"{finding.rule.code} {finding.severity} {finding.layer}: {finding.message}"


def of_the_run(report: Report, *, width: int, quiet: bool) -> list[str]:
    """Return the lines about the run as a whole, without the counts."""
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


def details(item: CheckpointReport, style: TextStyle) -> list[str]:
    """Return the lines below the verdict on a checkpoint."""
    notes = notes_on(item)
    if not (notes or item.findings or item.suppressed):
        return []
    width = style.prose_width
    lines = [line for note in notes for line in wrap(" " * 6, f"note: {note}", width, 6)]
    lines += entries(item.findings, style, source=source_of(item))
    if style.verbose:
        lines += _suppressed_entries(item.suppressed, width)
    return [*lines, ""] if lines else []


def entries(
    findings: Iterable[Finding], style: TextStyle, *, source: str = "this file"
) -> list[str]:
    """Return the lines of findings: one entry for all that say the same, after an empty line.

    `source` names what was read, for the words about a cause that is not proved.
    """
    lines = []
    for group in grouped(findings):
        lines.append("")
        lines += _entry(group, style, source)
    return lines


def _entry(group: list[Finding], style: TextStyle, source: str) -> list[str]:
    first, width, verbose = group[0], style.prose_width, style.verbose
    severity = paint(first.severity, color=style.color)
    lines = [f"  {severity} {first.rule.code} {first.rule.name}: {plural(len(group), 'layer')}"]
    shown = group if verbose else group[:_NAMED]
    for finding in shown:
        lines += wrap("    - ", f"{finding.layer}: {finding.message}", width, 8)
    if len(group) > len(shown):
        lines.append(f"    - {and_more(len(group) - len(shown))} (--verbose names them)")
    lines += wrap("    evidence  ", "; ".join(evidence_of(group, verbose=verbose)), width, 14)
    lines += wrap("    cause     ", cause_in_words(first, source), width, 14)
    lines += _suspects(first, width)
    lines += wrap("    fix       ", first.fix, width, 14)
    lines += wrap("    more      ", more_on(group), width, 14)
    return lines


def _suspects(finding: Finding, width: int) -> list[str]:
    """Return the lines on the reasons that may be behind a finding, numbered if several."""
    lines = []
    for number, suspect in enumerate(suspects_in_words(finding)):
        label = "    likely    " if not number else " " * 14
        several = len(finding.possible_causes) > 1
        lines += wrap(label, f"{number + 1}. {suspect}" if several else suspect, width, 14)
    return lines


def _suppressed_entries(suppressed: Iterable[Suppressed], width: int) -> list[str]:
    """Return an entry per rule and suppression: the layers, and the reason of the suppression."""
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
    """Return the evidence of an entry, with the number of layers where not all share it.

    A fact that names its layer needs no number.
    """
    counts = Counter(fact for finding in group for fact in finding.evidence)
    own = {fact for finding in group for fact in finding.evidence if f"`{finding.layer}`" in fact}
    facts = [
        fact if count == len(group) or fact in own else f"{fact} ({plural(count, 'layer')})"
        for fact, count in counts.items()
    ]
    if verbose or len(facts) <= _NAMED + 1:
        return facts
    return [*facts[:_NAMED], f"{and_more(len(facts) - _NAMED, 'facts')} (--verbose)"]
