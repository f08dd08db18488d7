"""`check` as GitLab's Code Quality report, for the widget of a merge request.

The format is a JSON array of violations (GitLab's page "Code Quality", "Code Quality report
format"). GitLab keeps one violation per fingerprint (lib/gitlab/ci/reports/codequality_reports.rb),
so the fingerprint holds the path, and a number where a layer breaks one rule twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from bninspect.errors import shortened
from bninspect.model.report import CheckpointReport, Report, fingerprint
from bninspect.model.rule import Severity
from bninspect.reporters.ci_locations import file_of, in_repository
from bninspect.reporters.escapes import json_text, printable
from bninspect.reporters.verdict_text import CUT_SHORT, NOTHING_CHECKED, in_a_paragraph

_SEVERITY: Mapping[Severity, str] = {"error": "critical", "warning": "major", "note": "info"}


def write_gitlab(report: Report, stream: TextIO, *, allow_empty: bool = False) -> None:
    """Write one violation per finding, per checkpoint that cannot be read, and per unchecked group.

    A run that was interrupted, or in which nothing was checked, is a violation, too: an empty array
    would be taken for a pass. With `allow_empty`, the latter is one for information.
    """
    violations = list(_violations(report, allow_empty=allow_empty))
    stream.write(json_text(violations, indent=1) + "\n")


def _violations(report: Report, *, allow_empty: bool) -> Iterator[dict[str, Any]]:
    seen: Counter[tuple[str, ...]] = Counter()
    for violation, *identity in _each(report, allow_empty=allow_empty):
        seen[tuple(identity)] += 1
        yield violation | {"fingerprint": fingerprint(*identity, str(seen[tuple(identity)]))}


def _each(report: Report, *, allow_empty: bool) -> Iterator[tuple[dict[str, Any], str, str, str]]:
    """Yield each violation with what identifies it: its name, path and layer."""
    for item in report.checkpoints:
        path = _path_of(item)
        if item.error is not None:
            name = item.error.kind
            yield _violation(name, str(item.error), "critical", path), name, path, ""
        for finding in item.findings:
            name, severity = finding.rule.code, _SEVERITY[finding.severity]
            violation = _violation(name, in_a_paragraph(finding), severity, path)
            yield violation, name, path, finding.layer
        for group in item.unchecked:
            name, reason = "not-checked", f"{group.name}: not checked: {group.reason}"
            yield _violation(name, reason, "info", path), name, path, group.name
    if report.interrupted:
        yield _violation("interrupted", CUT_SHORT, "critical", "."), "interrupted", "", ""
    if not report.checked and not report.unreadable:
        name, severity = "nothing-checked", "info" if allow_empty else "major"
        yield _violation(name, NOTHING_CHECKED, severity, "."), name, "", ""


def _violation(name: str, description: str, severity: str, path: str) -> dict[str, Any]:
    return {
        "description": printable(shortened(description)),
        "check_name": name,
        "severity": severity,
        "location": {"path": printable(path), "lines": {"begin": 1}},
    }


def _path_of(item: CheckpointReport) -> str:
    path = file_of(item)
    return in_repository(path) or path
