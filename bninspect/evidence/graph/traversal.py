"""Traversal of a stored graph: consumers, called functions, variables and ancestors of nodes.

Every traversal is a loop over numbered nodes and looks at each a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from functools import cached_property

from bninspect.evidence.graph import operations as ops
from bninspect.model.graph import ARGUMENT, Function, Graph

_NONE, _SEVERAL = -1, -2
_LONGEST_PATH = 32  # nodes from a write to its variable
_MOST_NODES = 500  # of one traversal backwards


class GraphTraversal:
    """A graph with an index of its edges: `calls`, `callers`, `owner`, `consumers`, `variables`.

    All are by the number of a node. `calls` holds the functions that a node calls, `owner` the name
    of the function that a node is part of, `callers` the nodes that call a function, by its name.
    `variables` is the variable whose reference or value a node passes on; negative for a node that
    passes on none, or different ones for different callers. `optimizers` are the nodes of
    optimizers (Apply…).
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.calls = {
            node: functions
            for node, operation in enumerate(graph.operations)
            if (operation in ops.CALLS or operation in graph.functions)
            and (functions := self._called(node, operation))
        }
        self.owner = {
            node: name for name, function in graph.functions.items() for node in function.nodes
        }
        self.callers = self._find_callers()
        self.consumers = self._find_consumers()
        self.variables = self._find_variables()
        self.optimizers = [
            node
            for node, operation in enumerate(graph.operations)
            if operation.startswith(ops.APPLIES)
        ]

    def ancestors(self, starts: Iterable[int], without: Container[int] = ()) -> bytearray:
        """Mark the nodes that run so that `starts` can, nodes of called functions included.

        The result has one byte for each node of the graph: 1 if it runs. Nodes `without` are left
        out, and what only they need.
        """
        reached = bytearray(len(self.graph.names))
        entered: set[tuple[int, bool]] = set()
        waiting = [*starts]
        while waiting:
            node = waiting.pop()
            if node < 0 or reached[node] or node in without:
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
        """Return `starts` and the nodes that depend on them, without those of called functions."""
        seen = set(starts)
        waiting = [*seen]
        while waiting:
            consumers = self.consumers[waiting.pop()] or ()
            waiting += [consumer for consumer in consumers if consumer not in seen]
            seen.update(consumers)
        return seen

    def backwards(self, starts: Iterable[int], through: Collection[str]) -> tuple[list[int], bool]:
        """Return the nodes that `starts` depend on, and whether these are all.

        `starts` are among them. Inputs and control inputs are followed from nodes whose operation
        is one of `through`, and an argument of a function to what its callers give.
        """
        seen: dict[int, None] = {}
        waiting = [*starts]
        while waiting and len(seen) < _MOST_NODES:
            node = waiting.pop()
            if node < 0 or node in seen:
                continue
            seen[node] = None
            if self.graph.operations[node] in through:
                waiting += self.graph.inputs[node]
                waiting += self.graph.controls[node]
            elif self.graph.operations[node] == ARGUMENT:
                waiting += self.given_to(node)
        return [*seen], not waiting

    def given_to(self, argument: int) -> Iterator[int]:
        """Yield the nodes that callers give to an argument of a function."""
        name = self._owner_of_argument.get(argument)
        if name is None:
            return
        index = argument - self.graph.functions[name].arguments[0]
        for caller in self.callers.get(name, ()):
            first = 1 if self.graph.operations[caller] in ops.BRANCHES else 0
            inputs = self.graph.inputs[caller][first:]
            if index < len(inputs):
                yield inputs[index]

    def calls_around(self, node: int) -> list[int]:
        """Return the nodes that call the function of a node, and those that call theirs."""
        calls: dict[int, None] = {}
        waiting = [node]
        while waiting and len(calls) < _MOST_NODES:
            callers = self.callers.get(self.owner.get(waiting.pop(), ""), ())
            waiting += [caller for caller in callers if caller not in calls]
            calls |= dict.fromkeys(callers)
        return [*calls]

    @cached_property
    def _owner_of_argument(self) -> dict[int, str]:
        return {
            argument: name
            for name, function in self.graph.functions.items()
            for argument in function.arguments
        }

    def can_be_run(self, node: int) -> bool:
        """Return whether session.run can run a node: by fetching it, or a node that depends on it.

        A node in a branch of TensorFlow 1's tf.cond cannot be fetched
        (tensorflow/python/ops/control_flow_ops.py, CondContext.AddOp), nor can one of a function.
        """
        if node in self.owner:
            return bool(self._run_from_outside[node])
        if not self._in_branch(node):
            return True
        return any(
            self.graph.operations[dependent] in ops.MERGES for dependent in self.downstream([node])
        )

    def _in_branch(self, node: int) -> bool:
        """Return whether a node takes its inputs from a switch, as in a branch of tf.cond."""
        operations, inputs = self.graph.operations, self.graph.inputs
        before = [
            *inputs[node],
            *(source for pivot in self.graph.controls[node] for source in inputs[pivot]),
        ]
        return any(source >= 0 and operations[source] in ops.SWITCHES for source in before)

    @cached_property
    def _run_from_outside(self) -> bytearray:
        outside = [node for node in range(len(self.graph.names)) if node not in self.owner]
        return self.ancestors(outside)

    def in_loop(self, node: int) -> bool:
        """Return whether a node that writes a variable is in a loop's frame or function."""
        if any(node in nodes for nodes in self._looped):
            return True
        for _ in range(_LONGEST_PATH):
            node = self.graph.inputs[node][0] if self.graph.inputs[node] else _NONE
            if node < 0 or self.graph.operations[node] not in ops.PASSES:
                return False
            if self.graph.operations[node] in ops.ENTERS:
                return True
        return True  # the path is too long to follow, so a loop cannot be ruled out

    @cached_property
    def _looped(self) -> list[Sequence[int]]:
        """Return the nodes of each function that a loop calls, directly or through others."""
        nodes_by_function: dict[int, Sequence[int]] = {}
        waiting = [caller for caller in self.calls if self.graph.operations[caller] in ops.LOOPS]
        while waiting:
            for function in self.calls.get(waiting.pop(), ()):
                if id(function) not in nodes_by_function:
                    nodes_by_function[id(function)] = function.nodes
                    waiting += [caller for caller in function.nodes if caller in self.calls]
        return [*nodes_by_function.values()]

    def _runs_all_writes(self, node: int) -> bool:
        """Return whether the functions that a node calls run all their writes, needed or not.

        Functions of TensorFlow before 1.14 do, and branches and loops that the runtime does not
        lower to switches (seen in TensorFlow 1.15 and 2.15). Other calls run only what the results
        need, by data or by control.
        """
        operation = self.graph.operations[node]
        if operation in ops.BRANCHES or operation in ops.LOOPS:
            return self.graph.attribute(node, "_lower_using_switch_merge") is not True
        return operation in ("RemoteCall", "SymbolicGradient") or operation not in ops.CALLS

    def _writes(self, node: int) -> bool:
        operation = self.graph.operations[node]
        return operation in ops.ASSIGNS or operation.startswith(ops.APPLIES) or node in self.calls

    def _called(self, node: int, operation: str) -> tuple[Function, ...]:
        functions = self.graph.functions
        if operation in functions:  # a call as TensorFlow before 1.14 stores it
            return (functions[operation],)
        values = (self.graph.attribute(node, name) for name in ops.FUNCTION_ATTRIBUTES)
        names = (name for value in values if isinstance(value, tuple) for name in value)
        return tuple(functions[name] for name in names if name in functions)

    def _find_callers(self) -> dict[str, list[int]]:
        names = {id(function): name for name, function in self.graph.functions.items()}
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
        """Find for each node the variable that it is or passes on, _SEVERAL if there are more."""
        variables = [_NONE] * len(self.graph.names)
        waiting = []
        indexes: dict[int, dict[int, list[int]]] = {}
        for node, operation in enumerate(self.graph.operations):
            if operation in ops.VARIABLES:
                variables[node] = node
                waiting.append(node)
        while waiting:
            source = waiting.pop()
            for node in self._passed_on(source, indexes):
                if variables[node] in (variables[source], _SEVERAL):
                    continue
                variables[node] = variables[source] if variables[node] == _NONE else _SEVERAL
                waiting.append(node)
        return variables

    def _passed_on(self, source: int, indexes: dict[int, dict[int, list[int]]]) -> Iterator[int]:
        """Yield the nodes that pass on the value of `source`, arguments of functions among them.

        `indexes` caches, for each call, the indexes of each node among its inputs.
        """
        for node in self.consumers[source] or ():
            inputs = self.graph.inputs[node]
            operation = self.graph.operations[node]
            if operation in ops.PASSES and inputs and inputs[0] == source:
                yield node
            functions = self.calls.get(node, ())
            if functions and node not in indexes:
                first = 1 if operation in ops.BRANCHES else 0
                indexes[node] = {}
                for index, input_ in enumerate(inputs[first:]):
                    indexes[node].setdefault(input_, []).append(index)
            for function in functions:
                for index in indexes[node].get(source, ()):
                    if index < len(function.arguments):
                        yield function.arguments[index]
