"""TensorFlow.js graph models: the constants of a frozen graph, under the names of its nodes.

The topology is a GraphDef as JSON. The converter folds batch normalization into other constants
wherever it can (fold_batch_norms.py, and TensorFlow's own optimizer of graphs, which call the
results CONV_bn_offset, BN/FusedBatchNorm/Offset and BN/batchnorm/mul): what is left of the
statistics then cannot be told from the rest. Of layers written by hand it may leave one statistic.
Where it folds nothing, the constants of FusedBatchNorm are gamma, beta, mean and variance in this
order (tensorflow/core/ops/nn_ops.cc), whatever their names. TensorFlow's optimizer of graphs keeps
one of several equal constants, so stuck layers may share theirs: a layer is what its node takes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from bninspect.batchnorm.families import Family
from bninspect.batchnorm.find_layers import family_of_names, find_layers, in_natural_order
from bninspect.batchnorm.folded_names import (
    ANY_PRODUCT,
    KERNEL_OFFSET,
    folded_layer,
    layer_of_offset,
)
from bninspect.errors import Corrupt
from bninspect.formats.tfjs.arithmetic import FUSED, arithmetic_of
from bninspect.formats.tfjs.weights import TfjsWeights
from bninspect.formats.weights_file import Weights
from bninspect.model.checkpoint import Checkpoint, UncheckedGroup
from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES, STATISTICS, Role

_MOST_IDENTITIES = 20
# How a function of TensorFlow 2 reads a variable; its layers are objects.
_READ_OF_OBJECT = re.compile(r"(?s).*/ReadVariableOp(_\d+)?")
_FOLDED_REASON = (
    "folded into other constants by the converter, so there are no statistics left to check; check"
    " the checkpoint, Keras file or SavedModel that the model was converted from"
)
_BY_BATCH = (
    "it normalizes by the moments of each batch, as in training, and not by stored statistics;"
    " convert the model again, built for inference (training=False)"
)
_OTHER = Family("graph", "nothing says what made the layer")

Node = Mapping[str, Any]


class _Fused(NamedTuple):
    """A FusedBatchNorm node: the weights that it takes by role, as far as they are stored."""

    name: str
    weights: Mapping[Role, str]
    epsilon: float | None
    in_training: bool

    @property
    def scope(self) -> str:
        """Return the name of the layer that made the node."""
        return self.name.rpartition("/")[0] or self.name

    @property
    def has_statistics(self) -> bool:
        """Return whether it normalizes by statistics that are stored."""
        return not self.in_training and all(role in self.weights for role in STATISTICS)


def read_graph_model(
    path: str, weights: TfjsWeights, topology: Any, notes: tuple[str, ...]
) -> Checkpoint:
    """Return the checkpoint of a graph model; `path` is what the user typed.

    Raises `Corrupt` if the topology is no graph.
    """
    fused = [*_fused(_nodes(weights.path, topology), set(weights.names))]
    names = [name for node in fused for name in node.weights.values()]
    is_of_objects = any(map(_READ_OF_OBJECT.fullmatch, names))
    checkpoint = Checkpoint(
        path=path,
        resolved=weights.path,
        format="tfjs",
        variables=Weights(dict.fromkeys(weights.names, weights)),
        named_by="object" if is_of_objects else "graph",
        unchecked=tuple(_without_statistics(fused)),
        incomplete=weights.problem,
        notes=notes,
        converted_from="the model that it was converted from",
        arithmetic=lambda: arithmetic_of(weights, topology),
        prefetch=lambda variables: weights.prefetch(variable.name for variable in variables),
        close=weights.close,
    )
    layers = _layers_of(checkpoint, [node for node in fused if node.has_statistics])
    return _with_layers(checkpoint, weights, layers)


def _layers_of(checkpoint: Checkpoint, fused: Sequence[_Fused]) -> list[BNLayer]:
    """Return the BN layers that some nodes compute; nodes that take the same weights are one."""
    nodes = {_key(node): node for node in reversed(fused)}.values()
    users = Counter(node.scope for node in nodes)
    return [
        _layer(checkpoint, node, node.scope if users[node.scope] == 1 else node.name)
        for node in nodes
    ]


def _key(node: _Fused) -> tuple[str, ...]:
    """Return the weights of a node, or if one has two roles, its name.

    Then equal constants became one, and so may those of other layers have become.
    """
    weights = tuple(node.weights.values())
    return weights if len({*weights}) == len(ROLES) else (node.name,)


def _layer(checkpoint: Checkpoint, node: _Fused, name: str) -> BNLayer:
    by_object = checkpoint.named_by == "object"
    roles: dict[str, str] = {role: role for role in node.weights}
    family = family_of_names(node.scope, roles, by_object=by_object) or _OTHER
    return BNLayer(
        name=name,
        family=family.name,
        variables={role: checkpoint.variables[weight] for role, weight in node.weights.items()},
        initial=family.initial,
        gamma_offset=family.gamma_offset,
        usual_epsilon=family.epsilon,
        epsilon=node.epsilon,
    )


def _without_statistics(fused: Iterable[_Fused]) -> Iterator[UncheckedGroup]:
    """Yield the layers of nodes that normalize by no stored statistics, with the reason."""
    for node in fused:
        if not node.has_statistics:
            missing = [role for role in STATISTICS if role not in node.weights]
            are = "are" if len(missing) > 1 else "is"
            reason = f"its {' and '.join(missing)} {are} computed by other nodes, and not stored"
            yield UncheckedGroup(
                node.scope, (), _BY_BATCH if node.in_training else reason, nameable=False
            )


def _with_layers(
    checkpoint: Checkpoint, weights: TfjsWeights, layers: Sequence[BNLayer]
) -> Checkpoint:
    """Return the checkpoint with the layers of its nodes, without what is left of folded layers.

    A layer of which one statistic is left was folded, too: the other is part of a constant.
    """
    used = {layer.variables[role].name for layer in layers for role in STATISTICS}
    by_names = [
        layer
        for layer in find_layers(checkpoint)
        if used.isdisjoint(variable.name for variable in layer.variables.values())
    ]
    halves = [layer for layer in by_names if _is_half(layer)]
    left = {variable.name for layer in halves for variable in layer.variables.values()}
    names = [name for name in weights.names if name not in left]
    folded = [*filter(None, map(_folded_layer, names)), *(layer.name for layer in halves)]
    others = [layer for layer in by_names if not _is_half(layer)]
    return replace(
        checkpoint,
        variables=Weights(dict.fromkeys(names, weights)),
        layers=in_natural_order([*layers, *others]) if layers else None,
        unchecked=(
            *checkpoint.unchecked,
            *(
                UncheckedGroup(name, (), _FOLDED_REASON, nameable=False)
                for name in dict.fromkeys(folded)
            ),
        ),
    )


def _folded_layer(name: str) -> str | None:
    """Return the layer of a constant that folding left, without the convolution before it."""
    offset = layer_of_offset(name)
    if offset is not None:
        return offset.rpartition("/")[0] or offset
    return folded_layer(name, ANY_PRODUCT, KERNEL_OFFSET)


def _is_half(layer: BNLayer) -> bool:
    return sum(role in layer.variables for role in STATISTICS) == 1


def _nodes(path: str, topology: Any) -> dict[str, Node]:
    """Return the nodes of the graph by name."""
    stored = topology.get("node") if isinstance(topology, dict) else None
    nodes = stored if isinstance(stored, list) else []
    if not nodes or not all(isinstance(node, dict) for node in nodes):
        raise Corrupt(
            path, "its modelTopology is no graph", "The file is damaged; convert the model again."
        )
    return {node["name"]: node for node in nodes if isinstance(node.get("name"), str)}


def _fused(nodes: Mapping[str, Node], weights: set[str]) -> Iterator[_Fused]:
    """Yield the fused nodes of a graph that are BN.

    LayerNormalization of Keras 2 normalizes samples by such a node: with a gamma that it fills with
    1 for each sample (keras/src/layers/normalization/layer_normalization.py).
    """
    for name, node in nodes.items():
        inputs = node.get("input")
        if node.get("op") not in FUSED or not isinstance(inputs, list) or len(inputs) < 5:
            continue
        sources = [_source(nodes, given) for given in inputs[1:5]]
        in_training = _attribute(node, "is_training", "b") is True
        if in_training and nodes.get(sources[0], {}).get("op") == "Fill":
            continue
        members = zip(ROLES, sources, strict=True)
        epsilon = _attribute(node, "epsilon", "f")
        yield _Fused(
            name,
            {role: member for role, member in members if member in weights},
            float(f"{epsilon:.7g}") if isinstance(epsilon, float) and epsilon >= 0.0 else None,
            in_training,
        )


def _attribute(node: Node, name: str, kind: str) -> Any:
    """Return an attribute of a node as the JSON of an AttrValue has it; None without it."""
    attributes = node.get("attr")
    value = attributes.get(name) if isinstance(attributes, dict) else None
    return value.get(kind) if isinstance(value, dict) else None


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
