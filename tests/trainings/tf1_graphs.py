"""Graphs with batch normalization in every form, and with what only looks like it, for TF1.

`python -m tests.trainings.tf1_graphs FOLDER` writes the graph and the variables of each at step 0,
and `expected.json` with the variables of each BN layer, by role. TensorFlow 2 has TF1's layers in
tf.compat.v1, with Keras 2 (tf_keras) below.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import function, ops
from tensorflow.python.ops import cond_v2
from tensorflow.python.training import moving_averages

tf.disable_v2_behavior()
if not hasattr(ops, "Tensor"):  # tf_slim 1.1 looks for it where TensorFlow 2.12 had it
    ops.Tensor = tensorflow.Tensor
import tf_slim as slim  # noqa: E402

Layer = dict[str, str]  # role → name of the variable
# What is to be saved besides; the updates of its averages; the layers.
Network = Callable[[], tuple[Any, list[Any], list[Layer]]]
NETWORKS: dict[str, Network] = {}
ROLES = ("moving_mean", "moving_variance", "gamma", "beta")


def network(build: Network) -> Network:
    """Add a function that builds a graph; it returns the output, update ops and BN layers."""
    NETWORKS[build.__name__] = build
    return build


def layer(*names: str | None) -> Layer:
    return {role: name for role, name in zip(ROLES, names, strict=False) if name}


def members(scope: str, *absent: str) -> Layer:
    return {role: f"{scope}/{role}" for role in ROLES if role not in absent}


def images() -> Any:
    return tf.placeholder(tf.float32, (None, 6, 6, 3))


def convolved(x: Any = None, channels: int = 4) -> Any:
    return tf.layers.conv2d(images() if x is None else x, channels, 3, use_bias=False)


def variable(name: str, value: float, shape: Any = (4,), trainable: bool = True) -> Any:
    initial = tf.constant_initializer(value)
    return tf.get_variable(name, shape, initializer=initial, trainable=trainable)


def collected() -> list[Any]:
    return tf.get_collection(tf.GraphKeys.UPDATE_OPS)


# --- Layers of libraries --------------------------------------------------------------------------


def library(name: str, build: Callable[[], Any], *layers: Layer) -> None:
    """Add a network of one library layer, with the update ops that it collects."""

    def built() -> tuple[Any, list[Any], list[Layer]]:
        x = build()
        return x, collected(), list(layers)

    NETWORKS[name] = built


def mode() -> Any:
    return tf.placeholder(tf.bool, ())


BN = members("batch_normalization")
SLIM = members("BatchNorm")
for options in (
    {"training": True},
    {"training": True, "fused": False},
    {"training": False},
    {"training": False, "fused": False},
    {"training": True, "renorm": True},
    {"training": True, "trainable": False},
    {"training": True, "axis": 1},
    {"training": "mode"},
    {"training": "mode", "fused": False},
):

    def tf_layer(options: dict[str, Any] = options) -> Any:
        chosen = {**options, "training": mode()} if options["training"] == "mode" else options
        return tf.layers.batch_normalization(convolved(), **chosen)

    library(f"tf.layers {options}", tf_layer, BN)
for fused in (True, False):

    def slim_layer(fused: bool = fused) -> Any:
        # Only in place: for collected updates tf_slim asks for modules that are gone.
        return slim.batch_norm(
            convolved(), scale=True, fused=fused, is_training=True, updates_collections=None
        )

    library(f"slim fused={fused}", slim_layer, SLIM)
library(
    "without gamma and beta",
    lambda: tf.layers.batch_normalization(convolved(), training=True, center=False, scale=False),
    members("batch_normalization", "gamma", "beta"),
)
library(
    "virtual batches",
    lambda: tf.layers.batch_normalization(
        convolved(tf.placeholder(tf.float32, (8, 6, 6, 3))), training=True, virtual_batch_size=4
    ),
    BN,
)
library(
    "Keras layer with its learning phase",
    lambda: tensorflow.keras.layers.BatchNormalization(name="bn")(convolved()),
    members("bn"),
)
library(
    "one behind the other",
    lambda: tf.layers.batch_normalization(
        tf.layers.batch_normalization(convolved(), training=True, fused=False),
        training=True,
        fused=False,
    ),
    BN,
    members("batch_normalization_1"),
)
library(
    "of a difference",
    lambda: tf.layers.batch_normalization(convolved() - convolved(), training=False, fused=False),
    BN,
)
library(
    "of centered images",
    lambda: tf.layers.batch_normalization(images() - 127.5, training=True, fused=False),
    BN,
)
library("layer norm", lambda: slim.layer_norm(convolved()))
library("instance norm", lambda: slim.instance_norm(convolved()))
library("group norm", lambda: slim.group_norm(convolved(), groups=2))
library("Keras layer norm", lambda: tensorflow.keras.layers.LayerNormalization()(convolved()))
library("l2 norm of local response norm", lambda: tf.nn.l2_normalize(tf.nn.lrn(convolved()), -1))


@network
def evaluation_with_the_variables_of_training() -> tuple[Any, list[Any], list[Layer]]:
    def built(training: bool) -> Any:
        with tf.variable_scope("net", reuse=not training):
            return tf.layers.batch_normalization(convolved(), training=training, name="bn")

    return built(True) + built(False), collected(), [members("net/bn")]


@network
def shadows_of_all_variables() -> tuple[Any, list[Any], list[Layer]]:
    x = tf.layers.batch_normalization(convolved(), training=True)
    with tf.control_dependencies(collected()):
        averaged = tf.train.ExponentialMovingAverage(0.9).apply(tf.global_variables())
    return x, [averaged], [BN]


@network
def target_network() -> tuple[Any, list[Any], list[Layer]]:
    for scope in ("main", "target"):
        with tf.variable_scope(scope):
            x = tf.layers.batch_normalization(
                convolved(), training=scope == "main", fused=False, name="bn"
            )
    pairs = zip(tf.global_variables("main"), tf.global_variables("target"), strict=True)
    soft = [tf.assign(target, 0.9 * target + 0.1 * main) for main, target in pairs]
    return x, [*collected(), *soft], [members("main/bn"), members("target/bn")]


@network
def partitioned() -> tuple[Any, list[Any], list[Layer]]:
    with tf.variable_scope("p", partitioner=tf.fixed_size_partitioner(2)):
        x = convolved()
        gamma, beta = (tf.get_variable(name, (4,)) for name in ("gamma", "beta"))
    mean, variance = (variable(f"p/{name}", 0.0, trainable=False) for name in ("m", "v"))
    x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 0.001)
    return x, [], [layer("p/m", "p/v", "p/gamma", "p/beta")]


@network
def partitions_saved_one_by_one() -> tuple[Any, list[Any], list[Layer]]:
    x, updates, [found] = partitioned()
    return x, updates, [{**found, "gamma": "p/gamma/part_0", "beta": "p/beta/part_0"}]


@network
def saved_under_other_names() -> tuple[Any, list[Any], list[Layer]]:
    x = tf.layers.batch_normalization(convolved(), training=True)
    return x, collected(), [{role: f"renamed/{BN[role]}" for role in ROLES}]


# --- Written by hand ------------------------------------------------------------------------------

Form = Callable[..., tuple[list[Any], Any]]
HAND = layer("layer1/mean", "layer1/variance", "layer1/g", "layer1/b")
AXES = [0, 1, 2]


def by_hand(form: Form) -> Form:
    """Add a form of batch normalization: it returns updates and the normalized values."""

    def built() -> tuple[Any, list[Any], list[Layer]]:
        x = convolved()
        with tf.variable_scope("layer1"):
            b, g = variable("b", 0.0), variable("g", 1.0)
            mean, variance = (
                variable(name, value, trainable=False)
                for name, value in (("mean", 0.0), ("variance", 1.0))
            )
        updates, y = form(x, b, g, mean, variance)
        return y, updates, [HAND]

    NETWORKS[form.__name__] = built
    return form


def averaged(mean: Any, variance: Any, of_mean: Any, of_variance: Any) -> list[Any]:
    return [
        tf.assign(mean, mean * 0.9 + of_mean * 0.1),
        tf.assign(variance, variance * 0.9 + of_variance * 0.1),
    ]


@by_hand
def gamma_first_then_division(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    return averaged(mean, variance, m, v), g * (x - m) / tf.sqrt(v + 1e-5) + b


@by_hand
def division_first(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    return averaged(mean, variance, m, v), (x - m) / tf.sqrt(v + 1e-5) * g + b


@by_hand
def inverse_root(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    return averaged(mean, variance, m, v), b + g * ((x - m) * tf.rsqrt(v + 1e-5))


@by_hand
def epsilon_outside_of_the_root(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    return averaged(mean, variance, m, v), (x - m) / (tf.sqrt(v) + 1e-5) * g + b


@by_hand
def power_of_a_half(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    return averaged(mean, variance, m, v), (x - m) / tf.pow(v + 1e-5, 0.5) * g + b


@by_hand
def power_of_minus_a_half(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    return averaged(mean, variance, m, v), g * ((x - m) * (v + 1e-5) ** -0.5) + b


@by_hand
def variance_in_one_pass(x, b, g, mean, variance):
    m = tf.reduce_mean(x, AXES)
    v = tf.reduce_mean(x * x, AXES) - m * m
    return averaged(mean, variance, m, v), (x - m) / tf.sqrt(v + 1e-5) * g + b


@by_hand
def variance_that_is_not_negative(x, b, g, mean, variance):
    m = tf.reduce_mean(x, AXES)
    v = tf.reduce_mean(x * x, AXES) - m * m
    y = (x - m) / tf.sqrt(tf.maximum(v, 0.0) + 1e-5) * g + b
    return averaged(mean, variance, m, v), y


@by_hand
def kept_dimensions(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES, keep_dims=True)
    updates = averaged(mean, variance, tf.squeeze(m), tf.reshape(v, (4,)))
    return updates, (x - m) / tf.sqrt(v + 1e-5) * g + b


@by_hand
def added_negative_mean(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    return averaged(mean, variance, m, v), (x + (-m)) * tf.rsqrt(v + 1e-5) * g + b


@by_hand
def folded_scale(x, b, g, mean, variance):
    scale = g / tf.sqrt(variance + 1e-5)
    return [], x * scale + (b - mean * scale)


@by_hand
def folded_negative_scale(x, b, g, mean, variance):
    scale = g * tf.rsqrt(variance + 1e-5)
    return [], x * scale + (-mean * scale + b)


@by_hand
def inference_only(x, b, g, mean, variance):
    return [], (x - mean) / tf.sqrt(variance + 1e-5) * g + b


@by_hand
def chosen_by_a_condition(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)

    def of_the_batch():
        with tf.control_dependencies(averaged(mean, variance, m, v)):
            return tf.identity(m), tf.identity(v)

    m, v = tf.cond(mode(), of_the_batch, lambda: (mean, variance))
    return [], tf.nn.batch_normalization(x, m, v, b, g, 1e-3)


@by_hand
def chosen_by_an_if(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    updates = averaged(mean, variance, m, v)
    stored = [tf.identity(mean), tf.identity(variance)]
    m, v = cond_v2.cond_v2(mode(), lambda: [m, v], lambda: stored)
    return updates, tf.nn.batch_normalization(x, m, v, b, g, 1e-3)


@by_hand
def chosen_by_a_case(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    updates = averaged(mean, variance, m, v)
    branches = [[tf.identity(mean), tf.identity(variance)], [m, v]]
    number = tf.cast(mode(), tf.int32)
    m, v = cond_v2.indexed_case(number, [lambda: branches[0], lambda: branches[1]])
    return updates, tf.nn.batch_normalization(x, m, v, b, g, 1e-3)


@by_hand
def chosen_by_where(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    training = tf.fill((4,), mode())
    m, v = tf.where(training, m, mean), tf.where(training, v, variance)
    updates = [tf.assign_sub(mean, (mean - m) * 0.1), tf.assign_sub(variance, 0.1 * (variance - v))]
    return updates, tf.nn.batch_normalization(x, m, v, b, g, 1e-3)


@by_hand
def normalized_in_branches(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)

    def of_the_batch():
        with tf.control_dependencies(averaged(mean, variance, m, v)):
            return (x - m) / tf.sqrt(v + 1e-5)

    y = tf.cond(mode(), of_the_batch, lambda: (x - mean) / tf.sqrt(variance + 1e-5))
    return [], y * g + b


@by_hand
def scaled_in_a_branch(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    inverse = tf.rsqrt(v + 1e-5)
    y = tf.cond(mode(), lambda: (x - m) * inverse * g + b, lambda: tf.zeros_like(x))
    return averaged(mean, variance, m, v), y


@by_hand
def averages_used_in_training(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    new_mean, new_variance = averaged(mean, variance, m, v)
    return [], tf.nn.batch_normalization(x, new_mean, new_variance, b, g, 1e-3)


@by_hand
def corrected_variance(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    count = tf.cast(tf.size(x) / 4, tf.float32)
    updates = averaged(mean, variance, m, v * count / (count - 1.0))
    return updates, tf.nn.batch_normalization(x, m, v, b, g, 1e-3)


@by_hand
def averages_of_the_last_batch(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    updates = [tf.assign(mean, m), tf.assign(variance, v)]
    return updates, tf.nn.batch_normalization(x, m, v, b, g, 1e-3)


@by_hand
def zero_debias(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    updates = [
        moving_averages.assign_moving_average(mean, m, 0.9, zero_debias=True),
        moving_averages.assign_moving_average(variance, v, 0.9, zero_debias=True),
    ]
    return updates, tf.nn.batch_normalization(x, m, v, b, g, 1e-3)


@by_hand
def gamma_as_distance_from_one(x, b, g, mean, variance):
    m, v = tf.nn.moments(x, AXES)
    return averaged(mean, variance, m, v), tf.nn.batch_normalization(x, m, v, b, 1.0 + g, 1e-3)


@by_hand
def fused_kernel(x, b, g, mean, variance):
    y, m, v = tf.nn.fused_batch_norm(x, g, b, epsilon=1e-3)
    return averaged(mean, variance, m, v), y


@network
def averages_of_moments() -> tuple[Any, list[Any], list[Layer]]:
    x = convolved(tf.placeholder(tf.float32, (8, 6, 6, 3)))
    g, b = variable("g", 1.0), variable("b", 0.0)
    mean, variance = tf.nn.moments(x, AXES, name="moments")
    average = tf.train.ExponentialMovingAverage(0.9)
    update = average.apply([mean, variance])
    mean, variance = tf.cond(
        mode(), lambda: (mean, variance), lambda: (average.average(mean), average.average(variance))
    )
    x = tf.nn.batch_normalization(x, mean, variance, b, g, 1e-3)
    return (
        x,
        [update],
        [
            layer(
                *(f"moments/{n}/ExponentialMovingAverage" for n in ("Squeeze", "Squeeze_1")),
                "g",
                "b",
            )
        ],
    )


def statistics(name: str = "") -> tuple[Any, Any]:
    return variable(f"{name}m", 0.0, trainable=False), variable(f"{name}v", 1.0, trainable=False)


@network
def without_gamma_and_beta() -> tuple[Any, list[Any], list[Layer]]:
    x, (mean, variance) = convolved(), statistics()
    m, v = tf.nn.moments(x, AXES)
    return (x - m) * tf.rsqrt(v + 1e-3), averaged(mean, variance, m, v), [layer("m", "v")]


@network
def gamma_alone() -> tuple[Any, list[Any], list[Layer]]:
    x, (mean, variance) = convolved(), statistics()
    y = (x - mean) * tf.rsqrt(variance + 1e-3) * variable("g", 1.0)
    return y, [], [layer("m", "v", "g")]


@network
def beta_alone() -> tuple[Any, list[Any], list[Layer]]:
    x, (mean, variance) = convolved(), statistics()
    y = (x - mean) * tf.rsqrt(variance + 1e-3) + variable("b", 0.0)
    return y, [], [layer("m", "v", None, "b")]


@network
def two_layers_in_one_scope() -> tuple[Any, list[Any], list[Layer]]:
    x, layers = convolved(), []
    updates = []
    with tf.variable_scope("net"):
        for name in ("one_", "two_"):
            mean, variance = statistics(name)
            m, v = tf.nn.moments(x, AXES)
            updates += averaged(mean, variance, m, v)
            x = (x - m) * tf.rsqrt(v + 1e-3) * variable(f"{name}g", 1.0)
            layers.append(layer(*(f"net/{name}{part}" for part in "mvg")))
    return x, updates, layers


@network
def conditional_gamma() -> tuple[Any, list[Any], list[Layer]]:
    x, z = convolved(), tf.placeholder(tf.float32, (None, 3))
    gamma, beta = (tf.layers.dense(z, 4)[:, None, None] for _ in range(2))
    mean, variance = variable("m", 0.0, trainable=False), variable("v", 1.0, trainable=False)
    m, v = tf.nn.moments(x, AXES)
    y = (x - m) * tf.rsqrt(v + 1e-3) * (1.0 + gamma) + beta
    return y, averaged(mean, variance, m, v), [layer("m", "v")]


@network
def one_function_for_two_layers() -> tuple[Any, list[Any], list[Layer]]:
    @function.Defun(*[tf.float32] * 5)
    def normalized(x, mean, variance, g, b):
        return (x - mean) * tf.rsqrt(variance + 1e-3) * g + b

    x = tf.layers.dense(tf.placeholder(tf.float32, (None, 5)), 4)
    layers = []
    for name in "ab":
        names = [f"{name}{part}" for part in ("m", "v", "g", "b")]
        x = normalized(x, *[variable(one, 0.0) for one in names])
        x.set_shape((None, 4))
        layers.append(layer(*names))
    return x, [], layers


# --- Look-alikes ----------------------------------------------------------------------------------


@network
def normalizer_of_inputs() -> tuple[Any, list[Any], list[Layer]]:
    x = tf.placeholder(tf.float32, (None, 5))
    mean, variance = (variable(n, 0.0, (5,), trainable=False) for n in ("mean", "var"))
    count = variable("count", 0.0, (), trainable=False)
    m, v = tf.nn.moments(x, [0])
    updates = [
        tf.assign(mean, mean + (m - mean) / (count + 1)),
        tf.assign(variance, variance + (v - variance) / (count + 1)),
        tf.assign_add(count, 1.0),
    ]
    return tf.layers.dense((x - mean) / tf.sqrt(variance + 1e-6), 3), updates, []


@network
def standardized_by_variables() -> tuple[Any, list[Any], list[Layer]]:
    x, (mean, variance) = convolved(), statistics()
    return (x - mean) * tf.rsqrt(variance + 1e-3), [], []


@network
def sums_over_batches() -> tuple[Any, list[Any], list[Layer]]:
    x, g, b = convolved(), variable("g", 1.0), variable("b", 0.0)
    m, v = tf.nn.moments(x, AXES)
    sums = [variable(name, 0.0, trainable=False) for name in ("sum_mean", "sum_variance")]
    count = variable("count", 1e-12, (), trainable=False)
    updates = [tf.assign_add(sums[0], m), tf.assign_add(sums[1], v), tf.assign_add(count, 1.0)]
    m, v = tf.cond(mode(), lambda: (m, v), lambda: (sums[0] / count, sums[1] / count))
    return tf.nn.batch_normalization(x, m, v, b, g, 1e-3), updates, []


@network
def statistics_of_the_batch_alone() -> tuple[Any, list[Any], list[Layer]]:
    x = convolved()
    m, v = tf.nn.moments(x, AXES)
    return tf.nn.batch_normalization(x, m, v, variable("b", 0.0), variable("g", 1.0), 1e-3), [], []


@network
def layer_norm_with_averages() -> tuple[Any, list[Any], list[Layer]]:
    x = convolved(tf.placeholder(tf.float32, (8, 6, 6, 3)))
    m, v = tf.nn.moments(x, [1, 2, 3])
    mean, variance = (variable(n, 0.0, (8,), trainable=False) for n in ("mean", "variance"))
    shape = (-1, 1, 1, 1)
    y = (x - tf.reshape(m, shape)) * tf.rsqrt(tf.reshape(v, shape) + 1e-3)
    return y * variable("g", 1.0) + variable("b", 0.0), averaged(mean, variance, m, v), []


@network
def adam_by_hand() -> tuple[Any, list[Any], list[Layer]]:
    w, x = variable("w", 1.0, (5, 3)), tf.placeholder(tf.float32, (None, 5))
    y = tf.matmul(x, w)
    (gradient,) = tf.gradients(tf.reduce_mean(y**2), [w])
    m, v = (variable(name, 0.0, (5, 3), trainable=False) for name in "mv")
    m, v = tf.assign(m, 0.9 * m + 0.1 * gradient), tf.assign(v, 0.99 * v + 0.01 * gradient**2)
    return y, [tf.assign(w, w - 0.01 * m / (tf.sqrt(v) + 1e-8))], []


@network
def centered_rmsprop_by_hand() -> tuple[Any, list[Any], list[Layer]]:
    w, x = variable("w", 1.0, (5, 3)), tf.placeholder(tf.float32, (None, 5))
    y = tf.matmul(x, w)
    (gradient,) = tf.gradients(tf.reduce_mean(y**2), [w])
    squares, mean = (variable(name, 0.0, (5, 3), trainable=False) for name in ("ms", "mg"))
    squares = tf.assign(squares, 0.9 * squares + 0.1 * gradient**2)
    mean = tf.assign(mean, 0.9 * mean + 0.1 * gradient)
    return y, [tf.assign_sub(w, 0.01 * gradient * tf.rsqrt(squares - mean**2 + 1e-6))], []


@network
def weight_norm() -> tuple[Any, list[Any], list[Layer]]:
    v, g = variable("v", 1.0, (3, 3, 3, 4)), variable("g", 1.0)
    w = g * v * tf.rsqrt(tf.reduce_sum(v * v, [0, 1, 2]) + 1e-6)
    return tf.nn.conv2d(images(), w, [1, 1, 1, 1], "SAME") + variable("b", 0.0), [], []


@network
def likelihood_of_a_normal_distribution() -> tuple[Any, list[Any], list[Layer]]:
    x = tf.placeholder(tf.float32, (None, 5))
    mean, variance = variable("mu", 0.0, (5,)), variable("sigma2", 1.0, (5,))
    return (x - mean) / tf.sqrt(variance + 1e-6) + tf.log(variance), [], []


@network
def averages_of_a_codebook() -> tuple[Any, list[Any], list[Layer]]:
    x = tf.layers.dense(tf.placeholder(tf.float32, (None, 5)), 5)
    codes = variable("codes", 1.0, (5, 4), trainable=False)
    size = variable("size", 0.0, (4,), trainable=False)
    total = variable("total", 0.0, (5, 4), trainable=False)
    chosen = tf.nn.softmax(tf.matmul(x, codes))
    size = tf.assign(size, size * 0.9 + 0.1 * tf.reduce_sum(chosen, 0))
    total = tf.assign(total, total * 0.9 + 0.1 * tf.matmul(x, chosen, transpose_a=True))
    return chosen, [tf.assign(codes, total / (size + 1e-5))], []


def write(folder: Path, build: Network) -> list[Layer]:
    """Write a graph with training and its variables; return the BN layers."""
    tensorflow.keras.backend.clear_session()
    with tf.Graph().as_default(), tf.Session() as session:
        output, updates, layers = build()
        loss = tf.reduce_mean(output**2)
        with tf.control_dependencies(updates):
            optimizer = tf.train.AdamOptimizer(0.01)
            optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())
        session.run(tf.global_variables_initializer())
        saved = None  # which stores the partitions of a variable as one
        if build is saved_under_other_names:
            saved = {f"renamed/{one.op.name}": one for one in tf.global_variables()}
        elif build is partitions_saved_one_by_one:
            saved = {one.op.name: one for one in tf.global_variables()}
        tf.train.Saver(saved).save(session, str(folder / "model.ckpt"), write_state=False)
    return layers


def main(folder: Path) -> None:
    expected = []
    for number, (name, build) in enumerate(NETWORKS.items()):
        place = folder / str(number)
        place.mkdir()
        expected.append({"name": name, "layers": write(place, build)})
    (folder / "expected.json").write_text(json.dumps(expected), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
