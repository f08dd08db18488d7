"""The cost of re-estimated statistics against one epoch of inference, sample by sample.

    python benchmarks/recalibrate.py [SAMPLES]

Makes a residual network of 13 convolutions with BN on images of 32x32 pixels, random weights, as a
TensorFlow 1 checkpoint with its graph and as a `.keras` file. Then, interleaved so that all see the
same machine, one pass over the samples (1024 by default, in batches of 64):

- inference: by the framework alone, `Session.run` of the logits and `model.predict_on_batch`.
- moments: by bninspect, the pass that estimates the statistics.
- outputs: by bninspect, the logits with statistics of its own, as before and after are compared.

`recalibrate` makes one pass for moments over all samples, and three for outputs over the first 2048
of them. The opening of the model is measured apart. Of several rounds the fastest counts: other
programs on the machine only make one slower.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np

import bninspect
from bninspect.recalibrate.engines.opening import open_engine

WIDTHS, BLOCKS, CLASSES = (16, 32, 64), 2, 10
SHAPE = (32, 32, 3)
BATCH, ROUNDS = 64, 7


class Graph:
    """The network as a graph of TensorFlow 1, built by its operations."""

    def __init__(self) -> None:
        import tensorflow as tf

        self.tf, self.v1 = tf, tf.compat.v1
        self.layers = 0

    def write(self, folder: Path) -> Path:
        """Write graph and variables; return the prefix."""
        v1 = self.v1
        with self.tf.Graph().as_default(), v1.Session() as session:
            v1.set_random_seed(1)
            images = v1.placeholder(self.tf.float32, (None, *SHAPE), "images")
            logits = self.tf.identity(self.network(images), "logits")
            labels = v1.placeholder(self.tf.int32, (None,), "labels")
            self.tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            session.run(v1.global_variables_initializer())
            return Path(v1.train.Saver().save(session, str(folder / "model.ckpt")))

    def network(self, x: Any) -> Any:
        """Return the logits for images."""
        x = self.normalized_convolution(x, WIDTHS[0], 1)
        for number, width in enumerate(WIDTHS):
            for block in range(BLOCKS):
                stride = 2 if number and not block else 1
                y = self.normalized_convolution(x, width, stride)
                y = self.normalized_convolution(y, width, 1)
                x = y if stride == 2 else x + y
        x = self.tf.reduce_mean(x, (1, 2))
        kernel = self.v1.get_variable("dense/kernel", (WIDTHS[-1], CLASSES))
        return self.tf.matmul(x, kernel)

    def normalized_convolution(self, x: Any, channels: int, stride: int) -> Any:
        """Return a convolution with BN for training, and ReLU."""
        v1 = self.v1
        with v1.variable_scope(f"layer_{self.layers}", use_resource=False):
            self.layers += 1
            kernel = v1.get_variable("kernel", (3, 3, x.shape[-1], channels))
            x = self.tf.nn.conv2d(x, kernel, stride, "SAME")
            zeros, ones = v1.zeros_initializer(), v1.ones_initializer()
            gamma = v1.get_variable("gamma", channels, initializer=ones)
            beta = v1.get_variable("beta", channels, initializer=zeros)
            mean = v1.get_variable("moving_mean", channels, initializer=zeros, trainable=False)
            variance = v1.get_variable(
                "moving_variance", channels, initializer=ones, trainable=False
            )
            x, *moments = v1.nn.fused_batch_norm(x, gamma, beta, is_training=True)
            for average, moment in zip((mean, variance), moments, strict=True):
                v1.assign(average, 0.9 * average + 0.1 * moment)
            return self.tf.nn.relu(x)


def keras_network() -> Any:
    """Return the network as a model of Keras 3."""
    import keras

    layers = keras.layers

    def normalized_convolution(x: Any, channels: int, stride: int) -> Any:
        x = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x)
        # Of layers that hold the same numbers the engine could not say which is stored where.
        return layers.ReLU()(layers.BatchNormalization(beta_initializer="random_normal")(x))

    inputs = x = keras.Input(SHAPE, name="images")
    x = normalized_convolution(x, WIDTHS[0], 1)
    for number, width in enumerate(WIDTHS):
        for block in range(BLOCKS):
            stride = 2 if number and not block else 1
            y = normalized_convolution(x, width, stride)
            y = normalized_convolution(y, width, 1)
            x = y if stride == 2 else layers.add([x, y])
    x = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def graph_inference(prefix: Path) -> Callable[[Any], Any]:
    """Return a function that runs the logits of a graph by TensorFlow alone."""
    import tensorflow as tf

    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        tf.compat.v1.train.import_meta_graph(f"{prefix}.meta").restore(session, str(prefix))
    return lambda images: session.run("logits:0", {"images:0": images})


def batches(samples: int) -> Iterator[Any]:
    """Yield random images in batches."""
    random = np.random.default_rng(0)
    for start in range(0, samples, BATCH):
        yield random.normal(size=(min(BATCH, samples - start), *SHAPE)).astype(np.float32)


def seconds(job: Callable[[Any], Any], samples: int) -> float:
    """Return the time that a job takes over all samples."""
    given = list(batches(samples))
    start = time.perf_counter()
    for images in given:
        job(images)
    return time.perf_counter() - start


def measure(path: Path, inference: Callable[[Any], Any], samples: int) -> None:
    """Print the costs of one container."""
    with bninspect.open_checkpoint(path) as checkpoint:
        layers = bninspect.check(path).checkpoints[0].layers
        start = time.perf_counter()
        engine = open_engine(checkpoint, layers)
        opening = time.perf_counter() - start
        [spec] = engine.inputs()
        jobs = {
            "inference": inference,
            "moments": lambda images: engine.batch_moments({spec.name: images}),
            "outputs": lambda images: engine.outputs({spec.name: images}),
        }
        for job in jobs.values():
            seconds(job, BATCH)  # what is compiled or checked once
        times: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(ROUNDS):
            for name, job in jobs.items():
                times[name].append(seconds(job, samples))
    best = {name: min(some) for name, some in times.items()}
    print(f"{path.name}: {len(layers)} BN layers, {samples} samples, {engine.framework}")
    print(f"  opening    {opening:7.2f} s")
    for name, time_taken in best.items():
        share = time_taken / best["inference"]
        print(f"  {name:10} {time_taken:7.2f} s  {share:5.2f} of an epoch of inference")


def main() -> None:
    """Measure both containers."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    with tempfile.TemporaryDirectory() as folder:
        prefix = Graph().write(Path(folder))
        measure(prefix, graph_inference(prefix), samples)
        model = keras_network()
        model.save(Path(folder) / "model.keras")
        measure(Path(folder) / "model.keras", model.predict_on_batch, samples)


if __name__ == "__main__":
    main()
