"""BN layers of a tree that are not judged, since their statistics have unknown names, or none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from bninspect.batchnorm.families import FAMILIES
from bninspect.model.checkpoint import UncheckedGroup

Path = tuple[str, ...]
Members = dict[str, str]  # the last part of a path → the name as stored

_STATISTICS = "batch_stats"
_KNOWN = frozenset[str]().union(
    *(leaves for row in FAMILIES if row.named_by == "tree" for leaves in row.statistics)
)
_ELSEWHERE = [row.statistics for row in FAMILIES if row.named_by != "tree" and not row.by_shape]
_COUNTERS = {"count", "counter", "step"}
# What flax.linen.SpectralNorm keeps in the same collection, below the name of a kernel
# (flax/linen/normalization.py).
_OF_SPECTRAL_NORM = re.compile(r"(.*/)?(u|sigma)", re.DOTALL)
_OTHER_NAMES = "its statistics have other names than those of BN layers in Flax and Haiku"
# The attributes of equinox.nn.BatchNorm that lead to its averages, in 0.13 and before
# (equinox/nn/_batch_norm.py). The averages are in a State, which numbers all arrays in it.
_OF_EQUINOX = {"state_index", "ema_state_index", "batch_state_index"}
_IN_STATE = (
    "Equinox keeps its averages in a State without names, so nothing shows which are this layer's"
)


def of_other_names(groups: Mapping[Path, Members]) -> Iterator[UncheckedGroup]:
    """Yield the groups of variables that have the names of statistics elsewhere.

    These are the names of other frameworks, and all of what `batch_stats` holds.
    """
    for scope, members in groups.items():
        stored = {leaf: name for leaf, name in members.items() if _may_be_statistic(leaf)}
        if _STATISTICS in scope:
            may_be_bn = len(stored) > 1
        else:
            may_be_bn = any(
                all(leaves & stored.keys() for leaves in statistics) for statistics in _ELSEWHERE
            )
        if may_be_bn and _KNOWN.isdisjoint(stored):
            yield UncheckedGroup("/".join(scope), tuple(stored.values()), _OTHER_NAMES)


def _may_be_statistic(leaf: str) -> bool:
    return leaf not in _COUNTERS and _OF_SPECTRAL_NORM.fullmatch(leaf) is None


def of_equinox(groups: Mapping[Path, Members], others: Iterable[Path]) -> Iterator[UncheckedGroup]:
    """Yield the BN layers of Equinox, by the paths of values that are no arrays."""
    for layer in dict.fromkeys(filter(None, map(_before_averages, others))):
        members = groups.get(layer, {})
        yield UncheckedGroup("/".join(layer), tuple(members.values()), _IN_STATE, nameable=False)


def _before_averages(path: Path) -> Path:
    """Return the path before the first attribute that leads to averages; empty without one."""
    first = next((index for index, part in enumerate(path) if part in _OF_EQUINOX), 0)
    return path[:first]
