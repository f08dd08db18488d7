"""TensorFlow.js graph models: the constants of a frozen graph, under the names of its nodes.

The topology is a GraphDef as JSON. The converter folds batch normalization into other constants
wherever it can (fold_batch_norms.py, and TensorFlow's own optimizer of graphs, which call the
results CONV_bn_offset, BN/FusedBatchNorm/Offset and BN/batchnorm/mul): what is left of the
statistics then cannot be told from the rest. Of layers written by hand it may leave one statistic.
Where it folds nothing, the constants of FusedBatchNorm are gamma, beta, mean and variance in this
order (tensorflow/core/ops/nn_ops.cc), whatever their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from bninspect.batchnorm.find_layers import find_layers
from bninspect.batchnorm.name_groups import LEAVES
from bninspect.errors import Corrupt
from bninspect.formats.hdf5.file import Weights
from bninspect.formats.tfjs.weights import TfjsWeights
from bninspect.model.checkpoint import Checkpoint, UncheckedGroup
from bninspect.model.roles import ROLES, STATISTICS

_FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_MOST_IDENTITIES = 20
# How a function of TensorFlow 2 reads a variable; its layers are objects.
_READ_OF_OBJECT = re.compile(r"(?s).*/ReadVariableOp(_\d+)?")
_FOLDED = (
    re.compile(r"(?s)(.*)/\w+_bn_offset"),
    re.compile(r"(?s)(.*)/FusedBatchNorm(?:V\d)?/Offset"),
    re.compile(r"(?s)(.*)/batchnorm(?:_\d+)?/mul(?:_\d+)?"),
)
_FOLDED_REASON = (
    "folded into other constants by the converter, so there are no statistics left to check; check"
    " the checkpoint, Keras file or SavedModel that the model was converted from"
)

Node = Mapping[str, Any]


def read_graph_model(
    path: str, weights: TfjsWeights, topology: Any, notes: tuple[str, ...]
) -> Checkpoint:
    """Return the checkpoint of a graph model; `path` is what the user typed.

    Raises `Corrupt` if the topology is no graph.
    """
    nodes = _nodes(weights.path, topology)
    names = set(weights.names)
    known: dict[str, str] = {}
    is_of_objects = False
    for layer in _fused(nodes, names):
        is_of_objects = is_of_objects or bool(_READ_OF_OBJECT.fullmatch(layer["moving_mean"]))
        scope = layer["node"].rpartition("/")[0] or layer["node"]
        known |= {layer[role]: f"{scope}/{role}" for role in ROLES if _is_unnamed(layer[role])}
    return _without_halves(
        Checkpoint(
            path=path,
            resolved=weights.path,
            format="tfjs",
            variables=Weights(dict.fromkeys(weights.names, weights)),
            named_by="object" if is_of_objects else "graph",
            known_names=known,
            incomplete=weights.problem,
            notes=notes,
            prefetch=lambda variables: weights.prefetch(variable.name for variable in variables),
            close=weights.close,
        ),
        weights,
    )


def _without_halves(checkpoint: Checkpoint, weights: TfjsWeights) -> Checkpoint:
    """Return the checkpoint without what is left of folded layers, which are not checked.

    A layer of which one statistic is left was folded, too: the other is part of a constant.
    """
    halves = [
        layer
        for layer in find_layers(checkpoint)
        if sum(role in layer.variables for role in STATISTICS) == 1
    ]
    left = {variable.name for layer in halves for variable in layer.variables.values()}
    names = [name for name in weights.names if name not in left]
    matches = (pattern.fullmatch(name) for name in names for pattern in _FOLDED)
    folded = [*(match[1] for match in matches if match), *(layer.name for layer in halves)]
    return replace(
        checkpoint,
        variables=Weights(dict.fromkeys(names, weights)),
        unchecked=tuple(
            UncheckedGroup(name, (), _FOLDED_REASON, nameable=False)
            for name in dict.fromkeys(folded)
        ),
    )


def _nodes(path: str, topology: Any) -> dict[str, Node]:
    """Return the nodes of the graph by name."""
    stored = topology.get("node") if isinstance(topology, dict) else None
    nodes = stored if isinstance(stored, list) else []
    if not nodes or not all(isinstance(node, dict) for node in nodes):
        raise Corrupt(
            path, "its modelTopology is no graph", "The file is damaged; convert the model again."
        )
    return {node["name"]: node for node in nodes if isinstance(node.get("name"), str)}


def _fused(nodes: Mapping[str, Node], weights: set[str]) -> Iterator[dict[str, str]]:
    """Yield the weights of each fused node by role, with the name of the node."""
    for name, node in nodes.items():
        inputs = node.get("input")
        if node.get("op") not in _FUSED or not isinstance(inputs, list) or len(inputs) < 5:
            continue
        members = [_source(nodes, given) for given in inputs[1:5]]
        if weights.issuperset(members) and len({*members}) == len(ROLES):
            yield {"node": name, **dict(zip(ROLES, members, strict=True))}


def _source(nodes: Mapping[str, Node], given: Any) -> str:
    """Return the node whose value an input is, through nodes that only pass it on."""
    name = _node_name(given)
    for _ in range(_MOST_IDENTITIES):
        node = nodes.get(name, {})
        inputs = node.get("input")
        if node.get("op") != "Identity" or not isinstance(inputs, list) or not inputs:
            break
        name = _node_name(inputs[0])
    return name


def _node_name(given: Any) -> str:
    return given.removesuffix(":0") if isinstance(given, str) else ""


def _is_unnamed(name: str) -> bool:
    """Return whether the name of a weight does not say its role."""
    return name.rpartition("/")[2] not in LEAVES
