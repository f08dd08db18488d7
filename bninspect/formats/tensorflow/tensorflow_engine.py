"""The same Checkpoint through TensorFlow's own reader: a second opinion. Only user of tensorflow.

The files are located and the layers named as ever; names, shapes, element types, values and the
object graph come from TensorFlow. Variables are listed by tf.train.load_checkpoint and read by the
restore op, which reads the partitioned variables of V1 checkpoints too, as the former does not.
The index is looked over by ours first: TensorFlow ends the process on shapes that no tensor has.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import Corrupt, ReadProblem, Unsupported, UsageProblem
from bninspect.formats.tensorflow.object_based import OBJECT_GRAPH, with_object_graph
from bninspect.formats.tensorflow.saved_model import variables_of, with_metadata
from bninspect.formats.tensorflow.v1_slices import open_tensor_slices
from bninspect.formats.tensorflow.v2_bundle import open_tensor_bundle
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.target import Target

_CLUE = "Leave out --engine to let bninspect read it."


def open_with_tensorflow(path: str, target: Target) -> Checkpoint:
    """Open what was located with TensorFlow's reader; `path` is what the user typed.

    Raises `UsageProblem` if TensorFlow is not installed, `Unsupported` for Keras files, which it
    does not read, and `ReadProblem` for what it refuses.
    """
    tensorflow = _import_tensorflow()
    if target.kind == "saved-model":
        checkpoint = _open(tensorflow, path, variables_of(target.path), target)
        return with_metadata(checkpoint, target.path)
    if target.kind not in {"tensor-bundle", "tensor-slices"}:
        raise Unsupported(
            target.path,
            "TensorFlow's reader reads TensorFlow checkpoints and SavedModels, no Keras files",
            _CLUE,
        )
    return _open(tensorflow, path, target.path, target)


def _import_tensorflow() -> Any:
    # TensorFlow tells of CUDA and of the CPU on import, which is no part of the report.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        with _silent_libraries():
            import tensorflow

            tensorflow.constant(0)  # looks for devices
    except ImportError as error:
        raise UsageProblem(
            f"--engine tensorflow needs TensorFlow, which cannot be imported ({error})."
            " Install it with: pip install 'tensorflow>=2.12'"
        ) from error
    return tensorflow


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Keep what libraries write to standard error before any setting reaches them from there."""
    try:
        standard_error = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(nowhere)


def _look_over(path: str, place: str, target: Target) -> None:
    """Raise a `ReadProblem` for shapes and types on which TensorFlow would end the process."""
    opened = (
        open_tensor_slices(path, place)
        if target.kind == "tensor-slices"
        else open_tensor_bundle(path, place)
    )
    with opened as checkpoint:
        for variable in checkpoint.variables.values():
            if math.prod(max(size, 1) for size in variable.shape) >= 1 << 63:
                raise Corrupt(
                    place,
                    f"{variable.name} of shape {list(variable.shape)} is more than a tensor can be",
                    "The file is damaged; use another one.",
                )


def _open(tensorflow: Any, path: str, place: str, target: Target) -> Checkpoint:
    _look_over(path, place, target)
    with _faults(tensorflow, place):
        reader = tensorflow.train.load_checkpoint(place)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    variables: Mapping[str, Variable] = {
        name: Variable(
            name,
            tuple(shapes[name]),
            dtypes[name].name,
            partial(_read, tensorflow, place, name, dtypes[name]),
        )
        for name in sorted(shapes, key=os.fsencode)
        if name != OBJECT_GRAPH
    }
    checkpoint = Checkpoint(
        path=path,
        resolved=place,
        format="tf-v1" if target.kind == "tensor-slices" else "tf-v2",
        variables=variables,
        notes=target.notes,
    )
    if OBJECT_GRAPH not in shapes:
        return checkpoint

    def read_string(name: str) -> bytes:
        with _faults(tensorflow, place):
            text = reader.get_tensor(name)
        if not isinstance(text, bytes):
            raise Corrupt(place, f"{name} should be one string, and is not", _CLUE)
        return text

    return with_object_graph(checkpoint, read_string)


def _read(tensorflow: Any, place: str, name: str, dtype: Any) -> NDArray[Any]:
    with _faults(tensorflow, place):
        (tensor,) = tensorflow.raw_ops.RestoreV2(
            prefix=place, tensor_names=[name], shape_and_slices=[""], dtypes=[dtype]
        )
        values: NDArray[Any] = tensor.numpy()
    return values.astype(np.float32) if dtype.name == "bfloat16" else values


@contextmanager
def _faults(tensorflow: Any, place: str) -> Iterator[None]:
    """Turn what TensorFlow raises about a file into a `ReadProblem` with its own words."""
    try:
        yield
    except (tensorflow.errors.OpError, ValueError, RuntimeError, TypeError) as error:
        message = getattr(error, "message", str(error)).strip().splitlines() or ["no reason"]
        raise ReadProblem(place, f"TensorFlow cannot read it ({message[0]})", _CLUE) from error
