"""Facts about BN layers from a stored Keras configuration: momentum, epsilon, initial values.

The initializers are those of keras/src/initializers/constant_initializers.py; any other one is
random, and then no value is the initial one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from bninspect.model.checkpoint import Checkpoint, KerasLayer
from bninspect.model.layer import BNLayer
from bninspect.model.roles import Role

_INITIALIZERS: dict[Role, str] = {
    "gamma": "gamma_initializer",
    "beta": "beta_initializer",
    "moving_mean": "moving_mean_initializer",
    "moving_variance": "moving_variance_initializer",
}
# The classes of BN of Keras 1 to 3 and of tf.keras in TensorFlow 1 and 2.
_BN_CLASSES = (
    "BatchNormalization",
    "BatchNormalizationV1",
    "BatchNormalizationV2",
    "SyncBatchNormalization",
)
_CONSTANTS = {"zeros": 0.0, "zero": 0.0, "ones": 1.0, "one": 1.0}

Key = TypeVar("Key", bound=Hashable)
KerasLayers = Mapping[tuple[str, ...], KerasLayer]


def with_keras_config(layers: Iterable[BNLayer], checkpoint: Checkpoint) -> list[BNLayer]:
    """Return the layers, each with the settings of its stored configuration, if there is one."""
    layers = [*layers]
    model, version = checkpoint.keras_model, checkpoint.keras_version
    if version or model is not None:
        layers = [replace(layer, keras_model=model, keras_version=version) for layer in layers]
    if checkpoint.keras_layers is None:
        return layers
    configurations = _Configurations(checkpoint.keras_layers)
    by_group = checkpoint.format in ("keras-h5", "tfjs")
    found = [(one, configurations.of(one.name, by_group=by_group)) for one in layers]
    layers = [configured(layer, keras) for layer, keras in found]
    own_classes = (_own_class(layer, checkpoint) for layer in layers)
    return [
        layer if own is None else replace(layer, own_class=own)
        for layer, own in zip(layers, own_classes, strict=True)
    ]


def _own_class(layer: BNLayer, checkpoint: Checkpoint) -> str | None:
    """Return the class of a layer if the configuration shows that it is none of Keras's.

    The configuration of an own class need not have a momentum. `.keras` files store the module of
    each class, the others its name alone; there a wrapper around the layer may have its name.
    """
    stored = layer.keras or (checkpoint.keras_layers or {}).get(tuple(layer.name.split("/")))
    if stored is None or stored.built_in:
        return None
    if checkpoint.format == "keras-zip":
        return stored.class_name
    is_around = "layer" in stored.config or "layers" in stored.config
    return None if is_around or stored.class_name in _BN_CLASSES else stored.class_name


def configured(layer: BNLayer, keras: KerasLayer | None) -> BNLayer:
    """Return the layer with the settings of its configuration."""
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


class _Configurations:
    """The configurations of the BN layers of a model, by every name that a file may use."""

    def __init__(self, layers: KerasLayers) -> None:
        self._exact = {path: layer for path, layer in layers.items() if "momentum" in layer.config}
        exact = self._exact.items()
        # The names of Keras 2 may hold a slash themselves (`conv1/bn` of its DenseNet).
        self._spelt = _unambiguous(("/".join(path), layer) for path, layer in exact)
        self._ends = _unambiguous(((path[0], path[-1]), layer) for path, layer in exact)
        self._inside = _unambiguous((path[:-1], layer) for path, layer in exact)

    def of(self, name: str, *, by_group: bool) -> KerasLayer | None:
        """Return the configuration of the layer of this name, or None.

        Group paths of Keras's `.h5` leave out inner models, number a name once more, or wrap a
        layer (TimeDistributed): with `by_group` each of these is tried, too.
        """
        path = tuple(name.split("/"))
        layer = self._exact.get(path) or self._spelt.get(name)
        if layer or not by_group:
            return layer
        ends = self._ends.get((path[0], path[-1]))
        return ends or self._exact.get(path[:-1]) or self._inside.get(path)


def _unambiguous(pairs: Iterable[tuple[Key, KerasLayer]]) -> dict[Key, KerasLayer]:
    """Return the layers by key, without the keys that several layers have."""
    by_key: dict[Key, KerasLayer | None] = {}
    for key, layer in pairs:
        by_key[key] = None if key in by_key else layer
    return {key: layer for key, layer in by_key.items() if layer is not None}


def _initial_values(initializer: Any) -> tuple[float, ...]:
    """Return the value that an initializer gives, or nothing for a random one."""
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
