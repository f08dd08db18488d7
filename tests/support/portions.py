"""What worker processes do with a portion of checkpoints, for the tests of them.

Workers import this module, so it imports no test framework.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from bninspect.errors import UsageProblem
from bninspect.model.report import CheckpointReport
from bninspect.runs.observer import Examined, Portion


def named(portion: Portion) -> Iterator[Examined]:
    for item in portion:
        yield Examined(CheckpointReport(item.path))


def slowly(portion: Portion) -> Iterator[Examined]:
    """Leave the most to the workers."""
    for item in named(portion):
        time.sleep(0.05)
        yield item


def of_any_size(portion: Portion) -> Iterator[Examined]:
    """More than the buffer of a connection holds, so that sending it waits for the other side."""
    for item in portion:
        yield Examined(CheckpointReport(item.path, names=("x" * 1_000_000,)))


def refused(portion: Portion) -> Iterator[Examined]:
    yield Examined(CheckpointReport(portion[0].path))
    raise UsageProblem(f"refused {portion[1].path}")


def broken(_: Portion) -> Iterator[Examined]:
    raise LookupError("a bug of ours")


def without_memory(_: Portion) -> Iterator[Examined]:
    raise MemoryError


def killed(portion: Portion) -> Iterator[Examined]:
    yield Examined(CheckpointReport(portion[0].path))
    os.kill(os.getpid(), signal.SIGSEGV)


def killed_in_real_time(portion: Portion) -> Iterator[Examined]:
    yield Examined(CheckpointReport(portion[0].path))
    os.kill(os.getpid(), signal.SIGRTMIN + 1)


def leaving(_: Portion) -> Iterator[Examined]:
    os._exit(3)
