"""Checkpoints read by TensorFlow (`--engine tensorflow`), as a second opinion.

This is the only module that imports TensorFlow. TensorFlow gives names, shapes, element types,
values and the object graph; files are located and layers are found as with the native engine.
tf.train.load_checkpoint lists the variables. RestoreV2 reads them, since only RestoreV2 reads the
partitioned variables of V1 checkpoints. The native reader checks the index before: TensorFlow ends
the process on shapes that no tensor can have.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import Corrupt, ReadProblem, Unsupported, UsageProblem
from bninspect.formats.tensorflow import OBJECT_GRAPH_KEY
from bninspect.formats.tensorflow.frozen_graph import open_frozen_graph
from bninspect.formats.tensorflow.graph_def import read_bytes
from bninspect.formats.tensorflow.object_based import with_object_graph
from bninspect.formats.tensorflow.protos import DecodeError
from bninspect.formats.tensorflow.saved_model import (
    open_saved_model,
    variables_of,
    with_metadata,
)
from bninspect.formats.tensorflow.v1_slices import open_tensor_slices
from bninspect.formats.tensorflow.v2_bundle import open_tensor_bundle
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.target import Target
from bninspect.storage.saved_models import graph_file, variables_prefix
from bninspect.storage.signatures import is_message_text
from bninspect.wording import install_command

_HINT = "Omit --engine, so that bninspect reads it itself."


def open_with_tensorflow(path: str, target: Target) -> Checkpoint:
    """Return the checkpoint of a located target, read by TensorFlow; `path` is what the user typed.

    Raises `UsageProblem` if TensorFlow is not installed, `Unsupported` for Keras files and
    `ReadProblem` for files that TensorFlow refuses.
    """
    tensorflow = _import_tensorflow()
    if target.kind == "graph-def":
        return _with_constants(tensorflow, open_frozen_graph(path, target.path, target.notes))
    if target.kind == "saved-model":
        if variables_prefix(target.path) is None:
            found = open_saved_model(path, target.path, target.notes, target.graph)
            return _with_constants(tensorflow, found)
        checkpoint = _open(tensorflow, path, variables_of(target.path), target)
        graph = os.path.join(target.path, target.graph) if target.graph else graph_file(target.path)
        return with_metadata(checkpoint, target.path, graph)
    if target.kind not in {"tensor-bundle", "tensor-slices"}:
        raise Unsupported(
            target.path,
            "--engine tensorflow reads TensorFlow's own files, no others",
            _HINT,
        )
    return _open(tensorflow, path, target.path, target)


def _with_constants(tensorflow: Any, checkpoint: Checkpoint) -> Checkpoint:
    """Return a frozen graph with the names, shapes and values of its constants from TensorFlow.

    No operation is executed. Constants of functions keep the values that bninspect reads.
    """
    graph = checkpoint.graphs()[0]
    data = read_bytes(graph.path)
    is_graph = checkpoint.format == "graph-def"
    protos = import_module("tensorflow.core.protobuf.saved_model_pb2")
    message = tensorflow.compat.v1.GraphDef() if is_graph else protos.SavedModel()
    with _as_read_problem(tensorflow, graph.path, DecodeError):
        if is_message_text(data):
            _parse_text(data, message)
        else:
            message.ParseFromString(data)
    graph_def = message if is_graph else message.meta_graphs[0].graph_def
    variables = dict(checkpoint.variables)
    for node in graph_def.node:
        if node.op == "Const" and node.name in variables:
            tensor = node.attr["value"].tensor
            variables[node.name] = Variable(
                node.name,
                tuple(dimension.size for dimension in tensor.tensor_shape.dim),
                tensorflow.as_dtype(tensor.dtype).name,
                partial(_constant, tensorflow, graph.path, tensor),
            )
    return replace(checkpoint, variables=variables)


def _parse_text(text: bytes, message: Any) -> None:
    """Fill a message from its text form; raises `DecodeError` if it cannot be parsed."""
    text_format = import_module("google.protobuf.text_format")
    try:
        with warnings.catch_warnings():
            # Python warns of an escape that it does not know, which damage may make.
            warnings.simplefilter("ignore", DeprecationWarning)
            text_format.Parse(text, message)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise DecodeError(str(error)) from error


def _constant(tensorflow: Any, location: str, tensor: Any) -> NDArray[Any]:
    with _as_read_problem(tensorflow, location):
        values: NDArray[Any] = tensorflow.make_ndarray(tensor)
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def _import_tensorflow() -> Any:
    # On import, TensorFlow logs lines about CUDA and the CPU, which are no part of the report.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        with silent_libraries():
            import tensorflow

            tensorflow.constant(0)  # initializes the devices, which logs more lines
    except ImportError as error:
        raise UsageProblem(
            f"--engine tensorflow needs TensorFlow, which cannot be imported ({error})."
            f" Install it with: {install_command('tensorflow')}."
        ) from error
    return tensorflow


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Discard standard error: libraries log there before any setting can reach them."""
    try:
        standard_error = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    discarded = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(discarded, 2)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(discarded)


def _check_shapes(path: str, location: str, target: Target) -> None:
    """Raise a `ReadProblem` for shapes and types on which TensorFlow ends the process."""
    opened = (
        open_tensor_slices(path, location)
        if target.kind == "tensor-slices"
        else open_tensor_bundle(path, location)
    )
    with opened as checkpoint:
        for variable in checkpoint.variables.values():
            if math.prod(max(size, 1) for size in variable.shape) >= 1 << 63:
                raise Corrupt(
                    location,
                    f"{variable.name} of shape {list(variable.shape)} is larger than any tensor",
                    "The file is damaged; use another checkpoint of the run.",
                )


def _open(tensorflow: Any, path: str, location: str, target: Target) -> Checkpoint:
    _check_shapes(path, location, target)
    with _as_read_problem(tensorflow, location):
        reader = tensorflow.train.load_checkpoint(location)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    variables: Mapping[str, Variable] = {
        name: Variable(
            name,
            tuple(shapes[name]),
            dtypes[name].name,
            partial(_read, tensorflow, location, name, dtypes[name]),
        )
        for name in sorted(shapes, key=os.fsencode)
        if name != OBJECT_GRAPH_KEY
    }
    checkpoint = Checkpoint(
        path=path,
        resolved=location,
        format="tf-v1" if target.kind == "tensor-slices" else "tf-v2",
        variables=variables,
        notes=target.notes,
    )
    if OBJECT_GRAPH_KEY not in shapes:
        return checkpoint

    def read_string(name: str) -> bytes:
        with _as_read_problem(tensorflow, location):
            text = reader.get_tensor(name)
        if not isinstance(text, bytes):
            raise Corrupt(location, f"expected one string under {name}, got something else", _HINT)
        return text

    return with_object_graph(checkpoint, read_string)


def _read(tensorflow: Any, location: str, name: str, dtype: Any) -> NDArray[Any]:
    with _as_read_problem(tensorflow, location):
        (tensor,) = tensorflow.raw_ops.RestoreV2(
            prefix=location, tensor_names=[name], shape_and_slices=[""], dtypes=[dtype]
        )
        values: NDArray[Any] = tensor.numpy()
    return values.astype(np.float32) if dtype.name == "bfloat16" else values


@contextmanager
def _as_read_problem(tensorflow: Any, location: str, *more: type[Exception]) -> Iterator[None]:
    """Raise TensorFlow's errors about a file as a `ReadProblem` with TensorFlow's words."""
    try:
        yield
    except (*more, tensorflow.errors.OpError, ValueError, RuntimeError, TypeError) as error:
        message = getattr(error, "message", str(error)).strip().splitlines() or ["no reason"]
        raise ReadProblem(location, f"TensorFlow cannot read it ({message[0]})", _HINT) from error
