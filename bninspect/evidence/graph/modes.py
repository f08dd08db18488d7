"""Mode in which training computes a BN layer: with its statistics, or with those of the batch."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

from bninspect.evidence.graph.operations import APPLIES, ASSIGNS, CHOICES, FUSED_BATCH_NORMS, PASSES
from bninspect.evidence.graph.traversal import GraphTraversal


class TrainingModes(NamedTuple):
    """The modes in which training computes with variables, each by its node.

    `reads` are the variables that training computes with, `computes` those of them that it computes
    with besides the optimizers' nodes: the gradients are not computed elsewhere, as behind
    accumulators. `fused` has the values of is_training of the
    fused nodes that take a variable, `chosen` the variables whose value training takes or leaves by
    a condition. `moments` says that training computes the moments of a batch, as tf.nn.moments does
    (tensorflow/python/ops/nn_impl.py).
    """

    reads: frozenset[int]
    computes: frozenset[int]
    fused: dict[int, set[bool]]
    chosen: frozenset[int]
    moments: bool


def find_modes(
    traversal: GraphTraversal, optimizing: Iterable[int], updates: Container[int]
) -> TrainingModes:
    """Find the modes of variables in the nodes that optimizers depend on.

    Updates of statistics read them too, but that is no computation of the layer.
    """
    operations, inputs = traversal.graph.operations, traversal.graph.inputs
    needed = traversal.ancestors(optimizing, without=updates)
    in_training = [node for node, runs in enumerate(needed) if runs]
    reads: set[int] = set()
    computes: set[int] = set()
    fused: dict[int, set[bool]] = {}
    chosen: set[int] = set()
    for node in in_training:
        taken = {traversal.variables[source] for source in inputs[node] if source >= 0}
        if operations[node] in CHOICES:
            chosen |= taken
        if operations[node] in PASSES | ASSIGNS or node in traversal.calls:
            continue
        reads |= taken
        if not operations[node].startswith(APPLIES):
            computes |= taken
        if operations[node] in FUSED_BATCH_NORMS:
            # Left out where it has its default, true (SavedModels strip defaults).
            is_training = traversal.graph.attribute(node, "is_training") is not False
            for variable in taken:
                fused.setdefault(variable, set()).add(is_training)
    moments = any(
        operations[node] == "SquaredDifference"
        and any(operations[source] == "StopGradient" for source in inputs[node] if source >= 0)
        for node in in_training
    )
    return TrainingModes(frozenset(reads), frozenset(computes), fused, frozenset(chosen), moments)
