"""Object-based checkpoints: V2 checkpoints that store an object graph beside their variables.

tf.train.Checkpoint and Keras's save_weights write them. The reader of V2 checkpoints calls
`with_object_graph`, with a function that reads strings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from bninspect.errors import Incomplete
from bninspect.formats.keras.model_config import read_objects
from bninspect.formats.tensorflow import OBJECT_GRAPH_KEY
from bninspect.formats.tensorflow.dtypes import corrupt
from bninspect.formats.tensorflow.object_names import ObjectNames, name_by_keys, name_objects
from bninspect.model.checkpoint import Checkpoint, KerasLayer


def with_object_graph(checkpoint: Checkpoint, read_string: Callable[[str], bytes]) -> Checkpoint:
    """Return the checkpoint with the names and configurations of its object graph.

    `read_string` reads the string stored under a key. If the shard of the object graph is missing,
    layers are named by their keys, so that they can be listed. Raises a `ReadProblem` if the object
    graph is damaged.
    """
    try:
        names = _names(checkpoint, read_string)
        layers = _keras_layers(checkpoint, names, read_string)
    except BaseException:
        checkpoint.close()
        raise
    return replace(
        checkpoint,
        format="tf-object",
        named_by="object",
        known_names=names.known,
        second_names=names.second,
        name_at=names.name_at,
        partial=names.partial,
        keras_layers=layers or None,
        incomplete=names.incomplete,
        notes=(*checkpoint.notes, *names.notes),
    )


def _names(checkpoint: Checkpoint, read_string: Callable[[str], bytes]) -> ObjectNames:
    try:
        return name_objects(read_string(OBJECT_GRAPH_KEY), checkpoint.variables)
    except Incomplete as problem:
        return name_by_keys(checkpoint.variables)._replace(incomplete=problem)
    except ValueError as error:
        raise corrupt(
            checkpoint.resolved, "the object graph, which holds the layers' names, cannot be parsed"
        ) from error


def _keras_layers(
    checkpoint: Checkpoint, names: ObjectNames, read_string: Callable[[str], bytes]
) -> Mapping[tuple[str, ...], KerasLayer]:
    """Return the layers' configurations, which TensorFlow up to 1.13 stores as strings."""
    try:
        return read_objects(
            (name, read_string(key)) for name, key in names.configurations.items()
        ).layers
    except ValueError as error:
        raise corrupt(
            checkpoint.resolved, "the stored configuration of a layer cannot be parsed"
        ) from error
