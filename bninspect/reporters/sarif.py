"""`check` as SARIF 2.1.0, for GitHub's code scanning and other readers.

The format is OASIS' (https://docs.oasis-open.org/sarif/sarif/v2.1.0/). GitHub's page "SARIF support
for code scanning" has its limits and its own demands (`help`, `problem.severity`, `precision`, a
region, `primaryLocationLineHash`).
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from bninspect._version import __version__
from bninspect.errors import shortened
from bninspect.model.report import CheckpointReport, Finding, Report
from bninspect.model.rule import SEVERITIES, Rule
from bninspect.reporters.ci_locations import file_of, file_uri, in_repository, relative_uri
from bninspect.reporters.escapes import json_text, printable
from bninspect.reporters.rule_pages import write_markdown, write_page
from bninspect.reporters.verdict_text import NOTHING_CHECKED, in_a_paragraph
from bninspect.rules import CAUSES, RULES
from bninspect.rules.pages import documentation_url, page_of

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_BASE = "%SRCROOT%"
_MOST_RESULTS = 25_000  # GitHub refuses a run that has more
# GitHub's words. Errors test equality of numbers, warnings use thresholds or what is absent.
_PROBLEM_SEVERITY = {"error": "error", "warning": "warning", "note": "recommendation"}
_PRECISION = {"error": "very-high", "warning": "high", "note": "medium"}
_TAGS = ("batch-normalization", "correctness", "keras", "tensorflow")


def write_sarif(report: Report, stream: TextIO) -> None:
    """Write one run: every rule that ran with its page, and one result per finding.

    A checkpoint that cannot be read is a notification, and makes the run unsuccessful. Notes are
    notifications, too.
    """
    rules = _rules(report)
    results = _results(report, {rule.code: index for index, rule in enumerate(rules)})
    kept = _gravest(results)
    notifications = [_unreadable(item) for item in report.checkpoints if item.error is not None]
    if report.interrupted:
        text = "The run was interrupted: what was still to be read is not in it."
        notifications.append({"level": "error", "message": {"text": text}})
    if not report.checked and not report.unreadable:
        notifications.append({"level": "warning", "message": {"text": NOTHING_CHECKED}})
    if len(kept) < len(results):
        text = f"{len(results) - len(kept)} results are left out: no more than {_MOST_RESULTS} fit."
        notifications.append({"level": "warning", "message": {"text": text}})
    notifications += _notes(report)
    run = {
        "tool": {"driver": _driver(rules)},
        "invocations": [
            {
                "executionSuccessful": not report.unreadable and not report.interrupted,
                "toolExecutionNotifications": notifications,
            }
        ],
        "originalUriBaseIds": {_BASE: {"description": {"text": "The root of the repository."}}},
        "columnKind": "unicodeCodePoints",
        "results": kept,
    }
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    stream.write(json_text(document, indent=1) + "\n")


def _driver(rules: Sequence[Rule]) -> dict[str, Any]:
    return {
        "name": "bninspect",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [_rule(rule) for rule in rules],
    }


def _rules(report: Report) -> tuple[Rule, ...]:
    """Return the rules that ran, and any other that has a finding."""
    with_findings = {finding.rule.code: finding.rule for finding in report.findings}
    ran = {rule.code: rule for rule in report.rules}
    return tuple((ran | with_findings).values())


def _rule(rule: Rule) -> dict[str, Any]:
    page, markdown = io.StringIO(), io.StringIO()
    write_page(rule, RULES, CAUSES, page)
    write_markdown(RULES, CAUSES, markdown, entry=rule)
    described = page_of(rule)
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": f"{rule.summary}."},
        "fullDescription": {"text": f"{described.meaning} {described.why}"},
        "helpUri": documentation_url(rule),
        "help": {"text": page.getvalue(), "markdown": markdown.getvalue()},
        "defaultConfiguration": {"level": rule.severity},
        "properties": {
            "problem.severity": _PROBLEM_SEVERITY[rule.severity],
            "precision": _PRECISION[rule.severity],
            "tags": list(_TAGS),
        },
    }


def _results(report: Report, indexes: dict[str, int]) -> list[dict[str, Any]]:
    results = []
    for item in report.checkpoints:
        seen: Counter[str] = Counter()
        suppressed = [
            (suppressed_finding.finding, suppressed_finding.suppression.reason)
            for suppressed_finding in item.suppressed
        ]
        for finding, reason in [*((one, None) for one in item.findings), *suppressed]:
            # "hash:1": GitHub's own writer counts what has the same hash in one file.
            seen[finding.fingerprint] += 1
            fingerprint = f"{finding.fingerprint}:{seen[finding.fingerprint]}"
            result = _result(item, finding, indexes[finding.rule.code], fingerprint)
            if reason is not None:
                result["suppressions"] = [{"kind": "external", "justification": _literal(reason)}]
            results.append(result)
    return results


def _result(
    item: CheckpointReport, finding: Finding, index: int, fingerprint: str
) -> dict[str, Any]:
    name = printable(finding.layer)
    location = _location(file_of(item)) | {
        "logicalLocations": [{"fullyQualifiedName": name, "name": name, "kind": "layer"}]
    }
    return {
        "ruleId": finding.rule.code,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": _literal(in_a_paragraph(finding))},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint},
    }


def _literal(text: str) -> str:
    """Return a text without what SARIF takes for a placeholder (3.11.5) or a link (3.11.6)."""
    if "](" in text:
        text = re.sub(r"([\\\[\]])", r"\\\1", text)
    return re.sub(r"\{(\d+)\}", r"{{\1}}", text)


def _notes(report: Report) -> Iterator[dict[str, Any]]:
    for item in report.checkpoints:
        for note in item.notes:
            message = {"text": _literal(printable(shortened(note)))}
            yield {"level": "note", "message": message, "locations": [_location(file_of(item))]}
    for note in report.notes:
        yield {"level": "note", "message": {"text": _literal(printable(shortened(note)))}}


def _location(path: str) -> dict[str, Any]:
    """Return the location of a file as a whole: checkpoints have no lines."""
    inside = in_repository(path)
    artifact = (
        {"uri": file_uri(path)}
        if inside is None
        else {"uri": relative_uri(inside), "uriBaseId": _BASE}
    )
    region = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}
    return {"physicalLocation": {"artifactLocation": artifact, "region": region}}


def _unreadable(item: CheckpointReport) -> dict[str, Any]:
    return {
        "level": "error",
        "message": {"text": _literal(printable(str(item.error)))},
        "locations": [_location(file_of(item))],
    }


def _gravest(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return as many results as GitHub takes, the gravest, in their order."""
    if len(results) <= _MOST_RESULTS:
        return results
    gravest: list[int] = []
    for severity in SEVERITIES:
        gravest += [index for index, result in enumerate(results) if result["level"] == severity]
    return [results[index] for index in sorted(gravest[:_MOST_RESULTS])]
