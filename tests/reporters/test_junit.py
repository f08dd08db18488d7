"""`--format junit`, read with a JUnit library."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from junitparser import Error, Failure, JUnitXml, Skipped, TestSuite

from bninspect.model.report import Report
from bninspect.reporters.escapes import printable
from tests.conftest import CLEAN, EMPTY, FIXTURES, ROOT, STUCK, Run, load_fixture
from tests.support.reports_in_memory import (
    checkpoint,
    finding,
    hostile_reports,
    report,
    unreadable,
    written,
)

COLD = load_fixture("tf1_layers_too_few_steps")
MISSING = FIXTURES / "no_such_checkpoint"


def suites(text: str) -> list[TestSuite]:
    """The suites of a document whose counts are right."""
    document = JUnitXml.fromstring(text.encode("ascii"))
    counts = Counter()
    for suite in document:
        outcomes = [case.result for case in suite]
        found = Counter(type(one) for results in outcomes for one in results)
        assert suite.tests == len(outcomes)
        assert suite.failures == found[Failure]
        assert suite.errors == found[Error]
        assert suite.skipped == found[Skipped]
        assert len({(case.classname, case.name) for case in suite}) == len(outcomes)
        counts.update(tests=len(outcomes), failures=found[Failure], errors=found[Error])
        counts.update(skipped=found[Skipped])
    assert document.tests == counts["tests"]
    assert document.failures == counts["failures"]
    assert document.errors == counts["errors"]
    assert document.skipped == counts["skipped"]
    return list(document)


def test_a_suite_a_checkpoint_and_a_case_a_layer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(ROOT))
    outcome = run("check", CLEAN, STUCK, EMPTY, MISSING, "--format", "junit")
    assert outcome.exit_code == 2
    clean, stuck, empty, missing = suites(outcome.out)
    document = run("check", STUCK, "--format", "json").json["checkpoints"][0]
    assert stuck.name == str(STUCK)
    assert [case.name for case in stuck] == [layer["name"] for layer in document["layers"]]
    for case, found in zip(stuck, document["findings"], strict=True):
        assert case.classname == str(STUCK)
        assert (ROOT / case._elem.get("file")).is_file()
        (failure,) = case.result
        assert failure.type == "BN101"
        assert failure.message == f"BN101 statistics-never-updated: {found['message']}"
        for part in (found["message"], "cause: ", found["fix"], *found["evidence"]):
            assert part in failure.text
    assert clean
    assert all(case.is_passed for case in clean)
    (case,) = empty
    assert case.is_skipped
    assert "no BN layer" in case.result[0].text
    (case,) = missing
    assert case.result[0].type == "not-found"
    assert "no such checkpoint" in case.result[0].text


@pytest.mark.parametrize(
    ("fail_on", "failures"), [("error", 0), ("warning", 3), ("note", 3), ("never", 0)]
)
def test_what_fails_the_run_fails_the_case(run: Run, fail_on: str, failures: int) -> None:
    options = (*COLD.expected["options"], "--fail-on", fail_on)
    outcome = run("check", COLD.path, *options, "--format", "junit")
    (suite,) = suites(outcome.out)
    assert suite.failures == failures
    assert outcome.exit_code == (failures > 0)
    for case in suite:
        told = case.result[0].text if failures else case.system_out
        assert "warning BN106" in told


def test_findings_of_one_layer_are_one_failure() -> None:
    layer = [finding("BN101"), finding("BN301"), finding("BN303")]
    ((case,),) = suites(written("junit", report(checkpoint("model", layer))))
    (failure,) = case.result
    assert failure.type == "BN101, BN301"
    assert "BN301" in failure.text
    assert "BN303" not in failure.text
    assert "BN303" in case.system_out


def test_notes_on_a_checkpoint_are_the_output_of_its_suite(run: Run) -> None:
    noted = load_fixture("keras30_weights_subclassed").path
    notes = run("check", noted, "--format", "json").json["checkpoints"][0]["notes"]
    (suite,) = suites(run("check", noted, "--format", "junit").out)
    assert notes
    assert notes
    assert all(f"note: {note}" in suite._elem.find("system-out").text for note in notes)


@given(hostile_reports)
@settings(deadline=None)
def test_any_name_and_path(one: Report) -> None:
    text = written("junit", one)
    assert text.isascii()
    found = suites(text)
    assert ET.fromstring(text).tag == "testsuites"  # noqa: S314 - our own
    for suite, item in zip(found, one.checkpoints, strict=True):
        assert suite.name == printable(item.path)
        if item.layers:
            assert [case.name for case in suite] == [printable(layer.name) for layer in item.layers]
        elif item.error is not None:
            assert isinstance(next(iter(suite)).result[0], Error)


def test_unreadable_is_an_error_whatever_the_severity() -> None:
    ((case,),) = suites(written("junit", report(unreadable("model")), fail_on="never"))
    assert isinstance(case.result[0], Error)
