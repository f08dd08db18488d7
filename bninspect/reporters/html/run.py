"""The run that a page is of: its command, its date and the version of the program."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from bninspect._version import __version__
from bninspect.errors import UsageProblem
from bninspect.storage.urls import redact


class RunDetails(NamedTuple):
    """The command as typed, without credentials, and the moment in UTC; empty if unknown."""

    command: str = ""
    moment: datetime | None = None
    version: str = __version__

    @property
    def date(self) -> str:
        """Return the moment to the minute."""
        return "" if self.moment is None else f"{self.moment:%Y-%m-%d %H:%M} UTC"

    @property
    def made_by(self) -> str:
        """Return program, version and date in a line."""
        return f"bninspect {self.version}{f', {self.date}' if self.date else ''}"


def run_details(arguments: Sequence[str]) -> RunDetails:
    """Return the details of this run, whose command had these arguments; no credentials are shown.

    `SOURCE_DATE_EPOCH`, seconds since 1970, stands for the clock, so that a page can be made again
    byte for byte (https://reproducible-builds.org/specs/source-date-epoch/). Raises `UsageProblem`
    if it is no number of seconds.
    """
    command = redact(shlex.join(["bninspect", *arguments]))
    return RunDetails(command, _moment(os.environ.get("SOURCE_DATE_EPOCH")))


def _moment(epoch: str | None) -> datetime:
    if not epoch:
        return datetime.now(timezone.utc)
    try:
        return datetime.fromtimestamp(int(epoch), timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise UsageProblem(
            f"SOURCE_DATE_EPOCH: expected a number of seconds since 1970, got {epoch!r}"
        ) from None
