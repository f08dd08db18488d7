"""Commands over one fixture of each container: none may be left out of what users do with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from bninspect.frozen import NamedTuple
from tests.conftest import FIXTURES, Run, load_fixture
from tests.formats.onnx.models import model, named
from tests.formats.onnx.models import write as write_onnx
from tests.formats.tfjs.test_models import graph_model

# A fixture with findings of each container, and of each way to find its layers.
FOUND_IN = {
    "graph-def": "frozen_tf1_stuck",
    "keras-h5": "keras2_training_false",
    "keras-weights-h5": "keras315_weights_own_class_stuck",
    "keras-zip": "keras3_zip_custom_loop_stuck",
    "onnx": "onnx_pytorch_stuck",
    "onnx arithmetic": "onnx_pytorch_spelled_out_stuck",
    "saved-model": "saved_model_tf1_stuck",
    "tf-object": "keras3_ckpt_stuck",
    "tf-v2": "tf1_layers_update_ops_forgotten",
    "tfjs": "tfjs_layers_stuck",
    "tfjs arithmetic": "tfjs_graph_loop_stuck",
}


class Copy(NamedTuple):
    """A copy of a fixture in a directory: `path` is what is checked, `layer` one with a finding."""

    directory: Path
    path: Path
    layer: str
    findings: int


@pytest.fixture(params=FOUND_IN)
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Copy:
    fixture = load_fixture(FOUND_IN[request.param])
    directory = tmp_path / "model"
    shutil.copytree(FIXTURES / fixture.stem, directory)
    findings = fixture.expected["findings"]
    layer = next(one["layer"] for one in findings)
    return Copy(directory, directory / fixture.expected["checkpoint"], layer, len(findings))


def test_a_baseline_takes_its_findings(run: Run, copy: Copy, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    assert run("check", copy.path).exit_code == 1
    run("check", copy.path, "--update-baseline", "--baseline", baseline)
    outcome = run("check", copy.path, "--baseline", baseline, "--format", "json")
    assert outcome.exit_code == 0
    assert outcome.json["summary"]["baseline"]["known"] == copy.findings


def test_a_directory_and_a_pattern_find_it(run: Run, copy: Copy) -> None:
    for path in (copy.directory, copy.directory.parent / "mod*"):
        (item,) = run("check", path, "--format", "json").json["checkpoints"]
        assert item["error"] is None
        assert len(item["findings"]) == copy.findings


def test_a_layer_is_dumped(run: Run, copy: Copy) -> None:
    outcome = run("dump", copy.path, "--layer", copy.layer, "--format", "json")
    assert outcome.exit_code == 0
    assert copy.layer in outcome.out


def test_it_has_a_page(run: Run, copy: Copy, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("report", copy.path, "-o", page)
    assert copy.layer in page.read_text(encoding="utf-8")


def test_it_is_compared_with_a_copy_which_has_not_moved(run: Run, copy: Copy) -> None:
    later = copy.directory.parent / "later"
    shutil.copytree(copy.directory, later)
    outcome = run("compare", copy.path, later / copy.path.relative_to(copy.directory))
    assert outcome.exit_code == 0
    assert copy.layer in outcome.out


EMPTY = dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), np.zeros(0, "f4"))


@pytest.mark.parametrize("container", ["onnx", "tfjs", "keras-h5"])
def test_a_layer_without_channels_is_no_pass(run: Run, tmp_path: Path, container: str) -> None:
    path = tmp_path / "model"
    if container == "onnx":
        path.mkdir()
        write_onnx(path, model(named(EMPTY)))
    elif container == "tfjs":
        graph_model(path, [], {f"bn/{role}": one for role, one in EMPTY.items()})
    else:
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"bn"]
            group = file.create_group("bn")
            group.attrs["weight_names"] = [f"bn/{role}:0".encode() for role in EMPTY]
            for role, values in EMPTY.items():
                group.create_dataset(f"bn/{role}:0", data=values)
    outcome = run("check", path, "--format", "json")
    assert outcome.exit_code == 3, json.dumps(outcome.json)
    (item,) = outcome.json["checkpoints"]
    ((name, reason),) = [(group["name"], group["reason"]) for group in item["unchecked"]]
    assert name == "bn"
    assert reason == "it has no channels, so there is nothing to check"
