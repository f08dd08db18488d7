"""Suspects: what may be behind a finding whose cause nothing proves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bninspect.evidence.progress import Slots, training_evidence
from bninspect.model.checkpoint import KerasModel
from bninspect.model.graph import Condition, GraphEvidence, Update
from bninspect.model.layer import BNLayer, ModeProof, Since
from bninspect.model.report import Finding
from bninspect.model.rule import PossibleCause, RuleContext
from bninspect.reporters.json_v1 import finding_document
from bninspect.rules import CAUSES, RULES, apply_rules, suspects
from bninspect.rules.suspects import possible_causes
from bninspect.rules.suspects.catalogue import SEEN, SUSPECTS, Suspect
from tests.conftest import FIXTURES, ROOT, Outcome, load_fixture
from tests.support.layers_in_memory import bn, keras_layer, variable

Run = Callable[..., Outcome]

# What each maker did: stem → reason, or rule → reason. Causes that the files prove are not here.
SWITCHED_OFF, NOT_RUN = "updates-switched-off", "update-ops-not-run"
INFERENCE, NOT_LOADED = "trained-in-inference-mode", "statistics-not-loaded"
TRUTH: dict[str, str | dict[str, str]] = {
    "frozen_keras2_no_gamma_beta": INFERENCE,
    "frozen_keras2_optimized_stuck": INFERENCE,
    "frozen_keras2_stuck": INFERENCE,
    "frozen_tf1_merged_stuck": NOT_RUN,
    "frozen_tf1_merged_untouched": "untrained",
    "frozen_tf1_stuck": NOT_RUN,
    "keras1_model_updates_ignored": NOT_RUN,
    "keras23_model_updates_ignored": NOT_RUN,
    "keras2_ckpt_legacy_stuck": INFERENCE,
    "keras2_ckpt_stuck": INFERENCE,
    "keras2_history_finetuned_weights": "built-with-training-false",
    "keras2_statistics_trained": {"BN101": INFERENCE, "BN108": "statistics-are-trainable"},
    "keras2_zip_own_class_stuck": "own-class-without-updates",
    "keras315_h5_updates_dropped": "updates-not-kept",
    "keras315_h5_statistics_trained": "statistics-are-trainable",
    "keras315_weights_statistics_trained": "statistics-are-trainable",
    "keras315_zip_call_without_training": "call-without-training",
    "keras315_weights_own_class_stuck": "own-class-without-updates",
    "keras3_ckpt_stuck": "updates-not-kept",
    "keras3_converted": NOT_LOADED,
    "keras3_custom_loop_stuck": INFERENCE,
    "keras3_h5_not_written": "conversion-incomplete",
    "keras3_weights_statistics_zeroed": "statistics-overwritten",
    "keras3_weights_subclassed": "updates-not-kept",
    "keras3_zip_custom_loop_stuck": INFERENCE,
    "keras3_zip_statistics_zeroed": "statistics-overwritten",
    "orbax_keras_state_dropped": "updates-not-kept",
    "orbax_haiku_not_kept": "updates-not-kept",
    "orbax_haiku_stack_not_kept": "updates-not-kept",
    "orbax_linen_not_kept": "updates-not-kept",
    "orbax_linen_scanned": NOT_LOADED,
    "tfjs_layers_keras3_stuck": INFERENCE,
    "orbax_linen_zarr2": INFERENCE,
    "orbax_nnx_eval": INFERENCE,
    "saved_model_keras2_recalibrate": "statistics-reset",
    "saved_model_tf1_stuck": NOT_RUN,
    "slim_update_ops_forgotten": NOT_RUN,
    "sonnet1_update_ops_forgotten": NOT_RUN,
    "sonnet2_never_updated": INFERENCE,
    "tensorlayer2_scheme": NOT_RUN,
    "tf1_graph_default_false": SWITCHED_OFF,
    "tf1_graph_function_switched_off": SWITCHED_OFF,
    "onnx_keras2_stuck": INFERENCE,
    "onnx_pytorch_external": INFERENCE,
    "onnx_pytorch_not_affine": INFERENCE,
    "onnx_pytorch_spelled_out_stuck": "own-class-without-updates",
    "onnx_pytorch_stuck": INFERENCE,
    "onnx_tf1_layers_forgotten": NOT_RUN,
    "tf1_graph_handwritten_sgd_forgotten": NOT_RUN,
    "tf1_graph_head_trained": NOT_LOADED,
    "tf1_graph_inference_only_stuck": NOT_RUN,
    "tf1_graph_one_pass_variance": "one-pass-variance",
    "tf1_graph_placeholder_false": SWITCHED_OFF,
    "tf1_graph_placeholder_fetched_false": SWITCHED_OFF,
    "tf1_graph_placeholder_forgotten": NOT_RUN,
    "tf1_graph_trained_statistics": "statistics-are-trainable",
    "tf1_graph_trained_statistics_descent": "statistics-are-trainable",
    "tf1_graph_trained_statistics_no_slots": "statistics-are-trainable",
    "tf1_graph_trained_statistics_updated": "statistics-are-trainable",
    "tf1_graph_until_step": SWITCHED_OFF,
    "tf1_graph_used_three_times": "updates-overshoot",
    "tf1_graph_variable_false": SWITCHED_OFF,
    "tf1_handwritten_common_names_stuck": NOT_RUN,
    "tf1_handwritten_pop_stuck": NOT_RUN,
    "tf1_history_forgotten": NOT_RUN,
    "tf1_history_stopped": NOT_RUN,
    "tf1_layers_adam_forgotten": NOT_RUN,
    "tf1_layers_ema_shadows_forgotten": "averages-not-run",
    "tf1_layers_training_false": "built-with-training-false",
    "tf1_layers_update_ops_forgotten": NOT_RUN,
    "tf1_moments_ema_stuck": NOT_RUN,
    "tf1_recalibrate_inference_descent": SWITCHED_OFF,
    "tf1_v1_update_ops_forgotten": NOT_RUN,
    "tf2_module_population_stuck": NOT_RUN,
    "tf2_module_scale_offset_untrained": "untrained",
    "tflearn_graph_switched_off": SWITCHED_OFF,
}
# Where another reason comes first, or the one behind it is not listed: the files look the same.
SECOND = {
    "keras3_ckpt_stuck",
    "keras3_weights_subclassed",
    "orbax_haiku_not_kept",
    "orbax_haiku_stack_not_kept",
    "orbax_linen_not_kept",
    "orbax_nnx_eval",
    "saved_model_keras2_recalibrate",
    "tf1_graph_placeholder_fetched_false",
    "tf1_layers_training_false",
    "tf1_recalibrate_inference_descent",
}
NOT_LISTED = {"keras315_weights_own_class_stuck"}
# The rule itself says all there is to say, or the reason is an artefact of the fixture.
WITHOUT = {
    "frozen_tf1_training_mode",
    "keras2_weights_short_stuck",
    "saved_model_keras2_export_composite",
    "tf1_graph_batches_of_one",
    "tf1_handwritten_bfloat16",
    "tfjs_graph_loop_stuck",
}


def findings_of(run: Run, stem: str) -> list[dict[str, Any]]:
    """The errors and warnings of a fixture without a cause."""
    fixture = load_fixture(stem)
    since = fixture.expected.get("since")
    earlier = () if since is None else ("--since", FIXTURES / stem / since)
    options = (*fixture.expected["options"], *earlier)
    (checkpoint,) = run("check", fixture.path, "--format", "json", *options).json["checkpoints"]
    return [
        finding
        for finding in checkpoint["findings"]
        if finding["cause"] is None and finding["severity"] != "note"
    ]


def without_cause() -> set[str]:
    """The fixtures that have a finding without a cause."""
    stems = {path.stem for path in FIXTURES.glob("*.json")}
    return {
        stem
        for stem in stems
        if any(one["cause"] is None for one in load_fixture(stem).expected["findings"])
    }


@pytest.mark.parametrize("stem", sorted(TRUTH))
def test_what_the_maker_did_comes_first(run: Run, stem: str) -> None:
    """Or second, where the files look the same and the other reason is met more often."""
    findings = findings_of(run, stem)
    assert findings
    for finding in findings:
        listed = [one["cause"] for one in finding["possible_causes"]]
        truth = TRUTH[stem]
        reason = truth if isinstance(truth, str) else truth[finding["rule"]]
        assert 0 < len(listed) <= 3
        assert (reason in listed) == (stem not in NOT_LISTED)
        assert (listed[0] == reason) == (stem not in SECOND | NOT_LISTED)


def test_the_truth_of_every_fixture_without_a_cause_is_known(run: Run) -> None:
    open_ones = {stem for stem in without_cause() if findings_of(run, stem)}
    assert open_ones == {*TRUTH} | WITHOUT


def test_no_suspect_where_a_cause_is_proved(run: Run) -> None:
    path = load_fixture("tf1_graph_update_ops_forgotten").path
    (checkpoint,) = run("check", path, "--format", "json").json["checkpoints"]
    assert checkpoint["findings"]
    assert all(one["cause"] and one["possible_causes"] == [] for one in checkpoint["findings"])


# --- The catalogue --------------------------------------------------------------------------------


def test_rows_name_rules_and_are_written_alike() -> None:
    codes = {rule.code for rule in RULES}
    assert SUSPECTS
    for row in SUSPECTS:
        assert set(row.rules) <= codes
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", row.cause)
        assert row.tells_apart.endswith(".")


def test_a_cause_that_the_files_can_prove_is_proved_by_other_means() -> None:
    """Each row with the name of a cause is about rules that may give it, or that never can."""
    by_name = {cause.name: cause for cause in CAUSES}
    shared = {row.cause for row in SUSPECTS} & {*by_name}
    assert {"update-ops-not-run", "trained-in-inference-mode", "layer-frozen"} <= shared


def test_the_document_counts_what_the_order_stands_on() -> None:
    text = (ROOT / "docs" / "verified.md").read_text(encoding="utf-8")
    number = r" \| (\d+)"
    rows = re.findall(rf"^\| `([a-z-]+)`{number * 4} \|$", text, re.MULTILINE)
    counts = {name: [*map(int, numbers)] for name, *numbers in rows}
    assert {name: (a + b, c + d) for name, (a, b, c, d) in counts.items()} == SEEN
    share = f"comes first in {len(TRUTH) - len(SECOND | NOT_LISTED)} of {len(TRUTH)}"
    assert share in text
    assert {*SEEN} <= {row.cause for row in SUSPECTS}


def test_a_made_up_suspect_is_one_row(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    made_up = Suspect(
        "made-up",
        ("BN101",),
        when=lambda facts: facts.step == 60,
        marked=True,
        speaks_for=lambda facts: f"the step is {facts.step}",
        tells_apart="Nothing does.",
        test="Look again.",
    )
    monkeypatch.setattr(suspects, "_CATALOGUE", suspects.Catalogue((*SUSPECTS, made_up)))
    path = load_fixture("tf1_layers_update_ops_forgotten").path
    assert "1. made-up: the step is 60. Look again." in run("check", path).said
    first = run("check", path, "--format", "json").json["checkpoints"][0]["findings"][0]
    assert first["possible_causes"][0] == {
        "cause": "made-up",
        "for": "the step is 60",
        "tells_apart": "Nothing does.",
        "test": "Look again.",
    }
    assert "Likely: made-up: the step is 60" in run("check", path, "--format", "sarif").out
    for format_ in ("junit", "github"):
        assert "likely: made-up: the step is 60" in run("check", path, "--format", format_).out


# --- What rules suspects out ----------------------------------------------------------------------

MOVED = {"mean": 0.0, "variance": 1.0, "gamma": (1.0, 1.5, 2.0), "beta": (0.0, 0.1, 0.2)}


def named(rule: str, layer: BNLayer, **context: Any) -> list[str]:
    """The names of the suspects, most likely first."""
    given = RuleContext(**{"format": "keras-h5", "step": 60, **context})
    return [one.cause for one in possible_causes(rule, layer, given)]


def findings_in(layers: list[BNLayer], **context: Any) -> tuple[Finding, ...]:
    return apply_rules(layers, RULES, RuleContext(**context))


def keras(version: str = "3.15.1", **layer: Any) -> BNLayer:
    return bn(**{**MOVED, "family": "keras", "keras_version": version, **layer})


def model(*, own: bool = False, backend: str | None = None) -> KerasModel:
    return KerasModel("Net" if own else "Functional", own, is_compiled=True, backend=backend)


def proof(mode: str) -> Callable[[BNLayer], ModeProof]:
    return lambda _: ModeProof(mode, "by the bias")  # type: ignore[arg-type]


def test_batch_statistics_rule_inference_out() -> None:
    layer = keras(keras_model=model(own=True))
    assert named("BN101", layer)[0] == "call-without-training"
    found = named("BN101", layer, mode=proof("batch"))
    assert found[0] == "updates-not-kept"
    assert not {"trained-in-inference-mode", "call-without-training"} & {*found}


def test_a_functional_model_has_no_call_of_its_own() -> None:
    assert "call-without-training" in named("BN101", keras())
    assert "call-without-training" not in named("BN101", keras(keras_model=model()))


def test_the_backend_rules_stateless_loops_in_or_out() -> None:
    assert named("BN101", keras(keras_model=model(backend="jax")))[0] == "updates-not-kept"
    on_tensorflow = keras(keras_model=model(backend="tensorflow"))
    assert "updates-not-kept" not in named("BN101", on_tensorflow)


@pytest.mark.parametrize("version", ["1.2.2", "2.0.8", "2.3.1", "2.2.4-tf"])
def test_sessions_are_those_of_old_versions(version: str) -> None:
    found = named("BN101", keras(version))
    assert found[0] == "update-ops-not-run"
    assert "updates-not-kept" not in found


def test_layers_of_keras_1_may_never_update_by_design() -> None:
    """Its weights name no version, and its layers took no training argument."""
    layer = keras("", family="keras-1")
    found = named("BN101", layer, step=None)
    assert found[0] == "update-ops-not-run"
    assert "batch-statistics-mode" in found
    assert "trained-in-inference-mode" not in found
    assert named("BN101", layer, step=None, updated=True)[0] == "batch-statistics-mode"


def test_tf_keras_of_two_tensorflows_may_train_in_either_way() -> None:
    found = named("BN101", keras("2.2.4-tf"))
    assert {"update-ops-not-run", "trained-in-inference-mode"} <= {*found}


@pytest.mark.parametrize("version", ["2.3.0-tf", "2.4.0", "2.15.0"])
def test_what_came_with_keras_3_is_no_suspect_before(version: str) -> None:
    found = named("BN101", keras(version, keras=keras_layer()))
    assert not {"updates-not-kept", "call-without-training", "update-ops-not-run"} & {*found}


def test_gamma_and_beta_that_stand_still_point_to_a_frozen_part() -> None:
    still = keras("", gamma=1.0, beta=0.0)
    found = named("BN101", still)
    assert found[0] == "layer-frozen"
    assert "trained-in-inference-mode" not in found
    known = keras("3.15.1", gamma=1.0, beta=0.0, keras=keras_layer())
    assert "layer-frozen" not in named("BN101", known)


def test_a_layer_beside_updated_ones_may_be_a_copy() -> None:
    assert "statistics-not-loaded" not in named("BN101", keras())
    assert named("BN101", keras(), updated=True)[0] == "statistics-not-loaded"


def test_a_layer_that_this_training_moved_is_no_copy() -> None:
    """Slots of gamma that moved show that the optimizer of this file trained the layer."""
    layer = bn(**MOVED, family="slim")
    assert named("BN101", layer, updated=True, format="tf-v2")[0] == NOT_LOADED
    slots = {"bn/gamma/Adam": variable("bn/gamma/Adam", (0.1, 0.2, 0.3))}
    trained = replace(layer, training=training_evidence(layer, Slots(slots), step=60))
    assert named("BN101", trained, updated=True, format="tf-v2")[0] == NOT_RUN
    updated = bn(name="other", mean=0.5, variance=2.0, family="slim")
    finding, *_ = findings_in([trained, updated], format="tf-v2", step=60)
    assert "copied or loaded" not in finding.fix


def test_a_layer_that_ran_in_inference_mode_makes_it_likely_for_the_others() -> None:
    proved, other = keras(name="a", keras=keras_layer()), keras(name="b", keras=keras_layer())
    by_bias = {"a": ModeProof("inference", "by the bias")}
    of_one = findings_in(
        [proved, other], format="keras-h5", mode=lambda layer: by_bias.get(layer.name)
    )
    assert [one.cause for one in of_one] == [INFERENCE, None]
    assert of_one[1].possible_causes[0].cause == INFERENCE
    assert "recalibrate" not in of_one[1].fix  # it refuses the file
    (alone,) = findings_in([other], format="keras-h5")
    assert alone.possible_causes[0].cause != INFERENCE
    assert "by `bninspect recalibrate`" in alone.fix


def test_a_mean_of_negative_zeros_was_written() -> None:
    reset = keras(mean=np.array([0.0, -0.0, 0.0], "float32"))
    assert named("BN101", reset)[0] == "statistics-reset"
    assert named("BN101", keras())[0] != "statistics-reset"


@pytest.mark.parametrize("family", ["tf.layers", "slim", "tflearn", "custom-scope"])
def test_batch_statistics_rule_a_mode_of_false_out_without_a_graph_of_training(family: str) -> None:
    layer = bn(**MOVED, family=family)
    wrong = {"updates-switched-off", "built-with-training-false"}
    assert wrong & {*named("BN101", layer, format="tf-v2")}
    assert not wrong & {*named("BN101", layer, format="tf-v2", mode=proof("batch"))}


def of_graph(*conditions: Condition) -> Callable[[BNLayer], GraphEvidence]:
    """A graph with a training op and an update that it does not run."""
    updates = (Update("bn/AssignMovingAvg", "moving_mean", ()),)
    return lambda _: GraphEvidence(
        "m.meta", training_ops=("train",), updates=updates, conditions=conditions
    )


def test_the_condition_that_is_false_is_named() -> None:
    unknown, off = Condition("op", "read"), Condition("variable", "phase", value=False)
    context = RuleContext(60, format="tf-v2", graph=of_graph(unknown, off))
    first = possible_causes("BN101", bn(**MOVED), context)[0]
    assert first.cause == "updates-switched-off"
    assert "`phase`" in first.speaks_for
    assert "`read`" not in first.speaks_for


def test_a_value_that_is_compared_or_negated_is_no_condition_that_is_false() -> None:
    count = Condition("variable", "global_step", value=0, bound=1000, derived=True)
    negated = Condition("placeholder", "is_test", value=False, derived=True)
    context = RuleContext(60, format="tf-v2", graph=of_graph(count, negated))
    found = possible_causes("BN101", bn(**MOVED), context)
    assert not any("is False by what is stored" in one.speaks_for for one in found)


def test_a_variance_that_ended_at_zero_was_changed_by_something() -> None:
    layer = bn(mean=0.5, variance=0.0, gamma=(1.0, 1.5, 2.0), family="tf.layers")
    found = named("BN103", layer, format="tf-v2", step=20_000)
    assert found == ["statistics-overwritten", "batches-of-one-value"]
    assert named("BN103", layer, format="tf-v2", step=60) == ["statistics-overwritten"]


def test_a_frozen_layer_may_have_been_trained_before() -> None:
    """As the discriminator of a GAN, which is frozen in the combined model."""
    layer = keras(keras=keras_layer(trainable=False))
    given = RuleContext(60, format="keras-h5")
    told = {one.cause: one.speaks_for for one in possible_causes("BN101", layer, given)}
    assert told["statistics-not-loaded"].startswith("the layer is frozen, and")


def test_a_gamma_that_was_not_written_is_no_half_of_a_conversion() -> None:
    assert named("BN204", keras())[0] == "save-interrupted"
    converted = bn(gamma=(1.0, 1.5, 2.0), beta=0.0, family="keras")
    assert named("BN204", converted)[0] == "conversion-incomplete"


def test_a_part_of_the_name_may_be_that_of_a_cell() -> None:
    told = possible_causes(
        "BN101", keras(name="net/cell_3/bn"), RuleContext(60, format="keras-h5")
    )[0]
    assert told.cause == "cell-without-updates"
    assert told.speaks_for.startswith("its name has `cell_3`: the cell of a recurrent layer has")


def test_an_own_class_is_named() -> None:
    layer = keras(own_class="MyNorm")
    first = possible_causes("BN101", layer, RuleContext(step=60, format="keras-zip"))[0]
    assert first.cause == "own-class-without-updates"
    assert "MyNorm" in first.speaks_for


@pytest.mark.parametrize(
    ("name", "is_own"),
    [
        ("layers/batch_normalization_3", False),
        ("layers/sync_batch_normalization", False),
        ("layers/time_distributed/layer", False),
        ("layers/accum_batch_normalization", True),
        ("block/norm", False),
        ("conv_layers/norm", False),
    ],
)
def test_groups_of_weights_are_called_after_the_class(name: str, is_own: bool) -> None:
    assert ("own-class-without-updates" in named("BN101", keras(name=name))) == is_own


def test_fine_tuning_is_the_first_suspect_of_statistics_that_stay() -> None:
    layer = keras("3", mean=0.5, variance=2.0, since=Since("step 20", {}))
    assert named("BN107", layer)[0] == "built-with-training-false"


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ({"gamma": np.nan}, "training-diverged"),
        ({"variance": (np.nan, 1.0, 2.0)}, "batches-of-one-value"),
        ({"mean": (np.nan, 1.0, 2.0)}, "inputs-not-finite"),
    ],
)
def test_what_is_not_finite_says_where_it_came_from(values: dict[str, Any], first: str) -> None:
    assert named("BN301", keras(**{"mean": 0.5, "variance": 2.0, **values}))[0] == first


def test_negative_variances_beside_means_that_are_none_were_swapped() -> None:
    swapped = keras(mean=(0.5, 1.0, 2.0), variance=(-0.5, 0.2, 0.1))
    assert named("BN302", swapped)[0] == "statistics-swapped"
    values = {"mean": (-0.5, 1.0, 2.0), "variance": (-0.5, 0.2, 0.1)}
    assert named("BN302", keras("2.2.4", **values))[0] == "batches-of-one-value"
    assert "batches-of-one-value" not in named("BN302", keras("2.2.4-tf", **values))


def test_missing_statistics_have_suspects_of_their_own() -> None:
    layer = bn(gamma=(1.0, 1.5, 2.0), family="sonnet-1")
    assert named("BN201", layer, format="tf-v2") == ["saver-omitted-statistics", "no-averages"]
    half = bn(mean=0.5, family="hand-written")
    assert named("BN202", half, format="tf-v2") == ["saver-omitted-statistics", "named-otherwise"]


def test_the_graph_of_the_checkpoint_is_asked_for_by_name() -> None:
    context = RuleContext(step=60, format="tf-v2", resolved="/runs/a/model.ckpt-60")
    first = possible_causes("BN101", bn(**MOVED), context)[0]
    assert "Put the training's model.ckpt-60.meta beside it." in first.test
    shards = context._replace(format="tf-v1", resolved="/runs/a/model-60-?????-of-00002")
    first = possible_causes("BN101", bn(**MOVED), shards)[0]
    assert "Put the training's model-60.meta beside it." in first.test
    exported = possible_causes("BN101", bn(**MOVED), context._replace(format="saved-model"))[0]
    assert ".meta" not in exported.test
    assert "UPDATE_OPS" in exported.test


def test_a_live_model_has_no_suspects_of_files() -> None:
    assert possible_causes("BN101", keras(), RuleContext(live=True)) == ()


def test_notes_and_proved_causes_have_none() -> None:
    by_design = keras("1.2.2", family="keras-1", keras=keras_layer(mode=2))
    frozen = keras("2.15.0", gamma=1.0, beta=0.0, step=60, keras=keras_layer(momentum=1.0))
    for layer in (by_design, frozen):
        found = apply_rules([layer], RULES, RuleContext(step=60, format="keras-h5"))
        assert found
        assert all(
            one.possible_causes == () for one in found if one.cause or one.severity == "note"
        )


def test_json_has_every_part() -> None:
    layer = bn(**MOVED)
    (finding,) = apply_rules([layer], RULES, RuleContext(step=60, format="tf-v2", resolved="m"))
    told = finding_document(finding)["possible_causes"]
    assert [one["cause"] for one in told] == [one.cause for one in finding.possible_causes]
    assert all(set(one) == {"cause", "for", "tells_apart", "test"} for one in told)
    assert all(isinstance(one, PossibleCause) for one in finding.possible_causes)
