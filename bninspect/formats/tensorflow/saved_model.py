"""SavedModel directories: `saved_model.pb` beside a V2 checkpoint, which is in `variables/`.

The variables are a V2 checkpoint (see `v2_bundle`): name-based if TF1 or TF-Hub wrote it,
object-based if TF2 or Keras did. Keras adds the configuration of each layer:

- since TensorFlow 2.5 in `keras_metadata.pb`: a SavedMetadata with an entry for each layer, with
  its path of attributes (tensorflow/python/keras/protobuf/saved_metadata.proto),
- before in the object graph of `saved_model.pb`, as metadata of a user object
  (tensorflow/core/protobuf/{saved_model,meta_graph,saved_object_graph}.proto).

Only that object graph of `saved_model.pb` is read here, not the graph, which may be large.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from bninspect.errors import Corrupt, Incomplete, NotFound, ReadProblem
from bninspect.formats.keras.model_config import read_objects
from bninspect.formats.message_file import LENGTH, MessageFile, Place
from bninspect.formats.tensorflow.object_graph import shortest_paths
from bninspect.formats.tensorflow.protos import DecodeError, declare
from bninspect.formats.tensorflow.v2_bundle import open_tensor_bundle
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.filenames import VARIABLES, checkpoint_of
from bninspect.storage import filesystem
from bninspect.storage.saved_models import graph_file, variables_prefix
from bninspect.storage.source import Source
from bninspect.wording import plural

SavedMetadata, SavedObjectGraph = declare("SavedMetadata", "SavedObjectGraph")

_METADATA = "keras_metadata.pb"
_META_GRAPHS, _OBJECT_GRAPH = 2, 7  # fields of SavedModel, of MetaGraphDef
_MAX_FIELDS = 10_000  # of a message; real ones have a few dozen
_MAX_METADATA = 1 << 28  # bytes; thousands of layers take a few million
_MAX_DEPTH = 100  # attributes from the root to a layer
_LONGEST_FIELD_HEAD = 20  # two varints of 64 bits

_TEXT = ".pbtxt"
_COPY = "Copy all files of the SavedModel: its graph and its directory `variables`."
_DAMAGED = "The file is damaged or was cut short; copy it again or export the model again."

# (path of attributes from the model, the layer's metadata as JSON)
Metadata = list[tuple[tuple[str, ...], bytes]]


def open_saved_model(
    path: str, directory: str, notes: tuple[str, ...] = (), graph: str = ""
) -> Checkpoint:
    """Return the open SavedModel in `directory`; `path` is what the user typed.

    `graph` is the name of its graph if that is an unusual one. Where the weights are constants of
    the graph, they are the variables of the result. Raises `Incomplete` if the variables of the
    graph are missing, and a `ReadProblem` as `open_tensor_bundle` does or if its Keras metadata is
    damaged.
    """
    graph = os.path.join(directory, graph) if graph else graph_file(directory)
    if variables_prefix(directory) is None:
        return _open_constants(path, directory, graph, notes)
    checkpoint = open_tensor_bundle(path, variables_of(directory), notes)
    return with_metadata(checkpoint, directory, graph)


def variables_of(directory: str) -> str:
    """Return the prefix of the checkpoint in a SavedModel; raises `Incomplete` if there is none."""
    prefix = variables_prefix(directory)
    if prefix is None:
        raise _without_index(directory)
    return prefix


def _without_index(directory: str) -> ReadProblem:
    return Incomplete(
        os.path.join(directory, VARIABLES, VARIABLES),
        "the .index file of the SavedModel's variables is missing",
        _COPY,
    )


def _has_variables(directory: str) -> bool:
    """Return whether a directory has files of a SavedModel's variables, as far as it is listed."""
    try:
        return any(checkpoint_of(name) == VARIABLES for name in filesystem.names_in(directory))
    except OSError:  # there is none, or a web server does not list it
        return False


def _open_constants(
    path: str, directory: str, graph_path: str, notes: tuple[str, ...]
) -> Checkpoint:
    """Return a SavedModel without variables: what it has of weights are constants of its graph."""
    if any(map(_has_variables, (os.path.join(directory, VARIABLES), directory))):
        raise _without_index(directory)
    from bninspect.formats.tensorflow.frozen_graph import constants_as_checkpoint, variable_names
    from bninspect.formats.tensorflow.graph_def import read_frozen

    graph, attributes = read_frozen(graph_path, saved_model=True)
    if names := variable_names(graph):
        raise Incomplete(
            graph_path,
            "this is the graph of a SavedModel without its variables: the files of"
            f" {plural(len(names), 'variable')} are missing",
            _COPY,
        )
    checkpoint = constants_as_checkpoint(path, graph, attributes, notes)
    return replace(checkpoint, resolved=directory, format="saved-model")


def with_metadata(checkpoint: Checkpoint, directory: str, graph: str) -> Checkpoint:
    """Return the SavedModel with the variables of `checkpoint` and Keras's configurations.

    `graph` is the file of its graph.
    """
    found = replace(checkpoint, resolved=directory, format="saved-model", keras_layers=None)
    if checkpoint.name_at is None:
        return found
    try:
        return _with_keras(found, _metadata(directory, graph), checkpoint.name_at)
    except ValueError as error:
        checkpoint.close()
        raise Corrupt(
            directory, "the Keras metadata of a layer cannot be parsed", _DAMAGED
        ) from error
    except BaseException:
        checkpoint.close()
        raise


def _with_keras(
    checkpoint: Checkpoint, metadata: Metadata, name_at: Callable[[Sequence[str]], str | None]
) -> Checkpoint:
    """Return the SavedModel with what Keras stored of each layer, by name, and of the model."""
    named = [(path, name_at(path), encoded) for path, encoded in metadata]
    objects = read_objects(
        (name or "", encoded) for path, name, encoded in named if name or not path
    )
    return replace(
        checkpoint,
        keras_layers=objects.layers or None,
        keras_model=objects.model,
        keras_version=objects.keras_version,
    )


def _metadata(directory: str, graph: str) -> Metadata:
    """Return the metadata that Keras stored for each object; none for other models."""
    metadata_file = os.path.join(directory, _METADATA)
    try:
        with Source(metadata_file) as source:
            return _from_keras_metadata(source)
    except NotFound:
        pass
    if graph.endswith(_TEXT):
        return []  # TensorFlow 1 writes the text form, without an object graph
    with Source(graph) as source:
        return _from_object_graph(source)


def _from_keras_metadata(source: Source) -> Metadata:
    if not 0 < source.size <= _MAX_METADATA:
        raise Corrupt(
            source.path,
            f"expected metadata of 1 to {_MAX_METADATA} bytes, got {source.size}",
            _DAMAGED,
        )
    encoded = source.read(0, source.size, "the Keras metadata")
    try:
        nodes = SavedMetadata.FromString(encoded).nodes
    except DecodeError as error:
        raise Corrupt(source.path, "the Keras metadata cannot be parsed", _DAMAGED) from error
    return [
        (tuple(node.node_path.decode("utf-8", "replace").split(".")[1:]), node.metadata)
        for node in nodes
    ]


def _from_object_graph(source: Source) -> Metadata:
    if not source.size:
        raise Corrupt(source.path, "this file is empty", _DAMAGED)
    try:
        file = MessageFile(source, "the SavedModel's graph", _DAMAGED, _LONGEST_FIELD_HEAD)
        for meta_graph in _submessages(file, Place(0, file.size), _META_GRAPHS):
            for place in _submessages(file, meta_graph, _OBJECT_GRAPH):
                encoded = file.bytes_of(place, "the object graph")
                return _of_objects(SavedObjectGraph.FromString(encoded).nodes)
    except (DecodeError, ValueError, IndexError) as error:
        raise Corrupt(source.path, "the SavedModel's graph cannot be parsed", _DAMAGED) from error
    return []


def _of_objects(nodes: Any) -> Metadata:
    """Return the metadata in a SavedObjectGraph; raises IndexError for a missing object."""
    children = [
        [(child.node_id, child.local_name.decode("utf-8", "replace")) for child in node.children]
        for node in nodes
    ]
    if any(child < 0 for held in children for child, _ in held):
        raise IndexError
    parents = shortest_paths(children)
    metadata_by_path = []
    for number, node in enumerate(nodes):
        metadata = node.user_object.metadata
        if metadata and number in parents:
            path: list[str] = []
            holder = number
            while holder and len(path) < _MAX_DEPTH:
                holder, attribute = parents[holder]
                path.append(attribute)
            metadata_by_path.append((tuple(reversed(path)), metadata))
    return metadata_by_path


def _submessages(file: MessageFile, place: Place, number: int) -> Iterator[Place]:
    """Yield the places of the submessages of field `number` in the message at a place.

    Raises ValueError if it has too many fields.
    """
    for count, field in enumerate(file.fields(place)):
        if count >= _MAX_FIELDS:
            raise ValueError
        if field.number == number and field.wire == LENGTH:
            yield field.place
