"""Averages of Haiku that no training step updated.

hk.ExponentialMovingAverage keeps a sum `hidden` from 0, a `counter` of updates, and `average`, the
sum without its bias (haiku/_src/moving_averages.py). `init` runs the module once and keeps what is
set first: 0 for `hidden` and `counter`, but for `average` the moments of the batch that `init` got.
So it is `hidden` that shows that nothing was updated.
"""

from __future__ import annotations

from collections.abc import Mapping

from bninspect.model.checkpoint import Variable
from bninspect.model.roles import Role

_COUNTER, _SUM, _AVERAGE = "_ema/counter", "_ema/hidden", "_ema/average"
_ROLES: Mapping[str, Role] = {"mean": "moving_mean", "var": "moving_variance"}


def with_sums_for_averages(
    known: Mapping[str, str], variables: Mapping[str, Variable]
) -> dict[str, str]:
    """Return stored → known names in which the sum stands for an average that was never updated.

    Those of stacked layers have a counter for each layer, and stay (see `sums_for_averages`).
    Raises a `ReadProblem` if a counter cannot be read.
    """
    stored_by_name = {name: stored for stored, name in known.items() if "_ema/" in name}
    changed = {**known}
    for name, stored in stored_by_name.items():
        average = name.removesuffix(_COUNTER)
        if name == average or not _is_zero(variables[stored]):
            continue
        parts = average + _SUM, average + _AVERAGE
        if all(part in stored_by_name for part in parts):
            changed[stored_by_name[parts[0]]], changed[stored_by_name[parts[1]]] = reversed(parts)
    return changed


def sums_for_averages(helpers: Mapping[str, Variable]) -> dict[Role, Variable]:
    """Return the sums of a layer, by its helpers, that stand for averages never updated.

    Raises a `ReadProblem` if a counter cannot be read.
    """
    return {
        role: helpers[name + _SUM]
        for name, role in _ROLES.items()
        if name + _SUM in helpers
        and name + _COUNTER in helpers
        and _is_zero(helpers[name + _COUNTER])
    }


def _is_zero(counter: Variable) -> bool:
    return counter.shape == () and not counter.read().any()
