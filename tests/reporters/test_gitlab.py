"""`--format gitlab`, held to the schema by which GitLab accepts a violation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from bninspect.model.report import Report
from bninspect.reporters.escapes import printable
from tests.conftest import CLEAN, EMPTY, FIXTURES, ROOT, STUCK, Run
from tests.support.reports_in_memory import (
    checkpoint,
    finding,
    hostile_reports,
    report,
    unreadable,
    written,
)

MISSING = FIXTURES / "no_such_checkpoint"
# What GitLab demands (app/validators/json_schemas/codeclimate.json), and the words for severities
# that it knows (lib/gitlab/ci/reports/codequality_reports.rb).
_TEXT = {"type": "string", "minLength": 1}
ACCEPTED = Draft202012Validator(
    {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["description", "check_name", "fingerprint", "severity", "location"],
            "properties": {
                "description": _TEXT,
                "check_name": _TEXT,
                "fingerprint": _TEXT,
                "severity": {"enum": ["blocker", "critical", "major", "minor", "info"]},
                "location": {
                    "type": "object",
                    "required": ["path", "lines"],
                    "properties": {
                        "path": _TEXT,
                        "lines": {
                            "type": "object",
                            "required": ["begin"],
                            "properties": {"begin": {"type": "integer", "minimum": 1}},
                        },
                    },
                },
            },
        },
    }
)


def violations(text: str) -> list[dict[str, Any]]:
    """The violations of a document that GitLab accepts whole."""
    document: list[dict[str, Any]] = json.loads(text)
    ACCEPTED.validate(document)
    fingerprints = [one["fingerprint"] for one in document]
    assert len(fingerprints) == len(set(fingerprints))  # it keeps one of each
    return document


def test_a_violation_a_finding_and_an_unreadable_file(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(ROOT))
    outcome = run("check", CLEAN, STUCK, EMPTY, MISSING, "--format", "gitlab")
    assert outcome.exit_code == 2
    *stuck, missing = violations(outcome.out)
    document = run("check", STUCK, "--format", "json").json["checkpoints"][0]
    for violation, found in zip(stuck, document["findings"], strict=True):
        assert violation["check_name"] == found["rule"] == "BN101"
        assert violation["severity"] == "critical"
        assert violation["description"].startswith(f"{found['layer']}: {found['message']}.")
        assert found["fix"] in violation["description"]
        assert (ROOT / violation["location"]["path"]).is_file()
    assert missing["check_name"] == "not-found"
    assert "no such checkpoint" in missing["description"]


def test_a_violation_is_known_again_in_the_next_run(run: Run) -> None:
    first, second = (run("check", STUCK, "--format", "gitlab").out for _ in range(2))
    assert violations(first) == violations(second)


def test_the_words_for_severities() -> None:
    findings = [finding("BN101"), finding("BN104"), finding("BN303")]
    severities = [
        one["severity"] for one in violations(written("gitlab", report(checkpoint("a", findings))))
    ]
    assert severities == ["critical", "major", "info"]


def test_what_was_not_checked_is_no_pass(run: Run) -> None:
    (nothing,) = violations(run("check", EMPTY, "--format", "gitlab").out)
    assert nothing["check_name"] == "nothing-checked"
    assert violations(run("check", CLEAN, "--format", "gitlab").out) == []
    (_, cut) = violations(
        written(
            "gitlab",
            Report(report(unreadable("a")).checkpoints, report().rules, interrupted=True),
        )
    )
    assert cut["check_name"] == "interrupted"


def test_with_allow_empty_nothing_checked_is_for_information(run: Run) -> None:
    outcome = run("check", EMPTY, "--allow-empty", "--format", "gitlab")
    assert outcome.exit_code == 0
    assert [one["severity"] for one in violations(outcome.out)] == ["info"]


def test_a_group_that_was_not_checked_is_for_information(run: Run) -> None:
    path = FIXTURES / "keras2_zip_subclass" / "model.keras"
    (group,) = run("check", path, "--format", "json").json["checkpoints"][0]["unchecked"]
    found = violations(run("check", path, CLEAN, "--format", "gitlab").out)
    (unchecked,) = [one for one in found if one["check_name"] == "not-checked"]
    assert unchecked["severity"] == "info"
    assert unchecked["description"] == f"{group['name']}: not checked: {group['reason']}"


@given(hostile_reports)
@settings(deadline=None)
def test_whatever_names_there_are_each_finding_is_kept(one: Report) -> None:
    document = violations(written("gitlab", one))
    findings = sum(len(item.findings) for item in one.checkpoints)
    paths = {printable(item.path) for item in one.checkpoints if item.error is not None}
    assert sum(entry["check_name"].startswith("BN") for entry in document) == findings
    assert sum(entry["check_name"] == "corrupt" for entry in document) >= bool(paths)
    assert all(entry["description"].isprintable() for entry in document)
