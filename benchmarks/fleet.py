"""How a check's cost grows with the number of checkpoints, and what a million would take.

    python -m benchmarks.fleet [MOST [FOLDER]]       in the root of a checkout

Makes up to MOST checkpoints (10,000 unless told) of ResNet-20's 19 BN layers, 1.1 MB each, in
FOLDER (a temporary one by default), as links to the files of 100 that differ: what is read is in
the page cache, and the disk needs 110 MB. Measures, with 1 and with 2 jobs, `check --format jsonl`
of 10, 100, 1,000 … of them: seconds, checkpoints a second, and the peak memory of the largest
process. Projects the two largest runs to a million, by the difference between them.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import size
from benchmarks.resnet50 import measure_process
from benchmarks.size import apart, many_checkpoints, program_beside

DIFFERENT = 100
JOBS = (1, 2)
MILLION = 1_000_000


def make(folder: Path, most: int) -> list[Path]:
    """`most` checkpoints in folders of 1,000; one path to give for each step of ten."""
    size.CHECKPOINTS = min(DIFFERENT, most)
    made = many_checkpoints(folder / "made")
    steps = []
    count = done = 10
    while count <= most:
        step = folder / f"step_{count}"
        for number in range(done if steps else 0, count):
            run = step / f"{number // 1000:04d}" / f"run_{number:06d}"
            run.mkdir(parents=True)
            source = made[number % len(made)]
            for end in (".index", ".data-00000-of-00001"):
                os.link(f"{source}{end}", run / f"{source.name}{end}")
        steps.append(step)
        done, count = count, count * 10
    return steps


def run_once(program: str, paths: list[Path], jobs: int, results: Path) -> tuple[float, float]:
    """Seconds and megabytes of one check, whose every line is there."""
    command = [program, "check", *map(str, paths), "-j", str(jobs), "-q"]
    return measure_process([*command, "--format", f"jsonl={results}"])


def main() -> None:
    """Make the checkpoints, then measure."""
    program = program_beside()
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        steps = apart(make, folder, most)
        results = folder / "results.jsonl"
        for jobs in JOBS:
            rows: list[tuple[int, float, float]] = []
            for number in range(1, len(steps) + 1):
                count = 10**number
                rounds = 3 if count <= 1000 else 1
                measured = []
                for _ in range(rounds):
                    results.unlink(missing_ok=True)
                    measured.append(run_once(program, steps[:number], jobs, results))
                lines = results.read_bytes().count(b"\n")
                if lines != count + 1:
                    sys.exit(f"{lines} lines, not {count + 1}")
                seconds, memory = (statistics.median(one) for one in zip(*measured, strict=True))
                rows.append((count, seconds, memory))
                rate = count / seconds
                print(
                    f"-j {jobs} {count:>9,} checkpoints {seconds:8.2f} s {rate:7.0f} a second"
                    f" {memory:6.0f} MB {results.stat().st_size / count / 1e3:5.1f} KB a line",
                    flush=True,
                )
            if len(rows) > 1:
                project(jobs, rows)


def project(jobs: int, rows: list[tuple[int, float, float]]) -> None:
    """Print what a million would take, if each costs what it does between the two largest runs."""
    (fewer, less, little), (more, longer, much) = rows[-2:]
    each, kept = (longer - less) / (more - fewer), (much - little) / (more - fewer)
    hours = (longer + each * (MILLION - more)) / 3600
    memory = much + kept * (MILLION - more)
    print(
        f"-j {jobs} projected to a million: {hours:.2f} hours, {memory:,.0f} MB"
        f" ({each * 1e3:.2f} ms and {kept * 1e3:.2f} KB a checkpoint)",
        flush=True,
    )


if __name__ == "__main__":
    main()
