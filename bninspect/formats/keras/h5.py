"""Keras HDF5 files, whole models and weights only: `.h5`, `.hdf5`.

Layout (keras/src/legacy/saving/legacy_h5_format.py, keras/engine/saving.py of Keras 2,
keras/engine/topology.py of Keras 1):

    [model_weights/]        attributes layer_names, backend, keras_version
      LAYER/                attribute weight_names: paths of the layer's weights below the group
        …/moving_mean:0     a dataset each
    optimizer_weights/      attribute weight_names: the optimizer's variables
    attributes model_config, training_config, keras_version on the root: JSON, JSON, text

An attribute too large for an HDF5 header is cut into NAME0, NAME1, …. Weights are taken in the
order of these attributes, which is the order of the network; only what they name is opened.
"""

from __future__ import annotations

import json
from functools import partial

from bninspect.errors import Corrupt
from bninspect.formats.hdf5.file import Hdf5, Weights, join
from bninspect.formats.hdf5.structure import DAMAGED
from bninspect.formats.keras.model_config import keras_layers
from bninspect.model.checkpoint import Checkpoint, KerasLayer
from bninspect.storage.source import Look


def is_keras_h5(file: Hdf5) -> bool:
    """Whether a file has this layout: Keras names the layers of every one that it writes."""
    file.prefetch_looks([partial(_looks_at_all, file)])
    root = _root(file)
    return any(file.has_attribute(root, name) for name in ("layer_names", "layer_names0"))


def read_keras_h5(path: str, file: Hdf5, notes: tuple[str, ...] = ()) -> Checkpoint:
    """The checkpoint in a file of this layout; `path` is what the user typed.

    Raises a `ReadProblem` if the file's attributes name weights that are not there, or if it
    refers to other files. Closing the checkpoint closes the file.
    """
    variables, optimizer = _model_weights(file), _optimizer_weights(file)
    return Checkpoint(
        path=path,
        resolved=file.path,
        format="keras-h5",
        variables=variables,
        optimizer=optimizer,
        in_order=True,
        named_by="object",
        keras_layers=_configuration(file),
        keras_version=_keras_version(file),
        notes=notes,
        prefetch=lambda expected: file.prefetch([one.name for one in expected]),
        close=file.close,
    )


def _looks_at_all(file: Hdf5) -> list[Look]:
    """What else to look into: all that is read here but the variables of an optimizer."""
    root = _root(file)
    texts = [(root, "layer_names"), ("", "model_config"), ("", "keras_version")]
    looks: list[Look] = [partial(file.texts, *one) for one in texts]
    if file.has("optimizer_weights"):
        looks.append(partial(_looks_at_steps, file))
    return [*looks, file.groups_below(root, "weight_names")]


def _looks_at_steps(file: Hdf5) -> list[Look]:
    """What to look into for the number of steps that the optimizer made."""
    counts = (path for path in _optimizer_weights(file) if "iter" in path.rpartition("/")[2])
    return [partial(file.look_at, path) for path in counts]


def _root(file: Hdf5) -> str:
    return "model_weights" if file.has("model_weights") else ""


def _model_weights(file: Hdf5) -> Weights:
    """The model's weights by their path in the file, in the order of the network."""
    prefix = _root(file)
    paths = []
    for layer_name in _names(file, prefix, "layer_names"):
        layer_path = join(prefix, layer_name)
        paths += [join(layer_path, name) for name in _names(file, layer_path, "weight_names")]
    return Weights(dict.fromkeys(paths, file))


def _optimizer_weights(file: Hdf5) -> Weights:
    """The optimizer's variables by their path in the file; none in a weights-only file."""
    prefix = "optimizer_weights"
    if not file.has(prefix):
        return Weights({})
    paths = [join(prefix, name) for name in _names(file, prefix, "weight_names")]
    return Weights(dict.fromkeys(paths, file))


def _configuration(file: Hdf5) -> dict[tuple[str, ...], KerasLayer] | None:
    """The layers of the stored model configuration by path; None without one."""
    config = file.texts("", "model_config")
    if not config and not file.has_attribute("", "model_config"):
        return None
    try:
        return keras_layers(json.loads(config[0]), _keras_version(file))
    except (IndexError, TypeError, ValueError, RecursionError) as error:
        raise Corrupt(
            file.path, "its model_config is not the JSON of a Keras model", DAMAGED
        ) from error


def _keras_version(file: Hdf5) -> str:
    """Return the version of Keras that wrote the file; empty if none is stored."""
    versions = [*file.texts("", "keras_version"), *file.texts(_root(file), "keras_version")]
    return versions[0] if versions else ""


def _names(file: Hdf5, group: str, attribute: str) -> list[str]:
    """The names an attribute lists, put together if it was cut into NAME0, NAME1, …."""
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
