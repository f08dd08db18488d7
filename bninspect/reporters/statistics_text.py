"""`check --statistics`: the findings of all checkpoints in groups, each fix once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TextIO

from bninspect.model.report import CheckpointReport, Report
from bninspect.reporters.check_text import of_the_run
from bninspect.reporters.escapes import write_lines
from bninspect.reporters.finding_groups import FindingGroup, FindingGroups, Hit, NoteGroup
from bninspect.reporters.text_utils import PLAIN, TextStyle, align, bold, fold, paint, wrap
from bninspect.reporters.verdict_text import answer, summary, verdict_line
from bninspect.wording import and_more

# How many checkpoints of one group, and how many notes, are shown without --verbose; and how many
# groups have an entry of their own, so that the answer and what hits the most fit on a screen.
_NAMED, _ENTRIES = 5, 3
# What stands for the cause of findings that have none, beside those that have one.
_NO_CAUSE = "no cause proved"


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
            groups = self._groups.gravest_first()
            # With one more than the entries, a line that counts it would be no shorter.
            shown = len(groups) if style.verbose or len(groups) == _ENTRIES + 1 else _ENTRIES
            for group in groups[:shown]:
                lines += [*_entry(group, style), ""]
            lines += _counts(groups[shown:], style)
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


def _counts(groups: Sequence[FindingGroup], style: TextStyle) -> list[str]:
    """Return one line per rule, and below it one per cause, of the groups without an entry."""
    if not groups:
        return []
    by_rule: dict[str, dict[str, list[Hit]]] = {}
    for group in groups:
        first = group.first
        cause = first.cause or (f"likely {group.suspects[0][0]}" if group.suspects else "")
        by_cause = by_rule.setdefault(f"{first.severity} {first.rule.code} {first.rule.name}", {})
        by_cause.setdefault(cause, []).extend(group.hits)
    rows = [("findings", "layers", "checkpoints")]
    for rule, by_cause in by_rule.items():
        rows.append(_row(rule, list(chain(*by_cause.values()))))
        causes = [_row(f"  {cause or _NO_CAUSE}", hits) for cause, hits in by_cause.items()]
        if any(by_cause):
            rows += sorted(causes, key=lambda row: -int(row[2]))
    head, *lines = align(rows, right=rows[0][1:])
    which = "Others, whose fixes --verbose shows:"
    return [which, "", bold(f"  {head}", color=style.color), *(f"  {line}" for line in lines), ""]


def _row(name: str, hits: Sequence[Hit]) -> tuple[str, str, str]:
    layers = sum(len(hit.layers) for hit in hits)
    return name, str(layers), str(len({hit.path for hit in hits}))


def _entry(group: FindingGroup, style: TextStyle) -> list[str]:
    first, width = group.first, style.prose_width
    lines = [f"{paint(first.severity, color=style.color)} {group.title}"]
    lines += wrap("  found     ", first.rule.summary, width, 12)
    shown = group.hits if style.verbose else group.hits[:_NAMED]
    for hit in shown:
        lines += wrap("  - ", f"{hit.path}: {hit.in_words}", width, 6)
    if len(group.hits) > len(shown):
        lines.append(f"  - {and_more(len(group.hits) - len(shown))} (--verbose names them)")
    lines += wrap("  cause     ", group.cause, width, 12)
    if group.likely:
        lines += wrap("  likely    ", group.likely, width, 12)
    lines += wrap("  fix       ", first.fix, width, 12)
    return [*lines, *wrap("  more      ", group.more, width, 12)]
