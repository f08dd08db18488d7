"""Keras weights in several files: NAME.weights.json and NAME_00000.weights.h5, ….

The map (ShardedH5IOStore of keras/src/saving/saving_lib.py, from Keras 3.10 on) is JSON:

    {"metadata": {"total_size": BYTES}, "weight_map": {"/layers/dense/vars": FILE or [FILE, …]}}

Each file has the layout of `weights_h5`. The variables of one layer may be in two files, of which
only the first has the layer's name. Only files in the map's own directory are opened.
"""

from __future__ import annotations

import os
from typing import Any

from bninspect.errors import Corrupt, Incomplete, UnknownFormat
from bninspect.formats.hdf5.file import Hdf5, join
from bninspect.formats.hdf5.structure import DAMAGED
from bninspect.formats.keras.stored_objects import Owner
from bninspect.formats.keras.weights_h5 import scan, weights_checkpoint
from bninspect.model.checkpoint import Checkpoint
from bninspect.storage import filesystem
from bninspect.storage.json_file import read_json
from bninspect.storage.source import Budget

_MAX_MAP = 64 << 20  # bytes
_MAX_SHARDS = 2_000  # each keeps a file open


def open_keras_shards(
    path: str, map_path: str, notes: tuple[str, ...] = (), *, live: bool = False
) -> Checkpoint:
    """Open the sharded weights whose map is at `map_path`; `path` is what the user typed.

    `live` is that of `Target`. Raises a `ReadProblem` if the map is not one, or if a file or group
    that it names is missing or damaged.
    """
    shards = _Shards(map_path, live=live)
    try:
        for name, groups in read_map(map_path).items():
            shards.add(name, groups)
        return weights_checkpoint(
            path,
            map_path,
            "keras-weights-h5",
            shards.owners,
            shards.files,
            notes=notes,
            close=shards.close,
        )
    except BaseException:
        shards.close()
        raise


class _Shards:
    """The opened files of one checkpoint, and the objects in all of them together.

    `files` has the file of each variable, by the variable's path.
    """

    def __init__(self, map_path: str, *, live: bool) -> None:
        self._map_path, self._live = map_path, live
        self._opened: list[Hdf5] = []
        self._budget = Budget()
        self._names: dict[str, str] = {}
        self._members: dict[str, list[str]] = {}
        self.files: dict[str, Hdf5] = {}

    def add(self, name: str, groups: list[str]) -> None:
        """Open a shard, in which the map says that some groups are."""
        file = self._open(name)
        owners = scan(file)
        for group, owner in owners.items():
            if owner.name:
                self._names.setdefault(group, owner.name)
        # Groups that the map leaves out are read too, so that none of them passes unseen.
        not_in_map = [group for group, owner in owners.items() if owner.members]
        for group in dict.fromkeys([*groups, *not_in_map]):
            if group not in owners:
                raise Incomplete(
                    self._map_path,
                    f"{group or 'the model'} should be in {name}, but is not",
                    "The files belong to different checkpoints; copy them again.",
                )
            for member in owners[group].members:
                self._members.setdefault(group, []).append(member)
                self.files.setdefault(join(join(group, "vars"), member), file)

    def _open(self, name: str) -> Hdf5:
        path = filesystem.named_in(os.path.dirname(self._map_path), name)
        if not filesystem.is_file(path):
            raise Incomplete(
                self._map_path,
                f"{name}, which it names, does not exist",
                "Copy all files of the checkpoint.",
            )
        self._budget.grant(filesystem.size_of(path))
        file = Hdf5(path, budget=self._budget, live=self._live)
        self._opened.append(file)
        return file

    @property
    def owners(self) -> dict[str, Owner]:
        """Return the objects with variables by their group, each with the members in all shards."""
        return {
            group: Owner(
                self._names.get(group, ""), tuple(dict.fromkeys(self._members.get(group, ())))
            )
            for group in (*self._names, *self._members)
        }

    def close(self) -> None:
        """Close all files."""
        for file in self._opened:
            file.close()


def read_map(map_path: str) -> dict[str, list[str]]:
    """Return the groups in each shard, in the order of the map; raises a `ReadProblem`."""
    contents = read_json(map_path, "a map of weights", _MAX_MAP, DAMAGED)
    weight_map = contents.get("weight_map") if isinstance(contents, dict) else None
    if not isinstance(weight_map, dict):
        raise UnknownFormat(
            map_path,
            "this is JSON, but not a map of Keras weights (it has no weight_map)",
            "Check that it is the right file.",
        )
    shards: dict[str, list[str]] = {}
    for group, stored in weight_map.items():
        for shard in stored if isinstance(stored, list) else [stored]:
            _require_shard_name(map_path, shard)
            head, _, last = f"/{group}".rpartition("/")
            if last != "vars":
                raise Corrupt(
                    map_path, f"{group}, which it names, is not a group of variables", DAMAGED
                )
            shards.setdefault(shard, []).append(head.strip("/"))
    if len(shards) > _MAX_SHARDS:
        raise Corrupt(map_path, f"it names {len(shards)} files, more than {_MAX_SHARDS}", DAMAGED)
    return shards


def _require_shard_name(map_path: str, shard: Any) -> None:
    if not isinstance(shard, str) or not shard.endswith(".h5"):
        raise UnknownFormat(
            map_path,
            "the files in its weight_map are not HDF5 files of Keras",
            "bninspect reads TensorFlow and Keras files.",
        )
    if "/" in shard or filesystem.name_below(shard) is None:
        raise Corrupt(
            map_path,
            f"it names {shard!r}, which is not a file in its own directory",
            "Keras never writes this; use another file.",
        )
