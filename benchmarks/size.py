"""How bninspect's cost grows with the index, the number of checkpoints, and the bytes they hold.

    python -m benchmarks.size [FOLDER]       in the root of a checkout

Makes in FOLDER (a temporary one by default; 2 GB on the disk) and measures, each in fresh
processes that alternate:

- an index of 100,000 variables, 12,500 BN layers among them: whole process against TensorFlow;
- 1,000 checkpoints of ResNet-20's shape, 1.1 MB each, in one run, against one TensorFlow process
  that loops over them;
- a checkpoint of 20 GB (a sparse file; every BN byte is real): the bytes that a check reads, as the
  kernel counts them, beside what its index and its BN variables take.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pairs import medians
from benchmarks.resnet50 import TENSORFLOW, measure_process
from tests.support.table_writer import (
    Entry,
    Header,
    masked_crc32c,
    shard_path,
    write_bundle,
    write_index,
)

RUNS = 5
CHECKPOINTS = 1_000
LAYERS_OF_LARGE_INDEX = 12_500
GIGABYTES = 20

TENSORFLOW_LOOP = (
    TENSORFLOW
    + """
stuck = 0
for sys.argv[1] in sys.argv[1:]:
    stuck += len(job())
"""
)
COUNTED = """
import sys
import bninspect

def read_so_far():
    with open("/proc/self/io") as counters:
        return int(counters.readline().split()[1])

bninspect.check(sys.argv[1])            # imports done
before = read_so_far()
own = read_so_far() - before            # what reading the counter adds
before = read_so_far()
report = bninspect.check(sys.argv[2])
assert not report.unreadable
print(read_so_far() - before - own)
"""


def layer_of(name: str, channels: int, random: np.random.Generator) -> dict[str, Any]:
    """Return a BN layer as a healthy training leaves it, with Momentum slots."""
    members = {
        member: random.normal(size=channels).astype(np.float32)
        for member in ("gamma", "gamma/Momentum", "beta", "beta/Momentum", "moving_mean")
    }
    members["moving_variance"] = random.uniform(0.1, 2.0, channels).astype(np.float32)
    return {f"{name}/{member}": value for member, value in members.items()}


def large_index(prefix: Path) -> None:
    """100,000 variables of 8 elements: 6 of each BN layer, 2 of the kernel before it."""
    random = np.random.default_rng(0)
    variables: dict[str, Any] = {"global_step": np.int64(1000)}
    for number in range(LAYERS_OF_LARGE_INDEX):
        scope = f"network/block_{number // 100}/unit_{number}"
        kernel = random.normal(size=8).astype(np.float32)
        variables |= {f"{scope}/conv/kernel": kernel, f"{scope}/conv/kernel/Momentum": kernel}
        variables |= layer_of(f"{scope}/batch_normalization", 8, random)
    write_bundle(prefix, dict(sorted(variables.items())))


def many_checkpoints(folder: Path) -> list[Path]:
    """`CHECKPOINTS` of the shape of ResNet-20 for CIFAR-10, each with values of its own."""
    prefixes = []
    for number in range(CHECKPOINTS):
        random = np.random.default_rng(number)
        variables: dict[str, Any] = {"global_step": np.int64(1000)}
        inputs = 3
        for index in range(19):
            channels = 16 << max(0, (index - 1) // 6)
            kernel = random.normal(size=(3, 3, inputs, channels)).astype(np.float32)
            variables[f"resnet/conv2d_{index}/kernel"] = kernel
            variables[f"resnet/conv2d_{index}/kernel/Momentum"] = kernel
            variables |= layer_of(f"resnet/batch_normalization_{index}", channels, random)
            inputs = channels
        prefix = folder / f"run_{number:04d}" / "model.ckpt-1000"
        prefix.parent.mkdir(parents=True)
        write_bundle(prefix, dict(sorted(variables.items())))
        prefixes.append(prefix)
    return prefixes


def sparse_checkpoint(prefix: Path) -> tuple[int, int]:
    """Write `GIGABYTES` as a sparse shard; return the bytes of its index and of its BN."""
    random = np.random.default_rng(0)
    width = 2048
    kernel = width * width * 4 * 32
    entries: dict[bytes, Any] = {b"": Header()}
    offset = written = 0
    with shard_path(prefix).open("wb") as shard:
        for number in range(GIGABYTES * 10**9 // kernel + 1):
            name = f"network/conv_{number:03d}/kernel".encode()
            entries[name] = Entry(1, (32, width, width), 0, offset, kernel)
            offset += kernel
            for name_, value in layer_of(f"network/bn_{number:03d}", width, random).items():
                data = value.tobytes()
                entry = Entry(1, value.shape, 0, offset, len(data), masked_crc32c(data))
                entries[name_.encode()] = entry
                shard.seek(offset)
                shard.write(data)
                offset += len(data)
                written += 0 if name_.endswith("/Momentum") else len(data)
    write_index(prefix, dict(sorted(entries.items())))
    return Path(f"{prefix}.index").stat().st_size, written


def side_by_side(commands: dict[str, list[str]], what: str) -> None:
    """Print the median wall time and memory of each command, and how each compares with the last.

    The memory of several processes is that of the largest.
    """
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            results[name].append(measure_process(command))
    print(f"{what}, whole process, median of {RUNS}")
    of_programs = {name: medians(rows) for name, rows in results.items()}
    theirs, their_memory = list(of_programs.values())[-1]
    for name, (seconds, memory) in of_programs.items():
        print(
            f"  {name:<16} {seconds:6.2f} s  {memory:6.0f} MB"
            f"  {theirs / seconds:5.1f} times as fast, {memory / their_memory:.2f} of the memory"
        )


def bytes_read(small: Path, large: Path) -> int:
    """Return the bytes that a check of `large` reads from any file, after one of `small`."""
    command = [sys.executable, "-c", COUNTED, str(small), str(large)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def apart(make: Callable[..., Any], *arguments: Any) -> Any:
    """`make` in a process of its own: the peak memory of a child counts from its parent's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(make, arguments)


def program_beside() -> str:
    """Return the program beside this Python."""
    program = shutil.which("bninspect", path=str(Path(sys.executable).parent))
    if program is None:
        sys.exit("bninspect is not installed beside this Python: pip install .")
    return program


def main() -> None:
    """Make everything, then measure."""
    program = program_beside()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        os.makedirs(folder, exist_ok=True)
        index = folder / "large_index.ckpt"
        apart(large_index, index)
        ours = [program, "check", str(index)]
        theirs = [sys.executable, "-c", TENSORFLOW + "job()", str(index)]
        side_by_side({"bninspect": ours, "tensorflow": theirs}, "an index of 100,000 variables")

        runs = folder / "runs"
        prefixes = [str(prefix) for prefix in apart(many_checkpoints, runs)]
        ours = [program, "check", str(runs), "-j", "1"]
        theirs = [sys.executable, "-c", TENSORFLOW_LOOP, *prefixes]
        commands = {"bninspect": ours, "bninspect -j 2": [*ours, "-j", "2"], "tensorflow": theirs}
        side_by_side(commands, f"{CHECKPOINTS} checkpoints")

        huge = folder / "huge.ckpt"
        of_index, of_layers = apart(sparse_checkpoint, huge)
        read = bytes_read(Path(prefixes[0]), huge)
        print(f"a checkpoint of {shard_path(huge).stat().st_size / 1e9:.1f} GB")
        print(f"  index {of_index} bytes, BN variables {of_layers} bytes, read {read} bytes")
        print(f"  {read / (of_index + of_layers):.4f} of index and BN variables")
        ours = [program, "check", str(huge)]
        theirs = [sys.executable, "-c", TENSORFLOW + "job()", str(huge)]
        side_by_side({"bninspect": ours, "tensorflow": theirs}, f"{GIGABYTES} GB")


if __name__ == "__main__":
    main()
