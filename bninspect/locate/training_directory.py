"""The checkpoints of a training directory, as its state file names them.

A Saver that is given an absolute prefix writes absolute names. Such a name means a checkpoint in
this directory if there is one of its name: the directory may be typed relative or through a link,
it may have been moved to another machine, or be a copy whose original still exists.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache, cached_property

from bninspect.errors import Incomplete, NotFound, ReadProblem, UnknownFormat
from bninspect.locate.single_file import locate_file, locate_v1, shard_counts
from bninspect.locate.state_file import read_state
from bninspect.model.filenames import (
    PART,
    STATE_FILE,
    V1_SHARD,
    checkpoint_of,
    natural_order,
)
from bninspect.model.target import Target
from bninspect.storage import filesystem
from bninspect.storage.urls import is_url

_PARTS = re.compile(r"[\\/]")  # a name may be one of Windows


class NamedCheckpoints:
    """The checkpoints that the state file of `directory` names, under the path that was typed.

    `names` are all that it names. Raises a `ReadProblem` if a server does not answer.
    """

    def __init__(self, directory: str, names: Sequence[str]) -> None:
        self._directory = directory
        self._names = names
        # A state file may name thousands: each directory is listed and resolved once.
        self._shard_counts = cache(shard_counts)
        self._folder_in = cache(self._find_folder)

    def locate(self, name: str) -> Target | None:
        """Return the checkpoint called `name`; None if it is gone, or left in the original."""
        if "\0" in name:
            return None  # no file can have such a name
        return next(filter(None, map(self._locate_prefix, self._prefixes(name))), None)

    def is_there(self, name: str) -> bool:
        """Return whether there is a checkpoint at the path `name`, in this directory or not."""
        try:
            return "\0" not in name and self._locate_prefix(self._meant(name)) is not None
        except ReadProblem:
            return True

    def leads_out(self, name: str) -> bool:
        """Return whether `name` leads to another directory that is not below this one."""
        if is_url(self._directory):
            return _leads_away(name.removeprefix(os.path.join(self._directory, "")))
        folder = os.path.dirname(name)
        return _is_far(folder) and self._folder_in(folder) is None

    def _prefixes(self, name: str) -> list[str]:
        """Return the prefixes at which a checkpoint may be, in the order to try them."""
        meant, namesake = self._meant(name), self._namesake(name)
        if not self.leads_out(name):
            return list(dict.fromkeys((meant, namesake)))
        if is_url(self._directory) or os.path.dirname(name) in self._originals:
            return [namesake]
        return [namesake, meant]

    def _meant(self, name: str) -> str:
        """Return the path of a name; below this directory, by the typed path."""
        if is_url(self._directory):
            below = name.removeprefix(os.path.join(self._directory, ""))
            return name if _leads_away(below) else filesystem.named_in(self._directory, below)
        folder, base = os.path.split(name)
        if _is_far(folder):
            inside = self._folder_in(folder)
            if inside is not None:
                return filesystem.named_in(self._directory, os.path.join(inside, base))
        return filesystem.named_in(self._directory, name)

    def _namesake(self, name: str) -> str:
        return filesystem.named_in(self._directory, _base_of(name))

    def _find_folder(self, folder: str) -> str | None:
        """Return a folder relative to this directory, whatever path leads to it; None if outside.

        Compares the directories, not the paths: one may be a link or a mount of the other.
        """
        path = os.path.join(self._directory or ".", folder)
        try:
            home = filesystem.directory_identity(self._directory or ".")
            if filesystem.directory_identity(path) == home:
                return ""
        except OSError:
            pass  # compare the real paths
        home = filesystem.real_path(self._directory or ".")
        try:
            below = os.path.relpath(filesystem.real_path(path), home)
        except ValueError:  # two drives of Windows
            return None
        if below == os.curdir:
            return ""
        return None if below.split(os.sep)[0] == os.pardir else below

    @cached_property
    def _originals(self) -> set[str]:
        """Return the named folders of which this directory is a copy: it has their checkpoints."""
        try:
            own = {checkpoint_of(name) for name in filesystem.names_in(self._directory)}
        except OSError:
            return set()
        parts = map(os.path.split, self._names)
        return {folder for folder, name in parts if folder and checkpoint_of(name) in own}

    def _locate_prefix(self, prefix: str) -> Target | None:
        if filesystem.exists(prefix + ".index"):
            return Target("tensor-bundle", prefix)
        if slices := locate_v1(prefix, self._shard_counts):
            return slices
        return locate_file(prefix) if filesystem.is_file(prefix) else None


def _is_far(folder: str) -> bool:
    """Return whether a folder in a state file need not be below its directory."""
    return os.path.isabs(folder) or os.pardir in _PARTS.split(folder)


def _leads_away(name: str) -> bool:
    """Return whether a name leads out of a directory behind a URL, which is never followed."""
    return name.startswith("/") or is_url(name) or ".." in name.split("/")


def _base_of(name: str) -> str:
    """Return the last part of a name; it may be one of Windows."""
    return _PARTS.split(name)[-1]


def locate_latest(directory: str, state_file: str) -> Target:
    """Return the newest checkpoint that the state file names, else the newest in the directory.

    The result's notes say which. Raises a `ReadProblem` if there is none.
    """
    latest, names = read_state(state_file)
    if latest is None:
        fault = "it names no checkpoint (no model_checkpoint_path)"
        hint = "Give the checkpoint's prefix instead of the directory."
        return newest_or(directory, "", UnknownFormat(state_file, fault, hint))
    named = NamedCheckpoints(directory, names)
    target = named.locate(latest)
    is_there = named.is_there(latest)
    if target is not None and is_there and not named.leads_out(latest):
        return _with_note(target, f"{state_file} names {target.path}")
    where = "which is outside of this directory" if is_there else "which is not there"
    if target is None:
        hint = "Give the prefix of a checkpoint that is there."
        fault = f"it names {latest}, {where}"
        return newest_or(directory, latest, Incomplete(state_file, fault, hint))
    return _with_note(target, f"{state_file} names {latest}, {where}; opened {target.path}")


def _with_note(target: Target, note: str) -> Target:
    return target._replace(notes=(note, *target.notes))


def newest_or(directory: str, named: str, problem: ReadProblem) -> Target:
    """Return the newest checkpoint in a directory whose state file does not help, with a note.

    Raises `problem` if there is none. Checkpoints called like `named` come first.
    """
    newest = _newest(directory, named)
    if newest is None:
        raise problem
    fault = f"{problem.path}: {problem.message}"
    return newest._replace(notes=(f"{fault}; opened {newest.path}, the newest in the directory",))


def _newest(directory: str, named: str) -> Target | None:
    """Return the checkpoint with the highest step in a directory, by name.

    Names like `named` come first. Only as many files are read as it takes to find a V1 checkpoint.
    """
    try:
        names = filesystem.names_in(directory)
    except OSError as error:
        raise unreadable_directory(directory, error) from error
    stems: dict[str, str] = {}
    for name in sorted(names):
        part, shard = PART.fullmatch(name), V1_SHARD.fullmatch(name)
        if name.startswith(".") or name == STATE_FILE:
            continue
        if part is None:
            stems.setdefault(shard[1] if shard else name, name)
        elif part[2] == "index" and part[1]:
            stems[part[1]] = name
    wanted = _without_step(checkpoint_of(_base_of(named)))

    def rank(stem: str) -> tuple[bool, list[tuple[int, str]]]:
        return _without_step(stem) == wanted, natural_order(stem)

    for stem in sorted(stems, key=rank, reverse=True):
        path = os.path.join(directory, stems[stem])
        if PART.fullmatch(path):
            return Target("tensor-bundle", os.path.join(directory, stem))
        if target := _v1_file(path, claimed=_without_step(stem) == wanted):
            return target
    return None


def _v1_file(path: str, *, claimed: bool) -> Target | None:
    """Return the V1 checkpoint that a file is, if it is one.

    Raises `Incomplete` if it was cut short, and another `ReadProblem` only if its name claims that
    it is a checkpoint.
    """
    try:
        return locate_v1(path) if filesystem.is_file(path) else None
    except ReadProblem as problem:
        if claimed or isinstance(problem, Incomplete):
            raise
        return None


def _without_step(name: str) -> str:
    return name.rstrip("0123456789")


def unreadable_directory(path: str, error: OSError) -> ReadProblem:
    """Return the error for a directory that cannot be listed."""
    return filesystem.problem_of(error) or NotFound(
        path,
        f"this directory cannot be read ({error.strerror or error})",
        "Check its permissions.",
    )
