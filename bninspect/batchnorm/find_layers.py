"""Variables → BN layers: the grouping of names, by what `families` knows of them.

A layer is found by the names of its statistics; gamma and beta alone never make one, since
LayerNorm, GroupNorm and InstanceNorm have them too, unless the layer's name leaves no doubt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from bninspect.batchnorm.families import FAMILIES, Family, Group
from bninspect.errors import Unsupported
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE, STATISTICS, Role

Patterns = tuple[tuple[Role, re.Pattern[str]], ...]

_ROWS = {
    "graph": tuple(row for row in FAMILIES if row.named_by != "object"),
    "object": tuple(row for row in FAMILIES if row.named_by != "graph"),
}

_CERTAIN = {rows: tuple(row for row in rows if row.certain) for rows in _ROWS.values()}

# Variables that belong to a layer besides its members: renorm (tf.layers, tf_keras, Keras 3.14+).
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
# … compare_gan's count and switch of its accumulators,
_ACCUMULATORS = ("accu/accu_counter", "accu/update_accus")
_HELPERS = (*_RENORM, *_SONNET_2, *_ACCUMULATORS)
# … and zero-debias (tensorflow/python/training/moving_averages.py), below the statistic's name.
_ZERO_DEBIAS = ("biased", "local_step")
# The tell of an input normalizer (Keras Normalization and many a hand-written one).
_COUNTER = "count"

_LEAVES = {
    *(leaf for family in FAMILIES for leaves in family.leaves.values() for leaf in leaves),
    *_HELPERS,
    _COUNTER,
}
_STATISTICS_LEAVES = {
    leaf for family in FAMILIES for role in STATISTICS for leaf in family.leaves[role]
}
_TWO_PARTS = {leaf.rpartition("/")[2] for leaf in _LEAVES if "/" in leaf}
# Keras 1 wrote LAYER_running_mean where others write LAYER/moving_mean, and a number behind it
# where the graph had the name already.
_KERAS_1_NAME = r"(?P<layer>.+)_(?P<leaf>gamma|beta|running_mean|running_std)(_\d+)?"
# An ExponentialMovingAverage of what tf.nn.moments returned, `again` where the scope had it before.
_AVERAGED_MOMENT = (
    r"(?:(?P<path>.+?)/)??moments(?P<again>_\d+)?/"
    r"(?P<leaf>(?:Squeeze(?:_1)?|(?:moments_1/)?(?:mean|variance))/ExponentialMovingAverage)"
)
_AFFINE_OF_MOMENTS = next((*row.gamma, *row.beta) for row in FAMILIES if row.name == "moments-ema")
_NUMBERS = ("float", "bfloat", "int", "uint")
_TOP_LEVEL = "(top level)"
_MAX_SCOPE_PARTS = 64


def find_layers(checkpoint: Checkpoint, patterns: Patterns = ()) -> list[BNLayer]:
    """The BN layers of a checkpoint, by the names of its variables; no values are read.

    `patterns` are the user's own names: (role, expression), searched in the whole name. The group
    `layer` of the expression, else what stands before the match, is the layer's name. The layers
    come in the order of the network where the file keeps it, else sorted by name, 2 before 10.
    """
    filed = _file_names(_known(checkpoint), patterns)
    layers = {scope: layer for scope in filed.groups if (layer := _layer(checkpoint, filed, scope))}
    names = Counter(layer.name for layer in layers.values())
    found = [
        replace(layer, name=scope) if names[layer.name] > 1 else layer
        for scope, layer in layers.items()
    ]
    if not checkpoint.in_order:
        found.sort(key=lambda layer: _natural(layer.name))
    return found


def known_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The names of all variables, as patterns are searched in."""
    return tuple(_known(checkpoint).values())


def unmatched(checkpoint: Checkpoint, patterns: Patterns) -> list[str]:
    """A sentence for each of the user's patterns that no variable's name matches."""
    names = known_names(checkpoint) if patterns else ()
    return [
        f"the pattern {role}={pattern.pattern} matches no variable"
        for role, pattern in patterns
        if not any(pattern.search(name) for name in names)
    ]


def _known(checkpoint: Checkpoint) -> dict[str, str]:
    """Stored → known name of every variable; a second name is taken where only that says a role."""
    known, second = checkpoint.known_names, checkpoint.second_names
    names = {stored: known.get(stored, stored) for stored in checkpoint.variables}
    if second:
        better = {
            stored: second[stored]
            for stored, name in names.items()
            if stored in second
            and _split(name)[1] not in _LEAVES
            and _split(second[stored])[1] in _LEAVES
        }
        # Behind the others, so that a copy of gamma does not take its place.
        names = {stored: names[stored] for stored in names if stored not in better} | better
    return names


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
    averages = []
    others = []
    for stored, name in names.items():
        scope, leaf = (patterns and _split_by_pattern(name, patterns)) or _split(name)
        if leaf in _LEAVES:
            filed.groups.setdefault(scope, {}).setdefault(leaf, stored)
        elif leaf in _ZERO_DEBIAS:
            debias.append((scope, leaf, stored))
        elif "moments" in name and (match := re.fullmatch(_AVERAGED_MOMENT, name, re.DOTALL)):
            averages.append((match, stored))
        elif "/moments/" in name or "/accu/" in name:
            others.append(scope)
    filed.other_averages.update(
        head for scope in others for head in _heads(scope) if head in filed.groups
    )
    owners = _file_averages(filed, averages, names) if averages else {}
    for path, leaf, stored in sorted(debias):
        owner, _, statistic = path.rpartition("/")
        average = next((tail for tail in _tails(path) if tail in owners), None)
        if average is not None:
            scope, statistic = owners[average]
            filed.helpers.setdefault(scope, {})[f"{statistic}/{leaf}"] = stored
        elif statistic in _STATISTICS_LEAVES:
            for scope in _tails(owner):
                if statistic in filed.groups.get(scope, {}):
                    filed.helpers.setdefault(scope, {})[f"{statistic}/{leaf}"] = stored
                    break
    return filed


def _file_averages(
    filed: _Filed, averages: list[tuple[re.Match[str], str]], names: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """File averages of batch moments by layer; gives the scope and the leaf of each by its name.

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
            group = filed.groups.setdefault(scope, {})
            for affine in _AFFINE_OF_MOMENTS:
                if (name := _join(path, affine + again)) in stored_by_name:
                    group.setdefault(affine, stored_by_name[name])
        else:
            scope = _owner(path, filed.groups)
        leaf = f"moments/{average['leaf']}"
        if leaf in filed.groups.get(scope, {}):
            scope = path
        filed.groups.setdefault(scope, {}).setdefault(leaf, stored)
        owners[average.string] = scope, leaf
    return owners


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _owner(path: str, groups: Mapping[str, Group]) -> str:
    """The layer whose batch moments were computed at `path`.

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

    Averages of another kind lie below the batch's moments, `S/S/moments`, or accumulators,
    `S/accu`, by names that no family knows.
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
    if family.counter in group:
        members |= _means(members, checkpoint.variables[group[family.counter]])
    helpers = {leaf: group[leaf] for leaf in _HELPERS if leaf in group}
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


def _means(members: Mapping[Role, Variable], count: Variable) -> dict[Role, Variable]:
    """Statistics that are stored as sums over `count` batches, as the means inference takes.

    The count starts at 1e-12, so the means of nothing are 0.
    """
    if count.shape != () or not count.dtype.startswith(_NUMBERS):
        return {}

    def mean(total: Variable) -> Variable:
        return total._replace(load=lambda: total.read() / count.read())

    return {role: mean(members[role]) for role in STATISTICS if role in members}


def _is_bn(
    family: Family, members: Mapping[Role, Variable], group: Group, *, other_averages: bool
) -> bool:
    """Whether members make a BN layer: both statistics, or one or none where all else says so."""
    statistics = sum(role in members for role in STATISTICS)
    affine = "gamma" in members or "beta" in members
    if _COUNTER in group and not affine:
        return False  # an input normalizer
    if statistics == 2:
        # A running mean of one number, such as a loss or a return, has no channels.
        return affine or any(members[role].shape for role in STATISTICS)
    if statistics == 1:
        return affine or family.certain
    return affine and family.certain and not other_averages


def _family(scope: str, group: Group, rows: tuple[Family, ...]) -> Family | None:
    """The first row with both statistics, else with one, else whose scope alone proves BN."""
    last = scope.rpartition("/")[2]
    half = certain = None
    if _STATISTICS_LEAVES.isdisjoint(group):
        rows = _CERTAIN[rows]  # most scopes have nothing but a bias
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
