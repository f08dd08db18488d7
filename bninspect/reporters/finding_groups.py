"""Findings of a whole run in groups: what has one rule, cause, framework and fix is said once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bninspect.model.report import CheckpointReport, Finding
from bninspect.model.rule import SEVERITIES
from bninspect.reporters.verdict_text import cause_in_words, more_on, notes_on
from bninspect.wording import plural

_Key = tuple[str, str, str | None, str | None, str]


class Hit(NamedTuple):
    """The layers of one checkpoint that a group of findings is about, of `layer_count` in all."""

    path: str
    layers: tuple[str, ...]
    layer_count: int

    @property
    def in_words(self) -> str:
        """Return how many of the checkpoint's layers are hit."""
        return f"{len(self.layers)} of {plural(self.layer_count, 'BN layer')}"


class FindingGroup(NamedTuple):
    """Findings that differ in checkpoint and layer alone; `first` stands for all of them.

    `suspects` are the names of the reasons that come first where no cause is proved, each with the
    number of checkpoints, the most frequent first.
    """

    first: Finding
    hits: tuple[Hit, ...]
    suspects: tuple[tuple[str, int], ...]

    @property
    def title(self) -> str:
        """Return the rule, and how much it hits."""
        layers = sum(len(hit.layers) for hit in self.hits)
        return (
            f"{self.first.rule.code} {self.first.rule.name}: {plural(layers, 'layer')} in"
            f" {plural(len(self.hits), 'checkpoint')}"
        )

    @property
    def cause(self) -> str:
        """Return the cause in words; empty if the rule has none."""
        return cause_in_words(self.first, "these files" if len(self.hits) > 1 else "this file")

    @property
    def likely(self) -> str:
        """Return the suspects in words; empty without any."""
        if len(self.suspects) == 1:
            return self.suspects[0][0]
        return ", ".join(f"{name} (in {count})" for name, count in self.suspects)

    @property
    def more(self) -> str:
        """Return the command that shows the page of the rule."""
        return more_on((self.first,))


class NoteGroup(NamedTuple):
    """A note on some checkpoints, by their number; `path` is the first of them."""

    note: str
    path: str
    checkpoints: int

    @property
    def in_words(self) -> str:
        """Return the note with the checkpoints that it is about."""
        others = self.checkpoints - 1
        also = f" (and {plural(others, 'other checkpoint')})" if others else ""
        return f"{self.path}{also}: {self.note}"


class FindingGroups:
    """The groups of a run, to which checkpoints are added one by one."""

    def __init__(self) -> None:
        self._notes: dict[str, NoteGroup] = {}
        self._findings: dict[_Key, Finding] = {}
        self._hits: dict[_Key, list[Hit]] = {}
        self._suspects: dict[_Key, Counter[str]] = {}

    def add(self, item: CheckpointReport) -> None:
        """Add the findings of a checkpoint, and the notes, which say what was not judged."""
        for note in notes_on(item):
            known = self._notes.get(note, NoteGroup(note, item.path, 0))
            self._notes[note] = known._replace(checkpoints=known.checkpoints + 1)
        for key, findings in _by_key(item.findings):
            first = self._findings.setdefault(key, findings[0])
            layers = tuple(dict.fromkeys(finding.layer for finding in findings))
            self._hits.setdefault(key, []).append(Hit(item.path, layers, item.layer_count))
            suspects = self._suspects.setdefault(key, Counter())
            if first.cause is None:
                suspects.update({f.possible_causes[0].cause for f in findings if f.possible_causes})

    def notes(self) -> list[NoteGroup]:
        """Return the notes on checkpoints, each once, those on the most checkpoints first."""
        return sorted(self._notes.values(), key=lambda group: -group.checkpoints)

    def gravest_first(self) -> list[FindingGroup]:
        """Return the groups, the gravest first, then those that hit the most checkpoints."""
        groups = [
            FindingGroup(first, tuple(self._hits[key]), tuple(self._suspects[key].most_common()))
            for key, first in self._findings.items()
        ]
        return sorted(
            groups,
            key=lambda group: (
                SEVERITIES.index(group.first.severity),
                -len(group.hits),
                group.first.rule.code,
            ),
        )


def _by_key(findings: Iterable[Finding]) -> Iterator[tuple[_Key, list[Finding]]]:
    groups: dict[_Key, list[Finding]] = {}
    for finding in findings:
        same = (finding.cause, finding.framework, finding.fix)
        groups.setdefault((finding.severity, finding.rule.code, *same), []).append(finding)
    yield from groups.items()
