"""Data that the script of the page draws: distributions, values of channels, trends.

They stand in the page as JSON. Names in them are printable; numbers are rounded to what a chart
shows, except for the values of channels, which are float32.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from bninspect.errors import ReadProblem
from bninspect.model.layer import BNLayer, Values
from bninspect.model.report import CheckpointReport, Finding
from bninspect.model.roles import ROLES
from bninspect.reporters.escapes import json_text, printable
from bninspect.reporters.html.charts import Bins, Trend
from bninspect.reporters.html.layers import STATES, LayerView, distributions, missing
from bninspect.reporters.html.trends import TimesView

# How many values of channels are in one page. A ResNet-50 has 106,240; each takes 5.3 bytes.
CHANNEL_VALUES = 110_000
# How many layers, counted once per checkpoint of a training, have their distributions in the page.
_SNAPSHOTS = 5_000


def as_json(document: object) -> Markup:
    """Return a document for a `script` element: nothing in it can end the element."""
    return Markup(json_text(document).replace("<", "\\u003c"))  # noqa: S704 - escaped here


class ChannelBudget:
    """What is left of the values of channels that a page may have."""

    def __init__(self) -> None:
        self._left = CHANNEL_VALUES

    def take(self, layer: BNLayer) -> dict[str, Any] | None:
        """Return the values of a layer by role; None if too many are in the page already."""
        count = sum(1 if values.constant else values.channels for values in layer.values.values())
        if not 0 < count <= self._left:
            return None
        self._left -= count
        return {role: _encoded(values) for role, values in layer.values.items()}


def _encoded(values: Values) -> str | tuple[float, int]:
    """Return values of shape (C,): their only number and C, or their float32 as base64."""
    if values.constant and math.isfinite(values.minimum):
        return values.minimum, values.channels
    with np.errstate(all="ignore"):
        narrow = np.ascontiguousarray(values.array, "<f4")
    return base64.b64encode(narrow.tobytes()).decode("ascii")


def snapshot(
    item: CheckpointReport,
    views: Sequence[LayerView],
    label: str,
    budget: ChannelBudget,
    *,
    with_graph: bool,
) -> dict[str, Any]:
    """Return the data of a checkpoint: its layers, in the order of `views`.

    Layers with findings come first where not all can have the values of their channels. The layer
    before is named as the configuration has it, else, `with_graph`, as the graph has it.
    """
    gravity = list(STATES)
    order = sorted(range(len(views)), key=lambda index: gravity.index(views[index].state))
    channels = {index: budget.take(item.layers[index]) for index in order}
    return {
        "label": printable(label),
        "layers": [
            _layer(layer, view, channels[index], _before(item, layer, with_graph=with_graph))
            for index, (layer, view) in enumerate(zip(item.layers, views, strict=True))
        ],
    }


def _before(item: CheckpointReport, layer: BNLayer, *, with_graph: bool) -> str:
    """Return the layer before, as it is stored, with its class or operation; else nothing."""
    if layer.keras is not None and layer.keras.before is not None:
        return "{} ({})".format(*layer.keras.before)
    if not with_graph:
        return ""
    try:
        evidence = item.graph(layer)
    except ReadProblem:  # it is no part of the verdict
        return ""
    if evidence is None or evidence.input_from is None:
        return ""
    return "{} ({})".format(*evidence.input_from)


def _layer(
    layer: BNLayer, view: LayerView, channels: dict[str, Any] | None, before: str
) -> dict[str, Any]:
    found = [
        [finding.severity, finding.rule.code, printable(finding.message)]
        for finding in view.findings
    ]
    found += [["muted", finding.rule.code, _message(finding)] for finding in view.muted]
    document: dict[str, Any] = {
        "id": view.id,
        "name": printable(view.name),
        "cells": "".join(cell.state[0] for cell in view.cells),
        "facts": [printable(fact) for fact in view.facts],
        "bins": [
            missing(layer, name) if bins is None else _bins(bins)
            for name, bins in distributions(layer)
        ],
    }
    if found:
        document["findings"] = found
    if before:
        document["before"] = printable(before)
    if channels is not None:
        document["channels"] = channels
    return document


def _message(finding: Finding) -> str:
    return printable(f"{STATES['muted']}: {finding.message}")


def _bins(bins: Bins) -> list[Any] | str:
    """Return bins as a list, or what there is instead of values."""
    if not bins.counts:
        return bins.spread
    return [
        list(bins.counts),
        _rounded(bins.low),
        _rounded(bins.high),
        int(bins.logarithmic),
        None if bins.initial is None else _rounded(bins.initial),
        bins.at_initial,
        bins.spread,
        bins.lost,
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def over_time(view: TimesView, targets: Mapping[str, str]) -> dict[str, Any]:
    """Return the data of a training: its trends, and the distributions at earlier checkpoints."""
    layers = view.histories
    shown: Sequence[int] = range(len(view.labels) - 1)
    if len(view.labels) * len(layers) > _SNAPSHOTS:
        shown = (0,)  # the first, to be compared with the newest
    return {
        "labels": [printable(label) for label in view.labels],
        "at": view.steps,
        "layers": [
            {
                "name": printable(layer.name),
                "id": targets.get(layer.name),
                "trends": [_trend(chart) for _, chart, _ in layer.charts],
            }
            for layer in view.layers
        ],
        "earlier": [
            {
                "label": printable(view.labels[index]),
                "bins": [_earlier(history.layers[index]) for history in layers],
            }
            for index in shown
        ],
    }


def _earlier(layer: BNLayer | None) -> list[Any] | None:
    """Return the distributions of the members of a layer; None where there is no such layer."""
    if layer is None:
        return None
    return [
        missing(layer, name) if bins is None else _bins(bins)
        for name, bins in distributions(layer)
        if name in ROLES
    ]


def _trend(trend: Trend) -> list[Any]:
    return [
        trend.at,
        [_rounded(value) for value in trend.means],
        [_rounded(value) for value in trend.lows],
        [_rounded(value) for value in trend.highs],
        trend.still,
        printable(trend.description),
    ]
