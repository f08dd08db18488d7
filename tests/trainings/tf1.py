"""tf.layers, slim, Keras layers and hand-written averages, in TF1's graph mode.

TensorFlow 2 has them in tf.compat.v1, with Keras 2 (tf_keras) below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import ops

from tests.trainings.running import BATCHES, pair, recording, run_mistaken, run_sample

tf.disable_v2_behavior()
if not hasattr(ops, "Tensor"):  # tf_slim 1.1 looks for it where TensorFlow 2.12 had it
    ops.Tensor = tensorflow.Tensor
import tf_slim as slim  # noqa: E402

keras = tensorflow.keras

DEPENDENT = ("with tf.control_dependencies(update_ops):", "if True:")


def start(**more: Any) -> dict[str, Any]:
    """The names of a sample, in a graph of its own."""
    keras.backend.clear_session()  # with the default graph and the learning phase
    tf.set_random_seed(1)
    images = tf.placeholder(tf.float32, (None, 4))
    labels = tf.placeholder(tf.float32, (None, 1))
    return {
        "tf": tf,
        "slim": slim,
        "keras": keras,
        "images": images,
        "labels": labels,
        "x": tf.layers.dense(images, 4),
        "optimizer": tf.train.GradientDescentOptimizer(0.001),
        "step": tf.train.get_or_create_global_step(),
        "batches": BATCHES,
        **more,
    }


def finish(scope: dict[str, Any]) -> None:
    """What a training has after the layer, where a sample ends with it."""
    loss = tf.losses.mean_squared_error(scope["labels"], tf.layers.dense(scope["x"], 1))
    update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    with tf.control_dependencies(update_ops):
        scope["train_op"] = scope["optimizer"].minimize(loss, global_step=scope["step"])
    scope["loss"], scope["update_ops"] = loss, update_ops


def train(scope: dict[str, Any], session: Any, times: int = 1, **feed: Any) -> None:
    for batch, targets in BATCHES * times:
        fed = {scope["images"]: batch, scope["labels"]: targets}
        session.run(scope["train_op"], {**fed, **{scope[name]: v for name, v in feed.items()}})


def train_and_save(scope: dict[str, Any], folder: Path, times: int = 1) -> dict[str, str]:
    saver = scope.get("saver") or tf.train.Saver()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        train(scope, session, times)
        return {"path": saver.save(session, str(folder / "model.ckpt"), global_step=scope["step"])}


def updates(*mistakes: tuple[str, str]) -> Any:
    """With 300 steps, so that the sample's momentum of 0.99 is warm."""

    def training(folder: Path, right: bool) -> dict[str, str]:
        scope = start()
        run_sample("tf1-updates", scope) if right else run_mistaken("tf1-updates", scope, *mistakes)
        return train_and_save(scope, folder, times=10)

    return training


def resumed(mistake: tuple[str, str]) -> Any:
    """A training that is gone on with by another script."""

    def training(folder: Path, right: bool) -> dict[str, str]:
        first = start()
        run_sample("tf1-updates", first)
        earlier = train_and_save(first, folder, times=10)["path"]
        scope = start()
        run_sample("tf1-updates", scope) if right else run_mistaken("tf1-updates", scope, mistake)
        with tf.Session() as session:
            saver = tf.train.Saver()
            saver.restore(session, earlier)
            train(scope, session)
            path = saver.save(session, str(folder / "model.ckpt"), global_step=scope["step"])
        return {"path": path, "since": earlier}

    return training


def mode(folder: Path, right: bool) -> dict[str, str]:
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        images, labels = (tf.placeholder(tf.float32, (None, size)) for size in (4, 1))
        scope = {
            "tf": tf,
            "session": session,
            "images": images,
            "labels": labels,
            "x": tf.layers.dense(images, 4),
            "optimizer": tf.train.GradientDescentOptimizer(0.001),
            "step": tf.train.get_or_create_global_step(),
            "batches": BATCHES * 10,
        }
        if right:
            run_sample("tf1-mode", scope)
        else:
            run_mistaken("tf1-mode", scope, (", training=is_training)", ")"))
        saver = tf.train.Saver()
        return {"path": saver.save(session, str(folder / "model.ckpt"), global_step=scope["step"])}


def keras_layers(folder: Path, right: bool) -> dict[str, str]:
    scope = start()
    if right:
        run_sample("tf1-keras", scope)
    else:
        collected = "tf.get_collection(tf.GraphKeys.UPDATE_OPS)"
        run_mistaken("tf1-keras", scope, ("(model.updates)", f"({collected})"))
    return train_and_save(scope, folder, times=10)


def hand_written(depended_on: str) -> Any:
    def training(folder: Path, right: bool) -> dict[str, str]:
        scope = start()
        with tf.variable_scope("bn"):
            for name, value, trainable in (
                ("gamma", 1.0, True),
                ("beta", 0.0, True),
                ("moving_mean", 0.0, False),
                ("moving_variance", 1.0, False),
            ):
                initial = tf.constant_initializer(value)
                scope[name] = tf.get_variable(name, (4,), initializer=initial, trainable=trainable)
        if right:
            run_sample("tf1-hand-written", scope)
        else:
            both = "([update_mean, update_variance])"
            run_mistaken("tf1-hand-written", scope, (both, f"([{depended_on}])"))
        return train_and_save(scope, folder)

    return training


def reestimate(folder: Path, right: bool) -> dict[str, str]:
    """The same weights, saved as they were trained and with averages taken afterwards."""
    scope = start(path=str(folder / "reestimated"))
    scope["is_training"] = tf.placeholder(tf.bool)
    x = tf.layers.batch_normalization(scope["x"], momentum=0.9, training=scope["is_training"])
    loss = tf.losses.mean_squared_error(scope["labels"], tf.layers.dense(x, 1))
    scope["train_op"] = scope["optimizer"].minimize(loss, global_step=scope["step"])
    scope["update_ops"] = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    scope["saver"] = tf.train.Saver()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        train(scope, session, is_training=True)
        if not right:
            path = scope["saver"].save(session, str(folder / "model.ckpt"), scope["step"])
            return {"path": path}
        weights = session.run(tf.trainable_variables())
        run_sample("tf1-reestimate", {**scope, "session": session})
        after = session.run(tf.trainable_variables())
        assert all((a == b).all() for a, b in zip(weights, after, strict=True))
    return {"path": f"{scope['path']}-{len(BATCHES)}"}


def pretrained(folder: Path, right: bool) -> dict[str, str]:
    scope = start()
    scope["x"] = tf.layers.batch_normalization(scope["x"], momentum=0.9, training=True, name="bn")
    finish(scope)
    earlier = train_and_save(scope, folder / "pretrained")["path"]
    scope = start(pretrained=earlier)
    if right:
        run_sample("tf1-pretrained", scope)
    else:
        restored = 'tf.train.init_from_checkpoint(pretrained, {"bn/": "bn/"})'
        run_mistaken("tf1-pretrained", scope, (restored, ""))
    finish(scope)
    return train_and_save(scope, folder)


def shorter(sample: str, *mistake: tuple[str, str]) -> Any:
    """30 steps with a lower momentum, and with that which is the default."""

    def training(folder: Path, right: bool) -> dict[str, str]:
        scope = start()
        run_sample(sample, scope) if right else run_mistaken(sample, scope, *mistake)
        finish(scope)
        return train_and_save(scope, folder)

    return training


def saver(sample: str, mistake: str) -> Any:
    def training(folder: Path, right: bool) -> dict[str, str]:
        scope = start()
        if sample.startswith("slim"):
            scope["x"] = slim.batch_norm(scope["x"], decay=0.9, is_training=True)
        else:
            scope["x"] = tf.layers.batch_normalization(scope["x"], momentum=0.9, training=True)
        finish(scope)
        if right:
            run_sample(sample, scope)
        else:
            exec(mistake, scope)  # noqa: S102
        return train_and_save(scope, folder)

    return training


def slim_updates(folder: Path, right: bool) -> dict[str, str]:
    """In a scope with a lower decay than slim's 0.999, which takes 3,000 steps."""
    scope = start()
    with slim.arg_scope([slim.batch_norm], decay=0.9):
        if right:
            run_sample("slim-updates", scope)
        else:
            create = "slim.learning.create_train_op(loss, optimizer)"
            minimize = "optimizer.minimize(loss, global_step=step)"
            run_mistaken("slim-updates", scope, (create, minimize))
    return train_and_save(scope, folder)


def averages(folder: Path, right: bool) -> dict[str, str]:
    """Averages of all variables, and of the weights alone though others are made."""
    scope = start()
    scope["x"] = tf.layers.batch_normalization(scope["x"], momentum=0.9, training=True)
    finish(scope)
    if right:
        run_sample("tf1-averages", scope)
    else:
        made = "train_op = averages.apply("
        never_run = f"averages.apply(statistics)\n    {made}"
        run_mistaken("tf1-averages", scope, (made, never_run), (" + statistics", ""))
    return train_and_save(scope, folder)


TRAINABLE = "saver = tf.train.Saver(tf.trainable_variables())"
ONLY_MEAN = """saver = tf.train.Saver(tf.trainable_variables() + [
    v for v in tf.global_variables() if "/moving_mean" in v.op.name])"""
COLLECTED_FIRST = (
    ("x = tf.layers", "update_ops = tf.get_collection('update_ops')\nx = tf.layers"),
    ("update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)\n", ""),
)
# The mean's update comes first: the variance alone is run.
SECOND_ONLY = ("(update_ops)", "(update_ops[1:])")
FIRST_ONLY = ("(update_ops)", "(update_ops[:1])")

with recording():
    pair("tf1-updates", updates(DEPENDENT))
    pair("tf1-updates collected first", updates(*COLLECTED_FIRST))
    pair("tf1-updates variance only", updates(SECOND_ONLY))
    pair("tf1-updates mean only", updates(FIRST_ONLY))
    pair("tf1-updates resumed", resumed(DEPENDENT))
    pair("tf1-updates resumed in inference mode", resumed(("training=True", "training=False")))
    pair("tf1-mode", mode)
    pair("tf1-keras", keras_layers)
    pair("tf1-hand-written", hand_written(""))
    pair("tf1-hand-written variance only", hand_written("update_variance"))
    pair("tf1-hand-written mean only", hand_written("update_mean"))
    pair("tf1-reestimate", reestimate)
    pair("tf1-pretrained", pretrained)
    pair("tf1-momentum", shorter("tf1-momentum", ("momentum=0.9, ", "")))
    pair("slim-decay", shorter("slim-decay", ("decay=0.9, ", "")))
    pair("tf1-saver", saver("tf1-saver", TRAINABLE))
    pair("tf1-saver-choice", saver("tf1-saver-choice", TRAINABLE))
    pair("tf1-saver-choice mean only", saver("tf1-saver-choice", ONLY_MEAN))
    pair("tf1-averages", averages)
    pair("slim-saver", saver("slim-saver", TRAINABLE))
    pair("slim-updates", slim_updates)
