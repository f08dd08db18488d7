"""Variables outside of all layers that were found by names, which may be BN layers by other names.

This decides only whether the graph beside a checkpoint is searched: a question of time, not of
truth. So it is asked of names first, and of shapes where names leave it open.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping

from bninspect.batchnorm.name_groups import STATISTICS_LEAVES, NameGroups
from bninspect.model.checkpoint import Variable

# Scopes of other normalizations, which have gamma and beta without statistics.
_OTHER_NORMALIZATIONS = re.compile(
    r"(.*_)?(layer|instance|group|rms|ln|gn|in)_?(norm(alization)?|ln)?(_?\d+)?", re.IGNORECASE
)
_FLOATS = ("float", "bfloat")
_MEMBERS = STATISTICS_LEAVES | {"gamma", "beta", "beat", "scale", "offset", "shift"}


def may_hold_more(
    variables: Mapping[str, Variable],
    names: Mapping[str, str],
    groups: NameGroups,
    found: Container[str],
) -> bool:
    """Return whether a scope without a layer may hold one.

    It may if it has gamma or beta, or two vectors of one length that are no slots of an optimizer.
    `names` are all names by key, `found` the scopes of layers.
    """
    left = [
        scope
        for scope, group in groups.groups.items()
        if scope not in found and not _MEMBERS.isdisjoint(group)
    ]
    if any(not _OTHER_NORMALIZATIONS.fullmatch(scope.rpartition("/")[2]) for scope in left):
        return True
    owners = set(names.values())
    by_scope: dict[str, list[str]] = {}
    for scope, stored in groups.unknown:
        if scope not in owners:
            by_scope.setdefault(scope, []).append(stored)
    return any(_has_two_of_one_length(variables, stored) for stored in by_scope.values())


def _has_two_of_one_length(variables: Mapping[str, Variable], stored: Iterable[str]) -> bool:
    lengths = Counter(_lengths(variables[name] for name in stored))
    return any(count > 1 for count in lengths.values())


def _lengths(variables: Iterable[Variable]) -> Iterator[int]:
    """Yield the lengths of those variables that are vectors of numbers."""
    for variable in variables:
        sizes = [size for size in variable.shape if size != 1]
        if len(sizes) == 1 and variable.dtype.startswith(_FLOATS):
            yield sizes[0]
