"""What a stored Keras configuration says about a BN layer: momentum, epsilon, initial values.

The initializers are those of keras/src/initializers/constant_initializers.py; any other one is
random, and then no value is the initial one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bninspect.model import BNLayer, Checkpoint, KerasLayer, Role

_INITIALIZERS: dict[Role, str] = {
    "gamma": "gamma_initializer",
    "beta": "beta_initializer",
    "moving_mean": "moving_mean_initializer",
    "moving_variance": "moving_variance_initializer",
}
_CONSTANTS = {"zeros": 0.0, "zero": 0.0, "ones": 1.0, "one": 1.0}

KerasLayers = Mapping[tuple[str, ...], KerasLayer]


def with_keras_config(layer: BNLayer, checkpoint: Checkpoint) -> BNLayer:
    """The layer with what the stored configuration says of it, if it says anything."""
    if checkpoint.keras_layers is None:
        return layer
    keras = _configuration(checkpoint.keras_layers, tuple(layer.name.split("/")))
    if keras is None:
        return layer
    initial = dict(layer.initial)
    for role, option in _INITIALIZERS.items():
        if option in keras.config:
            initial[role] = _initial_values(keras.config[option])
    return replace(
        layer,
        keras=keras,
        initial=initial,
        momentum=_number(keras.config.get("momentum")),
        epsilon=_number(keras.config.get("epsilon")),
    )


def _configuration(layers: KerasLayers, path: tuple[str, ...]) -> KerasLayer | None:
    """The configuration of the BN layer whose weights lie at `path`.

    HDF5 group paths leave out inner models, wrap a layer (TimeDistributed) or number its name
    once more, so the exact path is tried first and then each of these, if it is unambiguous.
    """
    found = {key: layer for key, layer in layers.items() if "momentum" in layer.config}
    if path in found:
        return found[path]
    # The names of Keras 2 may hold a slash themselves (`conv1/bn` of its DenseNet).
    whole = [key for key in found if "/".join(key) == "/".join(path)]
    if len(whole) == 1:
        return found[whole[0]]
    for candidates in (
        [key for key in found if (key[0], key[-1]) == (path[0], path[-1])],
        [key for key in found if key == path[:-1]],
        [key for key in found if key[:-1] == path],
    ):
        if len(candidates) == 1:
            return found[candidates[0]]
    return None


def _initial_values(initializer: Any) -> tuple[float, ...]:
    """The value an initializer gives, or nothing for a random one."""
    options: Any = {}
    if isinstance(initializer, dict):
        options = initializer.get("config") or {}
        initializer = initializer.get("class_name")
    name = str(initializer).rpartition(">")[2].lower()
    if name == "constant" and isinstance(options, dict):
        value = _number(options.get("value", 0.0))
        return () if value is None else (value,)
    return (_CONSTANTS[name],) if name in _CONSTANTS else ()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no limit
        return None
    return number if math.isfinite(number) else None
