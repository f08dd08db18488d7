"""A Dask cluster that is there already, as a pool: the only place that knows `distributed`.

What travels are the places of checkpoints with what opens them, the options and our own reports,
never what is in a file: the workers read the checkpoints themselves, by the same paths.
"""

from __future__ import annotations

import logging
import pkgutil
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from bninspect._version import __version__
from bninspect.errors import BninspectError, UsageProblem
from bninspect.wording import listed

# Seconds: for a scheduler to answer, and for a cluster that has no worker to get one.
_CONNECT, _NO_WORKER = 10.0, 60.0
# Seconds between two looks at who is there.
_LOOK = 5.0
_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx|ucxx)://[^/]+:[0-9]+")


class Pool(NamedTuple):
    """Who does the work.

    `submit(function, *arguments)` gives a future, `workers()` how many can be busy at once.
    `result(future, paths)` waits for what became of some checkpoints; raises `BninspectError` if
    those who read them are lost.
    """

    submit: Callable[..., Future[Any]]
    workers: Callable[[], int]
    result: Callable[[Future[Any], Sequence[str]], Any]


@contextmanager
def cluster_pool(address: str) -> Iterator[Pool]:
    """The pool of the cluster whose scheduler is at `address`.

    Raises `UsageProblem` without the package, or if no scheduler answers there, and
    `BninspectError` if the cluster has no workers, or they have not this bninspect.
    """
    with _quiet():
        client = _client(address)
        # Its own results have one name each: what another run left is never taken for them.
        executor = client.get_executor(pure=False)
        try:
            cluster = _Cluster(address, client)
            cluster.require_bninspect()
            yield Pool(executor.submit, cluster.workers, cluster.result)
        finally:
            with suppress(Exception):  # a scheduler that is gone has nothing to cancel
                executor.shutdown(wait=False)
                client.close(timeout=_LOOK)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Dask logs and warns of out of what we say; its threads do so, too."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _client(address: str) -> Any:
    try:
        import asyncio

        from distributed import Client
        from distributed import TimeoutError as TimedOut  # Python 3.10 has two
    except ImportError as error:
        raise UsageProblem(
            "--scheduler needs the package `distributed`: pip install 'bninspect[dask]'."
        ) from error
    wanted = "Give the address that it prints when it starts, such as tcp://10.0.0.5:8786."
    if not _ADDRESS.fullmatch(address):  # of anything else `Client` makes a cluster of its own
        raise UsageProblem(f"--scheduler {address!r} is no address of a Dask scheduler. {wanted}")
    try:
        asyncio.run(asyncio.wait_for(_ask(address), _CONNECT))
        return Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, TimedOut) as error:
        raise UsageProblem(
            f"--scheduler {address}: no Dask scheduler answers there. {wanted}"
        ) from error
    except (TypeError, ImportError, RuntimeError) as error:
        scheme = address.partition(":")[0]
        raise UsageProblem(
            f"--scheduler {address}: Dask is not set up for {scheme}:// here. tls:// and wss://"
            " take certificates in Dask's configuration (distributed.comm.tls), ucx:// a package."
        ) from error


async def _ask(address: str) -> None:
    """Ask a scheduler who it is: `Client` would wait for good for one that says nothing."""
    from distributed import rpc

    async with rpc(address) as scheduler:
        await scheduler.identity()


class _Cluster:
    """What is asked of a cluster while it works."""

    def __init__(self, address: str, client: Any) -> None:
        self._address, self._client = address, client
        self._workers, self._asked = 0, 0.0

    def require_bninspect(self) -> None:
        """Raise `BninspectError` unless there are workers, and all have this bninspect.

        The scheduler needs it, too: it unpacks what it hands on.
        """
        from distributed import TimeoutError as TimedOut

        try:
            self._client.wait_for_workers(1, timeout=_NO_WORKER)
        except TimedOut as error:
            raise self._deserted() from error
        asked = (pkgutil.resolve_name, "bninspect:__version__")
        versions = self._client.run(*asked, on_error="return")
        try:
            versions["the scheduler"] = self._client.run_on_scheduler(*asked)
        except Exception as error:
            versions["the scheduler"] = error
        for who, version in versions.items():
            if version != __version__:
                told = f"bninspect {version}" if isinstance(version, str) else "no bninspect"
                raise BninspectError(
                    f"--scheduler {self._address}: {who} has {told}, and this is"
                    f" {__version__}. Install the same on the scheduler and on all its workers."
                )

    def workers(self) -> int:
        """How many checkpoints it can read at once; 1 at least."""
        if time.monotonic() - self._asked > _LOOK:
            with suppress(OSError):  # the connection is lost: waiting for a result tells
                self._workers = sum(self._client.nthreads().values())
            self._asked = time.monotonic()
        return max(1, self._workers)

    def result(self, future: Future[Any], paths: Sequence[str]) -> Any:
        """What `future` gives, as long as there are workers."""
        from distributed import KilledWorker

        without = 0.0
        while not wait([future], _LOOK).done:
            without = 0.0 if self._has_workers() else without + _LOOK
            if without >= _NO_WORKER:
                raise self._deserted()
        try:
            return future.result()
        except KilledWorker as error:
            raise BninspectError(
                f"--scheduler {self._address}: every worker died that was to read {listed(paths)}:"
                " for want of memory, perhaps."
            ) from error
        except CancelledError as error:
            raise BninspectError(
                f"--scheduler {self._address}: the scheduler is gone, or has dropped the work."
            ) from error
        except ImportError as error:
            raise BninspectError(
                f"--scheduler {self._address}: a worker lacks the module {error.name}. Install"
                " what is here on the scheduler and on all its workers, too."
            ) from error

    def _has_workers(self) -> bool:
        with suppress(OSError):
            return bool(self._client.nthreads())
        return False

    def _deserted(self) -> BninspectError:
        return BninspectError(
            f"--scheduler {self._address}: it has had no workers for {_NO_WORKER:.0f} seconds."
            " Start some (`dask worker ADDRESS`)."
        )
