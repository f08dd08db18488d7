"""What a thousand Keras files of one architecture cost, against h5py and against the ordinary way.

    python -m benchmarks.keras_files [FOLDER]       in the root of a checkout, with Keras and h5py

Makes in FOLDER (a temporary one by default; 800 MB on the disk) files of ResNet-20's shape with
Adam, saved by Keras as `.h5`, `.weights.h5` and `.keras`: 1,000 of each kind, as links to 100 that
differ. Measures `check` as text and as JSON Lines, in one process, against two peers:

- one process in which h5py's `visititems` reads the moving statistics of each file and tests them
  for 0 and 1 (of an archive, of the weights in it);
- the same program without known layouts, as text.

Prints the medians of the processor time of whole processes, and of the ratios within a round.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.size import apart
from benchmarks.start import VISITOR, processor_time

RUNS, DIFFERENT, FILES, LAYERS = 5, 100, 1_000, 19
KINDS = ("h5", "weights.h5", "keras")

ORDINARY_WAY = """
import sys
from bninspect.runs.known_layouts import KnownLayouts
KnownLayouts.report = lambda *_: None
KnownLayouts.learn = lambda *_: None
from bninspect.cli.main import run
run(sys.argv[1:])
"""
VISIT = f"""{VISITOR}
import io, zipfile
from pathlib import Path

for path in sorted(Path(sys.argv[1]).rglob("run_*")):
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            path = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(path) as file:
        file.visititems(test)
print(stuck)
"""


def make_files(folder: Path) -> None:
    """Save one model with different statistics, and link to its files."""
    import keras

    outputs = inputs = keras.Input((8, 8, 3))
    for index in range(LAYERS):
        filters = 16 << min(index // 8, 2)
        outputs = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(outputs)
        outputs = keras.layers.BatchNormalization()(outputs)
        outputs = keras.layers.ReLU()(outputs)
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(outputs))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(), "mse")
    model.optimizer.build(model.trainable_variables)
    made = folder / "made"
    made.mkdir(parents=True)
    for number in range(DIFFERENT):
        random = np.random.default_rng(number)
        model.optimizer.iterations.assign(1000 + number)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                shape = layer.gamma.shape
                values = [random.normal(size=shape) for _ in range(3)]
                layer.set_weights([*values, random.uniform(0.1, 2.0, shape)])
        model.save(made / f"{number}.h5")
        model.save(made / f"{number}.keras")
        model.save_weights(made / f"{number}.weights.h5")
    for kind in KINDS:
        linked = folder / kind
        linked.mkdir()
        for number in range(FILES):
            os.link(made / f"{number % DIFFERENT}.{kind}", linked / f"run_{number:04d}.{kind}")


def measure(folder: Path) -> None:
    """Print what each way costs over the files of a folder."""
    check = ["check", str(folder), "-j", "1", "--isolated", "--format"]
    commands = {
        "text": [sys.executable, "-m", "bninspect", *check, "text"],
        "jsonl": [sys.executable, "-m", "bninspect", *check, "jsonl"],
        "ordinary way": [sys.executable, "-c", ORDINARY_WAY, *check, "text"],
        "h5py": [sys.executable, "-c", VISIT, str(folder)],
    }
    rounds = [
        {name: processor_time(command)[0] for name, command in commands.items()}
        for _ in range(RUNS)
    ]
    print(f"{FILES:,} files .{folder.name}, processor time, median of {RUNS}")
    for name in commands:
        seconds = statistics.median(one[name] for one in rounds)
        ratios = [
            statistics.median(one[peer] / one[name] for one in rounds)
            for peer in ("ordinary way", "h5py")
        ]
        print(
            f"  {name:<12} {seconds:6.2f} s   ordinary way {ratios[0]:5.1f}, h5py {ratios[1]:5.1f}"
            " times as long",
            flush=True,
        )


def main() -> None:
    """Make the files, then measure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        if not (folder / KINDS[-1]).exists():
            apart(make_files, folder)
        for kind in KINDS:
            measure(folder / kind)


if __name__ == "__main__":
    main()
