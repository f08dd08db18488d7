"""Outputs of a network in a graph: its logits, as the operations of classification take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bninspect.recalibrate.engines.graph.nodes import Nodes, Tensor, ancestors, operand
from bninspect.recalibrate.engines.graph.sites import BNSite

# Operations whose first input are logits or probabilities. Those of the first group say so surely;
# a sigmoid may stand anywhere.
_CLASSIFICATIONS = (
    {
        *("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits", "Softmax"),
        *("LogSoftmax", "ArgMax", "InTopK", "InTopKV2", "TopK", "TopKV2"),
    },
    {"Sigmoid"},
)
_PROBABILITIES = {"Softmax", "LogSoftmax", "Sigmoid"}


class Output(NamedTuple):
    """An output of a network: as an operation takes it, and before it was reshaped or squeezed."""

    taken: Tensor
    computed: Tensor


def network_outputs(
    nodes: Nodes, sites: Sequence[BNSite], origin: Callable[[Tensor], Tensor]
) -> list[Output]:
    """Return the logits of the networks that the sites belong to; none if that is not certain.

    They depend on a site, and no site depends on what is computed of them. `origin` follows copies
    of a tensor back.
    """
    normalizing = {site.takes_mean[0] for site in sites}
    before = set(ancestors(nodes, (site.x.node for site in sites)))
    for operations in _CLASSIFICATIONS:
        candidates: dict[Tensor, Output] = {}
        for name, node in nodes.items():
            if node.op in operations and name not in before:
                output = _logits(nodes, operand(node, 0), origin)
                candidates.setdefault(output.computed, output)
        outputs = [
            output
            for computed, output in candidates.items()
            if normalizing & set(ancestors(nodes, [computed.node]))
        ]
        if outputs:
            return outputs
    return []


def _logits(nodes: Nodes, tensor: Tensor, origin: Callable[[Tensor], Tensor]) -> Output:
    """Return what probabilities are computed of, else the tensor."""
    computed = origin(tensor)
    node: Any = nodes.get(computed.node)
    if node is not None and node.op in _PROBABILITIES:
        tensor = operand(node, 0)
        computed = origin(tensor)
    return Output(tensor, computed)
