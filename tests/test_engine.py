"""`--engine tensorflow`: the same answer through TensorFlow's own reader."""

from __future__ import annotations

import builtins
import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import FIXTURES, load_fixture

TENSORFLOW = ("tf-v1", "tf-v2", "tf-object", "saved-model")


@pytest.mark.parametrize("command", ["check", "list"])
def test_both_engines_give_the_same_report(fixture, run, command):
    native = run(command, fixture.path, "--format", "json")
    second = run(command, fixture.path, "--format", "json", "--engine", "tensorflow")
    if fixture.expected["format"] in TENSORFLOW:
        assert second == native
    else:
        assert second.exit_code == 2
        (checkpoint,) = second.json["checkpoints"]
        assert checkpoint["error"]["kind"] == "unsupported"
        assert "no Keras files" in checkpoint["error"]["message"]


@pytest.mark.parametrize(
    "stem", ["tf1_layers_correct", "tf1_v1_partitioned", "keras3_ckpt_correct"]
)
def test_both_engines_dump_the_same_values(run, stem):
    path = load_fixture(stem).path
    native = run("dump", path, "--layer", "*", "--format", "csv")
    assert native.exit_code == 0
    assert run("dump", path, "--layer", "*", "--format", "csv", "--engine", "tensorflow") == native


def test_what_tensorflow_refuses_is_one_sentence_with_its_words(tmp_path, run):
    shutil.copytree(load_fixture("tf1_layers_correct").path.parent, tmp_path / "run")
    (shard,) = (tmp_path / "run").glob("*.data-*")
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    prefix = tmp_path / "run" / "model.ckpt-60"
    outcome = run("check", prefix, "--engine", "tensorflow")
    assert outcome.exit_code == 2
    assert "TensorFlow cannot read it (" in outcome.out


def test_without_tensorflow_the_command_to_install_it_is_told(run, monkeypatch):
    real_import = builtins.__import__

    def no_tensorflow(name, *rest, **more):
        if name == "tensorflow":
            raise ImportError("No module named 'tensorflow'")
        return real_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", no_tensorflow)
    path = load_fixture("tf1_layers_correct").path
    outcome = run("check", path, "--engine", "tensorflow")
    assert outcome.exit_code == 2
    assert outcome.out == ""
    assert "pip install 'bninspect[tensorflow]'" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_tensorflow_says_nothing_beside_the_report():
    path = FIXTURES / "tf1_layers_correct" / "model.ckpt-60"
    command = [sys.executable, "-m", "bninspect", "check", str(path), "--engine", "tensorflow"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["summary"]["checkpoints"] == 1
    assert done.stderr == b""
