"""Variables → BN layers: the naming families, in one table, and the grouping by name.

A layer is found by the names of its statistics; gamma and beta alone never make one, since
LayerNorm, GroupNorm and InstanceNorm have them too, unless the layer's name leaves no doubt.
Adding a framework is adding a row to `FAMILIES` and a fixture.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal, NamedTuple

from bninspect.errors import Unsupported
from bninspect.model import AFFINE, ROLES, STATISTICS, BNLayer, Checkpoint, Role, Variable

Patterns = tuple[tuple[Role, re.Pattern[str]], ...]
Group = dict[str, str]  # the last part of a variable's name → the name as stored

_ZERO, _ONE = (0.0,), (1.0,)
_ONE_OR_ZERO = (1.0, 0.0)
_RANDOM: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Family:
    """One way of naming BN variables.

    `mean`, `variance`, `gamma` and `beta` list the possible last parts of the names, the most
    usual first; `scope` is what the last part of the layer's own name must match; `named_by` is who
    gives such names: the graph, or the object that owns the variables (HDF5, object-based files).
    `certain` says that the scope alone proves BN, so that statistics which are not stored are
    missing (BN201), not absent by design. The initial values are those of the framework's
    `source`, most usual first; none where they are random. Inference multiplies by
    gamma + `gamma_offset`; `epsilon` is the framework's default.
    """

    name: str
    source: str
    named_by: Literal["graph", "object", "any"] = "graph"
    scope: str = ".*"
    certain: bool = False
    mean: tuple[str, ...] = ("moving_mean",)
    variance: tuple[str, ...] = ("moving_variance",)
    gamma: tuple[str, ...] = ("gamma",)
    beta: tuple[str, ...] = ("beta",)
    gamma_initial: tuple[float, ...] = _ONE
    variance_initial: tuple[float, ...] = _ONE
    gamma_offset: float = 0.0
    epsilon: float = 1e-3
    leaves: Mapping[Role, tuple[str, ...]] = field(init=False, repr=False)
    initial: Mapping[Role, tuple[float, ...]] = field(init=False, repr=False)
    statistics: tuple[frozenset[str], frozenset[str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        leaves = dict(zip(ROLES, (self.gamma, self.beta, self.mean, self.variance), strict=True))
        initial = (self.gamma_initial, _ZERO, _ZERO, self.variance_initial)
        object.__setattr__(self, "leaves", leaves)
        object.__setattr__(self, "initial", dict(zip(ROLES, initial, strict=True)))
        object.__setattr__(self, "statistics", (frozenset(self.mean), frozenset(self.variance)))

    def members(self, group: Group) -> dict[Role, str]:
        """The members among the names of one scope."""
        return {
            role: group[leaf]
            for role in ROLES
            if (leaf := next((leaf for leaf in self.leaves[role] if leaf in group), None))
        }


# The first row that fits wins, so a row with a scope of its own stands before a general one.
FAMILIES: tuple[Family, ...] = (
    Family(
        "keras",
        "keras/layers/normalization/batch_normalization.py",
        named_by="object",
    ),
    Family(
        "keras",
        "keras/utils/naming.py: the name of a layer that got none",
        named_by="object",
        scope=r"(.*_)?batch_normalization(_\d+)?",
        certain=True,
    ),
    Family(
        "keras-1",
        "Keras 1: keras/layers/normalization.py; running_std holds a variance from 1.0.8 on",
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
        scope=r"(tpu_|sync_)?batch_normalization(_v\d+)?(_\d+)?",
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
        beta=("beta", "offset", "shift"),
        variance_initial=_ONE_OR_ZERO,
    ),
)

_ROWS = {
    "graph": tuple(row for row in FAMILIES if row.named_by != "object"),
    "object": tuple(row for row in FAMILIES if row.named_by != "graph"),
}

# Variables that belong to a layer besides its members: renorm (tf.layers, tf_keras, Keras 3.14+).
_RENORM = (
    "moving_stddev",
    "renorm_mean",
    "renorm_mean_weight",
    "renorm_stddev",
    "renorm_stddev_weight",
)
# … and zero-debias (tensorflow/python/training/moving_averages.py), below the statistic's name.
_ZERO_DEBIAS = ("biased", "local_step")
# The tell of an input normalizer (Keras Normalization and many a hand-written one).
_COUNTER = "count"

_LEAVES = {
    *(leaf for family in FAMILIES for leaves in family.leaves.values() for leaf in leaves),
    *_RENORM,
    _COUNTER,
}
_STATISTICS_LEAVES = {
    leaf for family in FAMILIES for role in STATISTICS for leaf in family.leaves[role]
}
_TWO_PARTS = {leaf.rpartition("/")[2] for leaf in _LEAVES if "/" in leaf}
# Keras 1 wrote LAYER_running_mean where others write LAYER/moving_mean, and a number behind it
# where the graph had the name already.
_KERAS_1_NAME = r"(?P<layer>.+)_(?P<leaf>gamma|beta|running_mean|running_std)(_\d+)?"
_NUMBERS = ("float", "bfloat", "int", "uint")
_TOP_LEVEL = "(top level)"
_MAX_SCOPE_PARTS = 64


def find_layers(checkpoint: Checkpoint, patterns: Patterns = ()) -> list[BNLayer]:
    """The BN layers of a checkpoint, by the names of its variables; no values are read.

    `patterns` are the user's own names: (role, expression), searched in the whole name. The group
    `layer` of the expression, else what stands before the match, is the layer's name. The layers
    come in the order of the network where the file keeps it, else sorted by name, 2 before 10.
    """
    known = checkpoint.known_names
    filed = _file_names({name: known.get(name, name) for name in checkpoint.variables}, patterns)
    layers = {scope: layer for scope in filed.groups if (layer := _layer(checkpoint, filed, scope))}
    names = Counter(layer.name for layer in layers.values())
    found = [
        replace(layer, name=scope) if names[layer.name] > 1 else layer
        for scope, layer in layers.items()
    ]
    if not checkpoint.in_order:
        found.sort(key=lambda layer: _natural(layer.name))
    return found


class _Filed(NamedTuple):
    """A checkpoint's names by scope.

    `groups` are those that a family or pattern knows, `helpers` those of zero-debias;
    `other_averages` are the scopes that keep averages of another kind.
    """

    groups: dict[str, Group]
    helpers: dict[str, Group]
    other_averages: set[str]


def _file_names(names: Mapping[str, str], patterns: Patterns) -> _Filed:
    """Sort names, given as stored → known, by the scope and the last part of the known one."""
    filed = _Filed({}, {}, set())
    debias = []
    for stored, name in names.items():
        scope, leaf = (patterns and _split_by_pattern(name, patterns)) or _split(name)
        if leaf in _LEAVES:
            filed.groups.setdefault(scope, {}).setdefault(leaf, stored)
        elif leaf in _ZERO_DEBIAS:
            debias.append((scope, leaf, stored))
        elif "/moments/" in name or "/accu/" in name:
            filed.other_averages.update(_heads(scope))
    for path, leaf, stored in debias:
        owner, _, statistic = path.rpartition("/")
        if statistic in _STATISTICS_LEAVES:
            for scope in _tails(owner):
                if statistic in filed.groups.get(scope, {}):
                    filed.helpers.setdefault(scope, {})[f"{statistic}/{leaf}"] = stored
                    break
    return filed


def _split_by_pattern(name: str, patterns: Patterns) -> tuple[str, str] | None:
    """A name that a user's pattern takes is filed as if it were called like its role."""
    for role, pattern in patterns:
        match = pattern.search(name)
        if match:
            return match.groupdict().get("layer") or name[: match.start()].rstrip("/_."), role
    return None


def _split(name: str) -> tuple[str, str]:
    """A variable's scope and the last part of its name, without Keras's `:0`."""
    scope, _, leaf = name.rpartition("/")
    if leaf in _LEAVES:
        return scope, leaf
    before, colon, index = leaf.rpartition(":")
    if colon and index.isdecimal():
        leaf = before
    if leaf in _TWO_PARTS:
        outer, _, before = scope.rpartition("/")
        return outer, f"{before}/{leaf}"
    if "_" in leaf and leaf not in _LEAVES:
        match = re.fullmatch(_KERAS_1_NAME, leaf, re.DOTALL)
        if match:
            layer = match["layer"]
            return f"{scope}/{layer}" if scope else layer, match["leaf"]
    return scope, leaf


def _tails(path: str) -> Iterator[str]:
    """A scope and its tails, longest first; not more than any real scope has.

    The debias variables of `S/moving_mean` are `S/S/moving_mean/biased`: the scope is doubled.
    """
    parts = path.split("/")[-_MAX_SCOPE_PARTS:]
    return ("/".join(parts[start:]) for start in range(len(parts) + 1))


def _heads(path: str) -> Iterator[str]:
    """A scope and those around it; not more than any real scope has.

    Averages of another kind are an ExponentialMovingAverage of the batch's moments, below
    `S/S/moments`, or compare_gan's accumulators, `S/accu` (compare_gan/architectures/arch_ops.py).
    """
    parts = path.split("/")[:_MAX_SCOPE_PARTS]
    return ("/".join(parts[:end]) for end in range(1, len(parts) + 1))


def _layer(checkpoint: Checkpoint, filed: _Filed, scope: str) -> BNLayer | None:
    """The layer that the names of one scope make, or None if they are no BN layer."""
    group = filed.groups[scope]
    family = _family(scope, group, _ROWS[checkpoint.named_by])
    if family is None:
        return None
    members = {role: checkpoint.variables[name] for role, name in family.members(group).items()}
    for role in AFFINE:
        if role in members and not members[role].dtype.startswith(_NUMBERS):
            del members[role]
    if not _is_bn(family, members, group, other_averages=scope in filed.other_averages):
        return None
    if not (members.keys() & STATISTICS or _may_lack_statistics(checkpoint, scope)):
        return None
    for variable in members.values():
        if not variable.dtype.startswith(_NUMBERS):
            # The layer must not pass because its statistics cannot be read.
            raise Unsupported(
                checkpoint.resolved,
                f"{variable.name} holds {variable.dtype} elements, which are no numbers",
                "If it has nothing to do with BN, give it another name.",
            )
    helpers = {leaf: group[leaf] for leaf in _RENORM if leaf in group}
    helpers |= filed.helpers.get(scope, {})
    return BNLayer(
        name=_display_name(scope, checkpoint.format),
        family=family.name,
        variables=members,
        helpers={leaf: checkpoint.variables[name] for leaf, name in helpers.items()},
        initial=family.initial,
        gamma_offset=family.gamma_offset,
        usual_epsilon=family.epsilon,
    )


def _may_lack_statistics(checkpoint: Checkpoint, scope: str) -> bool:
    """Whether statistics may be missing: a file of whole objects has all that a layer has."""
    return checkpoint.named_by == "graph" or scope in checkpoint.partial


def _is_bn(
    family: Family, members: Mapping[Role, Variable], group: Group, *, other_averages: bool
) -> bool:
    """Whether members make a BN layer: both statistics, or one or none where all else says so."""
    statistics = sum(role in members for role in STATISTICS)
    affine = "gamma" in members or "beta" in members
    if _COUNTER in group and not affine:
        return False  # an input normalizer
    if statistics == 2:
        return True
    if statistics == 1:
        return affine or family.certain
    return affine and family.certain and not other_averages


def _family(scope: str, group: Group, rows: tuple[Family, ...]) -> Family | None:
    """The first row with both statistics, else with one, else whose scope alone proves BN."""
    last = scope.rpartition("/")[2]
    half = certain = None
    for row in rows:
        mean, variance = (not leaves.isdisjoint(group) for leaves in row.statistics)
        if (mean or variance or row.certain) and re.fullmatch(row.scope, last, re.DOTALL):
            if mean and variance:
                return row
            if mean or variance:
                half = half or row
            elif row.members(group):
                certain = certain or row
    return half or certain


def _display_name(scope: str, container: str) -> str:
    """The layer's name as a person knows it; in Keras's .h5 the path without a name said twice."""
    if container != "keras-h5":
        return scope or _TOP_LEVEL
    parts = scope.removeprefix("model_weights/").split("/")
    # Keras repeats the name of the group below it, Keras 3 with the model's name between.
    if parts[0] in parts[1:]:
        parts = parts[len(parts) - 1 - parts[::-1].index(parts[0]) :]
    return "/".join(part for part, _ in groupby(parts))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts `bn_2` before `bn_10`: a number by its length, then its digits."""
    return [
        (0, len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]
