"""Causes that a live model proves, and what it does not prove."""

from __future__ import annotations

import pytest

from bninspect.model.layer import Change, Since
from bninspect.model.live import LiveModel
from bninspect.model.rule import RuleContext
from bninspect.rules import RULES, apply_rules
from tests.support.layers_in_memory import bn, keras_layer

STUCK = {"mean": 0.0, "variance": 1.0, "gamma": [0.5, 1.5, 2.0]}
BY_FIT = LiveModel("Net", has_own_call=True, takes_training=False, is_fitted=True)
STANDS = {
    role: Change(moved=False, largest=0.0) for role in ("gamma", "moving_mean", "moving_variance")
}
GONE_ON = ("training went on",)


def judged(model, code="BN101", *, version="3.15.1", changes=None, layer=None, **keras):
    """The finding on a layer of Keras whose statistics stand still in a model in training."""
    since = Since("the start", STANDS | (changes or {}), GONE_ON)
    live = bn(
        **(layer or STUCK),
        family="keras",
        keras=keras_layer(**keras)._replace(built_in=True),
        keras_version=version,
        since=since,
    )
    rules = [rule for rule in RULES if rule.code == code]
    (found,) = apply_rules([live], rules, RuleContext(live=True, live_model=model))
    return found


def test_a_call_that_takes_no_training_under_fit() -> None:
    found = judged(BY_FIT)
    assert found.cause == "call-without-training"
    assert "`call` of Net has no parameter `training`, and Keras 3.15.1" in found.evidence[0]
    assert "def call(self, x, training=None)" in found.fix
    assert "Do not re-estimate" in found.fix


@pytest.mark.parametrize(
    "model",
    [
        BY_FIT._replace(is_fitted=False),
        BY_FIT._replace(own_methods=("train_step",)),
        BY_FIT._replace(own_methods=("__call__",)),
    ],
)
def test_a_loop_of_ones_own_may_call_parts_of_the_model(model) -> None:
    found = judged(model)
    assert found.cause is None
    assert any("`call` of Net has no parameter `training`" in fact for fact in found.evidence)
    assert "def call(self, x, training=None)" in found.fix
    named = any("its own `" in fact for fact in found.evidence)
    assert named == bool(model.own_methods)


@pytest.mark.parametrize(
    ("model", "version"),
    [
        (BY_FIT, "2.15.0"),
        (BY_FIT, ""),
        (BY_FIT._replace(takes_training=True), "3.15.1"),
        (BY_FIT._replace(takes_training=None), "3.15.1"),
        (None, "3.15.1"),
    ],
)
def test_other_models_prove_nothing(model, version) -> None:
    found = judged(model, version=version)
    assert found.cause is None
    assert not any("no parameter" in fact for fact in found.evidence)


def test_what_a_layer_of_ones_own_does_with_the_mode_is_not_known() -> None:
    own = bn(**STUCK, family="keras", keras=keras_layer(), keras_version="3.15.1")
    context = RuleContext(live=True, live_model=BY_FIT)
    (found,) = apply_rules([own], [rule for rule in RULES if rule.code == "BN101"], context)
    assert found.cause is None


@pytest.mark.parametrize(
    ("backend", "version", "told"),
    [
        ("jax", "3.15.1", "with JAX it has to pass `training` on"),
        ("tensorflow", "3.15.1", "it may pass training=False"),
        ("tensorflow", "2.15.0", "it may pass training=False"),
    ],
)
def test_what_a_call_of_ones_own_may_do(backend, version, told) -> None:
    found = judged(BY_FIT._replace(takes_training=True, backend=backend), version=version)
    assert any(told in fact for fact in found.evidence)


def test_a_layer_that_was_frozen_with_other_weights() -> None:
    found = judged(BY_FIT._replace(takes_training=True), trainable=False)
    assert (found.cause, found.evidence[0]) == ("layer-frozen", "the layer has trainable=False")
    assert "before you freeze it" in found.fix


def test_a_loop_may_freeze_a_layer_only_while_it_is_read() -> None:
    model = BY_FIT._replace(takes_training=True, is_fitted=False)
    assert judged(model, trainable=False).cause is None


def test_what_is_frozen_after_compile_is_trained_on() -> None:
    model = BY_FIT._replace(takes_training=True)
    moved = {"gamma": Change(moved=True, largest=0.5)}
    assert judged(model, trainable=False, changes=moved).cause is None


def test_statistics_that_were_loaded_may_be_meant_to_stay() -> None:
    kept = {**STUCK, "mean": [0.5, 1.0, 2.0], "variance": [1.5, 2.0, 3.0]}
    moved = {"gamma": Change(moved=True, largest=0.5)}
    found = judged(BY_FIT, "BN107", layer=kept, changes=moved)
    assert (found.cause, found.severity) == ("call-without-training", "error")
    assert "meant to keep these statistics" in found.fix
    assert "Do not re-estimate" not in found.fix
