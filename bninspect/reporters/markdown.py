"""`check` as Markdown, for the summary of a CI job: the answer, then the findings in groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TextIO

from bninspect.errors import shortened
from bninspect.model.report import CheckpointReport, Report
from bninspect.reporters.escapes import printable
from bninspect.reporters.finding_groups import FindingGroup, FindingGroups, Hit
from bninspect.reporters.html.verdicts import run_view
from bninspect.rules.pages import documentation_url
from bninspect.wording import and_more, plural

# GitHub refuses a summary of more than 1 MiB, so no list is endless.
_NAMED, _LAYERS_NAMED = 50, 5
_SPECIAL = re.compile(r"([\\`*_\[\]<>#!|~&$])")


class MarkdownReport:
    """Writer of a run: a heading with the answer, one section per group of findings."""

    needs_layers = False
    needs_checkpoints = True
    render = None

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._groups = FindingGroups()
        self._unreadable: list[str] = []

    def add(self, item: CheckpointReport, _: None) -> None:
        """Add the findings of one checkpoint to their groups."""
        self._groups.add(item)
        if item.error is not None:
            self._unreadable.append(str(item.error))

    def end(self, report: Report) -> None:
        """Write the groups, the gravest first, then what could not be read."""
        run = run_view(report)
        lines = [f"## bninspect: {run.status}", "", _plain(run.verdict), ""]
        for group in self._groups.gravest_first():
            lines += [*_section(group), ""]
        if self._unreadable:
            lines += [f"### {plural(len(self._unreadable), 'file')} could not be read", ""]
            lines += [*(f"- {_plain(text)}" for text in self._unreadable[:_NAMED])]
            lines += [*_rest(len(self._unreadable)), ""]
        groups = self._groups.notes()
        notes = [*run.notes, *(group.in_words for group in groups[:_NAMED])]
        lines += [f"- {_plain(note)}" for note in notes]
        lines += _rest(len(groups))
        lines += [""] if notes else []
        self._stream.write("\n".join([*lines, _plain(run.summary)]) + "\n")


def _section(group: FindingGroup) -> Iterator[str]:
    first = group.first
    url = documentation_url(first.rule)
    yield f"### {first.severity}: {group.title}"
    yield ""
    yield _plain(f"{first.rule.summary}.")
    yield ""
    if group.cause:
        yield f"- **Cause:** {_plain(group.cause)}"
    if group.likely:
        yield f"- **Likely:** {_plain(group.likely)}"
    yield f"- **Fix:** {_plain(first.fix)}"
    yield f"- **More:** {_code(group.more)}, [{first.rule.code}]({url})"
    yield ""
    yield f"<details><summary>{plural(len(group.hits), 'checkpoint')}</summary>"
    yield ""
    for hit in group.hits[:_NAMED]:
        yield f"- {_code(hit.path)}: {hit.in_words} ({_layers(hit)})"
    yield from _rest(len(group.hits))
    yield ""
    yield "</details>"


def _layers(hit: Hit) -> str:
    names = ", ".join(_code(name) for name in hit.layers[:_LAYERS_NAMED])
    left = len(hit.layers) - _LAYERS_NAMED
    return f"{names}, {and_more(left)}" if left > 0 else names


def _rest(count: int) -> Iterator[str]:
    if count > _NAMED:
        yield f"- {and_more(count - _NAMED)}"


def _plain(text: str) -> str:
    """Return a sentence as Markdown; what stands between backticks stays code."""
    parts = printable(shortened(text)).split("`")
    if len(parts) % 2 == 0:  # a backtick of a name, that begins nothing
        return _escaped("`".join(parts))
    return "".join(_code(part) if index % 2 else _escaped(part) for index, part in enumerate(parts))


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _code(text: str) -> str:
    """Return a code span, whose fence is longer than any run of backticks in the text."""
    shown = printable(shortened(text))
    longest = max(map(len, re.findall("`+", shown)), default=0)
    if not shown.strip():
        return _escaped(repr(shown))
    fence, gap = "`" * (longest + 1), " " if "`" in shown else ""
    return f"{fence}{gap}{shown}{gap}{fence}"
