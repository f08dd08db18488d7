"""Moments of batches, pooled: against numpy on all elements at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.recalibrate.moments import BatchMoments, PooledMoments, moments_of

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=200)


@given(SIZES, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e4, -1e6]))
def test_pooled_moments_are_those_of_all_elements(sizes: list[int], seed: int, far: float) -> None:
    values = np.random.default_rng(seed).normal(far, 3.0, (sum(sizes), 3))
    pooled = PooledMoments()
    for batch in np.split(values, np.cumsum(sizes)[:-1]):
        pooled.add(moments_of(batch))
    assert pooled.batches == len(sizes)
    assert pooled.count == len(values)
    np.testing.assert_allclose(pooled.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(pooled.variance, values.var(axis=0), rtol=1e-8, atol=1e-12)


def test_moments_of_many_elements_are_computed_in_chunks() -> None:
    values = np.random.default_rng(0).normal(1000.0, 0.01, (3_000_000, 1)).astype("f4")
    moments = moments_of(values)
    np.testing.assert_allclose(moments.mean, values.astype("f8").mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, values.astype("f8").var(axis=0), rtol=1e-9)


def test_float16_is_summed_without_overflow() -> None:
    moments = moments_of(np.full((1000, 2), 60000.0, "f2"))
    assert moments.mean.tolist() == [60000.0 - 60000.0 % 32] * 2
    assert moments.variance.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("batches", [30, 500])
def test_standard_errors_tell_how_far_estimates_are_from_the_truth(batches: int) -> None:
    rng = np.random.default_rng(1)
    channels, size = 400, 10
    pooled = PooledMoments()
    for _ in range(batches):
        pooled.add(moments_of(rng.normal(5.0, 2.0, (size, channels))))
    mean_off = np.abs(pooled.mean - 5.0) / 2.0
    variance_off = np.abs(pooled.variance - 4.0) / 4.0
    # About two of three estimates are within one standard error of the truth.
    assert 0.6 < np.mean(mean_off < pooled.mean_errors(0.0)) < 0.76
    assert 0.6 < np.mean(variance_off < pooled.variance_errors(0.0)) < 0.76


def test_sorted_samples_have_large_standard_errors() -> None:
    values = np.sort(np.random.default_rng(2).normal(size=(1000, 1)), axis=0)
    errors = []
    for order in (values, np.random.default_rng(3).permutation(values)):
        pooled = PooledMoments()
        for batch in np.split(order, 20):
            pooled.add(moments_of(batch))
        errors.append(pooled.mean_errors(0.0)[0])
    assert errors[0] > 4 * errors[1]


def test_one_batch_has_no_finite_standard_error() -> None:
    pooled = PooledMoments()
    pooled.add(moments_of(np.ones((8, 2))))
    assert np.isinf(pooled.mean_errors(1e-3)).all()
    assert np.isinf(pooled.variance_errors(1e-3)).all()


def test_a_batch_without_elements_counts_for_nothing() -> None:
    pooled = PooledMoments()
    pooled.add(BatchMoments(np.zeros(2), np.zeros(2), 0))
    assert pooled.batches == 0
    with pytest.raises(ValueError, match="no batch"):
        _ = pooled.mean


def test_nan_stays_nan() -> None:
    moments = moments_of(np.array([[1.0, np.nan], [2.0, 3.0]]))
    assert moments.mean[0] == 1.5
    assert np.isnan(moments.mean[1])
