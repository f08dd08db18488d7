"""The number of processes that read a run: as many as its work pays for.

A process costs a fifth of a second until it has started, and the one that starts it goes on reading
meanwhile. So each further process needs work for more than that. The work is estimated from what is
known of each checkpoint before it is read, so that the same files give the same number.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence

from bninspect.config.model import Jobs
from bninspect.model.target import CheckpointLocation, Target
from bninspect.runs.observer import Examined
from bninspect.storage.urls import is_url

# Seconds of work for each further process, and of what reading takes: a checkpoint that is laid out
# like others and plainly healthy, any other, each byte of an index whose layout is new, and one
# behind a URL, without the latency. Measured by benchmarks/fleet.py on a core of 2.5 GHz.
OF_PROCESS = 0.25
_KNOWN, _OTHER, _BYTE, _REMOTE = 120e-6, 2e-3, 200e-9, 8e-3
# The same of Keras files, and of each byte of an archive, whose checksum is verified.
_KNOWN_KERAS, _OTHER_KERAS, _VERIFIED_BYTE = 300e-6, 6e-3, 1e-9
_WITH_LAYOUT = ("tensor-bundle", "hdf5", "keras-zip")
# A layout is learned from the second checkpoint whose index has its size.
_LEARNED = 2
# So many checkpoints stand for those after them: to ask for the size of each takes time, too.
_SAMPLE = 256
# `auto` starts no more: one process writes the results of all.
_MOST = 8


class Workload:
    """The estimated work of a run.

    `jobs` is the largest number of processes, `auto` for as many as there are processors.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._most = min(_MOST, processors()) if jobs == "auto" else jobs
        if not hasattr(signal, "pthread_sigmask"):  # Windows, where no pipe could be inherited
            self._most = 1
        self._seconds, self._count = 0.0, 0
        self._sizes: Counter[tuple[str, int]] = Counter()
        self._read = self._unusual = 0

    def add(self, location: CheckpointLocation) -> None:
        """Add the work of a checkpoint that is to be read."""
        is_sampled = self._count < _SAMPLE
        self._seconds += self._estimate(location) if is_sampled else self._seconds / self._count
        self._count += 1

    def has_read(self, results: Sequence[Examined]) -> None:
        """Take into account what checkpoints turned out to be: those with findings take longer."""
        self._read += len(results)
        self._unusual += sum(bool(item.report.findings) for item in results)

    def processes(self, remaining: int) -> int:
        """Return how many processes `remaining` of these checkpoints pay for."""
        each = self._seconds / max(self._count, 1)
        unusual = self._unusual / max(self._read, 1)
        return self._paid_by((each + _OTHER * unusual) * remaining, remaining)

    def may_pay(self, total: int) -> bool:
        """Return whether `total` checkpoints pay for a second process, if all take long."""
        return self._paid_by(self._seconds + _OTHER * total, total) > 1

    def _paid_by(self, seconds: float, checkpoints: int) -> int:
        return max(1, min(self._most, checkpoints, 1 + int(seconds / OF_PROCESS)))

    def _estimate(self, location: CheckpointLocation) -> float:
        target = location.target
        if target is None:
            return 0.0
        if is_url(target.path):
            return _REMOTE
        return self._local(target) if target.kind in _WITH_LAYOUT else _OTHER

    def _local(self, target: Target) -> float:
        """Return the work of a local checkpoint that may be laid out like others."""
        is_bundle = target.kind == "tensor-bundle"
        try:
            size = os.path.getsize(f"{target.path}.index" if is_bundle else target.path)
        except OSError:
            return 0.0
        self._sizes[target.kind, size] += 1
        is_known = self._sizes[target.kind, size] > _LEARNED
        if is_bundle:
            return _KNOWN if is_known else _OTHER + size * _BYTE
        verified = size * _VERIFIED_BYTE if target.kind == "keras-zip" else 0.0
        return verified + (_KNOWN_KERAS if is_known else _OTHER_KERAS)


def processors() -> int:
    """Return the number of processors that this process may use, by its affinity and its group."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        count = os.cpu_count() or 1
    try:  # Linux, Documentation/admin-guide/cgroup-v2.rst, cpu.max: "$MAX $PERIOD"
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as limit:
            quota, period = limit.read().split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or no limit ("max")
        return count
