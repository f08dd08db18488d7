"""From one path to all checkpoints it names: a pattern, a directory of models, a whole training.

The head and the last bytes of a file tell whether it is a checkpoint, whatever it is called. Its
name tells what to make of a file that is none, or cannot be read:

- `.h5`, `.hdf5`, `.keras` and `.ckpt` (`model.ckpt`, `model.ckpt-200`) claim to be a checkpoint, so
  a damaged, empty or mistaken file is reported; but PyTorch, pickle and NumPy files, which use
  these names too, and HDF5 files that Keras did not write are passed over;
- so does a name that differs in numbers alone from that of a V1 checkpoint beside it;
- names without an extension, or with one that holds a digit (`model-200`, `net.v1-200`), are what
  V1 checkpoints are called: another kind of file is passed over, one that cannot be opened, was
  cut short or is a Git LFS pointer is reported;
- all other names are passed over even if they cannot be opened;
- `P.index` counts if it is a table or if shards of P lie beside it; shards without their index are
  reported.

A V2 checkpoint, the shards of a V1 one, `NAME.weights.json` with its shards and a SavedModel
directory count once each. Hidden files, pipes and devices are never opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import replace
from typing import Literal, NamedTuple

from bninspect.errors import Incomplete, NotFound, ReadProblem
from bninspect.locate.locate import as_typed, locate
from bninspect.locate.single_file import format_of_other
from bninspect.locate.state_file import read_state
from bninspect.locate.training_directory import NamedCheckpoints, unreadable_directory
from bninspect.locate.trainings import identity
from bninspect.model.filenames import (
    KERAS_MAP,
    KERAS_SHARD,
    PART,
    SAVED_MODEL,
    STATE_FILE,
    V1_SHARD,
    checkpoint_of,
    natural_order,
    without_numbers,
)
from bninspect.model.target import Found, Target
from bninspect.storage import filesystem
from bninspect.storage.patterns import is_pattern, matching
from bninspect.storage.signatures import (
    HDF5_SIGNATURE,
    TABLE_MAGIC,
    ZIP_SIGNATURES,
    OtherFormat,
    begins_as_v1,
    ends,
    is_keras_archive,
)
from bninspect.storage.urls import is_url
from bninspect.storage.walk import walk
from bninspect.wording import listed


class Candidate(NamedTuple):
    """A place where a checkpoint may be: the path to show, the one to locate, and its claim.

    Where `claimed` is False the file is passed over if its content turns out to be something else.
    """

    shown: str
    path: str
    claimed: bool


_KERAS_NAMES = (".h5", ".hdf5", ".keras", KERAS_MAP)
_CLAIM = re.compile(r"(?is).*\.(h5|hdf5|keras|ckpt([-_.]?[0-9]+)?)")
_NO_EXTENSION = re.compile(r"(?s)[^.]+|.*\.[^.]*[0-9][^.]*")
_OF_SAVED_MODEL = ("variables", "assets", "assets.extra")
# A save that did not finish leaves its shards in such a directory
# (tensorflow/python/training/saver.py, tensorflow/python/checkpoint/functional_saver.py).
_UNFINISHED = re.compile(r"(?s).*_temp(_[0-9a-f]{32})?/part(-[0-9]{5}-of-[0-9]{5})?")
# Heads of what PyTorch, pickle and NumPy write under names of checkpoints.
_OTHERS = (b"\x80", b"\x93NUMPY", *ZIP_SIGNATURES)
_COPY = "Copy all checkpoints that it names, or name those that are there."
# How many names are examined to tell whether a training directory holds other models, too.
_GLANCE = 1000


def discover(path: str, *, every: bool = False) -> list[Found]:
    """Return all checkpoints that `path` names, in the natural order of their names.

    A path that exists is taken literally, else as a pattern. A training directory stands for its
    newest checkpoint; with `every` it stands, as other directories always do, for all checkpoints
    below it and all that its state file names. The list is empty if nothing is found.
    """
    try:
        return _discover(path, every=every)
    except ReadProblem as problem:  # a server does not tell what is there
        return [Found(path, None, as_typed(path, problem))]


def _discover(path: str, *, every: bool) -> list[Found]:
    if every and os.path.basename(path) == STATE_FILE and filesystem.is_file(path):
        path = os.path.dirname(path) or "."
    try:
        target = locate(path)
    except ReadProblem as problem:
        if isinstance(problem, NotFound) and is_pattern(path) and not filesystem.is_there(path):
            return _matching(path, every=every)
        if not (every and filesystem.is_directory(path)):
            return [Found(path, None, problem)]
        target = Target("directory", path)
    if not filesystem.is_directory(path) or (
        target.kind == "tensor-bundle" and target.path == path
    ):
        return [Found(path, target)]
    if target.kind == "directory" or every:
        found = list(map(found_at, _walk(path)))
        return _with_named(path, found) if every else found
    return [Found(path, replace(target, notes=(*target.notes, *_others_in(path, target))))]


def nothing_in(path: str) -> NotFound:
    """Return the error for a path that exists, or is a pattern, but names no checkpoint."""
    if not filesystem.is_directory(path):
        return NotFound(
            path,
            "no checkpoint matches this pattern",
            "Check the pattern: * and ? stand for characters of one name, ** for any directories.",
        )
    fault = "this directory holds no checkpoint, nor does any directory below it"
    if (other := _other_file_in(path)) is not None:
        name, format_ = other
        return NotFound(path, f"{fault}; {name} is {format_.name}", format_.hint)
    return NotFound(
        path, fault, "Give the directory that the Saver wrote to, or the checkpoint's prefix."
    )


def _other_file_in(directory: str) -> tuple[str, OtherFormat] | None:
    """Return the first file of another tool directly in a local directory, and its format."""
    if is_url(directory):
        return None
    with suppress(OSError):
        for name in sorted(filesystem.names_in(directory), key=natural_order)[:_GLANCE]:
            with suppress(ReadProblem):
                path = os.path.join(directory, name)
                if filesystem.is_file(path) and (found := format_of_other(path)):
                    return name, found
    return None


def one_of(path: str) -> Target:
    """Return the checkpoint that the directory `path` stands for; raises a `ReadProblem`."""
    found = discover(path)
    if len(found) > 1:
        some = listed([item.path for item in found])
        raise NotFound(path, f"it holds {len(found)} checkpoints", f"Name one of them: {some}.")
    if not found:
        raise nothing_in(path)
    target, problem = found[0].target, found[0].problem
    if target is None:
        raise problem or nothing_in(path)
    return target


def found_at(candidate: Candidate | ReadProblem) -> Found:
    """Return the checkpoint at a candidate's place, or the problem with it."""
    if isinstance(candidate, ReadProblem):
        return Found(candidate.path, None, candidate)
    shown, path, claimed = candidate
    try:
        return Found(shown, locate(path), claimed=claimed)
    except ReadProblem as problem:
        return Found(shown, None, problem, claimed=claimed)


def _with_named(directory: str, found: list[Found]) -> list[Found]:
    """Add to what lies in a training directory what its state file names outside of it.

    A note on the first checkpoint says which named ones are missing: a Saver takes those that it
    deletes out of the file.
    """
    state_file = os.path.join(directory, STATE_FILE)
    if not filesystem.is_file(state_file):
        return found
    try:
        _, names = read_state(state_file)
    except ReadProblem as problem:
        return [Found(state_file, None, problem), *found]
    named = NamedCheckpoints(directory, names)
    below = os.path.join(directory, "")
    gone, elsewhere = [], []
    for name in names:
        try:
            target = named.locate(name)
        except ReadProblem as problem:
            if not problem.path.startswith(below):  # else it is among those found
                elsewhere.append(Found(problem.path, None, problem))
            continue
        if target is None:
            gone.append(name)
        elif not target.path.startswith(below):
            elsewhere.append(Found(target.path, target))
    known = {identity(item) for item in found} if elsewhere else set()
    found = [*(item for item in elsewhere if identity(item) not in known), *found]
    return _with_note(found, Incomplete(state_file, _gone(gone), _COPY)) if gone else found


def _gone(names: list[str]) -> str:
    some = listed(names)
    if len(names) == 1:
        return f"it names {some}, which is not in this directory"
    return f"it names {len(names)} checkpoints that are not in this directory ({some})"


def _with_note(found: list[Found], problem: ReadProblem) -> list[Found]:
    """Add a problem as a note to the first checkpoint; without one, add it as a result."""
    for number, item in enumerate(found):
        if item.target is not None:
            note = f"{problem.path}: {problem.message}"
            target = replace(item.target, notes=(*item.target.notes, note))
            return [*found[:number], replace(item, target=target), *found[number + 1 :]]
    return [Found(problem.path, None, problem), *found]


def _others_in(directory: str, taken: Target) -> Iterator[str]:
    """Yield a note if a directory that stands for one checkpoint holds models of another kind."""
    beside, is_step = os.path.split(taken.path)
    for candidate in _walk(directory, most=_GLANCE):
        if isinstance(candidate, ReadProblem):
            continue
        shown, path, _ = candidate
        alike = is_step and os.path.dirname(path) == beside and not path.endswith(_KERAS_NAMES)
        if alike or shown == taken.path:
            continue  # another step of the same training, or what was opened
        yield (
            f"{directory} also holds other models ({shown}): not read; name them, or use"
            " --all-checkpoints"
        )
        return


def _matching(pattern: str, *, every: bool) -> list[Found]:
    """Return what an unexpanded pattern names; files are judged like those of a directory."""
    paths, faults = matching(pattern, endings=("", ".index"))
    found = [Found(path, None, unreadable_directory(path, error)) for path, error in faults.items()]
    by_directory: dict[str, set[str]] = {}
    for path in paths:
        if filesystem.is_directory(path):
            found += discover(path, every=every)
        elif filesystem.is_file(path):
            directory, name = os.path.split(path)
            by_directory.setdefault(directory, set()).add(name)
    for directory, names in by_directory.items():
        found += map(found_at, among(directory, _with_parts(directory, names)))
    return sorted(found, key=lambda item: natural_order(item.path))


def _with_parts(directory: str, names: set[str]) -> set[str]:
    """Add the other parts of the same checkpoints: a pattern may have matched some of them."""
    parts = parts_in(directory)
    return names.union(*(parts.get(checkpoint_of(name), ()) for name in names))


def parts_in(directory: str) -> dict[str, set[str]]:
    """Return the names in a directory by their checkpoint; nothing if it is unreadable."""
    parts: dict[str, set[str]] = {}
    with suppress(OSError):
        for name in filesystem.names_in(directory):
            parts.setdefault(checkpoint_of(name), set()).add(name)
    return parts


def _walk(root: str, most: int | None = None) -> Iterator[Candidate | ReadProblem]:
    """Yield the checkpoints below a directory, and the directories that cannot be read.

    `most` limits how many names are examined; then only files with names of checkpoints are opened.
    """
    examined = 0
    if most is None:
        filesystem.list_below(root)
    for directory in walk(root, without=_OF_SAVED_MODEL):
        if directory.fault is not None:
            yield unreadable_directory(directory.path, directory.fault)
        yield from among(directory.path, directory.names, every=most is None)
        examined += directory.total
        if most is not None and examined > most:
            return


def among(directory: str, names: Iterable[str], *, every: bool = True) -> Iterator[Candidate]:
    """Yield the checkpoints among the files of one directory, in natural order.

    Without `every` files are left out whose names are none that checkpoints have.
    """
    names = set(names)
    if SAVED_MODEL in names:
        yield Candidate(directory, os.path.join(directory, SAVED_MODEL), claimed=True)
    found = _bundles(directory, names)
    shards = _shards_by_map(names)
    found |= {map_name: (map_name, True) for map_name in shards.values()}
    rest = {name for name in names if not PART.fullmatch(name)} - shards.keys() - found.keys()
    found |= _single_files(directory, names, rest - {SAVED_MODEL}, every=every)
    for shown in sorted(found, key=natural_order):
        name, claimed = found[shown]
        yield Candidate(os.path.join(directory, shown), os.path.join(directory, name), claimed)


# The name to show → the file to open, and whether its name or its place claims a checkpoint.
_Files = dict[str, tuple[str, bool]]


def _bundles(directory: str, names: Set[str]) -> _Files:
    """Return the V2 checkpoints, by prefix; those without an index by one of their shards."""
    found: _Files = {}
    parts = {name: match[1] for name in names if (match := PART.fullmatch(name))}
    with_data = {prefix for name, prefix in parts.items() if ".data-" in name[len(prefix) :]}
    for name, prefix in parts.items():
        if not name.endswith(".meta") and not _UNFINISHED.fullmatch(f"{directory}/{prefix}"):
            index = f"{prefix}.index"
            if index not in names:
                found[prefix] = (name, True)
            elif prefix in with_data or _is_table(os.path.join(directory, index)):
                found[prefix] = (index, True)
    return found


def _shards_by_map(names: Set[str]) -> dict[str, str]:
    """Return the shards of sharded Keras weights, each with the map beside it."""
    maps = {name: match[1] + KERAS_MAP for name in names if (match := KERAS_SHARD.fullmatch(name))}
    return {shard: map_name for shard, map_name in maps.items() if map_name in names}


def _single_files(directory: str, names: Set[str], rest: Set[str], *, every: bool) -> _Files:
    """Return the checkpoints among `rest`: those of one file, and V1 checkpoints in shards."""
    found: _Files = {}
    passed_over: _Files = {}
    v1_names = set()
    for name in sorted(rest):
        shard = V1_SHARD.fullmatch(name)
        stem, shown = (shard[1], f"{shard[1]}-?????-of-{shard[3]}") if shard else (name, name)
        if shown in found or not (every or _is_checkpoint_name(name, stem)):
            continue
        path = os.path.join(directory, name)
        verdict = _judge(path, stem, has_graph=f"{stem}.meta" in names)
        if verdict == "other":
            passed_over.setdefault(shown, (name, True))
            continue
        found[shown] = (name, verdict != "maybe")
        if verdict == "v1":
            v1_names.add(without_numbers(shown))
    for shown, file in passed_over.items():
        if without_numbers(shown) in v1_names:
            found.setdefault(shown, file)
    return found


def _is_checkpoint_name(name: str, stem: str) -> bool:
    """Return whether checkpoints have such names; `stem` is without the number of a shard."""
    return bool(_CLAIM.fullmatch(stem) or _NO_EXTENSION.fullmatch(name))


def _judge(path: str, stem: str, *, has_graph: bool) -> Literal["v1", "claimed", "maybe", "other"]:
    """Return what to make of a file: a V1 checkpoint, or one that has to be opened, or neither.

    `stem` is its name without the number of a shard; `has_graph` says that `STEM.meta` is there.
    A file that is "maybe" a checkpoint is passed over if opening it shows that it is none.
    """
    name = os.path.basename(path)
    claimed = _CLAIM.fullmatch(stem) is not None or (has_graph and "." not in stem)
    try:
        head, tail = ends(path)
    except NotFound:  # a link that leads nowhere
        return "claimed" if claimed else "other"
    except ReadProblem:
        return "claimed" if _is_checkpoint_name(name, stem) else "other"
    if tail == TABLE_MAGIC or begins_as_v1(head):
        return "v1"
    if head.startswith(HDF5_SIGNATURE):
        return "claimed" if name.lower().endswith((".keras", ".weights.h5")) else "maybe"
    if is_keras_archive(head):
        return "claimed"
    is_other = head.startswith(_OTHERS) and not name.lower().endswith(".keras")
    return "claimed" if claimed and not is_other else "other"


def _is_table(path: str) -> bool:
    try:
        return ends(path)[1] == TABLE_MAGIC
    except ReadProblem:
        return True  # opening it raises the problem
