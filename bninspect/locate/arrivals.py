"""Checkpoints that arrive in a directory while a training writes into it.

Each look lists the directory and all below it, with a stamp of each file (inode, size, time); files
are opened only if they have changed. Files belong to one checkpoint by their names
(`filenames.checkpoint_of`). A checkpoint is new if one of its files has a stamp that has not been
handled. So it is new if it was written again under its old name, and not if it was renamed or lost
a file.

Times of files are compared with each other, never with a clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from bninspect.locate.discover import Candidate, among, found_at
from bninspect.locate.orbax import step_of
from bninspect.locate.training_directory import unreadable_directory
from bninspect.model.filenames import (
    FIRST_KERAS_SHARD,
    KERAS_MAP,
    KERAS_SHARD,
    ORBAX_MARKERS,
    PART,
    SAVED_MODEL,
    TFJS_JSON,
    V1_SHARD,
    VARIABLES,
    checkpoint_of,
    natural_order,
    without_numbers,
)
from bninspect.model.target import CheckpointLocation, Training
from bninspect.storage import filesystem, run_scope
from bninspect.storage.filesystem import Stamp
from bninspect.storage.walk import walk

# Saver writes the graph last. The graph is not checked, but it can prove causes. If others in the
# directory have one, a checkpoint waits for its own, for this number of seconds.
_GRAPH = ".meta"
_GRAPH_DELAY = 10.0
# The number of looks, one `settle` after the other, that writing a large checkpoint may take.
_LOOKS = 5
# Sub-directories of a SavedModel. Its variables are written before the file that makes it a
# SavedModel (tensorflow/python/saved_model/save.py).
_ASSETS = ("assets", "assets.extra")


class Timing(NamedTuple):
    """Times to wait for files, in seconds.

    Files count as written when they have not changed for `settle`, and as abandoned after `grace`.
    If a training writes so often that none of its files settles for `patience`, files are opened
    before they settle: their content shows whether they are complete.
    """

    settle: float
    grace: float
    patience: float


@dataclass(frozen=True)
class Arrival:
    """Files of one name that may be a checkpoint, not yet opened, at `locations`.

    `name` is their name in `Arrivals`, `stamps` are those of the files, by path. `overdue` says
    that they have not changed for so long that no program can still be writing them.
    """

    name: str
    locations: tuple[CheckpointLocation, ...]
    stamps: Mapping[str, Stamp]
    overdue: bool

    def has_changed(self) -> bool:
        """Return whether a file has been written since; a deleted one has not."""
        now = ((path, filesystem.stamp_of(path)) for path in self.stamps)
        return any(stamp is not None and stamp != self.stamps[path] for path, stamp in now)


class _State(Enum):
    """The state of a pending checkpoint: what it waits for."""

    INCOMPLETE = "a file without which it is no checkpoint of its kind"
    WRITTEN = "its writer, until its files settle"
    FAILED = "a change, since it could not be read as it is"


@dataclass
class _Pending:
    """A checkpoint that has not been handled: its files, unchanged since `since`."""

    name: str
    stamps: dict[str, Stamp]
    candidates: list[Candidate]
    since: float
    state: _State

    @property
    def training(self) -> Training:
        """Return the training that writes it, by the path: nothing is opened or resolved."""
        return _training_of(self.candidates[-1].shown)

    @property
    def written(self) -> int:
        """Return the time when its files were written, in nanoseconds; without its graph."""
        times = [stamp[3] for path, stamp in self.stamps.items() if not path.endswith(_GRAPH)]
        return max(times, default=0)

    @property
    def lacks_graph(self) -> bool:
        """Return whether it is a V2 checkpoint without a graph beside it."""
        return f"{self.name}.index" in self.stamps and f"{self.name}{_GRAPH}" not in self.stamps


class _Look(NamedTuple):
    """The files below a directory, with their stamps, and the directories that cannot be read."""

    files: dict[str, Stamp]
    faults: dict[str, OSError]
    is_there: bool


class _Handled(set[Stamp]):
    """The stamps of files that have been handled."""

    def __init__(self) -> None:
        super().__init__()
        self._present: set[Stamp] = set()

    def forget_gone(self, present: set[Stamp]) -> None:
        """Forget stamps that two looks in a row did not see: a renamed file may be missed once."""
        self.intersection_update(present | self._present)
        self._present = present


class _UnreadableDirectories:
    """The directories that cannot be listed, with the time of the first failure."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._since: dict[str, float] = {}
        self._reported: set[str] = set()

    @property
    def unreported(self) -> list[str]:
        """Return the directories that may become readable before `grace` is over."""
        return [path for path in self._since if path not in self._reported]

    def update(self, faults: Mapping[str, OSError], now: float) -> Iterator[Arrival]:
        """Yield those that have been unreadable for `grace`, each once."""
        self._reported &= faults.keys()
        self._since = {path: self._since.get(path, now) for path in faults}
        for path, error in faults.items():
            if path not in self._reported and now - self._since[path] >= self._grace:
                self._reported.add(path)
                location = CheckpointLocation(path, None, unreadable_directory(path, error))
                yield Arrival(path, (location,), {}, overdue=True)


class Arrivals:
    """The checkpoints that arrive in `directory`, which may be created later.

    At the first look, only the newest checkpoint of each training counts as new (names that differ
    in numbers alone are one training); with `every`, all do. `missed` counts the checkpoints that
    were deleted after they were seen and before they were returned.
    """

    def __init__(self, directory: str, timing: Timing, *, every: bool = False) -> None:
        self._directory = directory
        patience = max(timing.patience, _LOOKS * timing.settle)
        self._timing = timing._replace(patience=patience)
        self._is_first = not every
        self._handled = _Handled()
        self._pending: dict[str, _Pending] = {}
        self._ignored: dict[str, dict[str, Stamp]] = {}  # files that are no checkpoint
        self._busy: dict[Training, float] = {}  # trainings without settled files, and since when
        self._graph_directories: set[str] = set()
        self._unreadable = _UnreadableDirectories(timing.grace)
        self.missed = 0

    @property
    def unsettled(self) -> bool:
        """Return whether a checkpoint may be ready before long."""
        return any(item.state is _State.WRITTEN for item in self._pending.values())

    @property
    def unchecked(self) -> list[str]:
        """Return the names of possible checkpoints, and of unlistable directories, not handled."""
        return sorted([*self._pending, *self._unreadable.unreported], key=natural_order)

    def look(self, now: float) -> list[Arrival]:
        """Return the checkpoints that are ready or overdue, each training oldest first.

        `now` is in seconds, by any clock that never goes back. Each is returned again until
        `settled` or `failed` is called with it, or its files change.
        """
        look = _list(self._directory)
        checkpoints = _by_checkpoint(look.files)
        if not look.faults:
            self.missed += self._count_lost(look.files, checkpoints)
        self._update(checkpoints, now)
        self._update_graphs(look.files)
        if look.is_there and not look.faults:
            self._handled.forget_gone(set(look.files.values()))
        if self._is_first:
            self._keep_newest()
        self._is_first = self._is_first and self._directory in look.faults
        self._update_busy(now)
        newest = _newest_of_trainings(checkpoints)
        return [*self._ready(now, newest), *self._unreadable.update(look.faults, now)]

    def settled(self, arrival: Arrival) -> None:
        """Mark `arrival` as handled: it is new only if it is written again."""
        self._handled.update(arrival.stamps.values())
        self._pending.pop(arrival.name, None)

    def failed(self, arrival: Arrival) -> None:
        """Wait until `arrival`, which cannot be read now, changes or is overdue."""
        if arrival.name in self._pending:
            self._pending[arrival.name].state = _State.FAILED

    def changed(self, arrival: Arrival, now: float) -> None:
        """Wait until `arrival`, which was written while it was read, settles again."""
        if arrival.name in self._pending:
            self._pending[arrival.name].since = now

    def _update(self, checkpoints: Mapping[str, dict[str, Stamp]], now: float) -> None:
        """Update the pending and the ignored checkpoints by the files of a look."""
        for checkpoints_by_name in (self._pending, self._ignored):
            for name in checkpoints_by_name.keys() - checkpoints.keys():
                del checkpoints_by_name[name]
        for name, stamps in checkpoints.items():
            if all(stamp in self._handled or _is_graph(path) for path, stamp in stamps.items()):
                self._pending.pop(name, None)
            elif not self._is_as_it_was(name, stamps):
                self._examine(name, stamps, now)

    def _is_as_it_was(self, name: str, stamps: dict[str, Stamp]) -> bool:
        pending = self._pending.get(name)
        return stamps in (pending and pending.stamps, self._ignored.get(name))

    def _examine(self, name: str, stamps: dict[str, Stamp], now: float) -> None:
        """Look for a checkpoint in files that are new or have changed."""
        candidates = [
            candidate
            for candidate in _candidates(name, stamps)
            if stamps.get(candidate.path) not in self._handled or _is_part(candidate.path)
        ]
        if candidates:
            lacks_last = name.endswith((SAVED_MODEL, KERAS_MAP, TFJS_JSON)) and name not in stamps
            state = _State.INCOMPLETE if lacks_last else _State.WRITTEN
            self._pending[name] = _Pending(name, stamps, candidates, now, state)
        else:
            self._pending.pop(name, None)
            self._ignored[name] = stamps

    def _update_graphs(self, files: Mapping[str, Stamp]) -> None:
        """Update the directories in which graphs are stored.

        Saver may delete the last graph before it writes the next.
        """
        graphs = {os.path.dirname(path) for path in files if _is_graph(path)}
        directories = map(os.path.dirname, files)
        self._graph_directories = graphs | self._graph_directories.intersection(directories)

    def _update_busy(self, now: float) -> None:
        """Update the time since when no file of a training has settled."""
        unsettled = {
            item.training
            for item in self._pending.values()
            if item.state is _State.WRITTEN and now - item.since < self._timing.settle
        }
        self._busy = {training: self._busy.get(training, now) for training in unsettled}

    def _count_lost(self, files: Mapping[str, Stamp], checkpoints: Mapping[str, object]) -> int:
        """Count the checkpoints that are gone, under every name, before they were returned."""
        present = {stamp[:2]: stamp for stamp in files.values()}

        def is_there(stamp: Stamp) -> bool:
            now = present.get(stamp[:2])
            # It may have grown before it was renamed; otherwise another file has its inode.
            return now is not None and (now == stamp or now[2] > stamp[2])

        return sum(
            item.state is _State.WRITTEN and not any(map(is_there, item.stamps.values()))
            for name, item in self._pending.items()
            if name not in checkpoints
        )

    def _keep_newest(self) -> None:
        """Keep the newest of each training pending, and mark the others as handled."""
        newest: dict[Training, str] = {}
        for name in sorted(self._pending, key=self._by_age):
            newest[self._pending[name].training] = name
        for name in self._pending.keys() - newest.values():
            self._handled.update(self._pending.pop(name).stamps.values())

    def _by_age(self, name: str) -> tuple[int, list[tuple[int, str]]]:
        return self._pending[name].written, natural_order(name)

    def _ready(self, now: float, newest: Mapping[Training, str]) -> Iterator[Arrival]:
        given: set[Stamp] = set()
        held: set[Training] = set()  # trainings of which an earlier checkpoint is not ready
        for item in self._in_order():
            overdue = now - item.since >= self._timing.grace
            is_newest = newest.get(_training_of(item.name)) == item.name
            ready = self._may_be_whole(item, now, is_newest=is_newest)
            if not overdue and (item.training in held or not ready):
                held |= {item.training} if item.state is _State.WRITTEN else set()
            elif given.issuperset(item.stamps.values()):  # another name of the same files
                del self._pending[item.name]
            else:
                given.update(item.stamps.values())
                yield Arrival(item.name, tuple(map(_live, item.candidates)), item.stamps, overdue)

    def _in_order(self) -> list[_Pending]:
        """Return the pending checkpoints in the order in which they were written.

        Within a training, this is the order of the numbers in the names: a copy has other times.
        """
        trainings: dict[Training, list[_Pending]] = {}
        for name in sorted(self._pending, key=natural_order):
            item = self._pending[name]
            trainings.setdefault(item.training, []).append(item)
        timed: list[tuple[int, int, _Pending]] = []
        for items in trainings.values():
            times = sorted(item.written for item in items)
            timed += ((time, len(timed), item) for time, item in zip(times, items, strict=True))
        return [item for _, _, item in sorted(timed, key=lambda entry: entry[:2])]

    def _may_be_whole(self, item: _Pending, now: float, *, is_newest: bool) -> bool:
        """Return whether it is time to open a checkpoint."""
        if item.state is not _State.WRITTEN:
            return False
        # The graph of a checkpoint is written before the next checkpoint.
        if is_newest and item.lacks_graph and os.path.dirname(item.name) in self._graph_directories:
            return now - item.since >= _GRAPH_DELAY
        busy = now - self._busy.get(item.training, now)
        return now - item.since >= self._timing.settle or busy >= self._timing.patience


def _list(directory: str) -> _Look:
    """List a directory and all below it."""
    files: dict[str, Stamp] = {}
    faults: dict[str, OSError] = {}
    is_there = True
    run_scope.begin_run()
    filesystem.list_below(directory)
    for folder, names, _, fault in walk(directory, without=_ASSETS):
        if folder == directory and isinstance(fault, FileNotFoundError):
            is_there = False
        elif fault is not None:
            faults[folder] = fault
        for path in (os.path.join(folder, name) for name in names):
            if (stamp := filesystem.stamp_of(path)) is not None:
                files[path] = stamp
    return _Look(files, faults, is_there)


def _by_checkpoint(files: Mapping[str, Stamp]) -> dict[str, dict[str, Stamp]]:
    """Return the files grouped by the checkpoint that they are or will be parts of."""
    checkpoints: dict[str, dict[str, Stamp]] = {}
    for path, stamp in files.items():
        checkpoints.setdefault(_name_of(path, files), {})[path] = stamp
    return checkpoints


def _name_of(path: str, files: Mapping[str, Stamp]) -> str:
    """Return one name for all files of a checkpoint: of a step of Orbax, its directory.

    The map of sharded Keras weights is written after them. `epoch_00012.weights.h5` is a shard only
    if the first one is there, too.
    """
    directory, name = os.path.split(path)
    if any(os.path.join(directory, marker) in files for marker in ORBAX_MARKERS):
        return step_of(directory)
    if checkpoint_of(name) == VARIABLES:
        if os.path.basename(directory) == VARIABLES:
            return os.path.join(os.path.dirname(directory), SAVED_MODEL)
        if (beside := os.path.join(directory, SAVED_MODEL)) in files:
            return beside
    whole = checkpoint_of(path)
    if whole.endswith(KERAS_MAP) and whole not in files and KERAS_SHARD.fullmatch(path):
        first = f"{whole.removesuffix(KERAS_MAP)}_{FIRST_KERAS_SHARD}.weights.h5"
        return whole if first in files else path
    return whole


def _training_of(path: str) -> Training:
    directory, name = os.path.split(path)
    return Training(directory, without_numbers(name))


def _newest_of_trainings(names: Iterable[str]) -> dict[Training, str]:
    """Return the last name of each training, in natural order."""
    newest: dict[Training, str] = {}
    for name in sorted(names, key=natural_order):
        newest[_training_of(name)] = name
    return newest


def _candidates(name: str, paths: Iterable[str]) -> list[Candidate]:
    """Return the checkpoints among files of one name; several if they only seem to be parts."""
    names: dict[str, set[str]] = {}
    for path in paths:
        directory, base = os.path.split(path)
        names.setdefault(directory, set()).add(base)
    parent, base = os.path.split(name)
    if base == SAVED_MODEL and base in names.get(parent, ()):
        names = {parent: {base}}
    return [item for directory, inside in names.items() for item in among(directory, inside)]


def _is_graph(path: str) -> bool:
    return path.endswith(_GRAPH)


def _is_part(path: str) -> bool:
    """Return whether the file that stands for a checkpoint may have been handled with another."""
    return bool(PART.fullmatch(path) or V1_SHARD.fullmatch(path) or path.endswith(".json"))


def _live(candidate: Candidate) -> CheckpointLocation:
    """Return a checkpoint that a training may write at any moment."""
    location = found_at(candidate)
    if location.target is None:
        return location
    return location._replace(target=location.target._replace(live=True))
