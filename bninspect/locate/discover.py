"""From one path to all checkpoints it names: a pattern, a directory of models, a whole training.

The first and last bytes of a file show whether it is a checkpoint, whatever its name. The name
decides what happens with a file that is not a checkpoint, or cannot be read:

- `.h5`, `.hdf5`, `.keras`, `.onnx` and `.ckpt` (`model.ckpt`, `model.ckpt-200`) claim to be a
  checkpoint, so a damaged, empty or mistaken file is reported; but PyTorch, pickle and NumPy files,
  which use these names too, and HDF5 files that Keras did not write are passed over;
- so does a name that differs in numbers alone from that of a V1 checkpoint beside it;
- V1 checkpoints have names without an extension, or with one that holds a digit (`model-200`,
  `net.v1-200`): another kind of file with such a name is passed over; one that cannot be opened,
  was cut short or is a Git LFS pointer is reported;
- files with other names are passed over even if they cannot be opened;
- `P.index` counts if it is a table or if there are shards of P beside it; shards without their
  index are reported.

A JSON file is opened if it begins with a key of TensorFlow.js, whatever its name; the topology and
the format of a model claim one, and so does the name `model.json` beside shards of such a model. A
V2 checkpoint, the shards of a V1 one, `NAME.weights.json` and the JSON of a TensorFlow.js model
with their shards, and a SavedModel directory count once each.
Hidden files, pipes and devices are never opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from typing import Literal, NamedTuple

from bninspect.errors import Incomplete, NotFound, ReadProblem
from bninspect.locate.locate import as_typed, locate, locate_listed
from bninspect.locate.orbax import step_of, unfinished_in, without_unfinished
from bninspect.locate.single_file import format_of_other
from bninspect.locate.state_file import read_state
from bninspect.locate.training_directory import NamedCheckpoints, unreadable_directory
from bninspect.locate.trainings import identity
from bninspect.model.filenames import (
    GRAPHS_OF_SAVED_MODEL,
    KERAS_MAP,
    KERAS_SHARD,
    ORBAX_MARKERS,
    ORBAX_TREE,
    ORBAX_UNFINISHED,
    PART,
    STATE_FILE,
    TFJS_JSON,
    TFJS_SHARD,
    V1_SHARD,
    VARIABLES,
    checkpoint_of,
    is_of_orbax,
    natural_order,
    without_numbers,
)
from bninspect.model.target import CheckpointLocation, Target
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
    is_onnx,
    message_kind,
)
from bninspect.storage.urls import is_url
from bninspect.storage.walk import walk
from bninspect.wording import listed


class Candidate(NamedTuple):
    """A possible checkpoint: the path to show, the path to locate, and its claim.

    Unless `claimed`, the file is passed over if its content is something else.
    """

    shown: str
    path: str
    claimed: bool


# Returns whether nothing below a directory is searched.
Skips = Callable[[str], bool]


def _no_directory(_: str) -> bool:
    return False


_KERAS_NAMES = (".h5", ".hdf5", ".keras", KERAS_MAP)
_CLAIM = re.compile(r"(?is).*\.(h5|hdf5|keras|onnx|ckpt([-_.]?[0-9]+)?)")
_NO_EXTENSION = re.compile(r"(?s)[^.]+|.*\.[^.]*[0-9][^.]*")
_OF_SAVED_MODEL = (VARIABLES, "assets", "assets.extra")
# A save that did not finish leaves its shards in such a directory
# (tensorflow/python/training/saver.py, tensorflow/python/checkpoint/functional_saver.py).
_UNFINISHED = re.compile(r"(?s).*_temp(_[0-9a-f]{32})?/part(-[0-9]{5}-of-[0-9]{5})?")
# The first bytes of PyTorch, pickle and NumPy files, which may have names of checkpoints.
_OTHERS = (b"\x80", b"\x93NUMPY", *ZIP_SIGNATURES)
# The first key of a TensorFlow.js model (ModelJSON of tfjs-core/src/io/types.ts); the group matches
# those that no other tool writes.
_TFJS_HEAD = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*\{\s*"(?:(modelTopology|weightsManifest|format"\s*:\s*"(?:layers|graph)-model)'
    rb"|format|generatedBy|convertedBy|signature|trainingConfig|userDefinedMetadata|modelInitializer"
    rb'|initializerSignature)"'
)
_COPY = "Copy all checkpoints that it names, or name those that are there."
# The number of names that are examined to see whether a training directory holds other models.
_GLANCE = 1000


Find = Callable[[CheckpointLocation], None]


def discover(
    path: str, *, every: bool = False, skips: Skips = _no_directory, find: Find | None = None
) -> list[CheckpointLocation]:
    """Return all checkpoints that `path` names, in the natural order of their names.

    A path that exists is taken literally, else as a pattern. A training directory stands for its
    newest checkpoint; with `every` it stands, as other directories always do, for all checkpoints
    below it and all that its state file names. Nothing is searched for below the directories that
    `skips` returns True for. The list is empty if nothing is found.

    `find` is called with each checkpoint below a local directory when it is found. The list holds
    the same objects, unless there is something to add to them.
    """
    try:
        return _discover(path, every=every, skips=skips, find=None if is_url(path) else find)
    except ReadProblem as problem:  # a server does not list its files
        return [CheckpointLocation(path, None, as_typed(path, problem))]


def _discover(
    path: str, *, every: bool, skips: Skips, find: Find | None
) -> list[CheckpointLocation]:
    if every and os.path.basename(path) == STATE_FILE and filesystem.is_file(path):
        path = os.path.dirname(path) or "."
    try:
        target = locate(path)
    except ReadProblem as problem:
        if isinstance(problem, NotFound) and is_pattern(path) and not filesystem.is_there(path):
            return _matching(path, every=every, skips=skips)
        if not (every and filesystem.is_directory(path)):
            return [CheckpointLocation(path, None, problem)]
        target = Target("directory", path)
    if not filesystem.is_directory(path) or (
        target.kind == "tensor-bundle" and target.path == path
    ):
        return [CheckpointLocation(path, target)]
    if target.kind == "directory" or every:
        locations = _without_unfinished(path, list(_found(path, skips, find)))
        return _with_named(path, locations) if every else locations
    return [
        CheckpointLocation(path, target._replace(notes=(*target.notes, *_others_in(path, target))))
    ]


def _found(path: str, skips: Skips, find: Find | None) -> Iterator[CheckpointLocation]:
    """Yield the checkpoints below a directory; `find` is called with each.

    A SavedModel counts once, also where its graph has another name or lies there twice.
    """
    of_saved_models: set[str] = set()
    for candidate in _walk(path, skips=skips):
        location = found_at(candidate)
        if (prefix := _variables_of(location)) in of_saved_models:
            continue
        if prefix is not None and location.target is not None:
            of_saved_models |= {prefix} if location.target.kind == "saved-model" else set()
        if find is not None:
            find(location)
        yield location


def _variables_of(location: CheckpointLocation) -> str | None:
    """Return the prefix of a V2 checkpoint, or of a SavedModel's variables; None for others."""
    target = location.target
    if target is None or target.kind not in ("saved-model", "tensor-bundle"):
        return None
    if target.kind == "tensor-bundle":
        return target.path
    from bninspect.storage.saved_models import variables_prefix

    return variables_prefix(target.path)


def _without_unfinished(path: str, locations: list[CheckpointLocation]) -> list[CheckpointLocation]:
    """Return the locations below a directory without steps of Orbax that are not whole."""
    if is_url(path):
        return locations
    of_orbax = (item.target for item in locations if item.target and item.target.kind == "orbax")
    parents = {os.path.dirname(target.path) for target in of_orbax} | {os.path.normpath(path)}
    unfinished = [step for parent in sorted(parents) for step in unfinished_in(parent)]
    return without_unfinished(locations, unfinished)


def nothing_in(path: str) -> NotFound:
    """Return the error for a path that exists, or is a pattern, but names no checkpoint."""
    if not filesystem.is_directory(path):
        return NotFound(
            path,
            "no checkpoint matches this pattern",
            "Check the pattern: * and ? stand for characters of one name, ** for any directories.",
        )
    fault = "this directory holds no checkpoint, nor does any directory below it"
    if (other_file := _other_file_in(path)) is not None:
        name, format_ = other_file
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
                if filesystem.is_file(path) and (other_format := format_of_other(path)):
                    return name, other_format
    return None


def one_of(path: str) -> Target:
    """Return the checkpoint that the directory `path` stands for; raises a `ReadProblem`."""
    locations = discover(path)
    if len(locations) > 1:
        some = listed([item.path for item in locations])
        raise NotFound(path, f"it holds {len(locations)} checkpoints", f"Name one of them: {some}.")
    if not locations:
        raise nothing_in(path)
    target, problem = locations[0].target, locations[0].problem
    if target is None:
        raise problem or nothing_in(path)
    return target


def found_at(candidate: Candidate | ReadProblem) -> CheckpointLocation:
    """Return the location of a candidate, or the problem with it."""
    if isinstance(candidate, ReadProblem):
        return CheckpointLocation(candidate.path, None, candidate)
    shown, path, claimed = candidate
    try:
        target = locate_listed(shown) if path == f"{shown}.index" else None
        target = target or locate(path)
        if target.path == shown:
            shown = target.path  # one text is kept, of millions of checkpoints
        return CheckpointLocation(shown, target, claimed=claimed)
    except ReadProblem as problem:
        return CheckpointLocation(shown, None, problem, claimed=claimed)


def _with_named(directory: str, locations: list[CheckpointLocation]) -> list[CheckpointLocation]:
    """Add the checkpoints that the state file of a training directory names outside of it.

    A note on the first checkpoint says which named ones are missing: a Saver removes the names of
    those that it deletes.
    """
    state_file = os.path.join(directory, STATE_FILE)
    if not filesystem.is_file(state_file):
        return locations
    try:
        _, names = read_state(state_file)
    except ReadProblem as problem:
        return [CheckpointLocation(state_file, None, problem), *locations]
    named = NamedCheckpoints(directory, names)
    below = os.path.join(directory, "")
    gone, elsewhere = [], []
    for name in names:
        try:
            target = named.locate(name)
        except ReadProblem as problem:
            if not problem.path.startswith(below):  # otherwise it is among `locations`
                elsewhere.append(CheckpointLocation(problem.path, None, problem))
            continue
        if target is None:
            gone.append(name)
        elif not target.path.startswith(below):
            elsewhere.append(CheckpointLocation(target.path, target))
    known = {identity(item) for item in locations} if elsewhere else set()
    locations = [*(item for item in elsewhere if identity(item) not in known), *locations]
    return _with_note(locations, Incomplete(state_file, _gone(gone), _COPY)) if gone else locations


def _gone(names: list[str]) -> str:
    some = listed(names)
    if len(names) == 1:
        return f"it names {some}, which is not in this directory"
    return f"it names {len(names)} checkpoints that are not in this directory ({some})"


def _with_note(
    locations: list[CheckpointLocation], problem: ReadProblem
) -> list[CheckpointLocation]:
    """Add a problem as a note to the first checkpoint; without one, add it as a result."""
    for number, item in enumerate(locations):
        if item.target is not None:
            note = f"{problem.path}: {problem.message}"
            target = item.target._replace(notes=(*item.target.notes, note))
            return [*locations[:number], item._replace(target=target), *locations[number + 1 :]]
    return [CheckpointLocation(problem.path, None, problem), *locations]


def _others_in(directory: str, taken: Target) -> Iterator[str]:
    """Yield a note if a directory that stands for one checkpoint holds models of another kind."""
    beside, is_step = os.path.split(taken.path)
    for candidate in _walk(directory, most=_GLANCE):
        if isinstance(candidate, ReadProblem):
            continue
        shown, path, _ = candidate
        directory_of = os.path.dirname(shown if taken.kind == "orbax" else path)
        alike = is_step and directory_of == beside and not path.endswith(_KERAS_NAMES)
        if alike or shown == taken.path:
            continue  # another step of the same training, or what was opened
        yield (
            f"{directory} also holds other models ({shown}): not read; name them, or use"
            " --all-checkpoints"
        )
        return


def _matching(pattern: str, *, every: bool, skips: Skips) -> list[CheckpointLocation]:
    """Return the checkpoints that a pattern names; files are judged like those of a directory."""
    paths, faults = matching(pattern, endings=("", ".index"))
    locations = [
        CheckpointLocation(path, None, unreadable_directory(path, error))
        for path, error in faults.items()
    ]
    by_directory: dict[str, set[str]] = {}
    unfinished = []
    for path in paths:
        if ORBAX_UNFINISHED in path:
            unfinished.append(path)
        elif filesystem.is_directory(path):
            locations += [] if skips(path) else discover(path, every=every, skips=skips)
        elif filesystem.is_file(path):
            directory, name = os.path.split(path)
            by_directory.setdefault(directory, set()).add(name)
    for directory, names in by_directory.items():
        locations += map(found_at, among(directory, _with_parts(directory, names)))
    locations.sort(key=lambda item: natural_order(item.path))
    return without_unfinished(locations, unfinished)


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


def _walk(
    root: str, most: int | None = None, skips: Skips = _no_directory
) -> Iterator[Candidate | ReadProblem]:
    """Yield the checkpoints below a directory, and the directories that cannot be read.

    `most` limits how many names are examined; then only files with names of checkpoints are opened.
    """
    examined = 0
    if most is None:
        filesystem.list_below(root)
    for directory in walk(root, without=_OF_SAVED_MODEL, skips=skips):
        if directory.fault is not None:
            yield unreadable_directory(directory.path, directory.fault)
        yield from among(directory.path, directory.names, every=most is None)
        examined += directory.total
        if most is not None and examined > most:
            return


def among(directory: str, names: Iterable[str], *, every: bool = True) -> Iterator[Candidate]:
    """Yield the checkpoints among the files of one directory, in natural order.

    Without `every`, files are left out if checkpoints do not have such names.
    """
    names = names if isinstance(names, Set) else set(names)
    if is_of_orbax(names):
        marker = next(name for name in ORBAX_MARKERS if name in names)
        claimed = marker != ORBAX_TREE  # other programs may use this name, too
        yield Candidate(step_of(directory), os.path.join(directory, marker), claimed)
        return
    parts = {name: match[1] for name in names if (match := PART.fullmatch(name))}
    files = _bundles(directory, names, parts)
    if graphs := [name for name in GRAPHS_OF_SAVED_MODEL if name in names]:
        yield Candidate(directory, os.path.join(directory, graphs[0]), claimed=True)
        files.pop(VARIABLES, None)
    if rest := {name for name in names if name not in parts}:
        shards = _shards_by_map(names)
        files |= {map_name: (map_name, True) for map_name in shards.values()}
        rest -= {*shards, *files, *graphs}
        files |= _single_files(directory, names, rest, every=every)
    base = os.path.join(directory, "")
    for shown in files if len(files) == 1 else sorted(files, key=_order):
        name, claimed = files[shown]
        yield Candidate(base + shown, base + name, claimed)


def _order(shown: str) -> tuple[bool, list[tuple[int, str]]]:
    """Return a sort key: the graph of a SavedModel under another name precedes its variables."""
    return shown == VARIABLES, natural_order(shown)


# The name to show → the file to open, and whether its name or its directory claims a checkpoint.
_Files = dict[str, tuple[str, bool]]


def _bundles(directory: str, names: Set[str], parts: Mapping[str, str]) -> _Files:
    """Return the V2 checkpoints, by prefix; those without an index by one of their shards.

    `parts` are the files of V2 checkpoints among `names`, each with its prefix.
    """
    bundles: _Files = {}
    with_data = {prefix for name, prefix in parts.items() if ".data-" in name[len(prefix) :]}
    for name, prefix in parts.items():
        if not name.endswith(".meta") and not _UNFINISHED.fullmatch(f"{directory}/{prefix}"):
            index = f"{prefix}.index"
            if index not in names:
                bundles[prefix] = (name, True)
            elif prefix in with_data or _is_table(os.path.join(directory, index)):
                bundles[prefix] = (index, True)
    return bundles


def _shards_by_map(names: Set[str]) -> dict[str, str]:
    """Return the shards of sharded Keras weights, each with the map beside it."""
    maps = {name: match[1] + KERAS_MAP for name in names if (match := KERAS_SHARD.fullmatch(name))}
    return {shard: map_name for shard, map_name in maps.items() if map_name in names}


def _single_files(directory: str, names: Set[str], rest: Set[str], *, every: bool) -> _Files:
    """Return the checkpoints among `rest`: those of one file, and V1 checkpoints in shards."""
    files: _Files = {}
    passed_over: _Files = {}
    v1_names = set()
    for name in sorted(rest):
        shard = V1_SHARD.fullmatch(name)
        stem, shown = (shard[1], f"{shard[1]}-?????-of-{shard[3]}") if shard else (name, name)
        if shown in files or not (every or _is_checkpoint_name(name, stem)):
            continue
        path = os.path.join(directory, name)
        is_named = f"{stem}.meta" in names if "." not in stem else _has_tfjs_shards(name, names)
        verdict = _judge(path, stem, is_named=is_named)
        if verdict == "other":
            passed_over.setdefault(shown, (name, True))
            continue
        files[shown] = (name, verdict != "maybe")
        if verdict == "v1":
            v1_names.add(without_numbers(shown))
    for shown, file in passed_over.items():
        if without_numbers(shown) in v1_names:
            files.setdefault(shown, file)
    return files


def _is_checkpoint_name(name: str, stem: str) -> bool:
    """Return whether checkpoints have such names; `stem` is without the number of a shard."""
    return bool(_CLAIM.fullmatch(stem) or _NO_EXTENSION.fullmatch(name))


def _has_tfjs_shards(name: str, names: Set[str]) -> bool:
    """Return whether a file is called like the JSON of a TensorFlow.js model beside its shards."""
    return name == TFJS_JSON and any(map(TFJS_SHARD.fullmatch, names))


def _judge(path: str, stem: str, *, is_named: bool) -> Literal["v1", "claimed", "maybe", "other"]:
    """Return the kind of a file by its name, first and last bytes.

    `stem` is its name without the number of a shard; `is_named` says that files beside it mark it
    as a checkpoint: a `STEM.meta`, the shards of a TensorFlow.js model.
    A file that is "maybe" a checkpoint is passed over if opening it shows that it is not.
    """
    name = os.path.basename(path)
    claimed = is_named or _CLAIM.fullmatch(stem) is not None
    try:
        head, tail = ends(path)
    except NotFound:  # a link that leads nowhere
        return "claimed" if claimed else "other"
    except ReadProblem:
        is_usual = name == TFJS_JSON or _is_checkpoint_name(name, stem)
        return "claimed" if is_usual else "other"
    if tail == TABLE_MAGIC or begins_as_v1(head):
        return "v1"
    return _judge_head(name, head, claimed=claimed)


def _judge_head(name: str, head: bytes, *, claimed: bool) -> Literal["claimed", "maybe", "other"]:
    """Return the kind of a file that is no V1 checkpoint; `claimed` is what its name says."""
    if head.startswith(HDF5_SIGNATURE):
        return "claimed" if name.lower().endswith((".keras", ".weights.h5")) else "maybe"
    if is_keras_archive(head) or (is_onnx(head) and name.lower().endswith(".onnx")):
        return "claimed"
    if is_onnx(head) or message_kind(head) is not None:
        return "maybe"
    is_other = head.startswith(_OTHERS) and not name.lower().endswith(".keras")
    return "claimed" if claimed and not is_other else _judge_json(head)


def _judge_json(head: bytes) -> Literal["claimed", "maybe", "other"]:
    """Return whether a JSON file is a TensorFlow.js model, by the keys that it begins with."""
    if not (key := re.match(_TFJS_HEAD, head)):
        return "other"
    return "claimed" if key[1] else "maybe"


def _is_table(path: str) -> bool:
    try:
        return ends(path)[1] == TABLE_MAGIC
    except ReadProblem:
        return True  # opening it raises the problem
