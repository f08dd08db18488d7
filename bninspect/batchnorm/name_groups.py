"""Grouping of a checkpoint's variable names by scope: one scope may hold one BN layer.

A name is split into its scope and its last part, the leaf (`net/bn` and `moving_mean`). This module
knows how frameworks nest, double and number these parts. `find_layers` decides which groups are BN
layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bninspect.batchnorm.families import FAMILIES, Group
from bninspect.frozen import NamedTuple
from bninspect.model.roles import STATISTICS, Role

# Variables of a layer that are not its members: renorm (tf.layers, tf_keras, Keras 3.14+).
_RENORM = (
    "moving_stddev",
    "renorm_mean",
    "renorm_mean_weight",
    "renorm_stddev",
    "renorm_stddev_weight",
)
# … the rest of Sonnet 2's averages, by attribute and by variable (sonnet/src/moving_averages.py),
_SONNET_2 = tuple(
    f"moving_{statistic}/{leaf}"
    for statistic in ("mean", "variance")
    for leaf in ("_hidden", "_counter", "hidden", "counter")
)
# … and of Haiku's (haiku/_src/moving_averages.py),
_HAIKU = tuple(
    f"{statistic}_ema/{leaf}" for statistic in ("mean", "var") for leaf in ("hidden", "counter")
)
# … compare_gan's count and switch of its accumulators.
_ACCUMULATORS = ("accu/accu_counter", "accu/update_accus")
HELPERS = (*_RENORM, *_SONNET_2, *_HAIKU, *_ACCUMULATORS)
# Zero-debias keeps these below the statistic (tensorflow/python/training/moving_averages.py).
_ZERO_DEBIAS = ("biased", "local_step")
# The leaf that marks an input normalizer (Keras Normalization and many hand-written ones).
COUNTER = "count"

LEAVES = {
    *(leaf for family in FAMILIES for leaves in family.leaves.values() for leaf in leaves),
    *HELPERS,
    COUNTER,
}
_ROLE_OF_STATISTIC: dict[str, Role] = {
    leaf: role for family in FAMILIES for role in STATISTICS for leaf in family.leaves[role]
}
STATISTICS_LEAVES = frozenset(_ROLE_OF_STATISTIC)
_TWO_PARTS = {leaf.rpartition("/")[2] for leaf in LEAVES if "/" in leaf}
# Keras 1 wrote LAYER_running_mean where others write LAYER/moving_mean, followed by a number if the
# graph had the name already.
_KERAS_1_NAME = r"(?P<layer>.+)_(?P<leaf>gamma|beta|running_mean|running_std)(_\d+)?"
# The default name of tf.train.ExponentialMovingAverage, below the name of the averaged variable.
_SHADOW = "/ExponentialMovingAverage"
# An ExponentialMovingAverage of a result of tf.nn.moments; `again` if the scope has another one.
_AVERAGED_MOMENT = (
    r"(?:(?P<path>.+?)/)??moments(?P<again>_\d+)?/"
    r"(?P<leaf>(?:Squeeze(?:_1)?|(?:moments_1/)?(?:mean|variance))/ExponentialMovingAverage)"
)
_AFFINE_OF_MOMENTS = next((*row.gamma, *row.beta) for row in FAMILIES if row.name == "moments-ema")
_MAX_SCOPE_PARTS = 64
# Variables of layers without normalization.
_WEIGHTS = {
    *("kernel", "bias", "weights", "biases", "w", "b", "W", "embeddings", "recurrent_kernel"),
    *("depthwise_weights", "pointwise_weights", "depthwise_kernel", "pointwise_kernel"),
}


class NameGroups:
    """The names of one checkpoint by scope.

    `groups` maps each scope to its leaves that a family or pattern knows, and these to the names as
    stored. `unknown` has scope and stored name of the others, except usual names of weights and
    biases. `helpers` holds the zero-debias variables of each scope, `shadows` the averages that
    tf.train.ExponentialMovingAverage keeps of statistics, by role. `other_averages` are the scopes
    that keep averages of another kind.
    """

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.unknown: list[tuple[str, str]] = []
        self.helpers: dict[str, Group] = {}
        self.shadows: dict[str, dict[Role, str]] = {}
        self.other_averages: set[str] = set()

    def add(self, scope: str, leaf: str, stored: str) -> None:
        """Add a name to the group of its scope; of two with one leaf the first stays."""
        self.groups.setdefault(scope, {}).setdefault(leaf, stored)


class _Unplaced(NamedTuple):
    """Names whose layer is known only when all names have been grouped.

    `helpers` and `shadows` are (name of what they belong to, own leaf, name as stored).
    """

    helpers: list[tuple[str, str, str]]
    shadows: list[tuple[str, str]]
    moments: list[tuple[re.Match[str], str]]
    other_scopes: list[str]


def group_names(names: Mapping[str, str], split: Mapping[str, tuple[str, Role]]) -> NameGroups:
    """Return the groups of names, given as stored → known.

    `split` has scope and role of the names that the user's patterns take.
    """
    groups = NameGroups()
    unplaced = _Unplaced([], [], [], [])
    for stored, name in names.items():
        scope, leaf = split.get(stored) or split_name(name)
        if leaf in LEAVES:
            groups.add(scope, leaf, stored)
        else:
            _set_aside(unplaced, name, scope, leaf, stored)
            if leaf not in _WEIGHTS:
                groups.unknown.append((scope, stored))
    groups.other_averages.update(
        head for scope in unplaced.other_scopes for head in _heads(scope) if head in groups.groups
    )
    owners = _add_moments(groups, unplaced.moments, names) if unplaced.moments else {}
    _add_helpers(groups, unplaced.helpers, owners)
    _add_shadows(groups, unplaced.shadows, names)
    return groups


def _set_aside(unplaced: _Unplaced, name: str, scope: str, leaf: str, stored: str) -> None:
    """Keep a name for later if it can belong to a layer."""
    if leaf in _ZERO_DEBIAS:
        unplaced.helpers.append((scope, leaf, stored))
    elif "moments" in name and (match := re.fullmatch(_AVERAGED_MOMENT, name, re.DOTALL)):
        unplaced.moments.append((match, stored))
    elif name.endswith(_SHADOW):
        unplaced.shadows.append((name.removesuffix(_SHADOW), stored))
    elif "/moments/" in name or "/accu/" in name:
        unplaced.other_scopes.append(scope)


def _add_helpers(
    groups: NameGroups,
    helpers: list[tuple[str, str, str]],
    owners: Mapping[str, tuple[str, str]],
) -> None:
    """Add zero-debias variables to the layers whose statistics they belong to.

    Those of `S/moving_mean` are `S/S/moving_mean/biased`: the scope is doubled. `owners` are the
    averages of moments, by name.
    """
    for path, leaf, stored in sorted(helpers):
        scope, _, statistic = path.rpartition("/")
        average = next((tail for tail in _tails(path) if tail in owners), None)
        if average is not None:
            scope, statistic = owners[average]
            groups.helpers.setdefault(scope, {})[f"{statistic}/{leaf}"] = stored
        elif statistic in STATISTICS_LEAVES:
            owner = next((s for s in _tails(scope) if statistic in groups.groups.get(s, {})), None)
            if owner is not None:
                groups.helpers.setdefault(owner, {})[f"{statistic}/{leaf}"] = stored


def _add_shadows(
    groups: NameGroups, shadows: list[tuple[str, str]], names: Mapping[str, str]
) -> None:
    """Add the shadows of statistics to the layers of these statistics.

    A shadow is `S/moving_mean/ExponentialMovingAverage`, in the scopes that were open when it was
    made.
    """
    if not shadows:
        return
    statistics = {
        names[stored]: (scope, _ROLE_OF_STATISTIC[leaf])
        for scope, group in groups.groups.items()
        for leaf, stored in group.items()
        if leaf in STATISTICS_LEAVES
    }
    for path, stored in shadows:
        owner = next((statistics[tail] for tail in _tails(path) if tail in statistics), None)
        if owner is not None:
            scope, role = owner
            groups.shadows.setdefault(scope, {}).setdefault(role, stored)


def _add_moments(
    groups: NameGroups, averages: list[tuple[re.Match[str], str]], names: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Add averages of batch moments to their layers; return scope and leaf of each by its name.

    A second set of averages in a scope (the network built again, for evaluation) is a layer of
    its own. In one scope TensorFlow numbers all that is made again: `moments_1` goes with
    `gamma_1` and `beta_1`. Below a stored variable it is no average of moments but its shadow.
    """
    owners: dict[str, tuple[str, str]] = {}
    stored_by_name = {name: stored for stored, name in names.items()}
    for average, stored in sorted(averages, key=lambda item: item[0].string):
        if average.string.rpartition("/")[0] in stored_by_name:
            continue
        path = average["path"] or ""
        if again := average["again"]:
            scope = _join(path, f"moments{again}")
            groups.groups.setdefault(scope, {})
            for affine in _AFFINE_OF_MOMENTS:
                if (name := _join(path, affine + again)) in stored_by_name:
                    groups.add(scope, affine, stored_by_name[name])
        else:
            scope = _scope_of_moments(path, groups.groups)
        leaf = f"moments/{average['leaf']}"
        if leaf in groups.groups.get(scope, {}):
            scope = path
        groups.add(scope, leaf, stored)
        owners[average.string] = scope, leaf
    return owners


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _scope_of_moments(path: str, groups: Mapping[str, Group]) -> str:
    """Return the scope of the layer whose batch moments were computed at `path`.

    The averages of `S/moments/…` are `S/S/moments/…`: the variable scope, then the name of the
    operation, whose scopes may be numbered (`bn/bn_1/moments/…`). Without a variable scope the
    path is the operation's alone.
    """
    if path in groups:
        return path
    parts = path.split("/")
    plain = [re.sub(r"_\d+$", "", part) for part in parts[:_MAX_SCOPE_PARTS]]
    for size in range(len(plain) // 2, 0, -1):
        if plain[:size] == plain[size : 2 * size]:
            outer, inner = "/".join(parts[:size]), "/".join(parts[size:])
            return inner if inner in groups or outer not in groups else outer
    return path


def split_name(name: str) -> tuple[str, str]:
    """Return a variable's scope and leaf, without Keras's `:0`."""
    scope, _, leaf = name.rpartition("/")
    if leaf in LEAVES and leaf not in _TWO_PARTS:
        return scope, leaf
    before, colon, index = leaf.rpartition(":")
    if colon and index.isdecimal():
        leaf = before
    if leaf in _TWO_PARTS:
        outer, _, before = scope.rpartition("/")
        if leaf not in LEAVES or f"{before}/{leaf}" in LEAVES:
            return outer, f"{before}/{leaf}"
    if "_" in leaf and leaf not in LEAVES:
        match = re.fullmatch(_KERAS_1_NAME, leaf, re.DOTALL)
        if match:
            layer = match["layer"]
            return _join(scope, layer), match["leaf"]
    return scope, leaf


def _tails(path: str) -> Iterator[str]:
    """Yield a path and its tails, longest first; not more than any real path has."""
    parts = path.split("/")[-_MAX_SCOPE_PARTS:]
    return ("/".join(parts[start:]) for start in range(len(parts) + 1))


def _heads(path: str) -> Iterator[str]:
    """Yield a scope and those around it; not more than any real scope has.

    Averages of another kind lie below the batch's moments, `S/S/moments`, or accumulators,
    `S/accu`, by names that no family knows.
    """
    parts = path.split("/")[:_MAX_SCOPE_PARTS]
    return ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
