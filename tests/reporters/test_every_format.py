"""What every format of `check` owes its reader, whatever names a checkpoint brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from bninspect.cli.formats import CHECK, COMPARE, DUMP, LIST
from bninspect.model.report import Report
from tests.conftest import Outcome, parsed
from tests.support.reports_in_memory import HOSTILE, hostile_reports, written
from tests.support.table_writer import write_bundle

Run = Callable[..., Outcome]


@given(hostile_reports)
@settings(deadline=None)
def test_prose_holds_no_control_characters(one: Report) -> None:
    for format_ in ("text", "concise"):
        assert all(line.isprintable() for line in written(format_, one).split("\n"))


@given(hostile_reports)
@settings(deadline=None)
def test_a_line_a_finding(one: Report) -> None:
    lines = written("concise", one).splitlines()
    told = sum(len(item.findings) for item in one.checkpoints)
    silent = sum(item.error is not None or not item.layers for item in one.checkpoints)
    assert len(lines) == told + silent


@given(hostile_reports)
@settings(deadline=None)
def test_json_brings_names_as_they_are(one: Report) -> None:
    text = written("json", one)
    assert text.isascii()
    for written_item, item in zip(parsed(text)["checkpoints"], one.checkpoints, strict=True):
        assert written_item["path"] == item.path
        assert [f["layer"] for f in written_item["findings"]] == [f.layer for f in item.findings]


@pytest.fixture
def hostile_checkpoint(tmp_path: Path) -> Path:
    """Stuck layers with the worst names that can be stored, at a path that is no better."""
    members = {}
    for name in HOSTILE:
        group = name.encode("utf-8", "surrogatepass")
        members[group + b"/gamma"] = np.array([0.9, 1.1], np.float32)
        members[group + b"/moving_mean"] = np.zeros(2, np.float32)
        members[group + b"/moving_variance"] = np.ones(2, np.float32)
    prefix = tmp_path / "a::b,%0A=\n##[error]\x1b[31m é.ckpt"
    write_bundle(str(prefix), members)
    return prefix


@pytest.mark.parametrize("format_", sorted(CHECK))
def test_the_worst_checkpoint_in_the_poorest_terminal(
    format_: str, hostile_checkpoint: Path
) -> None:
    command = [sys.executable, "-m", "bninspect", "check", hostile_checkpoint, "--format", format_]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr == b""
    assert all(32 <= byte < 127 or byte == 10 for byte in done.stdout)
    assert b"BN101" in done.stdout


@pytest.mark.parametrize(
    ("command", "formats"),
    [("check", CHECK), ("list", LIST), ("dump", DUMP), ("compare", COMPARE)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_help_names_the_formats(run: Run, command: str, formats: dict[str, object]) -> None:
    assert f"[{'|'.join(formats)}][=FILE]" in run(command, "--help").out


def test_one_run_writes_all(run: Run, hostile_checkpoint: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"report.{name}" for name in CHECK}
    options = [f"--format={name}={path}" for name, path in files.items()]
    outcome = run("check", hostile_checkpoint, *options)
    assert outcome.exit_code == 1
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    for name, path in files.items():
        assert path.read_text(encoding="utf-8") == (
            run("check", hostile_checkpoint, "--format", name).out
        )
    assert len(json.loads(files["sarif"].read_text())["runs"][0]["results"]) == len(HOSTILE)
