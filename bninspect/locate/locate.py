"""From one path to one checkpoint: a prefix, any file of a checkpoint, or a training directory.

`discover` handles paths that name several checkpoints (a pattern, a directory of models).
"""

from __future__ import annotations

import os

from bninspect.errors import Incomplete, NotFetched, NotFound, ReadProblem, UnknownFormat
from bninspect.locate.single_file import locate_file, locate_v1
from bninspect.locate.training_directory import locate_latest, newest_or
from bninspect.model.filenames import (
    BESIDE_SAVED_MODEL,
    ORBAX_FILE,
    PART,
    SAVED_MODEL,
    STATE_FILE,
    VARIABLES,
    checkpoint_of,
    natural_order,
)
from bninspect.model.target import Target
from bninspect.storage import filesystem
from bninspect.storage.signatures import is_text
from bninspect.storage.source import Source
from bninspect.storage.urls import is_url
from bninspect.wording import did_you_mean, nearest

_STANDING_FOR_DIRECTORY = (STATE_FILE, SAVED_MODEL, *BESIDE_SAVED_MODEL)


def locate(path: str) -> Target:
    """Return the checkpoint that `path` means.

    Raises `NotFound` if nothing is there, `UnknownFormat` or `Unsupported` if it is something
    else, `Incomplete` if only parts of a checkpoint are there.
    """
    if "\0" in path:
        raise NotFound(repr(path), "a path cannot hold a NUL character", "Check the path.")
    if not path:
        raise NotFound(
            "''", "the path is empty", "Give a path; perhaps a variable of a script is unset."
        )
    try:
        return _locate(path)
    except ReadProblem as problem:
        raise as_typed(path, problem) from problem.__cause__


def locate_listed(prefix: str) -> Target | None:
    """Return the V2 checkpoint of a prefix whose index is among the files of a directory.

    None if that is a link that leads nowhere.
    """
    return _bundle(prefix) if filesystem.exists(prefix + ".index") else None


def as_typed(path: str, problem: ReadProblem) -> ReadProblem:
    """Return the problem with the typed path instead of a path that was only tried."""
    tried = (path + ".index", *(os.path.join(path, name) for name in (STATE_FILE, SAVED_MODEL)))
    if is_url(path) and problem.path in tried and not isinstance(problem, UnknownFormat):
        return type(problem)(path, problem.message, problem.hint)
    return problem


def _locate(path: str) -> Target:
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
        return _orbax_file(path) or locate_file(path)
    if shards := locate_v1(path):
        return shards
    raise _missing(path)


def _bundle(prefix: str, notes: tuple[str, ...] = ()) -> Target:
    """Return the V2 checkpoint at `prefix`, or the SavedModel whose variables it is."""
    if os.path.basename(prefix) == VARIABLES:
        from bninspect.storage.saved_models import saved_model_around

        directory = saved_model_around(prefix)
        if directory is not None:
            return Target("saved-model", directory, notes)
    return Target("tensor-bundle", prefix, notes)


def _namesake(prefix: str) -> tuple[str, ...]:
    """Return a note if a prefix is also the name of a directory or of another file."""
    if is_url(prefix):
        return ()  # it may cost requests; a directory is recognised by its slash
    if filesystem.is_directory(prefix):
        directory = os.path.join(prefix, "")
        note = f"{prefix} names a checkpoint and a directory; opened the checkpoint {prefix}.index"
        return (f"{note} (for the directory type {directory})",)
    if filesystem.exists(prefix):
        return (f"{prefix} names a checkpoint and a file; opened the checkpoint {prefix}.index",)
    return ()


def _locate_by_name(path: str) -> Target:
    """Return the checkpoint of a file that stands for its directory: a state file, a SavedModel."""
    directory, name = os.path.split(path)
    if filesystem.exists(checkpoint_of(path)) and name != STATE_FILE:
        return Target("saved-model", directory or ".")
    if name == STATE_FILE and _is_state(path):
        return locate_latest(directory, path)
    return locate_file(path)


def _locate_directory(path: str) -> Target:
    state_file = os.path.join(path, STATE_FILE)
    if filesystem.exists(os.path.join(path, ".index")):
        return Target("tensor-bundle", os.path.join(path, ""))
    try:
        if filesystem.is_file(state_file) and _is_state(state_file):
            return locate_latest(path, state_file)
    except NotFetched as problem:
        if problem.path == state_file:
            return newest_or(path, "", problem)
        raise
    from bninspect.storage.saved_models import has_saved_model

    if has_saved_model(path):
        return Target("saved-model", path)
    return _orbax_directory(path) or Target("directory", path)


def _orbax_file(path: str) -> Target | None:
    """Return the step of Orbax that a file is a part of, by its name; None for others."""
    if not ORBAX_FILE.fullmatch(path):
        return None
    from bninspect.locate.orbax import locate_orbax_file

    return locate_orbax_file(path)


def _orbax_directory(path: str) -> Target | None:
    """Return the step that a local directory is, or is a part of, else the newest step in it."""
    if is_url(path):
        return None
    from bninspect.locate.orbax import locate_orbax, newest_step

    return locate_orbax(path) or newest_step(path)


def _is_state(path: str) -> bool:
    """Return whether a file called `checkpoint` is a state file: a model may have that name."""
    with Source(path) as source:
        return is_text(source.read(0, min(source.size, 64), "the checkpoint state"))


def _missing(path: str) -> ReadProblem:
    """Return the error for a path without a file: not found, out of reach, or without an index."""
    for tried in (path,) if filesystem.stands_alone(path) else (path, path + ".index"):
        if (error := filesystem.out_of_reach(tried)) is not None:
            return filesystem.problem_of(error) or NotFound(
                tried,
                f"it cannot be reached ({error.strerror or error})",
                "Check the path, and the permissions of the directories in it.",
            )
    if filesystem.is_there(path):
        return NotFound(path, "this link leads nowhere", "Check what it should lead to.")
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
    # The newest step of those that begin alike, else a name that was mistyped.
    near = max(begun, key=natural_order, default=None)
    near = near or nearest(name, sorted(stems))
    return did_you_mean(near and os.path.join(directory, near)).strip()
