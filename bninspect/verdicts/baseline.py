"""The baseline: a file of the findings that are known, to be committed beside a project.

JSON without times and paths, sorted, one line an entry, so that a change of it reads well in a
review. An entry is a rule and the name of a layer, and with their fingerprint it stands for every
finding of that rule on layers of that name, whichever checkpoint has it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, TextIO

from bninspect.errors import UsageProblem
from bninspect.model.report import Finding, fingerprint

_KIND, _VERSION = "bninspect baseline", 1
_LARGEST = 1 << 26  # bytes: half a million entries
_WRITE_IT = "`bninspect check PATH... --baseline {} --update-baseline` writes it."


def write_baseline(findings: Iterable[Finding], stream: TextIO) -> int:
    """Write the entries of `findings`, each once; how many there are."""
    entries = sorted({(one.rule.code, one.layer, one.fingerprint) for one in findings})
    lines = [
        json.dumps({"rule": rule, "layer": layer, "fingerprint": name})
        for rule, layer, name in entries
    ]
    head = json.dumps({"kind": _KIND, "version": _VERSION})[:-1]
    body = "\n  " + ",\n  ".join(lines) + "\n " if lines else ""
    stream.write(f'{head},\n "findings": [{body}]}}\n')
    return len(entries)


def read_baseline(path: str) -> dict[str, str]:
    """The fingerprints of a baseline, each with the code of its rule.

    Raises `UsageProblem` if the file is missing, damaged or something else.
    """
    document = _document(path)
    again = _WRITE_IT.format(path)
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise UsageProblem(f"--baseline {path}: it is no baseline of bninspect. {again}")
    if document.get("version") != _VERSION:
        raise UsageProblem(
            f"--baseline {path}: it is of version {document.get('version')!r}, and this bninspect"
            f" reads version {_VERSION}. {again}"
        )
    findings = document.get("findings")
    if not isinstance(findings, list):
        raise UsageProblem(f"--baseline {path}: it has no list of findings. {again}")
    known = {}
    for number, entry in enumerate(findings, 1):
        rule, layer, name = _entry(entry)
        if name is None or name != fingerprint(rule, layer):
            raise UsageProblem(
                f"--baseline {path}: finding {number} in it is not a rule and a layer with their"
                f" fingerprint. {again}"
            )
        known[name] = rule
    return known


def refuse_other_file(path: str) -> None:
    """Raise `UsageProblem` if there is a file at `path` that holds something else.

    A baseline that was damaged, by a merge perhaps, may be written anew.
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
            f"--baseline {path}: it holds something else than a baseline. Remove it, or give"
            " another file."
        )


def _document(path: str) -> Any:
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise UsageProblem(f"--baseline {path}: it is no file.")
        with open(path, "rb") as stream:
            content = stream.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        missing = isinstance(error, FileNotFoundError | ValueError)
        told = "there is no such file" if missing else getattr(error, "strerror", None) or error
        raise UsageProblem(f"--baseline {path}: {told}. {_WRITE_IT.format(path)}") from error
    if len(content) > _LARGEST:
        raise UsageProblem(f"--baseline {path}: it is too large ({_LARGEST} bytes at most).")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        told = "it is damaged" if _KIND.encode() in content else "it is no baseline of bninspect"
        raise UsageProblem(
            f"--baseline {path}: {told} (no JSON). {_WRITE_IT.format(path)}"
        ) from error


def _entry(entry: Any) -> tuple[str, str, str | None]:
    """Rule, layer and fingerprint of an entry; the last is None if one of them is none."""
    if not isinstance(entry, dict):
        return "", "", None
    rule, layer, name = (entry.get(key) for key in ("rule", "layer", "fingerprint"))
    if not (isinstance(rule, str) and isinstance(layer, str) and isinstance(name, str)):
        return "", "", None
    return rule, layer, name
