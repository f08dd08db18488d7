"""Keras HDF5 files, whole models and weights only: `.h5`, `.hdf5`.

Layout (keras/src/legacy/saving/legacy_h5_format.py, keras/engine/saving.py of Keras 2,
keras/engine/topology.py of Keras 1):

    [model_weights/]        attributes layer_names, backend, keras_version
      LAYER/                attribute weight_names: paths of the layer's weights below the group
        …/moving_mean:0     a dataset each
    optimizer_weights/      attribute weight_names: the optimizer's variables
    attributes model_config, training_config, keras_version on the root: JSON, JSON, text

An attribute too large for an HDF5 header is cut into NAME0, NAME1, …. Weights are taken in the
order of these attributes, which is the order of the network. Other datasets in a layer's group are
searched only if the attribute may leave out statistics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from bninspect.errors import Corrupt
from bninspect.formats.hdf5.file import Hdf5, join
from bninspect.formats.hdf5.structure import DAMAGED
from bninspect.formats.keras.layer_before import with_layers_before
from bninspect.formats.keras.model_config import (
    keras_layers,
    keras_model,
    optimizer_class,
    snake_case,
)
from bninspect.formats.keras.roles import called
from bninspect.formats.weights_file import Weights
from bninspect.model.checkpoint import Checkpoint, KerasLayer, KerasModel
from bninspect.storage.source import Look
from bninspect.wording import listed

_NORMS = ("batch-norm", "bn", "norm")
# The last part of a weight's name, with the layer's before it in Keras 1: `bn1_running_mean_1:0`.
_AFFINE = r"(?:.*_)?(?:gamma|beta)(?:_\d+)?(?::\d+)?"
_STATISTIC = r"(?:.*_)?(?:moving_mean|moving_variance|running_mean|running_std)(?:_\d+)?(?::\d+)?"


def read_hdf5(path: str, file: Hdf5, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Return the checkpoint in an HDF5 file, in whichever of Keras's two layouts it has.

    Raises and closes as `read_keras_h5`.
    """
    if is_keras_h5(file):
        return read_keras_h5(path, file, notes)
    from bninspect.formats.keras.weights_h5 import read_keras_weights

    return read_keras_weights(path, file, notes)


def is_keras_h5(file: Hdf5) -> bool:
    """Return whether a file has this layout: Keras names the layers in every file it writes."""
    file.prefetch_looks([partial(_looks_at_all, file)])
    root = _root(file)
    return any(file.has_attribute(root, name) for name in ("layer_names", "layer_names0"))


def read_keras_h5(path: str, file: Hdf5, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Return the checkpoint in a file of this layout; `path` is what the user typed.

    Raises a `ReadProblem` if the file's attributes name weights that are not there, or if it
    refers to other files. Closing the checkpoint closes the file.
    """
    config = _model_config(file)
    layers = None if config is None else _layers(file, config)
    paths, left_out = _model_weights(file, layers or {})
    if layers is not None:
        with _faults_of_config(file):
            layers = with_layers_before(layers, config, partial(_stored_bias, _biases(file, paths)))
    if left_out:
        notes = (*notes, _note_on_left_out(left_out))
    return Checkpoint(
        path=path,
        resolved=file.path,
        format="keras-h5",
        variables=Weights(dict.fromkeys(paths, file)),
        optimizer=_optimizer_weights(file),
        in_order=True,
        named_by="object",
        keras_layers=layers,
        keras_model=None if config is None else _model(file, config),
        keras_version=_keras_version(file),
        notes=notes,
        prefetch=lambda expected: file.prefetch([variable.name for variable in expected]),
        close=file.close,
    )


def _looks_at_all(file: Hdf5) -> list[Look]:
    """Return the looks at everything that is read here, except an optimizer's variables."""
    root = _root(file)
    of_root = ("model_config", "keras_version", "training_config", "backend")
    texts = [(root, "layer_names"), *(("", name) for name in of_root)]
    looks: list[Look] = [partial(file.texts, *text) for text in texts]
    if file.has("optimizer_weights"):
        looks.append(partial(_looks_at_steps, file))
    return [*looks, file.groups_below(root, "weight_names")]


def _looks_at_steps(file: Hdf5) -> list[Look]:
    """Return the looks at the variables that count the steps of the optimizer."""
    counts = (path for path in _optimizer_weights(file) if "iter" in path.rpartition("/")[2])
    return [partial(file.look_at, path) for path in counts]


def _root(file: Hdf5) -> str:
    return "model_weights" if file.has("model_weights") else ""


def _model_weights(
    file: Hdf5, layers: Mapping[tuple[str, ...], KerasLayer]
) -> tuple[list[str], list[str]]:
    """Return the paths of the model's weights in the order of the network.

    The second list has those among them that the attribute of their layer leaves out. A layer that
    names no weights is looked into if its name or its class says that it is a normalization.
    """
    prefix = _root(file)
    paths, left_out = [], []
    for layer_name in _names(file, prefix, "layer_names"):
        group = join(prefix, layer_name)
        named = [join(group, name) for name in _names(file, group, "weight_names")]
        paths += named
        layer = layers.get((layer_name,))
        names = [layer_name] if layer is None else [layer_name, snake_case(layer.class_name)]
        is_suspect = _lacks_statistics(named) if named else called(names) in _NORMS
        if is_suspect:
            unlisted = [path for path in _datasets(file, group) if path not in named]
            paths += unlisted
            left_out += unlisted
    return paths, left_out


def _lacks_statistics(named: Sequence[str]) -> bool:
    """Return whether a layer names gamma or beta without both statistics.

    So do layers of other normalizations, whose groups hold nothing else.
    """
    statistics: dict[str, int] = {}
    for path in named:
        scope, _, name = path.rpartition("/")
        if re.fullmatch(_AFFINE, name):
            statistics.setdefault(scope, 0)
        elif re.fullmatch(_STATISTIC, name):
            statistics[scope] = statistics.get(scope, 0) + 1
    return any(count < 2 for count in statistics.values())


def _datasets(file: Hdf5, group: str) -> Iterator[str]:
    """Yield the path of every dataset below a group."""
    for path, names in file.walk(group):
        yield from (join(path, name) for name in names)


def _note_on_left_out(left_out: Sequence[str]) -> str:
    """Return the sentence on weights that Keras does not load, since no attribute names them."""
    return (
        f"no weight_names of a layer lists {listed(left_out)}: checked all the same, but Keras does"
        " not load what is not listed"
    )


def _optimizer_weights(file: Hdf5) -> Weights:
    """Return the optimizer's variables by their path; none in a weights-only file."""
    prefix = "optimizer_weights"
    if not file.has(prefix):
        return Weights({})
    paths = [join(prefix, name) for name in _names(file, prefix, "weight_names")]
    return Weights(dict.fromkeys(paths, file))


def _model_config(file: Hdf5) -> Any:
    """Return the stored configuration of the model; None without one."""
    config = file.texts("", "model_config")
    if not config and not file.has_attribute("", "model_config"):
        return None
    with _faults_of_config(file):
        return json.loads(config[0])


def _model(file: Hdf5, config: Any) -> KerasModel | None:
    """Return the whole model by the configuration."""
    backend = [*file.texts("", "backend"), *file.texts(_root(file), "backend")]
    return keras_model(
        config,
        is_compiled=file.has_attribute("", "training_config"),
        optimizer=_optimizer(file),
        backend=backend[0] if backend else None,
    )


def _optimizer(file: Hdf5) -> str | None:
    """Return the class of the model's optimizer; None if the file does not tell."""
    try:
        return optimizer_class(json.loads("".join(file.texts("", "training_config"))))
    except (Corrupt, ValueError, RecursionError):  # no verdict needs it
        return None


def _layers(file: Hdf5, config: Any) -> dict[tuple[str, ...], KerasLayer]:
    """Return the layers of the model's configuration by their path in the model."""
    with _faults_of_config(file):
        return keras_layers(config, _keras_version(file))


@contextmanager
def _faults_of_config(file: Hdf5) -> Iterator[None]:
    try:
        yield
    except (IndexError, TypeError, ValueError, RecursionError) as error:
        raise Corrupt(
            file.path, "its model_config is not the JSON of a Keras model", DAMAGED
        ) from error


def _biases(file: Hdf5, paths: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return the paths of biases by each two names in them, the first being that of the group.

    Names that fit two paths are left out.
    """
    start = len(join(_root(file), ""))
    paths_by_names: dict[tuple[str, str], str] = {}
    for path in paths:
        *names, last = path[start:].strip("/").split("/")
        if last.partition(":")[0] == "bias":
            for name in {*names}:
                key = (names[0], name)
                paths_by_names[key] = "" if key in paths_by_names else path
    return {key: path for key, path in paths_by_names.items() if path}


def _stored_bias(
    biases: Mapping[tuple[str, str], str], names: tuple[str, ...], _: int
) -> str | None:
    """Return the path of the bias of a layer, None unless just one has its name."""
    return biases.get((names[0], names[-1]))


def _keras_version(file: Hdf5) -> str:
    """Return the version of Keras that wrote the file; empty if none is stored."""
    versions = [*file.texts("", "keras_version"), *file.texts(_root(file), "keras_version")]
    return versions[0] if versions else ""


def _names(file: Hdf5, group: str, attribute: str) -> list[str]:
    """Return the names that an attribute lists, also where it was cut into NAME0, NAME1, …."""
    if file.has_attribute(group, attribute):
        return file.text_list(group, attribute)
    if not file.has_attribute(group, f"{attribute}0"):
        raise Corrupt(file.path, f"/{group} has no {attribute}", DAMAGED)
    names: list[str] = []
    chunk = 0
    while file.has_attribute(group, f"{attribute}{chunk}"):
        names += file.text_list(group, f"{attribute}{chunk}")
        chunk += 1
    return names
