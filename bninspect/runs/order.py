"""The order in which a training wrote its checkpoints: by number in the name, else by step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING

from bninspect.errors import ReadProblem
from bninspect.evidence.progress import read_step
from bninspect.formats.opening import open_target
from bninspect.locate.trainings import identity, with_trainings
from bninspect.model.filenames import counters, natural_order
from bninspect.model.target import CheckpointLocation, Training
from bninspect.storage import filesystem

if TYPE_CHECKING:
    from bninspect.model.checkpoint import Engine
    from bninspect.runs.paths import ExpandedPath


def in_trainings(expanded: Sequence[ExpandedPath], engine: Engine) -> list[ExpandedPath]:
    """Return `expanded` with the training of each checkpoint, each training oldest first.

    The checkpoints of a training take the places that they had together.
    """
    locations = with_trainings(item for path in expanded for item in path.locations)
    for indexes in _by_training(locations).values():
        ordered = oldest_first([locations[index] for index in indexes], engine)
        for index, item in zip(indexes, ordered, strict=True):
            locations[index] = item
    rest = iter(locations)
    return [path._replace(locations=tuple(next(rest) for _ in path.locations)) for path in expanded]


def _by_training(locations: Sequence[CheckpointLocation]) -> dict[Training, list[int]]:
    indexes: dict[Training, list[int]] = {}
    for index, item in enumerate(locations):
        if item.training is not None:
            indexes.setdefault(item.training, []).append(index)
    return indexes


def oldest_first(
    locations: Sequence[CheckpointLocation], engine: Engine
) -> list[CheckpointLocation]:
    """Return the checkpoints of one training in the order in which they were written.

    The order is that of the number that counts them in their names. If there is none (the names
    hold a metric as well, or there are `best.h5` and `last.h5` beside `epoch-1.h5`), it is that of
    the stored steps, if all have one and no counted name contradicts; else the natural order. The
    steps of an optimizer that was created again start at 0: then the names are right.
    """
    ordered = sorted(locations, key=lambda item: natural_order(item.path))
    groups = [_counted(indexes, ordered) for indexes in _by_training(ordered).values()]
    if len(groups) == 1 and groups[0] is not None and len(groups[0]) == len(ordered):
        return [ordered[index] for index in groups[0]]
    find_step = partial(_stored_step, engine=engine)
    steps = list(filesystem.map_ahead(find_step, ordered, attrgetter("path")))
    known = [step for step in steps if step is not None]
    if len(known) < len(steps) or any(_fall(known, group) for group in groups if group):
        return ordered
    return [ordered[index] for index in sorted(range(len(ordered)), key=known.__getitem__)]


def _fall(steps: Sequence[int], indexes: Sequence[int]) -> bool:
    return any(steps[a] > steps[b] for a, b in pairwise(indexes))


def _counted(indexes: Sequence[int], locations: Sequence[CheckpointLocation]) -> list[int] | None:
    """Return the places of one training in the order that its names count; None if they do not."""
    numbers = counters([identity(locations[index]) for index in indexes])
    if numbers is None:
        return None
    return [index for _, index in sorted(zip(numbers, indexes, strict=True))]


def _stored_step(location: CheckpointLocation, engine: Engine) -> int | None:
    if location.target is None:
        return None
    try:
        with open_target(location.path, location.target, engine) as checkpoint:
            return read_step(checkpoint)
    except ReadProblem:
        return None  # `examine` reports the problem
