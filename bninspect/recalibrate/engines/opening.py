"""The engine for a model file: a table from the format of a checkpoint to what runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from bninspect.errors import UsageProblem
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.filenames import SAVED_MODEL, meta_graph
from bninspect.model.layer import BNLayer
from bninspect.recalibrate.engines import Array, Engine
from bninspect.recalibrate.engines.frameworks import require_tensorflow
from bninspect.storage import filesystem

# The names that the user feeds, each with its value if that is the same for all samples, else None.
Feeds = Mapping[str, Array | None]

# What to give instead of a file that holds no model to run.
_INSTEAD = {
    "tf-v1": "it is of the old format V1; save it again by tf.train.Saver in format V2",
    "graph-def": "it is a frozen graph; recalibrate the checkpoint or the Keras file that it was"
    " made from, and freeze that",
    "tf-object": "it holds no model to run: build the model, restore the checkpoint, and call"
    " bninspect.keras.recalibrate(model, dataset)",
    "onnx": "it is an export: recalibrate the model that it was exported from (one of PyTorch by"
    " torch.optim.swa_utils.update_bn), and export that again",
    "tfjs": "it is made for TensorFlow.js: recalibrate the Keras file or SavedModel that it was"
    " converted from, and convert that again",
    "keras-weights-h5": "it holds weights without their model: build the model, load the weights,"
    " and call bninspect.keras.recalibrate(model, dataset)",
    "orbax": "it is an Orbax checkpoint, which is not written: restore a Keras model from it, save"
    " that by model.save as a .keras file, and start from the file; in Flax, run training batches"
    " through the trained model with mutable=['batch_stats']",
}


def _keras(checkpoint: Checkpoint, layers: Sequence[BNLayer], _: Feeds) -> Engine:
    from bninspect.recalibrate.engines.keras_files import open_keras_model

    return open_keras_model(checkpoint, layers)


def _saved_model(checkpoint: Checkpoint, layers: Sequence[BNLayer], feeds: Feeds) -> Engine:
    from bninspect.recalibrate.engines.saved_model import open_saved_model

    require_tensorflow(checkpoint.path)
    return open_saved_model(checkpoint, layers, feeds)


def _graph(checkpoint: Checkpoint, layers: Sequence[BNLayer], feeds: Feeds) -> Engine:
    from bninspect.recalibrate.engines.graph.engine import GraphEngine

    require_tensorflow(checkpoint.path)
    return GraphEngine(checkpoint, layers, feeds)


_OPENERS: Mapping[str, Callable[[Checkpoint, Sequence[BNLayer], Feeds], Engine]] = {
    "tf-v2": _graph,
    "keras-h5": _keras,
    "keras-zip": _keras,
    "saved-model": _saved_model,
}


def open_engine(
    checkpoint: Checkpoint, layers: Sequence[BNLayer], feeds: Feeds | None = None
) -> Engine:
    """Return the engine that runs the model of an open checkpoint.

    `layers` are those that `find_layers` finds in it, `feeds` the names that the user feeds.
    Raises `UsageProblem` if the file holds no model to run, if the framework that runs it is
    missing, or if that cannot load it, and `RecalibrationRefused` if it cannot run as at inference.
    """
    require_runnable(checkpoint)
    return _OPENERS[checkpoint.format](checkpoint, layers, feeds or {})


def require_runnable(checkpoint: Checkpoint) -> None:
    """Raise `UsageProblem` if a checkpoint holds no model that an engine can run.

    Raises a `ReadProblem` if the graph beside it cannot be read.
    """
    is_weights = checkpoint.format == "keras-h5" and checkpoint.keras_layers is None
    kind = "keras-weights-h5" if is_weights else checkpoint.format
    kind = "graph-def" if checkpoint.frozen else kind
    if kind not in _OPENERS:
        instead = _INSTEAD.get(kind, "its format is not one that can be run")
        raise UsageProblem(f"{checkpoint.path} cannot be recalibrated: {instead}.")
    if kind == "saved-model" and not filesystem.exists(
        os.path.join(checkpoint.resolved, SAVED_MODEL)
    ):
        raise UsageProblem(
            f"{checkpoint.path} cannot be recalibrated: TensorFlow loads a SavedModel only if its"
            f" graph is called {SAVED_MODEL}; rename it."
        )
    meta = meta_graph(checkpoint.resolved)
    if kind == "tf-v2" and not (filesystem.exists(meta) and checkpoint.graphs()):
        raise UsageProblem(
            f"{checkpoint.path} cannot be recalibrated: its graph is not beside it; copy the .meta"
            " file of the training there."
        )
