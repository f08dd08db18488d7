"""`report`: the whole page, checkpoint by checkpoint.

The checkpoints of one training that follow each other are shown together: the layers of the newest
in full, of all how the statistics went. Only these are kept, until the training is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TextIO

from markupsafe import Markup

from bninspect import __version__
from bninspect.comparison import compare_checkpoints
from bninspect.evidence.history import not_followed
from bninspect.findings import CheckpointReport, Report, Rule
from bninspect.reporters.html.layers import LayerView, layer_views
from bninspect.reporters.html.rendering import asset, policy, render, write
from bninspect.reporters.html.trends import times_view
from bninspect.reporters.html.verdicts import CheckpointView, checkpoint_view, leading, run_view


class HtmlReport:
    """Writes one page: what the run says, then a section a checkpoint.

    `momentum` is what a person gave, for the channels that are dead.
    """

    layers = True
    kept = True

    def __init__(self, stream: TextIO, *, momentum: float | None = None) -> None:
        self._stream = stream
        self._momentum = momentum
        self._sections: list[Markup] = []
        self._shown: list[CheckpointView] = []
        self._rules: dict[str, Rule] = {}
        self._full = 0
        self._training: list[CheckpointReport] = []

    def begin(self, total: int) -> None:
        """Nothing is written before the end."""

    def add(self, item: CheckpointReport) -> None:
        """Take one checkpoint; a training is made into its sections when it is over."""
        if not _follows(self._training, item):
            self._end_training()
        self._training.append(item)

    def end(self, report: Report) -> None:
        """Write the page; of the layers `report` has only the number."""
        self._end_training()
        write(
            self._stream,
            "page.html.j2",
            policy=policy(),
            style=asset("style.css"),
            script=asset("script.js"),
            version=__version__,
            run=run_view(report),
            first=leading(self._shown),
            checkpoints=self._shown,
            sections=self._sections,
            rules=[self._rules[code] for code in sorted(self._rules)],
            filters=self._full > 0,
        )
        self._stream.write("\n")

    def _end_training(self) -> None:
        """Make the sections of what has been kept: the newest one that can be shown in full."""
        items, self._training = self._training, []
        whole = [item for item in items if item.layers]
        for item in items:
            full = bool(whole) and item is whole[-1]
            self._section(item, whole if full else (), full=full)

    def _section(
        self, item: CheckpointReport, training: Sequence[CheckpointReport], *, full: bool
    ) -> None:
        number = len(self._shown) + 1
        views: list[LayerView] = []
        if full:
            self._full += 1
            prefix = "" if self._full == 1 else f"c{self._full}-"
            views = layer_views(item, prefix, self._momentum)
        comparison = compare_checkpoints(training) if len(training) > 1 else None
        shown = checkpoint_view(item, f"checkpoint-{number}")
        self._shown.append(shown)
        self._rules |= {group.rule.code: group.rule for group in shown.groups}
        self._sections.append(
            render(
                "checkpoint.html.j2",
                item=shown,
                layers=views,
                targets={view.name: view.id for view in views},
                times=None if comparison is None else times_view(comparison),
                left_out=bool(item.layers) and not full,
            )
        )


def _follows(training: Sequence[CheckpointReport], item: CheckpointReport) -> bool:
    """Whether a checkpoint is a later one of the training of those before it.

    As for `check --all-checkpoints`, its name differs from theirs in numbers alone, it has the same
    layers, and its step is later. One that cannot be read stands where it was found.
    """
    if not training:
        return True
    if item.error is not None:
        return True
    last = next((one for one in reversed(training) if one.error is None), None)
    if last is None or not item.layers or item.format == "saved-model":
        return False  # a SavedModel is an export, written by no training
    if _name_of(last) != _name_of(item):
        return False
    return not_followed(last, item.layers, item.step) is None


def _name_of(item: CheckpointReport) -> tuple[str, str, str]:
    """What the checkpoints of one training share: the format, the directory, the name's letters."""
    directory, name = os.path.split(os.path.abspath(item.resolved or item.path))
    return item.format or "", directory, re.sub("[0-9]+", "#", name)
