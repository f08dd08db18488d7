"""`--format github`, read back by the rules of the runner that reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings

from bninspect.model.report import Report
from bninspect.reporters.escapes import printable
from tests.conftest import CLEAN, EMPTY, FIXTURES, STUCK, Run
from tests.support.reports_in_memory import (
    checkpoint,
    finding,
    hostile_reports,
    report,
    unreadable,
    written,
)

KNOWN = {"error", "warning", "notice", "debug", "group", "endgroup", "add-mask", "stop-commands"}


class Command(NamedTuple):
    name: str
    properties: dict[str, str]
    message: str


def runner_reads(line: str) -> Command | None:
    """What actions/runner makes of a line (src/Runner.Common/ActionCommand.cs)."""
    trimmed = line.lstrip()
    info, separator, data = trimmed[2:].partition("::")
    if trimmed.startswith("::") and separator and info.partition(" ")[0] in KNOWN:
        name, _, listed = info.partition(" ")
        pairs = (pair.partition("=") for pair in listed.strip().split(",") if pair)
        codes = {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}
        properties = {key: unescaped(value, codes) for key, _, value in pairs}
        codes = {"%0D": "\r", "%0A": "\n", "%25": "%"}
        return Command(name, properties, unescaped(data, codes))
    _, older, rest = line.partition("##[")
    info, bracket, data = rest.partition("]")
    if older and bracket and info.partition(" ")[0] in KNOWN:
        return Command(info.partition(" ")[0], {}, data)
    return None


def unescaped(text: str, codes: dict[str, str]) -> str:
    for code, character in codes.items():
        text = text.replace(code, character)
    return text


def commands(text: str) -> list[Command]:
    return [command for line in text.split("\n") if (command := runner_reads(line))]


def annotations(one: Report) -> list[Command]:
    return commands(written("github", one))


class TestOnFixtures:
    def test_one_annotation_a_rule_and_checkpoint(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GITHUB_WORKSPACE", str(FIXTURES.parent))
        outcome = run("check", STUCK, CLEAN, "--format", "github")
        (error,) = commands(outcome.out)
        assert error.name == "error"
        assert error.properties["title"] == "BN101 statistics-never-updated: 3 of 3 BN layers"
        file = error.properties["file"]
        assert file == f"fixtures/tf1_layers_update_ops_forgotten/{STUCK.name}.index"
        assert (FIXTURES.parent / file).is_file()
        assert "conv1/batch_normalization: moving_mean is still 0" in error.message
        assert "\ncause: cannot be told from this file\n" in error.message
        assert "fix: Run the update ops" in error.message
        assert "bninspect rule BN101" in error.message

    def test_the_log_has_the_text(self, run: Run) -> None:
        out = run("check", STUCK, "--format", "github").out
        assert out.startswith(run("check", STUCK).out)
        quiet = run("check", STUCK, "--quiet").out
        assert run("check", STUCK, "--format", "github", "--quiet").out.startswith(quiet)

    def test_what_cannot_be_read_and_what_has_no_layer(self, run: Run) -> None:
        (error,) = commands(run("check", "no/such/file", "--format", "github").out)
        assert (error.name, error.properties["file"]) == ("error", "no/such/file")
        for options, level in (((), "error"), (("--allow-empty",), "notice")):
            (nothing,) = commands(run("check", EMPTY, *options, "--format", "github").out)
            assert (nothing.name, nothing.properties["title"]) == (level, "nothing was checked")
            assert "--allow-empty" in nothing.message
        assert commands(run("check", CLEAN, EMPTY, "--format", "github").out) == []


class TestPaths:
    def test_are_relative_to_the_workspace(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "runs").mkdir()
        monkeypatch.chdir(tmp_path / "runs")
        one = report(checkpoint("model.ckpt-1", [finding()]))
        monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
        assert annotations(one)[0].properties["file"] == "model.ckpt-1.index"
        monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
        assert annotations(one)[0].properties["file"] == "runs/model.ckpt-1.index"
        elsewhere = report(unreadable(os.path.join(os.sep, "data", "x.h5")))
        assert annotations(elsewhere)[0].properties["file"] == "/data/x.h5"

    def test_through_a_link(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        monkeypatch.chdir(tmp_path / "link")
        monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "link"))
        assert annotations(report(unreadable("x.h5")))[0].properties["file"] == "x.h5"


class TestLimits:
    def test_ten_of_a_kind_and_the_last_says_what_is_left_out(self) -> None:
        codes = ("BN101", "BN106", "BN303")
        many = report(
            *(checkpoint(f"model-{n}", [finding(code) for code in codes]) for n in range(12)),
            unreadable("broken"),
        )
        found = annotations(many)
        levels = [one.name for one in found]
        assert {level: levels.count(level) for level in levels} == {
            "error": 10,
            "warning": 10,
            "notice": 10,
        }
        assert found[0].properties["title"] == "a checkpoint cannot be read"
        assert levels[:9] == ["error"] * 9
        assert levels[9:29] == ["warning"] * 10 + ["notice"] * 10
        assert found[-1].properties["title"] == "not shown here: 4 errors, 2 warnings, 2 notes"
        assert "The log of the step" in found[-1].message
        for options in ({}, {"quiet": True}):  # the log has them, whatever was asked for
            log = written("github", many, **options)
            assert all(f"model-{n}: " in log.partition("::error")[0] for n in range(12))
            assert log.partition("::error")[0].count("fix  ") == 36

    def test_notes_give_way_alone(self) -> None:
        many = report(*(checkpoint(f"model-{n}", [finding("BN303")]) for n in range(11)))
        found = annotations(many)
        assert [one.name for one in found] == ["notice"] * 10
        assert found[-1].properties["title"] == "not shown here: 2 notes"

    def test_ten_are_just_shown(self) -> None:
        ten = report(*(checkpoint(f"model-{n}", [finding()]) for n in range(10)))
        assert all("BN101" in one.properties["title"] for one in annotations(ten))

    def test_many_layers_are_counted(self) -> None:
        layers = [finding(layer=f"bn{n}") for n in range(50)]
        (error,) = annotations(report(checkpoint("model", layers, layers=["healthy"])))
        assert error.properties["title"].endswith("50 of 51 BN layers")
        assert "and 47 more" in error.message


@given(hostile_reports)
@settings(deadline=None)
def test_no_name_is_taken_for_a_command(one: Report) -> None:
    text = written("github", one)
    assert text == "".join(f"{printable(line)}\n" for line in text.split("\n")[:-1])
    lines = text.split("\n")[:-1]
    found = [runner_reads(line) for line in lines]
    first = next((index for index, command in enumerate(found) if command), len(lines))
    assert all(found[first:])
    groups = sum(
        len({(f.severity, f.rule.code) for f in item.findings}) + (item.error is not None)
        for item in one.checkpoints
    )
    nothing = not one.layer_count and not one.unreadable
    assert len(lines) - first <= groups + nothing
    for command in found[first:]:
        assert command is not None
        assert command.name in ("error", "warning", "notice")
        assert set(command.properties) <= {"file", "title"}
        assert len(command.message.encode("utf-16-le")) <= 2 * 4096
        if command.properties["title"].startswith("BN"):
            assert "fix: mend" in command.message
