"""Variables outside of the layers found by names, which may be BN layers by other names.

This decides only whether the graph beside a checkpoint is searched, which takes time. Names are
considered first, and shapes if names do not decide.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from bninspect.batchnorm.name_groups import STATISTICS_LEAVES, NameGroups
from bninspect.model.checkpoint import Variable
from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE

# Scopes of other normalizations, which have gamma and beta without statistics.
_OTHER_NORMALIZATIONS = re.compile(
    r"(.*_)?(layer|instance|group|rms|ln|gn|in)_?(norm(alization)?|ln)?(_?\d+)?", re.IGNORECASE
)
_FLOATS = ("float", "bfloat")
_MEMBERS = STATISTICS_LEAVES | {"gamma", "beta", "beat", "scale", "offset", "shift"}
# Vectors that are no statistics: the second ones of Sonnet 2's averages, metrics of thresholds
# (sonnet/src/moving_averages.py; tensorflow/python/ops/metrics_impl.py).
_NO_MEMBER = re.compile(
    r"(.*/)?(_hidden|_counter|(true|false)_(positives|negatives)(_\d+)?)", re.DOTALL
)
_NUMBER = re.compile(r"_\d+$")
_MAX_SCOPE_PARTS = 64


def may_hold_more(
    variables: Mapping[str, Variable],
    names: Mapping[str, str],
    groups: NameGroups,
    layers: Mapping[str, BNLayer],
) -> bool:
    """Return whether a scope without a layer may hold one.

    It may if it has gamma or beta, or two vectors of one length. Optimizer slots, moving averages
    and gradient accumulators of the weights hold none. `names` are all names by key, `found` the
    layers by scope.
    """
    if any(_may_be_bn(scope, groups, layers) for scope in groups.groups if scope not in layers):
        return True
    left = _unplaced(names, groups, layers)
    suspects = [
        scope_names
        for scope_names in left.values()
        if _has_two_of_one_length(variables, scope_names)
    ]
    if not suspects:
        return False
    sums = _accumulators(variables, names, layers)
    return any(
        _has_two_of_one_length(variables, set(scope_names) - sums) for scope_names in suspects
    )


def _may_be_bn(scope: str, groups: NameGroups, layers: Mapping[str, BNLayer]) -> bool:
    """Return whether a scope has a member of a layer, and is neither another layer nor slots."""
    leaves = groups.groups[scope].keys() & _MEMBERS
    if not leaves or _OTHER_NORMALIZATIONS.fullmatch(scope.rpartition("/")[2]):
        return False
    if not leaves.isdisjoint(STATISTICS_LEAVES):
        return True
    # Slots of gamma and beta may have a scope in front: adam/m/net/bn/offset.
    parts = scope.split("/")[-_MAX_SCOPE_PARTS:]
    return not any("/".join(parts[start:]) in layers for start in range(1, len(parts)))


def _unplaced(
    names: Mapping[str, str], groups: NameGroups, layers: Mapping[str, BNLayer]
) -> dict[str, list[str]]:
    """Return the stored names by scope that are neither a layer's nor slots of a variable."""
    owners = set(names.values())
    taken = {
        variable.name
        for layer in layers.values()
        for members in (layer.variables, layer.helpers, layer.shadows)
        for variable in members.values()
    }
    by_scope: dict[str, list[str]] = {}
    for scope, stored in groups.unknown:
        name = names[stored]
        is_slot = scope in owners or name.rpartition("/")[0] in owners
        if not is_slot and stored not in taken and not _NO_MEMBER.fullmatch(name):
            by_scope.setdefault(scope, []).append(stored)
    return by_scope


def _accumulators(
    variables: Mapping[str, Variable], names: Mapping[str, str], layers: Mapping[str, BNLayer]
) -> set[str]:
    """Return the variables in which gradients are summed over several steps.

    They have one name, which TensorFlow numbers (`sum`, `sum_1`, …), and the shapes of all weights.
    """
    owners = set(names.values())
    statistics = {
        variable.name
        for layer in layers.values()
        for role, variable in (*layer.variables.items(), *layer.helpers.items())
        if role not in AFFINE
    }
    shapes: Counter[tuple[int, ...]] = Counter()
    by_name: dict[str, list[str]] = {}
    for stored, name in names.items():
        if stored in statistics or name.rpartition("/")[0] in owners:
            continue
        if shape := variables[stored].shape:
            shapes[shape] += 1
            by_name.setdefault(_NUMBER.sub("", name), []).append(stored)
    return {
        stored
        for copies in by_name.values()
        if 2 * len(copies) == shapes.total()
        and shapes == Counter(2 * [variables[name].shape for name in copies])
        for stored in copies
    }


def _has_two_of_one_length(variables: Mapping[str, Variable], stored: Iterable[str]) -> bool:
    lengths = Counter(_lengths(variables[name] for name in stored))
    return any(count > 1 for count in lengths.values())


def _lengths(variables: Iterable[Variable]) -> Iterator[int]:
    """Yield the lengths of those variables that are vectors of numbers."""
    for variable in variables:
        sizes = [size for size in variable.shape if size != 1]
        if len(sizes) == 1 and variable.dtype.startswith(_FLOATS):
            yield sizes[0]
