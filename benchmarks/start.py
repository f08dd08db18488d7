"""What one check takes from start to end, against the floor and against h5py.

    python -m benchmarks.start [FOLDER]       in the root of a checkout

Makes in FOLDER (a temporary one by default; 1 GB on the disk), unless they are there, and checks in
fresh processes that alternate with those of a peer:

- a small V2 checkpoint and one of ResNet-50's shape with Momentum slots; the peer is the floor of
  any such program, a Python that imports click and numpy and ends;
- `.h5`, `.weights.h5` and `.keras` of ResNet-50, written by Keras; the peer is the shortest script
  with h5py's `visititems` that reads the same moving statistics and tests them for 0 and 1. That of
  the `.keras` archive gets the `.weights.h5` in it, already extracted: zipfile takes longer to
  extract it than all else together.

Prints the median processor time of each (user and system), the median of the ratios of pairs, and
the ratio of instructions, which does not depend on what else runs on the machine: valgrind's
callgrind counts them where it is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.pairs import measure_pairs, median_ratio, medians
from benchmarks.remote import keras_files, tensorflow_checkpoint
from benchmarks.resnet50 import FLOOR
from benchmarks.size import apart, layer_of, program_beside
from tests.support.table_writer import write_bundle

PAIRS = 25
VISITOR = """
import sys, h5py
stuck = []
def test(name, item):
    if isinstance(item, h5py.Dataset):
        last = name.rpartition("/")[2]
        if "moving_mean" in last or ("batch_norm" in name and last == "2"):
            if (item[()] == 0).all():
                stuck.append(name)
        if "moving_variance" in last or ("batch_norm" in name and last == "3"):
            if (item[()] == 1).all():
                stuck.append(name)
"""
VISIT = f"""{VISITOR}
with h5py.File(sys.argv[1]) as file:
    file.visititems(test)
print(stuck)
"""


def small_checkpoint(prefix: Path) -> None:
    """Write three BN layers of 8 channels."""
    random = np.random.default_rng(0)
    variables = {"global_step": np.array(1000, np.int64)}
    for number in range(3):
        variables |= layer_of(f"network/batch_normalization_{number}", 8, random)
    write_bundle(prefix, dict(sorted(variables.items())))


def environment() -> dict[str, str]:
    """Return the environment of a measured process: one thread, and bytecode is kept."""
    kept = {name: one for name, one in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "OPENBLAS_NUM_THREADS": "1"}


def processor_time(command: list[str]) -> list[float]:
    """Return the processor time of a process in seconds, the only number that is measured."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)[:200]} failed")
    return [usage.ru_utime + usage.ru_stime]


def instructions(command: list[str]) -> int | None:
    """Return how many instructions a process executes; None without valgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    counted = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    done = subprocess.run(counted, capture_output=True, text=True, check=True, env=environment())
    found = re.search(r"refs:\s*([\d,]+)", done.stderr)
    return int(found[1].replace(",", "")) if found else None


def compare(what: str, ours: list[str], theirs: list[str]) -> None:
    """Print one row: what our program takes in multiples of its peer."""
    pairs = measure_pairs(lambda: processor_time(ours), lambda: processor_time(theirs), PAIRS)
    our_time, their_time = (time * 1000 for time in medians([[*one, *two] for one, two in pairs]))
    ratio = median_ratio(pairs)
    row = f"{what:<20} {our_time:6.1f} ms  peer {their_time:6.1f} ms  ratio {ratio:.2f}"
    our_count, their_count = instructions(ours), instructions(theirs)
    if our_count is None or their_count is None:
        print(f"{row}  instructions not counted: valgrind is not installed")
    else:
        print(f"{row}  instructions {our_count / 1e6:.0f} M, ratio {our_count / their_count:.2f}")


def main() -> None:
    """Make the checkpoints, then measure."""
    program = program_beside()
    check = [sys.executable, program, "check", "--isolated"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        small, large = folder / "small.ckpt", folder / "tf_layers.ckpt"
        small_checkpoint(small)
        if not Path(f"{large}.index").exists():
            apart(tensorflow_checkpoint, large, "tf_layers")
        floor = [sys.executable, "-c", FLOOR]
        print(f"whole processes, medians of {PAIRS} pairs; the peer is {FLOOR!r}")
        compare("a small checkpoint", [*check, str(small)], floor)
        compare("ResNet-50, V2", [*check, str(large)], floor)
        names = ("model.h5", "model.weights.h5", "model.keras")
        if not all((folder / name).exists() for name in names):
            apart(keras_files, folder)
        print("the peer is visititems of h5py")
        for name in names:
            read = name if name != "model.keras" else "model.weights.h5"
            theirs = [sys.executable, "-c", VISIT, str(folder / read)]
            compare(f"ResNet-50, {name}", [*check, str(folder / name)], theirs)


if __name__ == "__main__":
    main()
