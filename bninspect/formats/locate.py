"""From what a person types to what is opened: prefix, any file of a checkpoint, or a directory.

The kind is told by content, never by extension: a `.keras` may be plain HDF5, a `model.ckpt` a
PyTorch pickle, a `.h5` a web page.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from bninspect.errors import Incomplete, NotFound, ReadProblem, UnknownFormat, Unsupported
from bninspect.formats import sstable
from bninspect.formats.source import Source

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")  # the second is that of an empty archive
# The files of sharded Keras weights: keras/src/saving/saving_lib.py.
_KERAS_SHARD = r"_\d{5,}\.weights\.h5$"

# The files of one V2 checkpoint: tensorflow/core/util/tensor_bundle/naming.cc, and Saver's graph.
_PART = r"\.(index|meta|data-\d{5}-of-\d{5})$"
_STATE_FILE = "checkpoint"
# The state file is a CheckpointState as text (tensorflow/python/training/checkpoint_state.proto).
_LATEST = rb'(?m)^[ \t]*model_checkpoint_path:[ \t]*"((?:[^"\\]|\\.)*)"'
_MAX_STATE_FILE = 1 << 20

_FOREIGN_HEADS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "this is a Git LFS pointer, not the file itself",
        "Fetch the file with `git lfs pull`.",
    ),
    (
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19",
        "this is a PyTorch file",
        "bninspect reads TensorFlow checkpoints and Keras files.",
    ),
    (
        b"\x80",
        "this is a Python pickle, which bninspect never loads",
        "bninspect reads TensorFlow checkpoints and Keras files.",
    ),
    (
        b"\x93NUMPY",
        "this is a NumPy array",
        "bninspect reads TensorFlow checkpoints and Keras files.",
    ),
)


@dataclass(frozen=True)
class Target:
    """What is to be opened: a V2 prefix or a Keras file, and sentences on how it was chosen."""

    kind: Literal["tensor-bundle", "hdf5", "keras-zip", "keras-shards"]
    path: str
    notes: tuple[str, ...] = ()


def locate(path: str) -> Target:
    """Find the checkpoint that `path` means.

    Raises `NotFound` if nothing is there, `UnknownFormat` or `Unsupported` if it is something
    else, `Incomplete` if only parts of a checkpoint are there.
    """
    if "\0" in path:
        raise NotFound(repr(path), "a path cannot hold a NUL character", "Check the path.")
    if os.path.exists(path + ".index") and not path.endswith(os.sep):
        return Target("tensor-bundle", path)
    if os.path.isdir(path):
        return _locate_directory(path)
    if os.path.basename(path) == _STATE_FILE and os.path.isfile(path):
        return _locate_latest(os.path.dirname(path), path)
    part = re.search(_PART, path)
    if part and os.path.exists(path[: part.start()] + ".index"):
        return Target("tensor-bundle", path[: part.start()])
    if os.path.exists(path):
        return _locate_file(path, is_part=part is not None)
    raise _missing(path)


def _locate_directory(path: str) -> Target:
    state_file = os.path.join(path, _STATE_FILE)
    if os.path.exists(os.path.join(path, ".index")):
        return Target("tensor-bundle", os.path.join(path, ""))
    if os.path.isfile(state_file):
        return _locate_latest(path, state_file)
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        raise Unsupported(
            path,
            "this is a SavedModel directory",
            "Check the training checkpoint it was exported from.",
        )
    try:
        names = os.listdir(path)
    except OSError as error:
        raise NotFound(
            path,
            f"this directory cannot be read ({error.strerror or error})",
            "Check its permissions.",
        ) from error
    prefixes = sorted(name.removesuffix(".index") for name in names if name.endswith(".index"))
    if len(prefixes) == 1:
        return Target("tensor-bundle", os.path.join(path, prefixes[0]))
    if prefixes:
        some = ", ".join(prefixes[:3]) + (", ..." if len(prefixes) > 3 else "")
        raise NotFound(
            path,
            f"this directory has {len(prefixes)} checkpoints and no `checkpoint` file that names"
            " the newest",
            f"Name one of them: {some}.",
        )
    keras_files = sorted(name for name in names if name.endswith((".h5", ".hdf5", ".keras")))
    if keras_files:
        raise NotFound(
            path,
            f"this directory holds no TensorFlow checkpoint, but Keras files ({len(keras_files)})",
            f"Name one of them: {os.path.join(path, keras_files[0])}.",
        )
    raise NotFound(
        path,
        "this directory holds no checkpoint (no `checkpoint` file, no .index file)",
        "Give the directory that the Saver wrote to, or the checkpoint's prefix.",
    )


def _locate_latest(directory: str, state_file: str) -> Target:
    """The newest checkpoint that the state file names.

    Its path is often that of another machine; then the same name in this directory is meant.
    """
    with Source(state_file) as source:
        text = source.read(0, min(source.size, _MAX_STATE_FILE), "the checkpoint state")
    match = re.search(_LATEST, text)
    if match is None:
        raise UnknownFormat(
            state_file,
            "it does not name a checkpoint (no model_checkpoint_path)",
            "Give the checkpoint's prefix instead of the directory.",
        )
    named = os.fsdecode(re.sub(rb"\\(?:([0-7]{1,3})|(.))", _unescape, match[1], flags=re.DOTALL))
    stored = os.path.join(directory, named)
    beside = os.path.join(directory, re.split(r"[\\/]", named)[-1])
    if os.path.exists(stored + ".index"):
        return Target("tensor-bundle", stored, (f"{state_file} names {stored}",))
    if os.path.exists(beside + ".index"):
        return Target(
            "tensor-bundle",
            beside,
            (f"{state_file} names {named}, which is not there; opened {beside} instead",),
        )
    raise Incomplete(
        state_file,
        f"it names {named}, which is not there",
        "Give the prefix of a checkpoint that is.",
    )


def _unescape(match: re.Match[bytes]) -> bytes:
    """A character of a text-form protocol buffer: bytes beyond ASCII are written in octal."""
    octal, character = match.groups()
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    return {b"n": b"\n", b"t": b"\t", b"r": b"\r"}.get(character, character)


def _locate_file(path: str, *, is_part: bool) -> Target:
    with Source(path) as source:
        head = source.read(0, min(source.size, 64), "the head of the file")
        tail = source.read(max(source.size - 8, 0), min(source.size, 8), "the end of the file")
    if head.startswith(HDF5_SIGNATURE):
        return _locate_shard(path) or Target("hdf5", path)
    if head.startswith(_ZIP_SIGNATURES):
        return Target("keras-zip", path)
    if head.lstrip().startswith(b"{"):
        return Target("keras-shards", path)
    if tail == sstable.MAGIC:
        if path.endswith(".index"):
            return Target("tensor-bundle", path.removesuffix(".index"))
        raise Unsupported(
            path,
            "this is a TensorFlow V1 checkpoint, or an index that lost its name",
            "Save it again with a Saver of TensorFlow 1.0 or later; an index is called NAME.index.",
        )
    if is_part:
        prefix = path[: re.search(_PART, path).start()]  # type: ignore[union-attr]
        raise Incomplete(
            prefix,
            f"{os.path.basename(path)} is there, but the checkpoint's .index file is not",
            "Copy all files of the checkpoint.",
        )
    raise _foreign(path, head)


def _locate_shard(path: str) -> Target | None:
    """The map of weights beside a file that is named like one of several, if there is one."""
    match = re.search(_KERAS_SHARD, path)
    map_path = path[: match.start()] + ".weights.json" if match else ""
    if not match or not os.path.isfile(map_path):
        return None
    with Source(map_path) as source:
        listed = source.read(0, min(source.size, _MAX_STATE_FILE), "the map of the weights")
    if os.path.basename(path).encode() not in listed:
        return None
    note = f"{path} is one of the files of {map_path}, which was opened"
    return Target("keras-shards", map_path, (note,))


def _foreign(path: str, head: bytes) -> ReadProblem:
    """Why a file that is no checkpoint is none."""
    if not head:
        return UnknownFormat(path, "this file is empty", "Copy it again.")
    for signature, message, hint in _FOREIGN_HEADS:
        if head.startswith(signature):
            return UnknownFormat(path, message, hint)
    kind = "a text file" if _is_text(head) else "neither a TensorFlow checkpoint nor a Keras file"
    return UnknownFormat(
        path,
        f"this is {kind}",
        "Check that the download is complete and that this is the right file.",
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8")
        if len(head) - error.start > 3:  # more than a character cut in two
            return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def _missing(path: str) -> ReadProblem:
    """Nothing at `path`: the shards of the prefix may lie there without an index."""
    directory, name = os.path.split(path)
    try:
        beside = [entry for entry in os.listdir(directory or ".") if entry.startswith(name + ".")]
    except OSError:
        beside = []
    if any(re.search(_PART, entry) for entry in beside):
        return Incomplete(
            path,
            "the checkpoint's .index file is missing",
            "Copy all files of the checkpoint.",
        )
    return NotFound(path, "no such checkpoint or file", "Check the path.")
