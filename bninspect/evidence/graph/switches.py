"""The placeholders that switch an update of a statistic on and off: the training mode, as fed.

A switch stands between the update and what it computes with: tf.cond as Switch and Merge or as If
with its branches, tf.where as Select (tensorflow/python/ops/control_flow_ops.py, cond_v2.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bninspect.evidence.graph.traversal import ASSIGNS, BRANCHES, PASSES, Walk

_SWITCHES = {"Switch": 1, "RefSwitch": 1, "Select": 0, "SelectV2": 0}  # where the choice stands
# The arithmetic of an update; what lies before that belongs to the layer's input. A constant made
# inside a tf.cond waits for the branch.
_ARITHMETIC = (PASSES | ASSIGNS) - set(_SWITCHES) | {
    *("Add", "AddV2", "Sub", "Mul", "Merge", "RefMerge", "Cast", "Reshape", "Squeeze", "Const"),
}
_LOGIC = PASSES | {"LogicalNot", "LogicalAnd", "LogicalOr", "Equal", "Cast", "Reshape", "Squeeze"}
_PLACEHOLDERS = {"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"}
_MOST_NODES = 500


def switches(walk: Walk, updates: Iterable[int]) -> tuple[str, ...]:
    """The names of the placeholders that choose what `updates` assign, or whether they do."""
    choices: list[int] = []
    operations = walk.graph.operations
    for node in _before(walk, updates, _ARITHMETIC):
        inputs = walk.graph.inputs[node]
        place = _SWITCHES.get(operations[node])
        if place is not None and place < len(inputs):
            choices.append(inputs[place])
    owners = {walk.owner[node] for node in updates if node in walk.owner}
    choices += (
        walk.graph.inputs[node][0]
        for node in sorted({node for name in owners for node in walk.callers.get(name, ())})
        if operations[node] in BRANCHES and walk.graph.inputs[node]
    )
    found = {
        walk.graph.names[node]: None
        for node in _before(walk, choices, _LOGIC)
        if operations[node] in _PLACEHOLDERS
    }
    return tuple(found)


def _before(walk: Walk, starts: Iterable[int], through: set[str]) -> Iterator[int]:
    """The nodes that `starts` depend on by way of nodes `through`, `starts` among them."""
    seen: set[int] = set()
    waiting = [*starts]
    while waiting and len(seen) < _MOST_NODES:
        node = waiting.pop()
        if node < 0 or node in seen:
            continue
        seen.add(node)
        yield node
        if walk.graph.operations[node] in through:
            waiting += walk.graph.inputs[node]
            waiting += walk.graph.controls[node]
