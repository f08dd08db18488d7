"""What arrives in a directory while a training writes into it: told by names, sizes and times.

A look lists the directory and all below it; a file is opened only if it has changed. Files that are
one checkpoint belong together by their names (`names.checkpoint_of`), and the checkpoint is new if
one of them is: a file of another inode, size or time than those that were there. So one that is
written anew under its old name is new, and one that got another name, or lost a file, is not.

Times of files are held against each other, never against a clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from bninspect.locate.discover import Candidate, among, found_at
from bninspect.locate.training_directory import unreadable_directory
from bninspect.model.filenames import (
    FIRST_KERAS_SHARD,
    KERAS_MAP,
    KERAS_SHARD,
    PART,
    SAVED_MODEL,
    V1_SHARD,
    checkpoint_of,
    natural_order,
    without_numbers,
)
from bninspect.model.target import Found
from bninspect.storage import filesystem, run_caches
from bninspect.storage.filesystem import Stamp
from bninspect.storage.walk import walk

# A directory, and the name that the checkpoints of a training in it share.
_Training = tuple[str, str]
# Written last, and no part of what is checked: it tells causes if it is there in time. So many
# seconds are given to it where others of the directory have one; a large graph takes some.
_GRAPH = ".meta"
_GRAPH_COMES = 10.0
# So many looks, at which files are still written, are none too many for one large checkpoint.
_LOOKS = 5
# Of a SavedModel; its variables are written before the file that makes a SavedModel of it
# (tensorflow/python/saved_model/save.py).
_ASSETS = ("assets", "assets.extra")
_VARIABLES = "variables"


@dataclass(frozen=True)
class Arrival:
    """Files of one name that may be a checkpoint: `found` in them, not yet opened.

    `overdue` says that they have been as they are for so long that nobody writes them any more.
    `whole` is their name in `Arrivals`, `stamps` are those of the files, by path.
    """

    whole: str
    found: tuple[Found, ...]
    stamps: Mapping[str, Stamp]
    overdue: bool

    def has_changed(self) -> bool:
        """Whether a file was written since; one that is gone was not."""
        with_stamps = ((path, filesystem.stamp_of(path)) for path in self.stamps)
        return any(stamp is not None and stamp != self.stamps[path] for path, stamp in with_stamps)


@dataclass
class _Waiting:
    """Files that are new, since when they are as they are, and whether they have been tried.

    Without `complete` something is missing that will come, if they are what they seem to be.
    """

    stamps: dict[str, Stamp]
    candidates: list[Candidate]
    since: float
    complete: bool
    tried: bool = False


class Arrivals:
    """Looks at `directory`, which need not be there yet, again and again.

    Files count as written when they have not changed for `settle` seconds, and as abandoned after
    `grace`. Where a training writes so often that for `patience` none of its files has settled,
    their content alone tells whether they are whole. Of what lies there at the first look only the
    newest of each name counts as new, names that differ in numbers alone being one; with `every`
    all of it does.

    `missed` counts what was seen and was gone before it could be given.
    """

    def __init__(
        self, directory: str, *, settle: float, grace: float, patience: float, every: bool = False
    ) -> None:
        self._directory, self._settle, self._grace = directory, settle, grace
        self._patience = max(patience, _LOOKS * settle)
        self._every = every
        self._known: set[Stamp] = set()
        self._present: set[Stamp] = set()
        self._waiting: dict[str, _Waiting] = {}
        self._passed: dict[str, dict[str, Stamp]] = {}  # what is no checkpoint, as it is
        self._faults: dict[str, float] = {}  # directories that cannot be read, and since when
        self._told: set[str] = set()
        self._restless: dict[_Training, float] = {}  # of which nothing settles, and since when
        self._with_graphs: set[str] = set()  # directories
        self._first = True
        self.missed = 0
        self.is_there = False

    @property
    def unsettled(self) -> bool:
        """Whether something may be ready before long."""
        return any(one.complete and not one.tried for one in self._waiting.values())

    @property
    def unchecked(self) -> list[str]:
        """What looks like a checkpoint and has not been dealt with, by its name."""
        return sorted(self._waiting, key=natural_order)

    def look(self, now: float) -> list[Arrival]:
        """What is ready, oldest first, and what is overdue.

        `now` is in seconds, by any clock that never goes back. Each is given again until `settled`
        or `failed` is told of it, or its files change.
        """
        listed, faults = self._list()
        whole = _by_checkpoint(listed)
        if not faults:
            self.missed += self._lost(listed, whole)
        self._waiting = {name: one for name, one in self._waiting.items() if name in whole}
        self._passed = {name: one for name, one in self._passed.items() if name in whole}
        for name, stamps in whole.items():
            self._note(name, stamps, now)
        self._note_graphs(listed)
        if self.is_there and not faults:
            # A file may be missed while it gets another name, so one look without it is not enough.
            present = set(listed.values())
            self._known &= present | self._present
            self._present = present
        if self._first and not self._every:
            self._keep_newest()
        self._first = self._first and self._directory in faults
        self._restless = {
            self._training(name): self._restless.get(self._training(name), now)
            for name, one in self._waiting.items()
            if one.complete and not one.tried and now - one.since < self._settle
        }
        return [*self._ready(now), *self._unreadable(faults, now)]

    def settled(self, arrival: Arrival) -> None:
        """`arrival` has been dealt with: it is new only if it is written anew."""
        self._known.update(arrival.stamps.values())
        self._waiting.pop(arrival.whole, None)

    def failed(self, arrival: Arrival) -> None:
        """`arrival` is no checkpoint as it is: wait until it changes, or is overdue."""
        if arrival.whole in self._waiting:
            self._waiting[arrival.whole].tried = True

    def changed(self, arrival: Arrival, now: float) -> None:
        """`arrival` was written while it was read."""
        if arrival.whole in self._waiting:
            self._waiting[arrival.whole].since = now

    def _list(self) -> tuple[dict[str, Stamp], dict[str, OSError]]:
        """The stamps of all files below the directory, and what of it cannot be listed."""
        stamps: dict[str, Stamp] = {}
        faults: dict[str, OSError] = {}
        self.is_there = True
        run_caches.clear_all()
        filesystem.list_below(self._directory)
        for place, names, _, fault in walk(self._directory, without=_ASSETS):
            if place == self._directory and isinstance(fault, FileNotFoundError):
                self.is_there = False
            elif fault is not None:
                faults[place] = fault
            paths = (os.path.join(place, name) for name in names)
            stamps |= {
                path: stamp for path in paths if (stamp := filesystem.stamp_of(path)) is not None
            }
        return stamps, faults

    def _note(self, name: str, stamps: dict[str, Stamp], now: float) -> None:
        """Remember what is new of one checkpoint."""
        if all(one in self._known or path.endswith(_GRAPH) for path, one in stamps.items()):
            self._waiting.pop(name, None)
            return
        waiting = self._waiting.get(name)
        if stamps in (waiting and waiting.stamps, self._passed.get(name)):
            return
        candidates = [
            one
            for one in _candidates(name, stamps)
            if stamps.get(one[1]) not in self._known or _is_part(one[1])
        ]
        if candidates:
            whole = not name.endswith((SAVED_MODEL, KERAS_MAP)) or name in stamps
            self._waiting[name] = _Waiting(stamps, candidates, now, whole)
        else:
            self._waiting.pop(name, None)
            self._passed[name] = stamps

    def _note_graphs(self, listed: Mapping[str, Stamp]) -> None:
        """Remember in which directories graphs are stored."""
        graphs = {os.path.dirname(path) for path in listed if path.endswith(_GRAPH)}
        # Saver may delete the last graph before it writes the next.
        self._with_graphs = graphs | self._with_graphs.intersection(map(os.path.dirname, listed))

    def _lost(self, listed: Mapping[str, Stamp], whole: Mapping[str, object]) -> int:
        """How many have gone, under every name, since they were seen and before they were given."""
        present = {stamp[:2]: stamp for stamp in listed.values()}

        def is_there(stamp: Stamp) -> bool:
            now = present.get(stamp[:2])
            # It may have grown before it was renamed; else its inode is used for another file.
            return now is not None and (now == stamp or now[2] > stamp[2])

        return sum(
            one.complete and not one.tried and not any(map(is_there, one.stamps.values()))
            for name, one in self._waiting.items()
            if name not in whole
        )

    def _keep_newest(self) -> None:
        """Of what lies there at first, keep the newest of each name waiting."""
        newest: dict[_Training, str] = {}
        for name in sorted(self._waiting, key=self._age):
            newest[self._training(name)] = name
        for name in self._waiting.keys() - newest.values():
            self._known.update(self._waiting.pop(name).stamps.values())

    def _ready(self, now: float) -> Iterator[Arrival]:
        given: set[Stamp] = set()
        for name in sorted(self._waiting, key=self._age):
            one = self._waiting[name]
            overdue = now - one.since >= self._grace
            if overdue or (one.complete and not one.tried and self._may_be_whole(name, now)):
                if given.issuperset(one.stamps.values()):  # two names of the same files
                    del self._waiting[name]
                    continue
                given.update(one.stamps.values())
                yield Arrival(name, tuple(map(_live, one.candidates)), one.stamps, overdue)

    def _may_be_whole(self, name: str, now: float) -> bool:
        """Whether it is time to open what waits under that name."""
        one = self._waiting[name]
        lacks_graph = f"{name}.index" in one.stamps and f"{name}{_GRAPH}" not in one.stamps
        if lacks_graph and os.path.dirname(name) in self._with_graphs:
            return now - one.since >= _GRAPH_COMES
        restless = now - self._restless.get(self._training(name), now)
        return now - one.since >= self._settle or restless >= self._patience

    def _training(self, name: str) -> _Training:
        """What those share that a training writes one after the other."""
        directory, base = os.path.split(self._waiting[name].candidates[-1][0])
        return directory, without_numbers(base)

    def _age(self, name: str) -> tuple[int, list[tuple[int, str]]]:
        """A sort key for what waits: when it was written."""
        stamps = self._waiting[name].stamps.items()
        times = [stamp[3] for path, stamp in stamps if not path.endswith(_GRAPH)]
        return max(times, default=0), natural_order(name)

    def _unreadable(self, faults: Mapping[str, OSError], now: float) -> Iterator[Arrival]:
        """The directories that could not be listed for too long; each is told once."""
        self._told &= faults.keys()
        self._faults = {path: self._faults.get(path, now) for path in faults}
        for path, error in faults.items():
            if path not in self._told and now - self._faults[path] >= self._grace:
                self._told.add(path)
                found = Found(path, None, unreadable_directory(path, error))
                yield Arrival(path, (found,), {}, overdue=True)


def _by_checkpoint(listed: Mapping[str, Stamp]) -> dict[str, dict[str, Stamp]]:
    """The files by the checkpoint that they are or will be parts of."""
    whole: dict[str, dict[str, Stamp]] = {}
    for path, stamp in listed.items():
        whole.setdefault(_whole(path, listed), {})[path] = stamp
    return whole


def _whole(path: str, listed: Mapping[str, Stamp]) -> str:
    """One name for all files of a checkpoint.

    The map of sharded Keras weights is written after them, and `epoch_00012.weights.h5` is no part
    of any: it is one if the first is there, too.
    """
    directory, name = os.path.split(path)
    if os.path.basename(directory) == _VARIABLES and checkpoint_of(name) == _VARIABLES:
        return os.path.join(os.path.dirname(directory), SAVED_MODEL)
    whole = checkpoint_of(path)
    if whole.endswith(KERAS_MAP) and whole not in listed and KERAS_SHARD.fullmatch(path):
        first = f"{whole.removesuffix(KERAS_MAP)}_{FIRST_KERAS_SHARD}.weights.h5"
        return whole if first in listed else path
    return whole


def _candidates(whole: str, paths: Iterable[str]) -> list[Candidate]:
    """The checkpoints among files that belong together: one, but for files that only seem to."""
    names: dict[str, set[str]] = {}
    for path in paths:
        directory, name = os.path.split(path)
        names.setdefault(directory, set()).add(name)
    around, name = os.path.split(whole)
    if name in names.get(around, ()) and name == SAVED_MODEL:
        names = {around: {name}}
    return [one for directory, inside in names.items() for one in among(directory, inside)]


def _is_part(path: str) -> bool:
    """Whether the file that stands for a checkpoint may be as it was in another one."""
    return bool(PART.fullmatch(path) or V1_SHARD.fullmatch(path))


def _live(candidate: Candidate) -> Found:
    found = found_at(candidate)
    if found.target is None:
        return found
    return replace(found, target=replace(found.target, live=True))
