"""ONNX models for tests, made by the onnx package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ROLES = ("gamma", "beta", "moving_mean", "moving_variance")
Arrays = Mapping[str, NDArray[Any]]


def members(channels: int = 3, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """The members of a healthy layer, by role."""
    random = np.random.default_rng(seed)
    arrays = random.uniform(0.2, 0.9, (len(ROLES), channels)).astype("f4")
    return dict(zip(ROLES, arrays, strict=True))


STUCK = members() | {"moving_mean": np.zeros(3, "f4"), "moving_variance": np.ones(3, "f4")}


def named(arrays: Arrays, scope: str = "bn") -> list[TensorProto]:
    """The members as initializers, called as in PyTorch."""
    leaves = ("weight", "bias", "running_mean", "running_var")
    return [
        numpy_helper.from_array(arrays[role], f"{scope}.{leaf}")
        for role, leaf in zip(ROLES, leaves, strict=True)
        if role in arrays
    ]


def bn_node(inputs: Sequence[str], name: str = "", **attributes: Any) -> onnx.NodeProto:
    """A BatchNormalization node of x and four tensors."""
    output = f"{name or 'bn'}_y"
    outputs = attributes.pop("outputs", [output])
    return helper.make_node("BatchNormalization", ["x", *inputs], outputs, name=name, **attributes)


def model(
    initializers: Sequence[TensorProto],
    nodes: Sequence[onnx.NodeProto] | None = None,
    *,
    opset: int = 15,
    producer: str = "",
    functions: Sequence[onnx.FunctionProto] = (),
    inputs: Sequence[str] = ("x",),
) -> onnx.ModelProto:
    """A model; without nodes, one BatchNormalization of the initializers in their order."""
    nodes = nodes or [bn_node([one.name for one in initializers])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    graph = helper.make_graph(list(nodes), "graph", values, [], list(initializers))
    opsets = [helper.make_opsetid("", opset)] + [
        helper.make_opsetid(function.domain, 1) for function in functions
    ]
    return helper.make_model(
        graph, opset_imports=opsets, producer_name=producer, functions=list(functions)
    )


def write(folder: Path, made: onnx.ModelProto | bytes, name: str = "model.onnx") -> Path:
    """Write a model to a file and return its path."""
    path = folder / name
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path
