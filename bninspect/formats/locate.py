"""From one path to one checkpoint: prefix, any file of a checkpoint, or a training directory.

What names several checkpoints (a pattern, a directory of models) is taken apart by `discover`.

The kind is told by content, never by extension: a `.keras` may be plain HDF5, a `model.ckpt` a
PyTorch pickle, a `.h5` a web page.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Literal

from bninspect.errors import Incomplete, NotFound, ReadProblem, UnknownFormat
from bninspect.formats import sstable
from bninspect.formats.source import Source

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")  # the second is that of an empty archive
# The files of sharded Keras weights: keras/src/saving/saving_lib.py.
_KERAS_SHARD = r"_\d{5,}\.weights\.h5$"

# The files of one V2 checkpoint: tensorflow/core/util/tensor_bundle/naming.cc, and Saver's graph.
_PART = r"\.(index|meta|data-\d{5}-of-\d{5})$"
# The shards of one V1 checkpoint, and all of them as its Saver calls them: ShardedFilename and
# ShardedFilespec of tensorflow/core/kernels/save_op.cc.
_SHARD = r"-(\d{5,})-of-(\d{5,})$"
_ALL_SHARDS = r"-\?{5}-of-(\d{5,})$"
STATE_FILE = "checkpoint"
SAVED_MODEL = "saved_model.pb"  # tensorflow/cc/saved_model/constants.h
# The state file is a CheckpointState as text (tensorflow/python/training/checkpoint_state.proto).
_NAMED = rb'(?m)^[ \t]*(all_model_checkpoint_paths|model_checkpoint_path):[ \t]*"((?:[^"\\]|\\.)*)"'
_MAX_STATE_FILE = 1 << 24

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
    """What is to be opened, and sentences on how it was chosen.

    `path` is a V2 prefix (tensor-bundle), for V1 (tensor-slices) a file or `PREFIX-?????-of-0000N`,
    a SavedModel's directory, a Keras file (hdf5, keras-zip) or the map of sharded Keras weights
    (keras-shards). A "directory" is none of these: it may hold any number of checkpoints (see
    `discover`).
    """

    kind: Literal[
        "tensor-bundle",
        "tensor-slices",
        "saved-model",
        "hdf5",
        "keras-zip",
        "keras-shards",
        "directory",
    ]
    path: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """One checkpoint that a typed path names: `path` is how a person types it alone.

    `problem` says why there is no `target`. Where `claimed` is False neither its name nor its
    place says that it is a checkpoint: it is passed over if its content turns out to be none.
    """

    path: str
    target: Target | None
    problem: ReadProblem | None = None
    claimed: bool = True


def locate(path: str) -> Target:
    """Find the checkpoint that `path` means.

    Raises `NotFound` if nothing is there, `UnknownFormat` or `Unsupported` if it is something
    else, `Incomplete` if only parts of a checkpoint are there.
    """
    if "\0" in path:
        raise NotFound(repr(path), "a path cannot hold a NUL character", "Check the path.")
    if os.path.exists(path + ".index") and not path.endswith(os.sep):
        return _bundle(path, _namesake(path))
    if os.path.isdir(path):
        return _locate_directory(path)
    part = re.search(_PART, path)
    prefix = path[: part.start()] if part else path.removesuffix(".")  # shells complete to `P.`
    if prefix != path and os.path.exists(prefix + ".index"):
        return _bundle(prefix)
    if os.path.basename(path) in (STATE_FILE, SAVED_MODEL) and os.path.isfile(path):
        return _locate_by_name(path)
    if os.path.exists(path):
        return _locate_file(path, is_part=part is not None)
    if shards := _locate_slices(path):
        return shards
    raise _missing(path)


def _bundle(prefix: str, notes: tuple[str, ...] = ()) -> Target:
    """The V2 checkpoint at `prefix`, or the SavedModel whose variables it is."""
    directory, name = os.path.split(prefix)
    if name == "variables" and os.path.basename(directory) == "variables":
        around = os.path.dirname(directory) or "."
        if os.path.exists(os.path.join(around, SAVED_MODEL)):
            return Target("saved-model", around, notes)
    return Target("tensor-bundle", prefix, notes)


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key by which `model.ckpt-200` comes before `model.ckpt-1000`."""
    return [
        (len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (-1, part)
        for part in re.split("([0-9]+)", name)
        if part
    ]


def state_of(state_file: str) -> tuple[str | None, list[str]]:
    """The newest checkpoint that a state file names (None if it names none), and all of them.

    The names are as stored: relative to the directory, or absolute on the machine that wrote them.
    """
    with Source(state_file) as source:
        text = source.read(0, min(source.size, _MAX_STATE_FILE), "the checkpoint state")
    latest, names = None, []
    for field, quoted in re.findall(_NAMED, text):
        unescaped = re.sub(rb"\\(?:([0-7]{1,3})|(.))", _unescape, quoted, flags=re.DOTALL)
        names.append(os.fsdecode(unescaped))
        if latest is None and field == b"model_checkpoint_path":
            latest = names[-1]
    return latest, list(dict.fromkeys(names))


def locate_named(directory: str, named: str) -> Target | None:
    """The checkpoint that the state file of `directory` calls `named`; None if it is gone.

    Its path is often that of another machine; then the same name in this directory is meant.
    """
    for prefix in (os.path.join(directory, named), _beside(directory, named)):
        if os.path.exists(prefix + ".index"):
            return Target("tensor-bundle", prefix)
        if slices := _locate_slices(prefix):
            return slices
        if os.path.isfile(prefix):
            return _locate_file(prefix, is_part=False)
    return None


def unreadable_directory(path: str, error: OSError) -> NotFound:
    """Why a directory cannot be listed."""
    return NotFound(
        path,
        f"this directory cannot be read ({error.strerror or error})",
        "Check its permissions.",
    )


def _namesake(prefix: str) -> tuple[str, ...]:
    """A note where a prefix is the name of a directory or of another file, too."""
    if os.path.isdir(prefix):
        directory = os.path.join(prefix, "")
        note = f"{prefix} names a checkpoint and a directory; opened the checkpoint {prefix}.index"
        return (f"{note} (for the directory type {directory})",)
    if os.path.exists(prefix):
        return (f"{prefix} names a checkpoint and a file; opened the checkpoint {prefix}.index",)
    return ()


def _locate_by_name(path: str) -> Target:
    """A file that stands for its directory: the state file, or the graph of a SavedModel."""
    directory, name = os.path.split(path)
    if name == SAVED_MODEL:
        return Target("saved-model", directory or ".")
    return _locate_latest(directory, path) if _is_state(path) else _locate_file(path, is_part=False)


def _locate_directory(path: str) -> Target:
    state_file = os.path.join(path, STATE_FILE)
    if os.path.exists(os.path.join(path, ".index")):
        return Target("tensor-bundle", os.path.join(path, ""))
    if os.path.isfile(state_file) and _is_state(state_file):
        return _locate_latest(path, state_file)
    if os.path.exists(os.path.join(path, SAVED_MODEL)):
        return Target("saved-model", path)
    return Target("directory", path)


def _is_state(path: str) -> bool:
    """Whether a file called `checkpoint` is a state file: some programs call their models so."""
    with Source(path) as source:
        return _is_text(source.read(0, min(source.size, 64), "the checkpoint state"))


def _locate_latest(directory: str, state_file: str) -> Target:
    """The newest checkpoint that the state file names, else the newest that lies there."""
    named, _ = state_of(state_file)
    found = None if named is None else locate_named(directory, named)
    if named is not None and found is not None:
        if found.path == _beside(directory, named) != os.path.join(directory, named):
            note = f"{state_file} names {named}, which is not there; opened {found.path} instead"
        else:
            note = f"{state_file} names {found.path}"
        return replace(found, notes=(note, *found.notes))
    newest = _newest(directory, named or "")
    fault = "names no checkpoint" if named is None else f"names {named}, which is not there"
    if newest is not None:
        note = f"{state_file} {fault}; opened {newest}, the newest that lies there"
        return Target("tensor-bundle", newest, (note,))
    if named is None:
        raise UnknownFormat(
            state_file,
            "it does not name a checkpoint (no model_checkpoint_path)",
            "Give the checkpoint's prefix instead of the directory.",
        )
    raise Incomplete(state_file, f"it {fault}", "Give the prefix of a checkpoint that is.")


def _beside(directory: str, named: str) -> str:
    return os.path.join(directory, re.split(r"[\\/]", named)[-1])


def _newest(directory: str, named: str) -> str | None:
    """The prefix in `directory` with the highest step; those called like `named` come first."""
    try:
        names = os.listdir(directory or ".")
    except OSError as error:
        raise unreadable_directory(directory, error) from error
    indexes = (name for name in names if name.endswith(".index") and not name.startswith("."))
    prefixes = [name.removesuffix(".index") for name in indexes]

    def rank(prefix: str) -> tuple[bool, list[tuple[int, str]]]:
        return _without_step(prefix) == _without_step(_beside("", named)), natural_order(prefix)

    return os.path.join(directory, max(prefixes, key=rank)) if prefixes else None


def _without_step(name: str) -> str:
    return name.rstrip("0123456789")


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
    if head.startswith(ZIP_SIGNATURES):
        return Target("keras-zip", path)
    if head.lstrip().startswith(b"{"):
        return Target("keras-shards", path)
    if tail == sstable.MAGIC:
        if path.endswith(".index"):
            return Target("tensor-bundle", path.removesuffix(".index"))
        return Target("tensor-slices", _all_shards(path))
    if is_part:
        prefix = path[: re.search(_PART, path).start()]  # type: ignore[union-attr]
        if path.endswith(".meta") and (slices := _locate_slices(prefix)):
            return slices
        raise Incomplete(
            prefix,
            f"{os.path.basename(path)} is there, but the checkpoint's .index file is not",
            "Copy all files of the checkpoint.",
        )
    raise _foreign(path, head)


def _locate_slices(prefix: str) -> Target | None:
    """The V1 checkpoint `prefix`: a file of that name, else its shards; None if there is none.

    `prefix` may also end in `-?????-of-0000N`, as a sharded Saver and its state file name it.
    """
    if os.path.isfile(prefix):
        with Source(prefix) as source:
            tail = source.read(max(source.size - 8, 0), min(source.size, 8), "the end of the file")
        return Target("tensor-slices", _all_shards(prefix)) if tail == sstable.MAGIC else None
    pattern = re.search(_ALL_SHARDS, prefix)
    prefix, wanted = (prefix[: pattern.start()], pattern[1]) if pattern else (prefix, "")
    directory, name = os.path.split(prefix)
    try:
        beside = [entry for entry in os.listdir(directory or ".") if entry.startswith(name)]
    except OSError:
        return None
    shards = (
        re.fullmatch(_SHARD, entry[len(name) :]) for entry in beside if not re.search(_PART, entry)
    )
    counts = sorted({shard[2] for shard in shards if shard and wanted in ("", shard[2])})
    places = [f"{prefix}-?????-of-{count}" for count in counts]
    if len(places) > 1:
        raise NotFound(
            prefix,
            f"shards of {len(places)} checkpoints of this name lie here",
            f"Name one of them: {', '.join(places)}.",
        )
    return Target("tensor-slices", places[0]) if places else None


def _all_shards(path: str) -> str:
    """What a V1 file belongs to: all shards if it is called like one, else itself."""
    shard = re.search(_SHARD, path)
    if shard is None or int(shard[1]) >= int(shard[2]):
        return path
    return f"{path[: shard.start()]}-?????-of-{shard[2]}"


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
