"""The nouns of a stored graph, frozen and without I/O: its nodes, and what it proves of a layer.

`formats.meta_graph` makes a `Graph` of a file, `evidence.graph` a `GraphEvidence` of a `Graph`, and
rules read that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bninspect.model.roles import Role

# What an attribute of a node says, as far as anything here asks: a flag, a number, the names of
# functions, or None.
Attribute = bool | float | tuple[str, ...] | None


class Function(NamedTuple):
    """A function of a graph's library: its arguments, its nodes, and those that it must run."""

    arguments: Sequence[int]
    nodes: Sequence[int]
    results: Sequence[int]


class Graph(NamedTuple):
    """A stored graph; all that is called a node is a number, those of all functions included.

    `names` and `operations` are by node. `inputs` are the nodes whose outputs a node takes, in
    their order, and -1 for one that is not there; `controls` those that only have to run before.
    `collections` holds the nodes of the collections that anything here asks for. `attribute` gives
    one attribute of a node, decoded when it is asked for.
    """

    path: str
    names: Sequence[str]
    operations: Sequence[str]
    inputs: Sequence[Sequence[int]]
    controls: Sequence[Sequence[int]]
    functions: Mapping[str, Function]
    collections: Mapping[str, Sequence[int]]
    attribute: Callable[[int, str], Attribute]


class Update(NamedTuple):
    """A node that updates a statistic: `run_by` names the training ops that depend on it.

    `in_loop` says that a training step may run it more than once: how often is not stored.
    """

    node: str
    role: Role
    run_by: tuple[str, ...]
    in_loop: bool = False


class GraphEvidence(NamedTuple):
    """What the graph beside a checkpoint proves of one layer; without training ops, nothing.

    `training_ops` are what a training step may run, by the names a user knows.
    `updates` are those of the layer's statistics; of the `total` in the graph, of all its BN
    layers, training ops depend on `total_run`. `complete` is False where some assignment could
    not be followed to its variable, so that the lack of an update proves nothing.

    `statistics` maps the statistics that are variables of the graph to their names. `reads` says
    that training computes with them, `optimized` that an optimizer changes gamma or beta, or that
    there are none. `modes` are the is_training of the layer's fused nodes. `collected` says that
    UPDATE_OPS has its updates, `stored` that something else which keeps a result depends on them,
    `chosen` that a condition takes or leaves the statistics, `moments` that training computes those
    of batches, of this layer or another, outside of fused nodes. `switches` are the placeholders
    that choose whether the updates change anything. `momentum` is None unless all updates have the
    same constant one.
    """

    path: str
    training_ops: tuple[str, ...] = ()
    updates: tuple[Update, ...] = ()
    total: int = 0
    total_run: int = 0
    complete: bool = True
    statistics: Mapping[Role, str] = {}
    reads: bool = False
    optimized: bool = False
    modes: frozenset[bool] = frozenset()
    collected: bool = False
    stored: bool = False
    chosen: bool = False
    moments: bool = False
    switches: tuple[str, ...] = ()
    momentum: float | None = None
