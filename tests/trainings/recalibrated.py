"""Trainings for `recalibrate`: a stuck model and its twin, the same weights with their averages.

The inputs have another offset and scale in each channel, so that a stuck model really fails. Run as
`python -m tests.trainings.recalibrated KERAS DIRECTORY NAME…` it makes these models, recalibrates
them by the command, and prints the accuracies as JSON.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, SAMPLES = 4, 2048


def images(seed: int, count: int = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Return images of shape (8, 8, 3) and their classes."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(CLASSES, 8, 8, 3))
    y = rng.integers(0, CLASSES, count)
    x = patterns[y] + rng.normal(0.0, 2.5, (count, 8, 8, 3))
    return (x * [0.3, 1.0, 2.0] + [20.0, -60.0, 90.0]).astype("f4"), y.astype("i4")


def rows(seed: int, count: int = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of 12 numbers and their classes."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(98).normal(size=(CLASSES, 12))
    y = rng.integers(0, CLASSES, count)
    x = centers[y] + rng.normal(0.0, 0.7, (count, 12))
    return (x * np.geomspace(0.1, 20.0, 12) + np.linspace(-30, 30, 12)).astype("f4"), y.astype("i4")


def cnn(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(6, 3),
            layers.BatchNormalization(momentum=0.9),
            layers.Activation("tanh"),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(momentum=0.9, scale=False),
            layers.Activation("tanh"),
            layers.Flatten(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def mlp(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.BatchNormalization(momentum=0.9),
            layers.Dense(16, activation="tanh"),
            layers.Dense(16),
            layers.BatchNormalization(momentum=0.9),
            layers.Activation("tanh"),
            layers.Dense(CLASSES),
        ]
    )


def resnet(keras: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same")(inputs)
    x = layers.BatchNormalization(momentum=0.9)(x)
    for _ in range(2):
        y = layers.Activation("tanh")(x)
        y = layers.Conv2D(6, 3, padding="same")(y)
        y = layers.BatchNormalization(momentum=0.9)(y)
        y = layers.Dropout(0.2)(y)
        x = layers.add([x, y])
    x = layers.Flatten()(layers.Activation("tanh")(x))
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(layers.Dropout(0.3)(x)))


def nested(keras: Any) -> Any:
    layers = keras.layers
    inner_input = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="conv")(inner_input)
    x = layers.BatchNormalization(momentum=0.9, name="bn")(x)
    inner = keras.Model(inner_input, layers.Activation("tanh")(x), name="inner")
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(inner(inputs))
    x = layers.BatchNormalization(momentum=0.9, center=False, name="top")(layers.Dense(12)(x))
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x))


# network → (how it is built, its data)
NETWORKS: dict[str, tuple[Callable[[Any], Any], Callable[..., tuple[np.ndarray, np.ndarray]]]] = {
    "cnn": (cnn, images),
    "mlp": (mlp, rows),
    "resnet": (resnet, images),
    "nested": (nested, images),
}


def train(keras: Any, name: str, **options: Any) -> Any:
    """Return a model that was trained with batch statistics, and with their averages."""
    build, data = NETWORKS[name]
    keras.utils.set_random_seed(3)
    model = build(keras)
    x, y = data(0)
    is_softmax = name != "mlp"
    model.compile(
        options.get("optimizer") or keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=not is_softmax),
    )
    model.fit(x, y, batch_size=32, epochs=options.get("epochs", 4), verbose=0)
    return model


def mild_images(seed: int, count: int = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Return images that a network can be trained on without normalization, and their classes."""
    x, y = images(seed, count)
    return ((x - [20.0, -60.0, 90.0]) / [0.3, 1.0, 2.0] + 0.5).astype("f4"), y


# The optimizers of trainings in inference mode.
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda keras: keras.optimizers.SGD(0.05),
    "momentum": lambda keras: keras.optimizers.SGD(0.01, momentum=0.9),
    "adam": lambda keras: keras.optimizers.Adam(0.003),
    "rmsprop": lambda keras: keras.optimizers.RMSprop(0.002),
}


def train_in_inference_mode(keras: Any, optimizer: str) -> Any:
    """Return a model that was trained by a loop without training=True (TensorFlow)."""
    import tensorflow

    keras.utils.set_random_seed(3)
    model = cnn(keras)
    model.compile(OPTIMIZERS[optimizer](keras), "sparse_categorical_crossentropy")
    x, y = mild_images(0)

    @tensorflow.function
    def step(batch: Any, labels: Any) -> None:
        with tensorflow.GradientTape() as tape:
            outputs = model(batch, training=False)
            losses = keras.losses.sparse_categorical_crossentropy(labels, outputs)
        weights = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(losses, weights), weights, strict=True))

    for number in range(256):
        rows = np.arange(number * 32, number * 32 + 32) % len(x)
        step(x[rows], y[rows])
    return model


def make_stuck(model: Any) -> None:
    """Set the averages of a model to their initial values."""
    from bninspect.guard.live_layers import find_bn_layers

    for _, layer in find_bn_layers(model):
        layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
        layer.moving_variance.assign(np.ones(layer.moving_variance.shape))


def accuracy(model: Any, name: str) -> float:
    """Return the share of samples that a model predicts right at inference."""
    x, y = NETWORKS[name][1](1)
    outputs = np.asarray(model.predict(x, verbose=0))
    return float((outputs.argmax(axis=-1) == y).mean())


def twins(keras: Any, directory: Path, name: str, end: str) -> dict[str, float]:
    """Train, save the stuck model and samples, and return the accuracies of twin and stuck one."""
    model = train(keras, name)
    found = {"twin": accuracy(model, name)}
    make_stuck(model)
    found["stuck"] = accuracy(model, name)
    model.save(directory / f"{name}{end}")
    x, y = NETWORKS[name][1](2)
    np.savez(directory / f"{name}.npz", x=x, y=y)
    return found


def cure(keras: Any, directory: Path, name: str, end: str) -> dict[str, Any]:
    """Recalibrate the stuck model by the command; return what it said, and the accuracy after."""
    from bninspect.cli.main import run

    output = io.StringIO()
    fixed = directory / f"{name}_fixed{end}"
    model, samples = f"{directory / name}{end}", f"{directory / name}.npz"
    arguments = ["recalibrate", model, "--data", samples, "--labels", "y", "-o", str(fixed)]
    code: Any = None
    with redirect_stdout(output):
        try:
            run([*arguments, "--format", "json"])
        except SystemExit as leaving:
            code = leaving.code
    said = json.loads(output.getvalue()) if output.getvalue() else None
    found = {"code": code, "said": said}
    if not code:
        found["after"] = accuracy(keras.models.load_model(fixed, compile=False), name)
    return found


def main() -> None:
    module, directory, end, *names = sys.argv[1:]
    keras = importlib.import_module(module)
    place = Path(directory)
    found = {}
    for name in names:
        result = twins(keras, place, name, end)
        found[name] = result | cure(keras, place, name, end)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
