"""Protocol of an observer that receives each result of a run as it arrives."""

from __future__ import annotations

import os
from typing import Protocol

from bninspect.model.report import CheckpointReport

PathName = str | os.PathLike[str]


class RunObserver(Protocol):
    """Who follows a check: first how many checkpoints there are at most, then each as it comes.

    `layers` says whether the layers are asked for; without, several processes send less. Unless
    `kept`, only counts are left of a checkpoint that has come.
    """

    needs_layers: bool
    needs_checkpoints: bool

    def begin(self, total: int) -> None:
        """`total` checkpoints at most will come."""

    def add(self, item: CheckpointReport) -> None:
        """One has come."""
