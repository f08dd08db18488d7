"""Trainings that save while they are watched; run as `python -m tests.trainings.watched NAME DIR`.

Each has a healthy and a broken one, in folders of these names, and prints what it saved where.
Then it waits for a line, so that however slow who watches is, nothing is written over unseen.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

SAVES = 4
STEPS = 20


def tell(*saved: object) -> None:
    """Print in one line what has just been saved, and wait for one."""
    sys.stdout.write("saved:" + "\t".join(map(str, saved)) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    x = random.normal(3, 2, (STEPS * 8, 6)).astype(np.float32)
    return x, x.sum(axis=1, keepdims=True)


def tf1(folder: Path) -> None:
    """A Saver that keeps two; the broken one does not run the update ops."""
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    x, y = data()
    runs = []
    for name in ("healthy", "broken"):
        (folder / name).mkdir(parents=True)
        graph = tf.Graph()
        with graph.as_default():
            inputs, outputs = tf.placeholder(tf.float32, (None, 6)), tf.placeholder(tf.float32)
            mean, variance = tf.nn.moments(inputs, [0])
            with tf.variable_scope("net/bn"):
                gamma = tf.get_variable("gamma", 6, initializer=tf.ones_initializer())
                beta = tf.get_variable("beta", 6, initializer=tf.zeros_initializer())
                kept = {
                    what: tf.get_variable(what, 6, initializer=initial(), trainable=False)
                    for what, initial in (
                        ("moving_mean", tf.zeros_initializer),
                        ("moving_variance", tf.ones_initializer),
                    )
                }
            updates = [
                kept["moving_mean"].assign_sub((kept["moving_mean"] - mean) * 0.2),
                kept["moving_variance"].assign_sub((kept["moving_variance"] - variance) * 0.2),
            ]
            normal = tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, 1e-3)
            kernel = tf.get_variable("kernel", (6, 1))
            loss = tf.reduce_mean((normal @ kernel - outputs) ** 2)
            step = tf.train.get_or_create_global_step()
            with tf.control_dependencies(updates if name == "healthy" else []):
                train = tf.train.GradientDescentOptimizer(0.001).minimize(loss, step)
            saver = tf.train.Saver(max_to_keep=2)
            session = tf.Session()
            session.run(tf.global_variables_initializer())
        runs.append((folder / name, graph, session, train, saver, step, inputs, outputs))
    for _ in range(SAVES):
        saved = []
        for place, graph, session, train, saver, step, inputs, outputs in runs:
            with graph.as_default():
                for start in range(0, len(x), 8):
                    batch = {inputs: x[start : start + 8], outputs: y[start : start + 8]}
                    session.run(train, batch)
                saved.append(saver.save(session, str(place / "model.ckpt"), step))
        tell(*saved)


def keras(folder: Path) -> None:
    """ModelCheckpoint: numbered .keras, and one .weights.h5 that is written again and again.

    The broken one calls its layer with training=False.
    """
    import keras as k

    class Telling(k.callbacks.Callback):  # type: ignore[misc]
        def __init__(self, place: Path) -> None:
            super().__init__()
            self.place = place

        def on_epoch_end(self, epoch: int, _: Any = None) -> None:
            tell(self.place / f"epoch-{epoch + 1}.keras", self.place / "last.weights.h5")

    class Net(k.Model):  # type: ignore[misc]
        def __init__(self, *, healthy: bool) -> None:
            super().__init__()
            self.healthy = healthy
            self.bn = k.layers.BatchNormalization(momentum=0.8, name="bn")
            self.head = k.layers.Dense(1)

        def call(self, x: Any, training: bool | None = None) -> Any:
            return self.head(self.bn(x, training=training if self.healthy else False))

        def get_config(self) -> dict[str, Any]:
            return {"healthy": self.healthy}

    x, y = data()
    for name in ("healthy", "broken"):
        place = folder / name
        k.utils.set_random_seed(1)
        model = Net(healthy=name == "healthy")
        model.compile(k.optimizers.SGD(0.0005), "mse")
        model.fit(
            x,
            y,
            batch_size=8,
            epochs=SAVES,
            verbose=0,
            callbacks=[
                k.callbacks.ModelCheckpoint(str(place / "epoch-{epoch}.keras")),
                k.callbacks.ModelCheckpoint(
                    str(place / "last.weights.h5"), save_weights_only=True, monitor="loss"
                ),
                Telling(place),
            ],
        )


if __name__ == "__main__":
    {"tf1": tf1, "keras": keras}[sys.argv[1]](Path(sys.argv[2]))
