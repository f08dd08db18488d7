"""The procedure on a model that can be run: estimate statistics, and compare outputs in each mode.

What reads and writes files is in `files`; what live models need besides is in `live`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from bninspect.errors import RecalibrationRefused, UsageProblem
from bninspect.model.layer import BNLayer
from bninspect.model.recalibration import RecalibratedLayer, Recalibration
from bninspect.recalibrate import refusals
from bninspect.recalibrate.engines import Array, Batch, Engine, EngineLayer
from bninspect.recalibrate.moments import FloatArray, PooledMoments
from bninspect.recalibrate.quality import compare, output_change
from bninspect.recalibrate.shuffling import require_shuffled
from bninspect.wording import listed

# Outputs in each mode are compared on so many samples, and on all batches that these are in; on
# fewer if their outputs take so many bytes (a segmentation has a class for each pixel).
_COMPARED = 2048
_MOST_BYTES = 1 << 28

Statistics = Mapping[str, tuple[FloatArray, FloatArray]]
Item = tuple[Batch, Array | None]
# (what is done, batches, their number if it is known) → the same batches, shown when each is done.
Progress = Callable[[str, Iterable[Item], int | None], Iterable[Item]]


class Batches(Protocol):
    """Batches with their labels (None without any)."""

    @property
    def is_shuffled(self) -> bool:
        """Return whether the samples are known to be shuffled."""
        ...

    @property
    def batches(self) -> int | None:
        """The number of batches; None if it is not known."""
        ...

    def __iter__(self) -> Iterator[Item]:
        """Yield each batch with its labels."""
        ...

    def first(self, samples: int) -> Iterable[Item]:
        """Return the first batches, the same each time: so many samples if there are as many."""
        ...


class Estimate(NamedTuple):
    """New statistics by the name of the layer, and the result so far."""

    statistics: Statistics
    result: Recalibration


class _Outputs(NamedTuple):
    """Outputs in one mode, for all compared samples together."""

    arrays: list[Array]
    labels: Array | None


def estimate(
    engine: Engine,
    batches: Batches,
    layers: Sequence[BNLayer],
    proof: str | None,
    *,
    force: bool,
    progress: Progress,
    result: Recalibration,
    against: str | None = None,
) -> Estimate:
    """Return new statistics for `layers`, and `result` with what was found.

    `proof` is that of batch mode, None if there is none. Raises `RecalibrationRefused` if the
    statistics would not cure the model or are not precise enough.
    """
    described = _described(engine, layers)
    pooled = {layer.name: PooledMoments() for layer in layers}
    count = _pool(engine, progress("moments", batches, batches.batches), pooled)
    refusals.require_batches(count.batches, count.samples)
    if not batches.is_shuffled:
        require_shuffled(engine, count.first, count.last)
    outputs = partial(_outputs, engine, batches.first(_COMPARED), progress)
    before = outputs("outputs before")
    training = outputs("outputs on batch statistics", on_batches=True)
    quality = None
    if training.labels is not None:
        quality = compare(training.labels, training.arrays, before.arrays)
    proof = refusals.require_proof(proof, quality, force=force, against=against)
    recalibrated = tuple(
        _recalibrated(layer, described[layer.name], pooled[layer.name]) for layer in layers
    )
    counts = {name: moments.count for name, moments in pooled.items()}
    refusals.require_precise(recalibrated, count.samples, counts)
    refusals.require_storable(layers, recalibrated)
    statistics = {layer.name: (layer.mean, layer.variance) for layer in recalibrated}
    after = outputs("outputs after", statistics=statistics)
    if training.labels is not None:
        quality = compare(training.labels, training.arrays, before.arrays, after.arrays)
        refusals.require_better(quality)
    return Estimate(
        statistics,
        replace(
            result,
            framework=engine.framework,
            samples=count.samples,
            batches=count.batches,
            layers=recalibrated,
            outputs=output_change(training.arrays, before.arrays, after.arrays)
            if training.arrays
            else None,
            quality=None if quality is None else quality.quality,
            proof=proof,
        ),
    )


class _Count(NamedTuple):
    """How much a pass went through: its batches and samples, and the first and the last batch."""

    batches: int
    samples: int
    first: Batch
    last: Batch


def _pool(engine: Engine, batches: Iterable[Item], pooled: Mapping[str, PooledMoments]) -> _Count:
    """Add the moments of all batches to those of the layers."""
    samples = number = 0
    first: Batch = {}
    batch: Batch = {}
    for batch, _ in batches:
        first = first or batch
        for name, moments in engine.batch_moments(batch).items():
            if name in pooled:
                pooled[name].add(moments)
        samples += _size(batch)
        number += 1
    return _Count(number, samples, first, batch)


def _described(engine: Engine, layers: Sequence[BNLayer]) -> dict[str, EngineLayer]:
    """Return the engine's layers by name; raises `RecalibrationRefused` if one cannot be run.

    All BN layers of the model have to be run on batch statistics, whichever are chosen.
    """
    described = {layer.name: layer for layer in engine.layers()}
    if missing := [layer.name for layer in layers if layer.name not in described]:
        raise RecalibrationRefused(f"The model that was loaded has no layer {listed(missing)}.")
    for layer in described.values():
        if layer.why_not is not None:
            raise RecalibrationRefused(
                f"The layer {layer.name} {layer.why_not}: its statistics cannot be re-estimated."
            )
    return described


def _recalibrated(
    layer: BNLayer, described: EngineLayer, pooled: PooledMoments
) -> RecalibratedLayer:
    """Return a layer with its new statistics, as the framework would store them."""
    before = layer.values["moving_mean"].array.astype(np.float64)
    variance_before = layer.values["moving_variance"].array.astype(np.float64)
    if not pooled.count:
        nothing = np.full(before.shape, np.nan)
        return RecalibratedLayer(
            layer.name, before, variance_before, nothing, nothing, np.nan, np.nan
        )
    if pooled.mean.shape != before.shape:
        raise UsageProblem(
            f"The layer {layer.name} normalizes {len(pooled.mean)} channels, but"
            f" {len(before)} are stored."
        )
    variance = pooled.variance
    if described.unbiased and pooled.count > 1:
        variance = variance * (pooled.count / (pooled.count - 1))
    return RecalibratedLayer(
        layer.name,
        before,
        variance_before,
        pooled.mean,
        variance,
        float(np.max(pooled.mean_errors(described.epsilon))),
        float(np.max(pooled.variance_errors(described.epsilon))),
    )


def _outputs(
    engine: Engine,
    batches: Iterable[Item],
    progress: Progress,
    step: str,
    *,
    statistics: Statistics | None = None,
    on_batches: bool = False,
) -> _Outputs:
    """Return the outputs on all batches, at least one, until they take `_MOST_BYTES`.

    An output without one row for each sample is left out.
    """
    collected: list[list[Array]] = []
    labels: list[Array] = []
    sizes: list[int] = []
    size_in_bytes = 0
    for batch, batch_labels in progress(step, batches, None):
        outputs = engine.outputs(batch, statistics=statistics, on_batch_statistics=on_batches)
        collected.append(outputs)
        sizes.append(_size(batch))
        if batch_labels is not None:
            labels.append(np.asarray(batch_labels))
        size_in_bytes += sum(output.nbytes for output in outputs)
        if size_in_bytes >= _MOST_BYTES:
            break
    joined = [
        np.concatenate(parts)
        for parts in zip(*collected, strict=True)
        if all(part.ndim and len(part) == size for part, size in zip(parts, sizes, strict=True))
        and len({part.shape[1:] for part in parts}) == 1
    ]
    return _Outputs(joined, np.concatenate(labels) if labels else None)


def _size(batch: Batch) -> int:
    """Return the number of samples in a batch: the length of its arrays."""
    return max((len(array) for array in batch.values() if np.ndim(array)), default=0)


def without_progress(_: str, batches: Iterable[Item], __: int | None) -> Iterable[Item]:
    """Return the batches, and show nothing."""
    return batches
