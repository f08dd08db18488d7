"""Engines: what runs a model on batches, with its stored statistics or with those of each batch.

TensorFlow and Keras are imported in this package alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from bninspect.recalibrate.moments import BatchMoments

Array = NDArray[Any]
# The samples of one batch by the name of the model's input.
Batch = Mapping[str, Array]


class InputSpec(NamedTuple):
    """An input of a model that can be fed: None in `shape` stands for any size.

    `shape` includes the batch axis; it is None where the rank is not known. `dtype` is numpy's
    name of the element type.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


class EngineLayer(NamedTuple):
    """A BN layer of a model that can be run.

    `name` is that of `find_layers`. `moving_mean` and `moving_variance` are the names of its
    variables as stored in the file. `unbiased` says that the framework stores n/(n - 1) times the
    variance of the population. `why_not` is why its moments cannot be taken, a clause that begins
    in lower case (`uses virtual batches`); None if they can.
    """

    name: str
    moving_mean: str
    moving_variance: str
    epsilon: float
    unbiased: bool
    why_not: str | None = None


class Engine(Protocol):
    """A model that can be run: with its stored statistics, or with those of each batch.

    `framework` names the frameworks and their versions: `keras 3.15.1, tensorflow 2.21.0`.
    """

    framework: str

    def inputs(self) -> Sequence[InputSpec]:
        """Return the inputs that samples can be fed to; empty where the model tells none."""
        ...

    def layers(self) -> Sequence[EngineLayer]:
        """Return the BN layers in the order of the network."""
        ...

    def batch_moments(self, batch: Batch) -> dict[str, BatchMoments]:
        """Return the moments of each layer's input by the layer's name.

        All BN layers normalize by the statistics of the batch, and everything else runs as at
        inference: dropout and augmentation are off. Raises `UsageProblem` if the model cannot be
        run on the batch, `RecalibrationRefused` if the moments turn out to be no good.
        """
        ...

    def outputs(
        self,
        batch: Batch,
        *,
        statistics: Mapping[str, tuple[Array, Array]] | None = None,
        on_batch_statistics: bool = False,
    ) -> list[Array]:
        """Return the model's outputs at inference.

        BN layers normalize by their stored statistics; those named in `statistics` by this mean and
        variance; with `on_batch_statistics` all of them by those of the batch.
        """
        ...
