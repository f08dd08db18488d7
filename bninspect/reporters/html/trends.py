"""Views of the layers of one training over its checkpoints, as `compare` has them."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

from bninspect.model.roles import STATISTICS, Role
from bninspect.reporters.html.charts import Trend, number, trend
from bninspect.verdicts.comparison import Comparison, LayerHistory


class TrendView(NamedTuple):
    """A layer over time: a chart and the largest change of each statistic, and its standstill.

    `charts` are (role, chart, largest change from the first to the last checkpoint, in words).
    `place` is its number among the layers, from 0.
    """

    place: int
    name: str
    charts: tuple[tuple[Role, Trend, str], ...]
    stood_still: str
    events: tuple[str, ...]

    @property
    def moves(self) -> bool:
        """Return whether it never stood still and is finite."""
        return not self.stood_still


class TimesView(NamedTuple):
    """A training over time: its checkpoints, what contradicts their order, and its layers.

    `steps` are the places of the checkpoints on the axis. The layers come as the newest checkpoint
    has them, then those that are gone. `standstill` says how many stood still, and when.
    """

    labels: tuple[str, ...]
    steps: tuple[float, ...]
    notes: tuple[str, ...]
    layers: tuple[TrendView, ...]
    histories: tuple[LayerHistory, ...]
    standstill: tuple[tuple[str, int], ...]


def times_view(comparison: Comparison) -> TimesView:
    """Return the view of a comparison; the notes of each checkpoint are shown elsewhere."""
    steps = _steps(comparison)
    own = {f"{item.path}: {note}" for item in comparison.checkpoints for note in item.notes}
    layers = tuple(
        TrendView(
            place,
            layer.name,
            tuple(_chart(comparison, layer, role, steps) for role in STATISTICS),
            _when(comparison, layer),
            layer.events,
        )
        for place, layer in enumerate(comparison.layers)
    )
    notes = tuple(note for note in comparison.notes if note not in own)
    standstill = Counter(layer.stood_still for layer in layers if layer.stood_still)
    return TimesView(
        comparison.labels,
        tuple(steps),
        notes,
        layers,
        comparison.layers,
        tuple(standstill.most_common()),
    )


def _steps(comparison: Comparison) -> list[float]:
    """Return the places of checkpoints on the axis: their steps if those grow, else 0, 1, 2."""
    stored = [item.step for item in comparison.checkpoints]
    steps = [float(step) for step in stored if step is not None]
    if len(steps) == len(stored) and all(before < after for before, after in pairwise(steps)):
        return steps
    return [float(index) for index in range(len(stored))]


def _chart(
    comparison: Comparison, layer: LayerHistory, role: Role, steps: list[float]
) -> tuple[Role, Trend, str]:
    values = [None if state is None else state.values.get(role) for state in layer.layers]
    drawn = trend(
        [None if state is None else state.mean for state in values],
        [
            None if state is None or not state.channels else (state.minimum, state.maximum)
            for state in values
        ],
        steps,
        [changes[role].moved if role in changes else None for changes in layer.changes],
        comparison.labels,
    )
    return role, drawn, _change(layer, role)


def _change(layer: LayerHistory, role: Role) -> str:
    change = layer.total.get(role)
    if change is None:
        return "cannot be compared"
    if not change.moved:
        return "came back" if layer.moved(role) else "stood still"
    if change.largest is None or not math.isfinite(change.largest):
        return "moved"
    return f"moved by {number(change.largest)}"


def _when(comparison: Comparison, layer: LayerHistory) -> str:
    """Return when the statistics stood still, and when a member held NaN or infinity."""
    still = layer.lasting(layer.stretches)
    if still is not None and still.never_moved:
        phrases = ["never moved"]
    else:
        phrases = [comparison.when(stretch) for stretch in layer.stretches]
    phrases += [f"not finite {comparison.when(stretch)}" for stretch in layer.not_finite]
    return "; ".join(phrases)
