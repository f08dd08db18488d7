"""The engine for a live Keras model: Keras 2 and 3, on each backend.

The model is called eagerly and in inference mode, so that all but its BN layers runs as at
inference. While moments are taken, each BN layer's `call` is replaced on the layer: it takes the
moments of its input, sets them as the layer's statistics and lets the layer's own `call` normalize
by these, in inference mode. Afterwards `call` and the statistics are what they were.

What training itself stores follows keras/src/layers/normalization/batch_normalization.py: the
variance of the population in Keras 3, and in Keras 2 but for its fused kernel, which stores
n/(n - 1) of it.
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np

from bninspect.errors import RecalibrationRefused, UsageProblem
from bninspect.guard.arrays import copied_values
from bninspect.recalibrate.engines import Array, Batch, EngineLayer, InputSpec
from bninspect.recalibrate.moments import BatchMoments, merged, moments_of

_KERAS = ("keras", "tf_keras")
# Of layers that are called several times: how much of the variance may lie between the means of the
# calls, and from how many elements per call this is judged. Training stores the average over the
# calls, which then fits none of them.
_MOST_BETWEEN_CALLS, _LEAST_ELEMENTS = 0.2, 512


class LiveLayer(NamedTuple):
    """A BN layer of a live model, with its names and its object.

    `is_fixed` says that training ran it in inference mode, on its stored statistics: then it stays
    so while moments are taken.
    """

    described: EngineLayer
    layer: Any
    is_fixed: bool


def describe(
    name: str, layer: Any, moving_mean: str, moving_variance: str, *, is_fixed: bool = False
) -> LiveLayer:
    """Return a BN layer of a live model; `moving_mean` and `moving_variance` are stored names.

    A frozen layer is fixed (`call` of Keras 3's layer, `_get_training_value` of Keras 2's).
    """
    is_fused = bool(getattr(layer, "fused", False))
    return LiveLayer(
        EngineLayer(
            name,
            moving_mean,
            moving_variance,
            epsilon=float(getattr(layer, "epsilon", 1e-3)),
            unbiased=is_fused,
            why_not=_why_not(layer),
        ),
        layer,
        is_fixed or not layer.trainable,
    )


def _why_not(layer: Any) -> str | None:
    """Return why a layer's moments cannot be taken; None if they can."""
    if getattr(layer, "renorm", False):
        return "uses batch renormalization"
    if getattr(layer, "virtual_batch_size", None) is not None:
        return "uses virtual batches"
    if getattr(layer, "adjustment", None) is not None:
        return "adjusts what it normalizes"
    owner = next((cls for cls in type(layer).__mro__ if "call" in vars(cls)), type(layer))
    if owner.__module__.partition(".")[0] not in _KERAS or not hasattr(layer, "axis"):
        return "has a `call` that is not Keras's own"
    return None


class KerasModelEngine:
    """A live Keras model whose BN layers are `layers`, all of the model's or those of a file."""

    def __init__(self, model: Any, layers: Sequence[LiveLayer]) -> None:
        self._model = model
        self._layers = layers
        self._keras = keras_of(model)
        self._calls: dict[str, list[BatchMoments]] = {}
        self.framework = _framework(self._keras)

    def inputs(self) -> list[InputSpec]:
        """Return the inputs of a functional or Sequential model; none of others."""
        tensors = None
        with suppress(Exception):  # a model of its own class may raise anything
            tensors = self._model.inputs
        return [_input_spec(tensor) for tensor in tensors or ()]

    def layers(self) -> list[EngineLayer]:
        """Return the BN layers."""
        return [live.described for live in self._layers]

    def batch_moments(self, batch: Batch) -> dict[str, BatchMoments]:
        """Return the moments of each layer's input, of all its calls together."""
        recorded: dict[str, list[BatchMoments]] = {}
        with self._on_batch_statistics(recorded):
            self._run(batch)
        for name, calls in recorded.items():
            self._require_alike(name, calls)
        return {name: merged(calls) for name, calls in recorded.items()}

    def outputs(
        self,
        batch: Batch,
        *,
        statistics: Mapping[str, tuple[Array, Array]] | None = None,
        on_batch_statistics: bool = False,
    ) -> list[Array]:
        """Return the outputs at inference, as one array for each tensor."""
        if on_batch_statistics:
            with self._on_batch_statistics({}):
                return self._run(batch)
        with self._kept_statistics():
            self.assign(statistics or {})
            return self._run(batch)

    def assign(self, statistics: Mapping[str, tuple[Array, Array]]) -> None:
        """Set the statistics of the layers that `statistics` names."""
        for live in self._layers:
            if live.described.name in statistics:
                _assign(live.layer, *statistics[live.described.name])

    @contextmanager
    def _on_batch_statistics(self, recorded: dict[str, list[BatchMoments]]) -> Iterator[None]:
        """Normalize by the statistics of each batch, and record the moments of each call."""
        with self._kept_statistics():
            try:
                for live in self._layers:
                    if not live.is_fixed:
                        live.layer.__dict__["call"] = self._recorder(live, recorded)
                yield
            finally:
                for live in self._layers:
                    live.layer.__dict__.pop("call", None)

    def _recorder(
        self, live: LiveLayer, recorded: dict[str, list[BatchMoments]]
    ) -> Callable[..., Any]:
        """Return a `call` that normalizes by the moments of its input, and records them."""
        layer, name, original = live.layer, live.described.name, live.layer.call
        signature = inspect.signature(original)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            moments = self._moments(live, given.arguments["inputs"], given.arguments.get("mask"))
            recorded.setdefault(name, []).append(moments)
            if moments.count:
                _assign(layer, moments.mean, moments.variance)
            given.arguments["training"] = False
            return original(*given.args, **given.kwargs)

        call.__signature__ = signature  # type: ignore[attr-defined] # wrappers look for `training`
        return call

    def _moments(self, live: LiveLayer, inputs: Any, mask: Any) -> BatchMoments:
        """Return the moments of a layer's input over all axes but the layer's own."""
        name = live.described.name
        try:
            values = self._numpy(inputs)
            selected = None if mask is None else self._numpy(mask).astype(bool)
        except Exception as error:  # each backend has its own for a tensor without values
            raise RecalibrationRefused(
                f"The layer {name} runs inside a compiled function or a loop, where its input"
                " cannot be read."
            ) from error
        axis = live.layer.axis
        axes = sorted(place % values.ndim for place in ([axis] if isinstance(axis, int) else axis))
        if selected is not None:
            if axes != [values.ndim - 1] or selected.shape != values.shape[:-1]:
                raise RecalibrationRefused(
                    f"The layer {name} has a mask that does not fit the axes of its input."
                )
            return moments_of(values[selected])
        channels = int(np.prod([values.shape[place] for place in axes]))
        last = range(values.ndim - len(axes), values.ndim)
        return moments_of(np.moveaxis(values, axes, [*last]).reshape(-1, channels))

    def _require_alike(self, name: str, calls: list[BatchMoments]) -> None:
        """Raise `RecalibrationRefused` if a layer is called on inputs that differ too much.

        The calls of all batches so far count.
        """
        if len(calls) < 2:
            return
        known = self._calls.get(name)
        so_far = [
            merged([before, call])
            for before, call in zip(known or calls, calls, strict=len(known or calls) == len(calls))
        ]
        self._calls[name] = so_far if known else calls
        if min(call.count for call in so_far) < _LEAST_ELEMENTS:
            return
        total = merged(so_far)
        within = sum(call.variance * call.count for call in so_far) / total.count
        epsilon = next(
            live.described.epsilon for live in self._layers if live.described.name == name
        )
        between = float(np.max((total.variance - within) / (total.variance + epsilon)))
        if between > _MOST_BETWEEN_CALLS:
            raise RecalibrationRefused(
                f"The layer {name} is called {len(calls)} times on inputs so different that no one"
                " pair of statistics fits them all."
            )

    @contextmanager
    def _kept_statistics(self) -> Iterator[None]:
        """Restore the statistics of all layers at the end."""
        kept = [
            (variable, self._numpy(variable))
            for live in self._layers
            for variable in (live.layer.moving_mean, live.layer.moving_variance)
        ]
        try:
            yield
        finally:
            for variable, values in kept:
                variable.assign(values)

    def _run(self, batch: Batch) -> list[Array]:
        """Call the model eagerly in inference mode and return its outputs."""
        try:
            with _eager_functions(), warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # of names that inputs have in a structure
                result = self._model(self._arranged(batch), training=False)
                return [self._numpy(tensor) for tensor in _flattened(result)]
        except (RecalibrationRefused, MemoryError):
            raise
        except Exception as error:  # a model raises whatever it likes on inputs that do not fit
            raise UsageProblem(
                f"The model cannot be run on the samples: {first_line(error)}."
            ) from error

    def _arranged(self, batch: Batch) -> Any:
        """Return the batch as the model takes it: an array, a list or a dictionary."""
        names = [spec.name for spec in self.inputs()]
        if names and set(names) == set(batch):
            # Keras 3 and Keras 2 keep how the inputs were nested where the model is functional.
            nested = getattr(self._model, "_inputs_struct", None)
            nested = getattr(self._model, "_nested_inputs", None) if nested is None else nested
            arranged = _packed(self._model.inputs if nested is None else nested, batch)
        elif len(batch) == 1 or all(name.isdecimal() for name in batch):
            arranged = [*batch.values()]
        else:
            return dict(batch)
        is_single = isinstance(arranged, list) and len(arranged) == 1
        return arranged[0] if is_single else arranged

    def _numpy(self, tensor: Any) -> Array:
        """Return a copy of a tensor's values, bfloat16 as float32; raises if it has none yet."""
        ops = getattr(self._keras, "ops", None)
        values = ops.convert_to_numpy(tensor) if ops is not None else tensor.numpy()
        return copied_values(values)


def keras_of(model: Any) -> Any:
    """Return the module of the Keras that a model is made with.

    Raises `UsageProblem` for what is no Keras model.
    """
    for cls in type(model).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in _KERAS and root in sys.modules and callable(model):
            return sys.modules[root]
    raise UsageProblem(f"expected a Keras model, got {type(model).__name__}.")


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, without its full stop.

    Keras puts a line before it that says nothing, and colours.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Exception encountered when")]
    return (said or lines or [type(error).__name__])[0].rstrip(".:")


def _framework(keras: Any) -> str:
    backend = "tensorflow"
    if hasattr(keras, "backend") and hasattr(keras.backend, "backend"):
        backend = str(keras.backend.backend())
    version = getattr(sys.modules.get(backend), "__version__", "")
    return f"{keras.__name__} {keras.__version__}, {backend} {version}".rstrip()


@contextmanager
def _eager_functions() -> Iterator[None]:
    """Run every tf.function eagerly: inside of one, tensors have no values."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not hasattr(tensorflow, "config"):
        yield
        return
    before = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tensorflow.config.run_functions_eagerly(before)


def _assign(layer: Any, mean: Array, variance: Array) -> None:
    for variable, values in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        with np.errstate(over="ignore"):  # seen as an infinite output
            variable.assign(np.asarray(values, np.float64).reshape(tuple(variable.shape)))


def _packed(nested: Any, batch: Batch) -> Any:
    """Return the arrays of a batch, nested as the inputs of the model are."""
    if isinstance(nested, Mapping):
        return {name: _packed(member, batch) for name, member in nested.items()}
    if isinstance(nested, list | tuple):
        return [_packed(member, batch) for member in nested]
    return batch[_input_spec(nested).name]


def _flattened(result: Any) -> Iterator[Any]:
    """Yield the tensors of a nested output."""
    if isinstance(result, Mapping):
        for member in result.values():
            yield from _flattened(member)
    elif isinstance(result, list | tuple):
        for member in result:
            yield from _flattened(member)
    elif result is not None:
        yield result


def _input_spec(tensor: Any) -> InputSpec:
    """Return the input of a model by the name of its input layer, which every Keras keeps.

    Keras 3 calls the tensors of unnamed inputs `keras_tensor_1`, and anew in each process.
    """
    history = getattr(tensor, "_keras_history", None)
    producer = getattr(history, "operation", None) or getattr(history, "layer", None)
    dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
    return InputSpec(str(getattr(producer, "name", tensor.name)), tuple(tensor.shape), dtype)
