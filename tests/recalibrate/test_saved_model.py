"""SavedModels: their signature for serving gives the statistics, and TensorFlow serves the copy."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bninspect
from bninspect.recalibrate.engines.opening import open_engine
from tests.conftest import FIXTURES, Run

pytestmark = [pytest.mark.framework, pytest.mark.xdist_group("recalibrated saved models")]
STUCK = FIXTURES / "saved_model_keras2_recalibrate"
NORMS = ("bn_conv", "bn_dense")


def makers() -> ModuleType:
    """Return the samples that the fixture was trained with."""
    path = FIXTURES / "make" / "recalibration_samples.py"
    spec = importlib.util.spec_from_file_location("recalibration_samples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    images, labels = makers().samples(1_000_000, 2048)
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, images=images, labels=labels)
    return path, images, labels


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float((outputs.argmax(axis=-1) == labels).mean())


def served(directory: Path, images: np.ndarray) -> np.ndarray:
    """Return what TensorFlow serves from a SavedModel."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(directory)).signatures["serving_default"]
    [outputs] = signature(tf.constant(images)).values()
    return np.asarray(outputs)


def test_it_is_cured_as_well_as_its_twin(data: Any, run: Run, tmp_path: Path) -> None:
    path, images, labels = data
    copy = tmp_path / "copy"
    arguments = ("--data", path, "--labels", "labels", "-o", copy, "--format", "json")
    result = json.loads(run("recalibrate", STUCK, *arguments).out)
    assert result["cured"]
    assert [layer["name"] for layer in result["layers"]] == [*NORMS]
    with bninspect.open_checkpoint(str(STUCK)) as checkpoint:
        layers = bninspect.list_layers(STUCK).checkpoints[0].layers
        engine = open_engine(checkpoint, layers, {})
        with np.load(STUCK / "twin.npz") as twin:
            statistics = {
                name: (twin[f"{name}/moving_mean"], twin[f"{name}/moving_variance"])
                for name in NORMS
            }
        [as_twin] = engine.outputs({"images": images}, statistics=statistics)
        [stuck] = engine.outputs({"images": images})
    np.testing.assert_allclose(stuck, served(STUCK, images), rtol=1e-4, atol=1e-4)
    after = served(copy, images)
    assert accuracy(stuck, labels) < 0.5 < accuracy(as_twin, labels)
    assert accuracy(after, labels) >= accuracy(as_twin, labels) - 0.01
    assert accuracy(after, labels) == pytest.approx(result["quality"]["after"])
    assert run("check", copy).exit_code == 0


def test_moments_are_those_of_a_network_without_dropout(data: Any) -> None:
    """The first layer's input is a convolution of the images, which numpy computes too."""
    _, images, _ = data
    with bninspect.open_checkpoint(str(STUCK)) as checkpoint:
        engine = open_engine(checkpoint, bninspect.list_layers(STUCK).checkpoints[0].layers, {})
        moments = engine.batch_moments({"images": images[:64]})
        kernel, bias = (
            checkpoint.variables[f"variables/{place}/.ATTRIBUTES/VARIABLE_VALUE"].read()
            for place in (0, 1)
        )
        assert [one.name for one in engine.inputs()] == ["images"]
        assert {layer.name: layer.unbiased for layer in engine.layers()} == {
            "bn_conv": True,
            "bn_dense": False,
        }
    windows = np.lib.stride_tricks.sliding_window_view(images[:64], (3, 3), axis=(1, 2))
    convolved = np.einsum("nhwcij,ijco->nhwo", windows.astype("f8"), kernel.astype("f8")) + bias
    np.testing.assert_allclose(moments["bn_conv"].mean, convolved.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(moments["bn_conv"].variance, convolved.var((0, 1, 2)), rtol=1e-4)
    assert moments["bn_conv"].count == 64 * 4 * 4
    again = engine.batch_moments({"images": images[:64]})
    for name in NORMS:
        np.testing.assert_array_equal(moments[name].variance, again[name].variance)


@pytest.mark.parametrize(
    ("stem", "sentence"),
    [
        ("saved_model_keras3_export", "an export of Keras 3 stores each variable twice"),
        ("saved_model_tf1_hub", "it has no signature serving_default"),
    ],
)
def test_what_is_not_run(stem: str, sentence: str, data: Any, run: Run, tmp_path: Path) -> None:
    options = ("--data", data[0], "--layer", "*", "--force", "-o", tmp_path / "copy")
    outcome = run("recalibrate", FIXTURES / stem, *options)
    assert outcome.exit_code == 2
    assert sentence in outcome.err
    assert not any(tmp_path.iterdir())


def take_nowhere(function: Any) -> None:
    function.node_def[-1].input[0] = "nowhere:output:0"


def take_no_type(function: Any) -> None:
    function.signature.input_arg[0].type = 0


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [(take_nowhere, "the graph is damaged"), (take_no_type, "cannot import the graph")],
)
def test_a_damaged_function_is_a_sentence(
    damage: Any, sentence: str, data: Any, run: Run, tmp_path: Path
) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = shutil.copytree(STUCK, tmp_path / "model")
    message = SavedModel.FromString((model / "saved_model.pb").read_bytes())
    for function in message.meta_graphs[0].graph_def.library.function:
        damage(function)
    (model / "saved_model.pb").write_bytes(message.SerializeToString())
    arguments = ("--data", data[0], "--labels", "labels", "-o", tmp_path / "copy")
    outcome = run("recalibrate", model, *arguments)
    assert outcome.exit_code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1
    assert [*tmp_path.iterdir()] == [model]
