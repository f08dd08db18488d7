"""Layers by structure in graphs of real libraries, in every form, and in what only looks alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bninspect
from bninspect.evidence.structure.layers import layers_by_structure
from bninspect.formats.tensorflow.graph_def import read_graphs
from bninspect.model.layer import BNLayer
from tests.conftest import ROOT

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Path, list[dict[str, str]]]]:
    """Write all graphs by TensorFlow; return the prefix and the expected layers of each by name."""
    folder = tmp_path_factory.mktemp("graphs")
    subprocess.run(
        [sys.executable, "-m", "tests.trainings.tf1_graphs", str(folder)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    expected: list[dict[str, Any]] = json.loads((folder / "expected.json").read_text("utf-8"))
    return {
        one["name"]: (folder / str(number) / "model.ckpt", one["layers"])
        for number, one in enumerate(expected)
    }


def found_in(prefix: Path) -> list[BNLayer]:
    with bninspect.open_checkpoint(prefix) as checkpoint:
        return layers_by_structure(checkpoint, read_graphs(f"{prefix}.meta"))


def members(layer: BNLayer) -> dict[str, str]:
    return {role: variable.name for role, variable in layer.variables.items()}


def test_each_form_is_found_with_its_variables_and_nothing_else_is(written) -> None:
    wrong = {}
    for name, (prefix, expected) in written.items():
        found = [members(layer) for layer in found_in(prefix)]
        if sorted(map(sorted_items, found)) != sorted(map(sorted_items, expected)):
            wrong[name] = found
    assert not wrong
    kinds = [bool(expected) for _, expected in written.values()]
    assert kinds.count(True) > 40
    assert kinds.count(False) > 12


def sorted_items(some: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(some.items())


EPSILON_AND_MOMENTUM = {
    "tf.layers {'training': True}": (0.001, 0.99),
    "tf.layers {'training': 'mode', 'fused': False}": (0.001, 0.99),
    "slim fused=True": (0.001, 0.999),
    "gamma_first_then_division": (1e-5, 0.9),
    "power_of_minus_a_half": (1e-5, 0.9),
    "epsilon_outside_of_the_root": (None, 0.9),
    "fused_kernel": (0.001, 0.9),
    "inference_only": (1e-5, None),
    "zero_debias": (0.001, None),
}


@pytest.mark.parametrize("name", EPSILON_AND_MOMENTUM)
def test_epsilon_and_momentum_are_those_of_the_graph(written, name: str) -> None:
    (layer,) = found_in(written[name][0])
    assert (layer.epsilon, layer.momentum) == EPSILON_AND_MOMENTUM[name]


def test_gamma_may_be_the_distance_from_one(written) -> None:
    (layer,) = found_in(written["gamma_as_distance_from_one"][0])
    assert layer.gamma_offset == 1.0
    (layer,) = found_in(written["inverse_root"][0])
    assert layer.gamma_offset == 0.0


def test_partitions_that_are_stored_one_by_one_are_joined(written) -> None:
    (layer,) = found_in(written["partitions_saved_one_by_one"][0])
    assert layer.variables["gamma"].shape == (4,)
    with bninspect.open_checkpoint(written["partitions_saved_one_by_one"][0]) as checkpoint:
        parts = [checkpoint.variables[f"p/gamma/part_{n}"].read() for n in (0, 1)]
        (layer,) = layers_by_structure(checkpoint, read_graphs(f"{checkpoint.resolved}.meta"))
        assert layer.variables["gamma"].read().tolist() == [*parts[0], *parts[1]]


def test_initial_values_are_those_of_the_graph(written) -> None:
    (layer,) = found_in(written["division_first"][0])
    assert layer.initial == {
        "moving_mean": (0.0,),
        "moving_variance": (1.0,),
        "gamma": (1.0,),
        "beta": (0.0,),
    }
    (layer,) = found_in(written["averages_of_moments"][0])
    assert layer.initial["moving_variance"] == (0.0,)


def test_layers_are_called_what_their_variables_have_in_common(written) -> None:
    def names(name: str) -> list[str]:
        return [layer.name for layer in found_in(written[name][0])]

    assert names("division_first") == ["layer1"]
    assert names("saved_under_other_names") == ["renamed/batch_normalization"]
    assert names("target_network") == ["main/bn", "target/bn"]
    assert names("one_function_for_two_layers") == ["a", "b"]
    assert names("two_layers_in_one_scope") == ["net/one", "net/two"]


def test_a_layer_of_which_nothing_is_stored_is_none_of_the_checkpoint(written) -> None:
    prefix = written["division_first"][0]
    graphs = read_graphs(f"{prefix}.meta")
    with bninspect.open_checkpoint(prefix) as checkpoint:
        kept = {k: v for k, v in checkpoint.variables.items() if not k.startswith("layer1/")}
        assert layers_by_structure(replace(checkpoint, variables=kept), graphs) == []
        weights = kept | {"layer1/g": checkpoint.variables["layer1/g"]}
        (layer,) = layers_by_structure(replace(checkpoint, variables=weights), graphs)
    assert members(layer) == {"gamma": "layer1/g"}
    assert layer.graph_names["moving_mean"] == "layer1/mean"
