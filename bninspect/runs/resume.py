"""Resuming a run with the results that `--format jsonl` wrote in an earlier one.

A result is valid for a checkpoint whose files have not changed. Each line names the version and the
settings that it was made with: results of other settings are never mixed with those of this run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import sha256
from operator import attrgetter
from typing import Any

from bninspect._version import __version__
from bninspect.config.model import Config
from bninspect.errors import UsageProblem
from bninspect.frozen import NamedTuple
from bninspect.locate.fingerprint import fingerprint_of
from bninspect.model.checkpoint import UncheckedGroup
from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Earlier, Finding
from bninspect.model.rule import PossibleCause
from bninspect.model.target import CheckpointLocation
from bninspect.opening import find_checkpoints
from bninspect.rules import RULES
from bninspect.storage import filesystem
from bninspect.verdicts.baseline import read_baseline

_HEAD = b'{"schema_version":'  # at the start of each line
_LONGEST = 1 << 27  # bytes of a line: some 100,000 layers
_RULES = {rule.code: rule for rule in RULES}


def settings_of(config: Config) -> str:
    """Return the fingerprint of all options that change a result, 16 hex digits.

    Raises `UsageProblem` if the baseline cannot be read.
    """
    since = [] if config.since is None else find_checkpoints(config.since)
    today = date.today()  # in the time zone of the user, as for `Triage`
    holding = [item for item in config.suppress if item.holds(today)]
    known = () if config.baseline is None else read_baseline(config.baseline).entries
    settings: dict[str, Any] = {
        "rules": [rule.code for rule in config.rules],
        "momentum": config.momentum,
        "patterns": [(role, expression.pattern) for role, expression in config.patterns],
        "all checkpoints": config.all_checkpoints,
        "engine": config.engine,
        "since": [(location.path, fingerprint_of(location)) for location in since],
        "severity": config.severity,
        "suppress": [(item.layer, item.rules, item.reason, str(item.expires)) for item in holding],
        "baseline": None if config.baseline is None else sorted(known),
    }
    if config.verify:
        settings["verify"] = True
    return sha256(json.dumps(settings).encode()).hexdigest()[:16]


class _Line(NamedTuple):
    """A result: the offset of its line, and the fingerprint of the checkpoint's files.

    `earlier` is the path of the checkpoint that it was compared with, None without one.
    """

    offset: int
    state: str
    earlier: str | None


class Results:
    """The results of an earlier run in the file `path`; only their offsets are kept in memory.

    An incomplete last line is ignored. `names_earlier` says that they were compared with the
    checkpoint of `--since`. Raises `UsageProblem` if the file cannot be read, or holds something
    else, or results of other `settings`.
    """

    def __init__(self, path: str, settings: str, *, names_earlier: bool) -> None:
        self._path, self._settings, self._names_earlier = path, settings, names_earlier
        self._lines: dict[str, _Line] = {}  # by the path of the checkpoint
        if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe could wait for ever
            raise UsageProblem(f"--resume {path}: this is not a file.")
        refuse_other_file(path, "--resume")
        try:
            self._stream = open(path, "rb")  # noqa: SIM115 - as long as the run
            self._scan()
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    def are_valid(self, locations: Sequence[CheckpointLocation], *, together: bool) -> list[bool]:
        """Return for each checkpoint whether there is a valid result.

        With `together` (each is compared with the previous one of its training), the results of a
        training are all valid or none is. None is if one was compared with a checkpoint that is
        gone.
        """
        valid = list(filesystem.map_ahead(self._is_valid, locations, attrgetter("path")))
        if together:
            present = {None, *(item.path for item in locations)}
            pairs = [
                (item, is_valid and self._lines[item.path].earlier in present)
                for item, is_valid in zip(locations, valid, strict=True)
            ]
            stale = {item.training for item, is_valid in pairs if item.training and not is_valid}
            valid = [is_valid and item.training not in stale for item, is_valid in pairs]
        return valid

    def _is_valid(self, item: CheckpointLocation) -> bool:
        line = self._lines.get(item.path)
        return line is not None and line.state == fingerprint_of(item)

    def report(self, path: str) -> CheckpointReport:
        """Return the result of the checkpoint `path`; of its layers only the names are known.

        Its findings include suppressed and known ones, to be sorted again. Raises `UsageProblem` if
        the line is damaged.
        """
        self._stream.seek(self._lines[path].offset)
        line = self._stream.readline().decode().rstrip("\n")
        try:
            return _report(json.loads(line), line, names_earlier=self._names_earlier)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageProblem(
                f"--resume {self._path}: the line of {path} is damaged. Remove it."
            ) from error

    def _scan(self) -> None:
        offset = 0
        while (line := self._stream.readline(_LONGEST)).endswith(b"\n"):
            self._index(line, offset)
            offset += len(line)
        if len(line) == _LONGEST:
            raise _not_results(self._path)

    def _index(self, line: bytes, offset: int) -> None:
        """Keep the offset of a line if it is a result that may be valid."""
        try:
            document = json.loads(line)
            if document["event"] != "checkpoint":
                return
            version, settings = document["tool"]["version"], document.get("settings")
            path, state, error = (document[key] for key in ("path", "state", "error"))
            earlier = document["since"] and document["since"]["path"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # the checkpoint is read again
        if version != __version__:
            raise UsageProblem(
                f"--resume {self._path}: it was written by bninspect {version}, but this is"
                f" {__version__}. Give another file, and start again."
            )
        if settings != self._settings:
            raise UsageProblem(
                f"--resume {self._path}: its results were made with other options (rules,"
                " severities, momentum, patterns, suppressions, baseline, --since,"
                " --all-checkpoints, --verify or --engine). Use those options, or another file."
            )
        self._lines.pop(path, None)
        are_texts = isinstance(path, str) and isinstance(state, str)
        if are_texts and error is None and isinstance(earlier, str | None):
            self._lines[path] = _Line(offset, state, earlier)


def refuse_other_file(path: str, option: str) -> None:
    """Raise `UsageProblem` if there is a file at `path` that does not hold results."""
    if not os.path.isfile(path):
        return
    try:
        with open(path, "rb") as stream:
            head = stream.read(len(_HEAD))
    except OSError as error:
        raise UsageProblem(f"{option} {path}: {error.strerror or error}.") from error
    if not _HEAD.startswith(head):
        raise _not_results(path, option)


def drop_unfinished_line(path: str) -> None:
    """Truncate the file after the last end of a line."""
    with open(path, "rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - (1 << 16))
            stream.seek(start)
            last = stream.read(end - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        stream.truncate(end)


def _not_results(path: str, option: str = "--resume") -> UsageProblem:
    return UsageProblem(
        f"{option} {path}: this is not a file that `bninspect check --format jsonl` writes. Give"
        " another file."
    )


def _unreadable(path: str, error: Exception) -> UsageProblem:
    reason = getattr(error, "strerror", None) or error
    if isinstance(error, FileNotFoundError):
        reason = "file not found, and this run does not write it (--format jsonl=FILE)"
    return UsageProblem(f"--resume {path}: {reason}.")


def _report(document: Mapping[str, Any], line: str, *, names_earlier: bool) -> CheckpointReport:
    since = document["since"]
    return CheckpointReport(
        path=str(document["path"]),
        resolved=document["resolved"],
        format=document["format"],
        step=document["step"],
        variable_count=int(document["variables"]),
        names=tuple(map(str, document["names"])),
        layers=tuple(
            BNLayer(str(one["name"]), str(one["family"]), {}) for one in document["layers"]
        ),
        findings=tuple(
            _finding(one) for key in ("findings", "suppressed", "known") for one in document[key]
        ),
        notes=tuple(map(str, document["notes"])),
        unchecked=tuple(
            UncheckedGroup(str(one["name"]), tuple(map(str, one["variables"])), str(one["reason"]))
            for one in document["unchecked"]
        ),
        since=since
        and Earlier(since["path"], since["step"], int(since["compared"]), is_named=names_earlier),
        state=document["state"],
        line=line,
    )


def _finding(document: Mapping[str, Any]) -> Finding:
    return Finding(
        rule=_RULES[document["rule"]],
        severity=document["severity"],
        layer=str(document["layer"]),
        message=str(document["message"]),
        cause=document["cause"],
        evidence=tuple(map(str, document["evidence"])),
        fix=str(document["fix"]),
        possible_causes=tuple(map(_possible_cause, document.get("possible_causes", ()))),
        framework=document.get("framework"),
    )


def _possible_cause(document: Mapping[str, Any]) -> PossibleCause:
    fields = (document[key] for key in ("cause", "for", "tells_apart", "test"))
    return PossibleCause(*map(str, fields))
