"""Reading checkpoints in parallel; the reports come in the order of the checkpoints.

The workers are processes of this machine (`processes`) or of a Dask cluster (`dask`). A worker gets
a few checkpoints at a time; checkpoints that are compared with each other go to the same worker.
The reports that it sends back are complete, but their variables can no longer be read.
"""

from __future__ import annotations

import copyreg
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bninspect._version import __version__
from bninspect.config.model import Config
from bninspect.errors import BninspectError
from bninspect.model.report import CheckpointReport
from bninspect.model.rule import Rule, no_graph
from bninspect.model.target import CheckpointLocation
from bninspect.rules import RULES, select_rules
from bninspect.runs.dask import cluster_pool
from bninspect.runs.processes import Portion, process_pool
from bninspect.runs.read_layers import without_files
from bninspect.runs.sequential import (
    Needs,
    Rules,
    compares_with_previous,
    examine_sequentially,
    read_since,
)
from bninspect.storage import run_scope
from bninspect.storage.urls import Secrets, adopt_secrets, secrets

if TYPE_CHECKING:
    pass

# The number of checkpoints that a worker gets at once: enough that sending them costs little.
_PORTION = 8


def _rule(code: str) -> Rule:
    return next(rule for rule in RULES if rule.code == code)


def _by_code(rule: Rule) -> tuple[Callable[[str], Rule], tuple[str]]:
    return _rule, (rule.code,)


copyreg.pickle(Rule, _by_code)  # a rule is sent as its code


class _Settings(NamedTuple):
    """Settings of a run, sent to each worker.

    `codes` are those of the rules, None if layers are only listed. `run` identifies the run: a
    worker of a cluster outlives it. `version` is the version of the program that sends this;
    `secrets` are the credentials of its URLs.
    """

    config: Config
    codes: tuple[str, ...] | None
    needs: Needs
    run: bytes
    version: str
    secrets: Secrets


@lru_cache(maxsize=1)
def _begin_run(config: Config, _run: bytes) -> CheckpointReport | None:
    """Clear the caches of the previous run, once per run in a worker; return `read_since`.

    It is called with the first portion: an error at the start of a worker could not be sent.
    """
    run_scope.begin_run()
    return read_since(config)


class Pool(Protocol):
    """Worker processes, of this machine or of a cluster."""

    def map(
        self, examine: Callable[[Portion], Iterable[CheckpointReport]], portions: Iterable[Portion]
    ) -> Iterator[CheckpointReport]:
        """Yield the reports of all portions, in the order of the portions."""


def examine_in_parallel(
    locations: Sequence[CheckpointLocation], config: Config, rules: Rules, *, needs: Needs
) -> Iterator[CheckpointReport]:
    """Yield the report of each of `found`, read by `config.jobs` processes or a Dask cluster.

    Raises `BninspectError` if a process dies or the cluster fails, a `ReadProblem` if `--since`
    cannot be read.
    """
    portions = list(_portions(locations, together=compares_with_previous(config, rules)))
    codes = None if rules is None else tuple(rule.code for rule in rules)
    settings = _Settings(config, codes, needs, os.urandom(8), __version__, secrets())
    pool: AbstractContextManager[Pool]
    if config.scheduler is None:
        pool = process_pool(min(config.jobs, len(portions)))
    else:
        pool = cluster_pool(config.scheduler)
    with pool as workers:
        yield from workers.map(partial(_examine_portion, settings), portions)


def _portions(locations: Sequence[CheckpointLocation], *, together: bool) -> Iterator[Portion]:
    """Yield a few checkpoints each; with `together` all of a training are in one portion."""
    if not together:
        for start in range(0, len(locations), _PORTION):
            yield tuple(locations[start : start + _PORTION])
        return
    last = {item.training: number for number, item in enumerate(locations, 1) if item.training}
    start = end = 0
    for done, item in enumerate(locations, 1):
        end = max(end, last[item.training] if item.training else done)
        if done == end and (done - start >= _PORTION or done == len(locations)):
            yield tuple(locations[start:end])
            start = end


def _examine_portion(settings: _Settings, portion: Portion) -> Iterator[CheckpointReport]:
    """Yield the reports of a portion; runs in a worker."""
    if settings.version != __version__:  # a worker that joined the cluster late
        raise BninspectError(
            f"A worker has bninspect {__version__}, but this program is {settings.version}."
            " Install the same version."
        )
    adopt_secrets(settings.secrets)
    config, codes = settings.config, settings.codes
    rules = None if codes is None else select_rules(codes, ()) if codes else ()
    since = _begin_run(config, settings.run)
    # No variable can be read where the reports are sent to.
    needs: Needs = "nothing" if settings.needs == "nothing" else "values"
    for report in examine_sequentially(portion, config, rules, since, needs=needs):
        keeps_layers = needs == "values" or _needs_names(report, config)
        yield _portable(report) if keeps_layers else report.without_layers()


def _needs_names(report: CheckpointReport, config: Config) -> bool:
    """Return whether suppressions need the names of all its layers, to match their globs."""
    return bool(config.suppress and report.findings)


def _portable(report: CheckpointReport) -> CheckpointReport:
    """Return a report that can be pickled."""
    closed = tuple(map(without_files, report.layers))
    return replace(report, layers=closed, graph=no_graph)
