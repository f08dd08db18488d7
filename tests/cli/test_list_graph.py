"""`list --graph`: how training computes each layer, by the stored graph or configuration."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import bninspect
from tests.conftest import FIXTURES, Fixture, Run

PLACEHOLDER = FIXTURES / "tf1_graph_placeholder_true" / "model.ckpt-60"
SLIM = FIXTURES / "slim_graph_correct" / "model.ckpt-60"


def graphs(run: Run, path: Path) -> dict[str, Any]:
    outcome = run("list", path, "--graph", "--format", "json")
    assert outcome.exit_code == 0
    (checkpoint,) = outcome.json["checkpoints"]
    return {layer["name"]: layer["graph"] for layer in checkpoint["layers"]}


def test_json_has_what_the_graph_says(run: Run) -> None:
    scope = "conv1/batch_normalization"
    updates = {"moving_mean": f"{scope}/AssignMovingAvg"}
    updates["moving_variance"] = f"{scope}/AssignMovingAvg_1"
    assert graphs(run, PLACEHOLDER) == {
        scope: {
            "source": "graph",
            "path": f"{PLACEHOLDER}.meta",
            "before": {"name": "conv1/conv2d/Conv2D", "type": "Conv2D", "bias": None},
            "mode": "chosen",
            "proof": None,
            "is_training": [False, True],
            "training_ops": ["GradientDescent"],
            "updates": [
                {
                    "node": node,
                    "role": role,
                    "run_by": ["GradientDescent"],
                    "in_loop": False,
                    "can_be_run": True,
                    "in_optimizer": True,
                    "collected": True,
                }
                for role, node in updates.items()
            ],
            "all_updates": True,
            "in_update_ops": True,
            "others_depend": False,
            "conditions": [
                {
                    "kind": "placeholder",
                    "name": "training",
                    "value": None,
                    "bound": None,
                    "derived": False,
                }
            ],
            "momentum": 0.9,
            "epsilon": 0.001,
            "training_false": None,
            "trainable": None,
            "calls": None,
        }
    }


def test_json_has_what_the_configuration_says(run: Run) -> None:
    path = FIXTURES / "keras315_zip_loop_in_inference_mode" / "model.keras"
    graph = graphs(run, path)["bn1"]
    assert graph.pop("proof")["mode"] == "inference"
    unknown = ("mode", "is_training", "training_ops", "updates", "all_updates")
    assert graph == dict.fromkeys((*unknown, "in_update_ops", "others_depend", "conditions")) | {
        "source": "configuration",
        "path": str(path),
        "before": {"name": "conv", "type": "Conv2D", "bias": "layers/conv2d/vars/1"},
        "momentum": 0.9,
        "epsilon": 0.001,
        "training_false": False,
        "trainable": True,
        "calls": 1,
    }


def test_json_has_the_key_only_if_it_was_asked_for(run: Run) -> None:
    (checkpoint,) = run("list", PLACEHOLDER, "--format", "json").json["checkpoints"]
    assert all("graph" not in layer for layer in checkpoint["layers"])


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("keras2_training_false/model.h5", {"mode": "inference", "training_false": True}),
        ("keras2_frozen/model.h5", {"mode": None, "trainable": False}),
        ("keras3_momentum_one/model.h5", {"momentum": 1.0}),
        ("keras1_correct/model.h5", {"mode": None, "calls": 1}),
    ],
)
def test_of_a_keras_file(run: Run, stem: str, expected: dict[str, Any]) -> None:
    for graph in graphs(run, FIXTURES / stem).values():
        assert {key: graph[key] for key in expected} == expected


def test_it_agrees_with_the_cause(fixture: Fixture, run: Run) -> None:
    """What `check` names as the cause, proved by a graph, is what `list` shows."""
    findings = [one for one in fixture.expected["findings"] if one["cause"]]
    outcome = run("list", fixture.path, "--graph", "--format=json", *_patterns(fixture))
    (checkpoint,) = outcome.json["checkpoints"]
    shown = {layer["name"]: layer["graph"] for layer in checkpoint["layers"]}
    assert shown.keys() == {layer["name"] for layer in fixture.expected["layers"]}
    assert not any("judged by its name" in note for note in checkpoint["notes"])
    for graph in filter(None, shown.values()):
        modes = {graph["mode"], (graph["proof"] or {}).get("mode")}
        assert not modes >= {"batch", "inference"}
    for finding in findings:
        graph = shown[finding["layer"]]
        if graph is None or graph["source"] != "graph":
            continue
        if finding["cause"] == "update-ops-not-run":
            statistics = {"BN102": {"moving_mean"}, "BN103": {"moving_variance"}}
            roles = statistics.get(finding["rule"], {"moving_mean", "moving_variance"})
            run_by = [update["run_by"] for update in graph["updates"] if update["role"] in roles]
            assert run_by
            assert not any(run_by)
            assert not graph["others_depend"]
        if finding["cause"] == "built-with-training-false":
            assert graph["mode"] == "inference"
        if finding["cause"] == "trained-in-inference-mode":
            assert graph["proof"]["mode"] == "inference"


def _patterns(fixture: Fixture) -> list[str]:
    options = fixture.expected["options"]
    return [
        word
        for option, value in pairwise(options)
        if option == "--pattern"
        for word in (option, value)
    ]


@pytest.mark.parametrize("columns", [80, 160])
def test_text_is_folded_at_words(run: Run, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(SLIM.parent)  # a path is a word: that of a checkout can be wider than a line
    lines = run("list", SLIM.name, "--graph").out.splitlines()
    start = lines.index("Conv/BatchNorm:")
    paragraph = lines[start : lines.index("", start)]
    assert max(map(len, paragraph)) <= columns
    folded = {
        80: [
            "  moving_mean      Conv/BatchNorm/AssignMovingAvg, run by",
            "                   train_op/control_dependency",
        ],
        160: [
            "  moving_mean      Conv/BatchNorm/AssignMovingAvg, run by train_op/control_dependency",
        ],
    }[columns]
    place = paragraph.index(folded[0])
    assert paragraph[place : place + len(folded)] == folded
    assert "  layer before     Conv/Conv2D (Conv2D)" in paragraph
    assert "  training ops     GradientDescent, train_op/control_dependency" in paragraph
    assert "  UPDATE_OPS       holds them" in paragraph


@pytest.mark.parametrize(
    ("stem", "sentence"),
    [
        (
            "tf1_graph_placeholder_true",
            "condition the placeholder training can switch them off",
        ),
        (
            "tf1_graph_default_false",
            "the placeholder is_training (default False) can switch them off",
        ),
        ("tf1_graph_until_step", "the variable global_step (stored as 60), compared with"),
        ("tf1_graph_update_ops_forgotten", "AssignMovingAvg, which no training op runs"),
        ("saved_model_keras3_export", "training ops none: the graph has no optimizer"),
        ("saved_model_keras3_export", "moving_mean no update in the graph"),
        ("keras315_zip_loop_in_inference_mode", "proved mode `layers/conv2d/vars/1`, which is"),
        ("keras315_zip_loop_in_inference_mode", "layer before conv (Conv2D), bias layers/conv2d"),
        ("keras2_training_false", "called once in a pass through the model, with training=False"),
        ("keras2_functional_correct", "called once in a pass through the model, without training="),
        ("keras2_frozen", "trainable no"),
        ("tf1_graph_accumulation", "other ops keep a result for which updates run; what runs them"),
        ("tf1_graph_while_in_place", "in a loop"),
        ("tf1_graph_own_names", "2 BN layers found by what the graph beside it computes, not by"),
        # Where nothing is stored: which file would say it.
        ("slim_correct", "put model.ckpt-60.meta there, which tf.train.Saver writes"),
        ("tf1_v1_correct", "put model.ckpt-60.meta there"),
        ("keras3_ckpt_correct", "object-based checkpoints have none; list the model's SavedModel"),
        ("keras2_functional_weights", "list the whole model (`model.save`), which has one"),
    ],
)
def test_text_says(run: Run, stem: str, sentence: str) -> None:
    assert sentence in run("list", FIXTURES / stem, "--graph").said


def test_gradients_that_an_accumulator_keeps_leave_the_mode_open(run: Run) -> None:
    """What computes them is no part of what the optimizer needs."""
    path = FIXTURES / "tf1_graph_accumulation" / "model.ckpt-60"
    assert {graph["mode"] for graph in graphs(run, path).values()} == {None}


def test_the_graph_of_another_model(run: Run, tmp_path: Path) -> None:
    """Names and graph differ, though no name left it open."""
    for part in PLACEHOLDER.parent.glob("model.ckpt-60.[di]*"):
        shutil.copy(part, tmp_path)
    shutil.copy(f"{SLIM}.meta", tmp_path / "model.ckpt-60.meta")
    outcome = run("list", tmp_path / "model.ckpt-60", "--graph")
    assert (
        "1 BN layer found by names alone; no normalization with their variables was found in the"
        " graph beside it: conv1/batch_normalization"
    ) in outcome.said
    assert "is it of another model?" in outcome.said


def test_a_damaged_graph(run: Run, tmp_path: Path) -> None:
    for part in PLACEHOLDER.parent.glob("model.ckpt-60.[di]*"):
        shutil.copy(part, tmp_path)
    (tmp_path / "model.ckpt-60.meta").write_bytes(Path(f"{PLACEHOLDER}.meta").read_bytes()[:-9])
    outcome = run("list", tmp_path / "model.ckpt-60", "--graph")
    assert outcome.exit_code == 0
    assert "the graph beside it cannot be read" in outcome.said
    assert "tf.train.Saver" not in outcome.said


def test_an_index_without_its_shard(run: Run, tmp_path: Path) -> None:
    for name in ("model.ckpt-60.index", "model.ckpt-60.meta"):
        shutil.copy(PLACEHOLDER.parent / name, tmp_path)
    graph = graphs(run, tmp_path / "model.ckpt-60")["conv1/batch_normalization"]
    assert graph["mode"] == "chosen"
    assert graph["proof"] is None


def test_from_python() -> None:
    (checkpoint,) = bninspect.list_layers(PLACEHOLDER, graph=True).checkpoints
    assert checkpoint.computations is not None
    assert checkpoint.computations["conv1/batch_normalization"].mode == "chosen"
    (checkpoint,) = bninspect.list_layers(PLACEHOLDER).checkpoints
    assert checkpoint.computations is None
