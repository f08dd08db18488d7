"""Several workers that examine checkpoints, their results in the order of the checkpoints.

They are processes of this machine, or those of a Dask cluster (`cluster`): only the pool differs.
A worker gets a few checkpoints at a time; checkpoints that are compared with each other go to one.
What it sends back is whole but for what only an open file can give: no variable can be read again.
"""

from __future__ import annotations

import copyreg
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, NamedTuple

from bninspect._version import __version__
from bninspect.config.model import Config
from bninspect.errors import BninspectError
from bninspect.locate.discover import identity
from bninspect.model.report import CheckpointReport
from bninspect.model.rule import Rule, no_graph
from bninspect.model.target import Found
from bninspect.rules import RULES, select_rules
from bninspect.runs.dask import Pool, cluster_pool
from bninspect.runs.sequential import Rules, compares_with_previous, examine_in_turn, read_since
from bninspect.storage import run_caches
from bninspect.storage.urls import Secrets, adopt_secrets, secrets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bninspect.model.checkpoint import Variable
    from bninspect.model.layer import BNLayer

# How many checkpoints a worker gets at once: so many that handing them over costs little.
_PORTION = 8
# How many portions wait for each worker, so that it is never idle and few results are held.
_AHEAD = 3


def _rule(code: str) -> Rule:
    return next(rule for rule in RULES if rule.code == code)


def _by_code(rule: Rule) -> tuple[Callable[[str], Rule], tuple[str]]:
    return _rule, (rule.code,)


copyreg.pickle(Rule, _by_code)  # its functions and its pages need not travel

_Portion = tuple[Found, ...]


class _Settings(NamedTuple):
    """What a worker is told with each portion.

    `codes` are those of the rules, None if layers are only listed. `run` is another for each run: a
    worker of a cluster outlives them. `version` is that of who asks. `secrets` open its URLs.
    """

    config: Config
    codes: tuple[str, ...] | None
    needs_layers: bool
    run: bytes
    version: str
    secrets: Secrets


@lru_cache(maxsize=1)
def _begin(config: Config, _run: bytes) -> CheckpointReport | None:
    """Begin a run, once in each worker: what is wrong when the worker starts could not be told.

    Returns what `read_since` does.
    """
    run_caches.clear_all()
    return read_since(config)


def examine_in_pool(
    found: Sequence[Found], config: Config, rules: Rules, *, layers: bool
) -> Iterator[CheckpointReport]:
    """What is in each of `found`: by `config.jobs` processes, or the cluster `config.scheduler`.

    Raises `BninspectError` if one of them is killed and cannot be done without, a `ReadProblem` if
    `--since` cannot be read.
    """
    portions = deque(_portions(found, together=compares_with_previous(config, rules)))
    codes = None if rules is None else tuple(rule.code for rule in rules)
    settings = _Settings(config, codes, layers, os.urandom(8), __version__, secrets())
    pools = _process_pool(min(config.jobs, len(portions)))
    if config.scheduler is not None:
        pools = cluster_pool(config.scheduler)
    waiting: deque[tuple[_Portion, Future[list[CheckpointReport]]]] = deque()
    with pools as pool:
        while portions or waiting:
            while portions and len(waiting) < _AHEAD * pool.workers():
                with _uninterrupted():
                    future = pool.submit(_examine, settings, portions[0])
                waiting.append((portions.popleft(), future))
            portion, future = waiting.popleft()
            yield from pool.result(future, [item.path for item in portion])


class _Context(ForkServerContext):
    """Knows the processes that it started.

    A pool that gives up ends all it knows of and waits for them (`terminate_broken` of
    concurrent/futures/process.py). It waits for good for one that is starting meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []

    def Process(self, *arguments: Any, **named: Any) -> ForkServerProcess:  # type: ignore[override]  # noqa: N802
        """One more, as the pool asks for it."""
        process = ForkServerProcess(*arguments, **named)
        self.started.append(process)
        return process


@contextmanager
def _process_pool(jobs: int) -> Iterator[Pool]:
    # A server that forks clean processes: nothing of this one's threads or locks is in them.
    context = _Context()
    context.set_forkserver_preload([examine_in_turn.__module__])
    executor = ProcessPoolExecutor(jobs, context)
    try:
        yield Pool(executor.submit, lambda: jobs, lambda future, _: future.result())
    except BrokenProcessPool as error:
        for process in context.started:
            if process.pid is not None:
                process.kill()
        raise BninspectError(
            "A process that was reading checkpoints was killed, perhaps for want of memory:"
            " use fewer --jobs."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let an interrupt from the keyboard wait, for good in processes that are started meanwhile.

    It is for the process that hands out the work; the others end with it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _portions(found: Sequence[Found], *, together: bool) -> Iterator[_Portion]:
    """A few checkpoints each; with `together` no directory has some in two of them."""
    if not together:
        for start in range(0, len(found), _PORTION):
            yield tuple(found[start : start + _PORTION])
        return
    directories = [os.path.dirname(identity(item)) for item in found]
    ends = {directory: end for end, directory in enumerate(directories, 1)}
    start = end = 0
    for done, directory in enumerate(directories, 1):
        end = max(end, ends[directory])
        if done == end:
            yield tuple(found[start:end])
            start = end


def _examine(settings: _Settings, portion: _Portion) -> list[CheckpointReport]:
    config, codes, layers, run, version, told = settings
    if version != __version__:  # a worker that joined a cluster after the others were asked
        raise BninspectError(
            f"A worker has bninspect {__version__}, and this is {version}: install the same."
        )
    adopt_secrets(told)
    rules = None if codes is None else select_rules(codes, ()) if codes else ()
    since = _begin(config, run)
    return [
        _portable(report) if layers or _is_matched(report, config) else report.without_layers()
        for report in examine_in_turn(portion, config, rules, since)
    ]


def _is_matched(report: CheckpointReport, config: Config) -> bool:
    """Whether suppressions are matched with it, whose globs go by the names of all its layers."""
    return bool(config.suppress and report.findings)


def _portable(report: CheckpointReport) -> CheckpointReport:
    """A report that can travel."""
    closed = tuple(map(_closed, report.layers))
    return replace(report, layers=closed, graph=no_graph)


def _closed(layer: BNLayer) -> BNLayer:
    return replace(
        layer,
        variables={role: _unreadable(one) for role, one in layer.variables.items()},
        helpers={name: _unreadable(one) for name, one in layer.helpers.items()},
        shadows={role: _unreadable(one) for role, one in layer.shadows.items()},
    )


def _unreadable(variable: Variable) -> Variable:
    return variable._replace(load=_not_here)


def _not_here() -> NDArray[Any]:
    raise BninspectError("The process that had this checkpoint open has closed it.")
