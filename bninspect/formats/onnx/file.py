"""ONNX files as checkpoints (onnx/onnx.proto)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from bninspect.formats.message_file import MessageFile
from bninspect.formats.onnx.arithmetic import arithmetic_of
from bninspect.formats.onnx.graph import read_model
from bninspect.formats.onnx.layers import (
    OTHER,
    PYTORCH,
    folded_groups,
    groups_without_node,
    layers_of,
)
from bninspect.formats.onnx.sites import find_sites, folded_in, initializers_of
from bninspect.formats.onnx.tensors import Tensor, TensorFiles
from bninspect.model.checkpoint import HALVES, Checkpoint, Variable
from bninspect.storage.source import Source


def open_onnx(path: str, model_path: str, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Open the ONNX model at `model_path`; `path` is what the user typed.

    Raises a `ReadProblem` if it is damaged, cut short or larger than any real model. Values are
    read only when asked for: a file of external data may be missing then.
    """
    source = Source(model_path)
    try:
        return _read(path, source, notes)
    except BaseException:
        source.close()
        raise


def _read(path: str, source: Source, notes: tuple[str, ...]) -> Checkpoint:
    file = MessageFile(source, "this ONNX model", "The file is damaged; export or copy it again.")
    model = read_model(file)
    files = TensorFiles(file)
    tensors: dict[str, Tensor] = {}

    def variable(tensor: Tensor) -> Variable:
        tensors.setdefault(tensor.name, tensor)
        load = partial(files.read, tensor)
        quantized = tensor.dtype if tensor.dtype in HALVES else None
        return Variable(tensor.name, tensor.shape, tensor.dtype, load, quantized=quantized)

    variables: dict[str, Variable] = {}
    for tensor in initializers_of(model):
        variables.setdefault(tensor.name, variable(tensor))
    initializers = [*variables]
    sites = find_sites(file, model)
    found = layers_of(sites, model.producer, variable)
    unchecked = [*found.unchecked, *folded_groups(folded_in(model))]
    known = [layer.name for layer in found.layers] + [group.name for group in unchecked]
    for layer in found.layers:
        for member in layer.variables.values():
            variables.setdefault(member.name, member)

    def prefetch(expected: Iterable[Variable]) -> None:
        names = (one.name for one in expected)
        files.prefetch([tensors[name] for name in names if name in tensors])

    family = PYTORCH.name if model.producer == PYTORCH.name else OTHER.name
    return Checkpoint(
        path=path,
        resolved=source.path,
        format="onnx",
        variables=variables,
        in_order=True,
        layers=tuple(found.layers),
        unchecked=(*unchecked, *groups_without_node(initializers, sites, known)),
        notes=(*notes, *found.notes),
        converted_from="the model that it was exported from",
        arithmetic=lambda: arithmetic_of(file, model, family, variable),
        prefetch=prefetch,
        close=source.close,
    )
