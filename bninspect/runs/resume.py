"""A run that goes on where an earlier one stopped, by the lines that `--format jsonl` wrote.

A result of then stands for a checkpoint that has not changed since. Each line says which version
and which settings it was made with: results of others are never mixed with those of this run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import sha256
from typing import Any

from bninspect._version import __version__
from bninspect.config.model import Config
from bninspect.errors import UsageProblem
from bninspect.locate.fingerprint import fingerprint_of
from bninspect.model.checkpoint import UncheckedGroup
from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Earlier, Finding
from bninspect.model.target import Found
from bninspect.opening import find_checkpoints
from bninspect.rules import RULES, select_rules
from bninspect.verdicts.baseline import read_baseline

_HEAD = b'{"schema_version":'  # how each line begins
_LONGEST = 1 << 27  # bytes of a line: some 100,000 layers
_RULES = {rule.code: rule for rule in RULES}


def settings_of(config: Config) -> str:
    """16 hex digits of all options that a result depends on.

    Raises `UsageProblem` if the baseline cannot be read.
    """
    since = [] if config.since is None else find_checkpoints(config.since)
    today = date.today()  # as `Triage` has it
    holding = [one for one in config.suppress if one.holds(today)]
    known = () if config.baseline is None else read_baseline(config.baseline).entries
    told: dict[str, Any] = {
        "rules": [rule.code for rule in select_rules(config.select, config.ignore)],
        "momentum": config.momentum,
        "patterns": [(role, expression.pattern) for role, expression in config.patterns],
        "all checkpoints": config.all_checkpoints,
        "engine": config.engine,
        "since": [(one.path, fingerprint_of(one)) for one in since],
        "severity": config.severity,
        "suppress": [(one.layer, one.rules, one.reason, str(one.expires)) for one in holding],
        "baseline": None if config.baseline is None else sorted(known),
    }
    if config.verify:
        told["verify"] = True
    return sha256(json.dumps(told).encode()).hexdigest()[:16]


class Results:
    """The results of an earlier run, in the file `path`; nothing of them is held but their places.

    What follows the last end of a line was cut off and is passed over. Raises `UsageProblem` if the
    file cannot be read, or holds something else, or results of other `settings`.
    """

    def __init__(self, path: str, settings: str) -> None:
        self._path, self._settings = path, settings
        self._places: dict[str, tuple[int, str]] = {}  # by what is checked: where, and its state
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
            raise UsageProblem(f"--resume {path}: this is no file. Give one.")
        refuse_other_file(path, "--resume")
        try:
            self._stream = open(path, "rb")  # noqa: SIM115 - as long as the run
            self._scan()
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    def holds(self, found: Sequence[Found], *, together: bool) -> list[bool]:
        """Whether there is a result for each that still holds.

        With `together`, where each is compared with the one before it of its training, that is so
        for all of a training or for none.
        """
        good = [self._holds(item) for item in found]
        if together:
            pairs = list(zip(found, good, strict=True))
            stale = {item.training for item, holds in pairs if item.training and not holds}
            good = [holds and item.training not in stale for item, holds in pairs]
        return good

    def _holds(self, item: Found) -> bool:
        place = self._places.get(item.path)
        return place is not None and place[1] == fingerprint_of(item)

    def report(self, path: str) -> CheckpointReport:
        """The result on what is called `path`; of its layers only what they are called.

        Its findings are all that the rules had, to be sorted again. Raises `UsageProblem` if the
        line is damaged.
        """
        self._stream.seek(self._places[path][0])
        line = self._stream.readline().decode().rstrip("\n")
        try:
            return _report(json.loads(line), line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageProblem(
                f"--resume {self._path}: the line of {path} is damaged. Remove it."
            ) from error

    def _scan(self) -> None:
        place = 0
        while (line := self._stream.readline(_LONGEST)).endswith(b"\n"):
            self._note(line, place)
            place += len(line)
        if len(line) == _LONGEST:
            raise _no_results(self._path)

    def _note(self, line: bytes, place: int) -> None:
        """Keep the place of a line, if it is a result that may hold."""
        try:
            document = json.loads(line)
            if document["event"] != "checkpoint":
                return
            version, settings = document["tool"]["version"], document.get("settings")
            path, state, error = (document[key] for key in ("path", "state", "error"))
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # what it was is checked again
        if version != __version__:
            raise UsageProblem(
                f"--resume {self._path}: bninspect {version} wrote it, and this is"
                f" {__version__}. Give another file, and begin anew."
            )
        if settings != self._settings:
            raise UsageProblem(
                f"--resume {self._path}: its results were made with other options (rules,"
                " severities, momentum, patterns, suppressions, baseline, --since,"
                " --all-checkpoints or --engine). Give those, or another file."
            )
        self._places.pop(path, None)
        if isinstance(path, str) and isinstance(state, str) and error is None:
            self._places[path] = place, state


def refuse_other_file(path: str, option: str) -> None:
    """Raise `UsageProblem` if there is a file at `path` that holds anything but results."""
    if not os.path.isfile(path):
        return
    try:
        with open(path, "rb") as stream:
            head = stream.read(len(_HEAD))
    except OSError as error:
        raise UsageProblem(f"{option} {path}: {error.strerror or error}.") from error
    if not _HEAD.startswith(head):
        raise _no_results(path, option)


def drop_unfinished_line(path: str) -> None:
    """Cut off what follows the last end of a line in the file."""
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


def _no_results(path: str, option: str = "--resume") -> UsageProblem:
    return UsageProblem(
        f"{option} {path}: it holds something else than what `bninspect check --format jsonl`"
        " writes. Give another file."
    )


def _unreadable(path: str, error: Exception) -> UsageProblem:
    told = getattr(error, "strerror", None) or error
    if isinstance(error, FileNotFoundError):
        told = "there is no such file, nor does this run write it (--format jsonl=FILE)"
    return UsageProblem(f"--resume {path}: {told}.")


def _report(document: Mapping[str, Any], line: str) -> CheckpointReport:
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
        since=since and Earlier(since["path"], since["step"], int(since["compared"])),
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
    )
