"""The program in a process of its own, for the tests of signals, and the processes it starts."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from tests.conftest import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def program(sighup: str = "SIG_DFL") -> list[str]:
    """Return the command of the program; `sighup` is what SIGHUP does when it starts.

    A suite that runs under nohup ignores SIGHUP, and so do the processes that it starts.
    """
    start = f"import signal; signal.signal(signal.SIGHUP, signal.{sighup})"
    return [sys.executable, "-c", f"{start}; from bninspect.__main__ import main; main()"]


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for t in tasks for child in (t / "children").read_text().split()]
    return []


def is_running(pid: int) -> bool:
    """Return whether a process is there and is no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def group_is_running(group: int) -> bool:
    """Return whether a process of that group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
