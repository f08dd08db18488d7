"""The baseline: a file of known findings, to be committed beside a project.

It is JSON without times and absolute paths, sorted, with one line per entry, so that its changes
are easy to review. An entry is a rule, a layer, and the place of the checkpoint: its path relative
to the baseline, without step numbers. It stands for that finding in every step of a training, and
in no other model.

Version 1 had no places: an entry stood for every layer of that name. It is still read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, TextIO

from bninspect.errors import UsageProblem
from bninspect.model.report import CheckpointReport, Finding, Report, fingerprint
from bninspect.storage.urls import is_url

_KIND, _VERSION = "bninspect baseline", 2
_WITHOUT_PLACES = 1
_LARGEST = 1 << 26  # bytes: half a million entries
_WRITE_IT = "`bninspect check PATH... --baseline {} --update-baseline` writes it."
_OLD = (
    "the baseline {} is of version 1, whose entries stand for every checkpoint with a layer of that"
    " name, so a new broken model may pass; --update-baseline writes it with the place of each"
    " checkpoint"
)
# A number that counts steps: after one of these words, or a word of its own in a file name. Other
# numbers distinguish models (resnet50, resnet101, run1/, run2/).
_COUNTED = re.compile(r"(?i)((?:checkpoint|ckpt|epoch|iter|step)[-_.]?)[0-9]+")
_NUMBER = re.compile(r"(?i)(?<![a-z0-9])[0-9]+")


class Entry(NamedTuple):
    """A known finding; `place` is empty in a baseline of version 1."""

    rule: str
    layer: str
    place: str

    @property
    def fingerprint(self) -> str:
        """Return 32 hex digits that identify the entry."""
        return fingerprint(self.rule, self.layer, *([self.place] if self.place else []))


class Baseline:
    """The entries of a baseline file; `notes` are sentences to report about it."""

    def __init__(self, path: str, entries: Iterable[Entry], *, has_places: bool) -> None:
        self.entries = frozenset(entries)
        self.notes = () if has_places else (_OLD.format(path),)
        self._path, self._has_places = path, has_places

    def place_of(self, item: CheckpointReport) -> str:
        """Return the place of a checkpoint as the entries have it."""
        return place_of(item, self._path) if self._has_places else ""


def place_of(item: CheckpointReport, baseline: str) -> str:
    """Return a checkpoint's path relative to the baseline file, with # for each step number.

    A URL is returned as it is, with # for each step number.
    """
    opened = item.resolved or item.path
    if is_url(opened):
        folder, _, name = opened.rpartition("/")
    else:
        directory, name = os.path.split(os.path.abspath(opened))
        root = os.path.dirname(os.path.realpath(baseline))
        folder = _seen_from(root, os.path.realpath(directory)).replace(os.sep, "/")
    name = _NUMBER.sub("#", _without_steps(name))
    return name if folder == os.curdir else f"{_without_steps(folder)}/{name}"


def _seen_from(root: str, directory: str) -> str:
    try:
        return os.path.relpath(directory, root)
    except ValueError:  # another drive of Windows
        return directory


def _without_steps(name: str) -> str:
    return _COUNTED.sub(r"\1#", name)


def write_baseline(report: Report, path: str, stream: TextIO) -> int:
    """Write the findings of `report` as the baseline `path`; returns the number of entries."""
    entries = sorted(
        {
            Entry(finding.rule.code, finding.layer, place_of(item, path))
            for item in report.checkpoints
            for finding in item.findings
        }
    )
    lines = [
        json.dumps(
            {
                "rule": entry.rule,
                "layer": entry.layer,
                "checkpoint": entry.place,
                "fingerprint": entry.fingerprint,
            }
        )
        for entry in entries
    ]
    head = json.dumps({"kind": _KIND, "version": _VERSION})[:-1]
    body = "\n  " + ",\n  ".join(lines) + "\n " if lines else ""
    stream.write(f'{head},\n "findings": [{body}]}}\n')
    return len(entries)


def entry_of(finding: Finding, place: str) -> Entry:
    """Return the entry that stands for a finding of the checkpoint at `place`."""
    return Entry(finding.rule.code, finding.layer, place)


def read_baseline(path: str) -> Baseline:
    """Read a baseline; raises `UsageProblem` if the file is missing, damaged or something else."""
    document = _document(path)
    again = _WRITE_IT.format(path)
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise UsageProblem(f"--baseline {path}: this is not a baseline of bninspect. {again}")
    version = document.get("version")
    if version not in (_WITHOUT_PLACES, _VERSION):
        raise UsageProblem(
            f"--baseline {path}: it is of version {version!r}, but this bninspect reads versions"
            f" {_WITHOUT_PLACES} and {_VERSION}. {again}"
        )
    has_places = version == _VERSION
    findings = document.get("findings")
    if not isinstance(findings, list):
        raise UsageProblem(f"--baseline {path}: it has no list of findings. {again}")
    entries = []
    for number, stored in enumerate(findings, 1):
        entry = _entry(stored, has_places=has_places)
        if entry is None:
            parts = "rule, layer and checkpoint" if has_places else "rule and layer"
            raise UsageProblem(
                f"--baseline {path}: finding {number} in it does not have {parts} with their"
                f" fingerprint. {again}"
            )
        entries.append(entry)
    return Baseline(path, entries, has_places=has_places)


def refuse_other_file(path: str) -> None:
    """Raise `UsageProblem` if there is a file at `path` that is not a baseline.

    A damaged baseline, as by a merge, may be overwritten.
    """
    if not os.path.isfile(path):
        return
    try:
        with open(path, "rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise UsageProblem(f"--baseline {path}: {error.strerror or error}.") from error
    if head.strip() and _KIND.encode() not in head:
        raise UsageProblem(
            f"--baseline {path}: this file is not a baseline. Remove it, or give another file."
        )


def _document(path: str) -> Any:
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise UsageProblem(f"--baseline {path}: this is not a file.")
        with open(path, "rb") as stream:
            content = stream.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        is_missing = isinstance(error, FileNotFoundError | ValueError)
        reason = "file not found" if is_missing else getattr(error, "strerror", None) or error
        raise UsageProblem(f"--baseline {path}: {reason}. {_WRITE_IT.format(path)}") from error
    if len(content) > _LARGEST:
        raise UsageProblem(f"--baseline {path}: it is too large ({_LARGEST} bytes at most).")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        is_damaged = _KIND.encode() in content
        reason = "it is damaged" if is_damaged else "this is not a baseline of bninspect"
        raise UsageProblem(
            f"--baseline {path}: {reason} (no JSON). {_WRITE_IT.format(path)}"
        ) from error


def _entry(stored: Any, *, has_places: bool) -> Entry | None:
    """Return a stored entry; None if a part is missing or contradicts the fingerprint."""
    if not isinstance(stored, dict):
        return None
    place = stored.get("checkpoint") if has_places else ""
    parts = (stored.get("rule"), stored.get("layer"), place)
    if not all(isinstance(part, str) for part in parts) or (has_places and not place):
        return None
    entry = Entry(*map(str, parts))
    return entry if stored.get("fingerprint") == entry.fingerprint else None
