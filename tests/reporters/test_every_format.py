"""What every format of `check` owes its reader, whatever names a checkpoint brings."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from bninspect.cli.formats import CHECK, COMPARE, DUMP, LIST
from bninspect.model.report import Report
from tests.conftest import FIXTURES, Run, parsed
from tests.support.pages import without_run
from tests.support.reports_in_memory import HOSTILE, hostile_reports, written
from tests.support.table_writer import write_bundle


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


@pytest.mark.processes
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
    text = run(command, "--help").out
    if command == "check":  # their names are too many for one line
        assert re.findall(r"^    (\w+) ", text.partition("  Formats:")[2], re.MULTILINE)[
            : len(formats)
        ] == list(formats)
    else:
        assert f"[{'|'.join(formats)}][=FILE]" in text


def test_one_run_writes_all(run: Run, hostile_checkpoint: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"report.{name}" for name in CHECK}
    options = [f"--format={name}={path}" for name, path in files.items()]
    outcome = run("check", hostile_checkpoint, *options)
    assert outcome.exit_code == 1
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    for name, path in files.items():
        alone = run("check", hostile_checkpoint, "--format", name).out
        assert without_run(path.read_text(encoding="utf-8")) == without_run(alone)
    assert len(json.loads(files["sarif"].read_text())["runs"][0]["results"]) == len(HOSTILE)


@pytest.mark.processes
def test_all_fixtures_in_two_processes_are_written_as_in_one(run: Run, tmp_path: Path) -> None:
    written_by: list[dict[str, str]] = []
    for jobs in ("1", "2"):
        directory = tmp_path / jobs
        directory.mkdir()
        options = [f"--format={name}={directory / name}" for name in CHECK]
        assert run("check", FIXTURES, "-q", "--jobs", jobs, *options).exit_code == 1
        texts = {name: (directory / name).read_text("utf-8") for name in CHECK}
        written_by.append({name: without_run(text) for name, text in texts.items()})
    assert written_by[0].keys() == written_by[1].keys()
    for name, content in written_by[0].items():
        assert content == written_by[1][name], name


COMMANDS = [
    *(("check", name) for name in CHECK),
    *(("list", name) for name in LIST),
    *(("dump", name) for name in DUMP if name != "npz"),
    *(("compare", name) for name in COMPARE),
]


def output_of(run: Run, command: str, format_: str, checkpoint: Path) -> str:
    options = {"dump": ("--layer", "*"), "compare": (checkpoint,)}.get(command, ())
    return run(command, checkpoint, *options, "--format", format_).out


@pytest.fixture
def hostile_training(hostile_checkpoint: Path) -> Path:
    """The same checkpoint at two steps."""
    for name in (".index", ".data-00000-of-00001"):
        copy = hostile_checkpoint.with_name(f"{hostile_checkpoint.name}-2{name}")
        copy.write_bytes(hostile_checkpoint.with_name(hostile_checkpoint.name + name).read_bytes())
    return hostile_checkpoint


@pytest.mark.parametrize(("command", "format_"), COMMANDS)
def test_no_log_of_a_ci_system_obeys_a_name(
    run: Run, hostile_training: Path, command: str, format_: str
) -> None:
    if command == "compare":
        other = hostile_training.with_name(f"{hostile_training.name}-2")
        out = run("compare", hostile_training, other, "--format", format_).out
    else:
        out = output_of(run, command, format_, hostile_training)
    assert "b" in out
    assert "##[" not in out
    assert "##vso[" not in out
    obeyed = [line for line in out.splitlines() if line.lstrip().startswith("::")]
    annotations = [line for line in obeyed if re.match("::(error|warning|notice) ", line)]
    assert obeyed == (annotations if format_ == "github" else [])


@pytest.mark.parametrize("command", ["dump", "compare"])
def test_no_cell_of_a_table_is_a_formula(run: Run, hostile_training: Path, command: str) -> None:
    if command == "compare":
        other = hostile_training.with_name(f"{hostile_training.name}-2")
        out = run("compare", hostile_training, other, "--format", "csv").out
    else:
        out = output_of(run, "dump", "csv", hostile_training)
    assert all(line.isprintable() for line in out.split("\n"))
    rows = list(csv.DictReader(io.StringIO(out)))
    names = {row["layer"] for row in rows}
    assert {"'=cmd|' /C calc'!A0", "'@SUM(A1)"} <= names
    assert not {name for name in names if name.startswith(("=", "+", "-", "@"))}


def test_names_alone_are_no_commands(run: Run, hostile_training: Path) -> None:
    out = run("list", hostile_training, "--quiet").out
    assert "\\x3a:stop-commands::x" in out
    assert not [line for line in out.splitlines() if line.lstrip().startswith("::")]


@pytest.mark.processes
@pytest.mark.parametrize("format_", ["text", "json"])
def test_memory_for_many_channels(tmp_path: Path, format_: str) -> None:
    """What a layer of 400,000 channels takes is a few times its arrays, not a string a cell."""
    channels = 400_000
    members = {
        b"bn/" + role: np.linspace(0.1, 2.0, channels, dtype=np.float32)
        for role in (b"gamma", b"beta", b"moving_mean", b"moving_variance")
    }
    prefix = tmp_path / "wide.ckpt"
    write_bundle(str(prefix), members)
    target = tmp_path / f"out.{format_}"
    program = (
        "import sys, tracemalloc, bninspect.cli.main as main\n"
        "tracemalloc.start()\n"
        "try:\n    main.run(sys.argv[1:])\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "print(tracemalloc.get_traced_memory()[1])"
    )
    options = ["dump", prefix, "--layer", "bn", "-v", "--format", format_, "-o", target]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, options)], capture_output=True, check=True
    )
    assert int(done.stdout) < 20 * channels * 8  # bytes: six columns of float64, and some copies
    text = target.read_text()
    assert text.count("\n") > channels if format_ == "text" else json.loads(text)
