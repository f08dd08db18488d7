"""From one path to all checkpoints it names: a pattern, a directory of models, a whole training.

Of each file in a directory the head and the last bytes tell whether it is a checkpoint, whatever it
is called. Its name tells what to make of one that is not or cannot be read:

- `.h5`, `.hdf5`, `.keras` and `.ckpt` (`model.ckpt`, `model.ckpt-200`): the name claims that it is
  one, so a damaged, empty or mistaken file is reported; but PyTorch, pickle and NumPy files, which
  use these names too, and HDF5 files that Keras did not write are passed over;
- names without an extension, or with one that holds a digit (`model-200`, `net.v1-200`), which is
  how V1 checkpoints are called: what is something else is passed over, what cannot be opened or is
  a Git LFS pointer is reported;
- all other names: passed over, too, if they cannot be opened;
- `P.index`, if it is a table or if shards of P lie beside it; shards without their index are
  reported.

A V2 checkpoint, the shards of a V1 one, `NAME.weights.json` with its shards and a SavedModel
directory count once each. Hidden files, pipes and devices are never opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache

from bninspect.errors import Incomplete, NotFound, ReadProblem
from bninspect.locate.locate import locate, locate_named, shard_counts, unreadable_directory
from bninspect.locate.state_file import state_of
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
from bninspect.storage.signatures import HDF5_SIGNATURE, TABLE_MAGIC, ZIP_SIGNATURES, ends
from bninspect.storage.urls import is_url
from bninspect.storage.walk import walk
from bninspect.wording import listed

# Where to look, as typed, and what is there: (path to show, path to locate, claimed or not).
Candidate = tuple[str, str, bool]

_KERAS_NAMES = (".h5", ".hdf5", ".keras", KERAS_MAP)
_CLAIM = re.compile(r"(?is).*\.(h5|hdf5|keras|ckpt([-_.]?[0-9]+)?)")
_NO_EXTENSION = re.compile(r"(?s)[^.]+|.*\.[^.]*[0-9][^.]*")
_OF_SAVED_MODEL = ("variables", "assets", "assets.extra")
# A save that did not finish leaves its shards in such a directory
# (tensorflow/python/training/saver.py, tensorflow/python/checkpoint/functional_saver.py).
_UNFINISHED = re.compile(r"(?s).*_temp(_[0-9a-f]{32})?/part(-[0-9]{5}-of-[0-9]{5})?")
# Heads of what PyTorch, pickle and NumPy write under names of checkpoints.
_OTHERS = (b"\x80", b"\x93NUMPY", *ZIP_SIGNATURES)
# The first member of a .keras archive (keras/src/saving/saving_lib.py).
_KERAS_MEMBERS = (b"metadata.json", b"config.json", b"model.weights.h5")
_COPY = "Copy all checkpoints that it names, or name those that are there."
_MAGIC = re.compile(r"[*?[]")
# How many names are looked at to tell whether a training directory holds other models, too.
_GLANCE = 1000


def discover(path: str, *, every: bool = False) -> list[Found]:
    """All checkpoints that `path` names, oldest first within a directory.

    A path that exists is taken literally, else as a pattern. A training directory stands for its
    newest checkpoint; with `every` it stands, as other directories do anyway, for all checkpoints
    below it and all that its state file names. The list is empty if nothing is found.
    """
    try:
        return _discover(path, every=every)
    except ReadProblem as problem:  # nobody can tell what lies behind a URL
        return [Found(path, None, problem)]


def _discover(path: str, *, every: bool) -> list[Found]:
    if every and os.path.basename(path) == STATE_FILE and filesystem.is_file(path):
        path = os.path.dirname(path) or "."
    try:
        target = locate(path)
    except ReadProblem as problem:
        if isinstance(problem, NotFound) and _MAGIC.search(path) and not filesystem.is_there(path):
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


def identity(found: Found) -> str:
    """What is opened: the same for every path that leads to one checkpoint."""
    if found.target is None:
        # Of URLs: a bucket that is missing is what is wrong with each of them.
        place = found.path
        if found.problem is not None and not is_url(place):
            place = found.problem.path
        return f"problem:{place}"
    directory, name = os.path.split(found.target.path)
    if found.target.kind != "tensor-bundle":
        return filesystem.real_path(found.target.path)
    directory = filesystem.real_path(directory or ".")
    around, below = os.path.split(directory)
    if name == below == "variables" and filesystem.exists(os.path.join(around, SAVED_MODEL)):
        return around
    # Not the real path of the index: a link to that alone is no second name of the whole.
    return os.path.join(directory, name)


def training_of(found: Found) -> tuple[str, str] | None:
    """What the checkpoints of one training share: the directory, and the name but for its numbers.

    None for what cannot be opened, and for SavedModels, which are exported and not written by a
    training (`export/1`, `export/2`).
    """
    if found.target is None or found.target.kind == "saved-model":
        return None
    directory, name = os.path.split(identity(found))
    return directory, without_numbers(name)


def trainings_in(path: str, found: Iterable[Found]) -> list[str]:
    """The folders in which trainings of their own lie, of what `path` names; empty if it is one.

    Two checkpoints directly in a directory make that one training, with its exports and its best
    below it (two SavedModels do not: they may be exports of any); so do folders whose names differ
    in numbers alone and which hold one each (`epoch_1`, `epoch_2`).
    """
    counts: dict[str, int] = {}
    shown: dict[str, str] = {}
    home = filesystem.real_path(os.path.dirname(path) if filesystem.is_file(path) else path)
    written = 0  # what a training writes itself, directly in the directory
    for item in found:
        if item.target is not None:
            folder = os.path.dirname(identity(item))
            counts[folder] = counts.get(folder, 0) + 1
            shown.setdefault(folder, os.path.dirname(item.path) or ".")
            written += folder == home and item.target.kind != "saved-model"
    counts.pop(home, None)
    if written > 1 or len(counts) < 2:
        return []
    alike = len({without_numbers(folder) for folder in counts}) == 1
    if alike and max(counts.values()) == 1:
        return []
    return [shown[folder] for folder in counts]


def nothing_in(path: str) -> NotFound:
    """What to say of a path that exists, or is a pattern, but names no checkpoint."""
    if not filesystem.is_directory(path):
        return NotFound(
            path,
            "no checkpoint matches this pattern",
            "Check the pattern; * and ? stand for characters of a name, never for a /.",
        )
    return NotFound(
        path,
        "this directory holds no checkpoint, nor does any directory below it",
        "Give the directory that the Saver wrote to, or the checkpoint's prefix.",
    )


def one_of(path: str) -> Target:
    """The checkpoint that the directory `path` stands for; a `ReadProblem` if it is not one."""
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
    """What a place that was judged to be a checkpoint's turns out to be."""
    if isinstance(candidate, ReadProblem):
        return Found(candidate.path, None, candidate)
    shown, path, claimed = candidate
    try:
        return Found(shown, locate(path), claimed=claimed)
    except ReadProblem as problem:
        return Found(shown, None, problem, claimed=claimed)


def _with_named(directory: str, found: list[Found]) -> list[Found]:
    """`found` in a training directory, and what its state file names outside of it.

    A note on the first says what is named and gone: Saver takes what it deletes out of the file.
    """
    state_file = os.path.join(directory, STATE_FILE)
    if not filesystem.is_file(state_file):
        return found
    try:
        _, names = state_of(state_file)
    except ReadProblem as problem:
        return [Found(state_file, None, problem), *found]
    remembered = cache(shard_counts)
    here = os.path.join(directory, "")
    gone, elsewhere = [], []
    for name in names:
        try:
            target = locate_named(directory, name, remembered)
        except ReadProblem as problem:
            elsewhere.append(Found(problem.path, None, problem))
            continue
        if target is None:
            gone.append(name)
        elif not target.path.startswith(here):
            elsewhere.append(Found(target.path, target))
    found = [*elsewhere, *found]
    return _with_note(found, Incomplete(state_file, _gone(gone), _COPY)) if gone else found


def _gone(names: list[str]) -> str:
    some = listed(names)
    if len(names) == 1:
        return f"it names {some}, which is not there"
    return f"it names {len(names)} checkpoints that are not there ({some})"


def _with_note(found: list[Found], problem: ReadProblem) -> list[Found]:
    """`found` with a note on the first checkpoint; where there is none, with the problem itself."""
    for number, item in enumerate(found):
        if item.target is not None:
            note = f"{problem.path}: {problem.message}"
            target = replace(item.target, notes=(*item.target.notes, note))
            return [*found[:number], replace(item, target=target), *found[number + 1 :]]
    return [Found(problem.path, None, problem), *found]


def _others_in(directory: str, taken: Target) -> Iterator[str]:
    """A note, if a directory that stands for one checkpoint holds models of another kind, too."""
    beside, steps = os.path.split(taken.path)
    for candidate in _walk(directory, most=_GLANCE):
        if isinstance(candidate, ReadProblem):
            continue
        shown, path, _ = candidate
        alike = steps and os.path.dirname(path) == beside and not path.endswith(_KERAS_NAMES)
        if alike or shown == taken.path:
            continue  # another step of the same training, or what was taken
        yield (
            f"{directory} also holds other models ({shown}): not read; name them, or use"
            " --all-checkpoints"
        )
        return


def _matching(pattern: str, *, every: bool) -> list[Found]:
    """What an unexpanded pattern names; its files are judged as those of a walked directory."""
    paths = {*filesystem.matching(pattern), *filesystem.matching(pattern + ".index")}
    by_directory: dict[str, set[str]] = {}
    found: list[Found] = []
    for path in sorted(paths, key=natural_order):
        if filesystem.is_directory(path):
            found += discover(path, every=every)
        elif filesystem.is_file(path):
            directory, name = os.path.split(path)
            by_directory.setdefault(directory, set()).add(name)
    for directory, names in by_directory.items():
        found += map(found_at, among(directory, _with_parts(directory, names)))
    return sorted(found, key=lambda item: natural_order(item.path))


def _with_parts(directory: str, names: set[str]) -> set[str]:
    """`names` and the parts of the same checkpoints: a pattern may have matched some of them."""
    parts = parts_in(directory)
    return names.union(*(parts.get(checkpoint_of(name), ()) for name in names))


def parts_in(directory: str) -> dict[str, set[str]]:
    """The names in a directory by the checkpoint they are parts of; none if it is unreadable."""
    parts: dict[str, set[str]] = {}
    with suppress(OSError):
        for name in filesystem.names_in(directory):
            parts.setdefault(checkpoint_of(name), set()).add(name)
    return parts


def _walk(root: str, most: int | None = None) -> Iterator[Candidate | ReadProblem]:
    """The checkpoints below a directory, and the directories that cannot be read.

    `most` bounds the number of names that are looked at; then files of other names stay closed.
    """
    looked_at = 0
    if most is None:
        filesystem.list_below(root)
    for directory in walk(root, without=_OF_SAVED_MODEL):
        if directory.fault is not None:
            yield unreadable_directory(directory.path, directory.fault)
        yield from among(directory.path, directory.names, every=most is None)
        looked_at += directory.total
        if most is not None and looked_at > most:
            return


def among(directory: str, names: Iterable[str], *, every: bool = True) -> Iterator[Candidate]:
    """The checkpoints among the files of one directory, in natural order.

    Without `every` those are left out whose names are none that checkpoints have.
    """
    names = set(names)
    found: dict[str, tuple[str, bool]] = {}
    parts = {name: match[1] for name in names if (match := PART.fullmatch(name))}
    with_data = {prefix for name, prefix in parts.items() if ".data-" in name[len(prefix) :]}
    for name, prefix in parts.items():
        if not name.endswith(".meta") and not _UNFINISHED.fullmatch(f"{directory}/{prefix}"):
            index = f"{prefix}.index"
            if index not in names:
                found[prefix] = (name, True)
            elif prefix in with_data or _is_table(os.path.join(directory, index)):
                found[prefix] = (index, True)
    maps = {name: match[1] + KERAS_MAP for name in names if (match := KERAS_SHARD.fullmatch(name))}
    mapped = {shard for shard, map_name in maps.items() if map_name in names}
    found |= {maps[shard]: (maps[shard], True) for shard in mapped}
    for name in sorted(names - parts.keys() - mapped):
        shard = V1_SHARD.fullmatch(name)
        stem, shown = (shard[1], f"{shard[1]}-?????-of-{shard[3]}") if shard else (name, name)
        if name not in found and shown not in found and (every or _says_so(name, stem)):
            claimed = _judge(directory, name, stem, has_graph=f"{stem}.meta" in names)
            if claimed is not None:
                found[shown] = (name, claimed)
    if SAVED_MODEL in names:
        found.pop(SAVED_MODEL, None)
        yield directory, os.path.join(directory, SAVED_MODEL), True
    for shown in sorted(found, key=natural_order):
        name, claimed = found[shown]
        yield os.path.join(directory, shown), os.path.join(directory, name), claimed


def _says_so(name: str, stem: str) -> bool:
    """Whether a file, `stem` without the number of a shard, has a name that checkpoints have."""
    return bool(_CLAIM.fullmatch(stem) or _NO_EXTENSION.fullmatch(name))


def _judge(directory: str, name: str, stem: str, *, has_graph: bool) -> bool | None:
    """Whether a file is to be opened as a checkpoint: None if not, else whether it claims to be.

    `stem` is the name without the number of a shard; `has_graph` says that `STEM.meta` is there.
    """
    claims = _CLAIM.fullmatch(stem) is not None or (has_graph and "." not in stem)
    try:
        head, tail = ends(os.path.join(directory, name))
    except NotFound:  # a link that leads nowhere
        return True if claims else None
    except ReadProblem:
        return True if _says_so(name, stem) else None
    if tail == TABLE_MAGIC:
        return True
    if head.startswith(HDF5_SIGNATURE):
        return name.lower().endswith((".keras", ".weights.h5"))
    if head.startswith(ZIP_SIGNATURES) and head[30:].startswith(_KERAS_MEMBERS):
        return True
    other = head.startswith(_OTHERS) and not name.lower().endswith(".keras")
    return True if claims and not other else None


def _is_table(path: str) -> bool:
    try:
        return ends(path)[1] == TABLE_MAGIC
    except ReadProblem:
        return True  # it says why when it is opened
