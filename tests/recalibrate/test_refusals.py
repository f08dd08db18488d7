"""Who is refused: by what a file says, before any framework is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from bninspect.errors import RecalibrationRefused
from bninspect.model.layer import BNLayer, ModeProof
from bninspect.model.recalibration import RecalibratedLayer
from bninspect.model.report import CheckpointReport
from bninspect.model.rule import RuleContext, no_graph
from bninspect.recalibrate import refusals
from bninspect.recalibrate.quality import Comparison
from bninspect.rules import RULES, apply_rules
from bninspect.rules.recalibration_offer import INCURABLE_CAUSES
from tests.conftest import FIXTURES, Run, load_fixture, unmeasured_environment
from tests.support.layers_in_memory import bn

# fixture → what the refusal says, whatever is forced
NEVER = {
    "keras2_training_false": "training called it in inference mode",
    "tf1_graph_training_false": "training called it in inference mode",
    "keras2_history_frozen": "it is frozen",
    "tf1_graph_layer_frozen": "it is frozen",
    "keras1_batch_statistics": "inference does not use its statistics",
    "keras315_zip_loop_in_inference_mode": "so training ran in inference mode",
    "keras2_weights_loop_in_inference_mode": "so training ran in inference mode",
    "tf1_graph_mode_fed_false": "so training ran in inference mode",
    "keras315_zip_renorm": "renormalization, zero-debias or accumulators",
    "tf1_layers_renorm": "renormalization, zero-debias or accumulators",
    "slim_zero_debias": "renormalization, zero-debias or accumulators",
    "tf1_handwritten_zero_debias": "renormalization, zero-debias or accumulators",
    "compare_gan_scheme_unfilled": "accumulators are filled by code of its own",
    "tf1_graph_trained_statistics": "keep the optimizer from it and train again (`bninspect rule",
    "slim_trainable_only_saver": "moving_mean and moving_variance is not stored",
}
# Nothing in these proves the mode of training.
UNPROVED = (
    "keras3_momentum_one",
    "keras3_custom_loop_stuck",
    "keras3_zip_custom_loop_stuck",
    "keras3_zip_statistics_zeroed",
    "tf1_graph_placeholder_false",
    "saved_model_tf1_stuck",
)
INSTEAD = {
    "tf1_v1_update_ops_forgotten": "save it again by tf.train.Saver in format V2",
    "keras3_ckpt_stuck": "build the model, restore the checkpoint",
    "keras315_weights_own_class_stuck": "build the model, load the weights",
    "keras2_weights_short_stuck": "build the model, load the weights",
}


def recalibrate(run: Run, stem: str, *options: str) -> tuple[int, str]:
    arguments = ("--data", "none.npz", "--dry-run", *options)
    outcome = run("recalibrate", load_fixture(stem).path, *arguments)
    assert "Traceback" not in outcome.err
    return outcome.exit_code, outcome.out + outcome.err


@pytest.mark.parametrize("options", [(), ("--labels", "y"), ("--force",)], ids=" ".join)
@pytest.mark.parametrize("stem", NEVER)
def test_these_are_refused_whatever_is_given(stem: str, options: tuple[str, ...], run: Run) -> None:
    code, text = recalibrate(run, stem, "--layer", "*", *options)
    assert code == 2
    assert text.startswith("REFUSED")
    assert NEVER[stem] in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("stem", UNPROVED)
def test_without_proof_labels_are_asked_for(stem: str, run: Run) -> None:
    code, text = recalibrate(run, stem)
    assert code == 2
    assert "Nothing stored proves that training used batch statistics" in text


@pytest.mark.parametrize("stem", INSTEAD)
def test_a_file_without_a_model_says_what_to_give_instead(stem: str, run: Run) -> None:
    code, text = recalibrate(run, stem, "--force")
    assert code == 2
    assert INSTEAD[stem] in text


@pytest.mark.parametrize("stem", ["tf1_layers_correct", "keras3_functional_correct"])
def test_healthy_layers_are_not_touched(stem: str, run: Run) -> None:
    code, text = recalibrate(run, stem)
    assert code == 2
    assert "none of which is stuck" in text


def test_no_layer_is_a_sentence(run: Run) -> None:
    assert "There is no BN layer in it" in recalibrate(run, "tf1_lookalikes")[1]


def test_a_layer_that_is_not_there_is_a_sentence(run: Run) -> None:
    code, text = recalibrate(run, "keras3_functional_correct", "--layer", "bn9")
    assert code == 2
    assert "no BN layer 'bn9'" in text


def test_an_unreadable_file_is_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"nothing")
    outcome = run("recalibrate", tmp_path / "model.keras", "--data", "x.npz", "--dry-run")
    assert outcome.exit_code == 2
    assert "Traceback" not in outcome.err


def test_a_copy_needs_a_name(run: Run) -> None:
    outcome = run("recalibrate", load_fixture("keras3_momentum_one").path, "--data", "x.npz")
    assert outcome.exit_code == 2
    assert "-o FIXED" in outcome.err


def test_a_report_needs_a_directory(run: Run, tmp_path: Path) -> None:
    path = load_fixture("keras3_momentum_one").path
    report = f"json={tmp_path}/missing/report.json"
    outcome = run(
        "recalibrate", path, "--data", "x.npz", "-o", tmp_path / "a.h5", "--format", report
    )
    assert outcome.exit_code == 2
    assert "missing/report.json: No such file or directory." in outcome.err
    assert not any(tmp_path.iterdir())


@pytest.mark.processes
def test_a_refusal_imports_no_framework() -> None:
    program = (
        "import sys, bninspect.__main__\n"
        "try:\n    bninspect.__main__.main()\n"
        "except SystemExit as leaving:\n    assert leaving.code == 2, leaving.code\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    model = FIXTURES / "keras315_zip_loop_in_inference_mode" / "model.keras"
    arguments = ("recalibrate", model, "--data", "none.npz", "--dry-run")
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=unmeasured_environment(),
    )
    assert "REFUSED" in done.stdout
    assert not {"tensorflow", "keras", "tf_keras", "jax"} & set(done.stderr.split())


def scores(training: float, before: float, after: float | None = None) -> Comparison:
    def right(share: float) -> np.ndarray:
        return (np.arange(1000) < share * 1000).astype("f8")

    return Comparison(
        "accuracy", right(training), right(before), None if after is None else right(after)
    )


def test_labels_decide_where_nothing_is_proved() -> None:
    assert "on the labels" in refusals.require_proof(None, scores(0.9, 0.3), force=False)
    with pytest.raises(RecalibrationRefused, match="the labels do not decide it"):
        refusals.require_proof(None, scores(0.9, 0.9), force=False)
    assert "forced" in refusals.require_proof(None, scores(0.9, 0.9), force=True)
    with pytest.raises(RecalibrationRefused, match="as one that was trained in inference mode"):
        refusals.require_proof("proof", scores(0.3, 0.9), force=True)


def test_a_model_that_would_be_worse_is_refused() -> None:
    refusals.require_better(scores(0.9, 0.3, 0.8))
    with pytest.raises(RecalibrationRefused, match=r"accuracy 20.0%.*accuracy 30.0%"):
        refusals.require_better(scores(0.9, 0.3, 0.2))


def layer(mean_error: float = 0.01, variance_error: float = 0.01) -> RecalibratedLayer:
    zeros, ones = np.zeros(3), np.ones(3)
    return RecalibratedLayer("bn", zeros, ones, zeros, ones, mean_error, variance_error)


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ((0.1, 0.01), "a mean is known to 0.1 deviations only"),
        ((0.01, 0.2), "a variance is known to 20.00% only"),
        ((0.1, 0.01), "about 500 shuffled samples would do"),
    ],
)
def test_estimates_must_be_precise(errors: tuple[float, float], words: str) -> None:
    refusals.require_precise([layer()], 100, {"bn": 100})
    with pytest.raises(RecalibrationRefused, match=words):
        refusals.require_precise([layer(), layer(*errors)], 100, {"bn": 100})


def test_a_layer_that_was_not_run_is_refused() -> None:
    with pytest.raises(RecalibrationRefused, match="was not run"):
        refusals.require_precise([layer()], 100, {"bn": 0})


MOVED = {"moving_mean": [0.1, 0.2, 0.3], "moving_variance": [2.0, 3.0, 4.0]}


def in_memory(
    name: str,
    moving_mean: Sequence[float] = (0.0, 0.0, 0.0),
    moving_variance: Sequence[float] = (1.0, 1.0, 1.0),
    dtype: str = "float32",
) -> BNLayer:
    """A trained layer, stuck unless its statistics say otherwise."""
    gamma, beta = [1.1, 0.9, 1.2], [0.1, -0.2, 0.3]
    return bn([*moving_mean], [*moving_variance], gamma, beta, name=name, step=100, dtype=dtype)


def proved(mode: Literal["batch", "inference"], *names: str) -> refusals.Evidence:
    """Evidence of one mode for the layers of these names, and of none for others."""
    return refusals.Evidence(
        lambda layer: ModeProof(mode, "the bias says so") if layer.name in names else None,
        no_graph,
    )


def report_on(*layers: BNLayer) -> CheckpointReport:
    findings = apply_rules(layers, RULES, RuleContext(step=100))
    return CheckpointReport("model", layers=layers, findings=findings)


def test_inference_mode_is_refused_whatever_the_cause() -> None:
    """As where the momentum is 1, with which batch mode would leave the statistics, too."""
    report = report_on(replace(in_memory("bn"), momentum=1.0))
    assert {finding.cause for finding in report.findings} == {"momentum-one"}
    refusals.require_curable(report.layers, report.findings, proved("batch", "bn"))
    with pytest.raises(RecalibrationRefused, match="the bias says so"):
        refusals.require_curable(report.layers, report.findings, proved("inference", "bn"))


def test_one_stuck_layer_proves_the_mode_for_all() -> None:
    report = report_on(in_memory("one"), in_memory("two"))
    chosen = refusals.choose(report, set())
    assert [layer.name for layer in chosen] == ["one", "two"]
    proof = refusals.proof_of_batch_mode(chosen, report, proved("batch", "two"))
    assert proof == "two: the bias says so"
    assert refusals.proof_of_batch_mode(chosen, report, proved("batch")) is None


def test_where_training_updated_others_each_layer_proves_its_own_mode() -> None:
    report = report_on(in_memory("one"), in_memory("two"), in_memory("moved", **MOVED))
    chosen = refusals.choose(report, set())
    assert [layer.name for layer in chosen] == ["one", "two"]
    assert refusals.proof_of_batch_mode(chosen, report, proved("batch", "two")) is None
    assert refusals.proof_of_batch_mode(chosen, report, proved("batch", "one", "two"))


def test_a_half_stuck_layer_was_updated_in_training_mode() -> None:
    report = report_on(in_memory("bn", moving_mean=MOVED["moving_mean"]))
    chosen = refusals.choose(report, set())
    proof = refusals.proof_of_batch_mode(chosen, report, proved("batch"))
    assert proof == "statistics of bn moved, which they do in training mode alone"


@pytest.mark.parametrize("cause", sorted(INCURABLE_CAUSES))
def test_where_nothing_is_offered_it_is_refused(cause: str) -> None:
    stuck = in_memory("bn")
    finding = report_on(stuck).findings[0]._replace(cause=cause)
    with pytest.raises(RecalibrationRefused, match="cannot be cured"):
        refusals.require_curable([stuck], [finding], proved("batch"))


def test_float16_has_an_end() -> None:
    big = layer()._replace(variance=np.full(3, 7e4))
    refusals.require_storable([in_memory("bn")], [big])
    with pytest.raises(RecalibrationRefused, match="float16, which ends at 65504"):
        refusals.require_storable([in_memory("bn", dtype="float16")], [big])
