"""The layouts that a run knows, by which it reads checkpoints laid out as one before them.

Thousands of checkpoints of a few architectures are what a fleet or a long training has. Their names
are searched for BN layers once for each layout; of the others only the values are read, and judged
all at once. Where anything is not plain, it is judged layer by layer. For every problem there is no
report from here: the checkpoint is then examined in the ordinary way.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from bninspect.errors import BninspectError, ReadProblem
from bninspect.model.report import CheckpointReport
from bninspect.model.target import CheckpointLocation, Target
from bninspect.runs.one_checkpoint import EarlierReports, Wanted
from bninspect.storage import filesystem
from bninspect.storage.urls import is_url

if TYPE_CHECKING:
    from bninspect.runs.known_layout import KnownLayout

_MOST_LAYOUTS = 64
# Checkpoints whose indexes have one size, and of which each has a layout of its own, or one that
# cannot be learned, are not worth learning.
_MOST_OF_A_SIZE = 16
_MOST_BYTES = 1 << 24  # of all indexes; what is known of one takes some ten times its size
_MOST_SIZES = 4096


class KnownLayouts:
    """The layouts of a run, by the size of the index; the least recently used are dropped.

    A layout is learned from the second checkpoint whose index has a size, so that checkpoints that
    have nothing in common cost no more than before. The threads of a worker of a Dask cluster share
    the layouts.
    """

    def __init__(self) -> None:
        self._lock = Lock()  # of `_known`
        self._seen: set[int] = set()
        self._known: OrderedDict[int, list[KnownLayout]] = OrderedDict()
        self._failures: Counter[int] = Counter()  # layouts that could not be learned

    def report(
        self, location: CheckpointLocation, wanted: Wanted, earlier: EarlierReports
    ) -> CheckpointReport | None:
        """Return the report of a checkpoint of a known layout, compared with `earlier` ones.

        None if the layout is not known, or anything about the checkpoint is a problem.
        """
        target = _judged_by_layout(location)
        if target is None or not self._known:
            return None
        from bninspect.formats.tensorflow.v2_layout import read_index

        try:
            with filesystem.unchanged(target.path):
                index = read_index(target.path, sizes=self._known)
                known = None if index is None else self._layout_of(index)
                if index is None or known is None:
                    return None
                return known.report(location, target, index, wanted, earlier)
        except (ReadProblem, MemoryError):
            return None  # the ordinary way says what is wrong

    def learn(self, location: CheckpointLocation) -> None:
        """Learn the layout of a checkpoint that was examined in the ordinary way."""
        target = _judged_by_layout(location)
        if target is None:
            return
        size = _index_size(target.path)
        if size not in self._seen:
            if len(self._seen) < _MOST_SIZES:
                self._seen.add(size)
            return
        if len(self._known.get(size, ())) + self._failures[size] >= _MOST_OF_A_SIZE:
            return
        # A run over one checkpoint needs none of this.
        from bninspect.formats.tensorflow.v2_layout import read_index
        from bninspect.runs.known_layout import learn

        try:
            with filesystem.unchanged(target.path):
                index = read_index(target.path, sizes=self._known)
                if index is not None and self._layout_of(index):
                    return
                layout = learn(location, target)
        except (BninspectError, MemoryError):
            layout = None
        with self._lock:
            if layout is None:
                self._failures[size] += 1
            else:
                self._known.setdefault(size, []).append(layout)
                self._drop_oldest()

    def _layout_of(self, index: bytes) -> KnownLayout | None:
        """Return the known layout of the checkpoints with such an index; None without one."""
        size = len(index)
        with self._lock:
            known = tuple(self._known.get(size, ()))
            if known:
                self._known.move_to_end(size)
        return next((item for item in known if item.layout.matches(index)), None)

    def _drop_oldest(self) -> None:
        """Drop the least recently used layouts beyond the limits; the caller has the lock."""
        while self._are_too_many():
            size, layouts = next(iter(self._known.items()))
            layouts.pop(0)
            if not layouts:
                del self._known[size]

    def _are_too_many(self) -> bool:
        count = sum(map(len, self._known.values()))
        size = sum(size * len(layouts) for size, layouts in self._known.items())
        return count > 1 and (count > _MOST_LAYOUTS or size > _MOST_BYTES)


def _judged_by_layout(location: CheckpointLocation) -> Target | None:
    """Return the target of a local V2 checkpoint of which there is nothing to note, else None."""
    target = location.target
    if target is None or target.kind != "tensor-bundle" or target.notes or is_url(target.path):
        return None
    return target


def _index_size(prefix: str) -> int:
    try:
        return os.path.getsize(prefix + ".index")
    except OSError:
        return -1
