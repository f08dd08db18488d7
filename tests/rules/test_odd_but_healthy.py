"""Trainings that look odd and are healthy: no finding, no cause, whatever their graphs look like.

Each is a fixture of a real training, named here with what is odd about it. Beside them stand their
broken twins, whose cause is what their files prove, or none.
"""

from __future__ import annotations

from typing import Any

import pytest

from bninspect.model.roles import STATISTICS
from tests.conftest import FIXTURES, Run, load_fixture

ODD = {
    "update ops fetched by hand in session.run": "tf1_graph_run_by_hand",
    "updates_collections=None: updates in place": "slim_graph_in_place",
    "tf.group(minimize, *update_ops)": "tf1_graph_group",
    "a tf.no_op that waits for all": "tf1_graph_no_op",
    "slim's train op": "slim_graph_correct",
    "tf_slim on TensorFlow 2": "tfslim_graph_correct",
    "tf.estimator.Estimator": "tf1_graph_estimator",
    "MirroredStrategy of TensorFlow 1": "tf1_graph_mirrored",
    "MirroredStrategy of Keras 2, a shared layer": "keras2_ckpt_mirrored",
    "SyncBatchNormalization of Keras 2": "keras2_ckpt_synchronized",
    "averages over all variables, shadows stored": "tf1_layers_ema_shadows",
    "averages restored into the variables": "tf1_graph_ema_restored",
    "a graph of the evaluation": "tf1_graph_inference_only",
    "training=False that Keras 3's fit overrides": "keras3_zip_training_false_overridden",
    "a LossScaleOptimizer whose own count stays 0": "keras3_ckpt_loss_scale",
    "the same in a .keras file": "keras3_zip_mixed_float16",
    "accumulated gradients in Keras 3, AdamW": "keras3_zip_accumulation",
    "accumulated gradients in TensorFlow 1": "tf1_graph_accumulation",
    "an optimizer that few know": "tf1_graph_addsign",
    "descent written by hand": "tf1_graph_handwritten_sgd",
    "gamma starts at 0": "tf1_graph_gamma_zero",
    "training inside a tf.cond": "tf1_graph_cond_training",
    "training inside a tf.cond of the newer kind": "tf1_graph_cond_training_v2",
    "updates inside a tf.cond": "tf1_graph_cond_v1_correct",
    "updates inside a tf.cond of the newer kind": "tf1_graph_cond_v2_correct",
    "BN inside a Defun": "tf1_graph_function",
    "BN inside a tf.while_loop": "tf1_graph_while_in_place",
    "BN in the cell of a MultiRNNCell": "tf1_graph_rnn",
    "a placeholder for the mode, fed True": "tf1_graph_placeholder_true",
    "towers, of which the first updates": "tf1_graph_towers",
    "two optimizers in turn": "tf1_graph_gan_alternating",
    "a frozen backbone": "tf1_graph_history_finetuned",
    "a few steps on from restored statistics": "tf1_graph_history_transfer",
}
# What is stored proves that it is meant so: notes, no alarm.
MEANT = {
    "gamma starts at 0, nothing trained yet": ("tf1_graph_gamma_zero_untrained", "untrained"),
    "a backbone in inference mode, gamma and beta trained": (
        "tf1_graph_history_finetuned_affine",
        "built-with-training-false",
    ),
    "a frozen layer in Keras 2's fit": ("keras2_history_frozen", "layer-frozen"),
}
BROKEN = {
    "tf1_graph_accumulation_forgotten": "update-ops-not-run",
    "tf1_graph_adam_forgotten": "update-ops-not-run",
    "tf1_graph_cond_training_forgotten": "update-ops-not-run",
    "tf1_graph_cond_v1_forgotten": "update-ops-not-run",
    "tf1_graph_cond_v2_forgotten": "update-ops-not-run",
    "tf1_graph_estimator_forgotten": "update-ops-not-run",
    "tf1_graph_gamma_zero_forgotten": "update-ops-not-run",
    "tf1_graph_gan": "update-ops-not-run",
    "tf1_graph_mirrored_forgotten": "update-ops-not-run",
    "keras2_training_false": "built-with-training-false",
    # nothing stored proves these
    "tf1_graph_function_switched_off": None,
    "tf1_graph_handwritten_sgd_forgotten": None,
    "tf1_graph_inference_only_stuck": None,
    "tf1_graph_placeholder_false": None,
    # No graph tells these two apart: in the second the updates were fetched by hand, switched off.
    "tf1_graph_placeholder_forgotten": None,
    "tf1_graph_placeholder_fetched_false": None,
}


def findings(run: Run, stem: str, *options: str) -> list[dict[str, Any]]:
    """What the program finds in a fixture, which has no errors; with its history if it has one."""
    fixture = load_fixture(stem)
    history = "since" in fixture.expected
    place = FIXTURES / stem if history else fixture.path
    outcome = run(
        "check", place, "--format", "json", *options, *(["--all-checkpoints"] if history else [])
    )
    assert outcome.exit_code == 0
    checkpoints = outcome.json["checkpoints"]
    assert len(checkpoints) == (2 if history else 1)
    assert not [one["error"] for one in checkpoints if one["error"]]
    return [finding for one in checkpoints for finding in one["findings"]]


@pytest.mark.parametrize("stem", ODD.values(), ids=ODD)
def test_odd_trainings_are_clean(stem: str, run: Run) -> None:
    layers = load_fixture(stem).expected["layers"]
    assert layers
    assert layers
    assert all(layer["at_initial"][role] == 0 for layer in layers for role in STATISTICS)
    assert findings(run, stem) == []


@pytest.mark.parametrize(
    "stem",
    [
        "tf1_graph_correct",  # the graph has the momentum
        "tf1_graph_run_by_hand",  # the step counts no update
        "tf1_graph_history_finetuned",  # the graph has no update of the layer
        "tf1_graph_history_finetuned_affine",
        "tf1_graph_update_ops_forgotten",
    ],
)
def test_no_note_asks_for_what_the_graph_tells(stem: str, run: Run) -> None:
    """BN106 is judged by the graph's momentum, or cannot be judged by any."""
    outcome = run("check", load_fixture(stem).path, "--format", "json")
    assert not [note for note in outcome.json["checkpoints"][0]["notes"] if "not judged" in note]


@pytest.mark.parametrize(("stem", "cause"), MEANT.values(), ids=MEANT)
def test_what_is_meant_is_a_note(stem: str, cause: str, run: Run) -> None:
    found = findings(run, stem)
    assert found
    assert {(finding["severity"], finding["cause"]) for finding in found} == {("note", cause)}


@pytest.mark.parametrize(("stem", "cause"), BROKEN.items(), ids=BROKEN)
def test_broken_twins_have_the_cause_that_is_proved(stem: str, cause: str | None, run: Run) -> None:
    outcome = run("check", load_fixture(stem).path, "--format", "json")
    assert outcome.exit_code == 1
    (checkpoint,) = outcome.json["checkpoints"]
    assert checkpoint["findings"]
    assert {(one["rule"], one["cause"]) for one in checkpoint["findings"]} == {("BN101", cause)}
