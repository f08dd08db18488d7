"""Fingerprints of checkpoints, which show whether files have changed, without opening them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256

from bninspect.errors import ReadProblem
from bninspect.locate.trainings import identity
from bninspect.model.filenames import (
    ALL_V1_SHARDS,
    ORBAX_COMMIT,
    ORBAX_MARKERS,
    VARIABLES,
    graph_files,
)
from bninspect.model.target import CheckpointLocation, Target
from bninspect.storage.filesystem import stamp_of
from bninspect.storage.urls import is_url


def fingerprint_of(location: CheckpointLocation) -> str | None:
    """Return 16 hex digits, made of a checkpoint's real path and of its files' sizes and times.

    The files are those that every save writes: the ones that name the others (an index, a map, a
    first shard, a graph), and the data if it is one file. None if it cannot be opened.
    """
    if location.target is None or location.target.kind == "directory":
        return None
    try:
        identity_, files = identity(location), tuple(_files(location.target))
    except ReadProblem:  # a server does not answer
        return None
    stamps = []
    for file in files:
        stamp = stamp_of(file)
        if stamp is not None:
            # Without the inode, which a copy or another mount changes; an object has a version.
            stamps.append((os.path.basename(file), stamp[1 if is_url(file) else 2 :]))
    if not stamps:
        return None
    text = repr((identity_, stamps)).encode("utf-8", "surrogatepass")
    return sha256(text).hexdigest()[:16]


def _files(target: Target) -> Iterator[str]:
    path = target.path
    if target.kind == "saved-model":
        from bninspect.storage.saved_models import graph_file, variables_prefix

        yield os.path.join(path, target.graph) if target.graph else graph_file(path)
        yield from _of_bundle(variables_prefix(path) or os.path.join(path, VARIABLES))
    elif target.kind == "tensor-bundle":
        yield from _of_bundle(path)
        yield from graph_files(path, in_url=is_url(path))
    elif target.kind == "tensor-slices":
        shards = ALL_V1_SHARDS.fullmatch(path)
        yield f"{shards[1]}-00000-of-{shards[2]}" if shards else path
        yield f"{shards[1] if shards else path}.meta"
        yield from graph_files(path, in_url=is_url(path))
    elif target.kind == "onnx":
        yield from (path, f"{path}.data", f"{path}_data")
    elif target.kind == "orbax":
        # Whatever is saved has a new one of these.
        for name in (*ORBAX_MARKERS, ORBAX_COMMIT):
            yield os.path.join(path, name)
    else:
        yield path
        if target.kind == "tfjs":
            yield from _shards_of_tfjs(path)


def _shards_of_tfjs(path: str) -> Iterator[str]:
    """Yield the usual names of the first shard: the converter's, and those of TensorFlow.js."""
    directory, name = os.path.split(path)
    stem = name.removesuffix(".json")
    for shard in ("group1-shard1of1.bin", "weights.bin", f"{stem}.weights.bin"):
        yield os.path.join(directory, shard)


def _of_bundle(prefix: str) -> Iterator[str]:
    for end in ("index", "data-00000-of-00001", "meta"):
        yield f"{prefix}.{end}"
