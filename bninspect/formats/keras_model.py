"""The stored configuration of a Keras model, as JSON: its layers, by their path in the model.

A model's `config` is {"layers": […]} (Keras 1 and early Keras 2 Sequential: the list itself); a
wrapper such as TimeDistributed keeps its layer under "layer"; a functional model keeps the calls
of each layer under "inbound_nodes" (keras/engine/functional.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from bninspect.model import KerasLayer

_MAX_DEPTH = 100


def keras_layers(model: Any, keras_version: str) -> dict[tuple[str, ...], KerasLayer]:
    """Every layer below a serialized model by the names of the models around it and its own.

    Raises RecursionError for models nested deeper than any person's.
    """
    # Keras 3's fit overrides a training=False of the definition; Keras 2 keeps to it.
    fixed_mode = keras_version.startswith("2.")
    whole = KerasLayer("", trainable=True, inference_only=False, config={})
    return dict(_walk(model, (), whole, fixed_mode=fixed_mode))


def layers_of_objects(stored: Iterable[tuple[str, bytes]]) -> dict[tuple[str, ...], KerasLayer]:
    """BN layers by name from (name of an object, the JSON stored for it); "" is the whole model.

    A layer's own JSON has no calls; those are in the model's, which names inner layers otherwise.
    Raises ValueError for what is not JSON, or a model nested deeper than any person's.
    """
    whole: dict[tuple[str, ...], KerasLayer] = {}
    found = {}
    for name, encoded in stored:
        if name and b'"momentum"' not in encoded:
            continue  # no BN layer
        try:
            told = json.loads(encoded)
            whole = whole if name else keras_layers(told, "2.")
        except (TypeError, RecursionError) as error:
            raise ValueError from error
        config = told.get("config") if isinstance(told, dict) else None
        if name and isinstance(config, dict):
            trainable = told.get("trainable", config.get("trainable", True))
            found[tuple(name.split("/"))] = KerasLayer(
                class_name=str(told.get("class_name")),
                trainable=trainable is not False,
                inference_only=False,
                config=config,
            )
    named: dict[str, list[KerasLayer]] = {}
    for path, layer in whole.items():
        named.setdefault(path[-1], []).append(layer)
    return {
        path: _with_calls(layer, named.get(str(layer.config.get("name")), []))
        for path, layer in found.items()
    }


def _with_calls(layer: KerasLayer, same_name: list[KerasLayer]) -> KerasLayer:
    """The layer with what the model says of it, if just one layer of the model has its name."""
    if len(same_name) != 1:
        return layer
    (told,) = same_name
    return layer._replace(
        trainable=layer.trainable and told.trainable,
        inference_only=told.inference_only,
        calls=told.calls,
    )


def _walk(
    node: Any, path: tuple[str, ...], around: KerasLayer, *, fixed_mode: bool
) -> Iterator[tuple[tuple[str, ...], KerasLayer]]:
    """The layer `node` and all below it; what holds for the model `around` it holds for it."""
    if len(path) > _MAX_DEPTH:
        raise RecursionError
    config = node.get("config") if isinstance(node, dict) else None
    if isinstance(config, list):
        config = {"layers": config}
    if not isinstance(config, dict):
        return
    calls = node.get("inbound_nodes")
    layer = KerasLayer(
        class_name=str(node.get("class_name")),
        trainable=around.trainable and config.get("trainable", True) is not False,
        inference_only=around.inference_only or (fixed_mode and _calls_say_inference(calls)),
        config=config,
        calls=around.calls * (len(calls) if isinstance(calls, list) and calls else 1),
    )
    if path:
        yield path, layer
    children = config.get("layers")
    children = [*children] if isinstance(children, list) else []
    children.append(config.get("layer"))
    for child in children:
        if isinstance(child, dict):
            yield from _walk(child, (*path, _name(child)), layer, fixed_mode=fixed_mode)


def _name(node: dict[str, Any]) -> str:
    config = node.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return str(name or node.get("name"))


def _calls_say_inference(calls: Any) -> bool:
    """Whether every call, a list of [layer, node, tensor, arguments], passes training=False."""
    if not isinstance(calls, list) or not calls:
        return False
    arguments = [
        tensor[3] if isinstance(tensor, list) and len(tensor) > 3 else None
        for call in calls
        for tensor in (call if isinstance(call, list) else [None])
    ]
    return all(isinstance(a, dict) and a.get("training", True) is False for a in arguments)
