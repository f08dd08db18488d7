"""Bytes → Checkpoint: one module a container, and `open_checkpoint`, which picks it by content."""

from __future__ import annotations

import os

from bninspect.formats.locate import locate
from bninspect.model import Checkpoint


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open whatever `path` means: a prefix, a file of a checkpoint, a directory, a Keras file.

    Only names are read now; values when a variable's `read` is called. Close the checkpoint, or
    use it as a context manager. Raises a `ReadProblem`.
    """
    path = os.fspath(path)
    target = locate(path)
    # Each reader brings its own libraries, so only the one that is needed is imported.
    if target.kind == "keras-h5":
        from bninspect.formats.keras_h5 import open_keras_h5  # noqa: PLC0415

        return open_keras_h5(path, target.path, target.notes)
    if target.kind == "tensor-slices":
        from bninspect.formats.tensor_slices import open_tensor_slices  # noqa: PLC0415

        return open_tensor_slices(path, target.path, target.notes)
    from bninspect.formats.tensor_bundle import open_tensor_bundle  # noqa: PLC0415

    return open_tensor_bundle(path, target.path, target.notes)
