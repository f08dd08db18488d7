"""The fix of a finding offers `recalibrate` where it cures and can write, and only there."""

from __future__ import annotations

import pytest

from tests.conftest import FIXTURES, Run, load_fixture

OFFER = "by `bninspect recalibrate`"


@pytest.mark.parametrize(
    "stem",
    [
        "keras315_h5_updates_dropped",  # a whole model, trained with batch statistics
        "saved_model_keras2_recalibrate",
        "tf1_graph_update_ops_forgotten",  # with its graph
    ],
)
def test_it_is_offered_where_it_cures(stem: str, run: Run) -> None:
    for finding in findings(stem, run):
        assert OFFER in finding["fix"]


@pytest.mark.parametrize(
    "stem",
    [
        "tf1_layers_update_ops_forgotten",  # without a graph to run
        "keras3_ckpt_stuck",  # objects without a model
        "keras2_weights_short_stuck",  # weights alone
        "tf1_v1_update_ops_forgotten",  # V1
        "keras315_zip_loop_in_inference_mode",  # re-estimated averages would ruin it
        "keras2_training_false",
        "tf1_graph_layer_frozen",
    ],
)
def test_it_is_not_offered_elsewhere(stem: str, run: Run) -> None:
    for finding in findings(stem, run):
        assert OFFER not in finding["fix"]


@pytest.mark.parametrize(
    "stem",
    [
        "tf1_graph_training_false",
        "tf1_graph_two_networks",
        "keras315_zip_loop_in_inference_mode",
    ],
)
def test_it_is_advised_against_where_it_would_ruin_the_model(stem: str, run: Run) -> None:
    for finding in findings(stem, run):
        assert "Do not re-estimate the averages" in finding["fix"]
        assert "or only re-estimate" not in finding["fix"]


def test_cold_statistics_are_offered_by_the_name_of_the_layer(run: Run) -> None:
    for finding in findings("keras2_too_few_steps", run):
        assert "by `bninspect recalibrate --layer NAME`" in finding["fix"]


def findings(stem: str, run: Run) -> list[dict[str, str]]:
    fixture = load_fixture(stem)
    (checkpoint,) = run("check", fixture.path, "--format", "json").json["checkpoints"]
    found: list[dict[str, str]] = checkpoint["findings"]
    assert found, FIXTURES / stem
    return found
