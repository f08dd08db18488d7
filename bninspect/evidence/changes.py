"""Changes of BN layers between two checkpoints of one training.

A member moved if one of its channels holds another number (-0.0 equals 0). The size of a change is
that of the channel with the largest one, in units of its effect on inference:

- moving_mean: in standard deviations, sqrt(variance + epsilon) of the earlier checkpoint. Inference
  divides by that, so a variance of 0 counts as epsilon (stored, else the family's usual one).
- moving_variance: the change of that standard deviation, as a share of its earlier value.
- gamma and beta: the change itself. They act on normalized values, whose deviation is 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import ReadProblem
from bninspect.model.layer import BNLayer, Change, Movement, Since, Values
from bninspect.model.report import CheckpointReport
from bninspect.model.roles import AFFINE, ROLES, STATISTICS, Role
from bninspect.wording import listed

if TYPE_CHECKING:
    from bninspect.model.graph import Graph

# No scope is nested deeper; a name of a million parts must not take a million tails.
_MAX_PARTS = 64
_NAMED = 3


def match_layers(earlier: Sequence[BNLayer], later: Sequence[BNLayer]) -> dict[int, int]:
    """Match layers by name: the place of a later layer → its place among the earlier ones.

    Layers with the same name belong together. Two others do if the name of one is the end of the
    other's (`inner/bn` and `bn`: containers write different scopes), they have equally many
    channels, and no third layer fits either.
    """
    index_by_name = {layer.name: index for index, layer in enumerate(earlier)}
    matched = {
        index: index_by_name.pop(layer.name)
        for index, layer in enumerate(later)
        if layer.name in index_by_name
    }
    taken = set(matched.values())
    old = [index for index in range(len(earlier)) if index not in taken]
    new = [index for index in range(len(later)) if index not in matched]
    if old and new:
        pairs = list(_by_tails(earlier, old, later, new))
        of_old, of_new = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
        matched |= {b: a for a, b in pairs if of_old[a] == of_new[b] == 1}
    return matched


def _by_tails(
    earlier: Sequence[BNLayer], old: list[int], later: Sequence[BNLayer], new: list[int]
) -> Iterator[tuple[int, int]]:
    """Yield pairs of places whose names may mean one layer: one is the end of the other."""
    names = {earlier[index].name: index for index in old}
    by_tail: dict[str, list[int]] = {}
    for index in old:
        for tail in _tails(earlier[index].name):
            by_tail.setdefault(tail, []).append(index)
    for index in new:
        layer = later[index]
        shorter = [names[tail] for tail in _tails(layer.name) if tail in names]
        for candidate in (*by_tail.get(layer.name, ()), *shorter):
            if earlier[candidate].channels == layer.channels:
                yield candidate, index


def _tails(name: str) -> list[str]:
    """List the ends of a name, part by part, without the name itself."""
    parts = name.split("/")
    first = max(1, len(parts) - _MAX_PARTS)
    return ["/".join(parts[start:]) for start in range(first, len(parts))]


def changes_between(earlier: BNLayer, later: BNLayer) -> dict[Role, Change]:
    """Return the change of each member that both layers hold with one type and channel count.

    Members without channels are left out: nothing of them could have moved.
    """
    pairs = {
        role: (earlier.values[role], values)
        for role, values in later.values.items()
        if role in earlier.values
        and earlier.variables[role].dtype == later.variables[role].dtype
        and earlier.values[role].channels == values.channels > 0
    }
    changes = {}
    with np.errstate(all="ignore"):  # a change may be infinite or NaN
        for role, (before, after) in pairs.items():
            moved = _moved(before.array, after.array)
            if moved.any():
                changes[role] = Change(True, _largest(role, moved, pairs, later))
            else:
                changes[role] = Change(False, 0.0)
    return changes


def _moved(before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    """Return which channels hold another number than before; a NaN that stays NaN did not move."""
    moved: NDArray[Any] = np.not_equal(before, after)
    if before.dtype.kind == "f":
        moved &= ~(np.isnan(before) & np.isnan(after))
    return moved


def _largest(
    role: Role, moved: NDArray[Any], pairs: Mapping[Role, tuple[Values, Values]], layer: BNLayer
) -> float | None:
    before, after = (values.array.astype(np.float64) for values in pairs[role])
    if role in AFFINE:
        change = np.abs(after - before)
    else:
        variances = pairs.get("moving_variance")
        if variances is None or variances[0].channels != before.size:
            return None
        epsilon = layer.usual_epsilon if layer.epsilon is None else layer.epsilon
        deviation = np.sqrt(variances[0].array.astype(np.float64) + epsilon)
        if role == "moving_variance":
            change = np.abs(np.sqrt(after + epsilon) - deviation) / deviation
        else:
            change = np.abs(after - before) / deviation
    return float(np.max(change[moved]))


def facts_of_training(steps: Sequence[int | None], changed: int, total: int) -> tuple[str, ...]:
    """Return sentences that show that a network was trained between two checkpoints.

    `steps` are those stored in the earlier one, in those between, and in the later one; the counter
    may have been reset. `changed` of `total` layers have another gamma or beta.
    """
    facts = []
    went = [f"from {first} to {last}" for first, last in _rises(steps) if first < last]
    if went:
        facts.append(f"the stored step went {', then '.join(went)}")
    if changed:
        facts.append(f"gamma or beta moved in {changed} of {total} BN layers")
    return tuple(facts)


def _rises(steps: Sequence[int | None]) -> list[tuple[int, int]]:
    """Return the first and last step of each run of stored steps that do not go back."""
    stored = [step for step in steps if step is not None]
    backs = [index for index, (a, b) in enumerate(pairwise(stored), 1) if a > b]
    ends = (*backs, len(stored)) if stored else ()
    return [(stored[a], stored[b - 1]) for a, b in zip((0, *backs), ends, strict=False)]


def differences(before: BNLayer, after: BNLayer, roles: Sequence[Role] = ROLES) -> Iterator[str]:
    """Yield clauses for members that are stored with another type or number of channels."""
    changed: dict[tuple[str, str], list[Role]] = {}
    for role in roles:
        pair = _stored(before, role), _stored(after, role)
        if pair[0] != pair[1]:
            changed.setdefault(pair, []).append(role)
    for (old, new), alike in changed.items():
        yield f"{', '.join(alike)}: from {old} to {new}"


def _stored(layer: BNLayer, role: Role) -> str:
    variable = layer.variables.get(role)
    if variable is None:
        return "nothing stored"
    return f"{variable.size} x {variable.dtype}"


def affine_moved(changes: Mapping[Role, Change]) -> bool:
    """Return whether gamma or beta moved."""
    return any(role in changes and changes[role].moved for role in AFFINE)


def stood_still(layer: BNLayer, changes: Mapping[Role, Change]) -> bool:
    """Return whether all statistics that the layer stores could be compared, and none moved."""
    stored = [role for role in STATISTICS if role in layer.variables]
    return bool(stored) and all(role in changes and not changes[role].moved for role in stored)


def with_since(
    layers: Sequence[BNLayer], step: int | None, earlier: CheckpointReport
) -> tuple[list[BNLayer], tuple[str, ...]]:
    """Return the layers with their changes since `earlier`, and notes on what is not compared."""
    called = earlier.path if earlier.step is None else f"{earlier.path} (step {earlier.step})"
    matched = match_layers(earlier.layers, layers)
    changes = {
        index: changes_between(earlier.layers[before], layers[index])
        for index, before in matched.items()
    }
    changed = sum(map(affine_moved, changes.values()))
    facts = facts_of_training((earlier.step, step), changed, len(layers))
    compared = [
        replace(
            layer,
            since=Since(
                called,
                changes[index],
                facts,
                _moved_before(earlier.layers[matched[index]], called, earlier),
            ),
        )
        if index in changes
        else layer
        for index, layer in enumerate(layers)
    ]
    return compared, tuple(_not_compared(compared, earlier, matched))


def _moved_before(layer: BNLayer, called: str, earlier: CheckpointReport) -> Movement | None:
    """Return the last interval up to `earlier` in which a statistic of its `layer` moved."""
    since = layer.since
    if since is None:
        return None
    if any(role in since.changes and since.changes[role].moved for role in STATISTICS):
        return Movement(f"from {since.earlier} to {called}", earlier.graphs)
    return since.moved_before


def moved_before_with(layer: BNLayer, graphs: Callable[[], Sequence[Graph]]) -> str | None:
    """Return the last earlier interval in which statistics moved with the same graph, or None.

    Graphs are the same if they have the same nodes and edges, or if one of both cannot be read.
    """
    before = None if layer.since is None else layer.since.moved_before
    if before is None:
        return None
    try:
        then, now = map(_edges, (before.graphs(), graphs()))
    except ReadProblem:
        return before.when
    return before.when if not then or then == now else None


def _edges(graphs: Sequence[Graph]) -> list[tuple[Any, ...]]:
    return [(graph.names, graph.operations, graph.inputs, graph.controls) for graph in graphs]


def is_compared(layer: BNLayer) -> bool:
    """Return whether a statistic could be compared with that of an earlier checkpoint."""
    return layer.since is not None and any(role in layer.since.changes for role in STATISTICS)


def _not_compared(
    layers: Sequence[BNLayer], earlier: CheckpointReport, matched: Mapping[int, int]
) -> Iterator[str]:
    """Yield notes on layers of either checkpoint that cannot be compared."""
    new = [layer.name for index, layer in enumerate(layers) if index not in matched]
    if new:
        yield (
            f"{earlier.path} lacks {len(new)} of {len(layers)} BN layers{_some(new)}: BN107 cannot"
            " be judged there"
        )
    taken = {*matched.values()}
    gone = [layer.name for index, layer in enumerate(earlier.layers) if index not in taken]
    if gone:
        total = len(earlier.layers)
        yield f"{len(gone)} of {total} BN layers of {earlier.path} are not in it{_some(gone)}"
    names_by_difference: dict[str, list[str]] = {}
    for index, before in matched.items():
        layer = layers[index]
        changes = layer.since.changes if layer.since is not None else {}
        roles = [role for role in STATISTICS if role in layer.variables and role not in changes]
        for difference in differences(earlier.layers[before], layer, roles):
            names_by_difference.setdefault(difference, []).append(layer.name)
    for difference, names in names_by_difference.items():
        yield (
            f"{len(names)} of {len(layers)} BN layers cannot be compared with {earlier.path}"
            f"{_some(names)}: {difference}"
        )


def _some(names: Sequence[str]) -> str:
    return f" ({listed(names, _NAMED)})"


def contradictions(
    layers: Sequence[BNLayer], step: int | None, earlier: CheckpointReport
) -> Iterator[str]:
    """Yield notes on contradictions to `earlier` being the earlier checkpoint."""
    changes = [change for layer in layers if layer.since for change in layer.since.changes.values()]
    if changes and not any(change.moved for change in changes) and step == earlier.step:
        yield f"nothing of the BN layers differs from {earlier.path}: is it the same?"
    if step is not None and earlier.step is not None and step < earlier.step:
        yield (
            f"its step, {step}, lies before that of {earlier.path}, {earlier.step}, which should be"
            " the earlier one (an optimizer that was made anew, as by compiling again, counts"
            " from 0)"
        )


def not_followed(
    earlier: CheckpointReport, layers: Sequence[BNLayer], step: int | None
) -> tuple[str, ...] | None:
    """Return why `layers` are not a later state of the training of `earlier`; None if they are.

    Equal layers and a later step show that it is one. Different models in one directory may have
    file names that differ only in numbers (`resnet50.h5`, `resnet101.h5`; `fold_1.h5`,
    `fold_2.h5`). A step that is not later may also belong to an optimizer that was created again.
    The files do not show which, so there is a note if statistics stood still.
    """
    shapes, earlier_shapes = (
        [(layer.name, layer.channels) for layer in compared]
        for compared in (layers, earlier.layers)
    )
    if shapes != earlier_shapes:
        return ()
    if step is None or earlier.step is None or step > earlier.step:
        return None
    pairs = zip(earlier.layers, layers, strict=True)
    compared = ((after, changes_between(before, after)) for before, after in pairs)
    still = sum(
        stood_still(layer, changes) and affine_moved(changes) for layer, changes in compared
    )
    if not still:
        return ()
    note = (
        f"not compared with {earlier.path} before it, since its step, {step}, is not later than"
        f" {earlier.step}; but in {still} of {len(layers)} BN layers the statistics are the same,"
        " gamma or beta are not. If it is one training, whose optimizer was made anew (as by"
        f" compiling again), BN107 needs --since {earlier.path}"
    )
    return (note,)
