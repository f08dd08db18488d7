"""BN layers of a checkpoint, found by the graph beside it: which stored variable has which role.

The names of variables serve only to find them in the file, as the Saver of the graph stored them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from bninspect.errors import ReadProblem
from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.evidence.structure.bn_structures import Parts, Structure, find_bn_structures
from bninspect.evidence.structure.dataflow import Dataflow, TooComplexError, Value
from bninspect.evidence.structure.savers import saved_names
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.graph import WEIGHTS, Graph
from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES, STATISTICS, Role
from bninspect.wording import listed, plural

FAMILY = "graph"
_MOST_GRAPHS = 8  # of a SavedModel
_PARTITION = re.compile(r"/part_\d+$")
# The scope of tf.nn.batch_normalization, or of a kernel that became arithmetic, and the name of an
# operation.
_OPERATION = re.compile(r"(/?(batchnorm|FusedBatchNorm(V2|V3)?)(_\d+)?)?(^|/)[^/]*$")
# The names that Keras gives layers without one, and those of variables in a frozen function of
# TensorFlow 2 (`BNLayer.is_of_function`), where tf.layers is not used.
_KERAS_LAYER = re.compile(r"(?s)(?:.*/)?(?:sync_)?batch_normalization(?:_v\d)?(?:_\d+)*")
_OF_FUNCTION = re.compile(r"(?s).*/ReadVariableOp(?:_\d+)?/resource")
# How Keras 3 reads mean and variance: it casts them one after the other, in mixed precision after
# the layer's input (keras/src/layers/normalization/batch_normalization.py).
_KERAS_3_CASTS = (("Cast", "Cast_1"), ("Cast_1", "Cast_2"))
_NUMBERS = ("float", "bfloat")
_COPIES = "_all_variables/"  # of a Keras 3 export, see `_is_copy`
# The initial values of averages if the graph has no constant one, and those of gamma and beta where
# a constant has taken the place of the variable and of its initializer.
_USUAL_INITIAL: Mapping[Role, tuple[float, ...]] = {
    "moving_mean": (0.0,),
    "moving_variance": (1.0, 0.0),
}
_USUAL_AFFINE: Mapping[Role, tuple[float, ...]] = {"gamma": (1.0,), "beta": (0.0,)}


def layers_by_structure(checkpoint: Checkpoint, graphs: Sequence[Graph]) -> list[BNLayer]:
    """Return the BN layers that the graphs compute and of which `checkpoint` stores a variable.

    A layer's name is the common part of the names of its variables. `graph_names` of a layer has
    all its variables, also those that are not stored. Raises a `ReadProblem` for a graph that takes
    far longer to search than any real one.
    """
    by_statistics: dict[tuple[str, ...], _GraphLayer] = {}
    for graph in graphs[:_MOST_GRAPHS]:
        with limited_search(graph):
            layers = list(_layers_of(checkpoint, graph))
        for layer in layers:
            roles = ROLES if checkpoint.frozen else STATISTICS
            names = [layer.key(role) for role in roles if role in layer.graph_names]
            # Where equal constants were merged, the operation tells layers apart.
            is_merged = len(set(names)) < len(names)
            key = (*names, graph.names[layer.structure.node] if is_merged else "")
            if key not in by_statistics or len(layer.stored) > len(by_statistics[key].stored):
                by_statistics[key] = layer
    stored = [layer for layer in by_statistics.values() if layer.stored]
    named = _named_by_operations(graphs[0], stored) if checkpoint.frozen else _named(stored)
    return [_layer(name, layer) for name, layer in named.items()]


@contextmanager
def limited_search(graph: Graph) -> Iterator[None]:
    """Raise a `ReadProblem` for a graph that takes far longer to search than any real one."""
    try:
        yield
    except TooComplexError as error:
        raise ReadProblem(
            graph.path, "searching it for BN layers takes too long", "Name them by --pattern."
        ) from error


class _GraphLayer(NamedTuple):
    """A layer of a graph with the variables of it that are stored, and all its names there."""

    structure: Structure
    stored: Mapping[Role, Variable]
    graph_names: Mapping[Role, str]
    initial: Mapping[Role, tuple[float, ...]]

    def key(self, role: Role) -> str:
        """Return the name that identifies the variable of a role, also in another graph."""
        return self.stored[role].name if role in self.stored else self.graph_names[role]


def _layers_of(checkpoint: Checkpoint, graph: Graph) -> Iterator[_GraphLayer]:
    dataflow = Dataflow(GraphTraversal(graph))
    names = StoredNames(checkpoint, dataflow)
    for structure in find_bn_structures(dataflow, names.saved):
        variables = {role: names.variable(parts) for role, parts in structure.members.items()}
        stored = {role: variable for role, variable in variables.items() if variable is not None}
        if _fits_together(stored):
            yield _GraphLayer(
                structure,
                stored,
                {role: graph.names[parts[0]] for role, parts in structure.members.items()},
                {role: _initial_values(dataflow, structure, role) for role in structure.members},
            )


def _fits_together(stored: Mapping[Role, Variable]) -> bool:
    """Return whether stored members hold numbers, and the statistics a value for each channel."""
    if not all(variable.dtype.startswith(_NUMBERS) for variable in stored.values()):
        return False
    return len({stored[role].size for role in STATISTICS if role in stored}) < 2


class StoredNames:
    """The stored variables of a checkpoint, by the nodes of a graph.

    `saved` are the nodes that a Saver of the graph stores, as far as they are in the checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint, dataflow: Dataflow) -> None:
        self._variables = checkpoint.variables
        self._graph = dataflow.graph
        self._by_known_name = {name: key for key, name in checkpoint.known_names.items()}
        self._names = {
            node: [name for name in given if name in self._variables]
            for node, given in (saved_names(dataflow) or {}).items()
        }
        self.saved = {node for node, given in self._names.items() if given}

    def variable(self, parts: Parts) -> Variable | None:
        """Return the stored variable of a node or of its partitions; None if it is not stored."""
        stored = [self._stored(node) for node in parts]
        if len(parts) > 1 and stored[0] is None:
            # Without a Saver in the graph: all partitions are stored under one name.
            return self._variables.get(_PARTITION.sub("", self._graph.names[parts[0]]))
        present = [variable for variable in stored if variable is not None]
        names = {variable.name for variable in present}
        if len(names) < 2 or len(present) < len(parts):
            return stored[0]
        return _joined(present)

    def _stored(self, node: int) -> Variable | None:
        name = self._graph.names[node]
        for candidate in (*self._names.get(node, ()), name, self._by_known_name.get(name, name)):
            if candidate in self._variables:
                return self._variables[candidate]
        return None


def _joined(parts: Sequence[Variable]) -> Variable:
    """Return the vector whose partitions are stored as variables of their own."""
    first = parts[0]
    shape = (sum(part.size for part in parts),)
    return first._replace(
        shape=shape, load=lambda: np.concatenate([part.read().reshape(-1) for part in parts])
    )


def _initial_values(dataflow: Dataflow, structure: Structure, role: Role) -> tuple[float, ...]:
    """Return the constant that the graph initializes a variable with; a usual one, or nothing."""
    graph, parts = dataflow.graph, structure.members[role]
    if graph.operations[parts[0]] == WEIGHTS and role in _USUAL_AFFINE:
        offset = structure.gamma_offset if role == "gamma" else 0.0
        return tuple(value - offset for value in _USUAL_AFFINE[role])
    for node in dataflow.traversal.consumers[parts[0]] or ():
        operands = dataflow.operands(Value(node))
        if graph.operations[node] in ("Assign", "AssignVariableOp") and len(operands) == 2:
            value = dataflow.origin(operands[1])
            if dataflow.operation(value) == "Fill" and len(dataflow.operands(value)) == 2:
                value = dataflow.origin(dataflow.operands(value)[1])
            constant = graph.constant(value.node)
            if constant is not None and len(constant.elements) == 1:
                return tuple(float(element) for element in constant.elements)
    return _USUAL_INITIAL.get(role, ())


def _named(layers: Sequence[_GraphLayer]) -> dict[str, _GraphLayer]:
    """Return the layers by name: the common part of the names of their variables."""
    names = [[layer.key(role) for role in layer.structure.members] for layer in layers]
    scopes = [_common_scope(layer_names) for layer_names in names]
    users = Counter(scopes)
    named: dict[str, _GraphLayer] = {}
    for layer, layer_names, scope in zip(layers, names, scopes, strict=True):
        prefix = "".join(_common(layer_names)).rstrip("/_.-")
        alone = scope if users[scope] == 1 else ""
        name = next(name for name in (alone, prefix, layer.key("moving_mean")) if name)
        named[layer.key("moving_mean") if name in named else name] = layer
    return named


def _named_by_operations(graph: Graph, layers: Sequence[_GraphLayer]) -> dict[str, _GraphLayer]:
    """Return the layers of a frozen graph by the scopes of the operations that normalize.

    Constants may have any names, and layers may share those that have the same values.
    """
    operations = [graph.names[layer.structure.node] for layer in layers]
    scopes = [_OPERATION.sub("", name) for name in operations]
    users = Counter(scopes)
    return {
        scope if scope and users[scope] == 1 else name: layer
        for scope, name, layer in zip(scopes, operations, layers, strict=True)
    }


def _common_scope(names: Sequence[str]) -> str:
    """Return the scopes that all names begin with."""
    return "/".join(_common([name.split("/")[:-1] for name in names]))


def _common(texts: Sequence[Sequence[str]]) -> list[str]:
    """Return the common beginning of several sequences."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return [column[0] for column in columns]


def _layer(name: str, layer: _GraphLayer) -> BNLayer:
    structure = layer.structure
    momentum = structure.momentum
    found = BNLayer(
        name=name,
        family=FAMILY,
        variables=layer.stored,
        initial=layer.initial,
        gamma_offset=structure.gamma_offset,
        epsilon=structure.epsilon,
        momentum=momentum if momentum is not None and momentum < 1.0 else None,
        graph_names=layer.graph_names,
    )
    if _is_of_keras_3(found):
        return replace(found, family="keras", keras_version="3")
    names = [variable.name for variable in layer.stored.values()]
    is_of_keras = _KERAS_LAYER.fullmatch(name) and all(map(_OF_FUNCTION.fullmatch, names))
    return replace(found, family="keras") if is_of_keras else found


def _is_of_keras_3(layer: BNLayer) -> bool:
    """Return whether the constants of a function are named as Keras 3 reads its variables."""
    names = tuple(layer.variables[role].name for role in STATISTICS if role in layer.variables)
    return any(
        names == tuple(f"{layer.name}/{cast}/ReadVariableOp{end}" for cast in casts)
        for casts in _KERAS_3_CASTS
        for end in ("/resource", "")
    )


class Merged(NamedTuple):
    """The layers found by names and those found by the graph, and notes on the difference.

    `computed` has the layers as the graph computes them, by the name of the layer.
    """

    layers: list[BNLayer]
    notes: tuple[str, ...]
    computed: Mapping[str, BNLayer] = {}


def merge(
    by_names: Sequence[BNLayer],
    by_graph: Sequence[BNLayer],
) -> Merged:
    """Return the layers of both searches; of one layer, that with more statistics, by its name.

    Notes say where both differ: which layers only one of them found, and variables to which they
    give different roles. Then the names count. Raises a `ReadProblem` if the values of a possible
    copy cannot be read.
    """
    owners = {
        variable.name: index
        for index, layer in enumerate(by_names)
        for variable in layer.variables.values()
    }
    merged = [*by_names]
    computed: dict[str, BNLayer] = {}
    added = []
    notes = []
    for layer in by_graph:
        indexes = {
            owners[variable.name]
            for variable in layer.variables.values()
            if variable.name in owners
        }
        if not indexes:
            copied = [named.name for named in by_names if _is_copy(layer, named)]
            computed |= dict.fromkeys(copied or [layer.name], layer)
            if not copied:
                merged.append(layer)
                added.append(layer.name)
            continue
        computed |= {merged[index].name: layer for index in indexes}
        if len(indexes) == 1 and _is_more(layer, merged[index := min(indexes)]):
            merged[index] = replace(layer, name=merged[index].name)
            added.append(layer.name)
        else:
            notes += [note for index in indexes for note in _contradiction(layer, merged[index])]
    if added:
        notes.insert(0, found_by_graph(added, "the graph beside it"))
    if unused := [layer.name for layer in merged if layer.name not in computed]:
        notes.append(found_by_names(unused, "the graph beside it"))
    return Merged(merged, tuple(notes), computed)


def found_by_graph(names: Sequence[str], document: str) -> str:
    """Return a sentence on layers that names did not find; `document` is what to call the graph."""
    return (
        f"{plural(len(names), 'BN layer')} found by what {document} computes, not by names:"
        f" {listed(names)}"
    )


def found_by_names(names: Sequence[str], document: str) -> str:
    """Return a sentence on layers that the graph does not compute."""
    return (
        f"{plural(len(names), 'BN layer')} found by names alone; no normalization with their"
        f" variables was found in {document}: {listed(names)}"
    )


def _is_copy(by_graph: BNLayer, by_names: BNLayer) -> bool:
    """Return whether a layer is a copy of another for serving, with the same values.

    A Keras 3 export stores its variables twice: under `variables`, whose names are kept, and under
    `_all_variables`, which the graph uses (keras/src/export/saved_model.py). Raises
    a `ReadProblem`.
    """
    copies = by_graph.variables
    if not all(variable.name.startswith(_COPIES) for variable in copies.values()):
        return False
    return copies.keys() == by_names.variables.keys() and all(
        np.array_equal(variable.read(), by_names.variables[role].read(), equal_nan=True)
        for role, variable in copies.items()
    )


def _is_more(by_graph: BNLayer, by_names: BNLayer) -> bool:
    counts = [sum(role in layer.variables for role in STATISTICS) for layer in (by_graph, by_names)]
    return counts[0] > counts[1]


def _contradiction(by_graph: BNLayer, by_names: BNLayer) -> Iterator[str]:
    roles = {variable.name: role for role, variable in by_names.variables.items()}
    for role, variable in by_graph.variables.items():
        named = roles.get(variable.name)
        if named is not None and named != role:
            yield (
                f"the graph beside it uses {variable.name} as {role}; it is judged by its name, as"
                f" {named}"
            )
