"""Dataflow of a graph: where the values of an operation come from, through calls and branches.

A value is one output of a node, together with the calls through which its function is reached: two
layers may share a function and give it variables of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence
from typing import NamedTuple

from bninspect.evidence.graph import operations as ops
from bninspect.evidence.graph.traversal import GraphTraversal
from bninspect.model.graph import ARGUMENT, Function

# More operations than `SAME_VALUES` whose output holds the numbers of their first input.
_MORE_SAME_VALUES = {
    *("StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "EnsureShape"),
    *("ExpandDims", "Transpose", "Exit", "RefExit", "NextIteration", "DisableCopyOnRead"),
}
_PASSES_FIRST = ops.PASSES | ops.SAME_VALUES | _MORE_SAME_VALUES
_PASSES_EACH = {"IdentityN"}
_CONCATENATIONS = {"ConcatV2", "Concat"}
_MOST_VALUES = 400  # of one search backwards
_STEPS, _STEPS_OF_NODE = 1_000_000, 100  # of all searches; real graphs take 3 a node
_MOST_CALLS = 16  # around each other
_MOST_CONTEXTS = 64  # of one function


class Value(NamedTuple):
    """Output `output` of a node whose function is reached through `calls`, outermost first."""

    node: int
    output: int = 0
    calls: tuple[int, ...] = ()


class TooComplexError(Exception):
    """A graph whose search takes far more steps than that of any real graph."""


class Dataflow:
    """Searches from values backwards and forwards, over one graph.

    All together take at most some steps for each node: then they raise `TooComplexError`.
    """

    def __init__(self, traversal: GraphTraversal) -> None:
        self.traversal = traversal
        self.graph = traversal.graph
        self._steps = _STEPS + _STEPS_OF_NODE * len(self.graph.names)
        self._contexts: dict[str, list[tuple[int, ...]]] = {}
        self._arguments = {
            argument: index
            for function in self.graph.functions.values()
            for index, argument in enumerate(function.arguments)
        }

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise TooComplexError

    def operation(self, value: Value) -> str:
        """Return the operation that computes a value."""
        return self.graph.operations[value.node]

    def operands(self, value: Value) -> list[Value]:
        """Return the values that an operation takes; those that are missing are left out."""
        self._spend(1 + len(self.graph.inputs[value.node]))
        return [
            Value(node, self.graph.output(value.node, index), value.calls)
            for index, node in enumerate(self.graph.inputs[value.node])
            if node >= 0
        ]

    def origin(self, value: Value) -> Value:
        """Return the one value that `value` is a copy of, as far as there is only one."""
        for _ in range(_MOST_VALUES):
            passed = self._passed_on(value)
            if passed is None or len(passed) != 1:
                return value
            value = passed[0]
        return value

    def sources(
        self, value: Value, through: Collection[str] = (), stops: Container[Value] = ()
    ) -> dict[Value, None]:
        """Return the values that `value` may be a copy of, by choices and calls.

        Operations of `through` are searched too: then the result has their operands. The
        search ends at `stops`, which are in the result.
        """
        sources: dict[Value, None] = {}
        seen: set[Value] = set()
        waiting = [value]
        while waiting and len(seen) < _MOST_VALUES:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            passed = None if current in stops else self._passed_on(current)
            if passed is None and current not in stops and self.operation(current) in through:
                passed = self.operands(current)
            if passed is None:
                sources[current] = None
            else:
                waiting += reversed(passed)
        return sources

    def consumers(self, value: Value) -> Iterator[tuple[Value, int]]:
        """Yield the operations that compute with a value or a copy of it, and the place of it.

        Copies are followed through choices, into functions and out of them.
        """
        seen: set[Value] = set()
        waiting = [value]
        while waiting and len(seen) < _MOST_VALUES:
            source = waiting.pop()
            if source in seen:
                continue
            seen.add(source)
            waiting += self._outside(source)
            for node in self.traversal.consumers[source.node] or ():
                self._spend(len(self.graph.inputs[node]))
                for index, input_ in enumerate(self.graph.inputs[node]):
                    if input_ == source.node and self.graph.output(node, index) == source.output:
                        copies = self._copies(Value(node, 0, source.calls), index)
                        if copies is None:
                            yield Value(node, 0, source.calls), index
                        else:
                            waiting += copies

    def _copies(self, consumer: Value, index: int) -> list[Value] | None:
        """Return the values that an operation makes of a copy of its input; None if it computes."""
        operation = self.operation(consumer)
        if operation in ops.CALLS or operation in self.graph.functions:
            return self._arguments_of(consumer, index - (operation in ops.BRANCHES))
        outputs: tuple[int, ...] | None = None
        if operation in _PASSES_FIRST:
            outputs = () if index else (0, 1) if operation in ops.SWITCHES else (0,)
        elif operation in _PASSES_EACH:
            outputs = (index,)
        elif operation in ops.MERGES:
            outputs = (0,)
        elif operation in ops.SELECTS:
            outputs = (0,) if index else ()
        if outputs is None:
            return None
        return [consumer._replace(output=output) for output in outputs]

    def _arguments_of(self, call: Value, index: int) -> list[Value]:
        """Return the arguments of the functions of a call that take its value at a place."""
        if index < 0 or len(call.calls) == _MOST_CALLS or call.node in call.calls:
            return []
        return [
            Value(function.arguments[index], 0, (*call.calls, call.node))
            for function in self._functions(call.node)
            if index < len(function.arguments)
        ]

    def _outside(self, value: Value) -> Iterator[Value]:
        """Yield the outputs of the innermost call that return a value of its function."""
        if not value.calls:
            return
        *outer, call = value.calls
        for function in self._functions(call):
            for number, output in enumerate(function.outputs):
                if output == (value.node, value.output):
                    yield Value(call, number, tuple(outer))

    def variable(self, value: Value) -> tuple[int, ...]:
        """Return the variable that a source is: its node, or those of its partitions; else ()."""
        if self.operation(value) in ops.VARIABLES:
            return (value.node,)
        if self.operation(value) not in _CONCATENATIONS:
            return ()
        parts = []
        for operand in self.operands(value):
            origin = self.origin(operand)
            if self.operation(origin) in ops.VARIABLES:
                parts.append(origin.node)
            elif self.graph.constant(origin.node) is None:  # a constant is the axis
                return ()
        return tuple(parts)

    def contexts(self, node: int) -> list[tuple[int, ...]]:
        """Return the calls through which a node is reached: [()] outside of functions."""
        name = self.traversal.owner.get(node, "")
        if name not in self._contexts:
            self._contexts[name] = self._find_contexts(node)
        return self._contexts[name]

    def _find_contexts(self, node: int) -> list[tuple[int, ...]]:
        contexts: list[tuple[int, ...]] = []
        waiting: list[tuple[int, tuple[int, ...]]] = [(node, ())]
        while waiting and len(contexts) < _MOST_CONTEXTS:
            inner, calls = waiting.pop()
            callers = self.traversal.callers.get(self.traversal.owner.get(inner, ""), ())
            callers = [caller for caller in callers if caller not in calls]
            if not callers or len(calls) == _MOST_CALLS:
                contexts.append(calls)
            waiting += [(caller, (caller, *calls)) for caller in reversed(callers)]
        return contexts

    def _passed_on(self, value: Value) -> list[Value] | None:
        """Return the values that a node only passes on; None if it computes a value itself."""
        operation = self.operation(value)
        if operation == ARGUMENT:
            return self._given(value) or None
        if operation in ops.CALLS or operation in self.graph.functions:
            return self._returned(value) or None
        operands = self.operands(value)
        passed: list[Value] = []
        if operation in _PASSES_FIRST:
            passed = operands[:1]
        elif operation in _PASSES_EACH:
            passed = operands[value.output : value.output + 1]
        elif operation in ops.MERGES:
            passed = operands
        elif operation in ops.SELECTS:
            passed = operands[1:]
        return passed or None

    def _given(self, argument: Value) -> list[Value]:
        """Return what the innermost call gives to an argument of its function."""
        if not argument.calls:
            return []
        *outer, call = argument.calls
        index = self._arguments[argument.node] + (self.graph.operations[call] in ops.BRANCHES)
        inputs = self.graph.inputs[call]
        if index >= len(inputs) or inputs[index] < 0:
            return []
        return [Value(inputs[index], self.graph.output(call, index), tuple(outer))]

    def _returned(self, call: Value) -> list[Value]:
        """Return the values that are an output of a call; of a loop also what it starts with."""
        values = []
        inputs = self.graph.inputs[call.node]
        if self.operation(call) in ops.LOOPS and call.output < len(inputs):
            number = self.graph.output(call.node, call.output)
            values.append(Value(inputs[call.output], number, call.calls))
        if len(call.calls) < _MOST_CALLS and call.node not in call.calls:
            for function in self._functions(call.node):
                node, output = _output(function, call.output)
                values.append(Value(node, output, (*call.calls, call.node)))
        return [value for value in values if value.node >= 0]

    def _functions(self, call: int) -> Sequence[Function]:
        """Return the functions whose arguments and results are those of a call."""
        operation = self.graph.operations[call]
        if operation in ("SymbolicGradient", "RemoteCall"):
            return ()  # their inputs are others
        functions = self.traversal.calls.get(call, ())
        # Of a loop the body, not the condition.
        return functions[-1:] if operation in ops.LOOPS else functions


def _output(function: Function, number: int) -> tuple[int, int]:
    return function.outputs[number] if number < len(function.outputs) else (-1, 0)
