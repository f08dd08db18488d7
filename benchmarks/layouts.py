"""What many checkpoints of a few architectures cost, against TensorFlow's loop over them.

    python -m benchmarks.layouts [FOLDER]       in the root of a checkout, with TensorFlow and Keras

Makes in FOLDER (a temporary one by default; 400 MB on the disk), as links to files that differ:

- 10,000 checkpoints of ResNet-20's shape, all healthy;
- 4,000 of ten architectures in turn: five name-based, five object-based ones of Keras with Adam;
- 1,000 of ResNet-20's shape, of which every other has statistics that were never updated.

Measures `check` as text and as JSON Lines, in one process, against one TensorFlow process that
loops over the same checkpoints: the CPU time (user and system) of whole processes, which other
programs on the machine disturb least, in `RUNS` rounds of all three. Prints the medians, and the
median of the ratios within a round. Then measures `bninspect.check` in Python over 1,000 healthy
checkpoints, and the share of it that collecting garbage takes.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import size
from benchmarks.size import TENSORFLOW_LOOP, apart, layer_of, many_checkpoints, program_beside
from tests.support.table_writer import write_bundle

RUNS = 5
DIFFERENT = 100
ARCHITECTURES = 5  # of each kind

COLLECTED = """
import gc
import sys
import time
import bninspect

bninspect.check(sys.argv[1])            # imports done
spent = began = 0.0

def count(phase, _):
    global spent, began
    if phase == "start":
        began = time.process_time()
    else:
        spent += time.process_time() - began

gc.callbacks.append(count)
start = time.process_time()
report = bninspect.check(sys.argv[2])
total = time.process_time() - start
assert report.ok
print(total, spent)
"""


def one_architecture(folder: Path) -> None:
    """10,000 healthy checkpoints."""
    size.CHECKPOINTS = DIFFERENT
    link(many_checkpoints(folder / "made"), folder / "linked", 10_000)


def half_stuck(folder: Path) -> None:
    """1,000 checkpoints; every other one has the statistics that it started with."""
    prefixes = []
    for number in range(DIFFERENT):
        random = np.random.default_rng(number)
        variables = name_based(random, "resnet", 19, is_stuck=bool(number % 2))
        prefixes.append(written(folder / "made" / f"run_{number}" / "model.ckpt-1000", variables))
    link(prefixes, folder / "linked", 1_000)


def ten_architectures(folder: Path) -> None:
    """4,000 healthy checkpoints, each of another architecture than the one before it."""
    each = DIFFERENT // ARCHITECTURES // 2
    kinds: list[list[Path]] = []
    for architecture in range(ARCHITECTURES):
        count = 10 + 4 * architecture
        made = folder / "made" / f"graph_{architecture}"
        variables = (
            name_based(np.random.default_rng(number), f"net_{architecture}", count)
            for number in range(each)
        )
        kinds.append(
            [written(made / f"run_{n}" / "model.ckpt-1000", v) for n, v in enumerate(variables)]
        )
        kinds.append(object_based(folder / "made" / f"object_{architecture}", count, each))
    in_turn = itertools.chain.from_iterable(zip(*kinds, strict=True))
    link(list(in_turn), folder / "linked", 4_000)


def name_based(
    random: np.random.Generator, scope: str, count: int, *, is_stuck: bool = False
) -> dict[str, Any]:
    """`count` BN layers with Momentum slots, each after a convolution."""
    variables: dict[str, Any] = {"global_step": np.int64(1000)}
    for index in range(count):
        channels = 16 << min(index // 8, 2)
        name = f"{scope}/batch_normalization_{index}"
        layer = layer_of(name, channels, random)
        if is_stuck:
            layer[f"{name}/moving_mean"] = np.zeros(channels, "f4")
            layer[f"{name}/moving_variance"] = np.ones(channels, "f4")
        kernel = random.normal(size=(3, 3, channels, channels)).astype("f4")
        variables |= layer | {f"{scope}/conv2d_{index}/kernel": kernel}
    return variables


def object_based(folder: Path, count: int, how_many: int) -> list[Path]:
    """Checkpoints of a Keras model with Adam, written by tf.train.Checkpoint."""
    import keras
    import tensorflow as tf

    inputs = keras.Input((8, 8, 3))
    outputs = inputs
    for index in range(count):
        outputs = keras.layers.Conv2D(16 << min(index // 8, 2), 3, padding="same")(outputs)
        outputs = keras.layers.BatchNormalization()(outputs)
    model = keras.Model(inputs, outputs)
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(1000)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    random = np.random.default_rng(0)
    prefixes = []
    for number in range(how_many):
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                shape = layer.gamma.shape
                values = [random.normal(size=shape) for _ in range(3)]
                layer.set_weights([*values, random.uniform(0.1, 2.0, shape)])
        prefix = folder / f"run_{number}" / "ckpt"
        prefix.parent.mkdir(parents=True)
        checkpoint.write(str(prefix))
        prefixes.append(prefix)
    return prefixes


def written(prefix: Path, variables: dict[str, Any]) -> Path:
    """Write a checkpoint; return its prefix."""
    prefix.parent.mkdir(parents=True)
    write_bundle(prefix, dict(sorted(variables.items())))
    return prefix


def link(prefixes: list[Path], folder: Path, count: int) -> None:
    """Link `count` checkpoints to the files of these, in turn."""
    for number in range(count):
        source = prefixes[number % len(prefixes)]
        run = folder / f"{number // 1000:02d}" / f"run_{number:05d}"
        run.mkdir(parents=True)
        for file in source.parent.glob(f"{source.name}.*"):
            os.link(file, run / file.name)


def cpu_seconds(command: list[str], accepted: Iterable[int] = (0,)) -> float:
    """User and system time of one process and its children."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in accepted:
        sys.exit(f"{' '.join(command)[:200]} failed")
    return usage.ru_utime + usage.ru_stime


def against_tensorflow(program: str, folder: Path, what: str) -> None:
    """Print what each way to write costs, and how many times that TensorFlow takes."""
    prefixes = [str(index.with_suffix("")) for index in sorted(folder.rglob("*.index"))]
    ours = [program, "check", str(folder), "-j", "1", "--format"]
    commands = {
        "text": [*ours, "text"],
        "jsonl": [*ours, "jsonl"],
        "tensorflow": [sys.executable, "-c", TENSORFLOW_LOOP, *prefixes],
    }
    rounds = [
        {name: cpu_seconds(command, (0, 1)) for name, command in commands.items()}
        for _ in range(RUNS)
    ]
    print(f"{len(prefixes):,} checkpoints, {what}, CPU time, median of {RUNS}")
    for name in commands:
        seconds = statistics.median(one[name] for one in rounds)
        ratio = statistics.median(one["tensorflow"] / one[name] for one in rounds)
        print(f"  {name:<12} {seconds:6.2f} s  {ratio:5.1f}", flush=True)


def in_python(folder: Path) -> None:
    """Print what `bninspect.check` costs over 1,000 checkpoints, and the share of the collector."""
    one, thousand = folder / "linked" / "00" / "run_00000", folder / "linked" / "00"
    command = [sys.executable, "-c", COLLECTED, str(one), str(thousand)]
    rounds = []
    for _ in range(RUNS):
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        rounds.append([float(number) for number in result.stdout.split()])
    total, spent = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"bninspect.check over 1,000 in Python: {total:.2f} s, of which {spent / total:.0%}")
    print("  is the collection of garbage")


def main() -> None:
    """Make the checkpoints, then measure."""
    program = program_beside()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        made = {
            "one architecture": (one_architecture, folder / "one"),
            "ten architectures in turn": (ten_architectures, folder / "ten"),
            "half of them stuck": (half_stuck, folder / "half"),
        }
        for make, where in made.values():
            if not where.exists():
                apart(make, where)
        for what, (_, where) in made.items():
            against_tensorflow(program, where / "linked", what)
        in_python(folder / "one")


if __name__ == "__main__":
    main()
