"""The accuracy of stuck models, of their twins, and after re-estimation: docs/recalibrate.md.

    python benchmarks/recalibration_accuracy.py

Runs the fixtures whose averages were thrown away and those that were trained in inference mode
(`fixtures/*_recalibrate*`), then trains networks with Keras 3, with and without dropout, in two
modes. All learn the samples of `fixtures/make/recalibration_samples.py`; accuracy is measured on
2048 that no training saw, at inference, in percent. Takes some three minutes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures" / "make"))

import numpy as np
from recalibration_samples import CLASSES, SHAPE, samples

import bninspect
from bninspect.recalibrate.engines import Engine
from bninspect.recalibrate.engines.opening import open_engine
from bninspect.recalibrate.moments import PooledMoments

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
SAMPLES, BATCH, STEPS = 2048, 64, 300
IMAGES, LABELS = samples(1_000_000, SAMPLES)
Statistics = Mapping[str, tuple[np.ndarray, np.ndarray]]


def main() -> None:
    """Measure the fixtures, then trainings with Keras 3."""
    for path in sorted(FIXTURES.glob("*_recalibrate*.json")):
        stem = path.stem
        expected = json.loads(path.read_text(encoding="utf-8"))
        if stem.endswith("_iterator"):
            continue  # its graph takes batches of one size
        twin = FIXTURES / stem / "twin.npz"
        kept = dict(np.load(twin)) if twin.exists() else {}
        report(stem, FIXTURES / stem / expected["checkpoint"], kept)
    with tempfile.TemporaryDirectory() as folder:
        for dropout in (False, True):
            model, kept = trained(dropout)
            path = Path(folder) / f"{'dropout' if dropout else 'plain'}.keras"
            model.save(path)
            engine = report(f"Keras 3, {path.stem}", path, kept)
            how_many_samples(engine)
            if dropout:
                with_dropout_on(model, engine)
        path = Path(folder) / "inference.keras"
        trained_in_inference_mode().save(path)
        report("Keras 3, trained in inference mode", path, {})


def report(name: str, path: Path, kept: Mapping[str, np.ndarray]) -> Engine:
    """Print the accuracy of a model in each mode; `kept` are the averages of its twin."""
    checkpoint = bninspect.open_checkpoint(str(path))
    engine = open_engine(checkpoint, bninspect.list_layers(path).checkpoints[0].layers, {})
    shown = {"stuck": accuracy(engine), "batch": accuracy(engine, on_batch_statistics=True)}
    if kept:
        shown["twin"] = accuracy(engine, statistics=by_layer(engine, kept))
    shown["recalibrated"] = accuracy(engine, statistics=estimated(engine))
    print(name, {mode: round(100 * share, 1) for mode, share in shown.items()}, flush=True)
    return engine


def by_layer(engine: Engine, kept: Mapping[str, np.ndarray]) -> Statistics:
    """Return statistics by layer that are kept by the variables' names, or by the layers'."""
    return {
        layer.name: (
            kept.get(layer.moving_mean, kept.get(f"{layer.name}/moving_mean")),
            kept.get(layer.moving_variance, kept.get(f"{layer.name}/moving_variance")),
        )
        for layer in engine.layers()
    }


def batches(engine: Engine, size: int, count: int = SAMPLES) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches: the images for inputs of numbers, the labels for those of classes."""
    for start in range(0, count, size):
        rows = slice(start, start + size)
        yield {
            spec.name: (IMAGES if spec.dtype.startswith("float") else LABELS)[rows]
            for spec in engine.inputs()
        }


def accuracy(engine: Engine, **how: Any) -> float:
    """Return the share of right predictions; `how` is for `Engine.outputs`."""
    outputs = [engine.outputs(batch, **how)[0] for batch in batches(engine, BATCH)]
    return float((np.concatenate(outputs).argmax(axis=-1) == LABELS).mean())


def pooled(engine: Engine, size: int, count: int = SAMPLES) -> dict[str, PooledMoments]:
    """Return the moments of the first samples by layer, in batches of a size."""
    found: dict[str, PooledMoments] = {}
    for batch in batches(engine, size, count):
        for name, moments in engine.batch_moments(batch).items():
            found.setdefault(name, PooledMoments()).add(moments)
    return found


def estimated(engine: Engine, size: int = BATCH, count: int = SAMPLES) -> Statistics:
    """Return the statistics that would be written."""
    unbiased = {layer.name: layer.unbiased for layer in engine.layers()}
    return {
        name: (one.mean, one.variance * (one.count / (one.count - 1) if unbiased[name] else 1.0))
        for name, one in pooled(engine, size, count).items()
    }


def how_many_samples(engine: Engine) -> None:
    """Print how errors and accuracy depend on the samples, and the accuracy on the batch size."""
    for count in (128, 256, 512, 1024, 2048):
        found = pooled(engine, 32, count)
        mean = max(float(one.mean_errors(1e-3).max()) for one in found.values())
        variance = max(float(one.variance_errors(1e-3).max()) for one in found.values())
        share = accuracy(engine, statistics=estimated(engine, 32, count))
        print(f"  {count} samples: {mean:.3f} deviations, {variance:.1%}, accuracy {share:.1%}")
    for size in (8, 32, 128, 512):
        share = accuracy(engine, statistics=estimated(engine, size))
        print(f"  batches of {size}: accuracy {share:.1%}", flush=True)
    of_batches: dict[str, list[np.ndarray]] = {}
    for batch in batches(engine, 8):
        for name, moments in engine.batch_moments(batch).items():
            of_batches.setdefault(name, []).append(moments.variance)
    for name, one in pooled(engine, 8).items():
        shares = np.mean(of_batches[name], axis=0) / one.variance
        print(f"  {name}: E[v] is {shares.min():.3f} to {shares.max():.3f} of the variance")


def network(dropout: bool) -> Any:
    """Return a convolution and a dense layer with BN, not trained."""
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    noise = [layers.Dropout(0.3), layers.Dropout(0.3)] if dropout else []
    return keras.Sequential(
        [
            keras.Input(SHAPE, name="images"),
            layers.Conv2D(6, 3, name="conv"),
            layers.BatchNormalization(momentum=0.9, name="bn1"),
            layers.ReLU(),
            *noise[:1],
            layers.Flatten(),
            layers.Dense(16, name="dense"),
            layers.BatchNormalization(momentum=0.9, name="bn2"),
            layers.ReLU(),
            *noise[1:],
            layers.Dense(CLASSES, name="logits"),
        ]
    )


def loss() -> Any:
    """Return the loss of all trainings."""
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def averages(model: Any) -> dict[str, np.ndarray]:
    """Return the moving statistics of a model by layer and role."""
    return {
        f"{name}/{role}": getattr(model.get_layer(name), role).numpy()
        for name in ("bn1", "bn2")
        for role in ("moving_mean", "moving_variance")
    }


def trained(dropout: bool) -> tuple[Any, dict[str, np.ndarray]]:
    """Return a model whose averages were lost after the training, and these averages."""
    import keras

    model = network(dropout)
    model.compile(keras.optimizers.SGD(0.05), loss())
    for step in range(STEPS):
        model.train_on_batch(*samples(step + 1, 32))
    kept = averages(model)
    for name in ("bn1", "bn2"):
        layer = model.get_layer(name)
        layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
        layer.moving_variance.assign(np.ones(layer.moving_variance.shape))
    return model, kept


def with_dropout_on(model: Any, engine: Engine) -> None:
    """Print what a loop over `model(batch, training=True)` stores, against the right variances."""
    for _ in range(8):
        for batch in batches(engine, BATCH):
            model(*batch.values(), training=True)
    right, found = estimated(engine, 32), averages(model)
    for name, (_, variance) in right.items():
        ratio = found[f"{name}/moving_variance"] / variance
        print(f"  {name}: with dropout on, {ratio.min():.2f} to {ratio.max():.2f} of the variance")


def trained_in_inference_mode() -> Any:
    """Return a model whose training never took batch statistics."""
    import keras
    import tensorflow as tf

    model, optimizer, measure = network(dropout=False), keras.optimizers.Adam(0.003), loss()
    for step in range(STEPS):
        images, labels = samples(step + 1, 32)
        with tf.GradientTape() as tape:
            value = measure(labels, model(images, training=False))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return model


if __name__ == "__main__":
    main()
