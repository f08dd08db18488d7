"""Bytes → Checkpoint: one module a container, and `open_checkpoint`, which picks it by content."""

from __future__ import annotations

import os

from bninspect.formats.locate import Target, locate
from bninspect.model import Checkpoint


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open whatever `path` means: a prefix, a file of a checkpoint, a directory, a Keras file.

    Only names are read now; values when a variable's `read` is called. Close the checkpoint, or
    use it as a context manager. Raises a `ReadProblem`.
    """
    path = os.fspath(path)
    target = locate(path)
    # Each reader brings its own libraries, so only the one that is needed is imported.
    if target.kind == "hdf5":
        return _open_hdf5(path, target)
    if target.kind == "keras-zip":
        from bninspect.formats.keras_zip import open_keras_zip  # noqa: PLC0415

        return open_keras_zip(path, target.path, target.notes)
    if target.kind == "keras-shards":
        from bninspect.formats.keras_shards import open_keras_shards  # noqa: PLC0415

        return open_keras_shards(path, target.path, target.notes)
    from bninspect.formats.tensor_bundle import open_tensor_bundle  # noqa: PLC0415

    return open_tensor_bundle(path, target.path, target.notes)


def _open_hdf5(path: str, target: Target) -> Checkpoint:
    """Of the two layouts that Keras gives an HDF5 file, the one this file has."""
    from bninspect.formats.hdf5 import Hdf5  # noqa: PLC0415
    from bninspect.formats.keras_h5 import is_keras_h5, read_keras_h5  # noqa: PLC0415

    file = Hdf5(target.path)
    try:
        if is_keras_h5(file):
            return read_keras_h5(path, file, target.notes)
        from bninspect.formats.keras_weights import read_keras_weights  # noqa: PLC0415

        return read_keras_weights(path, file, target.notes)
    except BaseException:
        file.close()
        raise
