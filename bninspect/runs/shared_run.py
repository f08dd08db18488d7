"""A run that is read by this process, by several, or by a cluster, as its work needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from bninspect.config.model import Config
from bninspect.model.target import CheckpointLocation
from bninspect.runs.observer import Examined
from bninspect.runs.sequential import (
    Needs,
    Rules,
    compares_with_previous,
    examine_sequentially,
    read_since,
)

if TYPE_CHECKING:
    from bninspect.runs.observer import Render
    from bninspect.runs.parallel import ParallelRun
    from bninspect.runs.workload import Workload

# The number of checkpoints that a worker gets while others are still being searched for.
_PORTION = 32


class SharedRun:
    """A run of `config.jobs` processes at most, or of the cluster `config.scheduler`.

    Processes are started when the work pays for them, some of them while checkpoints are still
    being searched for; all have ended when the context ends. `needs` says what the reports must
    have of layers, `render` is that of the observer.
    """

    def __init__(
        self, config: Config, rules: Rules, *, needs: Needs, render: Render | None = None
    ) -> None:
        self._config, self._rules, self._needs, self._render = config, rules, needs, render
        self._exit = ExitStack()
        self._workload: Workload | None = None
        self._parallel: ParallelRun | None = None
        self._count = 0
        self._found: list[CheckpointLocation] = []

    def __enter__(self) -> SharedRun:
        return self

    def __exit__(self, *error: Any) -> None:
        self._exit.__exit__(*error)

    def find(self, location: CheckpointLocation) -> None:
        """Take a checkpoint that was found; a worker may begin to read it.

        Raises what `reports` raises.
        """
        workload = self._work()
        workload.add(location)
        self._count += 1
        self._found.append(location)
        if len(self._found) < _PORTION:
            return
        portion, self._found = tuple(self._found), []
        workers = workload.processes(self._count) - 1
        if workers:
            self._open().begin(portion, workers)

    def reports(self, locations: Sequence[CheckpointLocation]) -> Iterator[Examined]:
        """Yield the report of each of `locations`, in their order.

        Raises `BninspectError` if a process or the cluster fails, a `ReadProblem` if `--since`
        cannot be read.
        """
        config, rules, needs = self._config, self._rules, self._needs
        if config.scheduler is not None:
            from bninspect.runs.parallel import examine_on_cluster

            yield from examine_on_cluster(
                locations, config, rules, needs=needs, render=self._render
            )
        elif self._pays(locations):
            yield from self._open().reports(locations)
        else:
            since = read_since(config)
            yield from map(
                Examined, examine_sequentially(locations, config, rules, since, needs=needs)
            )

    def reads_early(self) -> bool:
        """Return whether checkpoints may be read while others are still being searched for.

        Those of a training must be in their order first, and an error of `--since` ends the run.
        """
        config = self._config
        is_shared = config.jobs != 1 and config.scheduler is None and config.since is None
        return is_shared and not compares_with_previous(config, self._rules)

    def _pays(self, locations: Sequence[CheckpointLocation]) -> bool:
        """Return whether these checkpoints may pay for a second process."""
        if self._parallel is not None:
            return True
        if self._config.jobs == 1 or len(locations) < 2:
            return False
        workload = self._work()
        if not self._count:
            for item in locations:
                workload.add(item)
        return workload.may_pay(len(locations))

    def _work(self) -> Workload:
        if self._workload is None:
            from bninspect.runs.workload import Workload

            self._workload = Workload(self._config.jobs)
        return self._workload

    def _open(self) -> ParallelRun:
        if self._parallel is None:
            from bninspect.runs.parallel import open_parallel_run

            self._parallel = self._exit.enter_context(
                open_parallel_run(
                    self._config, self._rules, self._work(), needs=self._needs, render=self._render
                )
            )
        return self._parallel
