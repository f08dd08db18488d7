"""`report`: the whole page, checkpoint by checkpoint.

Consecutive checkpoints of one training are shown together: the layers of the newest one in full,
and trends of the statistics over all of them. Only the checkpoints of one training are in memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from markupsafe import Markup

from bninspect._version import __version__
from bninspect.model.report import CheckpointReport, Report
from bninspect.model.rule import Rule
from bninspect.reporters.html.layers import layer_views
from bninspect.reporters.html.rendering import asset, policy, render, write
from bninspect.reporters.html.trends import times_view
from bninspect.reporters.html.verdicts import CheckpointView, checkpoint_view, leading, run_view
from bninspect.rules import RULES
from bninspect.rules.pages import page_of
from bninspect.verdicts.comparison import compare_checkpoints

_POINTER = re.compile("`bninspect rule (BN[0-9]{3})`")
_RESUMED = (
    "its layers are not shown: this is the result of an earlier run (--resume), which has no"
    " values. Without --resume the page shows them"
)


class Section(NamedTuple):
    """A checkpoint on the page: its view, its rendered HTML, and whether that shows its layers."""

    view: CheckpointView
    html: Markup
    full: bool


class HtmlReport:
    """Writer of one page: the verdict on the run, then one section per checkpoint.

    `momentum` is that of the configuration; it is used to recognise dead channels.
    """

    needs_layers = True
    needs_checkpoints = True
    render = None

    def __init__(self, stream: TextIO, *, momentum: float | None = None) -> None:
        self._stream = stream
        self._momentum = momentum
        self._sections: list[Section] = []
        self._training: list[CheckpointReport] = []

    def begin(self, total: int) -> None:
        """Do nothing: a page is written at the end."""

    def add(self, item: CheckpointReport, _: None) -> None:
        """Keep one checkpoint; the sections of a training are made when the next one begins."""
        if not _follows(self._training, item):
            self._end_training()
        if _is_resumed(item):
            item = item.with_fields(notes=(*item.notes, _RESUMED))
        self._training.append(item)

    def end(self, report: Report) -> None:
        """Write the page."""
        self._end_training()
        views = [section.view for section in self._sections]
        write(
            self._stream,
            "page.html.j2",
            policy=policy(),
            style=asset("style.css"),
            script=asset("script.js"),
            version=__version__,
            run=run_view(report),
            first=leading(views),
            sections=self._sections,
            rules=[(rule, page_of(rule)) for rule in _explained(views)],
            filters=any(section.full for section in self._sections),
        )
        self._stream.write("\n")

    def _end_training(self) -> None:
        """Make the sections of the kept checkpoints, with the newest that can be shown in full.

        All or none are added: after an interrupt from the keyboard, which may come at any time, the
        kept checkpoints must still get onto the page.
        """
        whole = [
            index
            for index, item in enumerate(self._training)
            if item.layers and not _is_resumed(item)
        ]
        newest = whole[-1] if whole else -1
        made = [
            self._in_full(index, [self._training[earlier] for earlier in whole])
            if index == newest
            else self._in_brief(index, newest if index in whole else None)
            for index, item in enumerate(self._training)
        ]
        self._sections += made
        self._training = []

    def _in_full(self, index: int, training: Sequence[CheckpointReport]) -> Section:
        """Return the section of a training's newest checkpoint, with layers and trends."""
        item = self._training[index]
        number = 1 + sum(section.full for section in self._sections)
        layers = layer_views(item, "" if number == 1 else f"c{number}-", self._momentum)
        view = checkpoint_view(item, self._identifier(index))
        html = render(
            "checkpoint.html.j2",
            item=view,
            layers=layers,
            targets={layer.name: layer.id for layer in layers},
            times=times_view(compare_checkpoints(training)) if len(training) > 1 else None,
            newest=None,
        )
        return Section(view, html, full=True)

    def _in_brief(self, index: int, newest: int | None) -> Section:
        """Return the section of an earlier checkpoint, which links to the `newest` one's layers."""
        view = checkpoint_view(self._training[index], self._identifier(index))
        link = None if newest is None else self._identifier(newest)
        html = render(
            "checkpoint.html.j2", item=view, layers=(), targets={}, times=None, newest=link
        )
        return Section(view, html, full=False)

    def _identifier(self, index: int) -> str:
        """Return the anchor of a checkpoint, by its place in the training that is being made."""
        return f"checkpoint-{len(self._sections) + index + 1}"


def _is_resumed(item: CheckpointReport) -> bool:
    """Return whether layers come from the results of an earlier run, which have no values."""
    return item.line is not None and bool(item.layers)


def _explained(views: Sequence[CheckpointView]) -> list[Rule]:
    """Return the rules with findings, and those that a fix refers to.

    A reader of the page may not have the program that shows them.
    """
    groups = [group for view in views for group in view.groups]
    codes = {group.rule.code for group in groups}
    codes.update(*(_POINTER.findall(group.fix) for group in groups))
    return [rule for rule in RULES if rule.code in codes]


def _follows(training: Sequence[CheckpointReport], item: CheckpointReport) -> bool:
    """Return whether a checkpoint belongs to the training of those before it.

    One that cannot be read stays with the checkpoints before it.
    """
    if not training or item.error is not None:
        return True
    last = next((earlier for earlier in reversed(training) if earlier.error is None), None)
    return last is not None and item.previous == last.path
