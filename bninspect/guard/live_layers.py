"""BN layers of a live Keras model: find them, read their variables and their configuration.

Layers are found as in files, by their variables: a layer that keeps moving_mean and
moving_variance, at any depth. No Keras is imported; the model may be one of any Keras.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bninspect.batchnorm.families import FAMILIES
from bninspect.batchnorm.measure import measure
from bninspect.evidence.keras_config import configured
from bninspect.formats.keras.model_config import keras_layers
from bninspect.guard.arrays import copied_values
from bninspect.guard.live_model import is_of_keras, keras_version, stored_facts
from bninspect.model.checkpoint import KerasLayer, Variable
from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES, STATISTICS, Role

_KERAS = next(family for family in FAMILIES if family.name == "keras")


def read_layers(model: Any, config_of: Callable[[Any], Mapping[str, Any]]) -> tuple[BNLayer, ...]:
    """Return the BN layers of a live model with copies of their current values.

    `config_of` returns the configuration of a layer.
    """
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # on JAX, fit keeps the values outside the model's variables
    keras_model = stored_facts(model)
    layers = [
        replace(_bn_layer(name, layer, config_of(layer)), keras_model=keras_model)
        for name, layer in find_bn_layers(model)
    ]
    members = [
        (variable.read(), layer.initial.get(role, ()))
        for layer in layers
        for role, variable in layer.variables.items()
    ]
    with np.errstate(all="ignore"):  # values that are not finite are a finding (BN301)
        measured = iter(measure(members))
    return tuple(
        replace(layer, values={role: next(measured) for role in layer.variables})
        for layer in layers
    )


def find_bn_layers(model: Any) -> list[tuple[str, Any]]:
    """Return the BN layers of a live model with their unique names, in the order of the model."""
    return _named(_find_layers(model))


def live_values(layer: Any) -> dict[Role, NDArray[Any]]:
    """Return the values of the members of a live layer; bfloat16 as float32."""
    return {role: copied_values(array) for role, array in _members(layer).items()}


def _members(layer: Any) -> dict[Role, NDArray[Any]]:
    """Return the members of a live layer as the framework gives them."""
    arrays = dict(zip(map(id, layer.weights), layer.get_weights(), strict=True))
    members = {role: arrays.get(id(getattr(layer, role, None))) for role in ROLES}
    return {role: np.asarray(array) for role, array in members.items() if array is not None}


def layer_config(layer: Any) -> Mapping[str, Any]:
    """Return a layer's configuration: momentum, epsilon and initializers.

    Falls back to the attributes `momentum` and `epsilon` where `get_config` fails.
    """
    try:
        config = layer.get_config()
    except Exception:  # a user's own method may raise anything
        config = None
    if isinstance(config, dict):
        return config
    return {name: getattr(layer, name, None) for name in ("momentum", "epsilon")}


def with_calls(layers: Sequence[BNLayer], model: Any) -> list[BNLayer]:
    """Return the layers with how functional models call them, by the configurations of these."""
    called: dict[str, KerasLayer] = {}
    for path, part in (("", model), *find_every_layer(model)):
        if path not in called:  # the model around it tells more
            stored = _stored_layers(part).items()
            called |= {"/".join(filter(None, (path, *names))): layer for names, layer in stored}
    return [
        replace(
            layer,
            keras=layer.keras._replace(
                inference_only=called[layer.name].inference_only,
                called_in_inference=called[layer.name].called_in_inference,
                calls=called[layer.name].calls,
            ),
        )
        if layer.keras and layer.name in called
        else layer
        for layer in layers
    ]


def _stored_layers(model: Any) -> Mapping[tuple[str, ...], KerasLayer]:
    """Return the layers in the configuration of a model; none for one that gives none."""
    if not hasattr(model, "to_json"):
        return {}
    try:
        return keras_layers(json.loads(model.to_json()), keras_version(model))
    except Exception:  # Keras refuses some models, and a user's own method may raise anything
        return {}


def _find_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and the layer of each BN layer, once each, in the order of the model."""
    return ((path, layer) for path, layer in find_every_layer(model) if _keeps_statistics(layer))


def find_every_layer(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and the layer of each layer below a model, in the order of the model."""
    seen = {id(model)}
    pending: list[tuple[str, Any]] = [("", model)]
    while pending:
        path, layer = pending.pop()
        if path:
            yield path, layer
        children = []
        # Keras has no public way to the layers inside a layer; Keras 2 and 3 share this one.
        for child in layer._flatten_layers(recursive=False, include_self=False):  # noqa: SLF001
            if id(child) not in seen:
                seen.add(id(child))
                children.append((f"{path}/{child.name}" if path else child.name, child))
        pending += reversed(children)


def _named(found: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the layers with unique names: layers of one path are numbered."""
    layers = list(found)
    total = Counter(path for path, _ in layers)
    count: Counter[str] = Counter()
    named = []
    for path, layer in layers:
        count[path] += 1
        number = f"#{count[path]}of{total[path]}" if total[path] > 1 else ""
        named.append((path + number, layer))
    return named


def _keeps_statistics(layer: Any) -> bool:
    """Return whether a layer owns both statistics. Before it is built it does not."""
    members = [getattr(layer, role, None) for role in STATISTICS]
    if any(member is None for member in members):
        return False
    own = {id(variable) for variable in layer.weights}
    return all(id(member) in own for member in members)


def _bn_layer(name: str, layer: Any, config: Mapping[str, Any]) -> BNLayer:
    """Build the `BNLayer` of a live layer, without measured values."""
    variables = {
        role: _variable(f"{name}/{role}", array) for role, array in _members(layer).items()
    }
    keras = KerasLayer(
        class_name=type(layer).__name__,
        trainable=bool(layer.trainable),
        inference_only=False,
        config=config,
        built_in=is_of_keras(type(layer)),
    )
    bn_layer = BNLayer(
        name=name,
        family=_KERAS.name,
        variables=variables,
        initial=_KERAS.initial,
        usual_epsilon=_KERAS.epsilon,
        keras_version=keras_version(layer),
    )
    return configured(bn_layer, keras)


def _variable(name: str, array: NDArray[Any]) -> Variable:
    values = copied_values(array)
    return Variable(name, array.shape, array.dtype.name, lambda: values)
