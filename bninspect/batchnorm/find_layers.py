"""Search for BN layers by the names of variables, with the naming families of `families`.

A layer is found by the names of its statistics; gamma and beta alone never make one, since
LayerNorm, GroupNorm and InstanceNorm have them too, unless the layer's name leaves no doubt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from bninspect.batchnorm.families import FAMILIES, Family, Group
from bninspect.batchnorm.name_groups import (
    COUNTER,
    HELPERS,
    LEAVES,
    STATISTICS_LEAVES,
    NameGroups,
    group_names,
    split_name,
)
from bninspect.batchnorm.other_layers import may_hold_more
from bninspect.errors import Unsupported
from bninspect.frozen import NamedTuple
from bninspect.model.checkpoint import Checkpoint, UncheckedGroup, Variable
from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE, STATISTICS, Role
from bninspect.wording import listed

if TYPE_CHECKING:
    from bninspect.batchnorm.name_patterns import Patterns

_ROWS = {
    "graph": tuple(row for row in FAMILIES if row.named_by in ("graph", "any")),
    "object": tuple(row for row in FAMILIES if row.named_by in ("object", "any")),
    "tree": tuple(row for row in FAMILIES if row.named_by == "tree"),
}
_CERTAIN = {rows: tuple(row for row in rows if row.certain) for rows in _ROWS.values()}
_NUMBERS = ("float", "bfloat", "int", "uint")
_TOP_LEVEL = "(top level)"


def find_layers(checkpoint: Checkpoint, patterns: Patterns = ()) -> list[BNLayer]:
    """Return the BN layers of a checkpoint, by the names of its variables; no values are read.

    `patterns` are the user's own names, searched in the whole name. The group `layer` of the
    expression, else what stands before the match, is the layer's name. The layers come in the order
    of the network where the file keeps it, else sorted by name, 2 before 10. Raises `Unsupported`
    if a member holds no numbers, and `UsageProblem` if a pattern takes too long.
    """
    return search_layers(checkpoint, patterns).layers


class LayerSearch(NamedTuple):
    """The BN layers found by names, and whether other variables may be layers by other names."""

    layers: list[BNLayer]
    may_lack_some: bool


def search_layers(checkpoint: Checkpoint, patterns: Patterns = ()) -> LayerSearch:
    """Return the BN layers as `find_layers` does, and whether there may be more."""
    names = _known(checkpoint)
    split = _split_by_patterns(names, patterns)
    if checkpoint.layers is not None:
        # The file says which variables are BN; only the user knows of others.
        names = {stored: names[stored] for stored in split}
    groups = group_names(names, split)
    layers = {
        scope: layer for scope in groups.groups if (layer := _layer(checkpoint, groups, scope))
    }
    count = Counter(layer.name for layer in layers.values())
    named = [
        replace(layer, name=scope) if count[layer.name] > 1 else layer
        for scope, layer in layers.items()
    ]
    if checkpoint.layers is not None:
        return LayerSearch(_with_named(checkpoint.layers, named), may_lack_some=False)
    may_lack_some = not named or may_hold_more(checkpoint.variables, names, groups, layers)
    return LayerSearch(named if checkpoint.in_order else in_natural_order(named), may_lack_some)


def _with_named(stated: Iterable[BNLayer], named: Iterable[BNLayer]) -> list[BNLayer]:
    """Return the layers that a file states, and those others that the user's patterns name."""
    layers = [*stated]
    taken = {variable.name for layer in layers for variable in layer.variables.values()}
    return layers + [
        layer
        for layer in named
        if taken.isdisjoint(variable.name for variable in layer.variables.values())
    ]


def in_natural_order(layers: Iterable[BNLayer]) -> list[BNLayer]:
    """Return layers sorted by name, 2 before 10."""
    return sorted(layers, key=lambda layer: _natural(layer.name))


def known_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the names of all variables, as patterns are searched in."""
    return tuple(_known(checkpoint).values())


def unmatched(checkpoint: Checkpoint, patterns: Patterns) -> list[str]:
    """Return a sentence for each of the user's patterns that no variable's name matches."""
    if not patterns:
        return []
    from bninspect.batchnorm.name_patterns import NameSearch

    names = known_names(checkpoint)
    search = NameSearch(patterns).search
    return [
        f"the pattern {pattern} matches no variable"
        for pattern in patterns
        if not any(search(pattern, name) for name in names)
    ]


def _split_by_patterns(names: Mapping[str, str], patterns: Patterns) -> dict[str, tuple[str, Role]]:
    """Return scope and role of those names, given as stored → known, that a pattern matches."""
    if not patterns:
        return {}
    from bninspect.batchnorm.name_patterns import NameSearch

    search = NameSearch(patterns)
    return {
        stored: scope_and_role
        for stored, name in names.items()
        if (scope_and_role := search.split(name)) is not None
    }


def is_empty(layer: BNLayer) -> bool:
    """Return whether no member of a layer has an element, as of a layer that was pruned away."""
    return not any(variable.size for variable in layer.variables.values())


def empty_groups(layers: Iterable[BNLayer]) -> list[UncheckedGroup]:
    """Return the layers without channels as groups of which there is nothing to check."""
    return [
        UncheckedGroup(
            layer.name,
            tuple(variable.name for variable in layer.variables.values()),
            "it has no channels, so there is nothing to check",
            nameable=False,
        )
        for layer in filter(is_empty, layers)
    ]


def unchecked_groups(
    groups: Iterable[UncheckedGroup], layers: Iterable[BNLayer]
) -> tuple[UncheckedGroup, ...]:
    """Return those of the groups that may be BN layers of which no layer found has variables.

    The user's patterns may have made layers of some.
    """
    taken = {variable.name for layer in layers for variable in layer.variables.values()}
    return tuple(group for group in groups if taken.isdisjoint(group.variables))


def notes_on_unchecked(groups: Iterable[UncheckedGroup]) -> list[str]:
    """Return a sentence for each reason for which groups are not checked."""
    names: dict[tuple[str, bool], list[str]] = {}
    for group in groups:
        names.setdefault((group.reason, group.nameable), []).append(group.name)
    return [
        f"not checked: {listed(group_names)}: {reason}"
        + (" (--pattern can name them)" if nameable else "")
        for (reason, nameable), group_names in names.items()
    ]


def _known(checkpoint: Checkpoint) -> dict[str, str]:
    """Return stored → known name of every variable.

    The second name is taken where that alone says a role.
    """
    known, second = checkpoint.known_names, checkpoint.second_names
    names = {stored: known.get(stored, stored) for stored in checkpoint.variables}
    if second:
        better = {
            stored: second[stored]
            for stored, name in names.items()
            if stored in second
            and split_name(name)[1] not in LEAVES
            and split_name(second[stored])[1] in LEAVES
        }
        # Behind the others, so that a copy of gamma does not take its place.
        names = {stored: names[stored] for stored in names if stored not in better} | better
    return names


def _layer(checkpoint: Checkpoint, groups: NameGroups, scope: str) -> BNLayer | None:
    """Return the layer that the names of one scope make, or None if they are no BN layer."""
    group = groups.groups[scope]
    family = _family(scope, group, _ROWS[checkpoint.named_by])
    if family is None:
        return None
    members = {role: checkpoint.variables[name] for role, name in family.members(group).items()}
    for role in AFFINE:
        if role in members and not members[role].dtype.startswith(_NUMBERS):
            del members[role]
    if not _is_bn(family, members, group, other_averages=scope in groups.other_averages):
        return None
    if not (members.keys() & STATISTICS or _may_lack_statistics(checkpoint, scope)):
        return None
    _require_numbers(checkpoint, members)
    if family.counter in group:
        members |= _means(members, checkpoint.variables[group[family.counter]])
    helpers = {leaf: group[leaf] for leaf in HELPERS if leaf in group}
    helpers |= groups.helpers.get(scope, {})
    shadows = groups.shadows.get(scope, {})
    return BNLayer(
        name=_display_name(scope, checkpoint.format),
        family=family.name,
        variables=members,
        helpers={leaf: checkpoint.variables[name] for leaf, name in helpers.items()},
        shadows={role: checkpoint.variables[name] for role, name in shadows.items()},
        initial=family.initial,
        gamma_offset=family.gamma_offset,
        usual_epsilon=family.epsilon,
    )


def _require_numbers(checkpoint: Checkpoint, members: Mapping[Role, Variable]) -> None:
    """Raise `Unsupported` if a statistic holds no numbers: the layer must not pass unread."""
    for variable in members.values():
        if not variable.dtype.startswith(_NUMBERS):
            raise Unsupported(
                checkpoint.resolved,
                f"{variable.name} holds {variable.dtype} elements, which are no numbers",
                "If it has nothing to do with BN, give it another name.",
            )


def _may_lack_statistics(checkpoint: Checkpoint, scope: str) -> bool:
    """Return whether statistics may be missing: a file of whole objects has all of a layer."""
    return checkpoint.named_by == "graph" or scope in checkpoint.partial


def _means(members: Mapping[Role, Variable], count: Variable) -> dict[Role, Variable]:
    """Return statistics that are stored as sums over `count` batches as means over batches.

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
    """Return whether members make a BN layer.

    They do with both statistics, and with one or none where all else says so.
    """
    statistics = sum(role in members for role in STATISTICS)
    affine = "gamma" in members or "beta" in members
    if COUNTER in group and (family.by_shape or not affine):
        return False  # an input normalizer
    if family.by_shape:
        return affine and _is_one_vector_each(members)
    if statistics == 2:
        # A running mean of one number, such as a loss or a return, has no channels.
        return affine or any(members[role].shape for role in STATISTICS)
    if statistics == 1:
        return affine or family.certain
    return affine and family.certain and not other_averages


def _family(scope: str, group: Group, rows: tuple[Family, ...]) -> Family | None:
    """Return the first row with both statistics, else with one, else whose scope proves BN."""
    last = scope.rpartition("/")[2]
    half = certain = None
    if STATISTICS_LEAVES.isdisjoint(group):
        rows = _CERTAIN[rows]  # most scopes have nothing but a bias
    for row in rows:
        mean, variance = (not leaves.isdisjoint(group) for leaves in row.statistics)
        if (mean or variance or row.certain) and re.fullmatch(row.scope, last, re.DOTALL):
            if mean and variance:
                return row
            if mean or variance:
                half = half or (None if row.by_shape else row)
            elif row.members(group):
                certain = certain or row
    return half or certain


def family_of_names(scope: str, group: Group, *, by_object: bool) -> Family | None:
    """Return the family of a layer by its scope and the leaves of its names.

    These are given by the layer object, or by a graph.
    """
    return _family(scope, group, _ROWS["object" if by_object else "graph"])


def _is_one_vector_each(members: Mapping[Role, Variable]) -> bool:
    """Return whether all members are vectors of one length."""
    shapes = [[size for size in variable.shape if size != 1] for variable in members.values()]
    return all(len(shape) < 2 for shape in shapes) and len({v.size for v in members.values()}) == 1


def _display_name(scope: str, container: str) -> str:
    """Return the layer's name as a person knows it: in Keras's .h5 without repeated names."""
    if container != "keras-h5":
        return scope or _TOP_LEVEL
    parts = scope.removeprefix("model_weights/").split("/")
    # Keras repeats the name of the group below it, Keras 3 with the model's name between.
    if parts[0] in parts[1:]:
        parts = parts[len(parts) - 1 - parts[::-1].index(parts[0]) :]
    return "/".join(part for part, _ in groupby(parts))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts `bn_2` before `bn_10`: a number by its length, then digits."""
    return [
        (0, len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]
