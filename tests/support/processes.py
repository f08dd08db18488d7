"""The program in a process of its own, for the tests of signals, and the processes it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
PATIENCE = 120  # seconds for what takes a moment on a machine without other work
# Under nohup a suite ignores SIGHUP, in the background of a script SIGINT, and so do the processes
# that it starts. Those that get these signals set them back first, by these lines.
SIGNALS_AS_IN_A_TERMINAL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""


def start_program(*arguments: object, before: str = "", **options: Any) -> subprocess.Popen[str]:
    """Start the program, with signals as in a terminal, and with the lines `before` run first."""
    lines = f"{SIGNALS_AS_IN_A_TERMINAL}{before}\nfrom bninspect.__main__ import main\nmain()\n"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT}
    return subprocess.Popen(
        [sys.executable, "-c", lines, *map(str, arguments)], text=True, **{**pipes, **options}
    )


def wait_until(ready: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """Return what `ready` returns when that is true; the process must run until then."""
    deadline = time.monotonic() + PATIENCE
    while not (value := ready()):
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.005)
    return value


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
