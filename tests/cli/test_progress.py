"""The progress bar: only where a run takes long, seldom drawn, gone at the end."""

from __future__ import annotations

import io
import re
import sys

import pytest

from bninspect.cli.main import run
from bninspect.cli.progress import ProgressBar
from tests.conftest import CLEAN, STUCK


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True

    @property
    def last_line(self) -> str:
        """Return what the last line shows."""
        shown = self.getvalue().rpartition("\n")[2].rpartition("\r")[2]
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def progress(seconds_per_checkpoint: float, total: int) -> Terminal:
    """Return the terminal after `total` checkpoints, before the bar is erased."""
    terminal, clock = Terminal(), iter(seconds_per_checkpoint * step for step in range(total + 1))
    bar = ProgressBar(total, terminal, lambda: next(clock))
    for _ in range(total):
        bar.advance()
    drawn = Terminal()
    drawn.write(terminal.getvalue())
    bar.erase()
    assert terminal.last_line == ""
    assert "\n" not in terminal.getvalue()
    return drawn


def test_a_short_run_has_none() -> None:
    assert progress(0.001, 300).getvalue() == ""


def test_counts_what_was_done_before_it_appeared() -> None:
    assert progress(0.3, 5).last_line.endswith("5/5")


def test_is_drawn_ten_times_a_second_at_most() -> None:
    drawn = progress(0.001, 2500).getvalue()
    assert 10 <= drawn.count("Checking") <= 21


def test_check_shows_it_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bninspect.cli.progress._DELAY", 0.0)
    monkeypatch.setattr("bninspect.cli.progress._INTERVAL", 0.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for paths, shown in (((CLEAN, STUCK), ["1/2", "2/2"]), ((CLEAN,), [])):
        with pytest.raises(SystemExit):
            run(["check", *map(str, paths)])
        assert re.findall(r"\d/2", terminal.getvalue()) == shown
        assert terminal.last_line == ""
        terminal.truncate(0)
