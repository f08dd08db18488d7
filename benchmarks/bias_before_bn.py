"""What the bias right before a BN layer shows of the mode of training, by trainings of its own.

    python benchmarks/bias_before_bn.py train FILE      with Keras 2, Keras 3 or TensorFlow 1.15
    python benchmarks/bias_before_bn.py table FILE...   with bninspect

`train` appends a line for each BN layer: small networks, SGD, Momentum, Adam and RMSProp, in batch
mode and in inference mode. With Keras 3 and TensorFlow 1.15 there are three seeds each, with Keras
3 also mixed modes and the variations named below, without RMSProp. That takes nine minutes of CPU
time with Keras 3, one or two with the others. `table` prints the table of
docs/verified.md: for each mode and variation the ranges, over all layers, of

- value: the largest bias, as a share of what inference mode gives (gamma / sqrt(variance) * beta);
- second moment: the largest share in a slot of averaged squares;
- apart: how far the bias is from beta or from that, as a share of it (Euclidean norms);
- proved: for how many layers `evidence/training_mode.py` says which mode.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from functools import partial
from itertools import product

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np

STEPS = 300
MODES = {True: "batch", False: "inference"}
OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop")
FAMILIES_OF_OPTIMIZERS = {
    "SGD, Momentum": ("sgd", "momentum"),
    "RMSProp": ("rmsprop",),
    "Adam": ("adam",),
}
NETWORKS = ("dense", "deep", "conv_net", "residual", "separable", "series")
SHAPES = {"dense": (12,), "deep": (12,), "series": (16, 4)}
SEEDS = (1, 2, 3)
PLAIN = f"{STEPS} steps"
# name → arguments of `train_keras`, on the networks `dense` and `conv_net`
VARIATIONS = {
    "weight decay 0.001": {"decay": 1e-3},
    "bias from 0.1": {"bias": 0.1},
    "bias from 0.1, weight decay 0.01": {"bias": 0.1, "decay": 1e-2},
    "bias from a normal distribution": {"bias": None},
    "bias frozen": {"is_frozen": True},
    "mixed bfloat16": {"policy": "mixed_bfloat16"},
    "mixed float16": {"policy": "mixed_float16"},
    "pretrained statistics": {"pretrained": True},
    "1 step": {"steps": 1},
    "5 steps": {"steps": 5},
    "5000 steps": {"steps": 5000},
}
# name → in which steps training is in inference mode
MIXED = {
    "every other step in inference mode": lambda step, _: step % 2 == 1,
    "second half in inference mode": lambda step, steps: step >= steps // 2,
    "last tenth in inference mode": lambda step, steps: step >= steps * 9 // 10,
    "every 100th step in inference mode": lambda step, _: step % 100 == 50,
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
    start = "random_normal" if bias is None else keras.initializers.Constant(bias)
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


def row(bias, beta, gamma, variance, slots):
    """Return what is stored of one layer and the bias before it; slots by their power."""
    both = {
        power: [as_list(slots[role][power]) for role in ("bias", "beta")]
        for power in (1, 2)
        if power in slots["bias"] and power in slots["beta"]
    }
    members = {"bias": bias, "beta": beta, "gamma": gamma, "variance": variance}
    return {**{name: as_list(values) for name, values in members.items()}, "slots": both}


def as_list(values):
    """Return an array or a variable as a list of numbers."""
    return np.asarray(values, "f8").tolist()


# --- Trainings ------------------------------------------------------------------------------------


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
        about = {"mode": MODES[training], "variation": PLAIN, "by": optimizer}
        yield about, train_tf1(network, optimizer, seed, training)


def keras_trainings(optimizer):
    """Yield the trainings with Keras and one optimizer: plain, varied and mixed.

    The last two only with Keras 3, and not with RMSProp, which averages squares as Adam does.
    """
    import keras

    is_keras_3 = keras.__version__.startswith("3.")
    seeds = SEEDS if is_keras_3 else SEEDS[:1]
    for training, network, seed in product((True, False), NETWORKS, seeds):
        about = {"mode": MODES[training], "variation": PLAIN, "by": optimizer}
        yield about, train_keras(network, optimizer, seed, partial(_always, not training))
    if not is_keras_3 or optimizer == "rmsprop":
        return
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


# --- The table ------------------------------------------------------------------------------------

EPSILON = 1e-3  # of all layers here
SLOTS = {"1": "Momentum", "2": "Adam_1"}  # what TensorFlow 1 calls slots of a power


def measures(one):
    """Return what the row of one layer shows, and the mode that the program proves by it."""
    bias, beta, gamma, variance = (
        np.array(one[name]) for name in ("bias", "beta", "gamma", "variance")
    )
    scale = np.abs(gamma) / np.sqrt(variance + EPSILON)
    found = {
        "value": np.abs(bias).max() / np.abs(scale * beta).max(),
        "apart": min(
            np.linalg.norm(bias - expected) / np.linalg.norm(expected)
            for expected in (beta, scale * beta)
        ),
        "proved": proved_mode(one),
    }
    if "2" in one["slots"]:
        part, whole = (np.abs(slot) for slot in np.array(one["slots"]["2"]))
        expected = whole * scale**2
        used = (scale >= 1e-1) & (expected > 0.0)
        if part.any() and used.any():
            found["second"] = (part[used] / expected[used]).max()
    return found


def short(number):
    """Return a number with one digit: 3e-5, 0, 2e1."""
    digit, power = f"{number:.0e}".split("e")
    return digit if int(power) == 0 else f"{digit}e{int(power)}"


def proved_mode(one):
    """Return the mode that the program proves, by the row as a checkpoint of TensorFlow 1."""
    from bninspect.batchnorm.find_layers import find_layers
    from bninspect.evidence.training_mode import TrainingModes
    from bninspect.model.checkpoint import Checkpoint, Variable
    from bninspect.model.graph import GraphEvidence
    from bninspect.runs.read_layers import with_values

    arrays = {
        "dense/bias": one["bias"],
        "bn/beta": one["beta"],
        "bn/gamma": one["gamma"],
        "bn/moving_mean": [0.0] * len(one["beta"]),
        "bn/moving_variance": one["variance"],
    }
    for power, slots in one["slots"].items():
        for name, slot in zip(("dense/bias", "bn/beta"), slots):  # noqa: B905
            arrays[f"{name}/{SLOTS[power]}"] = slot
    variables = {
        name: Variable(name, (len(values),), "float64", partial(np.array, values))
        for name, values in arrays.items()
    }
    checkpoint = Checkpoint("", "", "tf-v2", variables)
    (layer,) = with_values(find_layers(checkpoint))
    graph = GraphEvidence("", bias_before="dense/bias")
    proof = TrainingModes(checkpoint, lambda _: graph).of(layer)
    return "nothing" if proof is None else proof.mode


def table(paths):
    """Print the table of the rows in some files, in Markdown."""
    groups = {}
    for path in paths:
        with open(path) as file:
            for line in file:
                one = json.loads(line)
                measured = {**measures(one), "by": one["by"]}
                groups.setdefault((one["mode"], one["variation"]), []).append(measured)
    columns = {f"value: {name}": (names, "value") for name, names in FAMILIES_OF_OPTIMIZERS.items()}
    columns["second moment"] = (OPTIMIZERS, "second")
    columns["apart"] = (OPTIMIZERS, "apart")
    head = ["mode", "training", "layers", *columns, "proved"]
    print(f"| {' | '.join(head)} |")
    print(f"| {' | '.join('---' for _ in head)} |")
    names = [PLAIN, *VARIATIONS, *MIXED]
    for mode, name in sorted(groups, key=lambda key: (key[0], names.index(key[1]))):
        rows = groups[mode, name]
        cells = [mode, name, str(len(rows))]
        for optimizers, measure in columns.values():
            values = [one[measure] for one in rows if one["by"] in optimizers and measure in one]
            cells.append(f"{short(min(values))} to {short(max(values))}" if values else "")
        counts = Counter(one["proved"] for one in rows)
        cells.append(", ".join(f"{mode} {count}" for mode, count in counts.most_common()))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"] and len(sys.argv) == 3:
        train(sys.argv[2])
    elif sys.argv[1:2] == ["table"] and len(sys.argv) > 2:
        table(sys.argv[2:])
    else:
        sys.exit(__doc__)
