"""The layer before a BN layer by the stored configuration of a Keras model.

A Sequential model lists its layers in order. A functional one stores the calls of each layer under
"inbound_nodes": Keras 2 as [layer, node, tensor, arguments], Keras 3 as tensors with a
"keras_history" of the same (keras/engine/functional.py, keras/src/models/functional.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bninspect.model.checkpoint import KerasLayer, PreviousLayer

Path = tuple[str, ...]

_MAX_DEPTH = 100
# Layers that end by adding a bias, unless they have an activation; the number of their variables.
_VARIABLES = {
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D", "Conv3D"), 2),
    **dict.fromkeys(("Convolution1D", "Convolution2D", "Convolution3D"), 2),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), 2),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), 2),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), 3),
}


def with_layers_before(
    layers: Mapping[Path, KerasLayer], model: Any, stored: Callable[[Path, int], str | None]
) -> dict[Path, KerasLayer]:
    """Return the layers, BN layers with the layer before them and the stored name of its bias.

    `stored` gives the stored name of the last of so many variables of a layer, None if it is not
    one for certain.
    """
    with_before = dict(layers)
    for path, before in _layers_before(model, ()):
        layer, biased = layers.get(path), layers.get(before)
        if layer is None or biased is None or "momentum" not in layer.config:
            continue
        with_before[path] = layer._replace(
            before=PreviousLayer("/".join(before), biased.class_name)
        )
        is_linear = biased.config.get("activation") in (None, "linear")
        count = _VARIABLES.get(biased.class_name)
        if count and is_linear and biased.config.get("use_bias", True) is True:
            with_before[path] = with_before[path]._replace(bias_before=stored(before, count))
    return with_before


def _layers_before(model: Any, path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each layer of a model with the one layer whose output it takes, by their paths."""
    config = model.get("config") if isinstance(model, dict) else None
    children = config if isinstance(config, list) else None
    if isinstance(config, dict):
        children = config.get("layers")
    if len(path) > _MAX_DEPTH or not isinstance(children, list):
        return
    layers = [child for child in children if isinstance(child, dict)]
    in_order = not any(child.get("inbound_nodes") for child in layers)
    previous: str | None = None
    for child in layers:
        name = _name(child)
        before = previous if in_order else _producer(child.get("inbound_nodes"))
        if before is not None:
            yield (*path, name), (*path, before)
        yield from _layers_before(child, (*path, name))
        previous = name


def _producer(calls: Any) -> str | None:
    """Return the layer whose output every call takes, None if there are several."""
    names = {name for call in _listed(calls) for name in _producers(call)}
    return names.pop() if len(names) == 1 else None


def _producers(call: Any) -> Iterator[str]:
    """Yield the layers whose outputs one call takes."""
    if isinstance(call, dict):
        for tensor in _listed(call.get("args")):
            config = tensor.get("config") if isinstance(tensor, dict) else None
            history = config.get("keras_history") if isinstance(config, dict) else None
            yield str(history[0]) if isinstance(history, list) and history else ""
    for tensor in _listed(call):
        yield str(tensor[0]) if isinstance(tensor, list) and tensor else ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _name(layer: Mapping[str, Any]) -> str:
    config = layer.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return str(name or layer.get("name"))
