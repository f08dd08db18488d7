"""Keras 3 on JAX: a stateless loop."""

from __future__ import annotations

from pathlib import Path

import jax
import keras

from tests.trainings.running import BATCHES, pair, recording, run_mistaken, run_sample


def stateless(folder: Path, right: bool) -> dict[str, str]:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization(momentum=0.9)(keras.layers.Dense(4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    optimizer = keras.optimizers.SGD(0.001)
    optimizer.build(model.trainable_variables)
    scope = {
        "jax": jax,
        "keras": keras,
        "model": model,
        "optimizer": optimizer,
        "dataset": BATCHES,
    }
    if right:
        run_sample("keras-stateless", scope)
    else:
        run_mistaken("keras-stateless", scope, ("(loss, state), grads", "(loss, _), grads"))
    path = str(folder / "model.keras")
    model.save(path)
    return {"path": path}


with recording():
    pair("keras-stateless", stateless)
