"""Worker processes of this machine, each with one connection to the process that started it.

A worker gets a portion of checkpoints only when it has sent the results of the previous one, so
that no two processes ever wait to write to each other. All workers end with the process that
started them, however that ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe, wait
from threading import Thread
from typing import NamedTuple

from bninspect.errors import BninspectError
from bninspect.model.report import CheckpointReport
from bninspect.model.target import CheckpointLocation

Portion = Sequence[CheckpointLocation]
Examine = Callable[[Portion], Iterable[CheckpointReport]]

# A worker imports from the directories from which this process has imported.
_PROGRAM = "import sys; sys.path[:] = {!a}; from bninspect.runs.processes import serve; serve()"
# The number of portions by which each worker may be ahead of the one whose results come next.
_AHEAD = 4
_FEWER = "perhaps for lack of memory; use fewer --jobs."


class _Failure(NamedTuple):
    """An exception of a worker, sent in the place of a result."""

    error: Exception


@contextmanager
def process_pool(jobs: int) -> Iterator[ProcessPool]:
    """Open a pool of up to `jobs` worker processes; all have ended when the block ends."""
    pool = ProcessPool(jobs)
    try:
        yield pool
    finally:
        pool.close()


class ProcessPool:
    """Worker processes, started when there is work for them."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._workers: list[_Worker] = []
        # No worker has the writing end: reading from the other fails once this process is gone.
        self._lifeline, self._alive = os.pipe()

    def map(self, examine: Examine, portions: Iterable[Portion]) -> Iterator[CheckpointReport]:
        """Yield the reports of all portions, in the order of the portions.

        Raises what `examine` raised in a worker, and `BninspectError` if a worker cannot be
        started or dies.
        """
        waiting = deque(enumerate(portions))
        finished: dict[int, list[CheckpointReport]] = {}
        for number in range(len(waiting)):
            while number not in finished:
                while waiting and waiting[0][0] < number + _AHEAD * self._jobs:
                    worker = self._idle_worker(examine)
                    if worker is None:
                        break
                    worker.begin(*waiting.popleft())
                busy = {
                    worker.connection: worker
                    for worker in self._workers
                    if worker.portion is not None
                }
                for connection in wait(busy):
                    worker = busy[connection]  # type: ignore[index]
                    if worker.has_finished():
                        finished[worker.number] = worker.reports
            yield from finished.pop(number)

    def _idle_worker(self, examine: Examine) -> _Worker | None:
        idle = next((worker for worker in self._workers if worker.portion is None), None)
        if idle is None and len(self._workers) < self._jobs:
            try:
                idle = _Worker(examine, self._lifeline)
            except OSError as error:
                raise BninspectError(
                    f"Cannot start {self._jobs} processes: {error.strerror or error}. Use fewer"
                    " --jobs."
                ) from error
            self._workers.append(idle)
        return idle

    def close(self) -> None:
        """End all workers, also in the middle of a checkpoint."""
        for worker in self._workers:
            worker.end()
        os.close(self._lifeline)
        os.close(self._alive)


class _Worker:
    """One worker process; `portion` is what it is reading, None if it is idle."""

    def __init__(self, examine: Examine, lifeline: int) -> None:
        self.connection, theirs = Pipe()
        self.portion: Portion | None = None
        self.number = 0
        self.reports: list[CheckpointReport] = []
        with theirs, _interrupts_blocked():
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own program
                [sys.executable, "-c", _PROGRAM.format(sys.path), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=lifeline,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        with suppress(OSError):  # it has died, which is found when it should read
            self.connection.send(examine)

    def begin(self, number: int, portion: Portion) -> None:
        """Send a portion to read."""
        self.number, self.portion, self.reports = number, portion, []
        with suppress(OSError):
            self.connection.send(portion)

    def has_finished(self) -> bool:
        """Receive a report, and return whether the portion is finished."""
        try:
            report = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(report, _Failure):
            raise report.error
        if report is not None:
            self.reports.append(report)
            return False
        self.portion = None
        return True

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.wait()
        self.connection.close()

    def _died(self) -> BninspectError:
        """Build the error for a worker that died while it read a checkpoint."""
        code = self._process.wait()
        remaining = (self.portion or ())[len(self.reports) :]
        reading = f"that was reading {remaining[0].path}" if remaining else "that reads checkpoints"
        if code < 0:
            name = signal.Signals(-code).name
            return BninspectError(f"The process {reading} was killed ({name}), {_FEWER}")
        return BninspectError(f"The process {reading} ended with exit code {code}, {_FEWER}")


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in the block, and for good in a process that is started in it.

    An interrupt from the keyboard goes to all processes; the one that started the others ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve() -> None:
    """Read portions of checkpoints for the process that started this one, until it is gone."""
    Thread(target=_end_with_starter, daemon=True).start()
    with suppress(EOFError, OSError), Connection(int(sys.argv[1])) as connection:
        examine: Examine = connection.recv()
        while True:
            portion = connection.recv()
            try:
                for report in examine(portion):
                    connection.send(report)
            except Exception as error:
                connection.send(_Failure(_portable(error)))
            connection.send(None)


def _end_with_starter() -> None:
    """End this process when the one that started it has ended: its pipe is standard input."""
    os.read(0, 1)
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """Return an exception that can be sent; one of a bug has the traceback as its text."""
    if isinstance(error, BninspectError | ImportError | MemoryError | OSError):
        return error
    return RuntimeError(f"in a process that reads checkpoints:\n{traceback.format_exc()}")
