"""The package as Python sees it: types, short words for a debugger, and a test that fails well."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import bninspect
from tests.conftest import FIXTURES, ROOT, unmeasured_environment

STUCK = FIXTURES / "tf1_layers_update_ops_forgotten" / "model.ckpt-60"
CORRECT = FIXTURES / "tf1_layers_correct" / "model.ckpt-60"

CONSUMER = """\
import bninspect
from bninspect import flax, tf1
from bninspect.keras import BatchNormGuard

report: bninspect.Report = bninspect.check("model.ckpt-200", select=["BN1"])
reveal_type(report.ok)
reveal_type(bninspect.explain(report))
for checkpoint in report.checkpoints:
    reveal_type(checkpoint.error)
    for layer in checkpoint.layers:
        reveal_type(layer)
        reveal_type(layer.values["gamma"].minimum)
for finding in report.findings:
    reveal_type(finding.rule.code)
    reveal_type(finding.cause)
reveal_type(bninspect.compare("a", "b"))
guard = BatchNormGuard(action="stop")
reveal_type(guard.layers)
reveal_type(bninspect.scalars(guard.layers))
reveal_type(tf1.BatchNormGuard(every_n_steps=100).check("session", 1))
reveal_type(flax.BatchNormGuard(select="BN1").check({}, 1))
reveal_type(flax.check_updated({}, {}))
"""
REVEALED = [
    "bool",
    "str",
    "bninspect.errors.ReadProblem | None",
    "bninspect.model.layer.BNLayer",
    "float",
    "str",
    "str | None",
    "bninspect.verdicts.comparison.Comparison",
    "tuple[bninspect.model.layer.BNLayer, ...]",
    "dict[str, float]",
    "bool",
    "bool",
    "bninspect.model.report.Report",
]
MISTAKES = """\
import bninspect.flax
from bninspect.keras import BatchNormGuard

bninspect.chekc("model.ckpt-200")
bninspect.check("model.ckpt-200").finding
bninspect.check("model.ckpt-200", engine="torch")
BatchNormGuard(action="raise")
bninspect.flax.BatchNormGuard(after_batches=1)
"""

# The README has it like this.
PYTEST = """\
import bninspect
import pytest


@pytest.mark.parametrize("path", ["models/resnet", "models/vgg.keras"])
def test_batch_norm_was_trained(path):
    report = bninspect.check(path)
    assert report.ok, bninspect.explain(report)
"""


def mypy(tmp_path, source: str) -> list[str]:
    script = tmp_path / "consumer.py"
    script.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file",
            str(ROOT / "pyproject.toml"),
            "--cache-dir",
            str(tmp_path / "cache"),
            str(script),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=unmeasured_environment(),
    )
    assert done.returncode in (0, 1), done.stderr
    return [line.partition("consumer.py:")[2] for line in done.stdout.splitlines()[:-1]]


@pytest.mark.processes
def test_a_type_checker_knows_what_it_gets(tmp_path) -> None:
    lines = mypy(tmp_path, CONSUMER)
    assert [line.split('"')[1] for line in lines] == REVEALED


@pytest.mark.processes
def test_a_type_checker_sees_mistakes(tmp_path) -> None:
    lines = mypy(tmp_path, MISTAKES)
    assert [line.partition(":")[0] for line in lines if " error: " in line] == [
        "4",
        "5",
        "6",
        "7",
        "8",
    ]


def test_every_public_name_is_there_and_documented() -> None:
    for name in bninspect.__all__:
        if not name.startswith("__"):
            assert (getattr(bninspect, name).__doc__ or "").strip(), name
    assert dir(bninspect) == bninspect.__all__
    with pytest.raises(AttributeError, match="chekc"):
        bninspect.chekc  # noqa: B018


# Those that a training imports, and what they have. It is only ever extended.
MODULES = {
    "bninspect.keras": {
        "GUARD_RULES",
        "Action",
        "BatchNormGuard",
        "BatchNormWarning",
        "RecalibrationRefused",
        "recalibrate",
    },
    "bninspect.flax": {
        "GUARD_RULES",
        "Action",
        "BatchNormGuard",
        "BatchNormWarning",
        "check_updated",
    },
    "bninspect.tf1": {"GUARD_RULES", "Action", "BatchNormGuard", "BatchNormWarning"},
}


@pytest.mark.framework
@pytest.mark.parametrize("name", MODULES)
def test_the_modules_of_trainings(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) == MODULES[name]
    shared = importlib.import_module("bninspect.keras")
    for each in ("GUARD_RULES", "Action", "BatchNormWarning"):
        assert getattr(module, each) is getattr(shared, each)
    assert module.BatchNormGuard.__doc__
    for option in ("action", "select", "ignore"):
        assert option in inspect.signature(module.BatchNormGuard).parameters


def test_nothing_is_printed(capsys) -> None:
    report = bninspect.check(STUCK, FIXTURES / "nothing")
    bninspect.list_layers(CORRECT)
    bninspect.explain(report)
    assert capsys.readouterr() == ("", "")


def test_ok_is_what_exit_code_0_is(run, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (
        STUCK,
        CORRECT,
        FIXTURES / "keras2_too_few_steps" / "model.h5",
        FIXTURES / "tf1_lookalikes",
        tmp_path / "empty",
        tmp_path / "nothing",
    ):
        assert bninspect.check(path).ok == (run("check", path).exit_code == 0), path
    assert bninspect.check(CORRECT).ok
    assert not bninspect.check(CORRECT, STUCK).ok
    assert not bninspect.check().ok
    other = FIXTURES / "keras2_history_frozen" / "epoch-6.h5"
    assert run("check", CORRECT, "--since", other).exit_code == 3
    assert not bninspect.check(CORRECT, since=other).ok


def test_explain_is_what_check_prints(run) -> None:
    report = bninspect.check(STUCK, CORRECT)
    assert bninspect.explain(report) == run("check", STUCK, CORRECT).out.rstrip("\n")
    assert bninspect.explain(report, verbose=True) == run("check", STUCK, CORRECT, "-v").out.rstrip(
        "\n"
    )


def test_a_debugger_shows_few_words() -> None:
    report = bninspect.check(STUCK)
    layer = report.checkpoints[0].layers[0]
    assert repr(report) == (
        "<Report of 1 checkpoint, 3 BN layers: 3 errors, 0 warnings, 0 notes, 0 unreadable>"
    )
    assert str(STUCK) in repr(report.checkpoints[0])
    assert repr(layer) == f"<BNLayer {layer.name}: tf.layers, 4 channels, float32>"
    assert repr(report.findings[0].rule) == "<Rule BN101 statistics-never-updated>"
    assert "nothing" in repr(bninspect.check(FIXTURES / "nothing").checkpoints[0])
    comparison = bninspect.compare(FIXTURES / "tf1_history_stopped")
    assert repr(comparison) == "<Comparison of 3 checkpoints, 3 BN layers: 3 findings>"
    name = comparison.layers[0].name
    assert repr(comparison.layers[0]) == f"<LayerHistory {name}: 1 finding>"


@pytest.mark.processes
def test_pytest_fails_with_a_readable_message(tmp_path) -> None:
    source = PYTEST.replace("models/resnet", str(STUCK)).replace("models/vgg.keras", str(CORRECT))
    (tmp_path / "test_model.py").write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-vv", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "80"},
    )
    said = " ".join(line.removeprefix("E").strip() for line in done.stdout.splitlines())
    assert "1 failed, 1 passed" in said
    assert "error BN101 statistics-never-updated: 3 layers" in said
    assert "- conv1/batch_normalization: moving_mean is still 0" in said
    assert "fix       Run the update ops with every training step" in said
    assert "tf.control_dependencies" in said
    assert "RuleDoc" not in said
    assert "array(" not in said
    assert len(done.stdout.splitlines()) < 90  # what `check` prints, and the frame of pytest
