"""Protocol of an observer that receives each result of a run as it arrives, and those results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from bninspect.frozen import NamedTuple
from bninspect.model.report import CheckpointReport
from bninspect.model.target import CheckpointLocation

Render = Callable[[CheckpointReport], Any]


class Examined(NamedTuple):
    """The report of a checkpoint, and what the observer's `render` made of it.

    None if it was not called where the checkpoint was read.
    """

    report: CheckpointReport
    rendered: Any = None


def render_all(item: CheckpointReport, renderers: Iterable[Render | None]) -> tuple[Any, ...]:
    """Return what each of some renderers makes of a checkpoint, in their order; None for None."""
    return tuple(None if render is None else render(item) for render in renderers)


# The checkpoints that a process examines in one go, and what examines them.
Portion = Sequence[CheckpointLocation]
Examine = Callable[[Portion], Iterable[Examined]]


class RunObserver(Protocol):
    """An observer of a check: the number of checkpoints first, then each report as it arrives.

    `needs_layers` says that it uses the layers of a report; without it, worker processes send less.
    `needs_checkpoints` says that the report of the run must have each checkpoint again (without its
    layers), not only count it. `render` makes what the observer needs of a whole report. It is
    called in the process that read the checkpoint, so that the layers need not be sent: it can be
    pickled, and so can its result. None if `add` needs the layers themselves.
    """

    needs_layers: bool
    needs_checkpoints: bool

    @property
    def render(self) -> Render | None:
        """Return the function that is called with each report."""

    def begin(self, total: int) -> None:
        """Start a run of at most `total` checkpoints."""

    def add(self, item: CheckpointReport, rendered: Any) -> None:
        """Receive the report of one checkpoint, and what `render` made of it."""
