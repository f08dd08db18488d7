"""`report`: the whole page. The answer comes first, then what shows it, model by model.

Consecutive checkpoints of one training are one unit: trends over all of them, then the layers of
the newest. Only the checkpoints of one training are in memory.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

from markupsafe import Markup

from bninspect.model.report import CheckpointReport, Report
from bninspect.model.rule import Rule
from bninspect.reporters.finding_groups import FindingGroups
from bninspect.reporters.html.data import ChannelBudget, as_json, over_time, snapshot
from bninspect.reporters.html.layers import LayerView, layer_views
from bninspect.reporters.html.rendering import asset, policy, render, scripts, write
from bninspect.reporters.html.run import RunDetails
from bninspect.reporters.html.trends import times_view
from bninspect.reporters.html.verdicts import (
    CheckpointView,
    checkpoint_view,
    gravity,
    groups_of_run,
    run_view,
    verdict_on_unit,
)
from bninspect.rules import RULES
from bninspect.rules.pages import page_of
from bninspect.verdicts.comparison import compare_checkpoints

_POINTER = re.compile("`bninspect rule (BN[0-9]{3})`")
_DIGITS = re.compile("[0-9]+")
_RESUMED = (
    "its layers are not shown: this is the result of an earlier run (--resume), which has no"
    " values. Without --resume the page shows them"
)


class Unit(NamedTuple):
    """A model on the page: one checkpoint, or those of one training.

    `path` is that of the newest checkpoint, which `html` shows; `steps` has the views of all.
    `row` has the cells of the table of models.
    """

    id: str
    path: str
    status: str
    verdict: str
    steps: tuple[CheckpointView, ...]
    html: Markup
    row: ModelRow


class ModelRow(NamedTuple):
    """A row of the table of models: rules with findings that count, and their numbers."""

    rules: tuple[str, ...]
    layers: int
    errors: int
    warnings: int
    notes: int
    format: str
    steps: str


class HtmlReport:
    """Writer of one page: the answer, then one unit per model.

    `momentum` is that of the configuration; it is used to recognise dead channels. `run` is shown
    at the end of the page.
    """

    needs_layers = True
    needs_checkpoints = True
    render = None

    def __init__(
        self, stream: TextIO, *, momentum: float | None = None, run: RunDetails | None = None
    ) -> None:
        self._stream = stream
        self._momentum = momentum
        self._run = run or RunDetails()
        self._groups = FindingGroups()
        self._budget = ChannelBudget()
        self._units: list[Unit] = []
        self._reads_graph = False
        self._count = 0  # of the checkpoints in the units
        self._training: list[CheckpointReport] = []

    def begin(self, total: int) -> None:
        """Prepare for that many checkpoints; the page is written at the end.

        Of one checkpoint the graph may be read, which no process but that of the check can. To read
        those of many would take longer than the check.
        """
        self._reads_graph = total == 1

    def add(self, item: CheckpointReport, _: None) -> None:
        """Keep one checkpoint; the unit of a training is made when the next one begins."""
        if not _follows(self._training, item):
            self._end_training()
        if _is_resumed(item):
            item = item.with_fields(notes=(*item.notes, _RESUMED))
        self._training.append(item)
        self._groups.add(item)

    def end(self, report: Report) -> None:
        """Write the page."""
        self._end_training()
        units = sorted(self._units, key=lambda unit: gravity(unit.status))
        steps = [step for unit in units for step in unit.steps]
        targets = {step.path: step.id for step in reversed(steps)}
        groups = groups_of_run(self._groups.gravest_first(), targets, one_training=len(units) == 1)
        write(
            self._stream,
            "page.html.j2",
            policy=policy(),
            style=asset("style.css"),
            script=scripts(),
            made=self._run,
            run=run_view(report),
            groups=groups,
            units=units,
            rules=[(rule, page_of(rule)) for rule in _explained(steps)],
        )
        self._stream.write("\n")

    def _end_training(self) -> None:
        """Make the unit of the kept checkpoints, with the newest that can be shown in full.

        All or nothing is added: after an interrupt from the keyboard, which may come at any time,
        the kept checkpoints must still get onto the page.
        """
        if not self._training:
            return
        items = self._training
        whole = [item for item in items if item.layers and not _is_resumed(item)]
        newest = whole[-1] if whole else items[-1]
        layers = layer_views(newest, f"m{len(self._units) + 1}-", self._momentum) if whole else []
        if not self._units:
            layers = [view._replace(id=view.id.partition("-")[2]) for view in layers]
        anchors = {view.name: view.id for view in layers}
        steps = tuple(
            checkpoint_view(
                item,
                f"checkpoint-{self._count + number}",
                anchors if item is newest else None,
            )
            for number, item in enumerate(items, 1)
        )
        status, verdict = verdict_on_unit(items)
        times = times_view(compare_checkpoints(whole)) if len(whole) > 1 else None
        path = newest.path
        html = render(
            "unit.html.j2",
            number=len(self._units) + 1,
            steps=steps,
            newest=steps[items.index(newest)],
            layers=layers,
            times=times,
            anchors=anchors,
            over_time=None if times is None else as_json(over_time(times, anchors)),
            snapshot=as_json(self._snapshot(newest, layers)) if layers else None,
        )
        unit = Unit(steps[-1].id, path, status, verdict, steps, html, _row(items, newest))
        self._count += len(items)
        self._units.append(unit)
        self._training = []

    def _snapshot(self, item: CheckpointReport, layers: Sequence[LayerView]) -> dict[str, Any]:
        return snapshot(item, layers, item.path, self._budget, with_graph=self._reads_graph)


def _row(items: Sequence[CheckpointReport], newest: CheckpointReport) -> ModelRow:
    """Return the cells of a model: findings in all of its checkpoints, the rest of the newest."""
    findings = [finding for item in items for finding in item.findings]
    counts = Counter(finding.severity for finding in findings)
    codes = sorted({finding.rule.code for finding in findings})
    stored = [str(item.step) for item in items if item.step is not None]
    steps = f"{stored[0]} to {stored[-1]}" if len(stored) > 1 else "".join(stored)
    return ModelRow(
        tuple(codes),
        newest.layer_count,
        counts["error"],
        counts["warning"],
        counts["note"],
        newest.format or "",
        steps,
    )


def _is_resumed(item: CheckpointReport) -> bool:
    """Return whether layers come from the results of an earlier run, which have no values."""
    return item.line is not None and bool(item.layers)


def _explained(steps: Sequence[CheckpointView]) -> list[Rule]:
    """Return the rules with findings, and those that a fix refers to.

    A reader of the page may not have the program that shows them.
    """
    shown = [group for step in steps for group in (*step.groups, *step.muted)]
    codes = {group.rule.code for group in shown}
    codes.update(*(_POINTER.findall(group.fix) for group in shown))
    return [rule for rule in RULES if rule.code in codes]


def _follows(training: Sequence[CheckpointReport], item: CheckpointReport) -> bool:
    """Return whether a checkpoint belongs to the training of those before it.

    One that cannot be read does if its name differs from theirs only in numbers.
    """
    if not training:
        return True
    if item.error is not None:
        return _without_numbers(item.path) == _without_numbers(training[-1].path)
    last = next((earlier for earlier in reversed(training) if earlier.error is None), None)
    return last is not None and item.previous == last.path


def _without_numbers(path: str) -> tuple[str, str]:
    """Return the directory of a path, and the name with # for each number."""
    directory, name = os.path.split(path)
    return directory, _DIGITS.sub("#", name)
