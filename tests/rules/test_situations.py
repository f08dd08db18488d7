"""Causes and advice by situation: what values, configuration, step and graph show, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bninspect.model.graph import GraphEvidence, Update
from bninspect.model.layer import Change, ModeProof, Since
from bninspect.model.roles import ROLES
from bninspect.model.rule import RuleContext
from bninspect.rules import RULES, apply_rules
from tests.conftest import load_fixture
from tests.support.layers_in_memory import bn, findings, keras_layer, only

MEAN, VARIANCE = (0.25, -0.5, 3.0), (0.5, 2.0, 1.25)
GAMMA, BETA = (1.125, 0.875, 1.5), (0.25, -0.125, 0.5)
STUCK = {"mean": 0.0, "variance": 1.0}
AFFINE = {"gamma": GAMMA, "beta": BETA}
HEALTHY = {"mean": MEAN, "variance": VARIANCE, **AFFINE}
SESSION, STATELESS, MODE = "TF1 session", "stateless", "mode=0"


def judged(layer, *, code, graph=None, step=None, **more):
    """The finding of a rule in a layer with a graph beside it."""
    context = RuleContext(step, graph=lambda _: graph, **more)
    found = apply_rules([layer], RULES, context)
    return next(one for one in found if one.rule.code == code)


# --- A momentum of 1 ------------------------------------------------------------------------------


def configured(momentum, **members):
    return replace(bn(**members), momentum=momentum)


def test_a_momentum_of_1_is_the_cause():
    finding = judged(configured(1.0, **STUCK, **AFFINE), code="BN101")
    assert finding.cause == "momentum-one"
    assert finding.evidence[0] == "the stored configuration has momentum 1"
    assert "give the layer a momentum of 0.9 to 0.99" in finding.fix


def test_a_momentum_of_1_in_the_graph_is_the_cause():
    graph = GraphEvidence("model.ckpt.meta", ("train",), momentum=1.0)
    finding = judged(bn(**STUCK, **AFFINE), code="BN101", graph=graph)
    assert (finding.cause, finding.evidence[0]) == ("momentum-one", "the graph has momentum 1")


def test_the_momentum_of_the_layer_goes_before_those_of_user_and_graph():
    graph = GraphEvidence("model.ckpt.meta", ("train",), momentum=1.0)
    layer = configured(0.9, **STUCK, **AFFINE)
    assert judged(layer, code="BN101", graph=graph).cause is None
    layer = bn(**STUCK, **AFFINE)
    assert judged(layer, code="BN101", graph=graph, momentum=0.9).cause is None


def test_statistics_of_a_momentum_of_1_that_stood_still():
    layer = configured(1.0, **HEALTHY, since=Since("step 1", STILL))
    finding = judged(layer, code="BN107")
    assert (finding.cause, finding.severity) == ("momentum-one", "error")


# --- gamma and beta that stand still, or come from elsewhere --------------------------------------


def test_a_layer_that_training_did_not_reach():
    finding = only("BN101", **STUCK, gamma=1.0, beta=0.0, step=40)
    assert finding.cause is None
    assert any("gamma is exactly 1 and beta is exactly 0" in fact for fact in finding.evidence)
    assert "it was frozen, was not part of the network" in finding.fix


def test_a_layer_without_gamma_and_beta_may_have_been_reached():
    finding = only("BN101", **STUCK, step=40)
    assert not any("gamma" in fact for fact in finding.evidence)
    assert "frozen" not in finding.fix


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, "No training step is stored"),
        ({"step": 0}, "The stored step is 0"),
        ({"step": 60, "keras": keras_layer(trainable=False)}, "The layer is frozen"),
    ],
)
def test_without_a_training_here_the_statistics_may_not_have_been_copied(more, why):
    finding = only("BN101", **STUCK, **AFFINE, **more)
    assert finding.fix.startswith(f"{why}: if gamma and beta were copied")


def test_beside_layers_that_were_updated_the_statistics_may_not_have_been_copied():
    layers = [
        bn(**STUCK, **AFFINE, name="teacher", step=60),
        bn(**HEALTHY, name="student", step=60),
    ]
    [finding] = apply_rules(layers, RULES, RuleContext(60))
    assert finding.layer == "teacher"
    assert finding.fix.startswith("Other BN layers of this checkpoint were updated: if gamma")


def test_a_trained_layer_among_stuck_ones_is_to_be_trained_in_training_mode():
    finding = only("BN101", **STUCK, **AFFINE, step=60, family="keras")
    assert finding.fix.startswith("Train the layer in training mode")


# --- The Keras that wrote the file ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "version", "said", "unsaid"),
    [
        ("keras", "3.12.4", STATELESS, SESSION),
        ("keras", "2.15.0", "model.fit", SESSION),
        ("keras", "2.15.0", "model.fit", STATELESS),
        ("keras", "2.3.1", SESSION, STATELESS),
        ("keras", "2.2.4-tf", SESSION, STATELESS),
        ("keras", "2.3.0-tf", "model.fit", SESSION),
        ("keras", "", "model.fit", SESSION),
        ("keras", "", "model.fit", STATELESS),
        ("keras-1", "", MODE, STATELESS),
        ("keras-1", "1.2.2", MODE, SESSION),
        ("keras-1", "3.12.4", STATELESS, MODE),
        ("keras-1", "2.15.0", "model.fit", MODE),
    ],
)
def test_advice_is_for_the_keras_that_wrote_the_file(family, version, said, unsaid):
    layer = {**STUCK, **AFFINE, "step": 40, "family": family, "keras_version": version}
    fix = only("BN101", **layer).fix
    assert said in fix
    assert unsaid not in fix


@pytest.mark.parametrize(
    ("version", "has_session", "has_loop"),
    [("2.15.0", False, False), ("2.2.4-tf", True, False), ("3.12.4", False, True)],
)
def test_updates_are_kept_as_that_keras_keeps_them(version, has_session, has_loop):
    layer = replace(bn(**STUCK, **AFFINE, family="keras"), keras_version=version)
    fix = judged(layer, code="BN101", step=40, mode=lambda _: ModeProof("batch", "by the bias")).fix
    assert "Training used batch statistics" in fix
    assert (SESSION in fix, STATELESS in fix) == (has_session, has_loop)


# --- Statistics that may be meant to stay ---------------------------------------------------------


STILL = {role: Change(False, 0.0) for role in ROLES} | {"gamma": Change(True, 0.5)}


@pytest.mark.parametrize(
    ("layer", "may_be_meant"),
    [
        ({**HEALTHY, "family": "keras"}, True),
        ({**HEALTHY, "family": "keras", "keras_version": "2.15.0"}, True),
        ({**HEALTHY, "family": "keras", "keras_version": "3.9.0", "keras": keras_layer()}, True),
        # The configuration of Keras 2 has the calls: training=False is not among them.
        ({**HEALTHY, "family": "keras", "keras_version": "2.15.0", "keras": keras_layer()}, False),
        ({**HEALTHY, "family": "tf.layers"}, False),
        ({**STUCK, **AFFINE, "family": "keras"}, False),
    ],
)
def test_statistics_that_stood_still_may_be_meant_to(layer, may_be_meant):
    found = findings(**layer, since=Since("earlier.weights.h5", STILL))
    finding = next(one for one in found if one.rule.code == "BN107")
    told = "Nothing to fix if the layer was meant to keep its statistics"
    assert finding.fix.startswith(told) is may_be_meant


# --- NaN and negative variances -------------------------------------------------------------------


def updates(number, *, in_loop=False):
    return tuple(
        Update(f"update_{place}", "moving_variance", ("train",), in_loop) for place in range(number)
    )


def graph_of(number, momentum=0.6, **more):
    made = updates(number, **more)
    return GraphEvidence("model.ckpt.meta", ("train",), updates=made, momentum=momentum)


@pytest.mark.parametrize("code", ["BN301", "BN302", "BN304"])
@pytest.mark.parametrize(
    ("graph", "overshoots"),
    [
        (graph_of(8), True),
        (graph_of(5), True),  # 5 * 0.4 = 2
        (graph_of(4), False),
        (graph_of(8, 0.99), False),
        (graph_of(8, None), False),
        (graph_of(8, in_loop=True), False),
        (graph_of(1, -2.0), False),
        (None, False),
    ],
)
def test_updates_that_overshoot_explain_what_is_not_finite(code, graph, overshoots):
    bad = {"BN301": float("nan"), "BN302": -0.5, "BN304": 1e21}[code]
    finding = judged(bn(mean=MEAN, variance=(bad, 0.5, 2.0)), code=code, graph=graph)
    told = [fact for fact in finding.evidence if "updates of an average" in fact]
    assert bool(told) is overshoots
    assert ("Update the averages once a step" in finding.fix) is overshoots


def test_a_shared_keras_layer_overshoots_too():
    bad = {"mean": MEAN, "variance": (float("nan"), 1.0, 2.0)}
    layer = configured(0.5, **bad, keras=keras_layer(calls=4))
    finding = judged(layer, code="BN301")
    assert (
        "makes 4 updates of an average, each by 0.5 of the difference: 2 in all"
        in (finding.evidence[0])
    )


def test_a_nan_in_gamma_is_not_explained_by_updates():
    layer = bn(mean=MEAN, variance=VARIANCE, gamma=(float("nan"), 1.0, 2.0))
    assert judged(layer, code="BN301", graph=graph_of(8)).evidence == ()


def test_a_variance_as_a_difference_of_squares_is_told_with_the_mean():
    graph = GraphEvidence("model.ckpt.meta", ("train",), one_pass=True)
    layer = bn(mean=(2996.0, -1.0, 2.0), variance=(-0.5, 0.5, 2.0))
    finding = judged(layer, code="BN302", graph=graph)
    assert "with a mean of 2996 float32 rounds these squares by 0.54" in finding.evidence[0]
    assert "tf.nn.moments" in finding.fix
    assert "Keras" not in finding.fix


@pytest.mark.parametrize(("family", "is_keras"), [("keras", True), ("tf.layers", False)])
def test_the_order_of_weights_is_that_of_keras(family, is_keras):
    finding = only("BN302", mean=MEAN, variance=(-0.5, 0.5, 2.0), family=family)
    assert ("Keras wants gamma, beta" in finding.fix) is is_keras


# --- Half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "momentum", "severity"),
    [
        ("float16", 0.9, "note"),
        ("float16", 0.99, "note"),  # 4.9 %
        ("float16", 0.991, "warning"),
        ("float16", 0.999, "warning"),
        ("bfloat16", 0.9, "note"),
        ("bfloat16", 0.93, "warning"),
        ("bfloat16", 0.99, "warning"),
        ("bfloat16", 1.0, "warning"),
        ("float16", None, "note"),
        ("bfloat16", None, "warning"),
    ],
)
def test_half_precision_is_a_warning_where_rounding_costs_more_than_5_percent(
    dtype, momentum, severity
):
    finding = only("BN305", **HEALTHY, dtype=dtype, momentum=momentum)
    assert finding.severity == severity
    assert len(finding.evidence) == 1


# --- A momentum of 0 ------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", ["0", "0.9"])
def test_every_momentum_is_answered(run, momentum):
    path = load_fixture("tf1_layers_dead_channels").path
    outcome = run("check", path, "--momentum", momentum, "--format", "json")
    assert outcome.exit_code == 0
    assert {one["rule"] for one in outcome.json["checkpoints"][0]["findings"]} <= {"BN303", "BN106"}
