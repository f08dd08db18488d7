"""What reading ahead gains: many checkpoints by URL against the same one by one, 50 ms away.

    python -m benchmarks.remote_many [COUNT [FOLDER]]       in the root of a checkout

Makes COUNT checkpoints (1,000 unless told) of ResNet-20's 19 BN layers, 1.1 MB each, in FOLDER (a
temporary one by default), as links to the files of 20 that differ. Serves them by HTTP on loopback,
every answer 50 ms late, and runs `bninspect check` with one job on the URLs of all, and one by one
on those of the first tenth. Both run in turn, RUNS times, in fresh processes; the ratio is the
median of those of the pairs, by seconds a checkpoint. The output of the tenth is compared byte by
byte. Requests and bytes are those that the server counted; `at once` is the most that were under
way together.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import size
from benchmarks.size import apart, many_checkpoints
from tests.support.servers import Folder, Request

RUNS = 3
LATENCY = 0.05
DIFFERENT = 20
PART = 10  # one of so many checkpoints is read one by one

# The program, with nothing read ahead.
ONE_BY_ONE = """
from bninspect.storage import filesystem
filesystem.map_ahead = lambda function, items, path_of=str: map(function, items)
"""
PROGRAM = "from bninspect.cli.main import main; main()"


class Cost(NamedTuple):
    """What one run took, and what the server counted."""

    seconds: float
    requests: int
    sent: int  # bytes
    at_once: int
    output: str


def make(folder: Path, count: int) -> list[str]:
    """`count` checkpoints, by their path from `folder`."""
    size.CHECKPOINTS = min(DIFFERENT, count)
    made = many_checkpoints(folder / "made")
    names = []
    for number in range(count):
        source = made[number % len(made)]
        prefix = folder / f"run_{number:05d}" / source.name
        prefix.parent.mkdir()
        for end in (".index", ".data-00000-of-00001"):
            os.link(f"{source}{end}", f"{prefix}{end}")
        names.append(str(prefix.relative_to(folder)))
    return names


def at_once(requests: list[Request]) -> int:
    """Return the most requests that were under way together."""
    changes = [(one.begun, 1) for one in requests] + [(one.answered, -1) for one in requests]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def check(server: Folder, names: list[str], program: str) -> Cost:
    """Return the cost of one check of all `names`."""
    server.forget()
    urls = [f"{server.url}/{name}" for name in names]
    options = ("--jobs", "1", "--isolated", "--fail-on", "never")
    command = [sys.executable, "-c", program, "check", *urls, *options]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    requests = server.requests
    return Cost(seconds, len(requests), server.sent, at_once(requests), done.stdout)


def show(what: str, cost: Cost, count: int) -> None:
    """Print what a run of `count` checkpoints took."""
    print(
        f"{what:<10} {count:6,} checkpoints {cost.seconds:7.2f} s, each"
        f" {cost.seconds / count * 1e3:6.1f} ms, {cost.requests / count:.2f} requests and"
        f" {cost.sent / count / 1e3:.1f} kB; {cost.at_once} at once",
        flush=True,
    )


def main() -> None:
    """Make the checkpoints, then measure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        names = apart(make, folder, count)
        few = names[: max(len(names) // PART, 2)]
        ratios = []
        with Folder(folder, latency=LATENCY) as server:
            if (
                check(server, few, PROGRAM).output
                != check(server, few, ONE_BY_ONE + PROGRAM).output
            ):
                sys.exit("reading ahead prints something else than reading one by one")
            for _ in range(RUNS):
                ahead = check(server, names, PROGRAM)
                alone = check(server, few, ONE_BY_ONE + PROGRAM)
                ratios.append((alone.seconds / len(few)) / (ahead.seconds / len(names)))
                show("ahead", ahead, len(names))
                show("one by one", alone, len(few))
        print(f"median of the pairs: {statistics.median(ratios):.1f} times as fast")


if __name__ == "__main__":
    main()
