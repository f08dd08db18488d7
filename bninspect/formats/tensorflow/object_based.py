"""Object-based checkpoints: a bundle of variables with an object graph among its values.

Written by tf.train.Checkpoint and by Keras's save_weights in TensorFlow's format; whoever reads the
bundle hands the checkpoint over, and a way to read its strings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bninspect.errors import Corrupt, Incomplete
from bninspect.formats.keras.model_config import layers_of_objects
from bninspect.formats.tensorflow.object_names import ObjectNames, name_by_keys, name_objects
from bninspect.model.checkpoint import Checkpoint, KerasLayer

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

_DAMAGED = "The file is damaged; copy it again or use another checkpoint of the run."


def with_object_graph(checkpoint: Checkpoint, read_string: Callable[[str], bytes]) -> Checkpoint:
    """The checkpoint with the names and configurations that its object graph tells.

    `read_string` gives the string stored under a key. If the shard that holds the graph is missing
    the layers go by their keys, so that they can be listed. Raises a `ReadProblem` if the graph is
    damaged.
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
        return name_objects(read_string(OBJECT_GRAPH), checkpoint.variables)
    except Incomplete as problem:
        return name_by_keys(checkpoint.variables)._replace(incomplete=problem)
    except ValueError as error:
        raise Corrupt(
            checkpoint.resolved,
            "its object graph, which holds the layers' names, makes no sense",
            _DAMAGED,
        ) from error


def _keras_layers(
    checkpoint: Checkpoint, names: ObjectNames, read_string: Callable[[str], bytes]
) -> dict[tuple[str, ...], KerasLayer]:
    """The layers' configurations, which TensorFlow up to 1.13 stores as strings beside them."""
    try:
        return layers_of_objects(
            (name, read_string(key)) for name, key in names.configurations.items()
        )
    except ValueError as error:
        raise Corrupt(
            checkpoint.resolved, "the stored configuration of a layer makes no sense", _DAMAGED
        ) from error
