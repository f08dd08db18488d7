"""Immutable data types of a recalibration: what became of each layer and of the outputs. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Range(NamedTuple):
    """The smallest and the largest value of a statistic over the channels."""

    minimum: float
    maximum: float


class RecalibratedLayer(NamedTuple):
    """A layer with new statistics, all arrays of shape (C,) and type float64.

    `mean_error` is the worst standard error of a mean, in deviations of the channel;
    `variance_error` that of a variance, as a share of variance + epsilon.
    """

    name: str
    mean_before: NDArray[Any]
    variance_before: NDArray[Any]
    mean: NDArray[Any]
    variance: NDArray[Any]
    mean_error: float
    variance_error: float


class Quality(NamedTuple):
    """How well outputs fit the labels, in three modes.

    `measure` is `accuracy` (more is better) or `loss` (less is better). `training` is with batch
    statistics, `before` and `after` are at inference.
    """

    measure: str
    training: float
    before: float
    after: float


class OutputChange(NamedTuple):
    """The outputs at inference before and after, on `samples` samples.

    `moved` is the root of the mean squared distance between the outputs before and after, in
    standard deviations of the outputs in training mode; `apart_before` and `apart_after` are their
    distances from those in training mode, likewise. `same_before` and `same_after` are the shares
    of samples whose prediction is the same as in training mode; None where outputs are no scores
    of classes.
    """

    samples: int
    moved: float
    apart_before: float
    apart_after: float
    same_before: float | None = None
    same_after: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Recalibration:
    """The result of a recalibration.

    `path` is the model as typed, `output` the file that was written, None for a dry run, a live
    model or a refusal. `refusal` says in one sentence why nothing was changed; None if it was not
    refused. `framework` ran the model. `layers` are those with new statistics, `kept` the names of
    those that keep theirs. `proof` says why it is taken for a model that was trained with batch
    statistics. `notes` are sentences on the samples and the model.
    """

    path: str
    framework: str = ""
    output: str | None = None
    refusal: str | None = None
    dry_run: bool = False
    samples: int = 0
    batches: int = 0
    layers: tuple[RecalibratedLayer, ...] = ()
    kept: tuple[str, ...] = ()
    outputs: OutputChange | None = None
    quality: Quality | None = None
    proof: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether statistics were re-estimated."""
        return self.refusal is None

    def __repr__(self) -> str:
        if self.refusal is not None:
            return f"<Recalibration {self.path}: refused: {self.refusal}>"
        return (
            f"<Recalibration {self.path}: {len(self.layers)} BN layers re-estimated from"
            f" {self.samples} samples>"
        )
