"""Worker processes of this machine, each with one connection to the process that started it.

The process that starts them takes part: it reads checkpoints like them, and looks for results
between them. A worker gets a portion of checkpoints only when it has started, and has sent the
results of the previous portion: nothing ever waits for a process that is still starting, and no two
processes wait to write to each other. All workers end with the process that started them, however
that ends.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bninspect.runs.observer import Examine, Examined, Portion

if TYPE_CHECKING:
    from bninspect.runs.worker import Worker

# Seconds after which a process that reads looks for the results of others.
_LOOK = 1e-3


@contextmanager
def process_pool(examine: Examine, here: Examine) -> Iterator[ProcessPool]:
    """Open a pool without workers; all that it starts have ended when the block ends.

    Workers call `examine`, which is pickled, and this process `here`, with a portion.
    """
    pool = ProcessPool(examine, here)
    try:
        yield pool
    finally:
        pool.close()


class ProcessPool:
    """A pool of this process and its workers, which are started when there is work for them.

    `workers` is how many there may be. One that cannot be started, or ends before it has got any
    work, is done without: no more are started then.
    """

    def __init__(self, examine: Examine, here: Examine) -> None:
        self.workers = 0
        self._may_start = True
        self._examine, self._here = examine, here
        self._started: list[Worker] = []
        self._selector = selectors.DefaultSelector()
        self._numbers = 0
        self._waiting: deque[tuple[int, Portion]] = deque()
        # By the number of the portion: the reports of this process, or those of a worker, pickled.
        self._finished: dict[int, bytes | list[Examined]] = {}
        # No worker has the writing end: reading from the other fails once this process is gone.
        self._lifeline, self._alive = os.pipe()

    @property
    def waiting(self) -> list[Portion]:
        """Return the portions that nobody has begun."""
        return [portion for _, portion in self._waiting]

    @property
    def held(self) -> int:
        """Return the number of bytes of results that nobody has asked for."""
        return sum(len(item) for item in self._finished.values() if isinstance(item, bytes))

    def allow(self, workers: int) -> None:
        """Let there be so many workers, if there may be no more already."""
        if self._may_start:
            self.workers = max(self.workers, workers)

    def receive(self) -> None:
        """Receive what workers have sent, and give them what waits.

        Raises what `add` raises.
        """
        self._receive(0)

    def add(self, portion: Portion) -> int:
        """Give a portion to a worker that is idle, else let it wait; returns its number.

        Raises what `examine` raised in a worker, and `BninspectError` if a worker died.
        """
        self._numbers += 1
        self._waiting.append((self._numbers, portion))
        self._receive(0)
        return self._numbers

    def result(self, number: int) -> list[Examined]:
        """Return the reports of a portion, once; until they are there, take part.

        Raises what `add` raises, and what `here` raises.
        """
        while number not in self._finished:
            self._receive(0)
            if self._waiting:
                self._take_part()
            elif number not in self._finished:
                self._receive(None)
        finished = self._finished.pop(number)
        if isinstance(finished, list):
            return finished
        from bninspect.runs.worker import unpickled

        return unpickled(finished)

    def close(self) -> None:
        """End all workers, also in the middle of a checkpoint."""
        for worker in self._started:
            worker.end()
        self._selector.close()
        os.close(self._lifeline)
        os.close(self._alive)

    def _take_part(self) -> None:
        """Read the first portion that waits."""
        number, portion = self._waiting.popleft()
        reports = []
        looked = time.monotonic()
        for report in self._here(portion):
            reports.append(report)
            if (now := time.monotonic()) - looked > _LOOK:
                looked = now
                self._receive(0)
        self._finished[number] = reports

    def _receive(self, timeout: float | None) -> None:
        """Receive what workers have sent, and give them what waits; starts a worker if it may."""
        for key, _ in self._selector.select(timeout) if self._started else ():
            self._receive_from(key.data)
        for worker in self._started:
            if self._waiting and worker.is_idle:
                worker.begin(*self._waiting.popleft())
        if self._waiting and len(self._started) < self.workers:
            self._start()

    def _receive_from(self, worker: Worker) -> None:
        results = worker.receive()
        if worker.has_gone:
            self._selector.unregister(worker.connection)
            worker.end()
            self._started.remove(worker)
            self._start_no_more()
        elif results is not None:
            self._finished[worker.number] = results

    def _start(self) -> None:
        from bninspect.runs.worker import Worker  # imported when there is one

        try:
            worker = Worker(self._examine, self._lifeline)
        except OSError:  # too many processes or open files, or no memory
            self._start_no_more()
            return
        self._started.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)

    def _start_no_more(self) -> None:
        """Do without more workers than there are: another attempt would fail, too."""
        self._may_start = False
        self.workers = len(self._started)
