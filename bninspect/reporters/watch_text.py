"""`watch` as text: one line per checkpoint as it arrives, and below it the new findings."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

from bninspect.model.filenames import without_numbers
from bninspect.model.report import CheckpointReport
from bninspect.model.rule import SEVERITIES
from bninspect.reporters.check_text import details
from bninspect.reporters.escapes import printable, write_lines
from bninspect.reporters.text_utils import TextStyle, fold, wrap
from bninspect.reporters.verdict_text import OUTCOMES, status, verdict_line
from bninspect.wording import plural

if TYPE_CHECKING:
    from datetime import datetime

    from bninspect.runs.watch import Conclusion

_ENDS = {
    "timeout": "no checkpoint came any more (--timeout)",
    "until-step": "the step was reached (--until-step)",
    "fail-fast": "there was a finding (--fail-fast)",
    "interrupted": "it was interrupted",
    "terminated": "it was told to end",
}
_MOST_REMEMBERED = 1000
# The news of a checkpoint: rule, severity, layer and cause of each finding, and the notes.
_News = frozenset[tuple[str, ...]]


class WatchText:
    """Writer of a watch. A quiet `style` leaves one line per checkpoint.

    A verbose one repeats the findings that the previous checkpoint had, too.
    """

    def __init__(self, stream: TextIO, style: TextStyle) -> None:
        self._stream, self._style = stream, style
        self._last_news: dict[str, _News] = {}
        self._outcomes: Counter[str] = Counter()

    def add(self, item: CheckpointReport, moment: datetime) -> None:
        """Write the line of one checkpoint, and below it the findings that are new."""
        outcome = status(item)
        self._outcomes[outcome] += 1
        step = "no step" if item.step is None else f"step {item.step}"
        line = f"{moment:%H:%M:%S}  {step:<12}  {verdict_line(item, color=self._style.color)}"
        news = self._has_news(item) or self._style.verbose
        below = []
        if news and not self._style.quiet:
            below = details(item, self._style)
        elif item.findings and not news:
            line += "; as before"
        self._write([line, *below])

    def end(self, conclusion: Conclusion, _: datetime) -> None:
        """Write the counts of the watch, and what was not checked."""
        lines = []
        for note in () if self._style.quiet else conclusion.notes:
            lines += wrap("note: ", note, self._style.prose_width, 6)
        if conclusion.baseline is not None:
            known, gone = conclusion.baseline
            lines.append(
                f"baseline: {plural(known, 'known finding')}"
                f"{'' if gone is None else f', {gone} gone'}"
            )
        lines += [f"not checked: {printable(path)}" for path in conclusion.unchecked]
        lines.append(self._summary(conclusion))
        self._write(lines)

    def _summary(self, conclusion: Conclusion) -> str:
        tally = conclusion.tally
        # A checkpoint that became complete after it was given up no longer counts as unreadable.
        outcomes = {**self._outcomes, "ERROR": len(tally.unreadable)}
        parts = [
            f"{outcomes[outcome]} {word}"
            for outcome, word in OUTCOMES.items()
            if outcomes.get(outcome)
        ]
        counts = [plural(tally.findings[severity], severity) for severity in SEVERITIES]
        counts += [f"{tally.suppressed} suppressed"] if tally.suppressed else []
        took = timedelta(seconds=round(conclusion.seconds))
        total = plural(tally.checkpoints + len(tally.unreadable), "checkpoint")
        some = f" ({', '.join(parts)})" if parts else ""
        return (
            f"watched {printable(conclusion.directory)} for {took}, until"
            f" {_ENDS[conclusion.ended]}: {total}{some}; {', '.join(counts)}"
        )

    def _has_news(self, item: CheckpointReport) -> bool:
        """Return whether a checkpoint has findings or notes that the one before it had not.

        The numbers in notes grow with every checkpoint.
        """
        news: set[tuple[str, ...]] = {
            (finding.rule.code, finding.severity, finding.layer, finding.cause or "")
            for finding in item.findings
        }
        news |= {(without_numbers(note),) for note in item.notes}
        if not item.layer_count:
            news.add(("no layer",))
        name = without_numbers(item.path)
        before = self._last_news.pop(name, _News())
        self._last_news[name] = _News(news)
        if len(self._last_news) > _MOST_REMEMBERED:
            del self._last_news[next(iter(self._last_news))]
        return not before.issuperset(news)

    def _write(self, lines: list[str]) -> None:
        write_lines(self._stream, fold(lines, self._style.width))
        self._stream.flush()
