"""Dask clusters of processes on this machine, for the tests of --scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT
from tests.support.processes import PATIENCE

_LOADED = "from bninspect.runs import parallel"  # imported before the first work comes


class Cluster:
    """A scheduler and its workers; `address` is that of the scheduler."""

    def __init__(self, folder: Path, allowed_failures: int = 3) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self._allowed_failures = allowed_failures
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0"
        )
        self.address = self._found("scheduler", "Scheduler at:").split()[-1]

    def worker(self, preload: str = _LOADED, threads: int = 1) -> subprocess.Popen[bytes]:
        """One more worker, there when this returns, which runs the lines `preload` first."""
        name = f"worker-{len(self.processes)}"
        code = self.folder / f"{name}.py"
        code.write_text(preload + "\n", encoding="utf-8")
        process = self._start(
            "worker", self.address, "--no-nanny", "--no-dashboard", "--nthreads", str(threads),
            "--name", name, "--preload", str(code), "--memory-limit", "0",
        )  # fmt: skip
        self._found("worker", "Registered to:")
        return process

    def end(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{what}-{len(self.processes)}.log").open("wb")
        failures = str(self._allowed_failures)
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OPENBLAS_NUM_THREADS": "1",
                "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": failures,
            },
        )
        self.processes.append(process)
        return process

    def _found(self, what: str, words: str) -> str:
        """The line of the newest process's log that holds some words, when it is there."""
        log = self.folder / f"{what}-{len(self.processes) - 1}.log"
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                if words in line:
                    return line
            if self.processes[-1].poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(log.read_text(encoding="utf-8", errors="replace"))


@contextmanager
def cluster(folder: Path, allowed_failures: int = 3) -> Iterator[Cluster]:
    """A scheduler without workers, which ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    started = Cluster(folder, allowed_failures)
    try:
        yield started
    finally:
        started.end()
