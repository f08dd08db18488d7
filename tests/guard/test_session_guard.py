"""The guard for TF1, by hook and in a loop: quiet if all is well, and clear if not."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.support.documents import blocks

pytestmark = [pytest.mark.framework, pytest.mark.xdist_group("guarded_tf1")]

HEALTHY = {
    "healthy",
    "healthy_in_a_loop",
    "healthy_slim",
    "healthy_keras_layers",
    "a_graph_that_grows",
    "updates_fetched_by_hand",
    "a_slow_decay",
    "a_frozen_backbone",
    "fine_tuned_in_inference_mode",
    "a_network_that_is_not_trained",
}
NOT_RUN = ("update-ops-not-run", "but `Adam` does not depend on them")
# training → (moment, rule, cause, what the warning says besides)
BROKEN = {
    "update_ops_forgotten": ("step 5", "BN101", *NOT_RUN),
    "update_ops_forgotten_in_a_loop": ("step 5", "BN101", *NOT_RUN),
    "update_ops_forgotten_stopped": ("training is stopped at step 5", "BN101", *NOT_RUN),
    "update_ops_forgotten_stopped_in_a_loop": ("training is stopped at step 5", "BN101", *NOT_RUN),
    "slim_without_create_train_op": (
        "step 5",
        "BN101",
        "update-ops-not-run",
        "slim.learning.create_train_op",
    ),
    "keras_updates_forgotten": (
        "step 5",
        "BN101",
        "update-ops-not-run",
        "tf.get_collection(UPDATE_OPS) does not hold these update ops",
    ),
    "built_with_training_false": (
        "step 5",
        "BN101",
        "built-with-training-false",
        "no node of the graph updates",
    ),
    "momentum_of_one": ("step 5", "BN101", "momentum-one", "the graph has momentum 1"),
    "a_placeholder_fed_false": (
        "step 5",
        "BN101",
        None,
        "the placeholder `mode` can switch them off; what it was fed is not in the graph",
    ),
    "fetched_by_hand_and_then_left_out": (
        "step 10",
        "BN107",
        None,
        "the statistics moved from step 0 to step 5: something ran the updates then",
    ),
    "diverged": ("step 5", "BN301", None, "NaN or infinity: gamma in 4 of 4 channels"),
    "names_of_ones_own_forgotten": ("step 5", "BN101", "update-ops-not-run", "those of `mu`"),
}


EVERY = 5  # as in tests/trainings/guarded_tf1.py
OTHERS = {"no_bn_layer", "two_trainings_with_one_guard"}


@functools.cache
def in_another_process() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.trainings.guarded_tf1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def outcomes() -> dict[str, dict]:
    done = in_another_process()
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_training_has_an_expectation() -> None:
    assert outcomes().keys() == HEALTHY | BROKEN.keys() | OTHERS


@pytest.mark.parametrize("name", sorted(HEALTHY))
def test_a_healthy_training_is_not_warned_of(name: str) -> None:
    told = outcomes()[name]
    assert told["warnings"] == []
    assert told["layers"]
    assert told["steps"] == 12
    assert {severity for _, _, severity, _ in told["findings"]} <= {"note"}


def test_inference_mode_on_purpose_is_a_note() -> None:
    assert outcomes()["fine_tuned_in_inference_mode"]["findings"] == [
        ["batch_normalization", "BN107", "note", "built-with-training-false"]
    ]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_training_is_warned_of_once(name: str) -> None:
    told, (moment, code, cause, phrase) = outcomes()[name], BROKEN[name]
    (warning,) = told["warnings"]
    said = " ".join(warning.split())
    assert said.startswith(f"{moment}: 1 of 1 BN layer: ")
    assert f"({code})" in said.partition(" - ")[0]
    assert phrase in said
    assert [(rule, severity, why) for _, rule, severity, why in told["findings"]] == [
        (code, "error", cause)
    ]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("update_ops_forgotten", 12),
        ("update_ops_forgotten_stopped", 5),  # the global step is 5 after five of them
        ("update_ops_forgotten_stopped_in_a_loop", 6),  # which counts its steps from 0
    ],
)
def test_an_error_stops_the_training_if_it_is_to(name: str, steps: int) -> None:
    assert outcomes()[name]["steps"] == steps


def test_the_condition_that_the_graph_shows_is_likely() -> None:
    assert outcomes()["a_placeholder_fed_false"]["suspects"] == [["updates-switched-off"]]


def test_the_warning_is_at_the_line_of_the_loop() -> None:
    assert outcomes()["update_ops_forgotten_in_a_loop"]["files"] == ["guarded_tf1.py"]


def test_what_is_not_found_is_said() -> None:
    told = outcomes()["no_bn_layer"]
    assert told["layers"] == told["findings"] == []
    (warning,) = told["warnings"]
    assert warning.startswith("nothing is judged: no BN layer is among 9 variables (dense/kernel")


def test_the_warning_of_the_guide_is_one() -> None:
    (shown,) = [block.text for block in blocks(ROOT / "docs" / "guard.md", "text")]
    (warning,) = outcomes()["update_ops_forgotten_in_a_loop"]["warnings"]
    said = f"BatchNormWarning: {warning}\n".replace(f"step {EVERY}:", "step 50:")
    assert said.startswith(shown)


def test_another_graph_is_another_training() -> None:
    told = outcomes()["two_trainings_with_one_guard"]
    assert len(told["warnings"]) == 2
    assert told["warnings"][0] == told["warnings"][1]


def test_nothing_is_called_stored_in_a_live_graph() -> None:
    said = " ".join(" ".join(told["warnings"]) for told in outcomes().values())
    assert "update-ops-not-run" in said
    for words in ("stored", "this file", "beside it"):
        assert words not in said


class Recorder:
    """A session that notes the names of what it fetches."""

    def __init__(self, session) -> None:
        self.session, self.graph, self.fetched = session, session.graph, []

    def run(self, fetches):
        self.fetched.append(sorted(fetches))
        return self.session.run(fetches)


def test_variables_of_bn_alone_are_read_in_one_run_when_it_is_due() -> None:
    import tensorflow as tf

    from bninspect.tf1 import BatchNormGuard

    names = [f"bn/{role}" for role in ("beta", "gamma", "moving_mean", "moving_variance")]
    guard = BatchNormGuard(every_n_steps=10)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name in ("dense/kernel", *names):
            tf.compat.v1.get_variable(name, (3,), initializer=tf.constant_initializer(2.0))
        session.run(tf.compat.v1.global_variables_initializer())
        session.graph.finalize()
        recorder = Recorder(session)
        for step in range(25):
            guard.check(recorder, step)
    assert recorder.fetched == [names] * 3


@pytest.mark.parametrize("options", [{"every_n_steps": 0}, {"action": "raise"}], ids=str)
def test_wrong_options(options) -> None:
    from bninspect import UsageProblem
    from bninspect.tf1 import BatchNormGuard

    with pytest.raises(UsageProblem):
        BatchNormGuard(**options)


def test_what_is_no_session_is_refused() -> None:
    import tensorflow as tf

    from bninspect import UsageProblem
    from bninspect.tf1 import BatchNormGuard

    with pytest.raises(UsageProblem, match="expected a session of TF1, got str"):
        BatchNormGuard().check("session", 1)
    with tf.Graph().as_default(), pytest.raises(UsageProblem, match="get_or_create_global_step"):
        BatchNormGuard().begin()
    assert isinstance(BatchNormGuard(), tf.compat.v1.train.SessionRunHook)
