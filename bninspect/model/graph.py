"""Immutable data types of a stored graph and of its evidence about a BN layer. No I/O.

`formats/tensorflow/graph_def.py` reads a `Graph`, `evidence/graph/` makes a `GraphEvidence` of it,
and rules read that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from bninspect.model.roles import Role

# A constant of one element.
Scalar = bool | int | float
# The attributes of a node that are read: a flag, a number, names of functions; None for others.
Attribute = Scalar | tuple[str, ...] | None
# The operation of a function's argument in a `Graph`.
ARGUMENT = "_Arg"
# The operations of variables, whose values are in a checkpoint.
STORED_VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
# The operation of a constant that holds weights, as in a frozen graph: it stands for a variable.
WEIGHTS = "_Weights"


class Function(NamedTuple):
    """A function of a graph's library: its arguments, its nodes, and those that it must run.

    `outputs` has the node and the number of its output for each value that the function returns, in
    the order of its signature.
    """

    arguments: Sequence[int]
    nodes: Sequence[int]
    results: Sequence[int]
    outputs: Sequence[tuple[int, int]] = ()


class Constant(NamedTuple):
    """The elements of a constant tensor: one element where all are equal."""

    shape: tuple[int, ...]
    elements: tuple[Scalar | str, ...]


class Graph(NamedTuple):
    """A stored graph. A node is a number; the nodes of all functions are numbered too.

    `names` and `operations` are by node. `inputs` are the nodes whose outputs a node takes, in
    their order, and -1 for one that is missing; `controls` those that only have to run before.
    `collections` holds the nodes of the collections train_op and update_ops; it is None for a
    GraphDef, which has none even if the graph had some. `attribute` decodes
    one attribute of a node, `constant` the tensor of a Const. `output` is the number of the output
    that a node takes as its input at a place (`bn/FusedBatchNorm:1` is output 1).
    """

    path: str
    names: Sequence[str]
    operations: Sequence[str]
    inputs: Sequence[Sequence[int]]
    controls: Sequence[Sequence[int]]
    functions: Mapping[str, Function]
    collections: Mapping[str, Sequence[int]] | None
    attribute: Callable[[int, str], Attribute]
    constant: Callable[[int], Constant | None] = lambda _: None
    output: Callable[[int, int], int] = lambda _, __: 0


class Operation(NamedTuple):
    """A node by its name and the type of its operation (`conv1/Conv2D`, `Conv2D`)."""

    name: str
    type: str


class Update(NamedTuple):
    """A node that updates a statistic: `run_by` names the training ops that depend on it.

    `in_loop` says that a training step may run it more than once: how often is not stored.
    `can_be_run` is False where no session.run can run it, whatever it fetches. `in_optimizer` says
    that an optimizer's nodes depend on it, as on updates that the loss or `minimize` waits for.
    `collected` says whether the collection UPDATE_OPS has it; None if the file has no collections.
    """

    node: str
    role: Role
    run_by: tuple[str, ...]
    in_loop: bool = False
    can_be_run: bool = True
    in_optimizer: bool = False
    collected: bool | None = False


class Condition(NamedTuple):
    """A condition on which an update changes a statistic.

    `kind` and `name` say what the condition reads: a placeholder, a variable (a mode, the step),
    the output of another op; or that its predicate `name` is a constant which is not known to be
    True. `value` is the default of a placeholder or the stored value of a variable, None if there
    is none. `bound` is the constant that it is compared with. `derived` says that logic stands
    between both and the branch, such as a negation: the value alone does not say which one it is.
    """

    kind: Literal["placeholder", "variable", "op", "constant"]
    name: str
    value: Scalar | None = None
    bound: Scalar | None = None
    derived: bool = False


class GraphEvidence(NamedTuple):
    """The evidence of the graph beside a checkpoint about one layer; none without training ops.

    - `training_ops`: the ops that a training step may run, under the names that a user knows.
    - `updates`: the updates of the layer's statistics. Of the `total` updates of all BN layers in
      the graph, training ops depend on `total_run`. `complete` is False where a write could not be
      followed to its variable, so that the lack of an update proves nothing.
    - `conditions`: the conditions on which the updates change anything.
    - `moved_before`: when the statistics moved earlier in the training, although no training op of
      this same graph depends on an update (`from step 20 to step 40`).
    - `stored`: something else that keeps a result depends on the updates.
    - `momentum`: that of all updates, None unless it is one constant. `one_pass`: an update takes
      the variance as the mean of squares minus the square of the mean.
    - `statistics`: the names of the statistics that are variables of the graph.
    - `reads`: training computes with the statistics. `modes`: the is_training of the layer's fused
      nodes in training. `chosen`: training takes or leaves the statistics by a condition.
      `moments`: training computes moments of a batch outside of fused nodes, for this layer or
      another.
    - `input_from`: the operation that computes the layer's input, before a bias is added and the
      shape changed; None if the layer has several inputs. `bias_before`: the variable of the bias
      that is added to the layer's input, right before it.
    - `computes_affine`: training computes with gamma or beta before the optimizers take them.
    - `optimized`: an optimizer changes gamma or beta, or there are none. `optimizer_writes`: the
      optimizers' nodes that write a statistic.
    - `assigned_from`: for each member that the graph assigns from another variable, that variable.
    """

    path: str
    training_ops: tuple[str, ...] = ()
    updates: tuple[Update, ...] = ()
    total: int = 0
    total_run: int = 0
    complete: bool = True
    conditions: tuple[Condition, ...] = ()
    moved_before: str | None = None
    stored: bool = False
    momentum: float | None = None
    one_pass: bool = False
    statistics: Mapping[Role, str] = {}
    reads: bool = False
    modes: frozenset[bool] = frozenset()
    chosen: bool = False
    moments: bool = False
    input_from: Operation | None = None
    bias_before: str | None = None
    computes_affine: bool = False
    optimized: bool = False
    optimizer_writes: Mapping[Role, tuple[str, ...]] = {}
    assigned_from: Mapping[Role, str] = {}

    @property
    def collected(self) -> bool | None:
        """Return whether UPDATE_OPS has an update of the layer; None if that is not stored."""
        if any(update.collected is None for update in self.updates):
            return None
        return any(update.collected for update in self.updates)

    @property
    def in_inference_mode(self) -> bool:
        """Return whether training computes the layer only with its stored statistics.

        Hand-written layers may use the statistics in one branch, and those of the batch in another.
        """
        plain = bool(self.modes) or not (self.chosen or self.moments)
        return self.reads and plain and True not in self.modes
