"""The graph.pbtxt of a training: evidence where it has the variables of the checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FIXTURES, Run, load_fixture

STUCK = FIXTURES / "tf1_graph_text_forgotten"
OTHER = FIXTURES / "tf1_graph_estimator_forgotten"


@pytest.fixture
def training(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STUCK, tmp_path / "run"))


def check(run: Run, folder: Path, *options: str) -> Any:
    (item,) = run("check", folder / "model.ckpt-60", "--format", "json", *options).json[
        "checkpoints"
    ]
    return item


def test_it_proves_the_cause_as_a_meta_graph_does(training: Path, run: Run) -> None:
    item = check(run, training)
    (finding,) = item["findings"]
    assert finding["cause"] == "update-ops-not-run"
    assert item["notes"] == ["the graph is graph.pbtxt, which has the variables of this checkpoint"]
    assert "the graph has 2 update ops, but `sgd` does not depend on them" in finding["evidence"]


def test_nothing_is_said_of_collections_which_it_does_not_have(training: Path, run: Run) -> None:
    (finding,) = check(run, training)["findings"]
    assert not any("UPDATE_OPS" in fact for fact in finding["evidence"])
    assert "does not hold" not in finding["fix"]
    listed = run("list", training / "model.ckpt-60", "--graph", "--format", "json")
    computation = listed.json["checkpoints"][0]["layers"][0]["graph"]
    assert (computation["in_update_ops"], computation["momentum"]) == (None, pytest.approx(0.9))
    assert "UPDATE_OPS" not in run("list", training / "model.ckpt-60", "--graph").out


def test_it_is_no_model_that_recalibrate_runs(training: Path, run: Run) -> None:
    (finding,) = check(run, training)["findings"]
    assert "by `bninspect recalibrate`" not in finding["fix"]
    prefix = training / "model.ckpt-60"
    outcome = run("recalibrate", prefix, "--data", "x.npz", "-o", training / "fixed")
    assert outcome.exit_code == 2
    assert ".meta file" in outcome.err


@pytest.mark.parametrize("name", ["graph.pbtxt", "train.pbtxt", "graph.pb", "train.pb"])
@pytest.mark.framework
def test_each_usual_name_is_found(training: Path, run: Run, name: str) -> None:
    from google.protobuf import text_format
    from tensorflow.core.framework.graph_pb2 import GraphDef

    text = training / "graph.pbtxt"
    path = text.rename(training / name)
    if path.suffix == ".pb":
        path.write_bytes(text_format.Parse(path.read_bytes(), GraphDef()).SerializeToString())
    assert check(run, training)["findings"][0]["cause"] == "update-ops-not-run"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"bn/beta"', b'"bn/gamma"'), (b"size: 3", b"size: 4")],
    ids=["names", "shapes"],
)
def test_a_graph_of_other_variables_proves_nothing(
    training: Path, run: Run, old: bytes, new: bytes
) -> None:
    path = training / "graph.pbtxt"
    path.write_bytes(path.read_bytes().replace(old, new))
    item = check(run, training)
    assert [finding["cause"] for finding in item["findings"]] == [None]
    assert any("graph.pbtxt: this graph has other variables" in note for note in item["notes"])


def test_a_graph_of_another_optimizer_proves_nothing(training: Path, run: Run) -> None:
    """Its slots would be stored, as the step is."""
    path = training / "graph.pbtxt"
    slot = 'node { name: "bn/beta/Momentum" op: "VarHandleOp" }\n'
    path.write_text(path.read_text(encoding="utf-8") + slot, encoding="utf-8")
    item = check(run, training)
    assert [finding["cause"] for finding in item["findings"]] == [None]
    assert any("graph.pbtxt: this graph has other variables" in note for note in item["notes"])


def test_a_graph_with_local_variables_is_that_of_the_training(training: Path, run: Run) -> None:
    """No Saver stores those of metrics."""
    path = training / "graph.pbtxt"
    slot = 'node { name: "accuracy/total" op: "VarHandleOp" }\n'
    path.write_text(path.read_text(encoding="utf-8") + slot, encoding="utf-8")
    assert check(run, training)["findings"][0]["cause"] == "update-ops-not-run"


def test_the_meta_graph_of_the_checkpoint_comes_first(training: Path, run: Run) -> None:
    shutil.copy(f"{load_fixture(OTHER.name).path}.meta", training / "model.ckpt-60.meta")
    (training / "graph.pbtxt").write_bytes(b"node { name: 'damaged'")
    item = check(run, training)
    assert [finding["cause"] for finding in item["findings"]] == ["update-ops-not-run"]
    assert item["notes"] == []


def test_a_meta_graph_of_another_model_gives_way(training: Path, run: Run) -> None:
    other = load_fixture("slim_graph_update_ops_forgotten").path
    shutil.copy(f"{other}.meta", training / "model.ckpt-60.meta")
    item = check(run, training)
    assert [finding["cause"] for finding in item["findings"]] == ["update-ops-not-run"]
    (training / "graph.pbtxt").unlink()
    item = check(run, training)
    assert [finding["cause"] for finding in item["findings"]] == [None]
    assert any("is it of another model?" in note for note in item["notes"])


def test_a_damaged_one_leaves_the_checkpoint_readable(training: Path, run: Run) -> None:
    path = training / "graph.pbtxt"
    path.write_bytes(path.read_bytes()[:-200])
    item = check(run, training)
    assert [finding["cause"] for finding in item["findings"]] == [None]
    assert any("cannot be read" in note and "damaged" in note for note in item["notes"])


def test_a_text_that_is_no_graph_is_passed_over(training: Path, run: Run) -> None:
    """Other programs use such names, too."""
    (training / "graph.pbtxt").write_text("model { ssd { num_classes: 90 } }")
    item = check(run, training)
    assert [finding["cause"] for finding in item["findings"]] == [None]
    assert item["notes"] == []


def test_a_healthy_checkpoint_leaves_it_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from bninspect.formats.tensorflow import training_graph

    def fail(_: str) -> None:
        raise AssertionError

    monkeypatch.setattr(training_graph, "read_training_graph", fail)
    assert check(run, FIXTURES / "tf1_graph_text")["findings"] == []


def test_all_checkpoints_of_a_training_share_one_reading(
    training: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bninspect.formats.tensorflow import training_graph

    read = training_graph.read_training_graph
    opened = []
    monkeypatch.setattr(
        training_graph, "read_training_graph", lambda path: opened.append(path) or read(path)
    )
    for part in ("index", "data-00000-of-00001"):
        shutil.copy(training / f"model.ckpt-60.{part}", training / f"model.ckpt-80.{part}")
    items = run("check", training, "--format", "json").json["checkpoints"]
    assert len(items) == 2
    assert len(opened) == 1


def test_results_are_not_kept_when_it_changes(training: Path, run: Run, tmp_path: Path) -> None:
    graph = (training / "graph.pbtxt").rename(tmp_path / "graph.pbtxt")
    results = tmp_path / "results.jsonl"
    run("check", training, "--format", f"jsonl={results}")
    shutil.copy(graph, training / "graph.pbtxt")
    resumed = run("check", training, "--format", "json", "--resume", results)
    (item,) = resumed.json["checkpoints"]
    assert [finding["cause"] for finding in item["findings"]] == ["update-ops-not-run"]


@pytest.mark.framework
def test_a_meta_graph_in_text_form_keeps_its_collections(tmp_path: Path, run: Run) -> None:
    """As Saver.export_meta_graph(as_text=True) writes it."""
    from google.protobuf import text_format
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    folder = Path(shutil.copytree(OTHER, tmp_path / "run"))
    meta = folder / "model.ckpt-60.meta"
    text = text_format.MessageToString(MetaGraphDef.FromString(meta.read_bytes()))
    meta.write_text(text, encoding="utf-8")
    (finding,) = check(run, folder)["findings"]
    assert finding["cause"] == "update-ops-not-run"
    assert any("UPDATE_OPS holds those of" in fact for fact in finding["evidence"])
