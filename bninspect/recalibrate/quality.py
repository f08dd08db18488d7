"""Quality of outputs: how well they fit the labels, and how far those of two modes are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import UsageProblem
from bninspect.model.recalibration import OutputChange, Quality
from bninspect.recalibrate.engines import Array

Mode = Literal["training", "before", "after"]
# How many standard errors a difference on the labels must be, to prove anything.
_SIGNIFICANT = 2.0


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of each sample in three modes, more is better: shares that are right, or -loss.

    `after` is None until it is known.
    """

    measure: Literal["accuracy", "loss"]
    training: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64] | None = None

    @property
    def gain(self) -> float:
        """How much better batch statistics are than the stored ones, on average."""
        return float(np.mean(_difference(self.training, self.before)))

    @property
    def gain_after(self) -> float:
        """Return by how much the new statistics are better than the old ones, on average."""
        if self.after is None:
            return 0.0
        return float(np.mean(_difference(self.after, self.before)))

    @property
    def is_significant(self) -> bool:
        """Return whether batch statistics are better more often than by chance (a sign test)."""
        apart = _difference(self.training, self.before)
        better, worse = np.count_nonzero(apart > 0.0), np.count_nonzero(apart < 0.0)
        return bool(better - worse > _SIGNIFICANT * np.sqrt(better + worse)) and self.gain > 0.0

    def value(self, mode: Mode) -> float:
        """Return the accuracy or the loss in a mode."""
        scores = {"training": self.training, "before": self.before, "after": self.after}[mode]
        mean = float(np.mean(scores)) if scores is not None else float("nan")
        return mean if self.measure == "accuracy" else -mean

    def describe(self, mode: Mode) -> str:
        """Return the accuracy or the loss in a mode, in words."""
        value = self.value(mode)
        return f"accuracy {value:.1%}" if self.measure == "accuracy" else f"loss {value:.4g}"

    @property
    def quality(self) -> Quality:
        """The averages over the samples."""
        return Quality(
            self.measure, self.value("training"), self.value("before"), self.value("after")
        )


def _difference(scores: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much scores are better; one that is not finite is worse than any other."""
    worst = -1e300
    first, second = (
        np.nan_to_num(values, nan=worst, neginf=worst, posinf=worst) for values in (scores, others)
    )
    difference: NDArray[np.float64] = first - second
    return difference


class _Fit(NamedTuple):
    """The output that labels belong to, and how they are compared with it."""

    output: int
    kind: Literal["classes", "one-hot", "binary", "values"]


def compare(
    labels: Array,
    training: Sequence[Array],
    before: Sequence[Array],
    after: Sequence[Array] | None = None,
) -> Comparison:
    """Return how well the outputs of each mode fit the labels.

    The labels belong to the first output that they fit: numbers of classes, one-hot rows, 0 and 1
    for one output, or values of the output's shape, whose loss is the mean squared error. Raises
    `UsageProblem` if they fit none.
    """
    fit = _fit(labels, training)
    modes = [training, before, *([] if after is None else [after])]
    chosen = [np.asarray(outputs[fit.output], np.float64) for outputs in modes]
    # Probabilities, unless an output of any mode says otherwise: then logits.
    threshold = 0.5 if all(_within_one(outputs) for outputs in chosen) else 0.0
    scores = [_scores(fit.kind, labels, outputs, threshold) for outputs in chosen]
    measure: Literal["accuracy", "loss"] = "loss" if fit.kind == "values" else "accuracy"
    return Comparison(measure, scores[0], scores[1], scores[2] if after is not None else None)


def _fit(labels: Array, outputs: Sequence[Array]) -> _Fit:
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise UsageProblem(
            "Some labels are NaN or infinity: leave out the samples that they belong to."
        )
    for number, output in enumerate(outputs):
        kind = _kind(labels, output)
        if kind is not None:
            return _Fit(number, kind)
    shapes = " and ".join(str(list(output.shape)) for output in outputs)
    raise UsageProblem(
        f"The labels, of shape {list(labels.shape)} and type {labels.dtype}, fit no output of the"
        f" model ({shapes}): give numbers of classes, one-hot rows, values of the output's"
        " shape, or no labels."
    )


def _kind(labels: Array, output: Array) -> Literal["classes", "one-hot", "binary", "values"] | None:
    """Return how labels are compared with an output; None if they do not fit it."""
    if labels.dtype.kind not in "biuf" or not output.ndim or len(labels) != len(output):
        return None
    squeezed = _squeezed(labels, output.ndim - 1)
    classes = output.shape[-1] if output.ndim > 1 else 1
    is_whole = bool((labels == np.floor(labels)).all())
    if classes > 1 and squeezed.shape == output.shape[:-1] and is_whole:
        return "classes" if labels.min() >= 0 and labels.max() < classes else None
    if labels.shape == output.shape and classes > 1:
        return "one-hot" if _is_one_hot(labels) else "values"
    if classes == 1 and squeezed.size == output.size:
        return "binary" if bool(np.isin(labels, (0, 1)).all()) else "values"
    return "values" if labels.shape == output.shape else None


def _squeezed(labels: Array, rank: int) -> Array:
    """Return labels without a last axis of one element, if that gives them the rank."""
    return labels[..., 0] if labels.ndim == rank + 1 and labels.shape[-1] == 1 else labels


def _is_one_hot(labels: Array) -> bool:
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=-1) == 1).all())


def _within_one(output: Array) -> bool:
    return bool(((output >= 0.0) & (output <= 1.0)).all())


def _scores(
    kind: str, labels: Array, output: NDArray[np.float64], threshold: float
) -> NDArray[np.float64]:
    """Return the score of each sample, of shape (samples,)."""
    right: NDArray[Any]
    if kind == "classes":
        right = output.argmax(axis=-1) == _squeezed(labels, output.ndim - 1)
    elif kind == "one-hot":
        right = output.argmax(axis=-1) == labels.argmax(axis=-1)
    elif kind == "binary":
        right = (output > threshold) == labels.reshape(output.shape).astype(bool)
    else:
        with np.errstate(all="ignore"):
            right = -((output - labels.reshape(output.shape)) ** 2)
    scores: NDArray[np.float64] = right.reshape(len(right), -1).astype(np.float64).mean(axis=1)
    return scores


def output_change(
    training: Sequence[Array], before: Sequence[Array], after: Sequence[Array]
) -> OutputChange:
    """Return how far outputs moved, and how far they were and are from those in training mode."""
    flat = [_flat(outputs) for outputs in (training, before, after)]
    scale = float(np.sqrt(np.mean((flat[0] - flat[0].mean(axis=0)) ** 2))) or 1.0
    with np.errstate(all="ignore"):
        apart = [
            float(np.sqrt(np.mean((values - other) ** 2))) / scale
            for values, other in ((flat[1], flat[2]), (flat[1], flat[0]), (flat[2], flat[0]))
        ]
    predictions = [_predictions(outputs[0]) for outputs in (training, before, after)]
    same: list[float | None] = [None, None]
    if predictions[0] is not None:
        same = [float(np.mean(predictions[0] == values)) for values in predictions[1:]]
    return OutputChange(len(flat[0]), *apart, *same)


def _flat(outputs: Sequence[Array]) -> NDArray[np.float64]:
    """Return all outputs as one array of shape (samples, values)."""
    rows = [np.asarray(output, np.float64).reshape(len(output), -1) for output in outputs]
    return np.concatenate(rows, axis=1)


def _predictions(output: Array) -> Array | None:
    """Return the number of the largest output of each sample; None where there is one alone."""
    if output.ndim < 2 or output.shape[-1] < 2:
        return None
    return np.asarray(output.argmax(axis=-1))
