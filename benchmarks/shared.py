"""What a second process, and a Dask cluster of two workers, gain over one process.

    python -m benchmarks.shared [COUNT [FOLDER]]       in the root of a checkout

Makes COUNT checkpoints (10,000 unless told) of ResNet-20's 19 BN layers, 1.1 MB each, in FOLDER (a
temporary one by default), as links to the files of 100 that differ. Measures whole processes that
alternate, RUNS of each, after one that is not counted, and prints the median of the ratios of the
pairs:

- `check --jobs 2` against `--jobs 1`, as text and as JSON Lines, of all checkpoints and of tenths
  of them: two processes are never slower, since few checkpoints get one;
- `check --scheduler` (two workers of one thread on loopback) against `--jobs 1`, of all of them;
- the same for a tenth of them by URL, from a server on loopback whose answers are 50 ms late.

Every pair must write the same bytes. It needs two idle cores; on a busy machine the CPU seconds of
the processes (the cluster's are not counted) say how much more work two are.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import fleet, remote_many
from benchmarks.pairs import measure_pairs, median_ratio, medians
from benchmarks.size import apart
from tests.support.clusters import cluster
from tests.support.servers import Folder

RUNS = 5
LATENCY = 0.05


def run_once(paths: Sequence[str], format_: str, options: Sequence[str], file: Path) -> list[float]:
    """Return the seconds and the CPU seconds of one check, which writes to a file."""
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bninspect", "check", *paths, "--isolated", "-q", *options]
    command += ["--format", f"{format_}={file}", "--fail-on", "never"]
    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [seconds, used]


def compare(
    what: str, paths: Sequence[str], format_: str, options: Sequence[str], folder: Path
) -> None:
    """Print how a check with `options` compares with one job."""
    alone, shared = folder / "alone", folder / "shared"

    def run_shared() -> list[float]:
        measured = run_once(paths, format_, options, shared)
        if alone.read_bytes() != shared.read_bytes():
            sys.exit(f"{what}: the results differ")
        return measured

    pairs = measure_pairs(
        lambda: run_once(paths, format_, ["--jobs", "1"], alone), run_shared, RUNS
    )
    times = medians([[*one, *other] for one, other in pairs])
    ratio = median_ratio(pairs)
    print(
        f"{what:<34} {format_:<5} one job {times[0]:6.2f} s (CPU {times[1]:6.2f})"
        f"  shared {times[2]:6.2f} s (CPU {times[3]:6.2f})  {ratio:5.2f} times as fast",
        flush=True,
    )


def main() -> None:
    """Make the checkpoints, then measure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        steps = [str(step) for step in apart(fleet.make, folder / "fleet", count)]
        for number in range(len(steps), 0, -1):
            for format_ in ("text", "jsonl"):
                what = f"--jobs 2, {10**number:,}"
                compare(what, steps[:number], format_, ["--jobs", "2"], folder)
        names = apart(remote_many.make, folder / "remote", count // 10)
        with (
            cluster(folder / "cluster") as workers,
            Folder(folder / "remote", latency=LATENCY) as server,
        ):
            options = ["--scheduler", workers.address]
            for _ in range(2):
                workers.worker()
            for format_ in ("text", "jsonl"):
                compare(f"Dask, {count:,}", steps, format_, options, folder)
            urls = [f"{server.url}/{name}" for name in names]
            compare(f"Dask, {len(urls):,} by URL", urls, "jsonl", options, folder)
            compare(f"--jobs 2, {len(urls):,} by URL", urls, "jsonl", ["--jobs", "2"], folder)


if __name__ == "__main__":
    main()
