"""The progress of a run on a terminal: a bar that appears if the run takes long, and goes again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TextIO

import click

# In seconds: what is over before needs no bar, and a bar is not drawn more often.
_DELAY, _INTERVAL = 0.5, 0.1
# Back to the start of the line, erase it, show the hidden cursor (ECMA-48 EL; DECTCEM).
_ERASE = "\r\x1b[K\x1b[?25h"


class ProgressBar:
    """A bar on the terminal `stream` for `total` things; `clock` gives seconds."""

    def __init__(
        self,
        total: int,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        label: str = "Checking",
    ) -> None:
        self._total, self._stream, self._clock, self._label = total, stream, clock, label
        self._next = clock() + _DELAY
        self._waiting = 0
        self._bar: Any = None

    def advance(self) -> None:
        """Count one of them, and draw the bar if it is time."""
        self._waiting += 1
        now = self._clock()
        if now < self._next:
            return
        if self._bar is None:
            self._bar = click.progressbar(
                length=self._total, label=self._label, file=self._stream, show_pos=True
            )
        self._bar.update(self._waiting)
        self._waiting, self._next = 0, now + _INTERVAL

    def erase(self) -> None:
        """Erase the bar, so that the answer is what is read first."""
        if self._bar is not None:
            self._stream.write(_ERASE)
            self._stream.flush()
            self._bar = None
