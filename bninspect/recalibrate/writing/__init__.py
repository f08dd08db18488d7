"""Writing a copy of a checkpoint in which only statistics and their checksums differ.

Bytes are replaced where they are: no variable moves, and nothing else of a file is written again.
The plan of a container says which files are copied and which bytes of them are replaced
(`bundle`, `keras_files`); `copies` carries it out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bninspect.errors import Unsupported, UsageProblem
from bninspect.model.filenames import KERAS_MAP
from bninspect.recalibrate.writing.bundle import plan_bundle, plan_saved_model
from bninspect.recalibrate.writing.copies import Plan, written_copy
from bninspect.recalibrate.writing.keras_files import plan_archive, plan_hdf5
from bninspect.recalibrate.writing.read_back import verify_copy
from bninspect.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bninspect.model.checkpoint import Checkpoint
    from bninspect.recalibrate.writing.values import Values

_PLANS: dict[str, Callable[[str, Path, Values], Plan]] = {
    "tf-v2": plan_bundle,
    "tf-object": plan_bundle,
    "saved-model": plan_saved_model,
    "keras-h5": plan_hdf5,
    "keras-weights-h5": plan_hdf5,
    "keras-zip": plan_archive,
}


# What is wrong with containers that are not written, and what to do.
_NOT_WRITTEN = {
    "onnx": (
        "statistics are not replaced in an ONNX model, which is an export",
        "Recalibrate the model that it was exported from, and export that again.",
    ),
    "tf-v1": (
        "statistics cannot be replaced in a V1 checkpoint, whose values are compressed",
        "Restore it and save it again with tf.train.Saver(write_version=tf.train.SaverDef.V2).",
    ),
    "orbax": (
        "statistics cannot be replaced in an Orbax checkpoint",
        (
            "Restore a Keras model from it, save that by model.save as a .keras file, and start"
            " from the file; in Flax, run training batches through the trained model with"
            " mutable=['batch_stats']."
        ),
    ),
    "graph-def": (
        "statistics are not replaced in a frozen graph, where tools may have folded them",
        "Recalibrate the checkpoint or the Keras file that it was made from, and freeze that.",
    ),
    "tfjs": (
        "statistics are not replaced in a TensorFlow.js model, which a converter made",
        "Recalibrate the Keras file or SavedModel that it was converted from, and convert that.",
    ),
}


def require_writable(checkpoint: Checkpoint, output: str | Path, names: Iterable[str] = ()) -> None:
    """Raise unless `write_statistics` can replace these variables in a copy to `output`.

    Raises `Unsupported` for a container that is not written, or in which a variable is stored so
    that its bytes cannot be replaced; `UsageProblem` for an output that exists, is a URL, or has a
    name by which the framework would not find the copy.
    """
    plan_copy(
        checkpoint, output, {name: np.zeros(checkpoint.variables[name].shape) for name in names}
    )


def write_statistics(
    checkpoint: Checkpoint,
    output: str | Path,
    values: Values,
    accept: Callable[[Path], None] = lambda _: None,
) -> None:
    """Copy a checkpoint to `output` and replace the values of some variables.

    `values` has the new values by the stored name of each variable, with as many elements as the
    variable has; they are rounded to the element type that is stored. `output` is a prefix for V2
    checkpoints, a directory for a SavedModel, else a file. All files get temporary names, are read
    back and compared with the source, and get their own names at the end, the index of a V2
    checkpoint last. If that is interrupted, nothing is left. `accept` is called with the copy
    before it gets its name; if that raises, nothing is left either.

    Raises as `require_writable`, and `Unsupported` if the stored type lacks a new value.
    """
    plan = plan_copy(checkpoint, output, values)
    with written_copy(plan) as copy:
        verify_copy(plan, copy, values)
        accept(copy)


def plan_copy(checkpoint: Checkpoint, output: str | Path, values: Values) -> Plan:
    """Return which files are copied and which of their bytes are replaced; writes nothing."""
    source = checkpoint.resolved
    if is_url(os.fspath(output)):
        raise UsageProblem(
            f"Cannot write {output}: it is a URL, and copies are written to local files. Write to a"
            " file and copy it there."
        )
    if os.fspath(output).endswith(os.sep) and checkpoint.format != "saved-model":
        raise UsageProblem(
            f"Cannot write {output}: give the name of the copy to write, not of a directory."
        )
    if is_url(source):
        raise Unsupported(
            checkpoint.path,
            "statistics are written to a copy of local files only",
            "Copy the files here first.",
        )
    kind = "graph-def" if checkpoint.frozen else checkpoint.format
    if kind not in _PLANS:
        raise Unsupported(checkpoint.path, *_NOT_WRITTEN[kind])
    if source.endswith(KERAS_MAP):
        raise Unsupported(
            checkpoint.path,
            "statistics cannot be replaced in weights that are sharded",
            "Load them and save them again with model.save_weights, without max_shard_size.",
        )
    return _PLANS[checkpoint.format](source, Path(output), values)
