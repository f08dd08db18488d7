"""Savers in a graph: under which names the variables are stored."""

from __future__ import annotations

from bninspect.evidence.structure.dataflow import Dataflow, Value

# Where the names and the first tensor stand among the inputs (tensorflow/core/ops/io_ops.cc).
_SAVES = {"SaveV2": (1, 3), "SaveSlices": (1, 3), "Save": (1, 2)}

# Of a variable with a value on each device, MirroredStrategy stores the sum or the mean.
_AGGREGATION = {"AddN", "Add", "AddV2", "Mul", "RealDiv"}


def saved_names(dataflow: Dataflow) -> dict[int, tuple[str, ...]] | None:
    """Return the names that Savers give to each variable; None if the graph has no Saver.

    A Saver may store a variable under another name than its own; of partitioned variables all parts
    have one name.
    """
    names_by_variable: dict[int, dict[str, None]] = {}
    saves = [
        node for node, operation in enumerate(dataflow.graph.operations) if operation in _SAVES
    ]
    for node in saves:
        for calls in dataflow.contexts(node):
            _add_names(dataflow, Value(node, 0, calls), names_by_variable)
    return (
        {variable: tuple(names) for variable, names in names_by_variable.items()} if saves else None
    )


def _add_names(
    dataflow: Dataflow, save: Value, names_by_variable: dict[int, dict[str, None]]
) -> None:
    names_place, first = _SAVES[dataflow.operation(save)]
    operands = dataflow.operands(save)
    if len(operands) <= first:
        return
    names = dataflow.graph.constant(dataflow.origin(operands[names_place]).node)
    if names is None:
        return
    for name, tensor in zip(names.elements, operands[first:], strict=False):
        for source in dataflow.sources(tensor, _AGGREGATION):
            for variable in dataflow.variable(source):
                names_by_variable.setdefault(variable, {})[str(name)] = None
