"""Worker processes: the order of results, and the errors of a worker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from bninspect.errors import BninspectError, UsageProblem
from bninspect.model.target import CheckpointLocation
from bninspect.runs.observer import Examine, Examined, Portion
from bninspect.runs.parallel import ParallelRun
from bninspect.runs.processes import ProcessPool, process_pool
from bninspect.runs.workload import Workload
from tests.support import portions
from tests.support.processes import wait_until

PORTIONS = [
    [CheckpointLocation(f"{portion}/{place}", None) for place in range(3)] for portion in range(20)
]


def results(pool: ProcessPool, workers: int) -> Iterator[Examined]:
    pool.workers = workers
    for number in [pool.add(portion) for portion in PORTIONS]:
        yield from pool.result(number)


@pytest.mark.processes
@pytest.mark.parametrize("workers", [0, 1, 3, 9])
@pytest.mark.parametrize("function", [portions.named, portions.of_any_size])
def test_results_come_in_order(function: Examine, workers: int) -> None:
    with process_pool(function, portions.slowly) as pool:
        paths = [item.report.path for item in results(pool, workers)]
    assert paths == [item.path for portion in PORTIONS for item in portion]


def test_without_workers_all_is_read_here() -> None:
    with process_pool(portions.broken, portions.named) as pool:
        assert len(list(results(pool, 0))) == 60


@pytest.mark.processes
def test_results_may_be_asked_for_in_any_order() -> None:
    with process_pool(portions.named, portions.slowly) as pool:
        pool.workers = 1
        numbers = [pool.add(portion) for portion in PORTIONS]
        paths = [pool.result(number)[0].report.path for number in reversed(numbers)]
    assert paths == [f"{number}/0" for number in reversed(range(20))]


@pytest.mark.processes
def test_a_portion_is_larger_than_the_pipe_of_its_progress() -> None:
    training = [CheckpointLocation(f"training/{step}", None) for step in range(70_000)]

    def until_the_worker_has_the_rest(portion: Portion) -> Iterator[Examined]:
        while pool.waiting:
            yield from portions.slowly(portion)

    with process_pool(portions.named, until_the_worker_has_the_rest) as pool:
        pool.workers = 1
        first, second = [pool.add(portion) for portion in (PORTIONS[0], training)]
        pool.result(first)
        assert len(pool.result(second)) == 70_000


@pytest.mark.processes
@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (portions.refused, UsageProblem, r"refused \d+/1"),
        (portions.broken, RuntimeError, r"(?s)in broken.*LookupError: a bug of ours"),
        (portions.without_memory, MemoryError, "^$"),
        (portions.killed, BninspectError, r"was reading \d+/1 was killed \(SIGSEGV\)"),
        (portions.killed_in_real_time, BninspectError, r"was killed \(signal \d+\)"),
        (portions.leaving, BninspectError, r"was reading \d+/0 ended with exit code 3"),
    ],
)
def test_an_error_of_a_worker_is_raised_here(
    function: Examine, error: type[Exception], words: str
) -> None:
    with process_pool(function, portions.slowly) as pool, pytest.raises(error, match=words):
        list(results(pool, 1))


@pytest.mark.processes
@pytest.mark.parametrize("program", ["/bin/false", "/no/such/program"])
def test_after_a_worker_that_cannot_start_there_is_no_other(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    start = subprocess.Popen

    def counted(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    monkeypatch.setattr(sys, "executable", program)
    with process_pool(portions.named, portions.slowly) as pool:
        for portion in PORTIONS:
            pool.allow(1)
            pool.result(pool.add(portion))
    assert len(started) == 1


@pytest.mark.processes
def test_a_worker_reads_while_checkpoints_are_searched_for() -> None:
    with process_pool(portions.named, portions.named) as pool:
        run = ParallelRun(pool, Workload(2), together=False)
        begun: list[Portion] = []

        def is_reading() -> bool:
            begun.append(tuple(CheckpointLocation(f"{len(begun)}/{n}", None) for n in range(3)))
            run.begin(begun[-1], 1)
            return pool.held > 0

        wait_until(is_reading)
        locations = [item for portion in begun for item in portion]
        reports = [*run.reports(locations)]
    assert [item.report.path for item in reports] == [item.path for item in locations]


def test_an_error_here_is_raised() -> None:
    with process_pool(portions.named, portions.broken) as pool, pytest.raises(LookupError):
        list(results(pool, 0))
