"""What worker processes do with a portion of checkpoints, for the tests of them.

Workers import this module, so it imports no test framework.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from bninspect.errors import UsageProblem
from bninspect.model.report import CheckpointReport
from bninspect.runs.processes import Portion


def named(portion: Portion) -> Iterator[CheckpointReport]:
    for item in portion:
        yield CheckpointReport(item.path)


def of_any_size(portion: Portion) -> Iterator[CheckpointReport]:
    """More than the buffer of a connection holds, so that sending it waits for the other side."""
    for item in portion:
        yield CheckpointReport(item.path, names=("x" * 1_000_000,))


def refused(portion: Portion) -> Iterator[CheckpointReport]:
    yield CheckpointReport(portion[0].path)
    raise UsageProblem(f"refused {portion[1].path}")


def broken(_: Portion) -> Iterator[CheckpointReport]:
    raise LookupError("a bug of ours")


def without_memory(_: Portion) -> Iterator[CheckpointReport]:
    raise MemoryError


def killed(portion: Portion) -> Iterator[CheckpointReport]:
    yield CheckpointReport(portion[0].path)
    os.kill(os.getpid(), signal.SIGSEGV)


def leaving(_: Portion) -> Iterator[CheckpointReport]:
    os._exit(3)
