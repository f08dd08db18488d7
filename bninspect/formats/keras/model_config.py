"""The stored configuration of a Keras model, as JSON: its layers, by their path in the model.

A model's `config` is {"layers": […]} (Keras 1 and early Keras 2 Sequential: the list itself); a
wrapper such as TimeDistributed keeps its layer under "layer"; a functional model keeps the calls
of each layer under "inbound_nodes" (keras/engine/functional.py).

The weights format of Keras 3 knows no names but groups, `layers/batch_normalization_1`: the class
and how many of it came before, in the order of the configuration (keras/src/saving/saving_lib.py).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from bninspect.frozen import NamedTuple
from bninspect.model.checkpoint import KerasLayer, KerasModel

_MAX_DEPTH = 100
# The oldest Keras whose models TensorFlow saves with their objects.
_LEAST_OF_OBJECTS = "2.2.4"
_KERAS_MODULES = ("keras", "tf_keras")
_MODEL_CLASSES = ("Functional", "Model", "Sequential", "Graph")
# Keras 2.12 and 2.13 save the layers of a functional model through this attribute.
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


def keras_layers(model: Any, keras_version: str) -> dict[tuple[str, ...], KerasLayer]:
    """Return every layer below a serialized model, by its name and those of the models around it.

    Raises RecursionError for models nested deeper than any real one.
    """
    # Keras 3's fit overrides a training=False of the definition; Keras 2 keeps to it.
    fixed_mode = keras_version.startswith("2.")
    updated = _updates_frozen_layers(keras_version)
    whole = KerasLayer("", True, inference_only=False, config={}, always_updated=updated)
    return dict(_walk(model, (), whole, fixed_mode=fixed_mode))


def keras_model(
    model: Any, *, is_compiled: bool, optimizer: str | None = None, backend: str | None = None
) -> KerasModel | None:
    """Return the whole model of a serialized model; None if it is no model.

    In `.keras` files the module shows whether the class is Keras's; an `.h5` has only the name of
    the class, with the package of one that the user registered (`Custom>Net`).
    """
    if not isinstance(model, dict) or not isinstance(model.get("class_name"), str):
        return None
    stored_name = model["class_name"]
    registered = model.get("registered_name", stored_name if ">" in stored_name else None)
    if "module" in model:
        has_own_class = str(model["module"]).partition(".")[0] not in _KERAS_MODULES
    else:
        has_own_class = stored_name not in _MODEL_CLASSES
    return KerasModel(
        _class_name(model),
        has_own_class,
        is_compiled,
        registered_name=registered if isinstance(registered, str) and has_own_class else None,
        optimizer=optimizer,
        backend=backend,
    )


def optimizer_class(training: Any) -> str | None:
    """Return the class of the optimizer in the stored arguments of `compile`, None without one.

    That is the name that `compile` was given, if it was given one. `.h5` files keep it as
    `optimizer_config`, `.keras` files as `optimizer`.
    """
    if not isinstance(training, dict):
        return None
    stored = training.get("optimizer_config") or training.get("optimizer")
    if isinstance(stored, dict):
        stored = stored.get("class_name")
    return stored.rpartition(">")[2] if isinstance(stored, str) else None


class ModelObjects(NamedTuple):
    """The configuration that Keras stored of a model: BN layers by name, and the whole.

    `keras_version` is empty if none is stored.
    """

    layers: Mapping[tuple[str, ...], KerasLayer]
    model: KerasModel | None = None
    keras_version: str = ""


def read_objects(stored: Iterable[tuple[str, bytes]]) -> ModelObjects:
    """Return what is stored, given pairs of an object's name and its JSON ("" is the model).

    A layer's own JSON has no calls; those are in the model's, which names inner layers otherwise.
    Raises ValueError for what is not JSON, or a model nested deeper than any real one.
    """
    whole: dict[tuple[str, ...], KerasLayer] = {}
    layers = {}
    model, version = None, ""
    for name, encoded in stored:
        if name and b'"momentum"' not in encoded:
            continue  # no BN layer
        try:
            document = json.loads(encoded)
            if not name:
                whole = keras_layers(document, _LEAST_OF_OBJECTS)
                model, version = _model_of_object(document)
        except (TypeError, RecursionError) as error:
            raise ValueError from error
        config = document.get("config") if isinstance(document, dict) else None
        if name and isinstance(config, dict):
            trainable = document.get("trainable", config.get("trainable", True))
            layers[tuple(name.split("/"))] = KerasLayer(
                class_name=_class_name(document),
                trainable=trainable is not False,
                inference_only=False,
                config=config,
            )
    named: dict[str, list[KerasLayer]] = {}
    for path, layer in whole.items():
        named.setdefault(path[-1], []).append(layer)
    layers = {
        path: _with_calls(layer, named.get(str(layer.config.get("name")), []))
        for path, layer in layers.items()
    }
    return ModelObjects(layers, model, version)


def _model_of_object(document: Any) -> tuple[KerasModel | None, str]:
    """Return what the metadata of a SavedModel says about its model, and its version of Keras.

    None and an empty string if it is no model: a layer may be saved alone. The layout is that of
    keras/src/saving/legacy/saved_model/model_serialization.py of Keras 2.
    """
    if not isinstance(document, dict) or "is_graph_network" not in document:
        return None, ""
    version, backend = document.get("keras_version"), document.get("backend")
    training = document.get("training_config")
    model = keras_model(
        document,
        is_compiled=bool(training),
        optimizer=optimizer_class(training),
        backend=backend if isinstance(backend, str) else None,
    )
    return model, version if isinstance(version, str) else ""


def _with_calls(layer: KerasLayer, same_name: list[KerasLayer]) -> KerasLayer:
    """Return the layer with its calls in the model, if just one layer of the model has its name."""
    if len(same_name) != 1:
        return layer
    (in_model,) = same_name
    return layer._replace(
        trainable=layer.trainable and in_model.trainable,
        inference_only=in_model.inference_only,
        called_in_inference=in_model.called_in_inference,
        calls=in_model.calls,
    )


def _walk(
    node: Any, path: tuple[str, ...], around: KerasLayer, *, fixed_mode: bool
) -> Iterator[tuple[tuple[str, ...], KerasLayer]]:
    """Yield the layer `node` and all below it; they inherit from the model `around` them."""
    if len(path) > _MAX_DEPTH:
        raise RecursionError
    config = node.get("config") if isinstance(node, dict) else None
    if isinstance(config, list):
        config = {"layers": config}
    if not isinstance(config, dict):
        return
    calls = node.get("inbound_nodes")
    in_inference = around.called_in_inference or _calls_say_inference(calls)
    layer = KerasLayer(
        class_name=_class_name(node),
        trainable=around.trainable and config.get("trainable", True) is not False,
        inference_only=fixed_mode and in_inference,
        called_in_inference=in_inference,
        config=config,
        calls=around.calls * (len(calls) if isinstance(calls, list) and calls else 1),
        always_updated=around.always_updated,
        built_in=_is_built_in(node),
    )
    if path:
        yield path, layer
    children = config.get("layers")
    children = [*children] if isinstance(children, list) else []
    children.append(config.get("layer"))
    for child in children:
        if isinstance(child, dict):
            yield from _walk(child, (*path, _name(child)), layer, fixed_mode=fixed_mode)


def _is_built_in(node: dict[str, Any]) -> bool:
    """Return whether the class of a layer is Keras's own.

    Only `.keras` files store this: the module that exports the class, and no registered name
    (`serialize_keras_object` of keras/src/saving/serialization_lib.py, as in Keras 2.12).
    """
    module = str(node.get("module")).partition(".")[0]
    return module in _KERAS_MODULES and node.get("registered_name") is None


def _updates_frozen_layers(version: str) -> bool:
    """Return whether this Keras updates the averages of a layer that is not trainable.

    So did all before 2.1.3 (its release notes; keras/layers/normalization.py, keras/engine/
    topology.py: `Layer.updates`). Whole models name their version since Keras 1.0.7.
    """
    numbers = [int(number) for number in re.findall(r"\d+", version[:20])[:3]]
    return numbers < [2, 1, 3]


def _name(node: dict[str, Any]) -> str:
    config = node.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return str(name or node.get("name"))


def _calls_say_inference(calls: Any) -> bool:
    """Return whether every call passes training=False.

    Keras 2 stores a call as tensors, [layer, node, tensor, arguments] each; Keras 3 as
    {"args": […], "kwargs": {…}}.
    """
    if not isinstance(calls, list) or not calls:
        return False
    arguments = [stored for call in calls for stored in _arguments(call)]
    return all(isinstance(a, dict) and a.get("training", True) is False for a in arguments)


def _arguments(call: Any) -> Iterator[Any]:
    """Yield the stored keyword arguments of a call, of Keras 2 those beside each tensor."""
    if isinstance(call, dict):
        yield call.get("kwargs")
        return
    for tensor in call if isinstance(call, list) else [None]:
        yield tensor[3] if isinstance(tensor, list) and len(tensor) > 3 else None


def layer_groups(
    model: Any, keras_version: str, groups: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the layer of each group of a weights file: group → names, as in `keras_layers`.

    `groups` are those of the file. A layer that the file keeps elsewhere (one shared by two
    models) is left out; so is, up to Keras 2, all of a class whose number is not that of the file.
    """
    children: dict[str, list[str]] = {}
    for group in groups:
        container, _, name = group.rpartition("/")
        children.setdefault(container, []).append(name)
    return dict(_groups_below(model, "", (), children, keras_version.startswith("2.")))


def _groups_below(
    node: Any, group: str, names: tuple[str, ...], children: dict[str, list[str]], keras_2: bool
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the groups of the layers below `node`, which has its own variables at `group`."""
    if len(names) > _MAX_DEPTH:
        raise RecursionError
    config = node.get("config") if isinstance(node, dict) else None
    if not isinstance(config, dict):
        return
    below: list[tuple[str, Any]] = []
    if isinstance(config.get("layer"), dict):
        below.append((_below(group, "layer"), config["layer"]))
    layers = config.get("layers")
    layers = (
        [child for child in layers if isinstance(child, dict)] if isinstance(layers, list) else []
    )
    for container in (_below(group, name) for name in _CONTAINERS):
        if container in children:
            numbered = _ranked if keras_2 else _counted
            below += [
                (_below(container, name), child)
                for name, child in numbered(layers, children[container])
            ]
    for child_group, child in below:
        path = (*names, _name(child))
        yield child_group, path
        yield from _groups_below(child, child_group, path, children, keras_2)


def _counted(layers: list[Any], _: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the layers as Keras 3 numbers them: by those of the same class before them."""
    count: Counter[str] = Counter()
    for layer in layers:
        base = snake_case(_class_name(layer))
        yield (f"{base}_{count[base]}" if count[base] else base), layer
        count[base] += 1


def _ranked(layers: list[Any], present: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the layers as Keras 2 numbers them, by their rank: it leaves numbers out.

    2.12 and 2.13 count every layer twice.
    """
    by_class: dict[str, list[Any]] = {}
    for layer in layers:
        base = snake_case(_class_name(layer), "(.)([A-Z][a-z0-9]+)")
        by_class.setdefault(base, []).append(layer)
    for base, of_class in by_class.items():
        matches = [re.fullmatch(rf"{re.escape(base)}(?:_(\d{{1,9}}))?", name) for name in present]
        ranked = sorted((int(match[1] or 0), match[0]) for match in matches if match)
        if len(ranked) == len(of_class):
            yield from zip((name for _, name in ranked), of_class, strict=True)


def _class_name(layer: dict[str, Any]) -> str:
    return str(layer.get("class_name")).rpartition(">")[2]


def snake_case(class_name: str, words: str = "(.)([A-Z][a-z]+)") -> str:
    """Return a class's name as its group has it: keras/src/utils/naming.py.

    Keras 2 takes other `words` (generic_utils.py).
    """
    name = re.sub(r"\W+", "", class_name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub(words, r"\1_\2", name)).lower()


def _below(group: str, name: str) -> str:
    return f"{group}/{name}" if group else name
