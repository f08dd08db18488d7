"""The checkpoint that one file is, or is a part of, by the file's content and not its name.

A `.keras` file may be plain HDF5, a `model.ckpt` a PyTorch pickle, a `.h5` a web page.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from bninspect.errors import Incomplete, NotFound, ReadProblem, UnknownFormat
from bninspect.model.filenames import (
    ALL_V1_SHARDS,
    KERAS_MAP,
    KERAS_SHARD,
    ONNX_DATA,
    PART,
    TFJS_JSON,
    TFJS_SHARD,
    V1_SHARD,
    all_v1_shards,
    checkpoint_of,
)
from bninspect.model.target import Target
from bninspect.storage import filesystem
from bninspect.storage.signatures import (
    HDF5_SIGNATURE,
    TABLE_MAGIC,
    ZIP_SIGNATURES,
    MessageKind,
    OtherFormat,
    begins_as_json,
    begins_as_v1,
    ends,
    foreign,
    hdf5_offset,
    is_keras_archive,
    is_onnx,
    message_kind,
    other_format,
    other_json,
    unknown,
)
from bninspect.storage.source import Source
from bninspect.storage.urls import is_url

_LARGEST_MAP = 1 << 25  # bytes
_TFJS_KEY = b'"weightsManifest"'

ShardCounts = Callable[[str], Mapping[str, set[str]]]


def locate_file(path: str) -> Target:
    """Return the checkpoint that an existing file is, or is a part of.

    Raises `Incomplete` if the file was cut short or lacks the others of its checkpoint,
    `UnknownFormat` if it is something else.
    """
    return _tfjs_model(path) or _by_content(path)


def _by_content(path: str) -> Target:
    head, tail = ends(path)
    if head.startswith(HDF5_SIGNATURE):
        return _sharded_weights(path) or Target("hdf5", path)
    if head.startswith(ZIP_SIGNATURES):
        foreign_format = None if is_keras_archive(head) else other_format(head)
        if foreign_format is not None:
            raise foreign(path, foreign_format)
        return Target("keras-zip", path)
    if tail == TABLE_MAGIC:  # no text ends so, whatever a compressed block begins with
        index = path.removesuffix(".index")
        slices = Target("tensor-slices", all_v1_shards(path))
        return slices if index == path else Target("tensor-bundle", index)
    if begins_as_json(head):
        return _locate_map(path)
    if is_onnx(head):
        return Target("onnx", path)
    return _locate_by_head(path, head)


def _locate_by_head(path: str, head: bytes) -> Target:
    """Return the checkpoint of a file by its name and first bytes, where its end tells nothing."""
    if part := PART.fullmatch(path):
        return _without_index(path, part[1])
    if begins_as_v1(head):
        raise _cut_short(path)
    if (kind := message_kind(head)) is not None:
        return _locate_message(path, kind)
    if _has_user_block(path):
        return Target("hdf5", path)
    if (data := ONNX_DATA.fullmatch(path)) and filesystem.is_file(data[1]):
        return Target("onnx", data[1], (f"{path} is the external data of {data[1]}",))
    if TFJS_SHARD.fullmatch(name := os.path.basename(path)) and name.startswith("group"):
        raise UnknownFormat(
            path,
            f"this is a shard of a TensorFlow.js model, and no {TFJS_JSON} beside it names it",
            "Check the JSON of the model, and copy all of its files.",
        )
    raise unknown(path, head)


def format_of_other(path: str) -> OtherFormat | None:
    """Return the format of a file of another tool, None for others; raises a `ReadProblem`."""
    head, _ = ends(path)
    return other_json(_read_map(path)) if begins_as_json(head) else other_format(head)


def _locate_message(path: str, kind: MessageKind) -> Target:
    """Return the frozen graph that a file is, or the SavedModel whose graph it is."""
    if kind == "graph-def":
        return Target("graph-def", path)
    from bninspect.storage.saved_models import graph_file

    directory, name = os.path.split(path)
    is_usual = graph_file(directory or ".") == os.path.join(directory or ".", name)
    return Target("saved-model", directory or ".", graph="" if is_usual else name)


def _cut_short(path: str) -> ReadProblem:
    return Incomplete(
        path,
        "this TensorFlow V1 checkpoint was cut short: its end is missing",
        "Copy it again; delete it if the training was stopped while it was saved.",
    )


def _has_user_block(path: str) -> bool:
    """Return whether an HDF5 file begins after bytes of another program (MATLAB: 512 bytes).

    On a server each offset that is tried is a request, so there the name must claim HDF5.
    """
    if is_url(path) and not path.lower().endswith((".h5", ".hdf5")):
        return False
    with Source(path) as source:
        offset = hdf5_offset(source.size, lambda at, length: source.read(at, length, "its head"))
    return offset is not None


def _locate_map(path: str) -> Target:
    """Return the TensorFlow.js model or the sharded Keras weights whose files a JSON file lists."""
    if path.endswith(KERAS_MAP):
        return Target("keras-shards", path)
    text = _read_map(path)
    if b'"weight_map"' in text:
        return Target("keras-shards", path)
    if _TFJS_KEY in text:
        return Target("tfjs", path)
    if len(text) < _LARGEST_MAP and not text.rstrip(b"\0 \t\r\n").endswith(b"}"):
        raise Incomplete(path, "this JSON was cut short: its end is missing", "Copy it again.")
    if (foreign_format := other_json(text)) is not None:
        raise foreign(path, foreign_format)
    raise UnknownFormat(
        path,
        "this is JSON, but neither the map of sharded Keras weights (it has no weight_map) nor a"
        " TensorFlow.js model (it has no weightsManifest)",
        "Check that it is the right file.",
    )


def _read_map(path: str) -> bytes:
    with Source(path) as source:
        return source.read(0, min(source.size, _LARGEST_MAP), "the map of the weights")


def _without_index(path: str, prefix: str) -> Target:
    """Return the V1 checkpoint whose graph is `path`: a V2 checkpoint would have an index."""
    if path.endswith(".meta") and (slices := locate_v1(prefix)):
        return slices
    raise Incomplete(
        prefix,
        f"{os.path.basename(path)} is there, but the checkpoint's .index file is not",
        "Copy all files of the checkpoint.",
    )


def locate_v1(prefix: str, list_shards: ShardCounts | None = None) -> Target | None:
    """Return the V1 checkpoint `prefix`: the file of that name, else its shards; None without any.

    `prefix` may also end in `-?????-of-0000N`, as a sharded Saver and its state file write it.
    `list_shards` is a `shard_counts` that caches, for callers with many names. Raises `Incomplete`
    if the file was cut short, another `ReadProblem` if it cannot be read.
    """
    if filesystem.is_file(prefix):
        head, tail = ends(prefix)
        if tail == TABLE_MAGIC:
            return Target("tensor-slices", all_v1_shards(prefix))
        if begins_as_v1(head):
            raise _cut_short(prefix)
        return None
    pattern = ALL_V1_SHARDS.fullmatch(prefix)
    prefix, wanted = (pattern[1], pattern[2]) if pattern else (prefix, "")
    directory, name = os.path.split(prefix)
    counts = (list_shards or shard_counts)(directory).get(name, ())
    paths = [f"{prefix}-?????-of-{count}" for count in sorted(counts) if wanted in ("", count)]
    if len(paths) > 1:
        raise NotFound(
            prefix,
            f"shards of {len(paths)} checkpoints of this name are in this directory",
            f"Name one of them: {', '.join(paths)}.",
        )
    return Target("tensor-slices", paths[0]) if paths else None


def shard_counts(directory: str) -> dict[str, set[str]]:
    """Return how many shards each V1 checkpoint of a directory has, by prefix.

    A prefix has several counts if shards of several saves are mixed. Empty if unreadable.
    """
    counts: dict[str, set[str]] = {}
    try:
        names = filesystem.names_in(directory)
    except OSError:
        return counts
    for name in names:
        if (shard := V1_SHARD.fullmatch(name)) and not PART.fullmatch(name):
            counts.setdefault(shard[1], set()).add(shard[3])
    return counts


def _sharded_weights(path: str) -> Target | None:
    """Return the sharded Keras weights that an HDF5 file is one shard of, if their map says so."""
    shard = KERAS_SHARD.fullmatch(path)
    map_path = shard[1] + KERAS_MAP if shard else ""
    if not shard or not filesystem.is_file(map_path):
        return None
    stored = _read_map(map_path)
    name = os.path.basename(path)
    if os.fsencode(name) not in stored and _as_in_json(name) not in stored:
        return None
    note = f"{path} is one of the files of {map_path}, which was opened"
    return Target("keras-shards", map_path, (note,))


def _tfjs_model(path: str) -> Target | None:
    """Return the TensorFlow.js model that a file is a shard of, if the JSON beside it says so."""
    name = os.path.basename(path)
    json_path = checkpoint_of(path)
    if not TFJS_SHARD.fullmatch(name) or not filesystem.is_file(json_path):
        return None
    stored = _read_map(json_path)
    if _TFJS_KEY not in stored or _as_in_json(name) not in stored:
        return None
    return Target("tfjs", json_path, (f"{path} is a shard of {json_path}, which was opened",))


def _as_in_json(name: str) -> bytes:
    import json

    return json.dumps(name)[1:-1].encode()
