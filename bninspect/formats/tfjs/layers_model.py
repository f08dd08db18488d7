"""TensorFlow.js layers models: Keras's weights by name, with the configuration of the model.

The topology is `{"keras_version", "backend", "model_config", "training_config"}` of a Keras HDF5
file (keras_h5_conversion.py of the converter), or, of a model that TensorFlow.js saved itself, the
configuration with a `keras_version` beside it (`toJSON` of tfjs-layers/src/engine/container.ts).

Weights are called LAYER/gamma, whatever models are around the layer. Those of a `.keras` file keep
the names of its HDF5 file, `layers/CLASS_K/vars/0` (`_convert_v3_group_structure_to_weights`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from bninspect.errors import Corrupt
from bninspect.formats.keras.layer_before import with_layers_before
from bninspect.formats.keras.model_config import (
    keras_layers,
    keras_model,
    layer_groups,
    optimizer_class,
)
from bninspect.formats.keras.stored_objects import Configuration, Owner
from bninspect.formats.keras.weights_h5 import stored_paths, weights_checkpoint
from bninspect.formats.tfjs.weights import TfjsWeights
from bninspect.formats.weights_file import Weights
from bninspect.model.checkpoint import JAVASCRIPT, Checkpoint, KerasLayer, KerasModel

_NUMBERED = re.compile(r"(?s)(?:(.*)/)?vars/(\d+)")
# What TensorFlow.js calls itself, `tfjs-layers 4.22.0`, is no version of Keras.
_KERAS_VERSION = re.compile(r"\d.*")

Path = tuple[str, ...]


class _Topology(NamedTuple):
    """The configuration in a topology: that of the model, and of what wrote it."""

    model: Any
    keras_version: str
    is_compiled: bool
    optimizer: str | None
    backend: str | None


def read_layers_model(
    path: str, weights: TfjsWeights, topology: Any, notes: tuple[str, ...]
) -> Checkpoint:
    """Return the checkpoint of a layers model; `path` is what the user typed.

    Raises a `ReadProblem` if its configuration is damaged, or if weights of a BN layer are missing.
    """
    try:
        stored = _topology(topology)
        model = keras_model(
            stored.model,
            is_compiled=stored.is_compiled,
            optimizer=stored.optimizer,
            backend=stored.backend,
        )
        read = _read_numbered if _is_numbered(weights.names) else _read_named
        return replace(read(path, weights, stored, model, notes), incomplete=weights.problem)
    except (TypeError, ValueError, RecursionError) as error:
        why = f" ({error})" if str(error) else ""
        raise Corrupt(
            weights.path,
            f"its modelTopology is no configuration of a Keras model{why}",
            "The file is damaged; convert the model again.",
        ) from error


def _topology(topology: Any) -> _Topology:
    if not isinstance(topology, dict):
        return _Topology(None, "", is_compiled=False, optimizer=None, backend=None)
    model = topology.get("model_config", topology)
    if isinstance(model, str):
        model = json.loads(model)
    training = topology.get("training_config")
    if training is None and isinstance(model, dict):
        training = model.get("compile_config")  # that of a `.keras` file
    version, backend = topology.get("keras_version"), topology.get("backend")
    # TensorFlow.js itself leaves out what a model was compiled with, unless it is asked not to.
    is_compiled = bool(training) or backend == JAVASCRIPT
    return _Topology(
        model,
        version if isinstance(version, str) and _KERAS_VERSION.fullmatch(version) else "",
        is_compiled=is_compiled,
        optimizer=optimizer_class(training),
        backend=backend if isinstance(backend, str) else None,
    )


def _is_numbered(names: Iterable[str]) -> bool:
    """Return whether weights have the numbers of a `.keras` file."""
    return any(_NUMBERED.fullmatch(name) for name in names)


def _read_numbered(
    path: str,
    weights: TfjsWeights,
    topology: _Topology,
    model: KerasModel | None,
    notes: tuple[str, ...],
) -> Checkpoint:
    members: dict[str, list[str]] = {}
    for name in weights.names:
        if match := _NUMBERED.fullmatch(name):
            members.setdefault(match[1] or "", []).append(match[2])
    owners = {group: Owner("", tuple(numbers)) for group, numbers in members.items()}
    groups = layer_groups(topology.model, topology.keras_version, _with_containers(owners))
    by_path = {names: group for group, names in groups.items()}

    def stored(names: Path, count: int) -> str | None:
        """Return the last of `count` variables of a layer, if it has so many."""
        numbers = members.get(by_path.get(names, ""), [])
        return f"{by_path[names]}/vars/{count - 1}" if len(numbers) == count else None

    layers = keras_layers(topology.model, topology.keras_version)
    configuration = Configuration(with_layers_before(layers, topology.model, stored), groups, model)
    return weights_checkpoint(
        path,
        weights.path,
        "tfjs",
        owners,
        dict.fromkeys(stored_paths(owners), weights),
        configuration=configuration,
        keras_version=topology.keras_version,
        notes=notes,
        close=weights.close,
    )


def _with_containers(groups: Iterable[str]) -> set[str]:
    """Return the groups, with those around them: a model may have no variables of its own."""
    parts = (group.split("/") for group in groups)
    return {"/".join(path[:end]) for path in parts for end in range(1, len(path) + 1)}


def _read_named(
    path: str,
    weights: TfjsWeights,
    topology: _Topology,
    model: KerasModel | None,
    notes: tuple[str, ...],
) -> Checkpoint:
    layers = keras_layers(topology.model, topology.keras_version)
    paths = _paths_of_layers(weights.names, layers)
    index = {layer: number for number, layer in enumerate(layers)}
    ordered = sorted(weights.names, key=lambda name: index.get(paths.get(name, ()), len(index)))
    known = {
        name: f"{'/'.join(layer)}/{name.rpartition('/')[2]}"
        for name, layer in paths.items()
        if len(layer) > 1
    }
    layers = with_layers_before(layers, topology.model, _last_of(paths))
    return Checkpoint(
        path=path,
        resolved=weights.path,
        format="tfjs",
        variables=Weights(dict.fromkeys(ordered, weights)),
        in_order=True,
        named_by="object",
        known_names=known,
        keras_layers=layers if model is not None else None,
        keras_model=model,
        keras_version=topology.keras_version,
        notes=notes,
        prefetch=lambda variables: weights.prefetch(variable.name for variable in variables),
        close=weights.close,
    )


def _paths_of_layers(names: Iterable[str], layers: Mapping[Path, KerasLayer]) -> dict[str, Path]:
    """Return the path in the model of each weight's layer, where one layer alone has its name."""
    count = Counter(path[-1] for path in layers)
    by_name = {path[-1]: path for path in layers if count[path[-1]] == 1}
    scopes = {name: name.rpartition("/")[0] for name in names}
    return {name: by_name[scope] for name, scope in scopes.items() if scope in by_name}


def _last_of(paths: Mapping[str, Path]) -> Callable[[Path, int], str | None]:
    """Return a function that gives the last of so many weights of a layer, if it has so many."""
    of_layer: dict[Path, list[str]] = {}
    for name, path in paths.items():
        of_layer.setdefault(path, []).append(name)

    def stored(path: Path, count: int) -> str | None:
        names = of_layer.get(path, [])
        is_bias = len(names) == count and names[-1].rpartition("/")[2] == "bias"
        return names[-1] if is_bias else None

    return stored
