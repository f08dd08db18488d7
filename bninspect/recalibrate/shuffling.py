"""Sorted samples, noticed by the means of batches: those differ more than by chance."""

from __future__ import annotations

import numpy as np

from bninspect.errors import RecalibrationRefused
from bninspect.recalibrate.engines import Batch, Engine

# Samples of two batches are mixed so often, and batches may be apart by so many times the farthest
# of these. With one channel, chance goes beyond it in 1 of 10,000 runs.
_MIXTURES, _FARTHEST = 12, 3.0
_LEAST_SAMPLES = 8


def require_shuffled(engine: Engine, first: Batch, last: Batch) -> None:
    """Raise `RecalibrationRefused` if the first and the last batch differ more than by chance.

    The means of each layer's input are compared with those of batches that are made of the samples
    of both, mixed. Batches of sorted samples normalize what tells these apart, so that what comes
    after the layer is no longer what it was in training.
    """
    sizes = [min(len(array) for array in batch.values()) for batch in (first, last)]
    if min(sizes) < _LEAST_SAMPLES or first.keys() != last.keys():
        return
    if any(first[name].shape[1:] != last[name].shape[1:] for name in first):
        return
    rng = np.random.default_rng(0)
    both = {name: np.concatenate([first[name], last[name]]) for name in first}
    mixed: dict[str, float] = {}
    for _ in range(_MIXTURES):
        order = rng.permutation(sum(sizes))
        halves = (
            {name: array[rows] for name, array in both.items()}
            for rows in (order[: sizes[0]], order[sizes[0] :])
        )
        apart = _apart(engine, *halves)
        mixed = {layer: max(value, mixed.get(layer, 0.0)) for layer, value in apart.items()}
    for layer, value in _apart(engine, first, last).items():
        if value > _FARTHEST * mixed[layer]:
            raise RecalibrationRefused(
                "The samples are sorted: the means of the first and the last batch differ in the"
                f" layer {layer} more than those of batches of mixed samples do; shuffle the"
                " dataset."
            )


def _apart(engine: Engine, first_batch: Batch, second_batch: Batch) -> dict[str, float]:
    """Return by layer the mean squared distance of the means, in deviations of the input."""
    distances = {}
    moments = [engine.batch_moments(batch) for batch in (first_batch, second_batch)]
    for layer in [name for name in moments[0] if name in moments[1]]:
        first, second = moments[0][layer], moments[1][layer]
        spread = first.variance + second.variance
        used = spread > 0.0
        apart = (first.mean - second.mean)[used] ** 2 / spread[used]
        distances[layer] = float(np.mean(apart)) if used.any() else 0.0
    return distances
