"""Dropout in a graph, in the forms of `tf.nn.dropout` (tensorflow/python/ops/nn_ops.py).

They are x / keep * floor(keep + random), x * scale * (random >= rate), and in TensorFlow 2
where(random >= rate, x * scale, 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bninspect.recalibrate.engines.graph.branches import constant
from bninspect.recalibrate.engines.graph.nodes import (
    Nodes,
    Tensor,
    consumers_of,
    data_inputs,
)

RankOf = Callable[[Tensor], int | None]
RANDOM_UNIFORM = "RandomUniform"
_SHIFTS = {"Mul", "Add", "AddV2", "Sub", "Identity"}
_THRESHOLDS = {"Floor", "GreaterEqual", "Greater", "Less", "LessEqual"}
_MASKS = {"Cast", "Identity", "Reshape"}
_ENDS = {"Mul", "SelectV2", "Select"}
_LONGEST = 12  # operations between the random numbers and the product


def dropouts(nodes: Nodes, rank_of: RankOf) -> Mapping[str, Tensor]:
    """Return the operation that each dropout ends with, and what it would be at inference.

    `rank_of` gives the number of a tensor's dimensions, None if that is not known.
    """
    consumers = consumers_of(nodes)
    found = {}
    for name, node in nodes.items():
        if node.op == RANDOM_UNIFORM:
            for last, mask in _masked(nodes, consumers, name, rank_of):
                kept = _unscaled(nodes, last, mask, rank_of)
                if kept is not None:
                    found[last] = kept
    return found


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
                others = [one for one in data_inputs(nodes[user]) if one.node != name]
                all_scalars = all(rank_of(one) in (0, None) for one in others)
                if is_mask and operation in _ENDS:
                    yield user, name
                elif is_mask and operation in _MASKS:
                    following.append((user, True))
                elif not is_mask and operation in _SHIFTS | _THRESHOLDS and all_scalars:
                    following.append((user, operation in _THRESHOLDS))
        waiting = following


def _unscaled(nodes: Nodes, last: str, mask: str, rank_of: RankOf) -> Tensor | None:
    """Return x of a masked x / keep or x * (1 / keep); None for others."""
    taken = data_inputs(nodes[last])
    if nodes[last].op != "Mul":
        otherwise = nodes.get(taken[2].node)
        is_dropout = taken[0].node == mask and otherwise is not None and constant(otherwise) == 0
        others = taken[1:2] if is_dropout else []
    else:
        others = [one for one in taken if one.node != mask]
    if len(others) != 1 or others[0].node not in nodes:
        return None
    scaled: Any = nodes[others[0].node]
    if scaled.op not in ("RealDiv", "Div", "Mul"):
        return None
    # A placeholder of the share to keep may have no shape; it stands second in all versions.
    x, scale = data_inputs(scaled)
    return x if rank_of(x) != 0 and rank_of(scale) in (0, None) else None
