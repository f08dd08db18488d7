"""Comparison of the checkpoints of one training: the changes of each BN layer. No I/O.

Checkpoints come oldest first; the *interval* k is from checkpoint k to checkpoint k + 1. Time and
memory grow with layers times checkpoints: each is compared only with the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import NamedTuple

from bninspect.evidence.changes import (
    affine_moved,
    changes_between,
    differences,
    facts_of_training,
    match_layers,
    stood_still,
)
from bninspect.model.layer import BNLayer, Change, Movement, Since
from bninspect.model.report import CheckpointReport, Finding
from bninspect.model.roles import STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext
from bninspect.rules import RULES, apply_rules
from bninspect.rules.numeric import NEGATIVE_VARIANCE, NOT_FINITE
from bninspect.wording import plural

Changes = Mapping[Role, Change]

_OVER = (
    "Nothing to fix in the newest checkpoint: this was over before it. Find what was different"
    " about the training until then, so that it does not come back."
)


class Stretch(NamedTuple):
    """Checkpoints `first` to `last`, in which a layer had the same state.

    `findings` are those of a rule on it. `or_earlier` says that it may have begun before `first`:
    no earlier checkpoint shows another state. `never_moved` says that the statistics are at their
    initial values in every checkpoint up to `last`.
    """

    first: int
    last: int
    findings: tuple[Finding, ...]
    or_earlier: bool = False
    never_moved: bool = False


@dataclass(frozen=True, eq=False)
class LayerHistory:
    """One layer through all checkpoints.

    `layers` has the layer in each checkpoint, None if there is none. `changes` has for each
    interval the changes of the members that can be compared, `total` those from the first to the
    last checkpoint that have the layer. `events` are sentences on the layer itself: it appears,
    vanishes, changes shape, type or name. `stretches` are the times when its statistics stood still
    (BN107), `not_finite` when a member held NaN or infinity (BN301), `negative` when a variance was
    below 0 (BN302).
    """

    layers: tuple[BNLayer | None, ...]
    changes: tuple[Changes, ...]
    total: Changes
    events: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    not_finite: tuple[Stretch, ...]
    negative: tuple[Stretch, ...]

    @property
    def last(self) -> BNLayer:
        """Return the layer in the newest checkpoint that has it."""
        return next(layer for layer in reversed(self.layers) if layer is not None)

    @property
    def name(self) -> str:
        """Return its name in the newest checkpoint that has it."""
        return self.last.name

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return the findings of all stretches."""
        return tuple(finding for stretch in self.judged for finding in stretch.findings)

    @property
    def judged(self) -> tuple[Stretch, ...]:
        """Return all stretches, those that stood still first."""
        return (*self.stretches, *self.not_finite, *self.negative)

    @property
    def compared(self) -> bool:
        """Return whether any member could be compared."""
        return any(self.changes)

    @property
    def still_since(self) -> int | None:
        """Return the checkpoint since which no statistic moved, up to the newest, or None."""
        stretch = self.lasting(self.stretches)
        return None if stretch is None else stretch.first

    def lasting(self, stretches: Sequence[Stretch]) -> Stretch | None:
        """Return the stretch that lasts up to the newest checkpoint, if one does."""
        lasts = stretches and stretches[-1].last == len(self.changes)
        return stretches[-1] if lasts else None

    def moved(self, *roles: Role) -> bool:
        """Return whether one of some members moved in any interval."""
        return any(
            role in changes and changes[role].moved for changes in self.changes for role in roles
        )

    def __repr__(self) -> str:
        return f"<LayerHistory {self.name}: {plural(len(self.findings), 'finding')}>"


@dataclass(frozen=True, eq=False)
class Comparison:
    """The changes of every BN layer from checkpoint to checkpoint.

    `checkpoints` are those that could be read, oldest first; `unreadable` are the others. `labels`
    are the names of the former in sentences.
    """

    checkpoints: tuple[CheckpointReport, ...]
    unreadable: tuple[CheckpointReport, ...]
    labels: tuple[str, ...]
    layers: tuple[LayerHistory, ...]
    notes: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return the findings of all layers."""
        return tuple(finding for layer in self.layers for finding in layer.findings)

    @property
    def step_goes_back(self) -> tuple[int, int] | None:
        """Return the first two consecutive steps of which the second is smaller, or None."""
        steps = [item.step for item in self.checkpoints if item.step is not None]
        return next(((a, b) for a, b in pairwise(steps) if a > b), None)

    def when(self, stretch: Stretch) -> str:
        """Return the time of a stretch: `since step 40`, `from step 40 until step 60`."""
        return _when(stretch, self.labels)

    def __repr__(self) -> str:
        checkpoints = plural(len(self.checkpoints), "checkpoint")
        layers = plural(len(self.layers), "BN layer")
        return f"<Comparison of {checkpoints}, {layers}: {plural(len(self.findings), 'finding')}>"


def compare_checkpoints(reports: Sequence[CheckpointReport]) -> Comparison:
    """Compare checkpoints whose values have been read, each with the one before it."""
    readable = tuple(report for report in reports if report.error is None)
    labels = _labels(readable)
    tracks = _tracks(readable)
    changes = [
        tuple(
            {} if before is None or after is None else changes_between(before, after)
            for before, after in pairwise(track)
        )
        for track in tracks
    ]
    trained = [
        sum(affine_moved(track[interval]) for track in changes)
        for interval in range(len(readable) - 1)
    ]
    run = _Run(readable, labels, trained)
    return Comparison(
        checkpoints=readable,
        unreadable=tuple(report for report in reports if report.error is not None),
        labels=labels,
        layers=tuple(_history(run, *pair) for pair in zip(tracks, changes, strict=True)),
        notes=tuple(_notes(readable)),
    )


class _Run(NamedTuple):
    """Data that the layers of a comparison share; `trained` counts moved gammas and betas."""

    checkpoints: tuple[CheckpointReport, ...]
    labels: tuple[str, ...]
    trained: list[int]


def _labels(checkpoints: Sequence[CheckpointReport]) -> tuple[str, ...]:
    """Return labels such as `step 20` if all have a step of their own, else the paths."""
    steps = [item.step for item in checkpoints]
    if None not in steps and len({*steps}) == len(steps):
        return tuple(f"step {step}" for step in steps)
    return tuple(item.path for item in checkpoints)


def _notes(checkpoints: Sequence[CheckpointReport]) -> Iterator[str]:
    """Yield a note on each contradiction of the order, and the notes of each checkpoint."""
    stored = [item for item in checkpoints if item.step is not None]
    for before, after in pairwise(stored):
        if (before.step or 0) > (after.step or 0):
            yield (
                f"the stored steps contradict the order: {before.path} is of step {before.step},"
                f" {after.path} after it of step {after.step}; checkpoints go oldest first (an"
                " optimizer that was made anew, as by compiling again, counts from 0)"
            )
    for item in checkpoints:
        for note in item.notes:
            yield f"{item.path}: {note}"


def _tracks(checkpoints: Sequence[CheckpointReport]) -> list[tuple[BNLayer | None, ...]]:
    """Return each layer through all checkpoints, in the order of the newest, missing ones last."""
    tracks: list[list[BNLayer | None]] = []
    newest: list[BNLayer] = []  # the last layer of each track
    order: list[int] = []
    for number, item in enumerate(checkpoints):
        matched = match_layers(newest, item.layers)
        for track in tracks:
            track.append(None)
        order = []
        for index, layer in enumerate(item.layers):
            track_number = matched.get(index)
            if track_number is None:
                track_number = len(tracks)
                tracks.append([None] * (number + 1))
                newest.append(layer)
            tracks[track_number][number] = layer
            newest[track_number] = layer
            order.append(track_number)
    shown = {*order}
    order += [number for number in range(len(tracks)) if number not in shown]
    return [tuple(tracks[number]) for number in order]


def _history(
    run: _Run, layers: tuple[BNLayer | None, ...], changes: tuple[Changes, ...]
) -> LayerHistory:
    present = [layer for layer in layers if layer is not None]
    return LayerHistory(
        layers=layers,
        changes=changes,
        total=changes_between(present[0], present[-1]) if len(present) > 1 else {},
        events=tuple(_events(layers, run.labels)),
        stretches=tuple(_stretches(run, layers, changes)),
        not_finite=tuple(_wrong(run, layers, _NOT_FINITE)),
        negative=tuple(_wrong(run, layers, _NEGATIVE)),
    )


def _when(stretch: Stretch, labels: Sequence[str]) -> str:
    first, last = labels[stretch.first], labels[stretch.last]
    if stretch.last < len(labels) - 1:
        if stretch.or_earlier:
            return f"until {last}"
        return f"at {first}" if stretch.first == stretch.last else f"from {first} until {last}"
    return f"since {first} or earlier" if stretch.or_earlier else f"since {first}"


def _stretches(
    run: _Run, layers: Sequence[BNLayer | None], changes: Sequence[Changes]
) -> Iterator[Stretch]:
    """Yield each stretch in which the statistics stood still, with its finding (BN107)."""
    intervals = range(len(changes))
    still = [
        layer is not None and stood_still(layer, change)
        for layer, change in zip(layers[1:], changes, strict=True)
    ]
    for stands, group in groupby(intervals, key=still.__getitem__):
        if stands:
            members = list(group)
            first, last = members[0], members[-1] + 1
            before = changes[first - 1] if first else {}
            or_earlier = not any(role in before and before[role].moved for role in STATISTICS)
            known = (layer for layer in layers[: first + 1] if layer is not None)
            yield Stretch(
                first,
                last,
                _judge(run, layers, first, last, _moved_before(run, changes[:first])),
                or_earlier,
                or_earlier and all(layer.all_initial for layer in known),
            )


class _Defect(NamedTuple):
    """A defect that one checkpoint alone shows: its rule, its test, and the words for no defect."""

    rule: Rule
    is_in: Callable[[BNLayer], bool]
    otherwise: str


_NOT_FINITE = _Defect(NOT_FINITE, lambda layer: not layer.is_finite, "all of it was finite")
_NEGATIVE = _Defect(
    NEGATIVE_VARIANCE, lambda layer: layer.has_negative_variance, "no variance was below 0"
)


def _wrong(run: _Run, layers: Sequence[BNLayer | None], defect: _Defect) -> Iterator[Stretch]:
    """Yield each stretch in which a layer had a defect, with the finding of its rule."""
    wrong = [layer is not None and defect.is_in(layer) for layer in layers]
    for is_wrong, group in groupby(range(len(layers)), key=wrong.__getitem__):
        members = list(group)
        first, last = members[0], members[-1]
        layer = layers[last]
        if not is_wrong or layer is None:
            continue
        or_earlier = first == 0 or layers[first - 1] is None
        stretch = Stretch(first, last, (), or_earlier)
        findings = apply_rules([layer], [defect.rule], _context_of(run.checkpoints[last]))
        when = _when(stretch, run.labels)
        dated = tuple(
            finding._replace(message=f"{finding.message}; {when}") for finding in findings
        )
        if not or_earlier:
            fact = f"{defect.otherwise} at {run.labels[first - 1]}"
            dated = tuple(finding._replace(evidence=(*finding.evidence, fact)) for finding in dated)
        yield stretch._replace(findings=_as_of_today(dated, run, last))


def _as_of_today(findings: tuple[Finding, ...], run: _Run, last: int) -> tuple[Finding, ...]:
    """Downgrade errors that ended before the newest checkpoint to warnings that say when."""
    if last == len(run.labels) - 1:
        return findings
    ended = f"this lasted until {run.labels[last]}"
    ended_findings = tuple(
        finding._replace(evidence=(*finding.evidence, ended)) for finding in findings
    )
    return tuple(
        finding._replace(severity="warning", fix=_OVER) if finding.severity == "error" else finding
        for finding in ended_findings
    )


def _moved_before(run: _Run, changes: Sequence[Changes]) -> Movement | None:
    """Return the last of some intervals in which a statistic moved."""
    for interval in reversed(range(len(changes))):
        if any(role in changes[interval] and changes[interval][role].moved for role in STATISTICS):
            when = f"from {run.labels[interval]} to {run.labels[interval + 1]}"
            return Movement(when, run.checkpoints[interval + 1].graphs)
    return None


def _judge(
    run: _Run,
    layers: Sequence[BNLayer | None],
    first: int,
    last: int,
    moved_before: Movement | None,
) -> tuple[Finding, ...]:
    before, after = layers[first], layers[last]
    if before is None or after is None:
        return ()
    facts = facts_of_training(
        [item.step for item in run.checkpoints[first : last + 1]],
        max(run.trained[first:last]),
        len(run.checkpoints[last].layers),
    )
    since = Since(run.labels[first], changes_between(before, after), facts, moved_before)
    rules = [rule for rule in RULES if rule.needs_earlier]
    context = _context_of(run.checkpoints[last])
    return _as_of_today(apply_rules([replace(after, since=since)], rules, context), run, last)


def _context_of(item: CheckpointReport) -> RuleContext:
    """Return what rules may use of one checkpoint besides the layer."""
    return RuleContext(
        graph=item.graph, format=item.format or "", resolved=item.resolved or item.path
    )


def _events(layers: Sequence[BNLayer | None], labels: Sequence[str]) -> Iterator[str]:
    """Yield sentences on what happened to the layer itself, from checkpoint to checkpoint."""
    known: BNLayer | None = None
    for number, layer in enumerate(layers):
        if layer is None:
            if number and layers[number - 1] is not None:
                yield f"vanishes at {labels[number]}"
            continue
        if number and layers[number - 1] is None:
            yield f"appears at {labels[number]}"
        if known is not None:
            if known.name != layer.name:
                yield f"was called {known.name}, taken for {layer.name} at {labels[number]}"
            for difference in differences(known, layer):
                yield f"{difference} at {labels[number]}"
        known = layer
