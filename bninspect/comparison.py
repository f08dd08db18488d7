"""Several checkpoints of one training → what became of each BN layer. No I/O.

Checkpoints come oldest first; the *interval* k lies between checkpoint k and checkpoint k + 1.
Time and memory grow with layers times checkpoints: each is compared with its neighbour alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import NamedTuple

from bninspect.evidence.history import (
    affine_moved,
    changes_between,
    facts_of_training,
    match_layers,
)
from bninspect.findings import CheckpointReport, Finding, RuleContext
from bninspect.model import ROLES, STATISTICS, BNLayer, Change, Role, Since
from bninspect.rules import apply_rules, select_rules

Changes = Mapping[Role, Change]


class Stretch(NamedTuple):
    """Checkpoints `first` to `last`, between which no statistic of a layer moved.

    `findings` is what BN107 says of it.
    """

    first: int
    last: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, eq=False)
class LayerHistory:
    """One layer through all checkpoints.

    `layers` holds it as found in each checkpoint, None where it is not. `changes` holds for each
    interval what became of the members that can be compared, `total` the same from the first to
    the last checkpoint that have the layer. `events` are sentences on what happened to the layer
    itself: it appears, vanishes, changes shape, type or name. `stretches` is when its statistics
    stood still.
    """

    layers: tuple[BNLayer | None, ...]
    changes: tuple[Changes, ...]
    total: Changes
    events: tuple[str, ...]
    stretches: tuple[Stretch, ...]

    @property
    def last(self) -> BNLayer:
        """The layer in the newest checkpoint that has it."""
        return next(layer for layer in reversed(self.layers) if layer is not None)

    @property
    def name(self) -> str:
        """What the newest checkpoint that has it calls it."""
        return self.last.name

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all stretches."""
        return tuple(finding for stretch in self.stretches for finding in stretch.findings)

    @property
    def compared(self) -> bool:
        """Whether anything of it could be compared at all."""
        return any(self.changes)

    @property
    def still_since(self) -> int | None:
        """The checkpoint since which no statistic moved, up to the newest; None if they moved."""
        if not self.stretches or self.stretches[-1].last < len(self.changes):
            return None
        return self.stretches[-1].first

    def moved(self, *roles: Role) -> bool:
        """Whether one of some members moved in any interval."""
        return any(role in one and one[role].moved for one in self.changes for role in roles)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What became of every BN layer from checkpoint to checkpoint.

    `checkpoints` are those that could be read, oldest first; `unreadable` are the others. `labels`
    is what sentences call each of the former.
    """

    checkpoints: tuple[CheckpointReport, ...]
    unreadable: tuple[CheckpointReport, ...]
    labels: tuple[str, ...]
    layers: tuple[LayerHistory, ...]
    notes: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all layers."""
        return tuple(finding for layer in self.layers for finding in layer.findings)


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
    """What the layers of one comparison share; `trained` counts gammas and betas by interval."""

    checkpoints: tuple[CheckpointReport, ...]
    labels: tuple[str, ...]
    trained: list[int]


def _labels(checkpoints: Sequence[CheckpointReport]) -> tuple[str, ...]:
    """`step 20` where steps are stored and tell the checkpoints apart, else their paths."""
    steps = [item.step for item in checkpoints]
    if None not in steps and len({*steps}) == len(steps):
        return tuple(f"step {step}" for step in steps)
    return tuple(item.path for item in checkpoints)


def _notes(checkpoints: Sequence[CheckpointReport]) -> Iterator[str]:
    """What contradicts the order, and what each checkpoint has to say of itself."""
    stored = [item for item in checkpoints if item.step is not None]
    for before, after in pairwise(stored):
        if (before.step or 0) > (after.step or 0):
            yield (
                f"the stored steps contradict the order: {before.path} is of step {before.step},"
                f" {after.path} after it of step {after.step}; checkpoints go oldest first"
            )
    for item in checkpoints:
        for note in item.notes:
            yield f"{item.path}: {note}"


def _tracks(checkpoints: Sequence[CheckpointReport]) -> list[tuple[BNLayer | None, ...]]:
    """Each layer through all checkpoints: in the order of the newest, then those that are gone."""
    tracks: list[list[BNLayer | None]] = []
    newest: list[BNLayer] = []  # what each track was last seen as
    order: list[int] = []
    for number, item in enumerate(checkpoints):
        matched = match_layers(newest, item.layers)
        for track in tracks:
            track.append(None)
        order = []
        for place, layer in enumerate(item.layers):
            track_number = matched.get(place)
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
    there = [layer for layer in layers if layer is not None]
    return LayerHistory(
        layers=layers,
        changes=changes,
        total=changes_between(there[0], there[-1]) if len(there) > 1 else {},
        events=tuple(_events(layers, run.labels)),
        stretches=tuple(_stretches(run, layers, changes)),
    )


def _stretches(
    run: _Run, layers: Sequence[BNLayer | None], changes: Sequence[Changes]
) -> Iterator[Stretch]:
    """When the statistics stood still, and what BN107 says of it, once for each time."""
    intervals = range(len(changes))
    still = [_stood_still(layers[k + 1], changes[k]) for k in intervals]
    for stands, group in groupby(intervals, key=still.__getitem__):
        if stands:
            members = list(group)
            first, last = members[0], members[-1] + 1
            yield Stretch(first, last, _judge(run, layers, first, last))


def _stood_still(layer: BNLayer | None, changes: Changes) -> bool:
    """Whether all statistics that are stored could be compared, and none moved."""
    stored = [role for role in STATISTICS if layer is not None and role in layer.variables]
    return bool(stored) and all(role in changes and not changes[role].moved for role in stored)


def _judge(
    run: _Run, layers: Sequence[BNLayer | None], first: int, last: int
) -> tuple[Finding, ...]:
    before, after = layers[first], layers[last]
    if before is None or after is None:
        return ()
    facts = facts_of_training(
        (run.checkpoints[first].step, run.checkpoints[last].step),
        max(run.trained[first:last]),
        len(run.checkpoints[last].layers),
    )
    since = Since(run.labels[first], changes_between(before, after), facts)
    rules = select_rules(["BN107"], [])
    context = RuleContext(graph=run.checkpoints[last].graph)
    findings = apply_rules([replace(after, since=since)], rules, context)
    if last == len(run.labels) - 1:
        return findings
    ended = f"this lasted until {run.labels[last]}"
    return tuple(one._replace(evidence=(*one.evidence, ended)) for one in findings)


def _events(layers: Sequence[BNLayer | None], labels: Sequence[str]) -> Iterator[str]:
    """What happened to the layer itself, from checkpoint to checkpoint."""
    known: BNLayer | None = None
    for number, layer in enumerate(layers):
        if layer is None:
            if number and layers[number - 1] is not None:
                yield f"vanishes at {labels[number]}"
            continue
        if number and layers[number - 1] is None:
            yield f"appears at {labels[number]}"
        if known is not None:
            for difference in _differences(known, layer):
                yield f"{difference} at {labels[number]}"
        known = layer


def _differences(before: BNLayer, after: BNLayer) -> Iterator[str]:
    if before.name != after.name:
        yield f"was called {before.name}, taken for {after.name}"
    roles: dict[tuple[str, str], list[Role]] = {}
    for role in ROLES:
        pair = _stored(before, role), _stored(after, role)
        if pair[0] != pair[1]:
            roles.setdefault(pair, []).append(role)
    for (old, new), changed in roles.items():
        yield f"{', '.join(changed)}: from {old} to {new}"


def _stored(layer: BNLayer, role: Role) -> str:
    variable = layer.variables.get(role)
    if variable is None:
        return "nothing stored"
    return f"{variable.size} x {variable.dtype}"
