"""One worker process of this machine: its start, its work, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import ForkingPickler
from threading import Thread
from typing import NamedTuple

from bninspect.errors import BninspectError
from bninspect.runs.observer import Examine, Examined, Portion

# A worker imports from the directories from which this process has imported.
_PROGRAM = "import sys; sys.path[:] = {!a}; from bninspect.runs.worker import serve; serve()"
_FEWER = "perhaps for lack of memory; use fewer --jobs."
_MOST_PROGRESS = 1 << 16  # bytes: what a pipe holds at most
_LEAST_PIPE = 4096  # bytes: what the pipe of a user with many pipes holds (Linux, man 7 pipe)


class _Failure(NamedTuple):
    """An exception of a worker, sent in the place of results."""

    error: Exception


class Worker:
    """One worker process; `portion` is what it is reading, None if it is idle.

    `has_gone` says that it has ended without work.
    """

    def __init__(self, examine: Examine, lifeline: int) -> None:
        self.portion: Portion | None = None
        self.number = 0
        self.has_gone = False
        self._has_started = False
        self.connection, theirs = Pipe()
        self._progress, progress = os.pipe()
        try:
            with theirs, _interrupts_blocked():
                self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own program
                    [
                        sys.executable,
                        "-c",
                        _PROGRAM.format(sys.path),
                        str(theirs.fileno()),
                        str(progress),
                    ],
                    pass_fds=(theirs.fileno(), progress),
                    stdin=lifeline,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        except OSError:
            self.connection.close()
            os.close(self._progress)
            raise
        finally:
            os.close(progress)
        with suppress(OSError):  # it has died, which is found when it should answer
            self.connection.send(examine)

    @property
    def is_idle(self) -> bool:
        """Return whether it can be given a portion."""
        return self._has_started and self.portion is None and not self.has_gone

    def begin(self, number: int, portion: Portion) -> None:
        """Send a portion to read."""
        self.number, self.portion = number, portion
        with suppress(OSError):
            self.connection.send(portion)

    def receive(self) -> bytes | None:
        """Receive the reports of its portion, pickled; None if it has sent that it has started."""
        try:
            results = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            if self.portion is None:
                self.has_gone = True
                return None
            raise self._died() from error
        if not self._has_started:
            self._has_started = True
            return None
        if not results:
            failure: _Failure = self.connection.recv()
            raise failure.error
        os.read(self._progress, _MOST_PROGRESS)
        self.portion = None
        return results

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.wait()
        self.connection.close()
        os.close(self._progress)

    def _died(self) -> BninspectError:
        """Build the error for a worker that died while it read a checkpoint."""
        code = self._process.wait()
        done = len(os.read(self._progress, _MOST_PROGRESS))
        remaining = (self.portion or ())[done:] if done < _LEAST_PIPE else ()
        reading = f"that was reading {remaining[0].path}" if remaining else "that reads checkpoints"
        if code < 0:
            return BninspectError(f"The process {reading} was killed ({_name(-code)}), {_FEWER}")
        return BninspectError(f"The process {reading} ended with exit code {code}, {_FEWER}")


def _name(number: int) -> str:
    """Return the name of a signal; the real-time ones have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def pickled(results: list[Examined]) -> bytes:
    """Return the results of a portion as they are sent."""
    return bytes(ForkingPickler.dumps(results))


def unpickled(results: bytes) -> list[Examined]:
    """Return the results of a portion that a worker has sent."""
    reports: list[Examined] = ForkingPickler.loads(results)
    return reports


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
    progress = int(sys.argv[2])
    os.set_blocking(progress, False)
    with suppress(EOFError, OSError), Connection(int(sys.argv[1])) as connection:
        examine: Examine = connection.recv()
        connection.send_bytes(b"started")
        while True:
            portion = connection.recv()
            reports = []
            try:
                for report in examine(portion):
                    reports.append(report)
                    with suppress(BlockingIOError):  # a long training fills the pipe
                        os.write(progress, b".")  # says on which one this process dies
                results = pickled(reports)
            except Exception as error:
                connection.send_bytes(b"")
                connection.send(_Failure(_portable(error)))
            else:
                connection.send_bytes(results)


def _end_with_starter() -> None:
    """End this process when the one that started it has ended: its pipe is standard input."""
    os.read(0, 1)
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """Return an exception that can be sent; one of a bug has the traceback as its text."""
    if isinstance(error, BninspectError | ImportError | MemoryError | OSError):
        return error
    return RuntimeError(f"in a process that reads checkpoints:\n{traceback.format_exc()}")
