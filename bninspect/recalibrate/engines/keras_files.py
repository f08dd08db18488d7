"""The engine for whole models of Keras, `.keras` and `.h5`: loaded by the user's Keras.

Keras 3 loads what Keras 3 wrote, tf_keras or a Keras 2 what older ones wrote. Stored code is not
run: safe_mode is on, and a Lambda with stored code is refused before Keras sees it, since older
versions run it from `.h5` files whatever safe_mode says.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bninspect.errors import UsageProblem
from bninspect.guard.live_layers import find_bn_layers, live_values
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.layer import BNLayer
from bninspect.model.roles import Role
from bninspect.recalibrate.engines import EngineLayer
from bninspect.recalibrate.engines.frameworks import import_framework
from bninspect.recalibrate.engines.keras_model import (
    KerasModelEngine,
    LiveLayer,
    describe,
    first_line,
)
from bninspect.storage.urls import is_url

_ENDS = {"keras-zip": ".keras", "keras-h5": ".h5"}
_BUILD = "build the model, load the weights, and call bninspect.keras.recalibrate(model, dataset)"


def open_keras_model(checkpoint: Checkpoint, layers: Sequence[BNLayer]) -> KerasModelEngine:
    """Return the engine for a whole model of Keras.

    Raises `UsageProblem` if no Keras that can load it is installed, if it holds code, or if that
    Keras cannot load it.
    """
    if is_url(checkpoint.resolved):
        raise UsageProblem(f"{checkpoint.path} is a URL: copy the file here to run its model.")
    if _holds_code([layer.config for layer in (checkpoint.keras_layers or {}).values()]):
        raise UsageProblem(
            f"{checkpoint.path} holds code (a Lambda layer), which is not run: {_BUILD}."
        )
    keras = _keras_for(checkpoint)
    model = _load(keras, checkpoint)
    return KerasModelEngine(model, _matched(model, layers))


def _holds_code(config: Any) -> bool:
    """Return whether a configuration has a serialized Python function.

    Keras 2 stores `function` as [code, defaults, closure] (tf_keras/src/utils/generic_utils.py,
    func_dump), Keras 3 a dictionary of the class `__lambda__`.
    """
    if isinstance(config, Mapping):
        if config.get("class_name") == "__lambda__" or "lambda" in (
            config.get("function_type"),
            config.get("output_shape_type"),
        ):
            return True
        return any(map(_holds_code, config.values()))
    return isinstance(config, list | tuple) and any(map(_holds_code, config))


def _keras_for(checkpoint: Checkpoint) -> Any:
    """Return the module of a Keras that loads what wrote the file."""
    is_keras_3 = checkpoint.keras_version.startswith("3")
    candidates = ("keras",) if is_keras_3 else ("tf_keras", "keras")
    problems = []
    for name in candidates:
        try:
            module = import_framework(name)
        except ImportError as error:
            problems.append(f"{name} cannot be imported ({first_line(error)})")
            continue
        if _version(module.__version__) < _version(checkpoint.keras_version):
            problems.append(f"{name} is of version {module.__version__}")
            continue
        return module
    wanted = "a Keras 3 as new" if is_keras_3 else "a tf_keras or Keras as new"
    raise UsageProblem(
        f"{checkpoint.path} was written by Keras {checkpoint.keras_version or '2 or older'}, and"
        f" needs {wanted} to be run: {' and '.join(problems)}. Install it with: pip install -U"
        f" {candidates[0]} tensorflow."
    )


def _version(text: str) -> list[int]:
    """Return the first two numbers of a version; none where it has none."""
    return [int(number) for number in re.findall(r"\d+", text[:20])[:2]]


def _load(keras: Any, checkpoint: Checkpoint) -> Any:
    with _called(checkpoint.resolved, _ENDS[checkpoint.format]) as path:
        try:
            return keras.models.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises what its layers do
            raise UsageProblem(
                f"{keras.__name__} {keras.__version__} cannot load {checkpoint.path}"
                f" ({first_line(error)}). If it has classes of your own: {_BUILD}."
            ) from error


@contextmanager
def _called(path: str, end: str) -> Iterator[str]:
    """Yield a name of the file that ends as Keras wants it: it tells formats by the name."""
    if path.endswith((end, ".hdf5") if end == ".h5" else end):
        yield path
        return
    with tempfile.TemporaryDirectory() as directory:
        link = os.path.join(directory, f"model{end}")
        os.symlink(os.path.abspath(path), link)
        yield link


def _matched(model: Any, layers: Sequence[BNLayer]) -> list[LiveLayer]:
    """Return the live layers of a loaded model with the names that they have in the file.

    A live layer is that of the file whose values it has; of several, the one of its name.
    """
    live = [(name, layer, live_values(layer)) for name, layer in find_bn_layers(model)]
    matched = []
    for stored in layers:
        alike = [(name, layer) for name, layer, values in live if _same_values(stored, values)]
        if len(alike) > 1:
            alike = _same_name(stored.name, alike) or alike
        mean, variance = (
            stored.variables[role].name if role in stored.variables else ""
            for role in ("moving_mean", "moving_variance")
        )
        if len(alike) == 1:
            is_fixed = stored.keras is not None and stored.keras.inference_only
            layer = describe(stored.name, alike[0][1], mean, variance, is_fixed=is_fixed)
            matched.append(layer)
        else:
            unknown = _unknown(stored, mean, variance, len(alike))
            matched.append(LiveLayer(unknown, None, is_fixed=True))
    return matched


def _unknown(stored: BNLayer, mean: str, variance: str, alike: int) -> EngineLayer:
    why_not = (
        f"has the same values as {alike} layers of the model that was loaded"
        if alike
        else "has other values than every layer of the model that was loaded"
    )
    return EngineLayer(
        stored.name, mean, variance, stored.usual_epsilon, unbiased=False, why_not=why_not
    )


def _same_name(name: str, alike: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the layers of exactly this name, else those whose names end alike."""
    exact = [named_layer for named_layer in alike if named_layer[0] == name]
    last = name.rpartition("/")[2]
    return exact or [
        named_layer for named_layer in alike if named_layer[0].rpartition("/")[2] == last
    ]


def _same_values(stored: BNLayer, values: Mapping[Role, Any]) -> bool:
    """Return whether a live layer has exactly the members and values of the stored one."""
    if set(stored.values) != set(values):
        return False
    return all(
        np.array_equal(statistics.array.reshape(-1), values[role].reshape(-1), equal_nan=True)
        for role, statistics in stored.values.items()
    )
