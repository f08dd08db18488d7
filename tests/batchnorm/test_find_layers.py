"""Which variables make a BN layer: every naming family, and everything that only looks like one."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.batchnorm.families import FAMILIES
from bninspect.batchnorm.find_layers import find_layers
from bninspect.config.model import make_config
from bninspect.errors import Unsupported
from bninspect.model.roles import ROLES
from tests.support.layers_in_memory import checkpoint, unread, variable

HDF5 = "keras-h5"
OBJECT = "tf-object"
FOUR = {role: role for role in ROLES}
HDF5_FOUR = {role: f"{role}:0" for role in ROLES}


class Case(NamedTuple):
    """A layer as a framework stores it: below `scope` a name for each role, and helpers."""

    family: str
    scope: str
    stored: dict[str, str]
    name: str | None = None  # the layer's name, where it is not the scope
    format: str = "tf-v2"
    helpers: dict[str, str] = {}  # noqa: RUF012 - not changed by anyone
    besides: tuple[str, ...] = ()  # more variables of the layer that are none of its members

    def names(self) -> list[str]:
        return [
            *(self.scope + name for name in self.stored.values()),
            *self.helpers.values(),
            *self.besides,
        ]

    def layer_name(self) -> str:
        return self.scope.rstrip("/") if self.name is None else self.name


def without(stored, *roles):
    return {role: name for role, name in stored.items() if role not in roles}


def keras_1(suffix, statistics_suffix=None):
    return {
        "gamma": f"_gamma{suffix}",
        "beta": f"_beta{suffix}",
        "moving_mean": f"_running_mean{statistics_suffix or suffix}",
        "moving_variance": f"_running_std{statistics_suffix or suffix}",
    }


def named(mean, variance, gamma="gamma", beta="beta"):
    return {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}


def averaged(mean="Squeeze", variance="Squeeze_1", scope="", **affine):
    names = (f"{scope}moments/{name}/ExponentialMovingAverage" for name in (mean, variance))
    return named(*names, **affine)


ACCUMULATED = named("accu/accu_mean", "accu/accu_variance")
FLAX = named("mean", "var", "scale", "beta")
HAIKU = named("mean_ema/average", "var_ema/average", "scale", "offset")
SONNET_2 = named("moving_mean/average", "moving_variance/average", "scale", "offset")


def sonnet_2_helpers(scope, hidden, counter):
    return {
        f"{statistic}/{leaf}": f"{scope}{statistic}/{leaf}"
        for statistic in ("moving_mean", "moving_variance")
        for leaf in (hidden, counter)
    }


def accumulators(scope):
    return {leaf: f"{scope}{leaf}" for leaf in ("accu/accu_counter", "accu/update_accus")}


CASES = [
    # tf.layers
    Case("tf.layers", "batch_normalization/", FOUR),
    Case("tf.layers", "batch_normalization_12/", FOUR),
    Case("tf.layers", "resnet/unit_1/batch_normalization_v1_1/", FOUR),
    Case("tf.layers", "efficientnet-b0/blocks_0/tpu_batch_normalization_1/", FOUR),
    Case("tf.layers", "stem/sync_batch_normalization/", FOUR),
    Case("tf.layers", "batch_normalization/", without(FOUR, "gamma")),
    Case("tf.layers", "batch_normalization/", without(FOUR, "beta")),
    Case("tf.layers", "batch_normalization/", without(FOUR, "gamma", "beta")),
    # slim and tf.contrib.layers: no gamma unless asked for
    Case("slim", "InceptionV3/Conv2d_1a_3x3/BatchNorm/", without(FOUR, "gamma")),
    Case("slim", "resnet_v1_50/block1/unit_1/conv1/BatchNorm/", FOUR),
    Case("slim", "BatchNorm_83/", without(FOUR, "gamma", "beta")),
    # Sonnet 1
    Case("sonnet-1", "RGB/inception_i3d/Conv3d_1a_7x7/batch_norm/", without(FOUR, "gamma")),
    Case("sonnet-1", "mlp/batch_norm_2/", FOUR),
    # tflearn
    Case("tflearn", "BatchNormalization_1/", FOUR, besides=("is_training", "Global_Step")),
    # tensorpack
    Case("tensorpack", "conv1/bn/", named("mean/EMA", "variance/EMA")),
    Case("tensorpack", "bn/", without(named("mean/EMA", "variance/EMA"), "gamma", "beta")),
    # Lingvo
    Case(
        "lingvo",
        "las/enc/conv_L0/bn/",
        named("moving_mean/var", "moving_variance/var", "gamma/var", "beta/var"),
    ),
    Case(
        "lingvo",
        "las/enc/bn/",
        without(named("moving_mean/var", "moving_variance/var"), "gamma", "beta"),
    ),
    # TensorLayer
    Case("tensorlayer", "model/batchnorm_layer_1/", named("moving_mean", "moving_var")),
    Case("tensorlayer", "batch_norm/", named("moving_mean", "moving_var")),
    Case("tensorlayer", "batchnorm2d_7/", without(named("moving_mean", "moving_var"), "gamma")),
    Case("tensorlayer", "batchnorm1d/", named("moving_mean:0", "moving_var:0"), format=HDF5),
    # the variable names of a framework under a scope of one's own
    Case("custom-scope", "generator/g_bn0/", FOUR),
    Case("custom-scope", "bn_0_freq/", without(FOUR, "gamma", "beta")),
    Case("custom-scope", "", FOUR, name="(top level)"),
    Case("custom-scope", "norm3/", named("moving_mean", "moving_variance", "scale", "offset")),
    Case("custom-scope", "norm3/", named("moving_mean", "moving_variance", "scale", "shift")),
    # darkflow, whose beta is the biases
    Case("darkflow", "28-convolutional/", {**FOUR, "beta": "biases"}),
    Case("darkflow", "yolo/3-conv-select/", {**FOUR, "beta": "biases"}),
    Case("custom-scope", "28-convolution/", without(FOUR, "beta"),
         besides=("28-convolution/biases",)),
    # TensorLayer 1
    Case("tensorlayer-1", "batchnorm_layer/", FOUR),
    Case("tensorlayer-1", "generator/batchnorm_layer_2/", without(FOUR, "gamma")),
    # Sonnet 2, by attributes and by the names of variables
    Case("sonnet-2", "module/bn/", SONNET_2, format=OBJECT,
         helpers=sonnet_2_helpers("module/bn/", "_hidden", "_counter")),
    Case("sonnet-2", "bn/", without(SONNET_2, "gamma"), format=OBJECT,
         helpers=sonnet_2_helpers("bn/", "hidden", "counter")),
    # Flax, by the names that its reader gives
    Case("flax", "Block_0/BatchNorm_0/", FLAX, format="orbax"),
    Case("flax", "bn/", without(FLAX, "gamma", "beta"), format="orbax"),
    *(Case("flax", "norm/", named(f"{word}_mean", f"{word}_{variance}", gamma), format="orbax")
      for word in ("running", "moving") for variance in ("var", "variance")
      for gamma in ("gamma", "scale")),
    Case("haiku", "net/batch_norm_1/", HAIKU, format="orbax"),
    Case("haiku", "net/bn/", HAIKU, format="orbax"),
    # compare_gan; a conditional layer computes gamma and beta
    Case("compare_gan", "generator/B1/batch_norm/", ACCUMULATED,
         helpers=accumulators("generator/B1/batch_norm/")),
    Case("compare_gan", "g/cbn/", without(ACCUMULATED, "gamma", "beta"),
         helpers=accumulators("g/cbn/"),
         besides=("g/cbn/condition/gamma/kernel", "g/cbn/condition/beta/kernel")),
    # averages of the batch's moments
    Case("moments-ema", "conv1/bn/", averaged(scope="conv1/bn/")),
    Case("moments-ema", "bn/", averaged("moments_1/mean", "moments_1/variance", "bn/")),
    Case("moments-ema", "bn/", averaged("mean", "variance", "bn/", beta="beat")),
    Case("moments-ema", "bn/", averaged("mean", "variance", "bn/bn_1/", gamma="scale")),
    Case("moments-ema", "net/bn/", averaged(scope="net_1/bn/", beta="offset")),
    Case("moments-ema", "x/bn/", averaged("moments_1/mean", "moments_1/variance")),
    Case("moments-ema", "x/bn/", averaged("mean", "variance", gamma="scale", beta="shift")),
    Case("moments-ema", "bn/", averaged()),
    Case("moments-ema", "a/bn/", without(averaged(), "gamma", "beta")),
    Case("moments-ema", "a/bn/", without(averaged(scope="a/bn/"), "gamma", "beta")),
    Case("moments-ema", "", averaged(), name="(top level)"),
    Case("moments-ema", "", averaged("mean", "variance"), name="(top level)"),
    Case(
        "moments-ema",
        "bn/",
        averaged(scope="bn/"),
        helpers={
            "moments/Squeeze/ExponentialMovingAverage/biased":
                "bn/bn/bn/moments/Squeeze/ExponentialMovingAverage/biased"
        },
    ),
    # TensorFlow's object detection API
    Case("tf.layers", "FeatureExtractor/freezable_batch_norm_3/", FOUR),
    # hand-written
    Case("hand-written", "bn/", named("pop_mean", "pop_var", "scale", "beat")),
    Case("hand-written", "bn1/", named("moving_mean", "moving_var")),
    Case("hand-written", "conv/bn/", named("pop_mean", "pop_var", "scale", "beta")),
    Case("hand-written", "conv/bn/", named("pop_mean", "pop_variance", "scale", "offset")),
    Case("hand-written", "fc/", named("running_mean", "running_var", "gamma", "shift")),
    Case("hand-written", "fc/", named("running_mean", "running_variance")),
    Case("hand-written", "bn/", named("running_mean:0", "running_var:0"), format=HDF5),
    # Keras 1
    Case("keras-1", "bn1/bn1", keras_1(""), "bn1", HDF5),
    Case("keras-1", "batchnormalization_2/batchnormalization_2", keras_1(":0"),
         "batchnormalization_2", HDF5),
    Case("keras-1", "bn_0_freq/bn_0_freq", keras_1("_1:0"), "bn_0_freq", HDF5),
    Case("keras-1", "bn1/bn1", keras_1(":0", "_1:0"), "bn1", HDF5),
    Case("keras-1", "ConvBNElu_5layer/batchnormalization_2", keras_1("_1:0"),
         "ConvBNElu_5layer/batchnormalization_2", HDF5),
    Case("keras-1", "model_weights/outer/model_1/bn1", keras_1(""), "outer/model_1/bn1", HDF5),
    Case("keras-1", "bn1", keras_1("")),
    Case("keras-1", "bn/", named("running_mean", "running_std")),
    # Keras 2 and 3
    Case("keras", "model_weights/bn1/bn1/", HDF5_FOUR, "bn1", HDF5),
    Case("keras", "bn1/bn1/", FOUR, "bn1", HDF5),
    Case("keras", "net/norm/", FOUR | {"gamma": "scale", "beta": "offset"}, "net/norm", HDF5),
    Case("keras", "net/norm/", FOUR | {"beta": "shift"}, "net/norm", HDF5),
    Case("keras", "model_weights/td/td/tdbn/", FOUR, "td/tdbn", HDF5),
    Case("keras", "model_weights/decoder/batch_normalization_3/", HDF5_FOUR,
         "decoder/batch_normalization_3", HDF5),
    Case("keras", "batch_normalization_1/batch_normalization_1_1/", HDF5_FOUR,
         "batch_normalization_1/batch_normalization_1_1", HDF5),
    Case("keras", "norm3/norm3/", without(HDF5_FOUR, "gamma"), "norm3", HDF5),
    Case("keras", "norm3/norm3/", without(HDF5_FOUR, "gamma", "beta"), "norm3", HDF5),
    # with renorm, old and new
    Case(
        "tf.layers",
        "batch_normalization/",
        FOUR,
        helpers={
            leaf: f"batch_normalization/{leaf}"
            for stem in ("renorm_mean", "renorm_stddev")
            for leaf in (stem, f"{stem}_weight")
        },
    ),
    Case(
        "keras",
        "bn/bn/",
        HDF5_FOUR,
        "bn",
        HDF5,
        {leaf: f"bn/bn/{leaf}:0" for leaf in ("moving_stddev", "renorm_mean", "renorm_stddev")},
    ),
    # with zero-debias, which says the whole scope twice
    Case(
        "slim",
        "net/conv1/BatchNorm/",
        without(FOUR, "gamma"),
        helpers={
            f"moving_mean/{leaf}": f"net/conv1/BatchNorm/net/conv1/BatchNorm/moving_mean/{leaf}"
            for leaf in ("biased", "local_step")
        },
    ),
    Case(
        "custom-scope",
        "a/a/",
        FOUR,
        helpers={
            f"{role}/{leaf}": f"a/a/a/a/{role}/{leaf}"
            for role in ("moving_mean", "moving_variance")
            for leaf in ("biased", "local_step")
        },
    ),
    Case(
        "hand-written",
        "bn/",
        named("pop_mean", "pop_var"),
        helpers={"pop_var/biased": "bn/bn/pop_var/biased"},
    ),
    Case(
        "custom-scope",
        "",
        FOUR,
        name="(top level)",
        helpers={"moving_mean/biased": "moving_mean/biased"},
    ),
    Case("hand-written", "layer1/", named("mean", "variance")),
    Case("hand-written", "layer1/", without(named("mean", "variance", "scale", "offset"), "gamma")),
    Case("hand-written", "net/bn/", named("mean", "var", "scale", "offset")),
    Case("hand-written", "bn/", named("mean:0", "var:0", "gamma:0", "beta:0"), format=HDF5),
]  # fmt: skip


def names_of(layers):
    return [layer.name for layer in layers]


def described(layers):
    """Everything about layers that their variables decide, in a form to compare."""
    return [
        (
            layer.name,
            layer.family,
            {role: variable.name for role, variable in layer.variables.items()},
            {name: variable.name for name, variable in layer.helpers.items()},
        )
        for layer in layers
    ]


def case_id(case):
    return f"{case.family}:{case.names()[0]}"


# --- Families -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_layer_is_found_by_the_names_of_its_variables(case):
    # The variables are `unread`: finding layers must not read values.
    layers = find_layers(checkpoint(case.names(), format=case.format))
    assert described(layers) == [
        (
            case.layer_name(),
            case.family,
            {role: case.scope + name for role, name in case.stored.items()},
            case.helpers,
        )
    ]
    zero_debiased = any(
        name.endswith(("/biased", "/local_step", "hidden")) for name in case.helpers
    )
    assert layers[0].zero_debiased == zero_debiased


def test_every_row_of_the_table_has_a_case():
    assert {case.family for case in CASES} == {row.name for row in FAMILIES}


def test_every_name_in_the_table_has_a_case():
    used = {
        (case.family, role, re.sub(r"(_\d+)?(:0)?$", "", name).removeprefix("_"))
        for case in CASES
        for role, name in case.stored.items()
    }
    missing = {
        (row.name, role, leaf) for row in FAMILIES for role in ROLES for leaf in row.leaves[role]
    } - used
    # A hand-written mean or variance of the framework's name goes with any of the others.
    assert missing == {("hand-written", "moving_variance", "moving_variance")}


def test_hand_written_names_may_be_mixed():
    for mean in ("moving_mean", "running_mean", "pop_mean"):
        for variance in ("moving_var", "running_var", "pop_var", "moving_variance"):
            [layer] = find_layers(checkpoint([f"bn/{mean}", f"bn/{variance}"]))
            assert set(layer.variables) == {"moving_mean", "moving_variance"}


@pytest.mark.parametrize(
    ("family", "initial", "offset", "epsilon"),
    [
        ("keras", {}, 0.0, 1e-3),
        ("keras-1", {}, 0.0, 1e-3),
        ("tensorpack", {}, 0.0, 1e-5),
        ("lingvo", {"gamma": (0.0,)}, 1.0, 1e-3),
        ("sonnet-2", {"moving_variance": (0.0,)}, 0.0, 1e-5),
        ("compare_gan", {"moving_variance": (0.0,)}, 0.0, 1e-3),
        ("flax", {}, 0.0, 1e-5),
        ("moments-ema", {"moving_variance": (0.0,)}, 0.0, 1e-3),
        ("tensorlayer-1", {"gamma": ()}, 0.0, 1e-5),
        ("darkflow", {"gamma": (), "beta": ()}, 0.0, 1e-5),
        ("slim", {}, 0.0, 1e-3),
        ("tf.layers", {}, 0.0, 1e-3),
        ("sonnet-1", {}, 0.0, 1e-3),
        ("tflearn", {"gamma": ()}, 0.0, 1e-5),
        ("tensorlayer", {"gamma": (), "moving_variance": (1.0, 0.0)}, 0.0, 1e-5),
        ("custom-scope", {}, 0.0, 1e-3),
        ("hand-written", {"moving_variance": (1.0, 0.0)}, 0.0, 1e-3),
    ],
)
def test_what_a_family_starts_from(family, initial, offset, epsilon):
    case = next(case for case in CASES if case.family == family)
    [layer] = find_layers(checkpoint(case.names(), format=case.format))
    usual = {"gamma": (1.0,), "beta": (0.0,), "moving_mean": (0.0,), "moving_variance": (1.0,)}
    assert layer.initial == usual | initial
    assert (layer.gamma_offset, layer.usual_epsilon) == (offset, epsilon)
    assert (layer.momentum, layer.epsilon, layer.keras) == (None, None, None)


@pytest.mark.parametrize("shape", [(7,), (1, 1, 1, 7), (1, 1, 1, 1, 7), (1, 7), (7, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_channels_and_type(shape, dtype):
    variables = {f"bn/{role}": unread(f"bn/{role}", shape, dtype) for role in ROLES}
    [layer] = find_layers(checkpoint(variables))
    assert (layer.channels, layer.dtype) == (7, dtype)


@pytest.mark.parametrize("dtype", ["string", "bool", "complex64", "resource", "variant"])
def test_members_are_numbers(dtype):
    variables = {f"bn/{role}": unread(f"bn/{role}") for role in ROLES}
    variables["bn/beta"] = unread("bn/beta", dtype=dtype)
    [layer] = find_layers(checkpoint(variables))
    assert set(layer.variables) == {"gamma", "moving_mean", "moving_variance"}
    for role in ("moving_mean", "moving_variance"):
        variables[f"bn/{role}"] = unread(f"bn/{role}", dtype=dtype)
        with pytest.raises(Unsupported, match="no numbers"):
            find_layers(checkpoint(variables))
    # … in a scope that proves BN too
    assert find_layers(checkpoint({"BatchNorm/gamma": unread("", dtype=dtype)})) == []


# --- Statistics that are not stored ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "family"),
    [
        ("BatchNorm", "slim"),
        ("enet/BatchNorm_83", "slim"),
        ("batch_normalization", "tf.layers"),
        ("tpu_batch_normalization_2", "tf.layers"),
        ("freezable_batch_norm_1", "tf.layers"),
        ("batch_norm_1", "sonnet-1"),
        ("BatchNormalization_4", "tflearn"),
    ],
)
@pytest.mark.parametrize("roles", [["gamma", "beta"], ["beta"], ["gamma"], ["moving_mean"]])
def test_a_scope_that_proves_bn_needs_no_statistics(scope, family, roles):
    layers = find_layers(checkpoint(f"{scope}/{role}" for role in roles))
    assert described(layers) == [(scope, family, {r: f"{scope}/{r}" for r in roles}, {})]


def test_a_family_with_one_statistic_comes_before_a_scope_that_proves_another():
    [layer] = find_layers(checkpoint(["batch_norm/gamma", "batch_norm/moving_var"]))
    assert (layer.family, set(layer.variables)) == ("tensorlayer", {"gamma", "moving_variance"})


@pytest.mark.parametrize("affine", ["gamma", "beta"])
@pytest.mark.parametrize("statistic", ["moving_mean", "moving_variance"])
def test_one_statistic_with_gamma_or_beta_is_a_layer(statistic, affine):
    [layer] = find_layers(checkpoint([f"bn/{statistic}", f"bn/{affine}"]))
    assert set(layer.variables) == {statistic, affine}
    [layer] = find_layers(checkpoint([f"bn/{statistic}:0", f"bn/{affine}:0"], format=HDF5))
    assert set(layer.variables) == {statistic, affine}


@pytest.mark.parametrize("format_", ["tf-v2", HDF5])
@pytest.mark.parametrize(
    "leaf", ["moving_mean", "moving_variance", "pop_mean", "running_var", "moving_var"]
)
def test_one_statistic_alone_is_none(leaf, format_):
    assert find_layers(checkpoint([f"net/{leaf}"], format=format_)) == []


# --- Look-alikes ----------------------------------------------------------------------------------

OPTIMIZER_SLOTS = (
    "Momentum",
    "Adam",
    "Adam_1",
    "RMSProp",
    "RMSProp_1",
    "Adagrad",
    "Adadelta",
    "Adadelta_1",
    "Ftrl",
    "Ftrl_1",
    "GradientDescent",
    "LARSOptimizer",
    "AdamWeightDecayOptimizer",
    "adam_m",
    "adam_v",
)
EMA_SHADOWS = ("ExponentialMovingAverage", "ExponentialMovingAverage_1", "avg", "ema")

LOOK_ALIKES = {
    "layer norm": ["LayerNorm/gamma", "LayerNorm/beta"],
    "group norm": ["GroupNorm_1/gamma", "GroupNorm_1/beta"],
    "instance norm": ["InstanceNorm/gamma", "InstanceNorm/beta"],
    "layer norm at top level": ["gamma", "beta"],
    "layer norm in a scope of its own": ["encoder/ln/gamma", "encoder/ln/beta"],
    "tensor2tensor layer norm": [
        "layer_prepostprocess/layer_norm/layer_norm_scale",
        "layer_prepostprocess/layer_norm/layer_norm_bias",
    ],
    "tensor2tensor l2 norm": ["l2_norm_scale", "l2_norm_bias"],
    "tensor2tensor group norm": ["block/group_norm_scale", "block/group_norm_bias"],
    "scale and offset": ["bn/scale", "bn/offset"],
    "dense": ["dense/kernel", "dense/bias"],
    "spectral norm": ["conv/kernel", "conv/u", "conv/vector_u", "d_conv1/u_var"],
    "weight norm": ["conv/v", "conv/g", "conv/b"],
    "keras 3 normalization": ["n/adapt_mean", "n/adapt_variance", "n/count"],
    "keras normalization": ["normalization/mean", "normalization/variance", "normalization/count"],
    "rl input normalizer": [
        "obfilter/running_mean",
        "obfilter/running_var",
        "obfilter/count",
    ],
    "rl input normalizer with a std": [
        "obfilter/running_mean",
        "obfilter/running_std",
        "obfilter/count",
    ],
    "rl input normalizer with moving names": [
        "norm/moving_mean",
        "norm/moving_variance",
        "norm/count",
    ],
    "openai baselines": ["pi/obfilter/runningsum", "pi/obfilter/runningsumsq", "pi/obfilter/count"],
    "running mean and std of returns": ["ret_rms/mean", "ret_rms/std", "ret_rms/count"],
    "openai baselines running mean": ["ob_rms/mean", "ob_rms/std", "ob_rms/count"],
    "metric": ["accuracy/total", "accuracy/count"],
    "zero-debias helpers alone": [
        "BatchNorm/BatchNorm/moving_mean/biased",
        "BatchNorm/BatchNorm/moving_mean/local_step",
        "biased",
        "local_step",
    ],
    "renorm helpers alone": ["bn/moving_stddev", "bn/renorm_mean", "bn/renorm_stddev"],
    "slots alone": [f"bn/{role}/{slot}" for role in ROLES for slot in OPTIMIZER_SLOTS],
    "EMA shadows alone": [f"bn/{role}/{shadow}" for role in ROLES for shadow in EMA_SHADOWS],
    "vector quantizer": ["vq/ema_cluster_size", "vq/ema_dw", "vq/embeddings"],
    "Sonnet 2 vector quantizer": [
        f"vq/ema_{statistic}/{leaf}"
        for statistic in ("cluster_size", "dw")
        for leaf in ("average", "_hidden", "_counter")
    ],
    "compare_gan's counters alone": ["bn/accu/accu_counter", "bn/accu/update_accus", "bn/gamma"],
    "an average of one moment": ["loss/moments/Squeeze/ExponentialMovingAverage"],
    "averages of other values": [
        "loss/Squeeze/ExponentialMovingAverage",
        "loss/Squeeze_1/ExponentialMovingAverage",
        "total_loss/mean/ExponentialMovingAverage",
        "total_loss/variance/ExponentialMovingAverage",
    ],
    "darkflow without BN": ["3-convolutional/kernel", "3-convolutional/biases"],
    "conditional gamma and beta": ["sbn/gamma/kernel", "sbn/beta/kernel"],
    "Lingvo layer norm": ["ln/scale/var", "ln/bias/var", "ln/beta/var"],
    "one EMA of a loss": ["loss/mean/EMA", "loss/EMA"],
    "mean and variance alone": ["latent/mean", "latent/variance"],
    "a mean with a scale": ["prior/mean", "prior/scale"],
    "counted mean and variance": ["n/mean", "n/var", "n/count", "n/scale", "n/offset"],
    "averages of mean and variance": [
        f"loss/{leaf}/ExponentialMovingAverage" for leaf in ("mean", "variance", "scale")
    ],
    "layers called mean and variance": ["mean/kernel", "variance/kernel", "gamma", "scale/kernel"],
    "names in the middle": ["moving_mean/moving_variance/kernel", "moving_variance/moving_mean/w"],
    "longer names": ["bn/moving_means", "bn/moving_variances", "bn/my_moving_mean"],
    "statistics of different scopes": ["a/moving_mean", "b/moving_variance"],
}
HDF5_LOOK_ALIKES = {
    "layer norm": ["layer_normalization/layer_normalization/gamma:0",
                   "layer_normalization/layer_normalization/beta:0"],
    "batch norm without statistics": ["batch_normalization/batch_normalization/gamma:0",
                                      "batch_normalization/batch_normalization/beta:0"],
    "normalization": ["normalization/mean:0", "normalization/variance:0", "normalization/count:0"],
    "normalizer": ["n/moving_mean:0", "n/moving_variance:0", "n/count:0"],
    "Keras 1 gamma and beta": ["ln_1/ln_1_gamma", "ln_1/ln_1_beta"],
    "tensorpack": ["bn/mean/EMA", "bn/variance/EMA"],
    "accumulators": ["bn/accu/accu_mean", "bn/accu/accu_variance"],
    "spectral normalization": ["sn/sn/vector_u:0", "sn/sn/kernel:0"],
}  # fmt: skip


@pytest.mark.parametrize("names", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_look_alikes_are_no_layers(names):
    assert find_layers(checkpoint(names)) == []


@pytest.mark.parametrize("names", HDF5_LOOK_ALIKES.values(), ids=HDF5_LOOK_ALIKES)
def test_look_alikes_in_hdf5_are_no_layers(names):
    assert find_layers(checkpoint(names, format=HDF5)) == []


@pytest.mark.parametrize(
    "shapes",
    [
        {"mean": (3,), "variance": (3,), "gamma": (4,)},
        {"mean": (3,), "variance": (2,), "gamma": (3,), "beta": (3,)},
        {"mean": (3, 4), "variance": (3, 4), "gamma": (3, 4)},
        {"mean": (), "variance": (3,), "gamma": (3,)},
    ],
)
def test_names_that_prove_nothing_need_members_of_one_length(shapes):
    def found(some):
        return find_layers(checkpoint({f"x/{k}": unread(f"x/{k}", v) for k, v in some.items()}))

    assert found(shapes) == []
    assert len(found(dict.fromkeys(shapes, (3,)))) == 1
    assert len(found(dict.fromkeys(shapes, (1, 1, 1, 3)))) == 1


def test_a_sonnet_2_layer_without_averages_has_no_values():
    names = ["bn/scale", "bn/offset", *sonnet_2_helpers("bn/", "_hidden", "_counter").values()]
    assert find_layers(checkpoint(names, format=OBJECT)) == []


@pytest.mark.parametrize(
    "leaves",
    [
        ("moving_mean", "moving_variance"),
        ("running_mean", "running_var"),
        ("moments/Squeeze/ExponentialMovingAverage", "moments/Squeeze_1/ExponentialMovingAverage"),
    ],
)
def test_running_moments_of_one_number_are_no_layer(leaves):
    scalars = {f"x/{leaf}": unread(f"x/{leaf}", ()) for leaf in leaves}
    assert find_layers(checkpoint(scalars)) == []
    # … but those of one channel are.
    one_channel = {name: unread(name, (1,)) for name in scalars}
    assert len(find_layers(checkpoint(one_channel))) == 1
    assert len(find_layers(checkpoint({**scalars, "x/gamma": unread("x/gamma", ())}))) == 1


def test_shadows_of_variables_called_moments_are_no_averages_of_moments():
    names = ["n/moments/mean", "n/moments/variance"]
    shadows = [f"{name}/ExponentialMovingAverage" for name in names]
    assert find_layers(checkpoint([*names, *shadows])) == []


def test_averages_of_moments_in_one_scope_are_layers_of_their_own():
    # Without scopes TensorFlow numbers the operations; built twice, it numbers the scope.
    for first, second in (("moments", "moments_1"), ("bn/bn/moments", "bn/bn_1/moments")):
        names = [
            f"{moments}/{value}/ExponentialMovingAverage"
            for value in ("Squeeze", "Squeeze_1")
            for moments in (second, first)
        ]
        found = [
            set(variables.values())
            for _, _, variables, _ in described(find_layers(checkpoint([*names, "bn/gamma"])))
        ]
        for moments in (first, second):
            assert {name for name in names if name.startswith(f"{moments}/")} in [
                variables - {"bn/gamma"} for variables in found
            ]
        assert len(found) == 2


@pytest.mark.parametrize("path", ["", "net/"])
def test_averages_of_moments_go_with_gamma_and_beta_of_their_number(path):
    names = [
        f"{path}{name}"
        for number in ("", "_1", "_12")
        for name in (
            f"gamma{number}",
            f"beta{number}",
            f"moments{number}/Squeeze/ExponentialMovingAverage",
            f"moments{number}/Squeeze_1/ExponentialMovingAverage",
        )
    ]
    layers = find_layers(checkpoint(names))
    assert {tuple(v.name for v in layer.variables.values()) for layer in layers} == {
        tuple(names[start : start + 4]) for start in (0, 4, 8)
    }
    assert {layer.name for layer in layers} == {
        path.rstrip("/") or "(top level)",
        f"{path}moments_1",
        f"{path}moments_12",
    }


def test_averages_of_moments_without_gamma_do_not_take_that_of_another_layer():
    names = [*averaged(scope="x/bn/").values()][2:]
    [layer, other] = find_layers(checkpoint([*names, "x/gamma", "x/moving_mean"]))
    assert (layer.name, set(layer.variables)) == ("x", {"gamma", "moving_mean"})
    assert (other.name, set(other.variables)) == ("x/bn", {"moving_mean", "moving_variance"})


@pytest.mark.parametrize("name", ["batch_norm/accu/other", "batch_norm/batch_norm/moments/other"])
def test_averages_by_unknown_names_are_no_missing_statistics(name):
    members = ["batch_norm/gamma", "batch_norm/beta"]
    assert len(find_layers(checkpoint(members))) == 1
    assert find_layers(checkpoint([*members, name])) == []


def test_accumulated_moments_are_divided_by_their_count():
    sums = {"bn/accu/accu_mean": [1.0, -2.0], "bn/accu/accu_variance": [8.0, 0.5]}
    for count, mean, variance in (
        (4.0, [0.25, -0.5], [2.0, 0.125]),
        (1.0, *sums.values()),
    ):
        counter = variable("bn/accu/accu_counter", count, "float32")
        [layer] = find_layers(checkpoint({**sums, "bn/accu/accu_counter": counter}))
        assert layer.variables["moving_mean"].read().tolist() == mean
        assert layer.variables["moving_variance"].read().tolist() == variance


def test_accumulators_that_were_never_filled_are_exactly_0():
    variables = {
        "bn/accu/accu_mean": np.zeros(3, "f4"),
        "bn/accu/accu_variance": np.zeros(3, "f4"),
        "bn/accu/accu_counter": np.float32(1e-12),
    }
    [layer] = find_layers(checkpoint(variables))
    for role in ("moving_mean", "moving_variance"):
        assert layer.variables[role].read().tobytes() == bytes(12)


def test_a_count_that_is_no_number_divides_nothing():
    variables = {
        "bn/accu/accu_mean": np.ones(3, "f4"),
        "bn/accu/accu_variance": np.ones(3, "f4"),
        "bn/accu/accu_counter": unread("bn/accu/accu_counter", (1000, 1000)),
    }
    [layer] = find_layers(checkpoint(variables))
    assert layer.variables["moving_mean"].read().tolist() == [1.0, 1.0, 1.0]


def test_a_count_beside_gamma_is_no_normalizer():
    # Some hand-written layers count their updates.
    names = ["bn/moving_mean", "bn/moving_variance", "bn/gamma", "bn/count"]
    assert names_of(find_layers(checkpoint(names))) == ["bn"]


@pytest.mark.parametrize("extra", [*OPTIMIZER_SLOTS, *EMA_SHADOWS])
@pytest.mark.parametrize("scope", ["net/BatchNorm/", "conv/bn/", ""])
def test_slots_and_shadows_are_no_second_layer(scope, extra):
    # facenet trains its moving averages, so they have slots too.
    members = [scope + role for role in ROLES]
    extras = [f"{member}/{extra}" for member in members]
    alone = described(find_layers(checkpoint(members)))
    assert described(find_layers(checkpoint([*extras, *members]))) == alone
    assert len(alone) == 1


@pytest.mark.parametrize("scope", ["net/BatchNorm/", "conv/bn/", ""])
@pytest.mark.parametrize("around", ["", "train/"])
def test_the_shadows_of_statistics_belong_to_their_layer(scope, around):
    members = [scope + role for role in ROLES]
    shadows = {role: f"{around}{scope}{role}/ExponentialMovingAverage" for role in ROLES}
    [layer] = find_layers(checkpoint([*shadows.values(), *members]))
    assert {role: variable.name for role, variable in layer.shadows.items()} == {
        role: shadows[role] for role in ("moving_mean", "moving_variance")
    }


def test_a_shadow_of_an_average_of_moments_belongs_to_its_layer():
    names = [f"bn/moments/{name}/ExponentialMovingAverage" for name in ("Squeeze", "Squeeze_1")]
    [layer] = find_layers(checkpoint([*names, f"{names[0]}/ExponentialMovingAverage"]))
    assert list(layer.shadows) == ["moving_mean"]


def test_look_alikes_beside_a_layer_do_not_change_it():
    members = [f"net/bn/{role}" for role in ROLES]
    others = [
        f"net/{name}" for names in LOOK_ALIKES.values() for name in names if "bn/" not in name
    ]
    layers = find_layers(checkpoint([*others, *members]))
    assert described(layers) == described(find_layers(checkpoint(members)))


# --- Helpers --------------------------------------------------------------------------------------


def test_helpers_go_to_the_layer_with_the_longest_scope():
    members = [f"{scope}/{role}" for scope in ("b", "a/b") for role in ROLES]
    helper = "a/b/a/b/moving_mean/biased"
    layers = find_layers(checkpoint([helper, *members]))
    assert [(layer.name, list(layer.helpers)) for layer in layers] == [
        ("a/b", ["moving_mean/biased"]),
        ("b", []),
    ]


def test_helpers_of_a_statistic_that_is_not_stored_belong_to_none():
    names = ["bn/gamma", "bn/moving_mean", "bn/bn/moving_variance/biased"]
    [layer] = find_layers(checkpoint(names))
    assert layer.helpers == {}


def test_helpers_of_other_variables_belong_to_none():
    # Adam keeps nothing below gamma by that name, but a moving average of the weights does.
    names = [*(f"bn/{role}" for role in ROLES), "bn/bn/gamma/biased", "bn/local_step"]
    [layer] = find_layers(checkpoint(names))
    assert layer.helpers == {}
    assert not layer.zero_debiased


# --- Names and order ------------------------------------------------------------------------------


def with_members(*scopes, format="tf-v2"):  # noqa: A002
    names = [f"{scope}/{role}" for scope in scopes for role in ROLES]
    return checkpoint(names, format=format)


def test_layers_of_a_tensorflow_checkpoint_are_sorted_as_people_count():
    scopes = ["bn_10", "bn_2", "bn", "block_1/unit_10/bn", "block_1/unit_9/bn", "bn_1", "block/bn"]
    assert names_of(find_layers(with_members(*scopes))) == [
        "block/bn",
        "block_1/unit_9/bn",
        "block_1/unit_10/bn",
        "bn",
        "bn_1",
        "bn_2",
        "bn_10",
    ]


def test_numbers_and_words_in_one_place_can_be_sorted():
    assert names_of(find_layers(with_members("bn", "2", "10", "1a", "a1"))) == [
        "1a",
        "2",
        "10",
        "a1",
        "bn",
    ]


def test_layers_of_hdf5_keep_the_order_of_the_network():
    scopes = ["z/z", "bn_10/bn_10", "bn_2/bn_2", "a/a"]
    layers = find_layers(with_members(*scopes, format=HDF5))
    assert names_of(layers) == ["z", "bn_10", "bn_2", "a"]


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("bn1/bn1", "bn1"),
        ("model_weights/bn1/bn1", "bn1"),
        ("model_weights/bn1", "bn1"),
        ("bn1/bn1/bn1", "bn1"),
        ("outer/bn1/bn1", "outer/bn1"),
        ("outer/bn1/outer/bn1", "outer/bn1"),
        ("bn1/bn1_1", "bn1/bn1_1"),
        ("my_model_weights/bn1", "my_model_weights/bn1"),
        ("outer/model_weights/bn1", "outer/model_weights/bn1"),
    ],
)
def test_a_name_said_twice_in_hdf5_is_said_once(scope, name):
    assert names_of(find_layers(with_members(scope, format=HDF5))) == [name]


def test_a_name_said_twice_in_a_tensorflow_checkpoint_is_two_scopes():
    assert names_of(find_layers(with_members("bn/bn", "model_weights/bn"))) == [
        "bn/bn",
        "model_weights/bn",
    ]


def test_layers_that_would_show_the_same_name_show_their_scopes():
    scopes = ["bn/bn", "other/other", "bn", "model_weights/x/x", "x"]
    layers = find_layers(with_members(*scopes, format=HDF5))
    assert names_of(layers) == ["bn/bn", "other", "bn", "model_weights/x/x", "x"]


def test_the_index_of_an_output_is_no_part_of_a_name():
    [layer] = find_layers(checkpoint([f"bn/{role}:0" for role in ROLES]))
    assert layer.name == "bn"
    assert find_layers(checkpoint([f"bn/{role}:zero" for role in ROLES])) == []


# --- Patterns of the user -------------------------------------------------------------------------


def found_with(patterns, names, format="tf-v2"):  # noqa: A002
    config = make_config(patterns=patterns)
    return [
        (name, variables)
        for name, _, variables, _ in described(
            find_layers(checkpoint(names, format=format), config.patterns)
        )
    ]


AVERAGES = ["moving_mean=avg_mean$", "moving_variance=avg_var$"]


@pytest.mark.parametrize("format_", ["tf-v2", HDF5])
def test_a_pattern_finds_names_that_no_family_has(format_):
    names = ["net/bn/avg_mean", "net/bn/avg_var", "net/fc/weights"]
    assert found_with([], names, format_) == []
    assert found_with(AVERAGES, names, format_) == [
        ("net/bn", {"moving_mean": "net/bn/avg_mean", "moving_variance": "net/bn/avg_var"})
    ]


def test_a_pattern_goes_together_with_gamma_and_beta_of_usual_names():
    names = ["net/bn/gamma", "net/bn/beta", "net/bn/avg_mean", "net/bn/avg_var"]
    assert found_with(AVERAGES, names) == [
        ("net/bn", dict(zip(ROLES, names, strict=True))),
    ]


def test_a_pattern_goes_together_with_a_statistic_of_the_usual_name():
    names = ["bn/moving_mean", "bn/avg_var"]
    assert found_with(AVERAGES, names) == [
        ("bn", {"moving_mean": "bn/moving_mean", "moving_variance": "bn/avg_var"})
    ]


def test_patterns_for_all_four():
    patterns = ["gamma=/g$", "beta=/b$", "moving_mean=/m$", "moving_variance=/v$"]
    names = ["x/g", "x/b", "x/m", "x/v", "y/g", "y/b"]
    assert found_with(patterns, names) == [("x", dict(zip(ROLES, names, strict=False)))]


def test_the_layer_is_what_the_group_says():
    patterns = [
        r"moving_mean=^stats/(?P<layer>.+)/m$",
        r"moving_variance=^stats/(?P<layer>.+)/v$",
    ]
    names = ["stats/conv1/m", "stats/conv1/v", "conv1/gamma", "conv1/beta"]
    assert found_with(patterns, names) == [
        (
            "conv1",
            {
                "gamma": "conv1/gamma",
                "beta": "conv1/beta",
                "moving_mean": "stats/conv1/m",
                "moving_variance": "stats/conv1/v",
            },
        )
    ]


def test_a_group_that_takes_no_part_is_as_none():
    patterns = [r"moving_mean=((?P<layer>x)|_)m$", r"moving_variance=_v$"]
    assert names_of_found(patterns, ["net/bn_m", "net/bn_v"]) == ["net/bn"]


def names_of_found(patterns, names):
    return [name for name, _ in found_with(patterns, names)]


@pytest.mark.parametrize("separator", ["/", "_", ".", "/_."])
def test_the_separator_before_the_match_is_no_part_of_the_name(separator):
    names = [f"net/bn{separator}avg_mean", f"net/bn{separator}avg_var"]
    assert names_of_found(AVERAGES, names) == ["net/bn"]


def test_a_pattern_comes_before_the_table():
    names = ["bn/moving_mean", "bn/moving_variance", "bn/avg_mean"]
    crossed = ["moving_mean=avg_mean$", "gamma=moving_mean$"]
    assert found_with(crossed, names) == [
        (
            "bn",
            {
                "gamma": "bn/moving_mean",
                "moving_mean": "bn/avg_mean",
                "moving_variance": "bn/moving_variance",
            },
        )
    ]


def test_the_first_pattern_that_matches_wins():
    patterns = ["moving_mean=x$", "moving_variance=[xy]$"]
    expected = [("a", {"moving_mean": "a/x", "moving_variance": "a/y"})]
    assert found_with(patterns, ["a/x", "a/y"]) == expected
    assert found_with(patterns[::-1], ["a/x", "a/y"]) == []


def test_a_pattern_is_searched_in_the_whole_name():
    names = ["one/avg_mean/v", "one/avg_var/v"]
    patterns = ["moving_mean=avg_mean", "moving_variance=avg_var"]
    assert names_of_found(patterns, names) == ["one"]


# --- Properties -----------------------------------------------------------------------------------

LEAVES = {leaf for row in FAMILIES for leaves in row.leaves.values() for leaf in leaves}
ORDINARY = ["kernel", "bias", "weights", "w", "b", "total", "count", "u", "vector_u", "mean"]
ORDINARY += ["variance", "std", "Momentum", "Adam", "Adam_1", "ExponentialMovingAverage", "biased"]
ORDINARY += [
    "local_step",
    "global_step",
    "beta1_power",
    "EMA",
    "var",
    "moving_stddev",
    "renorm_mean",
]
SCOPES = ["BatchNorm", "batch_normalization_1", "batch_norm", "BatchNormalization", "LayerNorm"]
SCOPES += ["bn", "conv", "moving_mean", "moving_variance", "gamma", "beta", "model_weights"]


def is_known(name):
    """Whether the last parts of `name` are a leaf of any family."""
    parts = re.sub(r":\d+$", "", name).split("/")
    keras_1 = re.fullmatch(r".+_(gamma|beta|running_mean|running_std)(_\d+)?", parts[-1])
    return parts[-1] in LEAVES or "/".join(parts[-2:]) in LEAVES or keras_1 is not None


PART = st.sampled_from(SCOPES + ORDINARY) | st.text("abmn_:./0123", min_size=1, max_size=8)
NAMES = st.builds(
    lambda scopes, last, index: "/".join([*scopes, last]) + index,
    st.lists(PART, max_size=3),
    PART,
    st.sampled_from(["", ":0", ":1"]),
)


@given(st.lists(NAMES.filter(lambda name: not is_known(name)), max_size=12), st.booleans())
def test_variables_of_no_family_make_no_layer(names, hdf5):
    assert find_layers(checkpoint(names, format=HDF5 if hdf5 else "tf-v2")) == []


@given(
    st.sampled_from([case for case in CASES if case.format == "tf-v2"]),
    st.lists(
        st.tuples(st.sampled_from(ROLES), st.sampled_from(OPTIMIZER_SLOTS + EMA_SHADOWS)),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_slots_and_shadows_never_change_the_layers(case: Case, extras, rng: random.Random):
    members = {role: case.scope + name for role, name in case.stored.items()}
    added = [f"{members[role]}/{slot}" for role, slot in extras if role in members]
    names = [*case.names(), *added]
    rng.shuffle(names)
    with_extras = described(find_layers(checkpoint(names)))
    assert with_extras == described(find_layers(checkpoint(case.names())))


@given(st.lists(PART, max_size=4, unique=True), st.booleans())
def test_layers_have_names_of_their_own(scopes, hdf5):
    names = [f"{scope}/{role}" for scope in scopes for role in ROLES]
    layers = find_layers(checkpoint(names, format=HDF5 if hdf5 else "tf-v2"))
    assert len({layer.name for layer in layers}) == len(layers)
    assert len(layers) == len(scopes)


PATHS = ["", "bn/", "bn_1/", "bn/bn/", "bn/bn_1/", "a/bn/", "a/bn/a/bn/", "a/bn/a/bn_1/", "a_1/bn/"]
AVERAGES_OF_MOMENTS = [
    f"moments{again}/{value}/ExponentialMovingAverage{debias}"
    for again in ("", "_1")
    for value in ("Squeeze", "Squeeze_1", "mean", "variance", "moments_1/mean")
    for debias in ("", "/biased")
]
OTHERS = ["gamma", "beta", "gamma_1", "beta_1", "moments/mean", "accu/accu_mean", "moving_mean"]


@given(
    st.lists(
        st.builds(
            str.__add__, st.sampled_from(PATHS), st.sampled_from(AVERAGES_OF_MOMENTS + OTHERS)
        ),
        unique=True,
    ),
    st.randoms(use_true_random=False),
)
def test_a_variable_belongs_to_one_layer_whatever_the_order(names, rng):
    layers = described(find_layers(checkpoint(names)))
    owned = [
        name
        for _, _, variables, helpers in layers
        for name in [*variables.values(), *helpers.values()]
    ]
    assert len(owned) == len(set(owned))
    assert set(owned) <= set(names)
    rng.shuffle(names)
    assert described(find_layers(checkpoint(names))) == layers
