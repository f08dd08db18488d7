"""BatchNormalization nodes of an ONNX model, each with the stored tensors that it takes.

Values are followed by their names through Identity and operations that only change type or shape,
into the graphs of If and Loop, which see the names around them, and into local functions by their
parameters. Rules of the operation by opset: onnx/docs/Changelog.md.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bninspect.errors import Unsupported
from bninspect.formats.message_file import MessageFile
from bninspect.formats.onnx.graph import (
    BATCH_NORMALIZATION,
    CONSTANT,
    EXPAND,
    FILLS,
    PASSING,
    Graph,
    Model,
    Node,
    attribute_value,
    constant_tensor,
)
from bninspect.formats.onnx.tensors import Tensor
from bninspect.model.roles import STATISTICS, Role

# The inputs of the operation after X.
INPUTS: tuple[tuple[int, Role], ...] = (
    (1, "gamma"),
    (2, "beta"),
    (3, "moving_mean"),
    (4, "moving_variance"),
)
_EPSILON = 1e-5  # the operation's default
FILLED = "filled with one number when the model runs"
# The opsets in which attributes of the mode came or went.
_WITHOUT_IS_TEST, _WITH_TRAINING_MODE = 7, 14
_MOST_VISITS, _MOST_CALLS, _DEEPEST = 1 << 18, 1 << 14, 64


class Stored(NamedTuple):
    """A tensor by a name that nodes take it by. `is_constant` says that a Constant node has it."""

    name: str
    tensor: Tensor
    is_constant: bool = False


class Site(NamedTuple):
    """A BatchNormalization node.

    `name` is the node's, after those of the calls around it. `inputs` are the names that it takes
    in each role, `stored` those among them that are stored tensors; `unread` says of the others, as
    far as it is known, what they are. `momentum` is None if the node has none. `in_training` says
    that the node normalizes by the statistics of the batch.
    """

    name: str
    inputs: Mapping[Role, str]
    stored: Mapping[Role, Stored]
    unread: Mapping[Role, str]
    epsilon: float
    momentum: float | None
    in_training: bool
    metadata: Mapping[str, str]

    @property
    def has_statistics(self) -> bool:
        """Return whether both statistics are stored."""
        return all(role in self.stored for role in STATISTICS)

    @property
    def is_layer_norm(self) -> bool:
        """Return whether the node normalizes each sample by itself, as in Keras 2.

        The samples are the channels of its LayerNormalization: gamma is 1 for each of them, and
        both statistics are computed (keras/src/layers/normalization/layer_normalization.py).
        """
        known = self.stored.keys() | self.unread.keys()
        return self.unread.get("gamma") == FILLED and known.isdisjoint(STATISTICS)


def find_sites(file: MessageFile, model: Model) -> list[Site]:
    """Return the BatchNormalization nodes that running the model may reach, in order.

    Raises `Unsupported` for functions that call each other more often than in any real model.
    """
    search = _Search(file, model)
    scope: _Scope = ChainMap(dict.fromkeys(model.graph.inputs, "given to the model as input"))
    search.visit(model.graph, scope, _Call("", model.opset))
    return search.sites


# The values by name that a graph sees, its own and those around it: stored tensors, or what is
# known of values that are none.
_Scope = ChainMap[str, Stored | str]


class _Call(NamedTuple):
    """The call of a function that nodes are within: the names of the callers, and its opset."""

    path: str
    opset: int


class _Search:
    """The search for BatchNormalization in one model."""

    def __init__(self, file: MessageFile, model: Model) -> None:
        self._file, self._model = file, model
        self._visits = self._calls = self._depth = 0
        self.sites: list[Site] = []

    def visit(self, graph: Graph, scope: _Scope, call: _Call) -> None:
        """Add the sites of a graph, of those within it, and of the functions that it calls."""
        self._depth += 1
        self._require(self._depth <= _DEEPEST)
        scope.update(dict.fromkeys(graph.sparse, "stored in sparse form, which is not read"))
        scope.update({name: Stored(name, tensor) for name, tensor in graph.initializers.items()})
        for node in graph.nodes:
            self._visits += 1
            self._require(self._visits <= _MOST_VISITS)
            for inner in node.graphs:
                self.visit(inner, scope.new_child(), call)
            if node.key in self._model.functions:
                self._visit_function(node, scope, call)
            elif node.is_standard:
                self._visit_node(node, scope, call)
        self._depth -= 1

    def _require(self, is_met: bool) -> None:
        if not is_met:
            raise Unsupported(
                self._file.source.path,
                "the local functions of this ONNX model call each other more often than any that"
                " are known",
                "If it is a real model, check the one that it was exported from.",
            )

    def _visit_node(self, node: Node, scope: _Scope, call: _Call) -> None:
        if node.op == BATCH_NORMALIZATION:
            self.sites.append(self._site(node, scope, call))
        elif node.op == CONSTANT and node.outputs:
            tensor = constant_tensor(self._file, node)
            if tensor is not None:
                scope[node.outputs[0]] = Stored(tensor.name, tensor, is_constant=True)
        elif node.op in FILLS and node.outputs:
            if (filled := _filled(node, scope)) is not None:
                scope[node.outputs[0]] = filled
        elif node.op in PASSING and node.inputs and node.outputs:
            value = scope.get(node.inputs[0])
            if isinstance(value, Stored) and node.op == "Identity":
                # Exporters store equal tensors once, and keep the names of the others so.
                value = value._replace(name=node.outputs[0])
            if value is not None:
                scope[node.outputs[0]] = value

    def _visit_function(self, node: Node, scope: _Scope, call: _Call) -> None:
        """Add the sites of a function that a node calls, and the values that it returns."""
        self._calls += 1
        self._require(self._calls <= _MOST_CALLS)
        function = self._model.functions[node.key]
        inner = _passed(scope, node.inputs, function.inputs)
        path = f"{call.path}{node.name or node.op}/"
        self.visit(function.body, inner, _Call(path, function.opset or call.opset))
        scope.update(_passed(inner, function.outputs, node.outputs))

    def _site(self, node: Node, scope: _Scope, call: _Call) -> Site:
        inputs = {role: node.inputs[at] for at, role in INPUTS if at < len(node.inputs)}
        values = {role: value for role, name in inputs.items() if (value := scope.get(name))}
        epsilon = attribute_value(self._file, node.attributes.get("epsilon"))
        return Site(
            call.path + (node.name or next(iter(node.outputs), "")),
            inputs,
            {role: value for role, value in values.items() if isinstance(value, Stored)},
            {role: value for role, value in values.items() if isinstance(value, str)},
            _EPSILON if epsilon is None else epsilon,
            attribute_value(self._file, node.attributes.get("momentum")),
            self._is_in_training(node, call.opset),
            node.metadata,
        )

    def _is_in_training(self, node: Node, opset: int) -> bool:
        """Return whether a node normalizes by the statistics of the batch.

        Up to opset 13 a node that also gives the new averages does, from 7 on whatever it says.
        """
        if opset >= _WITH_TRAINING_MODE:
            return bool(attribute_value(self._file, node.attributes.get("training_mode")))
        is_test = attribute_value(self._file, node.attributes.get("is_test"))
        gives_averages = sum(map(bool, node.outputs)) > 1
        return gives_averages and not (opset < _WITHOUT_IS_TEST and is_test)


def _filled(node: Node, scope: _Scope) -> Stored | str | None:
    """Return the value of an operation that repeats a number, or a vector; None if not known.

    The input of ConstantOfShape is the shape alone.
    """
    if node.op != EXPAND:
        return FILLED
    value = scope.get(node.inputs[0]) if node.inputs else None
    is_number = isinstance(value, Stored) and value.tensor.size == 1
    return FILLED if is_number else value


def _passed(scope: _Scope, names: Sequence[str], new_names: Sequence[str]) -> _Scope:
    """Return the values of some names of a scope by other names, as a call passes them."""
    pairs = zip(names, new_names, strict=False)
    return ChainMap({new: value for name, new in pairs if (value := scope.get(name)) is not None})


def initializers_of(model: Model) -> Iterator[Tensor]:
    """Yield the stored tensors of all graphs of a model, those of inner graphs last."""
    graphs = [model.graph, *(function.body for function in model.functions.values())]
    for graph in graphs:
        yield from graph.initializers.values()
        graphs += [inner for node in graph.nodes for inner in node.graphs]


def folded_in(model: Model) -> tuple[str, ...]:
    """Return the names of the BN layers that an exporter folded into other operations."""
    graphs = [model.graph, *(function.body for function in model.functions.values())]
    names: dict[str, None] = {}
    for graph in graphs:
        names.update(dict.fromkeys(graph.folded))
        graphs += [inner for node in graph.nodes for inner in node.graphs]
    return tuple(names)
