"""Dropout in a graph, in the forms of `tf.nn.dropout` (tensorflow/python/ops/nn_ops.py).

They are x / keep * floor(keep + random), x * scale * (random >= rate), and in TensorFlow 2
where(random >= rate, x * scale, 0). The share that is kept times the scale is 1: other masks of
random numbers are no dropout, since inference would not be the same without them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bninspect.recalibrate.engines.graph.branches import constant
from bninspect.recalibrate.engines.graph.nodes import (
    Nodes,
    Tensor,
    consumers_of,
    data_inputs,
    operand,
)

RankOf = Callable[[Tensor], int | None]
RANDOM_UNIFORM = "RandomUniform"
_SHIFTS = {"Mul", "Add", "AddV2", "Sub", "Identity"}
_THRESHOLDS = {"Floor", "GreaterEqual", "Greater", "Less", "LessEqual"}
_MASKS = {"Cast", "Identity", "Reshape"}
_ENDS = {"Mul", "SelectV2", "Select"}
_LONGEST = 12  # operations between the random numbers and the product
_QUOTIENTS = {"RealDiv", "Div"}
_COPIES = {"Identity", "Cast", "Reshape"}
_ARITHMETIC: Mapping[str, np.ufunc] = {
    "Mul": np.multiply,
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    **dict.fromkeys(_QUOTIENTS, np.divide),
    "Floor": np.floor,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
}
# Evenly spread numbers in place of the random ones, and how exactly these give the share kept.
_UNIFORM = (np.arange(1000) + 0.5) / 1000
_TOLERANCE = 0.01


def dropouts(nodes: Nodes, rank_of: RankOf) -> Mapping[str, Tensor]:
    """Return the operation that each dropout ends with, and what it would be at inference.

    `rank_of` gives the number of a tensor's dimensions, None if that is not known.
    """
    consumers = consumers_of(nodes)
    dropped: dict[str, Tensor] = {}
    for name, node in nodes.items():
        if node.op == RANDOM_UNIFORM:
            for last, mask in _masked(nodes, consumers, name, rank_of):
                kept = _unscaled(nodes, last, mask, rank_of)
                if kept is not None and _keeps_the_mean(nodes, name, mask, kept.scale):
                    dropped[last] = kept.x
    return dropped


def _masked(
    nodes: Nodes, consumers: Mapping[str, list[str]], random: str, rank_of: RankOf
) -> Iterator[tuple[str, str]]:
    """Yield the operations that take a mask of random numbers, and the node of the mask."""
    waiting = [(random, False)]
    for _ in range(_LONGEST):
        following = []
        for name, is_mask in waiting:
            for user in consumers.get(name, ()):
                operation = nodes[user].op
                others = [tensor for tensor in data_inputs(nodes[user]) if tensor.node != name]
                all_scalars = all(rank_of(tensor) in (0, None) for tensor in others)
                if is_mask and operation in _ENDS:
                    yield user, name
                elif is_mask and operation in _MASKS:
                    following.append((user, True))
                elif not is_mask and operation in _SHIFTS | _THRESHOLDS and all_scalars:
                    following.append((user, operation in _THRESHOLDS))
        waiting = following


class _Scaled(NamedTuple):
    """The value x that is scaled before the mask; `scale` is the node that does it."""

    x: Tensor
    scale: Any


def _unscaled(nodes: Nodes, last: str, mask: str, rank_of: RankOf) -> _Scaled | None:
    """Return x of a masked x / keep or x * (1 / keep); None for others."""
    taken = data_inputs(nodes[last])
    if nodes[last].op != "Mul":
        otherwise = nodes.get(operand(nodes[last], 2).node)
        is_dropout = taken[0].node == mask and otherwise is not None and constant(otherwise) == 0
        others = taken[1:2] if is_dropout else []
    else:
        others = [tensor for tensor in taken if tensor.node != mask]
    if len(others) != 1 or others[0].node not in nodes:
        return None
    scaled: Any = nodes[others[0].node]
    if scaled.op not in _QUOTIENTS | {"Mul"}:
        return None
    # A placeholder of the share to keep may have no shape; it stands second in all versions.
    x, scale = operand(scaled, 0), operand(scaled, 1)
    return _Scaled(x, scaled) if rank_of(x) != 0 and rank_of(scale) in (0, None) else None


def _keeps_the_mean(nodes: Nodes, random: str, mask: str, scaled: Any) -> bool:
    """Return whether the share that the mask keeps, times the scale, is 1."""
    scale = _value(nodes, operand(scaled, 1).node, random)
    with np.errstate(all="ignore"):
        factor = 1.0 / scale if scaled.op in _QUOTIENTS else scale
        kept = np.mean(_value(nodes, mask, random))
        return bool(np.all(np.abs(kept * factor - 1.0) <= _TOLERANCE))


def _value(nodes: Nodes, name: str, random: str, depth: int = 0) -> NDArray[Any]:
    """Return the value of a scalar for each of the numbers that stand for random ones.

    A value that is not known, such as that of a placeholder, is replaced by a number of its own.
    """
    node = nodes.get(name)
    if name == random:
        return _UNIFORM
    if node is not None and depth < _LONGEST:
        number = constant(node)
        if number is not None:
            return np.asarray(number, np.float64)
        if node.op in _COPIES:
            return _value(nodes, operand(node, 0).node, random, depth + 1)
        if node.op in _ARITHMETIC:
            function = _ARITHMETIC[node.op]
            taken = (operand(node, place).node for place in range(function.nin))
            values = (_value(nodes, name, random, depth + 1) for name in taken)
            with np.errstate(all="ignore"):
                result: NDArray[Any] = function(
                    *(np.asarray(value, np.float64) for value in values)
                )
            return result
    return np.asarray(0.3 + 0.4 * (zlib.crc32(name.encode()) % 997) / 997)
