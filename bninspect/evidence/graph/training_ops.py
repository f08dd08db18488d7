"""Training ops of a graph: the ops that a training step may run, under names that a user knows.

A step may run any op downstream of an optimizer's nodes (Apply…), and the ops that
`apply_gradients` adds to the train_op collection. Among the ops downstream are some that nobody
runs: an optimizer's reads of its own variables. So updates are searched for behind all of them, but
only these are named: the ops of the collection, the ops that a script made of them (tf.group, an
average of the weights), and the others that alone run some optimizer's node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from bninspect.evidence.graph.operations import READS
from bninspect.evidence.graph.traversal import GraphTraversal

_MAX_NAMED = 7  # each is traversed by itself; real graphs have one to three


class TrainingOps(NamedTuple):
    """The training ops of a graph, by name, each with the nodes to start from.

    `named` are those that a user knows, `unnamed` all others. `optimizing` are the nodes of
    optimizers; what runs after them (an average of the weights, an evaluation) is no part of what
    the weights are trained with.
    """

    named: dict[str, tuple[int, ...]]
    unnamed: dict[str, tuple[int, ...]]
    optimizing: tuple[int, ...]


def find_training_ops(traversal: GraphTraversal) -> TrainingOps:
    """Find the training ops; none in a graph without an optimizer's node."""
    names, operations = traversal.graph.names, traversal.graph.operations
    functions, optimizers = _optimizers(traversal)
    collections = traversal.graph.collections or {}
    collected = collections.get("train_op", ()) if optimizers else ()
    # A script runs the ops that it made of the collected ones instead of them.
    final = [node for node in _sinks(traversal, collected) if operations[node] != READS]
    chief = [*dict.fromkeys([*collected, *final])]
    sinks = _sinks(traversal, optimizers)
    chief += _uncovered(traversal, optimizers, chief, [sink for sink in sinks if sink not in chief])
    named = functions | {names[node]: (node,) for node in sorted(chief)}
    if not named:
        named = {names[node]: (node,) for node in optimizers}
    few = dict([*named.items()][:_MAX_NAMED])
    return TrainingOps(
        {**few, **_merged({name: nodes for name, nodes in named.items() if name not in few})},
        _merged({names[node]: (node,) for node in sinks if node not in chief}),
        (*optimizers, *chain.from_iterable(functions.values())),
    )


def _optimizers(traversal: GraphTraversal) -> tuple[dict[str, tuple[int, ...]], list[int]]:
    """Find the functions that optimize and are run from Python, and the graph's optimizer nodes.

    Each function comes with its results. A node that calls a function that optimizes is an
    optimizer's node.
    """
    optimizers = set(traversal.optimizers)
    functions = traversal.graph.functions
    uncalled: dict[str, tuple[int, ...]] = {}
    waiting, training = [*optimizers], set()
    while waiting:
        name = traversal.owner.get(waiting.pop())
        if name is None or name in training:
            continue
        training.add(name)
        callers = traversal.callers.get(name, [])
        if not callers:
            uncalled[name] = tuple(functions[name].results)
        waiting += [node for node in callers if node not in optimizers]
        optimizers.update(callers)
    return uncalled, sorted(node for node in optimizers if node not in traversal.owner)


def _sinks(traversal: GraphTraversal, starts: Iterable[int]) -> list[int]:
    """Find the nodes downstream of `starts` whose outputs no other node takes."""
    return sorted(node for node in traversal.downstream(starts) if not traversal.consumers[node])


def _uncovered(
    traversal: GraphTraversal, optimizers: Sequence[int], chief: Sequence[int], sinks: Sequence[int]
) -> list[int]:
    """Choose those of `sinks` that run optimizer's nodes which no op of `chief` runs.

    An op that groups others is made after them, so the last ones are tried first.
    """
    chosen: list[int] = []
    reached = traversal.ancestors(chief)
    left = {node for node in optimizers if not reached[node]}
    reads_last = sorted(sinks, key=lambda node: (traversal.graph.operations[node] == READS, -node))
    while left and len(chosen) <= _MAX_NAMED:
        behind = traversal.downstream(left)
        node = next((sink for sink in reads_last if sink in behind), None)
        if node is None:
            break
        chosen.append(node)
        reached = traversal.ancestors([node])
        left = {optimizer for optimizer in left if not reached[optimizer]}
    return chosen


def _merged(ops: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Merge several ops into one, with the name of the first and the count of the others."""
    if len(ops) < 2:
        return ops
    first = next(iter(ops))
    return {f"{first} and {len(ops) - 1} others": tuple(chain.from_iterable(ops.values()))}
