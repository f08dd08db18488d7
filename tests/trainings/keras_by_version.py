"""Keras 2 (tf_keras) or Keras 3, by the environment: fit and loops of one's own."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.trainings.running import (
    BATCHES,
    FOLDER,
    IMAGES,
    LABELS,
    pair,
    recording,
    run_mistaken,
    run_sample,
)

keras = tf.keras
KERAS_3 = "TF_USE_LEGACY_KERAS" not in os.environ
NORMALIZATION = keras.layers.BatchNormalization
SUFFIX = ".keras" if KERAS_3 else ".h5"


def dataset() -> Any:
    images, labels = (list(column) for column in zip(*BATCHES, strict=True))
    return tf.data.Dataset.from_tensor_slices((images, labels))


def network(**more: Any) -> dict[str, Any]:
    """The names of a sample, up to the activations before the layer."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    return {
        "tf": tf,
        "keras": keras,
        "inputs": inputs,
        "x": keras.layers.Dense(4, name="before")(inputs),
        "optimizer": keras.optimizers.SGD(0.001),
        "images": IMAGES,
        "labels": LABELS,
        "dataset": dataset(),
        **more,
    }


def build(scope: dict[str, Any]) -> dict[str, Any]:
    outputs = keras.layers.Dense(1, name="head")(scope["x"])
    scope["model"] = keras.Model(scope["inputs"], outputs)
    return scope


def with_layer(**more: Any) -> dict[str, Any]:
    scope = network(**more)
    scope["x"] = NORMALIZATION(momentum=0.9, name="bn")(scope["x"])
    return build(scope)


def save(scope: dict[str, Any], folder: Path, **more: str) -> dict[str, str]:
    path = str(folder / f"model{SUFFIX}")
    scope["model"].save(path)
    return {"path": path, **more}


def fit(scope: dict[str, Any], epochs: int = 2) -> None:
    scope["model"].compile(scope["optimizer"], "mse")
    scope["model"].fit(scope["images"], scope["labels"], batch_size=16, epochs=epochs, verbose=0)


@functools.cache
def trained() -> dict[str, str]:
    """A model that was trained well, and its weights: where others begin."""
    scope = with_layer()
    fit(scope)
    folder = FOLDER / "trained"
    folder.mkdir()
    weights = str(folder / "trained.weights.h5")
    scope["model"].save_weights(weights)
    return {**save(scope, folder), "weights": weights}


def resume(**more: Any) -> dict[str, Any]:
    scope = with_layer(**more)
    scope["model"].load_weights(trained()["weights"])
    return scope


def fit_sample(*mistake: tuple[str, str]) -> Any:
    def training(folder: Path, right: bool) -> dict[str, str]:
        scope = network(path=str(folder / f"model{SUFFIX}"))
        run_sample("keras-fit", scope) if right else run_mistaken("keras-fit", scope, *mistake)
        return {"path": scope["path"]}

    return training


def own_call(folder: Path, right: bool) -> dict[str, str]:
    scope = network(path=str(folder / "model.weights.h5"))
    if right:
        run_sample("keras-3-call", scope)
    else:
        run_mistaken(
            "keras-3-call", scope, ("x, training=None)", "x)"), ("(x, training=training)", "(x)")
        )
    return {"path": scope["path"]}


def loop(folder: Path, right: bool) -> dict[str, str]:
    scope = with_layer()
    if right:
        run_sample("keras-loop", scope)
    else:
        run_mistaken("keras-loop", scope, (", training=True)", ")"))
    return save(scope, folder)


def resumed(folder: Path, right: bool) -> dict[str, str]:
    """fit first, then a loop of one's own."""
    scope = resume()
    if right:
        run_sample("keras-loop", scope)
    else:
        run_mistaken("keras-loop", scope, (", training=True)", ")"))
    return save(scope, folder, since=trained()["path"])


def reestimate(folder: Path, right: bool) -> dict[str, str]:
    """Training used batch statistics, and the averages of them were lost."""
    scope = with_layer(path=str(folder / f"model{SUFFIX}"))
    run_sample("keras-loop", scope)
    layer = scope["model"].get_layer("bn")
    layer.moving_mean.assign(np.zeros(4))
    layer.moving_variance.assign(np.ones(4))
    images = np.random.default_rng(2).normal(5.0, 3.0, (100, 64, 4)).astype("float32")
    scope["dataset"] = tf.data.Dataset.from_tensor_slices(images)
    if not right:
        return save(scope, folder)
    before = [v.numpy() for v in scope["model"].trainable_variables]
    run_sample("keras-reestimate", scope)
    after = [v.numpy() for v in scope["model"].trainable_variables]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    return {"path": scope["path"]}


def pretrained(folder: Path, right: bool) -> dict[str, str]:
    """A frozen layer needs the statistics of a model that was trained."""
    scope = with_layer(pretrained=trained()["weights"])
    if right:
        run_sample("keras-pretrained", scope)
    else:
        run_mistaken("keras-pretrained", scope, ("model.load_weights(pretrained)", "pass"))
    scope["model"].fit(IMAGES, LABELS, batch_size=16, epochs=1, verbose=0)
    return save(scope, folder)


def frozen(folder: Path, right: bool) -> dict[str, str]:
    """Freezing the statistics alone: gamma and beta go on without them."""
    scope = resume(pretrained=trained()["weights"])
    if right:
        run_sample("keras-pretrained", scope)
        # More steps than before: a new optimizer counts from 0.
        scope["model"].fit(IMAGES, LABELS, batch_size=16, epochs=3, verbose=0)
    else:
        run_mistaken("keras-loop", scope, (", training=True)", ")"))
    return save(scope, folder, since=trained()["path"])


def momentum(folder: Path, right: bool) -> dict[str, str]:
    scope = network()
    if right:
        run_sample("keras-momentum", scope)
    else:
        run_mistaken("keras-momentum", scope, ("momentum=0.9", ""))
    fit(build(scope), epochs=1)
    return save(scope, folder)


def saved(folder: Path, right: bool) -> dict[str, str]:
    """A Saver of the trainable variables, as in a script that was carried over from TF1."""
    path = str(folder / f"model{SUFFIX}")
    scope = resume(path=path)
    if right:
        run_sample("keras-save", scope)
        return {"path": path}
    variables = {
        f"{name}/{v.name.partition(':')[0].rpartition('/')[2]}": v
        for name in ("before", "bn", "head")
        for v in scope["model"].get_layer(name).trainable_variables
    }
    variables = {
        name.replace("bn/", "batch_normalization/"): getattr(v, "value", v) if KERAS_3 else v
        for name, v in variables.items()
    }
    return {"path": tf.compat.v1.train.Saver(variables).save(None, str(folder / "model.ckpt"))}


def set_weights(folder: Path, right: bool) -> dict[str, str]:
    scope = resume()
    layer = scope["layer"] = scope["model"].get_layer("bn")
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    scope.update(zip(names, layer.get_weights(), strict=True))
    scope["moving_mean"] = -abs(scope["moving_mean"])  # some mean is negative
    if right:
        run_sample("keras-set-weights", scope)
    else:
        wrong = "moving_variance, moving_mean"
        run_mistaken("keras-set-weights", scope, ("moving_mean, moving_variance", wrong))
    return save(scope, folder)


def mixed(folder: Path, right: bool) -> dict[str, str]:
    """A momentum that bfloat16 cannot follow, for as many steps as float32 needs."""
    keras.backend.clear_session()
    scope = {"keras": keras}
    try:
        if right:
            run_sample("keras-mixed", scope)
        else:
            run_mistaken("keras-mixed", scope, ("mixed_bfloat16", "bfloat16"))
        scope = network()
        scope["x"] = NORMALIZATION(momentum=0.999, name="bn")(scope["x"])
        model = build(scope)["model"]
        steps = {"steps_per_execution": 300}
        model.compile(scope["optimizer"], "mse", **steps)
        # Activations of a variance below 2: an update from 1 is half a step or less.
        small = scope["dataset"].map(lambda images, labels: (images * 0.1, labels))
        model.fit(small.repeat(100), epochs=1, verbose=0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return save(scope, folder)


with recording():
    pair("keras-fit untrained", fit_sample(("model.fit(images, labels, epochs=25)", "")))
    if not KERAS_3:  # whose fit overrides what the layer was called with
        pair("keras-fit", fit_sample(("()(x)", "()(x, training=False)")))
    pair("keras-loop", loop)
    pair("keras-loop resumed", resumed)
    pair("keras-reestimate", reestimate)
    pair("keras-pretrained", pretrained)
    pair("keras-pretrained frozen", frozen)
    pair("keras-momentum", momentum)
    pair("keras-save", saved)
    pair("keras-set-weights", set_weights)
    if KERAS_3:  # Keras 2 updates the layers of any model
        pair("keras-3-call", own_call)
    if KERAS_3:  # Keras 2 keeps the statistics in float32 by itself
        pair("keras-mixed", mixed)
