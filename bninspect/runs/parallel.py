"""Reading checkpoints in parallel; the reports come in the order of the checkpoints.

The workers are processes of this machine (`processes`) or of a Dask cluster (`dask`). A worker gets
a portion of checkpoints at a time; checkpoints that are compared with each other go to the same
worker. It sends back what the observer of the run makes of each report, and the report without its
layers; without an observer, or if the user's suppressions decide first, the report with its layers,
whose variables can no longer be read.
"""

from __future__ import annotations

import copyreg
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import NamedTuple

from bninspect._version import __version__
from bninspect.config.model import Config
from bninspect.errors import BninspectError
from bninspect.model.layer_views import LayerViews
from bninspect.model.report import CheckpointReport
from bninspect.model.rule import Rule, no_graph
from bninspect.model.target import CheckpointLocation
from bninspect.rules import RULES, select_rules
from bninspect.runs.observer import Examined, Portion, Render
from bninspect.runs.processes import ProcessPool, process_pool
from bninspect.runs.read_layers import without_files
from bninspect.runs.sequential import (
    Needs,
    Rules,
    compares_with_previous,
    examine_sequentially,
    read_since,
)
from bninspect.runs.workload import Workload
from bninspect.storage import run_scope
from bninspect.storage.urls import Secrets, adopt_secrets, is_url, secrets

# How many checkpoints a worker gets at once: enough that sending them costs little, which takes
# longer on a cluster, and few enough that all workers end together.
_PER_WORKER, _LARGEST, _LARGEST_ON_CLUSTER = 8, 32, 256
# Only within a portion are objects behind URLs read ahead.
_PER_WORKER_REMOTE, _LARGEST_REMOTE = 2, 256
# Portions that wait, by the number of processes: none is idle while this one reads a portion.
_AHEAD = 4
# Bytes of results that are held while checkpoints are still being searched for.
_MOST_HELD = 1 << 24


def _rule(code: str) -> Rule:
    return next(rule for rule in RULES if rule.code == code)


def _by_code(rule: Rule) -> tuple[Callable[[str], Rule], tuple[str]]:
    return _rule, (rule.code,)


copyreg.pickle(Rule, _by_code)  # a rule is sent as its code


class _Settings(NamedTuple):
    """Settings of a run, sent to each worker.

    `codes` are those of the rules, None if layers are only listed. `render` is that of the run's
    observer, None if reports are sent with their layers. `run` identifies the run: a worker of a
    cluster outlives it. `version` is the version of the program that sends this;
    `secrets` are the credentials of its URLs.
    """

    config: Config
    codes: tuple[str, ...] | None
    needs: Needs
    render: Render | None
    run: bytes
    version: str
    secrets: Secrets


class ParallelRun:
    """A run that this process reads together with its workers, if its work pays for some."""

    def __init__(self, pool: ProcessPool, workload: Workload, *, together: bool) -> None:
        self._pool, self._workload, self._together = pool, workload, together
        # The portions that were begun before all checkpoints were found, by their numbers.
        self._begun: dict[int, Portion] = {}
        self._rest: Iterator[Portion] = iter(())
        self._numbers: deque[int] = deque()  # of the portions of the rest
        self._left = 0  # checkpoints of the rest that are not handed out

    def begin(self, portion: Portion, workers: int) -> None:
        """Let a worker read a portion, while other checkpoints are still being searched for.

        `workers` is how many there may be. Raises what `reports` raises.
        """
        pool = self._pool
        pool.allow(workers)
        pool.receive()
        if len(pool.waiting) < pool.workers and pool.held < _MOST_HELD:
            self._begun[pool.add(portion)] = portion

    def reports(self, locations: Sequence[CheckpointLocation]) -> Iterator[Examined]:
        """Yield the report of each of `locations`, which are all checkpoints of the run.

        Raises `BninspectError` if a process dies while it reads, a `ReadProblem` if `--since`
        cannot be read.
        """
        begun = {id(item) for portion in self._begun.values() for item in portion}
        rest = [item for item in locations if id(item) not in begun]
        size = _portion_size(rest, self._pool.workers + 1, _LARGEST)
        self._rest = _portions(rest, size, together=self._together)
        self._left = len(rest)
        early, others = self._of_begun(), self._of_rest()
        passed: dict[int, Examined] = {}
        for item in locations:
            if id(item) not in begun:
                yield next(others)
                continue
            while id(item) not in passed:
                found, examined = next(early)
                passed[id(found)] = examined
            yield passed.pop(id(item))

    def _of_begun(self) -> Iterator[tuple[CheckpointLocation, Examined]]:
        """Yield the checkpoints that were begun before all were found, with their reports."""
        for number, portion in self._begun.items():
            self._fill()
            yield from zip(portion, self._result(number), strict=True)

    def _of_rest(self) -> Iterator[Examined]:
        """Yield the reports of the others."""
        self._fill()
        while self._numbers:
            results = self._result(self._numbers.popleft())
            self._fill()
            yield from results

    def _result(self, number: int) -> list[Examined]:
        """Return the reports of a portion."""
        results = self._pool.result(number)
        self._workload.has_read(results)
        return results

    def _fill(self) -> None:
        """Hand out the next portions, to more workers if what remains pays for them."""
        pool = self._pool
        unread = self._left + sum(map(len, pool.waiting))
        pool.allow(self._workload.processes(unread) - 1)
        while len(pool.waiting) < _AHEAD * (pool.workers + 1):
            portion = next(self._rest, None)
            if portion is None:
                return
            self._left -= len(portion)
            self._numbers.append(pool.add(portion))


@contextmanager
def open_parallel_run(
    config: Config, rules: Rules, workload: Workload, *, needs: Needs, render: Render | None
) -> Iterator[ParallelRun]:
    """Open a run that several processes of this machine read; all have ended with the block."""
    settings = _settings(config, rules, needs, render)
    examine = partial(_examine_portion, settings)
    here = partial(_examine_here, settings, rules)
    with process_pool(examine, here) as pool:
        yield ParallelRun(pool, workload, together=compares_with_previous(config, rules))


def examine_on_cluster(
    locations: Sequence[CheckpointLocation],
    config: Config,
    rules: Rules,
    *,
    needs: Needs,
    render: Render | None,
) -> Iterator[Examined]:
    """Yield the report of each of `locations`, read by the Dask cluster `config.scheduler`.

    Raises `BninspectError` if the cluster fails, a `ReadProblem` if `--since` cannot be read.
    """
    from bninspect.runs.dask import cluster_pool

    examine = partial(_examine_portion, _settings(config, rules, needs, render))
    together = compares_with_previous(config, rules)
    with cluster_pool(config.scheduler or "") as cluster:
        size = _portion_size(locations, cluster.workers, _LARGEST_ON_CLUSTER)
        yield from cluster.map(examine, _portions(locations, size, together=together))


def _settings(config: Config, rules: Rules, needs: Needs, render: Render | None) -> _Settings:
    codes = None if rules is None else tuple(rule.code for rule in rules)
    return _Settings(config, codes, needs, render, os.urandom(8), __version__, secrets())


def _portion_size(locations: Sequence[CheckpointLocation], workers: int, largest: int) -> int:
    """Return how many checkpoints a portion has, `largest` at most for local files."""
    portions = _PER_WORKER * workers
    if locations and is_url(locations[0].path):
        portions, largest = _PER_WORKER_REMOTE * workers, _LARGEST_REMOTE
    return max(1, min(largest, -(-len(locations) // portions)))


def _portions(
    locations: Sequence[CheckpointLocation], size: int, *, together: bool
) -> Iterator[Portion]:
    """Yield `size` checkpoints each; with `together` all of a training are in one portion."""
    if not together:
        for start in range(0, len(locations), size):
            yield tuple(locations[start : start + size])
        return
    last = {item.training: number for number, item in enumerate(locations, 1) if item.training}
    start = end = 0
    for done, item in enumerate(locations, 1):
        end = max(end, last[item.training] if item.training else done)
        if done == end and (done - start >= size or done == len(locations)):
            yield tuple(locations[start:end])
            start = end


def _examine_portion(settings: _Settings, portion: Portion) -> Iterator[Examined]:
    """Yield the reports of a portion; runs in a worker."""
    if settings.version != __version__:  # a worker that joined the cluster late
        raise BninspectError(
            f"A worker has bninspect {__version__}, but this program is {settings.version}."
            " Install the same version."
        )
    adopt_secrets(settings.secrets)
    codes = settings.codes
    rules = None if codes is None else select_rules(codes, ()) if codes else ()
    yield from _examine(settings, rules, _begin_run(settings.config, settings.run), portion)


@lru_cache(maxsize=1)
def _begin_run(config: Config, _run: bytes) -> CheckpointReport | None:
    """Clear the caches of the previous run, once per run in a worker; return `read_since`.

    It is called with the first portion: an error at the start of a worker could not be sent.
    """
    run_scope.begin_run()
    return read_since(config)


def _examine_here(settings: _Settings, rules: Rules, portion: Portion) -> Iterator[Examined]:
    """Yield the reports of a portion; runs in the process that started the run."""
    yield from _examine(settings, rules, _read_since_here(settings.config, settings.run), portion)


@lru_cache(maxsize=1)
def _read_since_here(config: Config, _run: bytes) -> CheckpointReport | None:
    """Return `read_since`, which is read once per run."""
    return read_since(config)


def _examine(
    settings: _Settings, rules: Rules, since: CheckpointReport | None, portion: Portion
) -> Iterator[Examined]:
    """Yield the reports of a portion, as they are sent."""
    config, render = settings.config, settings.render
    sorts = bool(config.severity or config.suppress or config.baseline is not None)
    # No variable can be read where the reports are sent to.
    needs: Needs = "nothing" if settings.needs == "nothing" else "values"
    for report in examine_sequentially(portion, config, rules, since, needs=needs):
        if render is not None and not (sorts and report.findings):
            yield Examined(report.without_layers(), render(report))
        elif needs == "values" or config.suppress:  # whose globs match names of layers
            yield Examined(_portable(report))
        else:
            yield Examined(report.without_layers())


def _portable(report: CheckpointReport) -> CheckpointReport:
    """Return a report that can be pickled."""
    layers = report.layers
    if not isinstance(layers, LayerViews):  # whose variables are closed, and names sent once
        layers = tuple(map(without_files, layers))
    return report.with_fields(layers=layers, graph=no_graph)
