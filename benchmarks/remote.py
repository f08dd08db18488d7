"""What a check by URL costs: requests, bytes and seconds, from a server 50 ms away.

    python -m benchmarks.remote [FOLDER]       in the root of a checkout

Makes ResNet-50 with Momentum slots, 200 MB, in FOLDER (a temporary one by default; 1 GB on the
disk), in five ways:

- two V2 checkpoints: with the default names of tf.layers, by which BN variables lie together in the
  file, and with those of slim, by which each lies between kernels;
- `.h5`, `.weights.h5` and `.keras`, written by Keras, with the optimizer's variables as it does.

Serves each by HTTP on loopback, every answer 50 ms late, and runs `bninspect check` on it in a
fresh process, of a package whose bytecode is there, as pip leaves it. Requests, rounds and bytes
are those the server counted: a round is what is sent at once, and the next begins when it is
answered. The share is that of the bytes of all the checkpoint's files. Seconds are the median of
the whole processes, beside that of the file on the disk.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.resnet50 import convolutions
from benchmarks.size import apart
from tests.support.servers import Folder
from tests.support.table_writer import write_bundle

RUNS = 5
LATENCY = 0.05


def tensorflow_checkpoint(prefix: Path, names: str) -> None:
    """ResNet-50 with Momentum slots; the names are those of `tf_layers` or `slim`."""
    random = np.random.default_rng(0)
    variables: dict[str, Any] = {"global_step": np.array(1000, np.int64)}

    def trained(name: str, shape: tuple[int, ...]) -> None:
        for slot in ("", "/Momentum"):
            variables[name + slot] = random.normal(size=shape).astype(np.float32)

    for index, (kernel, inputs, outputs) in enumerate(convolutions()):
        if names == "slim":
            weights = f"resnet_v1_50/unit_{index:02d}/conv/weights"
            layer = f"resnet_v1_50/unit_{index:02d}/conv/BatchNorm"
        else:
            weights = f"resnet/conv2d_{index}/kernel"
            layer = f"resnet/batch_normalization_{index}"
        trained(weights, (kernel, kernel, inputs, outputs))
        trained(f"{layer}/gamma", (outputs,))
        trained(f"{layer}/beta", (outputs,))
        variables[f"{layer}/moving_mean"] = random.normal(size=outputs).astype(np.float32)
        variance = random.uniform(0.1, 2.0, outputs).astype(np.float32)
        variables[f"{layer}/moving_variance"] = variance
    write_bundle(prefix, dict(sorted(variables.items())))


def keras_files(folder: Path) -> None:
    """ResNet-50 as Keras stores it, in each of its formats."""
    import keras

    model = keras.applications.ResNet50(weights=None)
    model.compile(keras.optimizers.SGD(momentum=0.9), "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [random.uniform(0.5, 2, one.shape).astype(np.float32) for one in layer.weights]
            )
    model.save(folder / "model.h5")
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")


def seconds_of(path: str, compiled: Path) -> float:
    """Return the wall time of a whole process that checks a path; `compiled` keeps its bytecode."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "bninspect", "check", path, "--isolated"]
    command += ["--fail-on", "never"]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - start


def measure(folder: Path, name: str, files: list[str]) -> None:
    """Print what a check of the checkpoint `name`, which lies in `files`, costs by URL."""
    size = sum((folder / file).stat().st_size for file in files)
    times, local = [], []
    compiled = folder / "compiled"
    with Folder(folder, latency=LATENCY) as server:
        for _ in range(RUNS):
            server.forget()
            times.append(seconds_of(f"{server.url}/{name}", compiled))
            local.append(seconds_of(str(folder / name), compiled))
        requests, rounds, sent = len(server.requests), server.rounds, server.sent
    print(
        f"{name:<18} {size / 1e6:6.1f} MB  {requests:4} requests  {rounds:3} rounds"
        f"  {sent / 1e3:8.1f} kB  {sent / size:8.4%}  {statistics.median(times):5.2f} s"
        f"  (from the disk {statistics.median(local):.2f} s)"
    )


def main() -> None:
    """Make everything, then measure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for names in ("tf_layers", "slim"):
            name = f"{names}.ckpt"
            apart(tensorflow_checkpoint, folder / name, names)
            measure(folder, name, [f"{name}.index", f"{name}.data-00000-of-00001"])
        apart(keras_files, folder)
        for name in ("model.h5", "model.weights.h5", "model.keras"):
            measure(folder, name, [name])


if __name__ == "__main__":
    main()
