"""`--format sarif`: by the standard's schema, a SARIF library, and Microsoft's validator."""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from sarif_pydantic import Sarif

from bninspect.model.report import Report
from bninspect.reporters import sarif
from bninspect.reporters.escapes import printable
from bninspect.rules import RULES
from bninspect.rules.pages import page_of
from tests.conftest import CLEAN, FIXTURES, ROOT, STUCK, Run, load_fixture
from tests.support.reports_in_memory import (
    checkpoint,
    finding,
    hostile_reports,
    report,
    unreadable,
    written,
)
from tests.support.tools import need_tool

HISTORY = FIXTURES / "tf1_history_forgotten"
SCHEMA = json.loads((ROOT / "tests/schemas/sarif-2.1.0.json").read_text(encoding="utf-8"))
STANDARD = Draft202012Validator(SCHEMA)


def run_of(text: str) -> dict[str, Any]:
    """The one run of a log that the standard's schema and a library accept."""
    document = json.loads(text)
    STANDARD.validate(document)
    Sarif.model_validate_json(text)
    (one,) = document["runs"]
    return one


def run_in_memory(one: Report) -> dict[str, Any]:
    return run_of(written("sarif", one))


class TestOnFixtures:
    def test_a_result_a_finding(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GITHUB_WORKSPACE", str(ROOT))
        one = run_of(run("check", STUCK, CLEAN, "--format", "sarif").out)
        found = run("check", STUCK, "--format", "json").json["checkpoints"][0]["findings"]
        assert len(one["results"]) == len(found) == 3
        for result, expected in zip(one["results"], found, strict=True):
            assert result["ruleId"] == expected["rule"]
            assert one["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == expected["rule"]
            assert result["level"] == expected["severity"]
            text = result["message"]["text"]
            assert text.startswith(f"{expected['layer']}: {expected['message']}.")
            assert "Cause: " in text
            assert expected["fix"] in text
            assert all(fact in text for fact in expected["evidence"])
            (location,) = result["locations"]
            place = location["physicalLocation"]
            uri = f"fixtures/tf1_layers_update_ops_forgotten/{STUCK.name}.index"
            assert place["artifactLocation"] == {"uri": uri, "uriBaseId": "%SRCROOT%"}
            assert (ROOT / uri).is_file()
            assert set(place["region"].values()) == {1}
            assert location["logicalLocations"][0]["fullyQualifiedName"] == expected["layer"]
        assert one["invocations"][0]["executionSuccessful"] is True

    def test_every_rule_that_ran_has_its_page(self, run: Run) -> None:
        rules = run_of(run("check", CLEAN, "--format", "sarif").out)["tool"]["driver"]["rules"]
        assert [rule["id"] for rule in rules] == [rule.code for rule in RULES]
        for rule, source in zip(rules, RULES, strict=True):
            page = run("rule", source.code).out
            assert " ".join(rule["help"]["text"].split()) == " ".join(page.split())
            page = page_of(source)
            told = (page.meaning, page.why, *page.causes)
            for part in (
                *told,
                *(part for fix in page.fixes for part in (fix.where, fix.text, fix.code)),
            ):
                assert part in rule["help"]["markdown"]
            for block in re.findall(r"```python\n(.*?)```", rule["help"]["markdown"], re.DOTALL):
                ast.parse(block)
            assert rule["defaultConfiguration"]["level"] == source.severity
            properties = rule["properties"]
            assert properties["problem.severity"] in ("error", "warning", "recommendation")
            assert properties["precision"] in ("very-high", "high", "medium", "low")
            assert 0 < len(properties["tags"]) <= 10
        selected = run_of(run("check", STUCK, "--select", "BN3", "--format", "sarif").out)
        ids = [rule["id"] for rule in selected["tool"]["driver"]["rules"]]
        assert ids == [rule.code for rule in RULES if rule.code.startswith("BN3")]

    def test_what_cannot_be_read_is_no_success(self, run: Run) -> None:
        outcome = run("check", STUCK, "no/such/file", "--format", "sarif")
        assert outcome.exit_code == 2
        one = run_of(outcome.out)
        assert len(one["results"]) == 3
        (invocation,) = one["invocations"]
        assert invocation["executionSuccessful"] is False
        (told,) = invocation["toolExecutionNotifications"]
        assert told["level"] == "error"
        assert "no such checkpoint" in told["message"]["text"]

    def test_notes_on_a_checkpoint_and_the_run(self, run: Run, tmp_path: Path) -> None:
        noted = load_fixture("keras30_weights_subclassed").path
        config = tmp_path / "bninspect.toml"
        config.write_text(
            '[[suppress]]\nlayer = "a"\nrules = ["BN101"]\nreason = "b"\nexpires = 2020-01-01\n',
            encoding="utf-8",
        )
        call = ("check", noted, "--config", config, "--format")
        document = run(*call, "json").json
        notes = [*document["checkpoints"][0]["notes"], *document["notes"]]
        (invocation,) = run_of(run(*call, "sarif").out)["invocations"]
        told = invocation["toolExecutionNotifications"]
        assert [one["message"]["text"] for one in told] == notes
        assert {one["level"] for one in told} == {"note"}
        assert len(document["notes"]) == 1
        assert len(notes) > 1


class TestFingerprints:
    def test_outlive_step_and_path(self, run: Run, tmp_path: Path) -> None:
        def fingerprints(*paths: object) -> list[tuple[str, str]]:
            results = run_of(run("check", *paths, "--format", "sarif").out)["results"]
            return [
                (
                    result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"],
                    result["partialFingerprints"]["primaryLocationLineHash"],
                )
                for result in results
                if result["ruleId"] == "BN101"
            ]

        steps = sorted({path.stem for path in HISTORY.glob("*.index")})
        assert len(steps) > 1
        first, *others = (fingerprints(HISTORY / step) for step in steps)
        assert len(set(first)) == len(first) > 0
        assert others
        assert all(other == first for other in others)
        shutil.copytree(HISTORY, tmp_path / "elsewhere")
        assert fingerprints(tmp_path / "elsewhere" / steps[0]) == first
        both = fingerprints(*(HISTORY / step for step in steps[:2]))
        assert both == first * 2

    def test_tell_findings_of_one_layer_apart(self) -> None:
        twice = checkpoint("model", [finding("BN301"), finding("BN301"), finding("BN302")])
        results = run_in_memory(report(twice, checkpoint("other", [finding("BN301")])))["results"]
        hashes = [one["partialFingerprints"]["primaryLocationLineHash"] for one in results]
        assert len(set(hashes)) == 3
        assert [one.rpartition(":")[2] for one in hashes] == ["1", "2", "1", "1"]
        assert hashes[3] == hashes[0]


class TestLimits:
    def test_the_gravest_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sarif, "_MOST_RESULTS", 3)
        codes = ("BN303", "BN106", "BN101", "BN106", "BN101")
        findings = [finding(code, f"bn{n}") for n, code in enumerate(codes)]
        one = run_in_memory(report(checkpoint("model", findings)))
        assert [result["ruleId"] for result in one["results"]] == ["BN106", "BN101", "BN101"]
        (told,) = one["invocations"][0]["toolExecutionNotifications"]
        assert told["message"]["text"].startswith("2 results are left out")
        assert one["invocations"][0]["executionSuccessful"] is True

    @pytest.mark.slow
    def test_the_largest_run_fits_into_an_upload(self) -> None:
        message = "moving_mean is still 0 and moving_variance still 1 in all 64 channels"
        findings = [finding("BN101", f"network/block_{n}/bn", message) for n in range(25_001)]
        text = written("sarif", report(checkpoint("model", findings)))
        assert len(json.loads(text)["runs"][0]["results"]) == 25_000
        assert len(gzip.compress(text.encode(), 6)) < 10_000_000


def test_a_path_outside_the_repository_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "repository"))
    one = run_in_memory(report(unreadable(str(tmp_path / "a b.h5"))))
    (told,) = one["invocations"][0]["toolExecutionNotifications"]
    uri = told["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == f"file://{tmp_path}/a%20b.h5"


@pytest.mark.slow
@given(hostile_reports)
@settings(deadline=None)
def test_any_name_and_path(one: Report) -> None:
    written_run = run_in_memory(one)
    findings = [(item, found) for item in one.checkpoints for found in item.findings]
    for result, (item, found) in zip(written_run["results"], findings, strict=True):
        (location,) = result["locations"]
        logical = location["logicalLocations"][0]["fullyQualifiedName"]
        assert logical == printable(found.layer)
        artifact = location["physicalLocation"]["artifactLocation"]
        assert artifact["uri"].isascii()
        assert artifact["uri"].isprintable()
        if "uriBaseId" in artifact and "\ud800" not in item.path:
            path = os.path.abspath(item.path.replace("\0", "") + ".index")
            assert unquote_to_bytes(artifact["uri"]) == os.fsencode(os.path.relpath(path))
        assert result["message"]["text"].isprintable()


def multitool_says(path: Path, kind: str) -> list[tuple[str, str, str]]:
    """(level, rule, message) of all but notes; `kind` names its rules of GitHub or the standard."""
    told = path.with_suffix(f".{kind}.sarif")
    command = [need_tool("sarif"), "validate", path, "--rule-kind", kind, "-o", told]
    subprocess.run([*command, "--log", "ForceOverwrite"], capture_output=True, check=False)
    (one,) = json.loads(told.read_text(encoding="utf-8-sig"))["runs"]
    return [
        (result.get("level", "warning"), result["ruleId"].partition("/")[0], str(result["message"]))
        for result in one.get("results", ())
        if result.get("level") != "note"
    ]


@pytest.mark.processes
class TestMultitool:
    @pytest.fixture
    def log(self, run: Run, tmp_path: Path) -> Path:
        target = tmp_path / "out.sarif"
        paths = (STUCK, CLEAN, HISTORY, FIXTURES / "keras1_saver", "no/such file")
        run("check", *paths, "--all-checkpoints", "--format", f"sarif={target}", "-q")
        return target

    @pytest.mark.parametrize("kind", ["Sarif", "Ghas"])
    def test_finds_nothing_wrong(self, log: Path, kind: str) -> None:
        # SARIF2005 asks for the address of a home page, which there is none of.
        assert {one for one in multitool_says(log, kind) if one[1] != "SARIF2005"} == set()

    def test_finds_what_is_wrong(self, log: Path) -> None:
        document = json.loads(log.read_text(encoding="utf-8"))
        for result in document["runs"][0]["results"]:
            del result["locations"]
            result["ruleIndex"] = 999
        log.write_text(json.dumps(document), encoding="utf-8")
        assert multitool_says(log, "Sarif")
        assert multitool_says(log, "Ghas")

    def test_any_name_is_valid(self, tmp_path: Path) -> None:
        from tests.support.reports_in_memory import HOSTILE

        one = report(
            *(checkpoint(name, [finding("BN101", name, name)]) for name in HOSTILE),
            *(unreadable(name, name) for name in HOSTILE),
        )
        target = tmp_path / "hostile.sarif"
        target.write_text(written("sarif", one), encoding="utf-8")
        told = multitool_says(target, "Sarif") + multitool_says(target, "Ghas")
        assert {entry for entry in told if entry[1] != "SARIF2005"} == set()
