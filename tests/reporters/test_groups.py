"""Findings of many checkpoints in groups: `--statistics`, and `--format markdown`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings

from bninspect.model.report import Report
from bninspect.reporters.escapes import printable
from tests.conftest import CLEAN, EMPTY, FIXTURES, STUCK, Run
from tests.support.pages import without_run
from tests.support.reports_in_memory import hostile_reports, written

SLIM = FIXTURES / "slim_update_ops_forgotten" / "model.ckpt-60"
KERAS = FIXTURES / "keras2_ckpt_legacy_stuck" / "ckpt-1"
MISSING = FIXTURES / "no_such_checkpoint"


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    """Seven copies of one broken model."""
    directories = [tmp_path / f"run{number}" for number in range(7)]
    for directory in directories:
        directory.mkdir()
        for file in STUCK.parent.glob("model.ckpt-60.*"):
            (directory / file.name).symlink_to(file)
    return [directory / "model.ckpt-60" for directory in directories]


UNCHECKED = FIXTURES / "keras2_zip_subclass" / "model.keras"


@pytest.mark.parametrize("options", [("--statistics",), ("--format", "markdown")])
def test_what_was_not_checked_is_said_once(
    run: Run, tmp_path: Path, options: tuple[str, ...]
) -> None:
    copies = [tmp_path / f"copy_{number}.keras" for number in range(3)]
    for copy in copies:
        shutil.copy(UNCHECKED, copy)
    (group,) = run("check", UNCHECKED, "--format", "json").json["checkpoints"][0]["unchecked"]
    out = " ".join(run("check", *copies, CLEAN, *options).out.replace("\\", "").split())
    assert out.count(group["reason"]) == 1
    assert f"{copies[0]} (and 2 other checkpoints): " in out


class TestStatistics:
    def test_what_is_the_same_is_said_once(self, run: Run, copies: list[Path]) -> None:
        outcome = run("check", *copies, CLEAN, SLIM, KERAS, MISSING, "--statistics")
        assert outcome.exit_code == 2
        lines = outcome.out.splitlines()
        assert lines[0].startswith(
            "ERROR  11 checkpoints: 1 unreadable, 9 failed (BN101), 1 passed"
        )
        titles = [line for line in lines if line.startswith("error BN101")]
        assert titles == [
            "error BN101 statistics-never-updated: 21 layers in 7 checkpoints",
            "error BN101 statistics-never-updated: 2 layers in 1 checkpoint",
            "error BN101 statistics-never-updated: 2 layers in 1 checkpoint",
        ]
        assert sum("  fix  " in line for line in lines) == 3
        assert "  more      bninspect rule BN101 --for slim" in lines
        assert "  - and 2 more (--verbose names them)" in lines
        assert any(line.startswith(f"ERROR  {MISSING}") for line in lines)
        assert lines[-1].endswith("1 unreadable, 9 failed, 1 passed")

    def test_verbose_names_every_checkpoint(self, run: Run, copies: list[Path]) -> None:
        out = run("check", *copies, "--statistics", "--verbose").out
        assert all(f"{path}: 3 of 3 BN layers" in out.replace("\n      ", " ") for path in copies)

    def test_a_screen_is_enough(self, run: Run) -> None:
        out = run("check", FIXTURES, "--statistics", "--jobs", "1").out
        entries, counts = out.partition("Others, whose fixes --verbose shows:")[::2]
        assert len(re.findall(r"^(?:error|warning|note) BN", entries, re.MULTILINE)) == 3
        verbose = run("check", FIXTURES, "--statistics", "--verbose", "--jobs", "1").out
        titles = re.findall(r"^((?:error|warning|note) BN.*): (\d+) layers? in", verbose, re.M)
        shown = re.findall(r"^((?:error|warning|note) BN.*): (\d+) layers? in", entries, re.M)
        rows = re.findall(r"^  ((?:error|warning|note) BN\S+ \S+) +(\d+) +\d+", counts, re.M)
        layers = [sum(int(number) for _, number in found) for found in (titles, shown, rows)]
        assert layers[0] == layers[1] + layers[2]
        assert {name for name, _ in titles} == {name for name, _ in (*shown, *rows)}

    def test_what_is_counted_is_not_folded(self, run: Run) -> None:
        out = run("check", FIXTURES, "--statistics", "--jobs", "1").out
        rows = out.partition("Others, whose fixes --verbose shows:\n\n")[2].partition("\n\n")[0]
        assert max(map(len, rows.splitlines())) <= 80
        totals = re.findall(r"^  (error BN101 \S+) +(\d+) +\d+$", rows, re.MULTILINE)
        below = rows.partition(totals[0][0])[2].partition("\n  error ")[0]
        causes = re.findall(r"^    (?:likely )?[a-z-]+ +(\d+) +(\d+)$", below, re.MULTILINE)
        assert int(totals[0][1]) == sum(int(layers) for layers, _ in causes)
        checkpoints = [int(count) for _, count in causes]
        assert checkpoints == sorted(checkpoints, reverse=True)

    def test_the_gravest_comes_first(self, run: Run) -> None:
        cold = FIXTURES / "tf1_layers_too_few_steps"
        out = run("check", cold, STUCK, "--momentum", "0.99", "--statistics").out
        assert out.index("error BN101") < out.index("warning BN106")

    def test_the_exit_code_and_the_first_line_are_those_of_check(self, run: Run) -> None:
        for paths in ((CLEAN, CLEAN), (STUCK, CLEAN), (EMPTY, EMPTY), (MISSING, CLEAN)):
            plain, grouped = run("check", *paths), run("check", *paths, "--statistics")
            assert plain.exit_code == grouped.exit_code
            assert plain.out.splitlines()[0] == grouped.out.splitlines()[0]

    def test_is_for_text(self, run: Run) -> None:
        outcome = run("check", STUCK, "--statistics", "--format", "json")
        assert outcome.exit_code == 2
        assert "--statistics is for --format text" in outcome.err


class TestMarkdown:
    def test_the_answer_then_each_group(self, run: Run, copies: list[Path]) -> None:
        out = run("check", *copies, SLIM, MISSING, "--format", "markdown").out
        headings = re.findall(r"^(##+ .*)$", out, re.MULTILINE)
        assert headings == [
            "## bninspect: ERROR",
            "### error: BN101 statistics-never-updated: 21 layers in 7 checkpoints",
            "### error: BN101 statistics-never-updated: 2 layers in 1 checkpoint",
            "### 1 file could not be read",
        ]
        assert all(f"- `{path}`: 3 of 3 BN layers" in out for path in copies)
        assert "`tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS))`" in out
        assert out.count("**Fix:**") == 2

    @given(hostile_reports)
    @settings(deadline=None)
    def test_names_are_code_and_no_markup(self, one: Report) -> None:
        text = written("markdown", one)
        assert all(line.isprintable() for line in text.split("\n"))
        headings = re.findall(r"^#+ ", text, re.MULTILINE)
        groups = text.count("<details>")
        unreadable = any(item.error is not None for item in one.checkpoints)
        assert len(headings) == 1 + groups + unreadable
        assert text.count("</details>") == groups


def test_the_page_is_that_of_report(run: Run, tmp_path: Path) -> None:
    by_check, by_report = tmp_path / "a.html", tmp_path / "b.html"
    assert run("check", STUCK, f"--format=html={by_check}").exit_code == 1
    assert run("report", STUCK, "-o", by_report).exit_code == 1
    pages = [without_run(file.read_text("utf-8")) for file in (by_check, by_report)]
    assert pages[0] == pages[1]
    assert printable(str(STUCK)) in by_check.read_text("utf-8").replace("<wbr>", "")
