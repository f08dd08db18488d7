"""bninspect against TensorFlow on a checkpoint of ResNet-50's shape, and against the floor.

    python benchmarks/resnet50.py [FOLDER]

Makes the checkpoint with TensorFlow in FOLDER (a temporary one by default): 425 variables, 188 MB,
53 BN layers, Momentum slots. Then, interleaved so that all see the same machine:

- whole process: `bninspect check`, the shortest TensorFlow script that does the same job, and the
  floor, a Python that imports click and numpy and ends. Median wall time and peak memory.
- in process: the same job with either reader, imports done: open the checkpoint, read every
  moving_mean and moving_variance, test them for 0 and 1, checksums verified. Beside them the whole
  of `bninspect.check`, which reads gamma and beta too and applies every rule. Each in fresh
  processes: `first` is the first call, which is what a command or a CI job pays, `best` the fastest
  of the 50 calls after it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 15

FLOOR = "import click, numpy"
TENSORFLOW = """
import sys
import tensorflow as tf

def job():
    reader = tf.train.load_checkpoint(sys.argv[1])
    stuck = []
    for name in reader.get_variable_to_shape_map():
        if name.endswith("moving_mean") and (reader.get_tensor(name) == 0).all():
            stuck.append(name)
        if name.endswith("moving_variance") and (reader.get_tensor(name) == 1).all():
            stuck.append(name)
    return stuck
"""
READER = """
import sys
import bninspect.formats.tensorflow.v2_bundle
from bninspect import open_checkpoint

def job():
    with open_checkpoint(sys.argv[1]) as checkpoint:
        stuck = []
        for name in checkpoint.variables:
            if name.endswith("moving_mean") and (checkpoint.variables[name].read() == 0).all():
                stuck.append(name)
            if name.endswith("moving_variance") and (checkpoint.variables[name].read() == 1).all():
                stuck.append(name)
        return stuck
"""
CHECK = """
import sys
import bninspect.formats.tensorflow.v2_bundle
from bninspect import check

def job():
    return check(sys.argv[1])
"""
TIMED = """
import time
times = []
for _ in range(51):
    start = time.perf_counter()
    job()
    times.append(time.perf_counter() - start)
print(times[0], min(times[1:]))
"""


def make_checkpoint(prefix: Path) -> None:
    """Write ResNet-50's variables with random values, each trained one with a Momentum slot."""
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(0)
    variables = {"global_step": np.int64(1000)}

    def trained(name: str, shape: tuple[int, ...]) -> None:
        variables[name] = random.normal(size=shape).astype(np.float32)
        variables[f"{name}/Momentum"] = random.normal(size=shape).astype(np.float32)

    for index, (kernel, inputs, outputs) in enumerate(convolutions()):
        number = f"_{index}" if index else ""
        trained(f"resnet/conv2d{number}/kernel", (kernel, kernel, inputs, outputs))
        layer = f"resnet/batch_normalization{number}"
        trained(f"{layer}/gamma", (outputs,))
        trained(f"{layer}/beta", (outputs,))
        variables[f"{layer}/moving_mean"] = random.normal(size=outputs).astype(np.float32)
        variance = random.uniform(0.1, 2.0, outputs).astype(np.float32)
        variables[f"{layer}/moving_variance"] = variance
    names = sorted(variables)
    temporary = f"{prefix}_temp"
    tf.raw_ops.SaveV2(
        prefix=temporary,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(variables[name]) for name in names],
    )
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[temporary], destination_prefix=str(prefix))


def convolutions() -> list[tuple[int, int, int]]:
    """(kernel size, input channels, output channels) of each convolution of ResNet-50."""
    layers = [(7, 3, 64)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            layers += [(1, channels, width), (3, width, width), (1, width, 4 * width)]
            if block == 0:
                layers.append((1, channels, 4 * width))
            channels = 4 * width
    return layers


def measure_process(command: list[str]) -> tuple[float, float]:
    """Wall time in seconds and peak resident memory in MB of one process."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - start
    if status:
        sys.exit(f"{' '.join(command)[:200]} failed")
    return elapsed, usage.ru_maxrss / 1024


def whole_process(prefix: Path) -> None:
    """Print what each program costs from start to end."""
    program = shutil.which("bninspect", path=str(Path(sys.executable).parent))
    if program is None:
        sys.exit("bninspect is not installed beside this Python: pip install .")
    commands = {
        "floor": [sys.executable, "-c", FLOOR],
        "bninspect": [program, "check", str(prefix)],
        "tensorflow": [sys.executable, "-c", TENSORFLOW + "job()", str(prefix)],
    }
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            results[name].append(measure_process(command))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in results.items()
    }
    print(f"whole process, median of {RUNS}")
    for name, (seconds, memory) in medians.items():
        print(f"  {name:<11} {seconds * 1000:7.0f} ms  {memory:6.0f} MB")
    ours, floor, theirs = medians["bninspect"], medians["floor"], medians["tensorflow"]
    print(f"  bninspect is {theirs[0] / ours[0]:.1f} times as fast as TensorFlow,")
    print(f"  takes {ours[1] / theirs[1]:.2f} of its memory and {ours[0] / floor[0]:.2f} floors")


def in_process(prefix: Path) -> None:
    """Print what the job costs once everything is imported."""
    programs = {
        "bninspect, reader": READER + TIMED,
        "bninspect, check": CHECK + TIMED,
        "tensorflow": TENSORFLOW + TIMED,
    }
    results: dict[str, list[list[float]]] = {name: [] for name in programs}
    for _ in range(RUNS):
        for name, program in programs.items():
            done = subprocess.run(
                [sys.executable, "-c", program, str(prefix)],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            results[name].append([float(number) for number in done.stdout.split()])
    print(f"in process, median over {RUNS} processes")
    for name, rows in results.items():
        first, best = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"  {name:<17} first {first * 1000:6.2f} ms  best {best * 1000:6.2f} ms")


def main() -> None:
    """Make the checkpoint unless it is there, then measure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        prefix = folder / "resnet50.ckpt"
        if not Path(f"{prefix}.index").exists():
            # In a process of its own: a child's peak memory counts from its parent's.
            maker = multiprocessing.get_context("spawn").Process(
                target=make_checkpoint, args=(prefix,)
            )
            maker.start()
            maker.join()
        whole_process(prefix)
        in_process(prefix)


if __name__ == "__main__":
    main()
