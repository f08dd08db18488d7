"""The naming families of BN variables, in one table.

Each row has the names that one framework, or one convention of public code, gives to the members of
a BN layer, and their initial values. To add a framework, add a row and a fixture. `name_groups`
groups variables by scope, `find_layers` applies the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from bninspect.frozen import frozen
from bninspect.model.roles import ROLES, Role

Group = dict[str, str]  # the last part of a variable's name → the name as stored

_ZERO, _ONE = (0.0,), (1.0,)
_ONE_OR_ZERO = (1.0, 0.0)
_RANDOM: tuple[float, ...] = ()


@frozen(eq=False)
class Family:
    """The names and initial values of the BN variables of one framework.

    `mean`, `variance`, `gamma` and `beta` list the possible last parts of names, most usual first.
    `scope` is an expression that the last part of the layer's name must match. `named_by` is the
    origin of such names: the graph, the object that owns the variables (HDF5, object-based), or the
    tree of a train state. Any is the graph or the object.
    `certain` says that the scope alone proves BN: then statistics that are not stored are missing
    (BN201), not absent by design. The initial values are those of the framework's `source`, most
    usual first; none where they are random. Inference multiplies by gamma + `gamma_offset`;
    `epsilon` is the framework's default. Where mean and variance are sums over batches, `counter`
    is the variable with the number of batches. `by_shape` says that the names alone prove nothing:
    such a layer has both statistics and gamma or beta, all of one length.
    """

    name: str
    source: str
    named_by: Literal["graph", "object", "tree", "any"] = "graph"
    scope: str = ".*"
    certain: bool = False
    mean: tuple[str, ...] = ("moving_mean",)
    variance: tuple[str, ...] = ("moving_variance",)
    gamma: tuple[str, ...] = ("gamma",)
    beta: tuple[str, ...] = ("beta",)
    gamma_initial: tuple[float, ...] = _ONE
    beta_initial: tuple[float, ...] = _ZERO
    variance_initial: tuple[float, ...] = _ONE
    gamma_offset: float = 0.0
    epsilon: float = 1e-3
    counter: str | None = None
    by_shape: bool = False
    leaves: Mapping[Role, tuple[str, ...]] = field(init=False, repr=False)
    initial: Mapping[Role, tuple[float, ...]] = field(init=False, repr=False)
    statistics: tuple[frozenset[str], frozenset[str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        leaves = dict(zip(ROLES, (self.gamma, self.beta, self.mean, self.variance), strict=True))
        initial = (self.gamma_initial, self.beta_initial, _ZERO, self.variance_initial)
        object.__setattr__(self, "leaves", leaves)
        object.__setattr__(self, "initial", dict(zip(ROLES, initial, strict=True)))
        object.__setattr__(self, "statistics", (frozenset(self.mean), frozenset(self.variance)))

    def members(self, group: Group) -> dict[Role, str]:
        """Return the members among the names of one scope."""
        return {
            role: group[leaf]
            for role in ROLES
            if (leaf := next((leaf for leaf in self.leaves[role] if leaf in group), None))
        }


# The first matching row wins, so a row with a scope of its own stands before a general one.
FAMILIES: tuple[Family, ...] = (
    Family(
        "keras",
        # … and modules of the user's own with the same attributes, or with scale and offset.
        "keras/layers/normalization/batch_normalization.py",
        named_by="object",
        gamma=("gamma", "scale"),
        beta=("beta", "offset", "shift"),
    ),
    Family(
        "keras",
        "keras/src/utils/naming.py: the default names of layers",
        named_by="object",
        scope=r"(.*_)?batch_normalization(_\d+)?",
        certain=True,
    ),
    Family(
        "flax",
        "flax/linen/module.py: the default names of layers",
        named_by="tree",
        scope=r"(Sync)?BatchNorm(_\d+)?",
        certain=True,
        mean=("mean",),
        variance=("var",),
        gamma=("scale",),
        epsilon=1e-5,
    ),
    Family(
        "flax",
        # The reader of train states finds the layers, and calls their bias beta.
        "flax/linen/normalization.py, flax/nnx/nn/normalization.py",
        named_by="tree",
        mean=("mean",),
        variance=("var",),
        gamma=("scale",),
        epsilon=1e-5,
    ),
    Family(
        "flax",
        # … and those that the user's patterns name.
        "modules of the user's own in JAX, with the names of other frameworks",
        named_by="tree",
        mean=("running_mean", "moving_mean"),
        variance=("running_var", "running_variance", "moving_var", "moving_variance"),
        gamma=("scale", "gamma"),
        variance_initial=_ONE_OR_ZERO,
        epsilon=1e-5,
    ),
    Family(
        "haiku",
        "haiku/_src/batch_norm.py: the default names of modules",
        named_by="tree",
        scope=r"batch_?norm(_\d+)?",
        certain=True,
        mean=("mean_ema/average",),
        variance=("var_ema/average",),
        gamma=("scale",),
        beta=("offset",),
        variance_initial=_ZERO,
        epsilon=1e-5,
    ),
    Family(
        "haiku",
        "haiku/_src/batch_norm.py, haiku/_src/moving_averages.py: debiased averages from 0",
        named_by="tree",
        mean=("mean_ema/average",),
        variance=("var_ema/average",),
        gamma=("scale",),
        beta=("offset",),
        variance_initial=_ZERO,
        epsilon=1e-5,
    ),
    Family(
        "keras-1",
        # keras/layers/normalization.py, keras/backend/*_backend.py, read in 1.0.0 to 1.2.2.
        # running_std holds a standard deviation up to 1.0.5 (on Theano up to 1.0.6), later a
        # variance. Whole models store their Keras version from 1.0.7 on: where a version is stored,
        # running_std is a variance.
        "Keras 1: keras/layers/normalization.py; running_std holds a variance from 1.0.7 on",
        named_by="any",
        mean=("running_mean",),
        variance=("running_std",),
    ),
    Family(
        "tensorpack",
        "tensorpack/models/batch_norm.py",
        mean=("mean/EMA",),
        variance=("variance/EMA",),
        epsilon=1e-5,
    ),
    Family(
        "sonnet-2",
        "sonnet/src/batch_norm.py, sonnet/src/moving_averages.py: debiased averages from 0",
        named_by="object",
        mean=("moving_mean/average",),
        variance=("moving_variance/average",),
        gamma=("scale",),
        beta=("offset",),
        variance_initial=_ZERO,
        epsilon=1e-5,
    ),
    Family(
        "compare_gan",
        "compare_gan/architectures/arch_ops.py: sums of moments, filled before evaluation",
        mean=("accu/accu_mean",),
        variance=("accu/accu_variance",),
        variance_initial=_ZERO,
        counter="accu/accu_counter",
    ),
    Family(
        "moments-ema",
        # TensorFlow 1.1 renamed what tf.nn.moments returns; with keep_dims it is not squeezed.
        "public code: an ExponentialMovingAverage of tf.nn.moments, which starts both at 0",
        mean=tuple(
            f"moments/{name}/ExponentialMovingAverage"
            for name in ("Squeeze", "moments_1/mean", "mean")
        ),
        variance=tuple(
            f"moments/{name}/ExponentialMovingAverage"
            for name in ("Squeeze_1", "moments_1/variance", "variance")
        ),
        gamma=("gamma", "scale"),
        beta=("beta", "beat", "offset", "shift"),
        variance_initial=_ZERO,
    ),
    Family(
        "lingvo",
        "lingvo/core/bn_layers.py: gamma is stored as the distance from 1",
        mean=("moving_mean/var",),
        variance=("moving_variance/var",),
        gamma=("gamma/var",),
        beta=("beta/var",),
        gamma_initial=_ZERO,
        gamma_offset=1.0,
    ),
    Family(
        "slim",
        "tensorflow/contrib/layers/python/layers/layers.py, tf_slim/layers/layers.py",
        scope=r"BatchNorm(_\d+)?",
        certain=True,
    ),
    Family(
        "tf.layers",
        "tensorflow/python/layers/normalization.py",
        # FreezableBatchNorm is that of TensorFlow's object detection API.
        scope=r"((tpu_|sync_)?batch_normalization(_v\d+)?|freezable_batch_norm)(_\d+)?",
        certain=True,
    ),
    Family(
        "sonnet-1",
        "sonnet/python/modules/batch_norm.py",
        scope=r"batch_norm(_\d+)?",
        certain=True,
    ),
    Family(
        "tflearn",
        "tflearn/layers/normalization.py: gamma starts random, N(1, 0.002)",
        scope=r"BatchNormalization(_\d+)?",
        certain=True,
        gamma_initial=_RANDOM,
        epsilon=1e-5,
    ),
    Family(
        "tensorlayer-1",
        "tensorlayer/layers/normalization.py of 1.x: random gamma; a name of one's own is usual",
        scope=r"batchnorm_layer(_\d+)?",
        gamma_initial=_RANDOM,
        epsilon=1e-5,
    ),
    Family(
        "tensorlayer",
        "tensorlayer/layers/normalization.py: random gamma; 2.x moving_var starts at 0",
        named_by="any",
        scope=r"batch_?norm(_layer|[123]d)?(_\d+)?",
        variance=("moving_var",),
        gamma_initial=_RANDOM,
        variance_initial=_ONE_OR_ZERO,
        epsilon=1e-5,
    ),
    Family(
        "darkflow",
        "darkflow/net/ops/baseop.py, convolution.py: new gamma and biases are random",
        scope=r"\d+-conv(olutional|-select|-extract)",
        beta=("biases",),
        gamma_initial=_RANDOM,
        beta_initial=_RANDOM,
        epsilon=1e-5,
    ),
    Family(
        "custom-scope",
        "any framework's variable names under a scope of the user's own",
        gamma=("gamma", "scale"),
        beta=("beta", "offset", "shift"),
    ),
    Family(
        "hand-written",
        "public code: pop_mean and pop_var start at 0 and 1, or both at 0",
        named_by="any",
        mean=("moving_mean", "running_mean", "pop_mean"),
        variance=(
            "moving_var",
            "moving_variance",
            "running_var",
            "running_variance",
            "pop_var",
            "pop_variance",
        ),
        gamma=("gamma", "scale"),
        beta=("beta", "beat", "offset", "shift"),
        variance_initial=_ONE_OR_ZERO,
    ),
    Family(
        "hand-written",
        "public code: mean and variance without a prefix, which other layers have too",
        named_by="any",
        mean=("mean",),
        variance=("variance", "var"),
        gamma=("gamma", "scale"),
        beta=("beta", "beat", "offset", "shift"),
        variance_initial=_ONE_OR_ZERO,
        by_shape=True,
    ),
)
