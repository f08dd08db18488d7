"""Trainings that the guard for TF1 watches, healthy and broken, by hook and in a loop.

As a program, in a process of its own, it runs all of them and prints what the guard did as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import ops

from bninspect.tf1 import BatchNormGuard, BatchNormWarning

tf.disable_v2_behavior()
if not hasattr(ops, "Tensor"):  # tf_slim 1.1 looks for it where TensorFlow 2.12 had it
    ops.Tensor = tensorflow.Tensor
import tf_slim as slim  # noqa: E402

STEPS, EVERY = 12, 5
TRAININGS: dict[str, Callable[[], dict[str, Any]]] = {}


def training(run: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    TRAININGS[run.__name__] = run
    return run


def batch(seed: int) -> Any:
    return np.random.default_rng(seed).normal(1.0, 2.0, (32, 4)).astype("float32")


def images() -> Any:
    return tf.placeholder(tf.float32, (None, 4), name="images")


def loss_of(x: Any) -> Any:
    return tf.reduce_mean((tf.layers.dense(x, 1) - 1.0) ** 2)


def train_op_of(loss: Any, *, updates: bool = True, more: Any = (), variables: Any = None) -> Any:
    step = tf.train.get_or_create_global_step()
    run = tf.get_collection(tf.GraphKeys.UPDATE_OPS) if updates else []
    with tf.control_dependencies([*run, *more]):
        optimizer = tf.train.AdamOptimizer(0.01)
        return optimizer.minimize(loss, global_step=step, var_list=variables)


def bn(x: Any, **options: Any) -> Any:
    options = {"training": True, "momentum": 0.9, **options}
    return tf.layers.batch_normalization(tf.layers.dense(x, 4), **options)


def told(guard: Any, caught: list[Any], steps: int) -> dict[str, Any]:
    own = [one for one in caught if one.category is BatchNormWarning]
    return {
        "warnings": [str(one.message) for one in own],
        "files": [os.path.basename(one.filename) for one in own],
        "findings": [[f.layer, f.rule.code, f.severity, f.cause] for f in guard.findings],
        "suspects": [[s.cause for s in f.possible_causes] for f in guard.findings],
        "layers": [layer.name for layer in guard.layers],
        "steps": steps,
    }


def by_hook(x: Any, train_op: Any, *, feed: Any = None, **options: Any) -> dict[str, Any]:
    guard, steps = BatchNormGuard(every_n_steps=EVERY, **options), 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with tf.train.MonitoredTrainingSession(hooks=[guard]) as session:
            while not session.should_stop() and steps < STEPS:
                session.run(train_op, {x: batch(steps), **(feed or {})})
                steps += 1
    return told(guard, caught, steps)


def in_loop(
    x: Any,
    fetches: Callable[[int], Any],
    *,
    prepare: Callable[[Any], None] = lambda _: None,
    **options: Any,
) -> dict[str, Any]:
    guard, steps = BatchNormGuard(every_n_steps=EVERY, **options), 0
    with warnings.catch_warnings(record=True) as caught, tf.Session() as session:
        warnings.simplefilter("always")
        session.run(tf.global_variables_initializer())
        prepare(session)
        for step in range(STEPS):
            session.run(fetches(step), {x: batch(step)})
            steps += 1
            if guard.check(session, step):
                break
    return told(guard, caught, steps)


# --- Healthy: the guard has nothing to say --------------------------------------------------------


@training
def healthy() -> dict[str, Any]:
    x = images()
    return by_hook(x, train_op_of(loss_of(bn(x))))


@training
def healthy_in_a_loop() -> dict[str, Any]:
    x = images()
    op = train_op_of(loss_of(bn(x)))
    return in_loop(x, lambda _: op)


@training
def healthy_slim() -> dict[str, Any]:
    x = images()
    h = slim.batch_norm(tf.layers.dense(x, 4), is_training=True, decay=0.9, scale=True)
    optimizer = tf.train.AdamOptimizer(0.01)
    return by_hook(x, slim.learning.create_train_op(loss_of(h), optimizer))


@training
def updates_fetched_by_hand() -> dict[str, Any]:
    x = images()
    op = train_op_of(loss_of(bn(x)), updates=False)
    return in_loop(x, lambda _: [op, tf.get_collection(tf.GraphKeys.UPDATE_OPS)])


@training
def a_slow_decay() -> dict[str, Any]:
    x = images()
    return by_hook(x, train_op_of(loss_of(bn(x, momentum=0.9999))))


def in_a_monitored_session(x: Any, train_op: Any) -> dict[str, Any]:
    """A loop over a session that runs hooks, in a graph that is finalized."""
    guard = BatchNormGuard(every_n_steps=EVERY)
    with warnings.catch_warnings(record=True) as caught, tf.train.MonitoredSession() as session:
        warnings.simplefilter("always")
        for step in range(STEPS):
            session.run(train_op, {x: batch(step)})
            guard.check(session, step)
    return told(guard, caught, STEPS)


def keras_layers(*, updates: bool) -> dict[str, Any]:
    """Layers of Keras 2, which keep their update ops to themselves."""
    x, layer = images(), tensorflow.keras.layers.BatchNormalization(momentum=0.9)
    loss = loss_of(layer(tf.layers.dense(x, 4), training=True))
    return in_a_monitored_session(x, train_op_of(loss, more=layer.updates if updates else ()))


@training
def healthy_keras_layers() -> dict[str, Any]:
    return keras_layers(updates=True)


@training
def a_graph_that_grows() -> dict[str, Any]:
    x = images()
    op = train_op_of(loss_of(bn(x)))

    def fetches(_: int) -> Any:
        return [op, tf.constant(1.0)]

    return in_loop(x, fetches)


def _pretrained(session: Any) -> None:
    for variable in tf.global_variables():
        if variable.op.name.endswith(("moving_mean", "moving_variance", "/beta")):
            variable.load(np.linspace(0.5, 1.5, 4, dtype="float32"), session)


@training
def a_frozen_backbone() -> dict[str, Any]:
    """Its gamma and beta are not trained either, the head behind it is."""
    x = images()
    h = bn(x, training=False, trainable=False)
    op = train_op_of(loss_of(bn(h)))
    return in_loop(x, lambda _: op, prepare=_pretrained)


@training
def fine_tuned_in_inference_mode() -> dict[str, Any]:
    """Its gamma and beta are trained on, with the statistics that it came with."""
    x = images()
    op = train_op_of(loss_of(bn(x, training=False)))
    return in_loop(x, lambda _: op, prepare=_pretrained)


@training
def a_network_that_is_not_trained() -> dict[str, Any]:
    """Such as a target network: it is initial, and takes no part."""
    x = images()
    loss = loss_of(bn(x))
    with tf.variable_scope("target"):
        bn(x, training=False)
    trained = [one for one in tf.trainable_variables() if not one.name.startswith("target")]
    op = train_op_of(loss, variables=trained)
    return in_loop(x, lambda _: op)


# --- Broken: the guard has to warn ----------------------------------------------------------------


@training
def update_ops_forgotten() -> dict[str, Any]:
    x = images()
    return by_hook(x, train_op_of(loss_of(bn(x)), updates=False))


@training
def update_ops_forgotten_in_a_loop() -> dict[str, Any]:
    x = images()
    op = train_op_of(loss_of(bn(x)), updates=False)
    return in_loop(x, lambda _: op)


@training
def update_ops_forgotten_stopped() -> dict[str, Any]:
    x = images()
    return by_hook(x, train_op_of(loss_of(bn(x)), updates=False), action="stop")


@training
def update_ops_forgotten_stopped_in_a_loop() -> dict[str, Any]:
    x = images()
    op = train_op_of(loss_of(bn(x)), updates=False)
    return in_loop(x, lambda _: op, action="stop")


@training
def slim_without_create_train_op() -> dict[str, Any]:
    x = images()
    h = slim.batch_norm(tf.layers.dense(x, 4), is_training=True, scale=True)
    return by_hook(x, train_op_of(loss_of(h), updates=False))


@training
def built_with_training_false() -> dict[str, Any]:
    x = images()
    return by_hook(x, train_op_of(loss_of(bn(x, training=False))))


@training
def momentum_of_one() -> dict[str, Any]:
    x = images()
    return by_hook(x, train_op_of(loss_of(bn(x, momentum=1.0))))


@training
def a_placeholder_fed_false() -> dict[str, Any]:
    x, mode = images(), tf.placeholder(tf.bool, (), name="mode")
    return by_hook(x, train_op_of(loss_of(bn(x, training=mode))), feed={mode: False})


@training
def fetched_by_hand_and_then_left_out() -> dict[str, Any]:
    x = images()
    op = train_op_of(loss_of(bn(x)), updates=False)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    return in_loop(x, lambda step: [op, updates if step <= EVERY else []])


@training
def diverged() -> dict[str, Any]:
    x = images()
    loss = loss_of(bn(x)) * tf.log(-1.0)
    op = train_op_of(loss)
    return in_loop(x, lambda _: op)


@training
def names_of_ones_own_forgotten() -> dict[str, Any]:
    """No name tells: the graph does."""
    x = images()
    h = tf.layers.dense(x, 4)
    mu = tf.get_variable("mu", (4,), initializer=tf.zeros_initializer(), trainable=False)
    sq = tf.get_variable("sq", (4,), initializer=tf.ones_initializer(), trainable=False)
    a = tf.get_variable("a", (4,), initializer=tf.ones_initializer())
    b = tf.get_variable("b", (4,), initializer=tf.zeros_initializer())
    mean, variance = tf.nn.moments(h, [0])
    training = tf.placeholder_with_default(True, ())
    tf.assign(mu, 0.9 * mu + 0.1 * mean)
    tf.assign(sq, 0.9 * sq + 0.1 * variance)
    h = tf.cond(
        training,
        lambda: tf.nn.batch_normalization(h, mean, variance, b, a, 1e-3),
        lambda: tf.nn.batch_normalization(h, mu, sq, b, a, 1e-3),
    )
    return by_hook(x, train_op_of(loss_of(h)))


@training
def keras_updates_forgotten() -> dict[str, Any]:
    return keras_layers(updates=False)


@training
def no_bn_layer() -> dict[str, Any]:
    x = images()
    return by_hook(x, train_op_of(loss_of(x)))


@training
def two_trainings_with_one_guard() -> dict[str, Any]:
    """Each has a graph of its own, with layers of the same names."""
    guard = BatchNormGuard(every_n_steps=EVERY)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            tf.reset_default_graph()
            x = images()
            op = train_op_of(loss_of(bn(x)), updates=False)
            with tf.Session() as session:
                session.run(tf.global_variables_initializer())
                for step in range(STEPS):
                    session.run(op, {x: batch(step)})
                    guard.check(session, step)
    return told(guard, caught, 2 * STEPS)


def main() -> None:
    outcomes = {}
    for name in sys.argv[1:] or TRAININGS:
        tf.reset_default_graph()
        tf.set_random_seed(1)
        outcomes[name] = TRAININGS[name]()
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main()
