"""From one path to one checkpoint: prefix, any file of a checkpoint, or a training directory.

What names several checkpoints (a pattern, a directory of models) is taken apart by `discover`.

The kind is told by content, never by extension: a `.keras` may be plain HDF5, a `model.ckpt` a
PyTorch pickle, a `.h5` a web page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from bninspect.errors import Incomplete, NotFetched, NotFound, ReadProblem, UnknownFormat
from bninspect.locate.state_file import _MAX_STATE_FILE, state_of
from bninspect.model.filenames import (
    ALL_V1_SHARDS,
    BESIDE_SAVED_MODEL,
    KERAS_MAP,
    KERAS_SHARD,
    PART,
    SAVED_MODEL,
    STATE_FILE,
    V1_SHARD,
    all_v1_shards,
    checkpoint_of,
    natural_order,
)
from bninspect.model.target import Target
from bninspect.storage import filesystem
from bninspect.storage.signatures import (
    HDF5_SIGNATURE,
    TABLE_MAGIC,
    ZIP_SIGNATURES,
    ends,
    foreign,
    hdf5_offset,
    is_text,
)
from bninspect.storage.source import Source
from bninspect.storage.urls import is_url
from bninspect.wording import did_you_mean, nearest

_STANDING_FOR_DIRECTORY = (STATE_FILE, SAVED_MODEL, *BESIDE_SAVED_MODEL)

_ShardCounts = Callable[[str], Mapping[str, set[str]]]


def locate(path: str) -> Target:
    """Find the checkpoint that `path` means.

    Raises `NotFound` if nothing is there, `UnknownFormat` or `Unsupported` if it is something
    else, `Incomplete` if only parts of a checkpoint are there.
    """
    if "\0" in path:
        raise NotFound(repr(path), "a path cannot hold a NUL character", "Check the path.")
    if not path:
        raise NotFound("''", "the path is empty", "Give one; a variable of a script may be unset.")
    alone = path.endswith(os.sep) or filesystem.stands_alone(path)
    if not alone and filesystem.exists(path + ".index"):
        return _bundle(path, _namesake(path))
    if filesystem.is_directory(path):
        return _locate_directory(path)
    part = PART.fullmatch(path)
    prefix = part[1] if part else path.removesuffix(".")  # shells complete to `P.`
    if prefix != path and filesystem.exists(prefix + ".index"):
        return _bundle(prefix)
    if os.path.basename(path) in _STANDING_FOR_DIRECTORY and filesystem.is_file(path):
        return _locate_by_name(path)
    if filesystem.exists(path):
        return _locate_file(path)
    if shards := _locate_slices(path):
        return shards
    raise _missing(path)


def _bundle(prefix: str, notes: tuple[str, ...] = ()) -> Target:
    """The V2 checkpoint at `prefix`, or the SavedModel whose variables it is."""
    directory, name = os.path.split(prefix)
    if name == "variables" and os.path.basename(directory) == "variables":
        around = os.path.dirname(directory) or "."
        if filesystem.exists(os.path.join(around, SAVED_MODEL)):
            return Target("saved-model", around, notes)
    return Target("tensor-bundle", prefix, notes)


def shard_counts(directory: str) -> dict[str, set[str]]:
    """How many shards the V1 checkpoints in a directory have, by the prefix; none if unreadable."""
    counts: dict[str, set[str]] = {}
    try:
        names = filesystem.names_in(directory)
    except OSError:
        return counts
    for name in names:
        if (shard := V1_SHARD.fullmatch(name)) and not PART.fullmatch(name):
            counts.setdefault(shard[1], set()).add(shard[3])
    return counts


def locate_named(
    directory: str, named: str, shard_counts: _ShardCounts = shard_counts
) -> Target | None:
    """The checkpoint that the state file of `directory` calls `named`; None if it is gone.

    Its path is often that of another machine; then the same name in this directory is meant.
    Who asks for many names lists each directory once, by a `shard_counts` that remembers.
    """
    if "\0" in named:
        return None  # no file can be called so
    for prefix in (_named_from(directory, named), _beside(directory, named)):
        if filesystem.exists(prefix + ".index"):
            return Target("tensor-bundle", prefix)
        if slices := _locate_slices(prefix, shard_counts):
            return slices
        if filesystem.is_file(prefix):
            return _locate_file(prefix)
    return None


def _named_from(directory: str, named: str) -> str:
    """What a state file means by a name; one behind a URL leads nowhere but below its directory."""
    if not is_url(directory):
        return filesystem.named_in(directory, named)
    below = named.removeprefix(os.path.join(directory, ""))
    leads_away = below.startswith("/") or is_url(below) or ".." in below.split("/")
    return _beside(directory, named) if leads_away else filesystem.named_in(directory, below)


def unreadable_directory(path: str, error: OSError) -> ReadProblem:
    """Why a directory cannot be listed."""
    return filesystem.problem_of(error) or NotFound(
        path,
        f"this directory cannot be read ({error.strerror or error})",
        "Check its permissions.",
    )


def _namesake(prefix: str) -> tuple[str, ...]:
    """A note where a prefix is the name of a directory or of another file, too."""
    if is_url(prefix):
        return ()  # it may cost requests, and what has a slash is seen to be a directory
    if filesystem.is_directory(prefix):
        directory = os.path.join(prefix, "")
        note = f"{prefix} names a checkpoint and a directory; opened the checkpoint {prefix}.index"
        return (f"{note} (for the directory type {directory})",)
    if filesystem.exists(prefix):
        return (f"{prefix} names a checkpoint and a file; opened the checkpoint {prefix}.index",)
    return ()


def _locate_by_name(path: str) -> Target:
    """A file that stands for its directory: the state file, or one of a SavedModel."""
    directory, name = os.path.split(path)
    if filesystem.exists(checkpoint_of(path)) and name != STATE_FILE:
        return Target("saved-model", directory or ".")
    is_state = name == STATE_FILE and _is_state(path)
    return _locate_latest(directory, path) if is_state else _locate_file(path)


def _locate_directory(path: str) -> Target:
    state_file = os.path.join(path, STATE_FILE)
    if filesystem.exists(os.path.join(path, ".index")):
        return Target("tensor-bundle", os.path.join(path, ""))
    try:
        if filesystem.is_file(state_file) and _is_state(state_file):
            return _locate_latest(path, state_file)
    except NotFetched as problem:
        if problem.path == state_file:
            return _instead(path, "", problem)
        raise
    if filesystem.exists(os.path.join(path, SAVED_MODEL)):
        return Target("saved-model", path)
    return Target("directory", path)


def _is_state(path: str) -> bool:
    """Whether a file called `checkpoint` is a state file: some programs call their models so."""
    with Source(path) as source:
        return is_text(source.read(0, min(source.size, 64), "the checkpoint state"))


def _locate_latest(directory: str, state_file: str) -> Target:
    """The newest checkpoint that the state file names, else the newest that lies there."""
    named, _ = state_of(state_file)
    found = None if named is None else locate_named(directory, named)
    if named is not None and found is not None:
        if found.path == _beside(directory, named) != _named_from(directory, named):
            note = f"{state_file} names {named}, which is not there; opened {found.path} instead"
        else:
            note = f"{state_file} names {found.path}"
        return replace(found, notes=(note, *found.notes))
    if named is None:
        fault = "it names no checkpoint (no model_checkpoint_path)"
        hint = "Give the checkpoint's prefix instead of the directory."
        return _instead(directory, "", UnknownFormat(state_file, fault, hint))
    fault = f"it names {named}, which is not there"
    hint = "Give the prefix of a checkpoint that is."
    return _instead(directory, named, Incomplete(state_file, fault, hint))


def _instead(directory: str, named: str, problem: ReadProblem) -> Target:
    """The newest checkpoint that lies there, where the state file does not help; or `problem`."""
    newest = _newest(directory, named)
    if newest is None:
        raise problem
    what = f"{problem.path}: {problem.message}"
    return replace(newest, notes=(f"{what}; opened {newest.path}, the newest that lies there",))


def _beside(directory: str, named: str) -> str:
    return filesystem.named_in(directory, re.split(r"[\\/]", named)[-1])


def _newest(directory: str, named: str) -> Target | None:
    """The checkpoint in `directory` with the highest step; those called like `named` come first.

    V1 files are told by their last bytes, and only as many are read as it takes to find the newest.
    """
    try:
        names = filesystem.names_in(directory)
    except OSError as error:
        raise unreadable_directory(directory, error) from error
    stems: dict[str, str] = {}
    for name in sorted(names):
        part, shard = PART.fullmatch(name), V1_SHARD.fullmatch(name)
        if part is None and not name.startswith("."):
            stems.setdefault(shard[1] if shard else name, name)
        elif part is not None and part[2] == "index" and part[1] and not name.startswith("."):
            stems[part[1]] = name
    wanted = _without_step(checkpoint_of(_beside("", named)))

    def rank(stem: str) -> tuple[bool, list[tuple[int, str]]]:
        return _without_step(stem) == wanted, natural_order(stem)

    for stem in sorted(stems, key=rank, reverse=True):
        path = os.path.join(directory, stems[stem])
        if PART.fullmatch(path):
            return Target("tensor-bundle", os.path.join(directory, stem))
        if _is_slices(path, claimed=_without_step(stem) == wanted):
            return Target("tensor-slices", all_v1_shards(path))
    return None


def _is_slices(path: str, *, claimed: bool) -> bool:
    """Whether a file is a V1 checkpoint, or by its name is one that cannot be read."""
    if not filesystem.is_file(path):
        return False
    try:
        return ends(path)[1] == TABLE_MAGIC
    except ReadProblem:
        return claimed  # it says why when it is opened


def _without_step(name: str) -> str:
    return name.rstrip("0123456789")


def _locate_file(path: str) -> Target:
    head, tail = ends(path)
    if head.startswith(HDF5_SIGNATURE):
        return _locate_shard(path) or Target("hdf5", path)
    if head.startswith(ZIP_SIGNATURES):
        return Target("keras-zip", path)
    if tail == TABLE_MAGIC:  # which no text ends in, whatever a compressed block begins with
        index = path.removesuffix(".index")
        slices = Target("tensor-slices", all_v1_shards(path))
        return slices if index == path else Target("tensor-bundle", index)
    if head.lstrip().startswith(b"{"):
        return Target("keras-shards", path)
    if part := PART.fullmatch(path):
        prefix = part[1]
        if path.endswith(".meta") and (found := _locate_slices(prefix)):
            return found
        raise Incomplete(
            prefix,
            f"{os.path.basename(path)} is there, but the checkpoint's .index file is not",
            "Copy all files of the checkpoint.",
        )
    if _has_user_block(path):
        return Target("hdf5", path)
    raise foreign(path, head)


def _has_user_block(path: str) -> bool:
    """Return whether an HDF5 file begins behind bytes of another program (MATLAB puts 512 there).

    On a server each place to look at is a request, so there the name must claim HDF5.
    """
    if is_url(path) and not path.lower().endswith((".h5", ".hdf5")):
        return False
    with Source(path) as source:
        offset = hdf5_offset(source.size, lambda at, length: source.read(at, length, "its head"))
    return offset is not None


def _locate_slices(prefix: str, shard_counts: _ShardCounts = shard_counts) -> Target | None:
    """The V1 checkpoint `prefix`: a file of that name, else its shards; None if there is none.

    `prefix` may also end in `-?????-of-0000N`, as a sharded Saver and its state file name it.
    """
    if filesystem.is_file(prefix):
        tail = ends(prefix)[1]
        return Target("tensor-slices", all_v1_shards(prefix)) if tail == TABLE_MAGIC else None
    pattern = ALL_V1_SHARDS.fullmatch(prefix)
    prefix, wanted = (pattern[1], pattern[2]) if pattern else (prefix, "")
    directory, name = os.path.split(prefix)
    counts = shard_counts(directory).get(name, ())
    places = [f"{prefix}-?????-of-{count}" for count in sorted(counts) if wanted in ("", count)]
    if len(places) > 1:
        raise NotFound(
            prefix,
            f"shards of {len(places)} checkpoints of this name lie here",
            f"Name one of them: {', '.join(places)}.",
        )
    return Target("tensor-slices", places[0]) if places else None


def _locate_shard(path: str) -> Target | None:
    """The map of weights beside a file that is named like one of several, if there is one."""
    match = KERAS_SHARD.fullmatch(path)
    map_path = match[1] + KERAS_MAP if match else ""
    if not match or not filesystem.is_file(map_path):
        return None
    with Source(map_path) as source:
        listed = source.read(0, min(source.size, _MAX_STATE_FILE), "the map of the weights")
    name = os.path.basename(path)
    if os.fsencode(name) not in listed and _as_in_json(name) not in listed:
        return None
    note = f"{path} is one of the files of {map_path}, which was opened"
    return Target("keras-shards", map_path, (note,))


def _as_in_json(name: str) -> bytes:
    import json

    return json.dumps(name)[1:-1].encode()


def _missing(path: str) -> ReadProblem:
    """Nothing at `path`: it may be out of reach, or be the prefix of shards without an index."""
    for place in (path,) if filesystem.stands_alone(path) else (path, path + ".index"):
        if (error := filesystem.out_of_reach(place)) is not None:
            return filesystem.problem_of(error) or NotFound(
                place,
                f"it cannot be reached ({error.strerror or error})",
                "Check the path, and the permissions of the directories in it.",
            )
    directory, name = os.path.split(path)
    try:
        entries = filesystem.names_in(directory)
    except OSError:
        entries = []
    if any(entry.startswith(name + ".") and PART.fullmatch(entry) for entry in entries):
        return Incomplete(
            path,
            "the checkpoint's .index file is missing",
            "Copy all files of the checkpoint.",
        )
    what_next = _suggestion(path, entries) or "Check the path."
    return NotFound(path, "no such checkpoint or file", what_next)


def _suggestion(path: str, entries: list[str]) -> str:
    """Return `Did you mean X?` with a name in the directory that begins so or is similar."""
    directory, name = os.path.split(path)
    stems = {match[1] if (match := PART.fullmatch(entry)) else entry for entry in entries}
    begun = [stem for stem in stems if name and stem.startswith(name)]
    # The newest step of those that begin so, else what a typing error makes of a name.
    near = max(begun, key=natural_order, default=None)
    near = near or nearest(name, sorted(stems))
    return did_you_mean(near and os.path.join(directory, near)).strip()
