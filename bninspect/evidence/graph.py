"""What a stored graph proves of BN layers: whether training runs the updates of their statistics.

- A node updates a statistic if it assigns the variable, through whatever passes a variable on
  (Identity, Switch, Enter, ReadVariableOp, the arguments of functions). Names of nodes tell
  nothing: they are AssignMovingAvg, update_moving_mean, mean_ema_op, AssignNewValue, ….
- A training step may run what the optimizer's nodes (Apply…) end in, and the train_op collection.
- An update runs with a step if such a training op depends on it, by data or by control.

What does not run by the graph may be run by hand, so nothing here is a finding by itself; and a
graph without an optimizer says nothing about training. All walks are loops over numbered nodes,
each of which is looked at a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from bninspect.evidence.momentum import common_momentum
from bninspect.families import FAMILIES
from bninspect.graph import Function, Graph, GraphEvidence, Update
from bninspect.model import AFFINE, STATISTICS, BNLayer, Role

# tensorflow/core/ops/{state_ops,resource_variable_ops,control_flow_ops,training_ops,nn_ops,
# functional_ops}.cc
_VARIABLES = {"Variable", "VariableV2", "VarHandleOp"}
_ASSIGN = {"Assign", "AssignVariableOp"}
_RELATIVE = {"AssignSub", "AssignAdd", "AssignSubVariableOp", "AssignAddVariableOp"}
_ASSIGNS = _ASSIGN | _RELATIVE
# What passes on the variable, or its value, that is its first input; an assignment to a reference
# returns it.
_PASSES = {"Identity", "RefIdentity", "Switch", "RefSwitch", "Enter", "RefEnter", "ReadVariableOp"}
_PASSES |= {"Assign", "AssignSub", "AssignAdd"}
_RESHAPES = {"Identity", "Switch", "Enter", "Cast", "Reshape", "ReadVariableOp"}
# Where a value ends that is no new statistic: a constant or random start, a restored checkpoint,
# a placeholder by which Keras sets weights, a copy of another variable.
_NO_UPDATE = _VARIABLES | {
    *("Const", "Fill", "ZerosLike", "OnesLike", "Placeholder", "PlaceholderWithDefault"),
    *("Restore", "RestoreSlice", "RestoreV2"),
}
_APPLIES = ("Apply", "ResourceApply", "SparseApply", "ResourceSparseApply")
_FUSED = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}
_FUNCTION_ATTRIBUTES = ("f", "then_branch", "else_branch", "cond", "body", "branches")
_BRANCHES = {"If", "StatelessIf", "Case", "StatelessCase"}  # their first input is the choice
_CALLS = _BRANCHES | {
    *("PartitionedCall", "StatefulPartitionedCall", "TPUPartitionedCall", "RemoteCall"),
    *("While", "StatelessWhile", "For"),
}
_ARGUMENT = "_Arg"
# What also writes to a variable, in ways that are not followed.
_OTHER_WRITES: tuple[str, ...] = (
    *("Scatter", "ResourceScatter", "StridedSliceAssign", "ResourceStridedSliceAssign"),
    *("CountUpTo", "ResourceCountUpTo", *_APPLIES),
)
# Where a training step may leave what it computed: gradients that are accumulated, a queue.
_STORES = ("Accumulator", "SparseAccumulator", "ResourceAccumulator", "QueueEnqueue")
_CHOICES = {"Merge", "RefMerge", "Select", "SelectV2", "If", "StatelessIf"}
_NONE, _SEVERAL = -1, -2
_LONGEST_CHAIN = 32
_MAX_ROOTS = 8  # each is walked from by itself; real graphs have one to three

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
    walks = [_Walk(graph) for graph in graphs[:_MAX_ROOTS]]
    return next((walk for walk in walks if walk.roots), walks[0]).evidence(layers, known_names)


class _Walk:
    """A graph with what is asked of every node: who takes its outputs, which variable it passes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.calls = {
            node: functions
            for node, operation in enumerate(graph.operations)
            if (operation in _CALLS or operation in graph.functions)
            and (functions := self._called(node, operation))
        }
        self.consumers = self._find_consumers()
        self.variables = self._find_variables()
        self.roots = self._find_roots()

    def evidence(self, layers: Sequence[BNLayer], known: Names) -> dict[str, GraphEvidence]:
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
        ran = bytearray(len(self.graph.names))
        for name, starts in self.roots.items():
            reached = self.ancestors(starts)
            for node in updates:
                if reached[node]:
                    run_by[node].append(name)
            ran = bytearray(map(max, ran, reached))
        in_training = [node for node, runs in enumerate(ran) if runs]
        reads, modes = self._reads(in_training)
        chosen, moments = self._chosen(in_training), self._has_moments(in_training)
        stored = self.ancestors(self._other_writes(updates))
        optimized = {
            self.variables[self.graph.inputs[node][0]]
            for node in self._optimizer_nodes()
            if self.graph.inputs[node]
        }
        collected = self.ancestors(self.graph.collections.get("update_ops", ()))
        owned: dict[str, list[int]] = {layer.name: [] for layer in layers}
        for node, variable in updates.items():
            owned[roles[variable][0]].append(node)
        found = {}
        for layer in layers:
            mine, own = members[layer.name], owned[layer.name]
            affine = [mine[role] for role in AFFINE if role in mine]
            found[layer.name] = GraphEvidence(
                path=self.graph.path,
                training_ops=tuple(self.roots),
                updates=tuple(
                    Update(self.graph.names[node], roles[updates[node]][1], tuple(run_by[node]))
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
                momentum=common_momentum(self.graph, self.variables, own),
            )
        return found

    def ancestors(self, starts: Iterable[int]) -> bytearray:
        """Which nodes run so that `starts` can, those of called functions included."""
        reached = bytearray(len(self.graph.names))
        entered: set[int] = set()
        waiting = [*starts]
        while waiting:
            node = waiting.pop()
            if node < 0 or reached[node]:
                continue
            reached[node] = 1
            waiting += self.graph.inputs[node]
            waiting += self.graph.controls[node]
            for function in self.calls.get(node, ()):
                if id(function) not in entered:
                    entered.add(id(function))
                    waiting += function.results
        return reached

    def _called(self, node: int, operation: str) -> tuple[Function, ...]:
        functions = self.graph.functions
        if operation in functions:  # the way of TensorFlow before 1.14
            return (functions[operation],)
        values = (self.graph.attribute(node, name) for name in _FUNCTION_ATTRIBUTES)
        names = (name for value in values if isinstance(value, tuple) for name in value)
        return tuple(functions[name] for name in names if name in functions)

    def _find_consumers(self) -> list[list[int] | None]:
        consumers: list[list[int] | None] = [None] * len(self.graph.names)
        for edges in (self.graph.inputs, self.graph.controls):
            for node, sources in enumerate(edges):
                for source in sources:
                    if source < 0:
                        continue
                    known = consumers[source]
                    if known is None:
                        consumers[source] = [node]
                    elif known[-1] != node:
                        known.append(node)
        return consumers

    def _find_variables(self) -> list[int]:
        """For each node the variable that it is or passes on, _SEVERAL if callers give others."""
        found = [_NONE] * len(self.graph.names)
        waiting = []
        places: dict[int, dict[int, list[int]]] = {}
        for node, operation in enumerate(self.graph.operations):
            if operation in _VARIABLES:
                found[node] = node
                waiting.append(node)
        while waiting:
            source = waiting.pop()
            for node in self._passed_on(source, places):
                if found[node] in (found[source], _SEVERAL):
                    continue
                found[node] = found[source] if found[node] == _NONE else _SEVERAL
                waiting.append(node)
        return found

    def _passed_on(self, source: int, places: dict[int, dict[int, list[int]]]) -> Iterator[int]:
        """The nodes that stand for what `source` gives, the arguments of functions among them.

        `places` keeps, for each call, where its inputs stand.
        """
        for node in self.consumers[source] or ():
            inputs = self.graph.inputs[node]
            operation = self.graph.operations[node]
            if operation in _PASSES and inputs and inputs[0] == source:
                yield node
            functions = self.calls.get(node, ())
            if functions and node not in places:
                first = 1 if operation in _BRANCHES else 0
                places[node] = {}
                for place, one in enumerate(inputs[first:]):
                    places[node].setdefault(one, []).append(place)
            for function in functions:
                for place in places[node].get(source, ()):
                    if place < len(function.arguments):
                        yield function.arguments[place]

    def _other_writes(self, updates: Mapping[int, int]) -> Iterator[int]:
        """What keeps a result besides the updates and the optimizers: what runs it is not known.

        Gradients that are accumulated, a training by assignments of one's own: a step may run the
        updates with these.
        """
        for node, operation in enumerate(self.graph.operations):
            inputs = self.graph.inputs[node]
            if operation.startswith(_STORES):
                yield node
            elif operation in _ASSIGNS and len(inputs) > 1 and inputs[0] >= 0:
                variable = self.variables[inputs[0]]
                computed = operation in _RELATIVE or self._is_new(
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

    def _optimizer_nodes(self) -> Iterator[int]:
        return (
            node
            for node, operation in enumerate(self.graph.operations)
            if operation.startswith(_APPLIES)
        )

    def _find_roots(self) -> dict[str, tuple[int, ...]]:
        """The training ops by name, each with the nodes to walk from."""
        optimizers = set(self._optimizer_nodes())
        roots: dict[str, tuple[int, ...]] = {}
        if not optimizers:
            return roots
        owner = {node: name for name, one in self.graph.functions.items() for node in one.nodes}
        called_by: dict[int, list[int]] = {}
        for node, functions in self.calls.items():
            for function in functions:
                called_by.setdefault(id(function), []).append(node)
        # A call of a function that optimizes is an optimizer's node; a function that optimizes and
        # that nothing calls is run from Python.
        waiting, training = [*optimizers], set()
        while waiting:
            name = owner.get(waiting.pop())
            if name is None or name in training:
                continue
            training.add(name)
            function = self.graph.functions[name]
            callers = called_by.get(id(function), [])
            if not callers:
                roots[name] = tuple(function.results)
            waiting += [node for node in callers if node not in optimizers]
            optimizers.update(callers)
        outside = [node for node in optimizers if node not in owner]
        ends = [*self.graph.collections.get("train_op", ())] if outside else []
        ends += self._sinks(outside)
        for node in dict.fromkeys(ends or outside):
            roots[self.graph.names[node]] = (node,)
        return _at_most(roots, _MAX_ROOTS)

    def _sinks(self, starts: Iterable[int]) -> list[int]:
        """The nodes downstream of `starts` whose outputs nothing takes."""
        seen, sinks = set(starts), []
        waiting = sorted(seen)
        while waiting:
            node = waiting.pop()
            consumers = self.consumers[node]
            if consumers is None:
                sinks.append(node)
                continue
            waiting += [one for one in consumers if one not in seen]
            seen.update(consumers)
        return sorted(sinks)

    def _find_updates(self, roles: Mapping[int, object]) -> tuple[dict[int, int], bool]:
        """The nodes that update one of the variables `roles`; and whether these are all."""
        updates: dict[int, int] = {}
        complete = True
        for node, operation in enumerate(self.graph.operations):
            inputs = self.graph.inputs[node]
            if operation.startswith(_OTHER_WRITES) and inputs and inputs[0] >= 0:
                complete = complete and self.variables[inputs[0]] not in roles
            if operation not in _ASSIGNS or len(inputs) < 2 or inputs[0] < 0:
                continue
            variable = self.variables[inputs[0]]
            if variable in roles:
                value = self._origin(inputs[1])
                if operation in _RELATIVE or self._is_new(node, variable, value):
                    updates[node] = variable
                elif value == _ARGUMENT:
                    complete = False
            elif variable < 0:
                complete = False
        return updates, complete

    def _is_new(self, node: int, variable: int, origin: str | None) -> bool:
        """Whether an assigned value is computed, not started from, restored or set by hand."""
        names = self.graph.names
        if names[node] == f"{names[variable]}/Assign":
            return False  # the initialiser
        return origin is not None and origin not in _NO_UPDATE and origin != _ARGUMENT

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
            if operation in _PASSES or operation in _ASSIGNS or node in self.calls:
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


def _at_most(roots: dict[str, tuple[int, ...]], count: int) -> dict[str, tuple[int, ...]]:
    """The roots, the last of too many taken together."""
    names = list(roots)
    if len(names) <= count:
        return roots
    rest = names[count - 1 :]
    together = tuple(node for name in rest for node in roots[name])
    few = {name: roots[name] for name in names[: count - 1]}
    return {**few, f"{rest[0]} and {len(rest) - 1} others": together}
