"""Copies of V2 checkpoints and SavedModels: bytes of values in shards, checksums in the index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from bninspect.errors import Unsupported, UsageProblem
from bninspect.formats.tensorflow.bundle_messages import parse_entry
from bninspect.formats.tensorflow.saved_model import variables_of
from bninspect.formats.tensorflow.sstable import find_values, masked_crc32c, reseal_block
from bninspect.formats.tensorflow.v2_bundle import find_variables
from bninspect.model.filenames import PART
from bninspect.model.target import Target
from bninspect.recalibrate.writing.copies import FileCopy, Patch, Plan, require_free
from bninspect.recalibrate.writing.values import Values, rounded
from bninspect.storage.source import Source

# It has a hash of the index, which changes. TensorFlow loads SavedModels without it, as those that
# were written before 2.12 (tensorflow/core/protobuf/fingerprint.proto).
_FINGERPRINT = "fingerprint.pb"


def plan_bundle(prefix: str, output: Path, values: Values) -> Plan:
    """Return the plan of copying the V2 checkpoint at `prefix`, and the graph beside it."""
    if PART.fullmatch(output.name):
        raise UsageProblem(
            f"Cannot write {output}: a checkpoint of several files needs a prefix, such as"
            f" {output.with_name('model-recalibrated')}."
        )
    copied = {
        file.source: file._replace(name=output.name + file.source[len(prefix) :])
        for file in _bundle_files(prefix, values)
    }
    graph = prefix + ".meta"
    if os.path.isfile(graph):
        copied[graph] = FileCopy(graph, f"{output.name}.meta")
    index = copied.pop(prefix + ".index")
    files = [*copied.values(), index]
    names = [file.name for file in files]
    require_free(output, [*names, f"{output.name}.meta"])
    return Plan(Target("tensor-bundle", prefix), output, files, names)


def plan_saved_model(directory: str, output: Path, values: Values) -> Plan:
    """Return the plan of copying a SavedModel, all files of its directory but the fingerprint."""
    source, target = Path(directory).resolve(), output.resolve()
    if source in target.parents:
        raise UsageProblem(f"Cannot write {output}: it is in the SavedModel that is copied.")
    require_free(output, [])
    prefix = variables_of(directory)
    replaced = {file.source: file.patches for file in _bundle_files(prefix, values)}
    files = [
        FileCopy(path, os.path.join(output.name, os.path.relpath(path, directory)), patches)
        for path in _files_below(directory)
        for patches in (replaced.get(path, ()),)
        if os.path.basename(path) != _FINGERPRINT
    ]
    return Plan(Target("saved-model", directory), output, files, [output.name])


def _files_below(directory: str) -> Iterator[str]:
    for folder, below, names in os.walk(directory):
        for name in below:
            if os.path.islink(os.path.join(folder, name)):
                raise Unsupported(
                    directory,
                    f"{name} in it is a link to another directory",
                    "Copy the SavedModel with what its links lead to, as `cp -rL` does.",
                )
        yield from (os.path.join(folder, name) for name in names)


def _bundle_files(prefix: str, values: Values) -> list[FileCopy]:
    """Return the shards and the index of a checkpoint, with the bytes that are replaced."""
    shards, stored = find_variables(prefix, values)
    patches: dict[str, list[Patch]] = {shard: [] for shard in shards}
    checksums: dict[bytes, int] = {}
    for name, new in values.items():
        shape, dtype, disk_type, parts = stored[name]
        whole = rounded(prefix, name, new.reshape(shape), dtype)
        for part in parts:
            data = whole[part.place].astype(disk_type).tobytes()
            patches[part.shard].append(Patch(part.offset, data))
            checksums[part.key] = masked_crc32c(data)
    index = prefix + ".index"
    patches[index] = _index_patches(index, checksums)
    return [FileCopy(path, "", replaced) for path, replaced in patches.items()]


def _index_patches(path: str, checksums: Mapping[bytes, int]) -> list[Patch]:
    """Return the blocks of an index whole, with the checksums of some entries and their own."""
    blocks: dict[tuple[int, int], bytearray] = {}
    with Source(path) as source:
        for key, stored in find_values(source, checksums).items():
            offset, size = stored.block
            if stored.block not in blocks:
                blocks[stored.block] = bytearray(source.read(offset, size, "a block of the table"))
            block = blocks[stored.block]
            start = stored.offset - offset
            place = parse_entry(bytes(block[start : start + stored.size])).crc32c_at
            if place is None:
                raise Unsupported(
                    path,
                    f"it has no checksum of {key.decode('utf-8', 'replace')} to replace",
                    "Save the checkpoint again with TensorFlow, which writes checksums.",
                )
            block[start + place : start + place + 4] = checksums[key].to_bytes(4, "little")
    return [
        Patch(offset, bytes(block) + reseal_block(bytes(block)))
        for (offset, _), block in blocks.items()
    ]
