"""Whole models of Keras, cured by the command: accuracy after it is that of the twin."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT, Run, parsed
from tests.trainings import recalibrated

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.xdist_group("recalibrate-keras")]

CASES = [
    ("keras", "cnn", ".keras"),
    ("keras", "mlp", ".h5"),
    ("keras", "resnet", ".keras"),
    ("tf_keras", "nested", ".h5"),
    ("tf_keras", "nested", ".keras"),
]


def require_cured(result: dict[str, Any]) -> None:
    assert result["stuck"] < result["twin"] - 0.3
    assert result["code"] == 0
    assert result["after"] >= result["twin"] - 0.01
    said = parsed(json.dumps(result["said"]))
    assert said["cured"]
    assert said["samples"] == recalibrated.SAMPLES
    quality, outputs = said["quality"], said["outputs"]
    assert quality["after"] >= quality["training"] - 0.01 > quality["before"] + 0.3
    assert outputs["same_after"] > 0.95 > outputs["same_before"] + 0.3
    assert outputs["apart_after"] < outputs["apart_before"] / 5


@pytest.mark.parametrize(("module", "name", "end"), CASES)
def test_a_stuck_model_is_cured(module: str, name: str, end: str, tmp_path: Path) -> None:
    keras = importlib.import_module(module)
    result = recalibrated.twins(keras, tmp_path, name, end)
    require_cured(result | recalibrated.cure(keras, tmp_path, name, end))


@pytest.mark.processes
def test_a_stuck_model_is_cured_on_jax(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainings.recalibrated", "keras", tmp_path, ".keras", "cnn"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)["cnn"]
    assert "jax" in result["said"]["framework"]
    require_cured(result)


@pytest.fixture(scope="module", params=recalibrated.OPTIMIZERS)
def trained_in_inference_mode(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    keras = importlib.import_module("keras")
    directory = tmp_path_factory.mktemp(request.param)
    model = recalibrated.train_in_inference_mode(keras, request.param)
    x, y = recalibrated.mild_images(2)
    outputs = np.asarray(model.predict(x, verbose=0))
    assert (outputs.argmax(axis=-1) == y).mean() > 0.6  # it learned something
    model.save(directory / "model.h5")
    np.savez(directory / "samples.npz", x=x, y=y)
    return directory


@pytest.mark.parametrize("options", [(), ("--labels", "y"), ("--force",)], ids=" ".join)
def test_a_model_trained_in_inference_mode_is_refused(
    trained_in_inference_mode: Path, options: tuple[str, ...], run: Run
) -> None:
    directory = trained_in_inference_mode
    fixed = directory / "fixed.h5"
    data = ("--data", directory / "samples.npz")
    outcome = run("recalibrate", directory / "model.h5", *data, "-o", fixed, *options)
    assert outcome.exit_code == 2
    assert outcome.out.startswith("REFUSED")
    assert outcome.out.count("\n") == 1
    assert "in inference mode" in outcome.out
    assert "would ruin it" in outcome.out
    assert not fixed.exists()


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a stuck `mlp.keras` and its samples; nothing in it proves batch mode."""
    directory = tmp_path_factory.mktemp("stuck")
    recalibrated.twins(importlib.import_module("keras"), directory, "mlp", ".keras")
    return directory


@pytest.fixture
def recalibrate(stuck: Path, run: Run) -> Callable[..., Any]:
    def call(*options: object) -> Any:
        return run("recalibrate", stuck / "mlp.keras", "--data", stuck / "mlp.npz", *options)

    return call


def test_without_proof_and_labels_it_is_refused(recalibrate: Callable[..., Any]) -> None:
    outcome = recalibrate("--feed", "input_layer=x", "--dry-run")
    assert outcome.exit_code == 2
    assert "Nothing stored proves" in outcome.out
    assert "--labels KEY" in outcome.out


def test_labels_prove_it(recalibrate: Callable[..., Any]) -> None:
    outcome = recalibrate("--labels", "y", "--dry-run")
    assert outcome.exit_code == 0
    assert outcome.out.startswith("CURABLE")
    assert "on the labels the model is better" in outcome.said
    assert "accuracy" in outcome.said


def test_force_stands_in_for_a_proof(recalibrate: Callable[..., Any], stuck: Path) -> None:
    x = np.load(stuck / "mlp.npz")["x"]
    np.save(stuck / "x.npy", x)
    outcome = recalibrate("--data", stuck / "x.npy", "--force", "--dry-run")
    assert outcome.exit_code == 0
    assert "forced by the user" in outcome.said


def test_wrong_labels_are_refused_even_with_force(
    recalibrate: Callable[..., Any], stuck: Path
) -> None:
    """They are right for the model as it is: predictions of its stored statistics."""
    keras = importlib.import_module("keras")
    x = np.load(stuck / "mlp.npz")["x"]
    model = keras.models.load_model(stuck / "mlp.keras", compile=False)
    y = np.asarray(model(x)).argmax(axis=-1)
    np.savez(stuck / "inference.npz", x=x, y=y)
    outcome = recalibrate("--data", stuck / "inference.npz", "--labels", "y", "--force", "-n")
    assert outcome.exit_code == 2  # there is no option -n
    data = ("--data", stuck / "inference.npz")
    outcome = recalibrate(*data, "--labels", "y", "--force", "--dry-run")
    assert outcome.exit_code == 2
    assert "was trained in inference mode" in outcome.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--samples", "40"), "fewer than two batches"),
        (("--samples", "130"), "shuffled samples would do"),
    ],
)
def test_too_few_samples_are_refused(
    recalibrate: Callable[..., Any], options: tuple[str, ...], words: str
) -> None:
    outcome = recalibrate("--labels", "y", "--dry-run", *options)
    assert outcome.exit_code == 2
    assert outcome.out.startswith("REFUSED")
    assert words in outcome.out


def test_samples_that_are_not_finite_are_refused(
    recalibrate: Callable[..., Any], stuck: Path
) -> None:
    samples = dict(np.load(stuck / "mlp.npz"))
    samples["x"][7, 3] = np.nan
    np.savez(stuck / "nan.npz", **samples)
    outcome = recalibrate("--data", stuck / "nan.npz", "--labels", "y", "--dry-run")
    assert outcome.exit_code == 2
    assert "not finite" in outcome.out


def test_an_output_that_exists_is_refused(recalibrate: Callable[..., Any], stuck: Path) -> None:
    taken = stuck / "taken.keras"
    taken.write_bytes(b"mine")
    outcome = recalibrate("--labels", "y", "-o", taken)
    assert outcome.exit_code == 2
    assert taken.read_bytes() == b"mine"


def test_a_healthy_model_is_refused(recalibrate: Callable[..., Any], stuck: Path, run: Run) -> None:
    fixed = stuck / "fixed.keras"
    assert recalibrate("--labels", "y", "-o", fixed).exit_code == 0
    data = ("--data", stuck / "mlp.npz", "--labels", "y", "--dry-run")
    outcome = run("recalibrate", fixed, *data)
    assert outcome.exit_code == 2
    assert "none of which is stuck" in outcome.out
    named = run("recalibrate", fixed, *data, "--layer", "*")
    assert named.exit_code == 2  # labels do not tell it from what it is
    forced = run("recalibrate", fixed, *data, "--layer", "*", "--force")
    assert forced.exit_code in (0, 2)


def test_it_is_said_that_the_copy_of_a_short_training_gets_bn106(
    recalibrate: Callable[..., Any], stuck: Path, tmp_path: Path, run: Run
) -> None:
    keras = importlib.import_module("keras")
    layers = [keras.layers.BatchNormalization(momentum=0.99), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(3.0, 2.0, (2048, 3)).astype("float32")
    model.fit(x, x[:, :1], verbose=0)
    recalibrated.make_stuck(model)
    model.save(tmp_path / "short.keras")
    np.save(tmp_path / "x.npy", x)
    fixed = tmp_path / "fixed.keras"
    samples = ("--data", tmp_path / "x.npy", "--force", "-o", fixed)
    assert (
        "warns of BN106 in the copy" in run("recalibrate", tmp_path / "short.keras", *samples).said
    )
    assert "BN106" in run("check", fixed).out
    assert "BN106" not in recalibrate("--labels", "y", "-o", stuck / "long_fixed.keras").out


def test_samples_may_be_in_a_directory(recalibrate: Callable[..., Any], stuck: Path) -> None:
    samples = np.load(stuck / "mlp.npz")
    (stuck / "parts").mkdir()
    for number, rows in enumerate(np.split(np.arange(2048), [700, 1500])):
        part = {key: samples[key][rows] for key in samples.files}
        np.savez(stuck / "parts" / f"{number}.npz", **part)
    data = ("--data", stuck / "parts", "--labels", "y", "--dry-run")
    assert recalibrate(*data).out == recalibrate("--labels", "y", "--dry-run").out


def test_a_pipe_gets_no_bar_and_a_terminal_does(
    recalibrate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not recalibrate("--labels", "y", "--dry-run").err
    # The stream of the moment: pytest puts another one in its place for each phase of a test.
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True, raising=False)
    monkeypatch.setattr("bninspect.cli.progress._DELAY", 0.0)
    shown = recalibrate("--labels", "y", "--dry-run").err
    assert "moments" in shown
    assert shown.endswith("\r\x1b[K\x1b[?25h")  # erased: the answer is what is read first
    assert "\n" not in shown
    assert not recalibrate("--labels", "y", "--dry-run", "--quiet").err


def test_the_model_is_never_touched(recalibrate: Callable[..., Any], stuck: Path) -> None:
    before = (stuck / "mlp.keras").read_bytes()
    recalibrate("--labels", "y", "-o", stuck / "other.keras", "--batch", "100")
    assert (stuck / "mlp.keras").read_bytes() == before


def test_code_in_a_model_is_not_run(tmp_path: Path, run: Run) -> None:
    keras = importlib.import_module("tf_keras")
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(inputs)
    model = keras.Model(inputs, keras.layers.Lambda(lambda value: value * 2)(x))
    model.get_layer(index=1).beta.assign([1.0, 2.0, 3.0, 4.0])
    model.save(tmp_path / "model.h5")
    np.save(tmp_path / "x.npy", np.ones((256, 4), "f4"))
    data = ("--data", tmp_path / "x.npy", "--force", "--dry-run")
    outcome = run("recalibrate", tmp_path / "model.h5", *data)
    assert outcome.exit_code == 2
    assert "holds code (a Lambda layer)" in outcome.err
