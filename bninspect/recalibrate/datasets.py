"""Batches of a dataset that a live model is trained with: arrays, or an iterable of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from bninspect.errors import UsageProblem
from bninspect.recalibrate.engines import Array, Batch, InputSpec
from bninspect.recalibrate.estimate import Batches, Item
from bninspect.recalibrate.samples import Column, choose_samples

_LABELS = "labels"
# Batches that are kept in memory to compare outputs on them.
_MOST_BYTES = 1 << 30


def open_dataset(
    dataset: Any, specs: Sequence[InputSpec], *, batch: int, most: int | None
) -> Batches:
    """Return the batches of a dataset, `most` samples at most (whole batches of an iterable).

    Arrays (one, a list or a dictionary of inputs, or a tuple of inputs and labels) are shuffled and
    cut into batches of about `batch`. Anything else is an iterable of batches: inputs, or a tuple
    of inputs, labels and weights, as `fit` takes. Raises `UsageProblem` for anything else.
    """
    inputs, labels = _split(dataset)
    if _is_array(inputs) or _holds_arrays(inputs):
        arrays = named(inputs)
        if labels is not None:
            arrays = {**arrays, _LABELS: _array(labels, "The labels are")}
        columns = {name: Column(name, [array]) for name, array in arrays.items()}
        names = {spec.name for spec in specs}
        # Inputs without names are in the order of the model's; the engine knows it.
        known = specs if names and names == arrays.keys() - {_LABELS} else ()
        given = _LABELS if labels is not None else None
        return choose_samples(columns, known, labels=given, batch=batch, most=most)
    if not hasattr(dataset, "__iter__") and not _is_indexed(dataset):
        raise UsageProblem(
            f"expected arrays or an iterable of batches, got {type(dataset).__name__}."
        )
    return DatasetBatches(dataset, most)


def _split(element: Any) -> tuple[Any, Any]:
    """Return the inputs and the labels of what `fit` takes as (inputs, labels, weights)."""
    if isinstance(element, tuple):
        return element[0], element[1] if len(element) > 1 else None
    return element, None


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _holds_arrays(value: Any) -> bool:
    """Return whether a value is a list or a dictionary of arrays, and no iterable of batches."""
    members = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, list | Mapping) and bool(value) and all(map(_is_array, members))


def _is_indexed(dataset: Any) -> bool:
    """Return whether batches are taken by their numbers: a Sequence or PyDataset of Keras."""
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def named(inputs: Any) -> Batch:
    """Return inputs by their names, or by their numbers where they have none."""
    if isinstance(inputs, Mapping):
        return {str(name): _array(value) for name, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return {str(number): _array(value) for number, value in enumerate(inputs)}
    return {"0": _array(inputs)}


def _array(value: Any, what: str = "A batch has") -> Array:
    """Return a tensor of any framework as an array; raises `UsageProblem` if it cannot be one."""
    try:
        array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    except Exception as error:  # ragged and sparse tensors of several frameworks
        raise UsageProblem(f"{what} a {type(value).__name__}, not an array.") from error
    if array.dtype == object or not array.ndim:
        raise UsageProblem(f"{what} a {type(value).__name__}, not an array of samples.")
    return array


class DatasetBatches:
    """The batches of an iterable, in the order in which they come.

    An iterator, which can be run through only once, is kept in memory.
    """

    is_shuffled = False

    def __init__(self, dataset: Any, most: int | None) -> None:
        is_iterator = iter(dataset) is dataset if hasattr(dataset, "__iter__") else False
        if most is None and _is_endless(dataset):
            raise UsageProblem("The dataset never ends: give the number of samples to take.")
        self._most = most
        self._dataset = [*self._limited(dataset)] if is_iterator else dataset

    @property
    def batches(self) -> int | None:
        """The number of batches; None where it is not known, or limited by the samples."""
        if self._most is None:
            with suppress(Exception):  # tf.data raises TypeError for an unknown length
                return len(self._dataset)
        return None

    def __iter__(self) -> Iterator[Item]:
        """Yield each batch with its labels, None without any."""
        for element in self._limited(self._dataset):
            inputs, labels = _split(element)
            yield named(inputs), None if labels is None else _array(labels, "The labels are")

    def first(self, samples: int) -> Iterable[Item]:
        """Return the first batches: so many samples, or those that fit into `_MOST_BYTES`.

        They are kept in memory: a dataset that is shuffled yields others the next time.
        """
        kept: list[Item] = []
        count = size_in_bytes = 0
        for batch, labels in self:
            if count >= samples or size_in_bytes >= _MOST_BYTES:
                break
            kept.append((batch, labels))
            count += len(next(iter(batch.values())))
            size_in_bytes += sum(array.nbytes for array in batch.values())
        return kept

    def _limited(self, dataset: Any) -> Iterator[Any]:
        """Yield the elements of a dataset until they have `most` samples or more."""
        count = 0
        for element in _elements(dataset):
            if self._most is not None and count >= self._most:
                return
            yield element
            inputs, _ = _split(element)
            count += len(next(iter(named(inputs).values())))


def _elements(dataset: Any) -> Iterator[Any]:
    """Yield the batches of a dataset once."""
    if _is_indexed(dataset) and not isinstance(dataset, list | tuple):
        return (dataset[number] for number in range(len(dataset)))
    return iter(dataset)


def _is_endless(dataset: Any) -> bool:
    """Return whether a dataset of tf.data repeats for ever (cardinality -1)."""
    with suppress(Exception):
        return int(dataset.cardinality()) == -1
    return False
