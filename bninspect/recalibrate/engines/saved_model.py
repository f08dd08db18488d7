"""Engine of a SavedModel: the graph of its signature for serving is run as a graph of TF1.

A SavedModel of TensorFlow 2 has a graph of few nodes (placeholders, variables, a call) and a
library of functions. The signature computes what the model does at inference, so dropout is not in
it. The function for training is not used: it has dropout, and the updates of the averages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bninspect.errors import UsageProblem
from bninspect.evidence.graph.operations import VARIABLES
from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.evidence.structure.dataflow import Dataflow
from bninspect.evidence.structure.layers import StoredNames
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.filenames import SAVED_MODEL
from bninspect.model.graph import Graph
from bninspect.model.layer import BNLayer
from bninspect.recalibrate.engines import Array
from bninspect.recalibrate.engines.frameworks import import_framework, parse_message
from bninspect.recalibrate.engines.graph.engine import GraphEngine, StoredGraph
from bninspect.recalibrate.engines.graph.nodes import ancestors, data_inputs, tensor_of

_SIGNATURE = "serving_default"
_OUTPUTS = "bninspect_outputs"
_NODE_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")  # ValidateNodeDef of node_def_util.cc
_EXPORTED_BY_KERAS_3 = "_all_variables/"
_INSTEAD = "Recalibrate the checkpoint or the Keras file that it was made of, and export that again"


def open_saved_model(
    checkpoint: Checkpoint,
    layers: Sequence[BNLayer],
    fed: Mapping[str, Array | None] | None = None,
) -> GraphEngine:
    """Return the engine that runs the signature `serving_default` of a SavedModel.

    Raises `UsageProblem` without such a signature, and as `GraphEngine` does.
    """
    path = os.path.join(checkpoint.resolved, SAVED_MODEL)
    if any(name.startswith(_EXPORTED_BY_KERAS_3) for name in checkpoint.variables):
        raise UsageProblem(
            f"{checkpoint.path} cannot be recalibrated: an export of Keras 3 stores each variable"
            f" twice. {_INSTEAD}."
        )
    saved_model = import_framework("tensorflow.core.protobuf.saved_model_pb2").SavedModel
    metas = parse_message(saved_model, path).meta_graphs
    for meta, graph in zip(metas, checkpoint.graphs(), strict=True):
        if _SIGNATURE in meta.signature_def:
            stored = _serving_graph(path, meta, _variables(checkpoint, graph, meta))
            return GraphEngine(checkpoint, layers, fed, stored)
    raise UsageProblem(
        f"{checkpoint.path} cannot be recalibrated: it has no signature {_SIGNATURE}, by which it"
        f" could be run. {_INSTEAD}."
    )


def _variables(checkpoint: Checkpoint, graph: Graph, meta: Any) -> dict[str, str]:
    """Return the names under which the nodes that are variables are stored."""
    stored = StoredNames(checkpoint, Dataflow(GraphTraversal(graph)))
    names = {}
    for number, node in enumerate(meta.graph_def.node):
        if node.op in VARIABLES and (variable := stored.variable((number,))) is not None:
            names[node.name] = variable.name
    return names


def _serving_graph(path: str, meta: Any, variables: Mapping[str, str]) -> StoredGraph:
    """Return the graph of the signature alone.

    What is fed has the name of the signature's argument, and variables have the names under which
    they are stored, as far as these are names of nodes.
    """
    signature = meta.signature_def[_SIGNATURE]
    inputs = {tensor_of(info.name).node: key for key, info in signature.inputs.items()}
    nodes = {node.name: node for node in meta.graph_def.node}
    outputs = []
    for key, info in sorted(signature.outputs.items()):
        outputs.append(f"{_OUTPUTS}/{key}")
        nodes[outputs[-1]] = _identity(outputs[-1], info)
    needed = [nodes[name] for name in ancestors(nodes, outputs)]
    names = _unused({**variables, **inputs}, {node.name for node in needed})
    for node in needed:
        node.name = names.get(node.name, node.name)
        node.attr.pop("_class", None)  # says beside which node, by its old name
        taken = data_inputs(node)
        node.input[:] = [
            str(tensor._replace(node=names.get(tensor.node, tensor.node))) for tensor in taken
        ]
    graph = type(meta)()
    graph.CopyFrom(meta)
    del graph.graph_def.node[:]
    graph.graph_def.node.extend(needed)
    return StoredGraph(path, graph, tuple(outputs))


def _identity(name: str, output: Any) -> Any:
    """Return a node that passes an output of the signature on."""
    node = import_framework("tensorflow").compat.v1.NodeDef(name=name, op="Identity")
    node.input.append(str(tensor_of(output.name)))
    node.attr["T"].type = output.dtype
    return node


def _unused(names: Mapping[str, str], used: set[str]) -> dict[str, str]:
    """Return the new names of nodes that are valid, and that no node has."""
    renamed: dict[str, str] = {}
    for name, new in names.items():
        if name in used and new not in used and _NODE_NAME.fullmatch(new):
            used.add(new)
            renamed[name] = new
    return renamed
