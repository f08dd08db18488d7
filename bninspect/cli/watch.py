"""The command that follows a training: what it writes, and how it ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
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

# By the keyboard, by a scheduler, and by a terminal that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
    """Check each checkpoint that a training writes to DIR, once it is whole.

    DIR is looked at every --interval, which works on network file systems, too; it need not be
    there yet. The newest checkpoint that lies there is checked first, then each that comes, or is
    written anew under its name, and compared with the one before it (BN107). Half-written,
    renamed and deleted ones are no errors. The training is never hindered: no file is locked.
    """
    from bninspect.runs.watch import DirectoryWatch, Pace
    from bninspect.storage import filesystem

    _require_directory(directory)
    with output_stream(None) as stream, _asked_to_end() as asked:
        writer = WATCH[format_](stream, OutputOptions(color, quiet, verbose))
        watching = DirectoryWatch(
            directory, config, Pace(interval, grace, timeout), sleep=asked.sleep
        )
        if not quiet:
            from bninspect.reporters.escapes import printable

            there = "" if filesystem.is_directory(directory) else ", which is not there yet"
            click.echo(f"watching {printable(directory)}{there}; Ctrl-C ends it", err=True)
        goal = _Goal(config, until_step, fail_fast=fail_fast)
        ended = _follow(watching, writer, goal, asked)
        conclusion = watching.conclude(ended)
        writer.end(conclusion, _now())
    if ended == "interrupted":
        return INTERRUPTED
    return _exit_code(conclusion, config.fail_on, allow_empty=allow_empty)


def _require_directory(path: str) -> None:
    """Raise `UsageProblem` for what is no directory, and will hardly become one."""
    if not path:
        raise UsageProblem(
            "The name of the directory is empty: a variable of a script may be unset."
        )
    from bninspect.storage import filesystem, urls

    if urls.is_url(path) and urls.scheme_of(path) in urls.WEB:
        raise UsageProblem(
            f"watch takes a directory, and a web server does not tell what is in {path}: use check."
        )
    if filesystem.is_directory(path):
        return
    if filesystem.exists(path):
        raise UsageProblem(f"watch takes a directory, and {path} is none: use check.")
    if filesystem.exists(f"{path}.index"):
        raise UsageProblem(f"watch takes a directory, and {path} is a checkpoint: use check.")


class _Goal:
    """When a watch has seen enough."""

    def __init__(self, config: Config, until_step: int | None, *, fail_fast: bool) -> None:
        self._fail_on, self._until_step, self._fail_fast = config.fail_on, until_step, fail_fast

    def reached(self, item: CheckpointReport) -> str | None:
        """Why it ends with this checkpoint; None if it does not."""
        from bninspect.model.report import any_at_least

        if self._fail_fast and any_at_least(self._fail_on, item.findings):
            return "fail-fast"
        if item.step is None or self._until_step is None:
            return None
        return "until-step" if item.step >= self._until_step else None


def _follow(watching: DirectoryWatch, writer: WatchWriter, goal: _Goal, asked: _Asked) -> str:
    """Write what comes, and return why that has ended."""
    try:
        for item in watching.reports():
            writer.add(item, _now())
            if (ended := goal.reached(item)) or (ended := asked.to):
                break
        else:
            return "timeout"
    except _Woken:
        ended = asked.to
    if ended == "terminated":
        for item in watching.rest(time.sleep):
            writer.add(item, _now())
    return ended or "interrupted"


class _Woken(BaseException):
    """Somebody has asked to end, and nothing is being read or written."""


class _Asked:
    """Takes signals: `to` is how to end, None for not at all.

    What is being read or written when one comes is finished. The second one ends it at once.
    """

    def __init__(self) -> None:
        self.to: str | None = None
        self._sleeps = False

    def take(self, number: int, _: FrameType | None) -> None:
        """Note a signal."""
        if self.to is not None:
            raise KeyboardInterrupt
        self.to = "interrupted" if number == signal.SIGINT else "terminated"
        if self._sleeps:
            raise _Woken

    def sleep(self, seconds: float) -> None:
        """Wait; raises `_Woken` as soon as somebody has asked to end."""
        self._sleeps = True
        try:
            if self.to is not None:
                raise _Woken
            time.sleep(seconds)
        finally:
            self._sleeps = False


@contextmanager
def _asked_to_end() -> Iterator[_Asked]:
    """What takes `_SIGNALS` meanwhile, but for those that a shell has set to be ignored."""
    asked = _Asked()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, asked.take)
    try:
        yield asked
    finally:
        for number in taken:
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
