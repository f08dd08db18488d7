"""Protocol of an observer that receives each result of a run as it arrives."""

from __future__ import annotations

from typing import Protocol

from bninspect.model.report import CheckpointReport


class RunObserver(Protocol):
    """An observer of a check: the number of checkpoints first, then each report as it arrives.

    `needs_layers` says that it uses the layers of a report; without it, worker processes send less.
    `needs_checkpoints` says that the report of the run must have each checkpoint again (without its
    layers), not only count it.
    """

    needs_layers: bool
    needs_checkpoints: bool

    def begin(self, total: int) -> None:
        """Start a run of at most `total` checkpoints."""

    def add(self, item: CheckpointReport) -> None:
        """Receive the report of one checkpoint."""
