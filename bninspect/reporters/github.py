"""`check` as workflow commands, which GitHub shows as annotations, with text around them.

A line `::error file=…,title=…::message` is a command. In message and properties `%`, CR and LF are
escaped, in properties `:` and `,` too (actions/toolkit, packages/core/src/command.ts; unescaped in
actions/runner, src/Runner.Common/ActionCommand.cs). `escapes` keeps every other line from being
taken for a command.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple, TextIO

from bninspect.model.report import CheckpointReport, Finding, Report
from bninspect.model.rule import SEVERITIES, Severity
from bninspect.reporters.check_text import TextReport, lines_of
from bninspect.reporters.ci_locations import file_of, in_repository
from bninspect.reporters.escapes import printable
from bninspect.reporters.text_utils import TextStyle
from bninspect.reporters.verdict_text import cause_in_words, more_on, suspects_in_words
from bninspect.wording import and_more, plural

Level = Literal["error", "warning", "notice"]
_LEVELS: dict[Severity, Level] = {"error": "error", "warning": "warning", "note": "notice"}

# A step may have ten of each level, and a message 4096 UTF-16 units: _maxCountPerIssueType and
# _maxIssueMessageLength in actions/runner, src/Runner.Worker/ExecutionContext.cs. A job may have 50
# (actions/toolkit, docs/problem-matchers.md), so 30 leave room for other steps.
_PER_LEVEL = 10
_LONGEST_MESSAGE = 4096
# How long the parts of a message may be, so that the fix at its end is never cut off.
_LONGEST_NAME, _LONGEST_LINE, _LONGEST_FIX = 100, 300, 900
_NAMED, _FIXES = 3, 2
_SHORT = TextStyle(quiet=True)


class _Annotation(NamedTuple):
    level: Level
    title: str
    lines: Sequence[str]
    file: str | None = None


class GithubReport:
    """Writer of a run as text for the log, then one annotation per rule and checkpoint.

    The gravest come first. If GitHub would not show all, the last one counts those left out.
    `quiet` and `verbose` change the text, which is complete if annotations are left out. A run
    that checked or compared nothing is an error unless `allow_empty`.
    """

    needs_layers = False
    needs_checkpoints = True

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool = False,
        verbose: bool = False,
        allow_empty: bool = False,
    ) -> None:
        self._stream, self._quiet, self._allow_empty = stream, quiet, allow_empty
        self._text, self._short_text = io.StringIO(), io.StringIO()
        self._whole = TextReport(self._text, TextStyle(verbose=verbose))
        self._short = TextReport(self._short_text, _SHORT)
        self.render = partial(_texts, styles=(TextStyle(verbose=verbose), *([_SHORT] * quiet)))

    def add(self, item: CheckpointReport, texts: Sequence[Sequence[str]]) -> None:
        """Keep the text of one checkpoint."""
        for report, lines in zip((self._whole, self._short), texts, strict=False):
            report.add(item, lines)

    def end(self, report: Report) -> None:
        """Write the text and the annotations."""
        annotations = list(_annotations(report, allow_empty=self._allow_empty))
        shown = _within_limits(annotations)
        short = self._quiet and shown == annotations
        (self._short if short else self._whole).end(report)
        text = self._short_text if short else self._text
        self._stream.write(text.getvalue())
        for annotation in shown:
            self._stream.write(_command(annotation) + "\n")


def _texts(item: CheckpointReport, styles: Iterable[TextStyle]) -> list[list[str]]:
    return [lines_of(item, style) for style in styles]


def _annotations(report: Report, *, allow_empty: bool) -> Iterator[_Annotation]:
    if report.interrupted:
        lines = ("What was still to be read is not in this report.",)
        yield _Annotation("error", "the run was interrupted", lines)
    for item in report.checkpoints:
        if item.error is not None:
            lines = (_cut(str(item.error), _LONGEST_MESSAGE),)
            yield _Annotation("error", "a checkpoint cannot be read", lines, _shown_path(item))
    for severity in SEVERITIES:
        for item in report.checkpoints:
            yield from _of_checkpoint(item, severity)
    for item in report.checkpoints:
        if item.layer_count and item.unchecked:
            yield _on_unchecked(item)
    if not report.checked and not report.unreadable:
        level: Level = "notice" if allow_empty else "error"
        code = "That is exit code 3, with --allow-empty 0."
        yield _Annotation(level, "nothing was checked", (_why_not_checked(report), code))


def _on_unchecked(item: CheckpointReport) -> _Annotation:
    """Return the notice of the groups that may be BN layers and were not judged."""
    groups = (
        _cut(f"{_cut(group.name, _LONGEST_NAME)}: {group.reason}", _LONGEST_LINE)
        for group in item.unchecked[:_NAMED]
    )
    title = f"{plural(len(item.unchecked), 'group')} not checked"
    return _Annotation(
        "notice", title, (_cut(item.path, _LONGEST_LINE), *groups), _shown_path(item)
    )


def _why_not_checked(report: Report) -> str:
    unchecked = [group.name for item in report.checkpoints for group in item.unchecked]
    if not report.layer_count and unchecked:
        names = ", ".join(_cut(name, _LONGEST_NAME) for name in unchecked[:_NAMED])
        return f"No BN layer could be checked; what may be one: {names}."
    if not report.layer_count:
        return "No file had a batch-normalization layer. `bninspect list -v` shows all names."
    since = next(item.since.path for item in report.checkpoints if item.since is not None)
    return f"No BN layer could be compared with {_cut(since, _LONGEST_LINE)} (--since)."


def _of_checkpoint(item: CheckpointReport, severity: Severity) -> Iterator[_Annotation]:
    groups: dict[str, list[Finding]] = {}
    for finding in item.findings:
        if finding.severity == severity:
            groups.setdefault(finding.rule.code, []).append(finding)
    for code, group in sorted(groups.items()):
        layers = {finding.layer for finding in group}
        rule = group[0].rule
        counted = f"{len(layers)} of {plural(item.layer_count, 'BN layer')}"
        head = f"{_cut(item.path, _LONGEST_LINE)}: {rule.summary}"
        lines = (head, *_lines(group), f"more: {more_on(group)}")
        title = f"{code} {rule.name}: {counted}"
        yield _Annotation(_LEVELS[severity], title, lines, _shown_path(item))


def _lines(group: Sequence[Finding]) -> Iterator[str]:
    for finding in group[:_NAMED]:
        yield _cut(f"{_cut(finding.layer, _LONGEST_NAME)}: {finding.message}", _LONGEST_LINE)
    if len(group) > _NAMED:
        yield and_more(len(group) - _NAMED)
    evidence = _different(fact for finding in group for fact in finding.evidence)
    if evidence:
        yield _cut(f"evidence: {'; '.join(evidence)}", 2 * _LONGEST_LINE)
    if causes := _different(finding.cause for finding in group):
        proved = sum(finding.cause is not None for finding in group)
        of = "" if proved == len(group) else f" (of {proved} of {plural(len(group), 'finding')})"
        yield f"cause: {', '.join(causes)}{of}"
    elif cause := cause_in_words(group[0]):
        yield f"cause: {cause}"
    suspects = _different(text for finding in group for text in suspects_in_words(finding)[:1])
    for suspect in suspects[:_FIXES]:
        yield _cut(f"likely: {suspect}", _LONGEST_LINE)
    for fix in _different(finding.fix for finding in group)[:_FIXES]:
        yield _cut(f"fix: {fix}", _LONGEST_FIX)


def _different(texts: Iterable[str | None]) -> list[str]:
    """Return each text once, in the order of the first occurrences."""
    return list(dict.fromkeys(printable(text) for text in texts if text))


def _shown_path(item: CheckpointReport) -> str:
    path = file_of(item)
    return in_repository(path) or path


def _within_limits(annotations: Sequence[_Annotation]) -> list[_Annotation]:
    """Return as many annotations of each level as a step may have, and one that counts the rest."""
    shown: dict[Level, list[_Annotation]] = {level: [] for level in _LEVELS.values()}
    left_out: list[_Annotation] = []
    for annotation in annotations:
        (shown[annotation.level] if len(shown[annotation.level]) < _PER_LEVEL else left_out).append(
            annotation
        )
    if not left_out:
        return list(annotations)
    remaining = [annotation for level in shown.values() for annotation in level]
    level = min((annotation.level for annotation in left_out), key=list(shown).index)
    last = max(index for index, annotation in enumerate(remaining) if annotation.level == level)
    left_out.append(remaining.pop(last))
    counts = (
        plural(sum(annotation.level == level_left_out for annotation in left_out), word)
        for level_left_out, word in zip(shown, SEVERITIES, strict=True)
        if any(annotation.level == level_left_out for annotation in left_out)
    )
    sentence = (
        f"GitHub shows {_PER_LEVEL} annotations of a kind. The log of the step has the others."
    )
    return [*remaining, _Annotation(level, f"not shown here: {', '.join(counts)}", (sentence,))]


def _command(annotation: _Annotation) -> str:
    message = "\n".join(printable(line) for line in annotation.lines)
    units = message.encode("utf-16-le")
    if len(units) > 2 * _LONGEST_MESSAGE:  # characters that are shown escaped are longer
        message = units[: 2 * _LONGEST_MESSAGE - 2].decode("utf-16-le", "ignore") + "…"
    properties = [f"title={_property(annotation.title)}"]
    if annotation.file is not None:
        properties.insert(0, f"file={_property(annotation.file)}")
    return f"::{annotation.level} {','.join(properties)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return printable(_data(text).replace(":", "%3A").replace(",", "%2C"))


def _cut(text: str, longest: int) -> str:
    """Return a text without its middle, if it is too long: the end of a path says most."""
    text = printable(text)
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
