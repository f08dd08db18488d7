"""Worker processes: the order of results, and the errors of a worker."""

from __future__ import annotations

import pytest

from bninspect.errors import BninspectError, UsageProblem
from bninspect.model.target import CheckpointLocation
from bninspect.runs.processes import process_pool
from tests.support import portions

PORTIONS = [
    [CheckpointLocation(f"{portion}/{place}", None) for place in range(3)] for portion in range(20)
]


@pytest.mark.processes
@pytest.mark.parametrize("jobs", [1, 3, 9])
@pytest.mark.parametrize("function", [portions.named, portions.of_any_size])
def test_results_come_in_order(function, jobs: int) -> None:
    with process_pool(jobs) as pool:
        paths = [report.path for report in pool.map(function, PORTIONS)]
    assert paths == [item.path for portion in PORTIONS for item in portion]


def test_nothing_to_read_starts_no_process() -> None:
    with process_pool(2) as pool:
        assert list(pool.map(portions.broken, [])) == []


@pytest.mark.processes
@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (portions.refused, UsageProblem, r"refused 0/1"),
        (portions.broken, RuntimeError, r"(?s)in broken.*LookupError: a bug of ours"),
        (portions.without_memory, MemoryError, "^$"),
        (portions.killed, BninspectError, r"was reading 0/1 was killed \(SIGSEGV\)"),
        (portions.leaving, BninspectError, r"was reading 0/0 ended with exit code 3"),
    ],
)
def test_an_error_of_a_worker_is_raised_here(function, error, words: str) -> None:
    with process_pool(1) as pool, pytest.raises(error, match=words):
        list(pool.map(function, PORTIONS))
