"""The order in which a training wrote its checkpoints: by number in the name, else by step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from bninspect.errors import ReadProblem
from bninspect.evidence.progress import read_step
from bninspect.formats.opening import open_target
from bninspect.locate.trainings import identity, with_trainings
from bninspect.model.filenames import counters, natural_order
from bninspect.model.target import Found, Training

if TYPE_CHECKING:
    from bninspect.model.checkpoint import Engine
    from bninspect.runs.paths import ExpandedPath


def in_trainings(expanded: Sequence[ExpandedPath], engine: Engine) -> list[ExpandedPath]:
    """Return `expanded` with the training of each checkpoint, each training oldest first.

    The checkpoints of a training take the places that they had together.
    """
    found = with_trainings(item for one in expanded for item in one.found)
    for places in _by_training(found).values():
        ordered = oldest_first([found[place] for place in places], engine)
        for place, item in zip(places, ordered, strict=True):
            found[place] = item
    rest = iter(found)
    return [one._replace(found=tuple(next(rest) for _ in one.found)) for one in expanded]


def _by_training(found: Sequence[Found]) -> dict[Training, list[int]]:
    places: dict[Training, list[int]] = {}
    for place, item in enumerate(found):
        if item.training is not None:
            places.setdefault(item.training, []).append(place)
    return places


def oldest_first(found: Sequence[Found], engine: Engine) -> list[Found]:
    """Return the checkpoints of one training in the order in which they were written.

    The number that counts them in their names tells. Where names do not (they hold a metric as
    well, or there are `best.h5` and `last.h5` beside `epoch-1.h5`) their stored steps do, if all
    have one and no counted name contradicts; else they stay in natural order. An optimizer that was
    made anew counts its steps from 0 again: then steps contradict the names, and names are right.
    """
    ordered = sorted(found, key=lambda item: natural_order(item.path))
    groups = [_counted(places, ordered) for places in _by_training(ordered).values()]
    if len(groups) == 1 and groups[0] is not None and len(groups[0]) == len(ordered):
        return [ordered[place] for place in groups[0]]
    steps = [_stored_step(item, engine) for item in ordered]
    known = [step for step in steps if step is not None]
    if len(known) < len(steps) or any(_fall(known, group) for group in groups if group):
        return ordered
    return [ordered[place] for place in sorted(range(len(ordered)), key=known.__getitem__)]


def _fall(steps: Sequence[int], places: Sequence[int]) -> bool:
    return any(steps[a] > steps[b] for a, b in pairwise(places))


def _counted(places: Sequence[int], found: Sequence[Found]) -> list[int] | None:
    """Return the places of one training in the order that its names count; None if they do not."""
    numbers = counters([identity(found[place]) for place in places])
    if numbers is None:
        return None
    return [place for _, place in sorted(zip(numbers, places, strict=True))]


def _stored_step(found: Found, engine: Engine) -> int | None:
    if found.target is None:
        return None
    try:
        with open_target(found.path, found.target, engine) as checkpoint:
            return read_step(checkpoint)
    except ReadProblem:
        return None  # examining it reports the problem
