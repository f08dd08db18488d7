"""Dropout in a graph: x * scale * (random >= rate), or x / keep * floor(keep + random).

These are the forms of `tf.nn.dropout` in all versions of TensorFlow 1
(tensorflow/python/ops/nn_ops.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bninspect.recalibrate.engines.graph.nodes import (
    Nodes,
    Tensor,
    consumers_of,
    data_inputs,
)

RANDOM_UNIFORM = "RandomUniform"
_SHIFTS = {"Mul", "Add", "AddV2", "Sub", "Identity"}
_THRESHOLDS = {"Floor", "GreaterEqual", "Greater", "Less", "LessEqual"}
_MASKS = {"Cast", "Identity", "Reshape"}
_LONGEST = 12  # operations between the random numbers and the product


def dropouts(nodes: Nodes, rank_of: Callable[[Tensor], int | None]) -> Mapping[str, Tensor]:
    """Return the product that each dropout ends with, and what it would be at inference.

    `rank_of` gives the number of a tensor's dimensions, None if that is not known.
    """
    consumers = consumers_of(nodes)
    found = {}
    for name, node in nodes.items():
        if node.op == RANDOM_UNIFORM:
            for product, mask in _products(nodes, consumers, name):
                kept = _unscaled(nodes, product, mask, rank_of)
                if kept is not None:
                    found[product] = kept
    return found


def _products(
    nodes: Nodes, consumers: Mapping[str, list[str]], random: str
) -> Iterator[tuple[str, str]]:
    """Yield the products that take a mask of random numbers, and the node of the mask."""
    waiting = [(random, False)]
    for _ in range(_LONGEST):
        following = []
        for name, is_mask in waiting:
            for user in consumers.get(name, ()):
                operation = nodes[user].op
                if is_mask and operation == "Mul":
                    yield user, name
                elif operation in (_MASKS if is_mask else _SHIFTS | _THRESHOLDS):
                    following.append((user, is_mask or operation in _THRESHOLDS))
        waiting = following


def _unscaled(
    nodes: Nodes, product: str, mask: str, rank_of: Callable[[Tensor], int | None]
) -> Tensor | None:
    """Return x of the product of a mask and x / keep, or x * (1 / keep); None for others."""
    others = [one for one in data_inputs(nodes[product]) if one.node != mask]
    if len(others) != 1 or others[0].node not in nodes:
        return None
    scaled: Any = nodes[others[0].node]
    if scaled.op not in ("RealDiv", "Div", "Mul"):
        return None
    # A placeholder of the share to keep may have no shape; it stands second in all versions.
    x, scale = data_inputs(scaled)
    return x if rank_of(x) != 0 and rank_of(scale) in (0, None) else None
