"""Keras weights in several files: NAME.weights.json and NAME_00000.weights.h5, ….

The map (ShardedH5IOStore of keras/src/saving/saving_lib.py, from Keras 3.10 on) is JSON:

    {"metadata": {"total_size": BYTES}, "weight_map": {"/layers/dense/vars": FILE or [FILE, …]}}

Each file has the layout of keras_weights.py; the variables of one layer may lie in two files, of
which only the first tells the layer's name. Files are taken from the map's own directory alone.
"""

from __future__ import annotations

import json
import os
from typing import Any

from bninspect.errors import Corrupt, Incomplete, UnknownFormat
from bninspect.formats.hdf5.file import Hdf5, join
from bninspect.formats.hdf5.structure import DAMAGED
from bninspect.formats.keras.stored_objects import Owner
from bninspect.formats.keras.weights_h5 import scan, weights_checkpoint
from bninspect.model.checkpoint import Checkpoint
from bninspect.storage import filesystem
from bninspect.storage.source import Budget, Source

_MAX_MAP = 64 << 20
_MAX_SHARDS = 2_000  # each open file takes HDF5 some 0.6 MB of memory


def open_keras_shards(
    path: str, map_path: str, notes: tuple[str, ...] = (), *, live: bool = False
) -> Checkpoint:
    """Open the weights that the map at `map_path` tells of; `path` is what the user typed.

    `live` is that of `Target`.

    Raises a `ReadProblem` if the map is none, if a file or a group in it is missing or damaged.
    """
    shards = read_map(map_path)
    opened: list[Hdf5] = []
    budget = Budget()

    def close() -> None:
        for file in opened:
            file.close()

    names: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    places: dict[str, Hdf5] = {}
    try:
        for shard, groups in shards.items():
            shard_path = filesystem.named_in(os.path.dirname(map_path), shard)
            if not filesystem.is_file(shard_path):
                raise Incomplete(
                    map_path,
                    f"{shard}, which it names, is not there",
                    "Copy all files of the checkpoint.",
                )
            budget.grant(filesystem.size_of(shard_path))
            opened.append(Hdf5(shard_path, budget=budget, live=live))
            owners = scan(opened[-1])
            for group, owner in owners.items():
                if owner.name:
                    names.setdefault(group, owner.name)
            # What a shard holds besides is read, too: nothing passes because a map leaves it out.
            besides = [group for group, owner in owners.items() if owner.members]
            for group in dict.fromkeys([*groups, *besides]):
                if group not in owners:
                    raise Incomplete(
                        map_path,
                        f"{group or 'the model'} should lie in {shard}, but does not",
                        "The files belong to different checkpoints; copy them again.",
                    )
                for member in owners[group].members:
                    members.setdefault(group, []).append(member)
                    places.setdefault(join(join(group, "vars"), member), opened[-1])
        stored = {
            group: Owner(names.get(group, ""), tuple(dict.fromkeys(members.get(group, ()))))
            for group in (*names, *members)
        }
        return weights_checkpoint(
            path, map_path, "keras-weights-h5", stored, places, notes=notes, close=close
        )
    except BaseException:
        close()
        raise


def read_map(map_path: str) -> dict[str, list[str]]:
    """Shard → the groups in it, in the order of the map."""
    with Source(map_path) as source:
        if source.size > _MAX_MAP:
            raise Corrupt(map_path, "it is too large for a map of weights", DAMAGED)
        text = source.read(0, source.size, "the map")
    try:
        contents = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Corrupt(map_path, f"it is no JSON ({error})", DAMAGED) from error
    weight_map = contents.get("weight_map") if isinstance(contents, dict) else None
    if not isinstance(weight_map, dict):
        raise UnknownFormat(
            map_path,
            "this is JSON, but no map of Keras weights (it has no weight_map)",
            "Check that it is the right file.",
        )
    shards: dict[str, list[str]] = {}
    for group, stored in weight_map.items():
        for shard in stored if isinstance(stored, list) else [stored]:
            _require_shard_name(map_path, shard)
            head, _, last = f"/{group}".rpartition("/")
            if last != "vars":
                raise Corrupt(map_path, f"{group} in it is no group of variables", DAMAGED)
            shards.setdefault(shard, []).append(head.strip("/"))
    if len(shards) > _MAX_SHARDS:
        raise Corrupt(map_path, f"it names {len(shards)} files", DAMAGED)
    return shards


def _require_shard_name(map_path: str, shard: Any) -> None:
    if not isinstance(shard, str) or not shard.endswith(".h5"):
        raise UnknownFormat(
            map_path,
            "the files in its weight_map are no HDF5 files of Keras",
            "bninspect reads TensorFlow and Keras files.",
        )
    if (
        shard != os.path.basename(shard)
        or "\\" in shard
        or "\0" in shard
        or shard in ("", ".", "..")
    ):
        raise Corrupt(
            map_path,
            f"it names {shard!r}, which is not a file of its own directory",
            "Keras never writes this; use another file.",
        )
