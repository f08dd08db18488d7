"""What a stored graph proves of BN layers: whether training runs the updates of their statistics.

- A node updates a statistic if it assigns the variable, through whatever passes a variable on
  (Identity, Switch, Enter, ReadVariableOp, the arguments of functions). Names of nodes tell
  nothing: they are AssignMovingAvg, update_moving_mean, mean_ema_op, AssignNewValue, ….
- An update runs with a step if a training op depends on it, by data or by control.

What does not run by the graph may be run by hand, so nothing here is a finding by itself; and a
graph without an optimizer says nothing about training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from bninspect.batchnorm.families import FAMILIES
from bninspect.evidence.graph.momentum import common_momentum
from bninspect.evidence.graph.switches import switches
from bninspect.evidence.graph.training_ops import find_training_ops
from bninspect.evidence.graph.traversal import (
    APPLIES,
    ARGUMENT,
    ASSIGNS,
    PASSES,
    RELATIVE,
    VARIABLES,
    Walk,
)
from bninspect.model.graph import Graph, GraphEvidence, Update
from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE, STATISTICS, Role

# tensorflow/core/ops/{array_ops,math_ops,io_ops,nn_ops,data_flow_ops}.cc
_RESHAPES = {"Identity", "Switch", "Enter", "Cast", "Reshape", "ReadVariableOp"}
# Where a value ends that is no new statistic: a constant or random start, a restored checkpoint,
# a placeholder by which Keras sets weights, a copy of another variable.
_NO_UPDATE = VARIABLES | {
    *("Const", "Fill", "ZerosLike", "OnesLike", "Placeholder", "PlaceholderWithDefault"),
    *("Restore", "RestoreSlice", "RestoreV2"),
}
_FUSED = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}
# What also writes to a variable, in ways that are not followed.
_OTHER_WRITES: tuple[str, ...] = (
    *("Scatter", "ResourceScatter", "StridedSliceAssign", "ResourceStridedSliceAssign"),
    *("CountUpTo", "ResourceCountUpTo", *APPLIES),
)
# Where a training step may leave what it computed: gradients that are accumulated, a queue.
_STORES = ("Accumulator", "SparseAccumulator", "ResourceAccumulator", "QueueEnqueue")
_CHOICES = {"Merge", "RefMerge", "Select", "SelectV2", "If", "StatelessIf"}
_LONGEST_CHAIN = 32
_MOST_GRAPHS = 8

Names = Mapping[str, str]


def graph_evidence(
    graphs: Sequence[Graph], layers: Sequence[BNLayer], known_names: Names
) -> dict[str, GraphEvidence]:
    """What the graphs of one file prove of each layer, by its name; nothing without graphs.

    Of several graphs (a SavedModel's) the first counts that trains. `known_names` is that of the
    checkpoint.
    """
    if not graphs:
        return {}
    found = [_Evidence(Walk(graph)) for graph in graphs[:_MOST_GRAPHS]]
    return next((one for one in found if one.ops.named), found[0]).of(layers, known_names)


class _Evidence:
    """What is asked of one graph, for all layers at once."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.graph = walk.graph
        self.variables = walk.variables
        self.ops = find_training_ops(walk)

    def of(self, layers: Sequence[BNLayer], known: Names) -> dict[str, GraphEvidence]:
        """The evidence of each layer by its name."""
        by_name = self._variables_by_name()
        members = {layer.name: _members(layer, known, by_name) for layer in layers}
        roles = {
            variable: (name, role)
            for name, found in members.items()
            for role, variable in found.items()
            if role in STATISTICS
        }
        updates, complete = self._find_updates(roles)
        run_by: dict[int, list[str]] = {node: [] for node in updates}
        for name, starts in chain(self.ops.named.items(), self.ops.unnamed.items()):
            reached = self.walk.ancestors(starts)
            for node, ops in run_by.items():
                if reached[node] and (name in self.ops.named or not ops):
                    ops.append(name)
        needed = self.walk.ancestors(self.ops.optimizing)
        in_training = [node for node, runs in enumerate(needed) if runs]
        reads, modes = self._reads(in_training)
        chosen, moments = self._chosen(in_training), self._has_moments(in_training)
        stored = self.walk.ancestors(self._other_writes(updates))
        optimized = {
            self.variables[self.graph.inputs[node][0]]
            for node in self.walk.optimizers
            if self.graph.inputs[node]
        }
        collected = self.walk.ancestors(self.graph.collections.get("update_ops", ()))
        owned: dict[str, list[int]] = {layer.name: [] for layer in layers}
        for node, variable in updates.items():
            owned[roles[variable][0]].append(node)
        found = {}
        for layer in layers:
            mine, own = members[layer.name], owned[layer.name]
            affine = [mine[role] for role in AFFINE if role in mine]
            found[layer.name] = GraphEvidence(
                path=self.graph.path,
                training_ops=tuple(self.ops.named),
                updates=tuple(
                    Update(
                        self.graph.names[node],
                        roles[updates[node]][1],
                        tuple(run_by[node]),
                        self.walk.in_loop(node),
                    )
                    for node in own
                ),
                total=len(updates),
                total_run=sum(map(bool, run_by.values())),
                complete=complete,
                statistics={
                    role: self.graph.names[mine[role]] for role in STATISTICS if role in mine
                },
                reads=any(mine[role] in reads for role in STATISTICS if role in mine),
                optimized=not affine or not optimized.isdisjoint(affine),
                modes=frozenset().union(*(modes.get(one, ()) for one in mine.values())),
                stored=any(stored[node] and not run_by[node] for node in own),
                chosen=any(mine[role] in chosen for role in STATISTICS if role in mine),
                moments=moments,
                collected=any(collected[node] for node in own),
                switches=switches(self.walk, own),
                momentum=common_momentum(self.graph, self.variables, own),
            )
        return found

    def _other_writes(self, updates: Mapping[int, int]) -> Iterator[int]:
        """What keeps a result besides the updates and the optimizers: what runs it is not known.

        Gradients that are accumulated, a training by assignments of one's own: a step may run the
        updates with these.
        """
        for node, operation in enumerate(self.graph.operations):
            inputs = self.graph.inputs[node]
            if operation.startswith(_STORES):
                yield node
            elif operation in ASSIGNS and len(inputs) > 1 and inputs[0] >= 0:
                variable = self.variables[inputs[0]]
                computed = operation in RELATIVE or self._is_new(
                    node, max(variable, 0), self._origin(inputs[1])
                )
                if node not in updates and computed:
                    yield node

    def _has_moments(self, in_training: Iterable[int]) -> bool:
        """Whether training computes moments of a batch, as tf.nn.moments does (nn_impl.py)."""
        operations = self.graph.operations
        return any(
            operations[node] == "SquaredDifference"
            and any(
                operations[one] == "StopGradient" for one in self.graph.inputs[node] if one >= 0
            )
            for node in in_training
        )

    def _chosen(self, in_training: Iterable[int]) -> set[int]:
        """The variables whose value training takes or leaves, by a condition."""
        return {
            self.variables[one]
            for node in in_training
            if self.graph.operations[node] in _CHOICES
            for one in self.graph.inputs[node]
            if one >= 0
        }

    def _find_updates(self, roles: Mapping[int, object]) -> tuple[dict[int, int], bool]:
        """The nodes that update one of the variables `roles`; and whether these are all."""
        updates: dict[int, int] = {}
        complete = True
        for node, operation in enumerate(self.graph.operations):
            inputs = self.graph.inputs[node]
            if operation.startswith(_OTHER_WRITES) and inputs and inputs[0] >= 0:
                variable = self.variables[inputs[0]]
                complete = complete and variable >= 0 and variable not in roles
            if operation not in ASSIGNS or len(inputs) < 2 or inputs[0] < 0:
                continue
            variable = self.variables[inputs[0]]
            if variable in roles:
                value = self._origin(inputs[1])
                if operation in RELATIVE or self._is_new(node, variable, value):
                    updates[node] = variable
                elif value == ARGUMENT:
                    complete = False
            elif variable < 0:
                complete = False
        return updates, complete

    def _is_new(self, node: int, variable: int, origin: str | None) -> bool:
        """Whether an assigned value is computed, not started from, restored or set by hand."""
        names = self.graph.names
        if names[node] == f"{names[variable]}/Assign":
            return False  # the initialiser
        return origin is not None and origin not in _NO_UPDATE and origin != ARGUMENT

    def _origin(self, node: int) -> str | None:
        """The operation that computed a value, before it was passed on or reshaped."""
        for _ in range(_LONGEST_CHAIN):
            if node < 0:
                return None
            inputs = self.graph.inputs[node]
            if self.graph.operations[node] not in _RESHAPES or not inputs:
                return self.graph.operations[node]
            node = inputs[0]
        return None

    def _reads(self, in_training: Iterable[int]) -> tuple[set[int], dict[int, set[bool]]]:
        """The variables that training computes with, and the is_training of the fused nodes."""
        reads: set[int] = set()
        modes: dict[int, set[bool]] = {}
        for node in in_training:
            operation = self.graph.operations[node]
            if operation in PASSES or operation in ASSIGNS or node in self.walk.calls:
                continue
            taken = {self.variables[one] for one in self.graph.inputs[node] if one >= 0}
            reads |= taken
            if operation in _FUSED:
                # Left out where it has its default, true (SavedModels strip defaults).
                mode = self.graph.attribute(node, "is_training") is not False
                for variable in taken:
                    modes.setdefault(variable, set()).add(mode)
        return reads, modes

    def _variables_by_name(self) -> dict[str, int]:
        return {
            self.graph.names[node]: node for node, one in enumerate(self.variables) if one == node
        }


def _members(layer: BNLayer, known: Names, by_name: Mapping[str, int]) -> dict[Role, int]:
    """The variables of the graph that a layer's members are, stored or not."""
    found: dict[Role, int] = {}
    scope = ""
    for role, variable in layer.variables.items():
        name = known.get(variable.name, variable.name)
        scope = name.rpartition("/")[0]
        if name in by_name:
            found[role] = by_name[name]
    for role in STATISTICS:
        if role not in layer.variables:
            leaves = (one.leaves[role] for one in FAMILIES if one.name == layer.family)
            names = (f"{scope}/{leaf}" for row in leaves for leaf in row)
            node = next((by_name[name] for name in names if name in by_name), None)
            if node is not None:
                found[role] = node
    return found
