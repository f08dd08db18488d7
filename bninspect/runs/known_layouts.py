"""The layouts that a run knows, by which it reads checkpoints laid out as one before them.

Thousands of checkpoints of a few architectures are what a fleet or a long training has. Their names
are searched for BN layers once for each layout; of the others only the values are read, and judged
all at once. Where anything is not plain, it is judged layer by layer. For every problem there is no
report from here: the checkpoint is then examined in the ordinary way.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from contextlib import closing
from threading import Lock
from typing import TYPE_CHECKING

from bninspect.errors import BninspectError, ReadProblem
from bninspect.model.report import CheckpointReport
from bninspect.model.target import CheckpointLocation, Target
from bninspect.runs.one_checkpoint import EarlierReports, Wanted
from bninspect.storage import filesystem
from bninspect.storage.urls import is_url

if TYPE_CHECKING:
    from bninspect.runs.known_layout import KnownLayout, OpenHead

_BUNDLE = "tensor-bundle"
_KINDS = (_BUNDLE, "hdf5", "keras-zip")
_Key = tuple[str, int]  # see `_key_of`

_MOST_LAYOUTS = 64
# Checkpoints whose indexes have one size, and of which each has a layout of its own, or one that
# cannot be learned, are not worth learning.
_MOST_OF_A_SIZE = 16
_FIRST_OF_A_SIZE = 4  # until one of them is known again
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
        self._seen: set[_Key] = set()
        self._known: OrderedDict[_Key, list[KnownLayout]] = OrderedDict()
        self._useful: set[_Key] = set()  # sizes of which a layout was known again
        self._misses: Counter[_Key] = Counter()  # one after the other, of checkpoints of a size
        self._failures: Counter[_Key] = Counter()  # layouts that could not be learned

    def report(
        self, location: CheckpointLocation, wanted: Wanted, earlier: EarlierReports
    ) -> CheckpointReport | None:
        """Return the report of a checkpoint of a known layout, compared with `earlier` ones.

        None if the layout is not known, or anything about the checkpoint is a problem.
        """
        target = _judged_by_layout(location)
        if target is None or not self._known:
            return None
        if wanted.config.verify and target.kind != _BUNDLE:
            return None  # a note says that nothing was verified, or more is to be
        from bninspect.runs.known_layout import open_head

        try:
            with filesystem.unchanged(target.path), closing(open_head(target)) as head:
                key = target.kind, head.size
                known = self._layout_of(key, head)
                self._note(key, is_known=known is not None)
                if known is None:
                    return None
                return known.report(location, target, head, wanted, earlier)
        except (ReadProblem, MemoryError):
            return None  # the ordinary way says what is wrong

    def learn(self, location: CheckpointLocation) -> None:
        """Learn the layout of a checkpoint that was examined in the ordinary way."""
        target = _judged_by_layout(location)
        if target is None:
            return
        key = _key_of(target)
        if key not in self._seen:
            if len(self._seen) < _MOST_SIZES:
                self._seen.add(key)
            return
        most = _MOST_OF_A_SIZE if key in self._useful else _FIRST_OF_A_SIZE
        if len(self._known.get(key, ())) + self._failures[key] >= most:
            return
        # A run over one checkpoint needs none of this.
        from bninspect.runs.known_layout import learn, open_head

        try:
            with filesystem.unchanged(target.path):
                if self._known:
                    with closing(open_head(target)) as head:
                        if self._layout_of(key, head):
                            return
                layout = learn(location, target)
        except (BninspectError, MemoryError):
            layout = None
        with self._lock:
            if layout is None:
                self._failures[key] += 1
            else:
                self._known.setdefault(key, []).append(layout)
                self._drop_oldest()

    def _note(self, key: _Key, *, is_known: bool) -> None:
        """Note whether a layout was known; give up a size of which it never is any more."""
        with self._lock:
            if is_known:
                self._useful.add(key)
            if is_known or key not in self._known:
                self._misses.pop(key, None)
                return
            self._misses[key] += 1
            if self._misses[key] > 2 * _MOST_OF_A_SIZE:
                del self._known[key]
                self._failures[key] = _MOST_OF_A_SIZE

    def _layout_of(self, key: _Key, head: OpenHead) -> KnownLayout | None:
        """Return the known layout of a checkpoint; None without one. Raises a `ReadProblem`."""
        with self._lock:
            known = tuple(self._known.get(key, ()))
            if known:
                self._known.move_to_end(key)
        return next((item for item in known if item.layout.matches(head)), None)

    def _drop_oldest(self) -> None:
        """Drop the least recently used layouts beyond the limits; the caller has the lock."""
        while self._are_too_many():
            key, layouts = next(iter(self._known.items()))
            layouts.pop(0)
            if not layouts:
                del self._known[key]

    def _are_too_many(self) -> bool:
        count = sum(map(len, self._known.values()))
        size = sum(item.layout.weight for layouts in self._known.values() for item in layouts)
        return count > 1 and (count > _MOST_LAYOUTS or size > _MOST_BYTES)


def _judged_by_layout(location: CheckpointLocation) -> Target | None:
    """Return the target of a local checkpoint of which there is nothing to note, else None.

    Only V2 checkpoints and Keras files have layouts that can be known.
    """
    target = location.target
    if target is None or target.kind not in _KINDS or target.notes or is_url(target.path):
        return None
    return None if target.live else target


def _key_of(target: Target) -> _Key:
    """Return the kind of a checkpoint, and the size of the file with its structure."""
    try:
        is_bundle = target.kind == _BUNDLE
        return target.kind, os.path.getsize(f"{target.path}.index" if is_bundle else target.path)
    except OSError:
        return target.kind, -1
