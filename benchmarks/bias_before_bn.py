"""What the bias right before a BN layer shows of the mode of training, by trainings of its own.

    python benchmarks/bias_before_bn.py train FILE      with Keras 2, Keras 3 or TensorFlow 1.15
    python benchmarks/bias_before_bn.py table FILE...

`train` appends a line for each BN layer: small networks, SGD, Momentum, Adam and RMSProp, three
seeds, in batch mode, in inference mode and mixed, with the variations named below. Some five
minutes on one core with Keras, eight with TensorFlow 1.15. `table` prints, for each mode, the
ranges over all layers of:

- value: the largest bias, as a share of what inference mode gives (gamma / sqrt(variance) * beta);
- first, second: the largest share in a slot of averaged gradients, of averaged squares;
- apart: how far the bias is from beta or from that, as a share of it (Euclidean norms);
- proved: for how many layers `evidence/training_mode.py` says which mode.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict
from functools import partial
from itertools import product

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np

STEPS = 300
MODES = {True: "batch", False: "inference"}
OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop")
NETWORKS = ("dense", "deep", "conv_net", "residual", "separable", "series")
SHAPES = {"dense": (12,), "deep": (12,), "series": (16, 4)}
SEEDS = (1, 2, 3)
# name → arguments of `train_keras`, on the networks `dense` and `conv_net`
VARIATIONS = {
    "weight decay 0.001": {"decay": 1e-3},
    "bias from 0.1": {"bias": 0.1},
    "bias from 0.1, decay 0.01": {"bias": 0.1, "decay": 1e-2},
    "bias frozen": {"is_frozen": True},
    "mixed bfloat16": {"policy": "mixed_bfloat16"},
    "mixed float16": {"policy": "mixed_float16"},
    "pretrained statistics": {"pretrained": True},
    "5 steps": {"steps": 5},
    "5000 steps": {"steps": 5000},
}
# name → in which steps training is in inference mode
MIXED = {
    "every other step": lambda step, _: step % 2 == 1,
    "second half": lambda step, steps: step >= steps // 2,
    "last tenth": lambda step, steps: step >= steps * 9 // 10,
    "every 100th step": lambda step, _: step % 100 == 50,
}


def batch(step, seed, shape):
    """Return 16 samples of `shape` and their classes, of three."""
    inputs = np.random.RandomState(seed * 100003 + step).normal(0.3, 1.2, (16, *shape))
    flat = inputs.reshape(16, -1)
    classes = (np.abs(flat[:, 0]) + flat[:, 1] > 0.8).astype("i4") + (flat.mean(1) > 0.3)
    return inputs.astype("f4"), classes.astype("i4")


# --- Keras 2 and 3 --------------------------------------------------------------------------------


class KerasNetworks:
    """Small Keras models; `pairs` are the layers with a bias, each with the BN layer behind it."""

    def __init__(self, keras, options):
        self.keras, self.layers, self.options = keras, keras.layers, options
        self.pairs = []

    def normalized(self, layer, x, activation="relu"):
        """Return the output of a layer, its BN layer and an activation."""
        bn = self.layers.BatchNormalization(momentum=0.9)
        self.pairs.append((layer, bn))
        return self.layers.Activation(activation)(bn(layer(x)))

    def conv(self, channels, size=3):
        """Return a convolution."""
        return self.layers.Conv2D(channels, size, padding="same", **self.options)

    def dense(self, x):
        """Two dense layers."""
        for units in (16, 8):
            x = self.normalized(self.layers.Dense(units, **self.options), x)
        return x

    def deep(self, x):
        """Six dense layers."""
        for _ in range(6):
            x = self.normalized(self.layers.Dense(16, **self.options), x, "tanh")
        return x

    def conv_net(self, x):
        """Two convolutions."""
        for channels in (8, 16):
            x = self.normalized(self.conv(channels), x)
        return self.layers.GlobalAveragePooling2D()(x)

    def residual(self, x):
        """Build a convolution and two residual blocks."""
        x = self.normalized(self.conv(8), x, "linear")
        for _ in range(2):
            y = self.normalized(self.conv(8), self.layers.Activation("relu")(x))
            x = self.layers.Add()([x, self.normalized(self.conv(8), y, "linear")])
        return self.layers.GlobalAveragePooling2D()(x)

    def separable(self, x):
        """Build a depthwise convolution between two of size 1."""
        x = self.normalized(self.conv(8, 1), x)
        depthwise = self.layers.DepthwiseConv2D(3, padding="same", **self.options)
        x = self.normalized(self.conv(12, 1), self.normalized(depthwise, x))
        return self.layers.GlobalAveragePooling2D()(x)

    def series(self, x):
        """Two causal convolutions over time."""
        for _ in range(2):
            x = self.normalized(self.layers.Conv1D(8, 3, padding="causal", **self.options), x)
        return self.layers.GlobalMaxPooling1D()(x)

    def model(self, name):
        """Return the model called `name`, which tells three classes apart."""
        inputs = self.keras.Input(SHAPES.get(name, (8, 8, 3)))
        x = getattr(self, name)(inputs)
        return self.keras.Model(inputs, self.layers.Dense(3)(x))


def keras_optimizer(keras, name):
    """Return an optimizer of Keras."""
    make = {
        "sgd": lambda: keras.optimizers.SGD(0.05),
        "momentum": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
        "adam": lambda: keras.optimizers.Adam(0.003),
        "rmsprop": lambda: keras.optimizers.RMSprop(0.003),
    }
    return make[name]()


def train_keras(
    network,
    optimizer_name,
    seed,
    infers,
    *,
    steps=STEPS,
    decay=0.0,
    bias=0.0,
    is_frozen=False,
    policy="float32",
    pretrained=False,
):
    """Train a model, in inference mode where `infers(step, steps)`; yield a row for each layer."""
    import keras
    import tensorflow as tf

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    keras.mixed_precision.set_global_policy(policy)
    start = keras.initializers.Constant(bias)
    networks = KerasNetworks(keras, {"bias_initializer": start})
    model, pairs = networks.model(network), networks.pairs
    random = np.random.RandomState(seed)
    for layer, bn in pairs:
        layer.trainable = not is_frozen
        if pretrained:
            bn.moving_mean.assign(random.normal(0.0, 0.5, bn.moving_mean.shape))
            bn.moving_variance.assign(random.uniform(0.2, 4.0, bn.moving_variance.shape))
    optimizer = keras_optimizer(keras, optimizer_name)
    variables = model.trainable_variables
    optimizer.build(variables)
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Inference divides by what was there at the start: no update is kept.
    variances = [np.asarray(bn.moving_variance) for _, bn in pairs]

    def step_in(training):
        @tf.function
        def run(inputs, classes):
            with tf.GradientTape() as tape:
                loss = tf.cast(criterion(classes, model(inputs, training=training)), tf.float32)
                squares = [tf.nn.l2_loss(tf.convert_to_tensor(one)) for one in variables]
                loss += decay * tf.add_n(squares)
            optimizer.apply_gradients(
                [*zip(tape.gradient(loss, variables), variables)]  # noqa: B905 - Python 3.7 has no strict
            )

        return run

    run = {training: step_in(training) for training in (False, True)}
    for step in range(steps):
        run[not infers(step, steps)](*batch(step, seed, model.input_shape[1:]))
    slots = keras_slots(optimizer, variables)
    for (layer, bn), variance in zip(pairs, variances):  # noqa: B905
        names = {"bias": layer.bias, "beta": bn.beta}
        kept = {role: slots.get(id(one), {}) for role, one in names.items()}
        yield row(layer.bias, bn.beta, bn.gamma, variance, kept)
    keras.mixed_precision.set_global_policy("float32")


def keras_slots(optimizer, variables):
    """Return by the id of each variable its slots: 1 for averages of gradients, 2 of squares."""
    found = {}
    squared = {"_velocities": 2, "_momentums": 1, "momentums": 1}
    if type(optimizer).__name__ == "SGD":
        squared = {"momentums": 1}
    for attribute, power in squared.items():
        kept = getattr(optimizer, attribute, None) or []
        if len(kept) == len(variables):
            for variable, slot in zip(variables, kept):  # noqa: B905
                found.setdefault(id(variable), {})[power] = np.asarray(slot)
    return found


# --- TensorFlow 1.15 ------------------------------------------------------------------------------


def tf1_network(tf, name, x, training):
    """Build a network of tf.layers on `x` and return its logits."""

    def normalized(x, number, fused=None):
        return tf.layers.batch_normalization(
            x, momentum=0.9, training=training, fused=fused, name=f"bn{number}"
        )

    if name in ("dense", "deep"):
        for number, units in enumerate((16, 8) if name == "dense" else (16,) * 6):
            x = tf.nn.relu(normalized(tf.layers.dense(x, units, name=f"d{number}"), number))
    else:
        for number, channels in enumerate((8, 16)):
            x = tf.layers.conv2d(x, channels, 3, padding="same", name=f"d{number}")
            x = tf.nn.relu(normalized(x, number, fused=name != "unfused"))
        x = tf.reduce_mean(x, (1, 2))
    return tf.layers.dense(x, 3)


def train_tf1(network, optimizer_name, seed, training, *, steps=STEPS):
    """Train a network of TensorFlow 1.15; yield a row for each layer."""
    import tensorflow as tf

    make = {
        "sgd": lambda: tf.train.GradientDescentOptimizer(0.05),
        "momentum": lambda: tf.train.MomentumOptimizer(0.02, 0.9),
        "adam": lambda: tf.train.AdamOptimizer(0.003),
        "rmsprop": lambda: tf.train.RMSPropOptimizer(0.003),
    }
    shape = (12,) if network in ("dense", "deep") else (8, 8, 3)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        inputs = tf.placeholder(tf.float32, (16, *shape))
        classes = tf.placeholder(tf.int32, (16,))
        logits = tf1_network(tf, network, inputs, training)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits)
        train_op = make[optimizer_name]().minimize(tf.reduce_mean(losses))
        session.run(tf.global_variables_initializer())
        for step in range(steps):
            session.run(train_op, dict(zip((inputs, classes), batch(step, seed, shape))))  # noqa: B905
        variables = {one.op.name: session.run(one) for one in tf.global_variables()}
    powers = {"Momentum": 1, "Adam_1": 2, "RMSProp": 2}
    number = 0
    while f"bn{number}/beta" in variables:
        names = {"bias": f"d{number}/bias", "beta": f"bn{number}/beta"}
        kept = {
            role: {
                power: variables[f"{name}/{slot}"]
                for slot, power in powers.items()
                if f"{name}/{slot}" in variables
            }
            for role, name in names.items()
        }
        beta, gamma = variables[names["beta"]], variables[f"bn{number}/gamma"]
        yield row(variables[names["bias"]], beta, gamma, np.ones(beta.shape), kept)
        number += 1


# --- Measures -------------------------------------------------------------------------------------


def row(bias, beta, gamma, variance, slots):
    """Return what one layer shows, as ratios, and what the program would say of it."""
    bias, beta, gamma, variance = (np.asarray(one, "f8") for one in (bias, beta, gamma, variance))
    scale = np.abs(gamma) / np.sqrt(variance + 1e-3)
    found = {
        "value": np.abs(bias).max() / np.abs(scale * beta).max(),
        "apart": min(
            np.linalg.norm(bias - expected) / np.linalg.norm(expected)
            for expected in (beta, scale * beta)
        ),
    }
    for name, power in (("first", 1), ("second", 2)):
        if power in slots["bias"] and power in slots["beta"]:
            part, whole = (
                np.abs(np.asarray(slots[role][power], "f8")) for role in ("bias", "beta")
            )
            expected = whole * scale**power
            used = (scale**power >= 1e-2) & (expected > 0.0)
            if part.any() and used.any():
                found[name] = (part[used] / expected[used]).max()
    is_noise = any(found.get(name, 1.0) <= 1e-4 for name in ("first", "second"))
    if is_noise or 0.0 < found["value"] <= 1e-4:
        found["proved"] = "batch"
    elif found["apart"] <= 0.1 and np.count_nonzero(beta) >= 4:
        found["proved"] = "inference"
    return {key: one if isinstance(one, str) else float(one) for key, one in found.items()}


def trainings():
    """Yield every training of the framework that is installed: what it is, and its rows."""
    import tensorflow as tf

    is_tf1 = tf.__version__.startswith("1.")
    for optimizer in OPTIMIZERS:
        yield from tf1_trainings(optimizer) if is_tf1 else keras_trainings(optimizer)


def tf1_trainings(optimizer):
    """Yield the trainings with TensorFlow 1.15 and one optimizer."""
    for network, seed, training in product(
        ("dense", "deep", "conv_net", "unfused"), SEEDS, (True, False)
    ):
        about = {"mode": MODES[training], "variation": "TensorFlow 1.15", "by": optimizer}
        yield about, train_tf1(network, optimizer, seed, training)


def keras_trainings(optimizer):
    """Yield the trainings with Keras and one optimizer: plain, varied and mixed."""
    for training, network, seed in product((True, False), NETWORKS, SEEDS):
        about = {"mode": MODES[training], "variation": "", "by": optimizer}
        yield about, train_keras(network, optimizer, seed, partial(_always, not training))
    for training, (name, options), network in product(
        (True, False), VARIATIONS.items(), ("dense", "conv_net")
    ):
        about = {"mode": MODES[training], "variation": name, "by": optimizer}
        if not (training and "pretrained" in options):
            infers = partial(_always, not training)
            yield about, train_keras(network, optimizer, 1, infers, **options)
    for (name, infers), network in product(MIXED.items(), NETWORKS):
        about = {"mode": "mixed", "variation": name, "by": optimizer}
        yield about, train_keras(network, optimizer, 1, infers)


def _always(value, *_):
    return value


def train(path):
    """Append the rows of all trainings to a file, as JSON lines."""
    with open(path, "a") as file:
        for about, rows in trainings():
            file.writelines(json.dumps({**one, **about}) + "\n" for one in rows)
            file.flush()


def table(paths):
    """Print the table of some files, in Markdown."""
    groups = defaultdict(list)
    for path in paths:
        with open(path) as file:
            for line in file:
                one = json.loads(line)
                groups[one["mode"], one["variation"], one["by"]].append(one)
    print("| mode | variation | optimizer | layers | value | first | second | apart | proved |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for key in sorted(groups):
        rows = groups[key]
        cells = [*key, str(len(rows))]
        for measure in ("value", "first", "second", "apart"):
            values = [one[measure] for one in rows if measure in one]
            cells.append(f"{min(values):.1g} to {max(values):.1g}" if values else "")
        counts = Counter(one.get("proved", "nothing") for one in rows)
        cells.append(", ".join(f"{name} {count}" for name, count in counts.most_common()))
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"] and len(sys.argv) == 3:
        train(sys.argv[2])
    elif sys.argv[1:2] == ["table"]:
        table(sys.argv[2:])
    else:
        sys.exit(__doc__)
