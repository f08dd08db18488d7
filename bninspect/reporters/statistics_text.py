"""`check --statistics`: the findings of all checkpoints in groups, each fix once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from bninspect.model.report import CheckpointReport, Report
from bninspect.reporters.check_text import may_have_cause, of_the_run
from bninspect.reporters.escapes import write_lines
from bninspect.reporters.finding_groups import FindingGroup, FindingGroups, NoteGroup
from bninspect.reporters.text_utils import PLAIN, TextStyle, fold, paint, wrap
from bninspect.reporters.verdict_text import answer, summary, verdict_line
from bninspect.wording import and_more

# How many checkpoints of one group, and how many notes, are shown without --verbose.
_NAMED = 5


class StatisticsReport:
    """Writer of a run: the verdict on all, one entry per group of findings, what is unreadable."""

    needs_layers = False
    needs_checkpoints = True
    render = None

    def __init__(self, stream: TextIO, style: TextStyle = PLAIN) -> None:
        self._stream, self._style = stream, style
        self._groups = FindingGroups()
        self._unreadable: list[str] = []

    def add(self, item: CheckpointReport, _: None) -> None:
        """Add the findings of one checkpoint to their groups."""
        self._groups.add(item)
        if item.error is not None:
            self._unreadable.append(verdict_line(item, color=self._style.color))

    def end(self, report: Report) -> None:
        """Write the groups, the gravest first."""
        style = self._style
        lines = [*answer(report, color=style.color), ""]
        if not style.quiet:
            for group in self._groups.gravest_first():
                lines += [*_entry(group, style), ""]
            if self._unreadable:
                lines += [*self._unreadable, ""]
            lines += _notes(self._groups.notes(), style)
        lines += of_the_run(report, width=style.width or 80, quiet=style.quiet)
        write_lines(self._stream, fold([*lines, summary(report)], style.width))


def _notes(groups: Sequence[NoteGroup], style: TextStyle) -> list[str]:
    """Return the lines of the notes on checkpoints."""
    shown = groups if style.verbose else groups[:_NAMED]
    lines = [
        line for group in shown for line in wrap("note: ", group.in_words, style.prose_width, 6)
    ]
    if len(groups) > len(shown):
        lines.append(f"note: {and_more(len(groups) - len(shown))} (--verbose shows them)")
    return [*lines, ""] if lines else []


def _entry(group: FindingGroup, style: TextStyle) -> list[str]:
    first, width = group.first, style.prose_width
    lines = [f"{paint(first.severity, color=style.color)} {group.title}"]
    lines += wrap("  found     ", first.rule.summary, width, 12)
    shown = group.hits if style.verbose else group.hits[:_NAMED]
    for hit in shown:
        lines += wrap("  - ", f"{hit.path}: {hit.in_words}", width, 6)
    if len(group.hits) > len(shown):
        lines.append(f"  - {and_more(len(group.hits) - len(shown))} (--verbose names them)")
    if may_have_cause(first):
        cause = first.cause or "cannot be told from these files"
        lines += wrap("  cause     ", cause, width, 12)
    if group.likely:
        lines += wrap("  likely    ", group.likely, width, 12)
    lines += wrap("  fix       ", first.fix, width, 12)
    return [*lines, *wrap("  more      ", group.more, width, 12)]
