"""`--engine tensorflow`: the same answer through TensorFlow's own reader."""

from __future__ import annotations

import builtins
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import FIXTURE_STEMS, FIXTURES, load_fixture, parsed
from tests.support.table_writer import OBJECT_GRAPH, write_bundle, write_index

pytestmark = pytest.mark.framework

# Every fixture of TensorFlow is read by TensorFlow in test_fixtures; of each container, one is
# enough to show that the engine hands on what TensorFlow reads.
CONTAINERS = {
    "tf-v1": "tf1_v1_partitioned",
    "tf-v2": "tf1_layers_sharded",
    "tf-object": "keras3_ckpt_correct",
    "saved-model": "saved_model_keras2_traced",
    "graph-def": "frozen_tf1_correct",
}
OTHERS = {
    "keras-h5": "keras2_nested",
    "keras-weights-h5": "keras3_history_weights",
    "keras-zip": "keras3_zip_nested",
    "onnx": "onnx_keras2_stuck",
    "tfjs": "tfjs_layers_correct",
    "orbax": "orbax_linen_not_kept",
}


def test_every_container_is_read_by_both_engines():
    assert {load_fixture(stem).expected["format"] for stem in FIXTURE_STEMS} == {
        *CONTAINERS,
        *OTHERS,
    }


@pytest.mark.parametrize("command", ["check", "list"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_both_engines_give_the_same_report(run, container, command):
    fixture = load_fixture(CONTAINERS[container])
    assert fixture.expected["format"] == container
    native = run(command, fixture.path, "--format", "json")
    assert native.json["checkpoints"][0]["error"] is None
    assert run(command, fixture.path, "--format", "json", "--engine", "tensorflow") == native


@pytest.mark.parametrize("container", OTHERS)
def test_other_files_are_refused(run, container):
    fixture = load_fixture(OTHERS[container])
    assert fixture.expected["format"] == container
    outcome = run("check", fixture.path, "--format", "json", "--engine", "tensorflow")
    assert outcome.exit_code == 2
    (checkpoint,) = outcome.json["checkpoints"]
    assert checkpoint["error"]["kind"] == "unsupported"
    assert "TensorFlow's own files" in checkpoint["error"]["message"]


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
    assert "TensorFlow cannot read it (" in outcome.said


@pytest.mark.parametrize(
    "change",
    [{"dtype": 99}, {"shape": (-3,)}, {"shape": (2,) * 300}, {"shape": (2**62, 2**62)}],
    ids=["type", "negative", "rank", "overflow"],
)
def test_what_would_end_the_process_is_one_sentence(tmp_path, run, change):
    entries = write_bundle(tmp_path / "model", {"x": np.float32([1, 2]), "y": np.float32([1])})
    write_index(tmp_path / "model", {**entries, b"x": replace(entries[b"x"], **change)})
    outcome = run("check", tmp_path / "model", "--engine", "tensorflow")
    assert outcome.exit_code == 2
    assert "model.index: " in outcome.out or "is larger than any tensor" in outcome.said


def test_an_object_graph_of_numbers(tmp_path, run):
    write_bundle(tmp_path / "model", {OBJECT_GRAPH: np.float32([1, 2])})
    outcome = run("check", tmp_path / "model", "--engine", "tensorflow")
    assert outcome.exit_code == 2
    assert "expected one string under" in outcome.said


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


@pytest.mark.processes
def test_tensorflow_says_nothing_beside_the_report():
    path = FIXTURES / "tf1_layers_correct" / "model.ckpt-60"
    command = [sys.executable, "-m", "bninspect", "check", str(path), "--engine", "tensorflow"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, check=True)
    assert parsed(done.stdout)["summary"]["checkpoints"] == 1
    assert done.stderr == b""
