"""Whole checkpoints that look odd: healthy ones stay clean, and no cause is a guess.

Each is a scheme or a training met in the wild; a layer alone would not show what is asked here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bninspect
from bninspect.model.report import CheckpointReport
from tests.support.table_writer import write_bundle

MEAN = np.array([0.1, -0.2, 0.3], np.float32)
VARIANCE = np.array([0.5, 1.5, 2.0], np.float32)
GAMMA = np.array([0.9, 1.1, 1.3], np.float32)
ZEROS, ONES = np.zeros(3, np.float32), np.ones(3, np.float32)


@pytest.fixture
def check(tmp_path):
    def call(variables: dict[str, Any], **options: Any) -> CheckpointReport:
        write_bundle(str(tmp_path / "model.ckpt"), variables)
        (report,) = bninspect.check(tmp_path / "model.ckpt", **options).checkpoints
        assert report.error is None
        return report

    return call


def told(report: CheckpointReport) -> list[tuple[str, str, str, str | None]]:
    return [(f.rule.code, f.severity, f.layer, f.cause) for f in report.findings]


def members(layer: str, mean: Any, variance: Any, **more: Any) -> dict[str, Any]:
    named = {"moving_mean": mean, "moving_variance": variance, **more}
    return {f"{layer}/{role}": values for role, values in named.items()}


class TestStepAndUpdates:
    def test_a_fine_tuned_model_is_not_cold(self, check):
        """One variance below the share shows, for all layers, that the step began anew."""
        variables = {
            "global_step": np.int64(20),
            **members("a/batch_normalization", MEAN, ONES * 1.5),
            **members("b/batch_normalization", MEAN, VARIANCE),
        }
        assert told(check(variables, momentum=0.99)) == []

    def test_a_short_training_is_cold(self, check):
        variables = {
            "global_step": np.int64(20),
            **members("a/batch_normalization", MEAN, ONES * 1.5),
        }
        cold = [("BN106", "warning", "a/batch_normalization", "too-few-updates")]
        assert told(check(variables, momentum=0.99)) == cold

    def test_step_0_beside_a_trained_layer_is_no_untrained_model(self, check):
        """`minimize(loss)` without global_step leaves that at 0."""
        variables = {
            "global_step": np.int64(0),
            **members("a/batch_normalization", ZEROS, ONES, gamma=ONES),
            **members("b/batch_normalization", MEAN, VARIANCE, gamma=GAMMA),
        }
        assert told(check(variables)) == [("BN105", "warning", "a/batch_normalization", None)]

    def test_a_gamma_without_gradients_proves_no_cause_at_step_0(self, check):
        """Its initializer may be random, or it was loaded without the statistics."""
        variables = {
            "global_step": np.int64(0),
            **members("a/batch_normalization", ZEROS, ONES, gamma=GAMMA),
            "a/batch_normalization/gamma/Adam": ZEROS,
            "a/batch_normalization/gamma/Adam_1": ZEROS,
        }
        assert told(check(variables)) == [("BN105", "note", "a/batch_normalization", None)]

    def test_the_outermost_and_largest_step_counts(self, check):
        variables = {
            "D/global_step": np.int64(0),
            "G/global_step": np.int64(5),
            "G/inner/global_step": np.int64(9),
            **members("a/batch_normalization", MEAN, VARIANCE),
        }
        assert check(variables).step == 5


class TestOtherSchemes:
    def test_averages_of_the_moments_are_not_missing(self, check):
        variables = {
            "batch_norm/gamma": GAMMA,
            "batch_norm/batch_norm/moments/Squeeze/ExponentialMovingAverage": MEAN,
            "batch_norm/batch_norm/moments/Squeeze_1/ExponentialMovingAverage": VARIANCE,
        }
        report = check(variables)
        assert told(report) == []
        assert [layer.family for layer in report.layers] == ["moments-ema"]

    def test_accumulators_are_not_missing(self, check):
        sums = {"BatchNorm/accu/accu_mean": MEAN, "BatchNorm/accu/accu_variance": VARIANCE}
        report = check({"BatchNorm/gamma": GAMMA, "BatchNorm/accu/accu_counter": ONES[0], **sums})
        assert told(report) == []
        assert [layer.family for layer in report.layers] == ["compare_gan"]

    def test_one_accumulator_alone_is_half_of_the_statistics(self, check):
        variables = {"BatchNorm/gamma": GAMMA, "BatchNorm/accu/accu_mean": MEAN}
        assert told(check(variables)) == [("BN202", "error", "BatchNorm", None)]

    def test_a_scope_that_anyone_may_write_proves_no_cause(self, check):
        assert told(check({"batch_norm/gamma": GAMMA})) == [("BN201", "error", "batch_norm", None)]

    def test_conditional_bn_has_a_gamma_a_class(self, check):
        gamma = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
        assert told(check(members("bn", MEAN, VARIANCE, gamma=gamma, beta=gamma))) == []

    def test_a_dead_layer_among_living_ones_is_dead(self, check):
        def layer(name: str, mean: Any, variance: Any) -> dict[str, Any]:
            return {f"{name}/pop_mean": mean, f"{name}/pop_var": variance, f"{name}/scale": GAMMA}

        living, dead = layer("a", MEAN, VARIANCE), layer("b", ZEROS, ZEROS)
        step = {"global_step": np.int64(100_000)}
        assert told(check(step | living | dead)) == [("BN303", "note", "b", None)]
        assert told(check(step | dead)) == [("BN101", "error", "b", None)]


class TestNames:
    def test_a_newline_in_a_name_hides_nothing(self, check):
        variables = members("bn", MEAN, VARIANCE) | members("x\ny", ZEROS, ONES, gamma=GAMMA)
        assert told(check(variables)) == [("BN101", "error", "x\ny", None)]

    def test_a_number_of_any_length_sorts(self, check):
        long = "bn_" + "9" * 5000
        variables = members(long, MEAN, VARIANCE) | members("bn_10", MEAN, VARIANCE)
        names = [layer.name for layer in check(variables | members("bn_2", MEAN, VARIANCE)).layers]
        assert names == ["bn_2", "bn_10", long]

    def test_a_path_of_very_many_parts(self, check):
        variables = members("bn", MEAN, VARIANCE) | {"a/" * 50_000 + "biased": ZEROS}
        assert told(check(variables)) == []


def test_one_channel_whose_mean_never_moved(check):
    variables = {
        "global_step": np.int64(1000),
        **members("bn", ZEROS[:1], np.array([0.35], np.float32)),
    }
    assert told(check(variables, momentum=0.99)) == [("BN102", "error", "bn", None)]
    assert told(check(variables)) == []  # without a momentum it may as well be a dead channel


def test_a_wide_layer_takes_no_longer_than_its_width(check):
    """A flattened image: border pixels that are always 0 share one variance."""
    variance = np.linspace(0.1, 2, 400_000, dtype=np.float32)
    variance[:100_000] = 0.25
    mean = np.where(variance == 0.25, np.float32(0), np.float32(1))
    report = check(members("bn", mean, variance))
    assert [finding.rule.code for finding in report.findings] == ["BN303"]
    assert "100000 of 400000" in report.findings[0].message


@pytest.mark.framework
class TestKerasModels:
    """Trained here, by the Keras that is installed."""

    @pytest.fixture
    def keras(self):
        import keras

        keras.utils.set_random_seed(1)
        return keras

    @pytest.fixture
    def saved(self, tmp_path):
        def save_and_check(model: Any) -> CheckpointReport:
            model.save(tmp_path / "model.h5")
            (report,) = bninspect.check(tmp_path / "model.h5").checkpoints
            assert report.error is None
            return report

        return save_and_check

    def fit(self, model: Any, inputs: list[Any], steps: int) -> None:
        target = np.random.default_rng(2).normal(size=(16, 1))
        model.compile("sgd", "mse")
        for _ in range(steps):
            model.train_on_batch(inputs, target)

    def test_a_sequential_layer_has_its_own_name(self, keras, saved):
        model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="b1")])
        inner = keras.Sequential(
            [keras.Input((4,)), keras.layers.BatchNormalization(name="bn")], name="inner"
        )
        assert [layer.name for layer in saved(model).layers] == ["b1"]
        nested = keras.Sequential([keras.Input((4,)), inner])
        assert [layer.name for layer in saved(nested).layers] == ["inner/bn"]

    def test_a_shared_layer_is_updated_by_each_call(self, keras, saved):
        bn = keras.layers.BatchNormalization(momentum=0.9, name="shared")
        first, second = keras.Input((4,)), keras.Input((4,))
        joined = keras.layers.Add()([bn(first), bn(second)])
        model = keras.Model([first, second], keras.layers.Dense(1)(joined))
        inputs = [np.random.default_rng(i).normal(3, 2, (16, 4)) for i in range(2)]
        self.fit(model, inputs, steps=20)  # 0.9^20 = 12%, 0.9^40 = 1.5%
        assert [layer.keras.calls for layer in saved(model).layers] == [2]
        assert told(saved(model)) == []

    def test_bfloat16_statistics_are_read(self, keras, saved):
        policy = keras.mixed_precision.dtype_policy()
        keras.mixed_precision.set_dtype_policy("bfloat16")
        try:
            model = keras.Sequential(
                [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
            )
        finally:
            keras.mixed_precision.set_dtype_policy(policy)
        self.fit(model, [np.random.default_rng(1).normal(3, 2, (16, 4))], steps=5)
        report = saved(model)
        (layer,) = report.layers
        assert layer.dtype == "bfloat16"
        expected = np.asarray(model.layers[0].moving_mean).astype(np.float32)
        np.testing.assert_array_equal(layer.values["moving_mean"].array, expected)
        assert ("BN305", "warning", layer.name, None) in told(report)


class TestALayerThatDied:
    """A branch that died late among live layers, and a model whose statistics were all zeroed."""

    @pytest.mark.parametrize("step", [1344, 288, None])
    def test_among_live_layers_it_may_have_died_late(self, check, step):
        variables = {
            **members("a/batch_normalization", MEAN, VARIANCE, gamma=GAMMA),
            **members("b/batch_normalization", ZEROS, ZEROS, gamma=GAMMA),
        }
        if step is not None:
            variables["global_step"] = np.int64(step)
        assert ("BN303", "note", "b/batch_normalization", None) in told(check(variables))
        assert not [found for found in told(check(variables)) if found[1] == "error"]

    @pytest.mark.parametrize("step", [288, None])
    def test_without_a_live_layer_it_was_zeroed(self, check, step):
        variables = {
            **members("a/batch_normalization", ZEROS, ZEROS, gamma=GAMMA),
            **members("b/batch_normalization", ZEROS, ZEROS, gamma=GAMMA),
        }
        if step is not None:
            variables["global_step"] = np.int64(step)
        found = [one[:2] for one in told(check(variables)) if one[0].startswith("BN10")]
        assert found == [("BN102", "error")] * 2

    def test_too_few_steps_contradict_it(self, check):
        variables = {
            "global_step": np.int64(56),
            **members("a/batch_normalization", MEAN, VARIANCE, gamma=GAMMA),
            **members("b/batch_normalization", ZEROS, ZEROS, gamma=GAMMA),
        }
        (found,) = [one for one in check(variables).findings if one.rule.code == "BN102"]
        assert "very likely not because the input is always 0" in found.message
