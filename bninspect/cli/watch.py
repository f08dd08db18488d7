"""The command `watch`: its output, its signals and its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.errors import tell
from bninspect.cli.exit_codes import FINDINGS, INTERRUPTED, NOTHING_CHECKED, OK, PROBLEM
from bninspect.cli.formats import WATCH, OutputOptions, WatchWriter
from bninspect.cli.options import complete_files, watch_options
from bninspect.cli.output import output_stream
from bninspect.errors import UsageProblem

if TYPE_CHECKING:
    from datetime import datetime
    from types import FrameType

    from bninspect.config.model import Config
    from bninspect.model.report import CheckpointReport
    from bninspect.runs.watch import Conclusion, DirectoryWatch

# Sent by the keyboard, by a job scheduler, and by a terminal that is closed.
# Windows has no SIGHUP; there a closed console sends SIGBREAK.
_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


@click.command(
    short_help="Follow a training: check each checkpoint as it lands.", epilog=help_texts.WATCH
)
@click.argument("directory", metavar="DIR", shell_complete=complete_files)
@watch_options
def watch(
    directory: str,
    config: Config,
    format_: str,
    interval: float,
    timeout: float | None,
    until_step: int | None,
    grace: float,
    quiet: bool,
    verbose: bool,
    color: str,
    allow_empty: bool,
    fail_fast: bool,
) -> int:
    """Check each checkpoint that a training writes to DIR as soon as it is complete.

    DIR is listed every --interval, which also works on network file systems. It need not exist
    yet. The newest checkpoint in it is checked first, then each one that arrives or is overwritten.
    Each is compared with the one before it (BN107). Half-written, renamed and deleted checkpoints
    are no errors. The training is never disturbed: no file is locked.
    """
    from bninspect.runs.watch import DirectoryWatch, Pace

    _require_directory(directory)
    with output_stream(None) as stream, _catch_signals() as signals:
        writer = WATCH[format_](stream, OutputOptions(color, quiet, verbose))
        pace = Pace(interval, grace, timeout)
        directory_watch = DirectoryWatch(directory, config, pace, sleep=signals.sleep)
        if not quiet:
            _tell_start(directory)
        goal = _Goal(config, until_step, fail_fast=fail_fast)
        ended = _follow(directory_watch, writer, goal, signals)
        conclusion = directory_watch.conclude(ended)
        writer.end(conclusion, _now())
    if ended == "interrupted":
        return INTERRUPTED
    return _exit_code(conclusion, config.fail_on, allow_empty=allow_empty)


def _require_directory(path: str) -> None:
    """Raise `UsageProblem` for a path that is no directory and will not become one."""
    if not path:
        raise UsageProblem(
            "The name of the directory is empty: a variable of a script may be unset."
        )
    from bninspect.storage import filesystem, urls

    if urls.is_url(path) and urls.scheme_of(path) in urls.WEB:
        raise UsageProblem(
            f"watch needs a directory, and a web server does not list what is in {path}."
            f" Use `bninspect check {path}`."
        )
    if filesystem.is_directory(path):
        return
    kind = "a file" if filesystem.exists(path) else "a checkpoint"
    if kind == "a file" or filesystem.exists(f"{path}.index"):
        raise UsageProblem(
            f"watch needs a directory, but {path} is {kind}. Use `bninspect check {path}`."
        )


def _tell_start(directory: str) -> None:
    from bninspect.reporters.escapes import printable
    from bninspect.storage import filesystem

    missing = "" if filesystem.is_directory(directory) else ", which does not exist yet"
    tell(f"watching {printable(directory)}{missing}; Ctrl-C ends it")


class _Goal:
    """The condition on a checkpoint that ends a watch: --until-step, --fail-fast."""

    def __init__(self, config: Config, until_step: int | None, *, fail_fast: bool) -> None:
        self._fail_on, self._until_step, self._fail_fast = config.fail_on, until_step, fail_fast

    def reached(self, item: CheckpointReport) -> str | None:
        """Return the option by which the watch ends with this checkpoint; None if it goes on."""
        from bninspect.model.report import any_at_least

        if self._fail_fast and any_at_least(self._fail_on, item.findings):
            return "fail-fast"
        if item.step is None or self._until_step is None:
            return None
        return "until-step" if item.step >= self._until_step else None


def _follow(
    directory_watch: DirectoryWatch, writer: WatchWriter, goal: _Goal, signals: _StopSignals
) -> str:
    """Write each checkpoint that arrives, and return what ended the watch."""
    try:
        for item in directory_watch.reports():
            writer.add(item, _now())
            if (ended := goal.reached(item)) or (ended := signals.ended):
                break
        else:
            return "timeout"
    except _StopRequested:
        ended = signals.ended
    if ended == "terminated":
        for item in directory_watch.rest(time.sleep):
            writer.add(item, _now())
    return ended or "interrupted"


class _StopRequested(BaseException):
    """A signal arrived while nothing was being read or written."""


class _StopSignals:
    """A handler of signals that end the watch.

    `ended` is how it ends, `interrupted` or `terminated`; None while it goes on. What is being
    read or written when a signal arrives is finished. The second signal ends the program at once.
    """

    def __init__(self) -> None:
        self.ended: str | None = None
        self._is_asleep = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """Handle one signal."""
        if self.ended is not None:
            raise KeyboardInterrupt
        self.ended = "interrupted" if number == signal.SIGINT else "terminated"
        if self._is_asleep:
            raise _StopRequested

    def sleep(self, seconds: float) -> None:
        """Wait; raises `_StopRequested` as soon as a signal arrives, or if one has."""
        self._is_asleep = True
        try:
            if self.ended is not None:
                raise _StopRequested
            time.sleep(seconds)
        finally:
            self._is_asleep = False


@contextmanager
def _catch_signals() -> Iterator[_StopSignals]:
    """Handle `_SIGNALS` in the block, except those that are ignored (as by nohup)."""
    signals = _StopSignals()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in caught:
        signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number in caught:
            signal.signal(number, before[number])


def _now() -> datetime:
    from datetime import datetime

    return datetime.now().astimezone()


def _exit_code(conclusion: Conclusion, fail_on: str, *, allow_empty: bool) -> int:
    if conclusion.tally.unreadable:
        return PROBLEM
    if conclusion.tally.any_at_least(fail_on):
        return FINDINGS
    return OK if conclusion.tally.layers or allow_empty else NOTHING_CHECKED
