"""The training ops of a graph: what a training step may run, and by which names a user knows them.

A step may run whatever an optimizer's nodes (Apply…) end in, and what `apply_gradients` puts into
the train_op collection. Among the ends are nodes that nobody runs: an optimizer's reads of its own
variables. Updates are looked for behind all of them; named are the ops of the collection, what a
script made of these (tf.group, an average of the weights), and of the others only those that an
optimizer's node would be nameless without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from bninspect.evidence.graph.traversal import Walk

_MAX_NAMED = 7  # each is walked from by itself; real graphs have one to three
_READ = "ReadVariableOp"


class TrainingOps(NamedTuple):
    """The nodes to walk back from, by the name of the op: those a user knows, and all others.

    `optimizing` are the nodes that are an optimizer's work: what comes after it (an average of the
    weights, an evaluation) is no part of what the weights are trained with.
    """

    named: dict[str, tuple[int, ...]]
    unnamed: dict[str, tuple[int, ...]]
    optimizing: tuple[int, ...]


def find_training_ops(walk: Walk) -> TrainingOps:
    """The training ops; none in a graph without an optimizer's node."""
    functions, outside = _optimizers(walk)
    collected = dict.fromkeys(walk.graph.collections.get("train_op", ())) if outside else {}
    sinks = _sinks(walk, outside)
    # What a script puts behind the collected ops, it runs instead of them.
    final = [node for node in _sinks(walk, collected) if walk.graph.operations[node] != _READ]
    chief = [*dict.fromkeys([*collected, *final])]
    chief += _uncovered(walk, outside, chief, [node for node in sinks if node not in chief])
    rest = [node for node in sinks if node not in chief]
    names = walk.graph.names
    named = functions | {names[node]: (node,) for node in sorted(chief)}
    if not named:
        named = {names[node]: (node,) for node in outside}
    few = dict([*named.items()][:_MAX_NAMED])
    return TrainingOps(
        {**few, **_together({name: one for name, one in named.items() if name not in few})},
        _together({names[node]: (node,) for node in rest}),
        (*outside, *chain.from_iterable(functions.values())),
    )


def _optimizers(walk: Walk) -> tuple[dict[str, tuple[int, ...]], list[int]]:
    """Functions that optimize and are run from Python, with their results; and the graph's nodes.

    A call of a function that optimizes is an optimizer's node.
    """
    optimizers = set(walk.optimizers)
    functions = walk.graph.functions
    uncalled: dict[str, tuple[int, ...]] = {}
    waiting, training = [*optimizers], set()
    while waiting:
        name = walk.owner.get(waiting.pop())
        if name is None or name in training:
            continue
        training.add(name)
        callers = walk.callers.get(name, [])
        if not callers:
            uncalled[name] = tuple(functions[name].results)
        waiting += [node for node in callers if node not in optimizers]
        optimizers.update(callers)
    return uncalled, sorted(node for node in optimizers if node not in walk.owner)


def _sinks(walk: Walk, starts: Iterable[int]) -> list[int]:
    """The nodes downstream of `starts` whose outputs nothing takes."""
    return sorted(node for node in walk.downstream(starts) if walk.consumers[node] is None)


def _uncovered(
    walk: Walk, optimizers: Sequence[int], chief: Sequence[int], sinks: Sequence[int]
) -> list[int]:
    """Those of `sinks` that run optimizer's nodes which the training ops `chief` do not run.

    What groups others was made after them, so that the last are asked first.
    """
    found: list[int] = []
    reached = walk.ancestors(chief)
    left = {node for node in optimizers if not reached[node]}
    reads_last = sorted(sinks, key=lambda node: (walk.graph.operations[node] == _READ, -node))
    while left and len(found) <= _MAX_NAMED:
        behind = walk.downstream(left)
        node = next((one for one in reads_last if one in behind), None)
        if node is None:
            break
        found.append(node)
        reached = walk.ancestors([node])
        left = {one for one in left if not reached[one]}
    return found


def _together(ops: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Several ops as one, with the name of the first and how many there are."""
    if len(ops) < 2:
        return ops
    first = next(iter(ops))
    return {f"{first} and {len(ops) - 1} others": tuple(chain.from_iterable(ops.values()))}
