"""Inputs of a graph: placeholders, and what iterators and queues give."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bninspect.errors import UsageProblem
from bninspect.recalibrate.engines import InputSpec
from bninspect.recalibrate.engines.frameworks import import_framework
from bninspect.recalibrate.engines.graph.nodes import Tensor, tensor_of
from bninspect.recalibrate.engines.graph.rewriting import Rewriter

# The attributes with the types and the shapes of what an operation gives
# (tensorflow/core/ops/array_ops.cc, dataset_ops.cc, data_flow_ops.cc).
_SOURCES = {
    "Placeholder": ("dtype", "shape"),
    "PlaceholderV2": ("dtype", "shape"),
    "IteratorGetNext": ("output_types", "output_shapes"),
    "IteratorGetNextSync": ("output_types", "output_shapes"),
    "QueueDequeue": ("component_types", ""),
    "QueueDequeueV2": ("component_types", ""),
    "QueueDequeueMany": ("component_types", ""),
    "QueueDequeueManyV2": ("component_types", ""),
    "QueueDequeueUpTo": ("component_types", ""),
    "QueueDequeueUpToV2": ("component_types", ""),
}
_OF_OTHERS = ("dtype", "T", "DstT", "output_type")
_SCOPE = "bninspect_feed"
Shape = tuple[int | None, ...] | None


class GraphInputs:
    """The tensors of a graph that samples are fed to, by the names that a user gives.

    In `nodes` they become placeholders. Besides the inputs that a graph declares, `named` are the
    names of other tensors that are fed.
    """

    def __init__(self, nodes: dict[str, Any], named: Collection[str]) -> None:
        self._placeholders: dict[Tensor, str] = {}
        self._specs: dict[str, InputSpec] = {}
        rewriter = Rewriter(nodes)
        unknown = [name for name in named if not _is_tensor_of(nodes, name)]
        if unknown:
            raise UsageProblem(f"--feed {unknown[0]}: the network of the graph has no such tensor.")
        wanted = {tensor_of(name) for name in named}
        for node in list(nodes.values()):
            for place, reference in enumerate(node.input):
                tensor = tensor_of(reference)
                source = nodes.get(tensor.node)
                if source is not None and (source.op in _SOURCES or tensor in wanted):
                    self._add(rewriter, tensor, source)
                if tensor in self._placeholders:
                    node.input[place] = self._placeholders[tensor]

    def _add(self, rewriter: Rewriter, tensor: Tensor, source: Any) -> None:
        if tensor in self._placeholders:
            return
        has_many = source.op in _SOURCES and "Placeholder" not in source.op
        name = f"{tensor.node}:{tensor.output}" if has_many else str(tensor)
        dtype, shape = _declared(source, tensor.output)
        placeholder = f"{_SCOPE}/{len(self._placeholders)}"
        rewriter.placeholder(placeholder, dtype, shape)
        self._placeholders[tensor] = placeholder
        self._specs[placeholder] = InputSpec(name, shape, _name(dtype))

    def specs(self, nodes: Collection[str]) -> dict[str, InputSpec]:
        """Return the inputs that are among `nodes`, by the name of their placeholder."""
        return {name: spec for name, spec in self._specs.items() if name in nodes}


def _is_tensor_of(nodes: Collection[str], name: str) -> bool:
    node, colon, output = name.partition(":")
    return node in nodes and (not colon or (output.isascii() and output.isdecimal()))


def _declared(source: Any, output: int) -> tuple[int, Shape]:
    """Return the type and the shape that a node declares for one of its outputs."""
    types, shapes = _SOURCES.get(source.op, ("", ""))
    if not types:
        return declared_dtype(source), None
    dtypes = source.attr[types].list.type
    if types == "dtype":
        dtypes = [source.attr[types].type]
    if output >= len(dtypes) or not dtypes[output]:
        raise UsageProblem(f"The graph is damaged: {source.name} has no type for output {output}.")
    if types == "dtype":
        return dtypes[output], _shape(source.attr[shapes].shape)
    declared = source.attr[shapes].list.shape if shapes else ()
    return dtypes[output], _shape(declared[output]) if output < len(declared) else None


def declared_dtype(node: Any) -> int:
    """Return the type of what a node gives; raises `UsageProblem` if that is not known."""
    for name in _OF_OTHERS:
        if name in node.attr and (dtype := node.attr[name].type):
            return int(dtype)
    raise UsageProblem(f"--feed {node.name}: its type is not known, so it cannot be fed.")


def _name(dtype: int) -> str:
    name: str = import_framework("tensorflow").as_dtype(dtype).name
    return name


def _shape(message: Any) -> Shape:
    if message.unknown_rank:
        return None
    return tuple(None if dimension.size < 0 else int(dimension.size) for dimension in message.dim)


def described(specs: Sequence[InputSpec]) -> str:
    """Return the names of inputs with shape and type: `images (?, 28, 28, 1) float32`."""
    return ", ".join(f"{spec.name} {_text(spec.shape)} {spec.dtype}" for spec in specs)


def _text(shape: Shape) -> str:
    if shape is None:
        return "of any shape"
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"
