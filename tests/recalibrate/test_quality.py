"""Outputs against labels, and against those of another mode."""

from __future__ import annotations

import numpy as np
import pytest

from bninspect.errors import UsageProblem
from bninspect.recalibrate.quality import compare, output_change

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 200)
RIGHT = np.eye(3)[Y] * 0.9 + 0.03
WRONG = np.roll(RIGHT, 1, axis=1)
HALF = np.where(np.arange(200)[:, None] % 2, RIGHT, WRONG)


@pytest.mark.parametrize("labels", [Y, Y[:, None], Y.astype("f4"), np.eye(3)[Y]])
def test_classes_in_any_form_give_the_accuracy(labels: np.ndarray) -> None:
    comparison = compare(labels, [RIGHT], [HALF], [RIGHT])
    assert comparison.quality == ("accuracy", 1.0, 0.5, 1.0)
    assert comparison.gain == 0.5
    assert comparison.is_significant


@pytest.mark.parametrize("low", [0.0, -3.0])
def test_one_output_is_a_probability_or_a_logit(low: float) -> None:
    y = np.arange(100) % 2
    outputs = np.where(y == 1, 0.7, low + 0.3)[:, None]
    assert compare(y, [outputs], [1.0 - outputs if low == 0.0 else -outputs]).quality[1] == 1.0


def test_values_have_a_loss() -> None:
    y = RNG.normal(size=(50, 2))
    comparison = compare(y, [y + 0.1], [y + 1.0], [y])
    assert comparison.quality.measure == "loss"
    np.testing.assert_allclose(comparison.quality[1:], [0.01, 1.0, 0.0], atol=1e-12)
    assert comparison.gain > 0.9
    assert comparison.describe("before") == "loss 1"


def test_every_pixel_counts() -> None:
    y = RNG.integers(0, 3, (20, 4, 4))
    right = np.eye(3)[y]
    half = right.copy()
    half[:, :2] = np.roll(half[:, :2], 1, axis=-1)
    assert compare(y, [right], [half]).quality[1:3] == (1.0, 0.5)


def test_labels_belong_to_the_output_that_they_fit() -> None:
    assert compare(Y, [np.zeros((200, 2, 2)), RIGHT], [np.zeros((200, 2, 2)), WRONG]).gain == 1.0


@pytest.mark.parametrize("labels", [Y[:, None, None], Y + 5, np.array(["a"] * 200)])
def test_labels_that_fit_nothing_are_a_sentence(labels: np.ndarray) -> None:
    with pytest.raises(UsageProblem, match="fit no output of the model"):
        compare(labels, [RIGHT], [RIGHT])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_labels_that_are_no_numbers_are_a_sentence(value: float) -> None:
    with pytest.raises(UsageProblem, match="Some labels are NaN or infinity"):
        compare(np.where(RIGHT > 0.5, value, 0.0), [RIGHT], [RIGHT])


def test_a_small_difference_proves_nothing() -> None:
    almost = RIGHT.copy()
    almost[:2] = WRONG[:2]
    assert not compare(Y, [RIGHT], [almost]).is_significant


def test_outputs_are_measured_in_deviations_of_those_on_batch_statistics() -> None:
    training = RNG.normal(0.0, 2.0, (1000, 4))
    change = output_change([training], [training + 6.0], [training + 0.2])
    assert change.samples == 1000
    np.testing.assert_allclose(change.moved, 5.8 / 2.0, rtol=0.05)
    np.testing.assert_allclose(change.apart_before, 3.0, rtol=0.05)
    np.testing.assert_allclose(change.apart_after, 0.1, rtol=0.05)
    assert change.same_before == change.same_after == 1.0


def test_one_output_has_no_prediction() -> None:
    outputs = [RNG.normal(size=(30, 1))]
    change = output_change(outputs, outputs, outputs)
    assert change.same_before is None
    assert change.moved == 0.0


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e200])
def test_outputs_that_exploded_are_worse_than_any_other(broken: float) -> None:
    y = RNG.normal(size=(100, 1))
    exploded = np.full((100, 1), broken)
    comparison = compare(y, [y + 0.1], [exploded], [y])
    assert comparison.is_significant
    assert comparison.gain > 0.0
    assert comparison.gain_after > 0.0
    assert compare(y, [exploded], [y]).gain < 0.0
    assert not compare(y, [exploded], [exploded]).is_significant


def test_one_far_sample_does_not_decide() -> None:
    y = RNG.normal(size=(100, 1))
    far = y + 1.0
    far[3] = 1e6
    assert compare(y, [y + 0.1], [far]).is_significant
    assert not compare(
        y, [y + 0.1], [np.where(np.arange(100)[:, None] == 3, far, y)]
    ).is_significant
