"""Bytes → Checkpoint: one module a container, and `open_checkpoint`, which picks it by content."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bninspect.errors import NotFound, ReadProblem, Unsupported
from bninspect.formats import files
from bninspect.formats.locate import Found, Target, locate
from bninspect.formats.names import SAVED_MODEL
from bninspect.formats.urls import given, is_url
from bninspect.model import Checkpoint, Engine

if TYPE_CHECKING:
    from bninspect.graph import Graph

# The graph's name has not the shards of a V1 checkpoint: meta_graph_filename of
# tensorflow/python/training/checkpoint_management.py.
_SHARDS = r"-[\d\?]+-of-\d+$"


def open_checkpoint(path: str | os.PathLike[str], engine: Engine = "native") -> Checkpoint:
    """Open whatever `path` means: a prefix, a file of a checkpoint, a directory, a Keras file.

    Only names are read now; values when a variable's `read` is called. Close the checkpoint, or
    use it as a context manager. `engine` is what reads the files. Raises a `ReadProblem`, also for
    a directory of several models: then one of them has to be named.
    """
    [path] = given([os.fspath(path)])
    files.forget()
    if files.is_directory(path):
        from bninspect.formats.discover import one_of  # noqa: PLC0415

        return open_target(path, one_of(path), engine)
    return open_target(path, locate(path), engine)


def find_checkpoints(path: str, *, every: bool = False) -> list[Found]:
    """All checkpoints that `path` names: see `discover`, which most paths can do without."""
    try:
        if not every and not files.is_directory(path):
            return [Found(path, locate(path))]
    except NotFound:
        pass  # it may be a pattern
    except ReadProblem as problem:
        return [Found(path, None, problem)]
    from bninspect.formats.discover import discover  # noqa: PLC0415

    return discover(path, every=every)


def open_target(path: str, target: Target, engine: Engine = "native") -> Checkpoint:
    """Open what was located; `path` is what the user typed. Raises a `ReadProblem`.

    Raises `UsageProblem` if the engine is tensorflow and TensorFlow is not installed, `Unsupported`
    for a URL.
    """
    if engine == "tensorflow":
        if is_url(target.path):
            raise Unsupported(
                path,
                "TensorFlow is not asked to read a URL",
                "Leave --engine away, or copy the files here first.",
            )
        from bninspect.formats.tensorflow_engine import open_with_tensorflow  # noqa: PLC0415

        return _with_graphs(open_with_tensorflow(path, target), target)
    # Each reader brings its own libraries, so only the one that is needed is imported.
    if target.kind == "hdf5":
        return _open_hdf5(path, target)
    if target.kind in ("keras-zip", "keras-shards"):
        return _open_keras_3(path, target)
    return _with_graphs(_open_tensorflow(path, target), target)


def _with_graphs(checkpoint: Checkpoint, target: Target) -> Checkpoint:
    return replace(checkpoint, graphs=partial(_read_graphs, target))


def _read_graphs(target: Target) -> Sequence[Graph]:
    saved_model = target.kind == "saved-model"
    if saved_model:
        path = os.path.join(target.path, SAVED_MODEL)
    else:
        path = re.sub(_SHARDS, "", target.path) + ".meta"
    if not files.exists(path):
        return ()
    from bninspect.formats.meta_graph import read_graphs  # noqa: PLC0415 - seldom needed

    return read_graphs(path, saved_model=saved_model)


def _open_tensorflow(path: str, target: Target) -> Checkpoint:
    if target.kind == "saved-model":
        from bninspect.formats.saved_model import open_saved_model  # noqa: PLC0415

        return open_saved_model(path, target.path, target.notes)
    if target.kind == "tensor-slices":
        from bninspect.formats.tensor_slices import open_tensor_slices  # noqa: PLC0415

        return open_tensor_slices(path, target.path, target.notes)
    from bninspect.formats.tensor_bundle import open_tensor_bundle  # noqa: PLC0415

    return open_tensor_bundle(path, target.path, target.notes)


def _open_keras_3(path: str, target: Target) -> Checkpoint:
    if target.kind == "keras-zip":
        from bninspect.formats.keras_zip import open_keras_zip  # noqa: PLC0415

        return open_keras_zip(path, target.path, target.notes)
    from bninspect.formats.keras_shards import open_keras_shards  # noqa: PLC0415

    return open_keras_shards(path, target.path, target.notes, live=target.live)


def _open_hdf5(path: str, target: Target) -> Checkpoint:
    """Of the two layouts that Keras gives an HDF5 file, the one this file has."""
    from bninspect.formats.hdf5 import Hdf5  # noqa: PLC0415
    from bninspect.formats.keras_h5 import is_keras_h5, read_keras_h5  # noqa: PLC0415

    file = Hdf5(target.path, live=target.live)
    try:
        if is_keras_h5(file):
            return read_keras_h5(path, file, target.notes)
        from bninspect.formats.keras_weights import read_keras_weights  # noqa: PLC0415

        return read_keras_weights(path, file, target.notes)
    except BaseException:
        file.close()
        raise
