"""Moving averages in a graph: variables that are updated with the moments of a batch.

An average is `variable -= (variable - value) * rate` or `variable = variable * m + value * (1 - m)`
in any form, also without a memory (`variable = value`). With zero-debias TensorFlow keeps a second
variable: value → biased average → average (tensorflow/python/training/moving_averages.py).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import NamedTuple

from bninspect.evidence.graph import operations as ops
from bninspect.evidence.structure.dataflow import Dataflow, Value

_QUOTIENTS = {"RealDiv", "Div", "DivNoNan"}
# Between moments and averages stand weights, corrections, sums over devices, means over virtual
# batches, and with renorm square roots.
_ARITHMETIC = ops.SUMS | ops.DIFFERENCES | ops.PRODUCTS | _QUOTIENTS
_ARITHMETIC |= {"AddN", "Mean", "Sqrt", "Square", "Maximum", "Relu"}
_ARITHMETIC |= {"CollectiveReduce", "CollectiveReduceV2", "NcclAllReduce", "CrossReplicaSum"}


class Average(NamedTuple):
    """A variable that a node updates, and the values that go into it."""

    variable: int
    node: int
    values: frozenset[Value]


def find_averages(dataflow: Dataflow, moments: Container[Value]) -> list[Average]:
    """Return the averages of those values that are among `moments`."""
    writes = list(_writes(dataflow, moments))
    direct = [
        Average(write.variable, write.node, write.values)
        for write in writes
        if write.values and not write.is_sum
    ]
    values = {average.variable: average.values for average in direct}
    debiased = [
        Average(write.variable, write.node, values[read])
        for write in writes
        if write.is_debiased and write.variable not in values
        for read in write.reads
        if read in values
    ]
    replaced = {read for write in writes if write.is_debiased for read in write.reads}
    return [*debiased, *(item for item in direct if not debiased or item.variable not in replaced)]


class _Write(NamedTuple):
    """An assignment to a variable: the moments and the other variables that it computes with.

    `is_sum` says that the old value is not weighted: no average. `is_debiased` says that it is
    computed from other variables alone, and is no copy.
    """

    variable: int
    node: int
    values: frozenset[Value]
    reads: frozenset[int]
    is_sum: bool
    is_debiased: bool


def _writes(dataflow: Dataflow, moments: Container[Value]) -> Iterator[_Write]:
    graph = dataflow.graph
    for node, operation in enumerate(graph.operations):
        if operation not in ops.ASSIGNS or len(graph.inputs[node]) < 2:
            continue
        for calls in dataflow.contexts(node):
            operands = dataflow.operands(Value(node, 0, calls))
            if len(operands) < 2:
                continue
            targets = [
                parts
                for target in dataflow.sources(operands[0])
                if (parts := dataflow.variable(target))
            ]
            if len(targets) == 1 and len(targets[0]) == 1:
                yield _write(dataflow, node, targets[0][0], operands[1], moments)


def _write(
    dataflow: Dataflow, node: int, variable: int, value: Value, moments: Container[Value]
) -> _Write:
    sources = dataflow.sources(value, _ARITHMETIC, moments)
    reads = {part for source in sources for part in dataflow.variable(source)}
    is_relative = dataflow.graph.operations[node] in ops.RELATIVE_ASSIGNS
    origin = dataflow.origin(value)
    added = dataflow.operands(origin) if dataflow.operation(origin) in ops.SUMS else ()
    return _Write(
        variable,
        node,
        frozenset(source for source in sources if source in moments),
        frozenset(reads - {variable}),
        is_sum=(is_relative and variable not in reads)
        or any(variable in dataflow.variable(dataflow.origin(term)) for term in added),
        is_debiased=not is_relative
        and variable not in reads
        and dataflow.operation(origin) in _ARITHMETIC,
    )
