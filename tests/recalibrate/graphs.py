"""Graphs of TensorFlow 1 that tests write: BN in all forms, saved without training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import bninspect
from bninspect.recalibrate.engines.graph.engine import GraphEngine

v1 = tf.compat.v1
EPSILON = 1e-3
Values = dict[str, Any]


def saved(
    folder: Path, build: Callable[[], object], partitions: int = 0, resource: bool = False
) -> Path:
    """Write a checkpoint with the graph that `build` makes; return its prefix."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(3)
        with v1.variable_scope("", use_resource=resource):
            if partitions:
                v1.get_variable_scope().set_partitioner(v1.fixed_size_partitioner(partitions))
            build()
        v1.get_variable("global_step", (), tf.int64, v1.ones_initializer())
        session.run(v1.global_variables_initializer())
        return Path(v1.train.Saver().save(session, str(folder / "model.ckpt")))


@contextmanager
def engine_of(prefix: Path, fed: Values | None = None):
    """Open the engine of a checkpoint."""
    with bninspect.open_checkpoint(prefix) as checkpoint:
        engine = GraphEngine(checkpoint, bninspect.find_layers(checkpoint), fed)
        try:
            yield engine
        finally:
            engine.close()


def placeholder(shape: tuple[int | None, ...] = (None, 5), name: str = "x", dtype: Any = None):
    return v1.placeholder(dtype or tf.float32, shape, name)


def dense(x: Any, units: int, name: str) -> Any:
    start = v1.random_normal_initializer(1.0, 2.0)
    kernel = v1.get_variable(f"{name}/kernel", (x.shape[-1], units), initializer=start)
    return tf.matmul(x, kernel)


class Variables:
    """The variables of a BN layer, with the update of its averages."""

    def __init__(self, name: str, channels: int, *, scale: bool = True) -> None:
        with v1.variable_scope(name, reuse=v1.AUTO_REUSE):
            start = v1.random_uniform_initializer(0.5, 1.5)
            self.gamma = v1.get_variable("gamma", channels, initializer=start) if scale else None
            self.beta = v1.get_variable("beta", channels, initializer=start)
            self.mean = v1.get_variable(
                "moving_mean", channels, initializer=v1.zeros_initializer(), trainable=False
            )
            self.variance = v1.get_variable(
                "moving_variance", channels, initializer=v1.ones_initializer(), trainable=False
            )

    def update(self, mean: Any, variance: Any) -> None:
        for average, value in ((self.mean, mean), (self.variance, variance)):
            v1.assign(average, average * 0.9 + tf.cast(tf.reshape(value, (-1,)), tf.float32) * 0.1)


def norm(x: Any, name: str, *, scale: bool = True) -> Any:
    """BN of the last axis by `tf.nn.moments` and `tf.nn.batch_normalization`, for training."""
    own = Variables(name, x.shape[-1], scale=scale)
    mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
    own.update(mean, variance)
    return tf.nn.batch_normalization(x, mean, variance, own.beta, own.gamma, EPSILON)


def fused_norm(x: Any, name: str, data_format: str = "NHWC") -> Any:
    own = Variables(name, x.shape[-1] if data_format == "NHWC" else x.shape[1])
    y, mean, variance = v1.nn.fused_batch_norm(
        x, own.gamma, own.beta, epsilon=EPSILON, data_format=data_format, is_training=True
    )
    own.update(mean, variance)
    return y


def classified(x: Any) -> Any:
    """Logits and what a loss makes of them."""
    logits = dense(x, 3, "logits")
    labels = v1.placeholder(tf.int32, (None,), "labels")
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def stored(prefix: Path) -> Values:
    """Return the stored variables by name."""
    with bninspect.open_checkpoint(prefix) as checkpoint:
        return {name: variable.read() for name, variable in checkpoint.variables.items()}


def normalized(x: np.ndarray, mean: Any, variance: Any, values: Values, name: str) -> np.ndarray:
    """Return what a BN layer makes of x with some statistics."""
    scale = values.get(f"{name}/gamma", 1.0) / np.sqrt(np.asarray(variance) + EPSILON)
    return (x - mean) * scale + values[f"{name}/beta"]
