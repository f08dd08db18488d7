"""A stored graph with what is asked of every node: its consumers, its variable, what it runs.

All walks are loops over numbered nodes, each of which is looked at a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from bninspect.model.graph import Function, Graph

# tensorflow/core/ops/{state_ops,resource_variable_ops,control_flow_ops,training_ops,
# functional_ops}.cc
VARIABLES = {"Variable", "VariableV2", "VarHandleOp"}
RELATIVE = {"AssignSub", "AssignAdd", "AssignSubVariableOp", "AssignAddVariableOp"}
ASSIGNS = {"Assign", "AssignVariableOp"} | RELATIVE
# What passes on the variable, or its value, that is its first input; an assignment to a reference
# returns it.
_ENTERS = {"Enter", "RefEnter"}  # into the frame of a loop
PASSES = {"Identity", "RefIdentity", "Switch", "RefSwitch", "ReadVariableOp"} | _ENTERS
PASSES |= {"Assign", "AssignSub", "AssignAdd"}
APPLIES = ("Apply", "ResourceApply", "SparseApply", "ResourceSparseApply")
BRANCHES = {"If", "StatelessIf", "Case", "StatelessCase"}  # their first input is the choice
_LOOPS = {"While", "StatelessWhile", "For"}
_CALLS = {
    *("PartitionedCall", "StatefulPartitionedCall", "TPUPartitionedCall", "RemoteCall"),
    *("SymbolicGradient", *BRANCHES, *_LOOPS),
}
_FUNCTION_ATTRIBUTES = ("f", "then_branch", "else_branch", "cond", "body", "branches")
ARGUMENT = "_Arg"
_NONE, _SEVERAL = -1, -2
_LONGEST_WAY = 32  # from a write to its variable


class Walk:
    """`graph` with its `calls` of functions, its `consumers` and the `variables` nodes pass on.

    All are by the number of a node; `variables` is negative for a node that passes on none, or one
    that depends on who calls. `owner` names the function that a node lies in, and `callers` are the
    nodes that call it, by that name.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.calls = {
            node: functions
            for node, operation in enumerate(graph.operations)
            if (operation in _CALLS or operation in graph.functions)
            and (functions := self._called(node, operation))
        }
        self.owner = {node: name for name, one in graph.functions.items() for node in one.nodes}
        self.callers = self._find_callers()
        self.consumers = self._find_consumers()
        self.variables = self._find_variables()
        self.optimizers = [
            node for node, operation in enumerate(graph.operations) if operation.startswith(APPLIES)
        ]

    def ancestors(self, starts: Iterable[int]) -> bytearray:
        """Which nodes run so that `starts` can, those of called functions included."""
        reached = bytearray(len(self.graph.names))
        entered: set[tuple[int, bool]] = set()
        waiting = [*starts]
        while waiting:
            node = waiting.pop()
            if node < 0 or reached[node]:
                continue
            reached[node] = 1
            waiting += self.graph.inputs[node]
            waiting += self.graph.controls[node]
            functions = self.calls.get(node, ())
            whole = bool(functions) and self._runs_all_writes(node)
            for function in functions:
                if (id(function), whole) not in entered:
                    entered.add((id(function), whole))
                    waiting += function.results
                    waiting += filter(self._writes, function.nodes) if whole else ()
        return reached

    def downstream(self, starts: Iterable[int]) -> set[int]:
        """`starts` and all nodes that depend on them, outside of functions that are called."""
        seen = set(starts)
        waiting = [*seen]
        while waiting:
            consumers = self.consumers[waiting.pop()] or ()
            waiting += [one for one in consumers if one not in seen]
            seen.update(consumers)
        return seen

    def in_loop(self, node: int) -> bool:
        """Whether a node that writes a variable is in a loop: of frames, or a function of one."""
        if any(node in nodes for nodes in self._looped):
            return True
        for _ in range(_LONGEST_WAY):
            node = self.graph.inputs[node][0] if self.graph.inputs[node] else _NONE
            if node < 0 or self.graph.operations[node] not in PASSES:
                return False
            if self.graph.operations[node] in _ENTERS:
                return True
        return True  # too far to follow: it is not known to be in none

    @cached_property
    def _looped(self) -> list[Sequence[int]]:
        """The nodes of each function that a loop runs, by itself or through others."""
        found: dict[int, Sequence[int]] = {}
        waiting = [one for one in self.calls if self.graph.operations[one] in _LOOPS]
        while waiting:
            for function in self.calls.get(waiting.pop(), ()):
                if id(function) not in found:
                    found[id(function)] = function.nodes
                    waiting += [one for one in function.nodes if one in self.calls]
        return [*found.values()]

    def _runs_all_writes(self, node: int) -> bool:
        """Whether the functions that a node calls run all that writes in them, needed or not.

        So do functions in the way of TensorFlow before 1.14 and branches and loops that the runtime
        does not turn into switches (seen in TensorFlow 1.15 and 2.15). Calls of the newer ways run
        what the results need, by data or by control.
        """
        operation = self.graph.operations[node]
        if operation in BRANCHES or operation in _LOOPS:
            return self.graph.attribute(node, "_lower_using_switch_merge") is not True
        return operation in ("RemoteCall", "SymbolicGradient") or operation not in _CALLS

    def _writes(self, node: int) -> bool:
        operation = self.graph.operations[node]
        return operation in ASSIGNS or operation.startswith(APPLIES) or node in self.calls

    def _called(self, node: int, operation: str) -> tuple[Function, ...]:
        functions = self.graph.functions
        if operation in functions:  # the way of TensorFlow before 1.14
            return (functions[operation],)
        values = (self.graph.attribute(node, name) for name in _FUNCTION_ATTRIBUTES)
        names = (name for value in values if isinstance(value, tuple) for name in value)
        return tuple(functions[name] for name in names if name in functions)

    def _find_callers(self) -> dict[str, list[int]]:
        names = {id(one): name for name, one in self.graph.functions.items()}
        callers: dict[str, list[int]] = {}
        for node, called in self.calls.items():
            for function in called:
                callers.setdefault(names[id(function)], []).append(node)
        return callers

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
            if operation in VARIABLES:
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
            if operation in PASSES and inputs and inputs[0] == source:
                yield node
            functions = self.calls.get(node, ())
            if functions and node not in places:
                first = 1 if operation in BRANCHES else 0
                places[node] = {}
                for place, one in enumerate(inputs[first:]):
                    places[node].setdefault(one, []).append(place)
            for function in functions:
                for place in places[node].get(source, ()):
                    if place < len(function.arguments):
                        yield function.arguments[place]
