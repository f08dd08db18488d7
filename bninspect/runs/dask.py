"""Workers of an existing Dask cluster: the only user of `distributed`.

The paths of checkpoints with their credentials, the options, and the reports are sent, never the
content of a file: the workers read the checkpoints themselves, under the same paths.
"""

from __future__ import annotations

import logging
import pkgutil
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress
from typing import Any

from bninspect._version import __version__
from bninspect.errors import BninspectError, UsageProblem
from bninspect.model.target import CheckpointLocation
from bninspect.runs.observer import Examined
from bninspect.runs.worker import pickled, unpickled
from bninspect.wording import install_command, listed

# Seconds: for a scheduler to answer, and for a cluster without workers to get one.
_CONNECT, _NO_WORKER = 10.0, 60.0
# Seconds between two requests for the number of workers.
_POLL = 5.0
# Portions that wait for each worker: it is never idle, and few results are kept.
_AHEAD = 3
_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx|ucxx)://[^/]+:[0-9]+")


@contextmanager
def cluster_pool(address: str) -> Iterator[ClusterPool]:
    """Open the pool of the cluster whose scheduler has the address `address`.

    Raises `UsageProblem` if the package is missing or no scheduler answers, and `BninspectError` if
    the cluster has no workers, or they have another bninspect.
    """
    with _logging_disabled():
        client = _connect(address)
        # pure=False: each task has a name of its own, so no result of another run is reused.
        executor = client.get_executor(pure=False)
        try:
            pool = ClusterPool(address, client, executor)
            pool.require_bninspect()
            yield pool
        finally:
            with suppress(Exception):  # a scheduler that is gone has nothing to cancel
                executor.shutdown(wait=False)
                client.close(timeout=_POLL)


@contextmanager
def _logging_disabled() -> Iterator[None]:
    """Suppress the log messages and warnings of Dask and its threads."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _connect(address: str) -> Any:
    try:
        import asyncio

        from distributed import Client
        from distributed import TimeoutError as TimedOut  # Python 3.10 has two
    except ImportError as error:
        raise UsageProblem(
            f"--scheduler needs the package `distributed`: {install_command('dask')}."
        ) from error
    expected = "Give the address that it prints when it starts, such as tcp://10.0.0.5:8786."
    if not _ADDRESS.fullmatch(address):  # `Client` would start a cluster of its own for others
        raise UsageProblem(
            f"--scheduler {address!r} is not the address of a Dask scheduler. {expected}"
        )
    try:
        asyncio.run(asyncio.wait_for(_identify(address), _CONNECT))
        return Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, TimedOut) as error:
        raise UsageProblem(
            f"--scheduler {address}: no Dask scheduler answers at this address. {expected}"
        ) from error
    except (TypeError, ImportError, RuntimeError) as error:
        scheme = address.partition(":")[0]
        raise UsageProblem(
            f"--scheduler {address}: Dask is not configured for {scheme}:// on this machine. tls://"
            " and wss:// need certificates in Dask's configuration (distributed.comm.tls), ucx:// a"
            " package."
        ) from error


async def _identify(address: str) -> None:
    """Request the scheduler's identity: `Client` waits for ever for a server that is silent."""
    from distributed import rpc

    async with rpc(address) as scheduler:
        await scheduler.identity()


class ClusterPool:
    """The workers of a cluster."""

    def __init__(self, address: str, client: Any, executor: Any) -> None:
        self._address, self._client, self._executor = address, client, executor
        self._workers, self._polled = 0, 0.0

    @property
    def workers(self) -> int:
        """Return the number of portions that the cluster can read at once, at least 1."""
        if time.monotonic() - self._polled > _POLL:
            with suppress(OSError):  # a lost connection is found when a result is awaited
                self._workers = sum(self._client.nthreads().values())
            self._polled = time.monotonic()
        return max(1, self._workers)

    def map(
        self,
        examine: Callable[[Sequence[CheckpointLocation]], Iterable[Examined]],
        portions: Iterable[Sequence[CheckpointLocation]],
    ) -> Iterator[Examined]:
        """Yield the reports of all portions, in the order of the portions.

        Raises what `examine` raised in a worker, and `BninspectError` if the cluster fails.
        """
        remaining = deque(portions)
        waiting: deque[tuple[Sequence[CheckpointLocation], Future[bytes]]] = deque()
        while remaining or waiting:
            while remaining and len(waiting) < _AHEAD * self.workers:
                portion = remaining.popleft()
                waiting.append((portion, self._executor.submit(_examine_all, examine, portion)))
            portion, future = waiting.popleft()
            yield from self._result(future, portion)

    def require_bninspect(self) -> None:
        """Raise `BninspectError` unless there are workers, and all have this version.

        The scheduler needs it, too: it unpickles the tasks.
        """
        from distributed import TimeoutError as TimedOut

        try:
            self._client.wait_for_workers(1, timeout=_NO_WORKER)
        except TimedOut as error:
            raise self._deserted() from error
        call = (pkgutil.resolve_name, "bninspect:__version__")
        versions = self._client.run(*call, on_error="return")
        try:
            versions["the scheduler"] = self._client.run_on_scheduler(*call)
        except Exception as error:
            versions["the scheduler"] = error
        for machine, version in versions.items():
            if version != __version__:
                installed = f"bninspect {version}" if isinstance(version, str) else "no bninspect"
                raise BninspectError(
                    f"--scheduler {self._address}: {machine} has {installed}, but this is"
                    f" {__version__}. Install the same version on the scheduler and on all workers."
                )

    def _result(
        self, future: Future[bytes], portion: Sequence[CheckpointLocation]
    ) -> list[Examined]:
        """Wait for the reports of a portion, as long as there are workers."""
        from distributed import KilledWorker

        without_workers = 0.0
        while not wait([future], _POLL).done:
            without_workers = 0.0 if self._has_workers() else without_workers + _POLL
            if without_workers >= _NO_WORKER:
                raise self._deserted()
        try:
            return unpickled(future.result())
        except KilledWorker as error:
            raise BninspectError(
                f"--scheduler {self._address}: every worker died that was to read"
                f" {listed([item.path for item in portion])}, perhaps for lack of memory."
            ) from error
        except CancelledError as error:
            raise BninspectError(
                f"--scheduler {self._address}: the scheduler is gone, or has dropped the work."
            ) from error
        except ImportError as error:
            raise BninspectError(
                f"--scheduler {self._address}: a worker lacks the module {error.name}. Install"
                " the packages of this machine on the scheduler and on all workers, too."
            ) from error

    def _has_workers(self) -> bool:
        with suppress(OSError):
            return bool(self._client.nthreads())
        return False

    def _deserted(self) -> BninspectError:
        return BninspectError(
            f"--scheduler {self._address}: the cluster has had no workers for {_NO_WORKER:.0f}"
            " seconds. Start some (`dask worker ADDRESS`)."
        )


def _examine_all(
    examine: Callable[[Sequence[CheckpointLocation]], Iterable[Examined]],
    portion: Sequence[CheckpointLocation],
) -> bytes:
    """Return the reports of a portion, pickled; runs in a worker.

    Dask would measure and send many objects at several times the cost.
    """
    return pickled(list(examine(portion)))
