"""Session that runs a rewritten graph with the variables of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import RecalibrationRefused, UsageProblem
from bninspect.evidence.graph.operations import (
    ASSIGNS,
    BRANCHES,
    CALLS,
    LOOP_PREDICATE,
    LOOPS,
    OTHER_WRITES,
    SWITCHES,
    VARIABLES,
)
from bninspect.recalibrate.engines.frameworks import import_framework
from bninspect.recalibrate.engines.graph.functions import operation_definition
from bninspect.recalibrate.engines.graph.nodes import Nodes, Tensor, ancestors, operand

_CONDITIONAL = SWITCHES | BRANCHES
_ARRAYS = "TensorArray"  # what a loop collects
_STATES = VARIABLES | {"ReadVariableOp"}
# Operations that read or write files, or run Python, and are declared to have no state.
_FILES = {
    *("ReadFile", "MatchingFiles", "ImmutableConst", "GenerateVocabRemapping", "PyFuncStateless"),
    *("DebugIdentity", "DebugNanCount", "DebugNumericSummary"),
}
# Of TensorFlow's messages the lines that do not say what is wrong.
_HEADINGS = ("Graph execution error", "Detected at node", "Node: ")
_DRAWS = ("Random", "ParameterizedTruncatedNormal", "TruncatedNormal", "Multinomial")


class GraphSession:
    """A TensorFlow session of its own that runs some nodes of a GraphDef.

    Raises `UsageProblem` if TensorFlow cannot import them.
    """

    def __init__(self, nodes: Nodes, needed: Sequence[Tensor], meta: Any, path: str) -> None:
        self._tf = import_framework("tensorflow")
        self._path = path
        definition = self._tf.compat.v1.GraphDef()
        definition.versions.CopyFrom(meta.graph_def.versions)
        definition.library.CopyFrom(meta.graph_def.library)
        self.nodes = ancestors(nodes, (tensor.node for tensor in needed))
        definition.node.extend(nodes[name] for name in self.nodes)
        self.graph = self._tf.Graph()
        try:
            with self.graph.as_default():
                self._tf.import_graph_def(
                    definition, name="", producer_op_list=meta.meta_info_def.stripped_op_list
                )
        except (KeyError, TypeError, ValueError, self._tf.errors.OpError) as error:
            raise self._problem("import", error) from error
        self._session: Any = None

    def _problem(self, verb: str, error: Exception) -> UsageProblem:
        lines = [line for line in str(error).splitlines() if not line.startswith(_HEADINGS)]
        reason = next((line.strip() for line in lines if line.strip()), type(error).__name__)
        problem = (
            f"{self._path}: TensorFlow {self._tf.__version__} cannot {verb} the graph:"
            f" {reason.rstrip('.')}."
        )
        if verb == "run" and isinstance(error, self._tf.errors.InvalidArgumentError):
            problem += (
                " If it is built for batches of a fixed size, give that by --batch, and a multiple"
                " of it by --samples."
            )
        return UsageProblem(problem)

    def shape(self, tensor: Tensor) -> tuple[int | None, ...] | None:
        """Return the static shape of a tensor; None if its rank is not known."""
        shape = self._tensor(tensor).shape
        return None if shape.rank is None else tuple(shape.as_list())

    def shape_rank(self, tensor: Tensor) -> int | None:
        """Return the number of a tensor's dimensions; None if it is not known."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def dtype(self, tensor: Tensor) -> int:
        """Return the type of a tensor, as a DataType number; that of a reference is its value's."""
        number: int = self._tensor(tensor).dtype.base_dtype.as_datatype_enum
        return number

    def numpy_dtype(self, tensor: Tensor) -> Any:
        """Return numpy's type of a tensor."""
        return self._tensor(tensor).dtype.as_numpy_dtype

    def _tensor(self, tensor: Tensor) -> Any:
        try:
            return self.graph.get_tensor_by_name(f"{tensor.node}:{tensor.output}")
        except (KeyError, ValueError) as error:
            raise UsageProblem(
                f"{self._path}: the graph is damaged: it has no tensor {tensor}, which others take."
            ) from error

    def load(self, nodes: Nodes, read: Callable[[str], NDArray[Any]]) -> None:
        """Start the session and set the variables of the graph to what `read` gives for each."""
        with self.graph.as_default():
            self._session = self._tf.compat.v1.Session(
                config=self._tf.compat.v1.ConfigProto(allow_soft_placement=True)
            )
            assigned = [
                self._assigned(name, nodes[name], read(name))
                for name in self.nodes
                if nodes[name].op in VARIABLES
            ]
        # All at once: the session would be extended for each.
        if assigned:
            operations, fed = zip(*assigned, strict=True)
            self._run(list(operations), dict(fed))

    def _assigned(
        self, name: str, node: Any, value: NDArray[Any]
    ) -> tuple[Any, tuple[Any, NDArray[Any]]]:
        """Return the operation that sets a variable, and what to feed to it."""
        dtype = self._tf.as_dtype(node.attr["dtype"].type)
        given = self._tf.compat.v1.placeholder(dtype, value.shape)
        variable = self._tensor(Tensor(name))
        if node.op == "VarHandleOp":
            assign = self._tf.raw_ops.AssignVariableOp(resource=variable, value=given)
        else:
            assign = self._tf.raw_ops.Assign(ref=variable, value=given, validate_shape=False)
        return getattr(assign, "op", assign), (given, value.astype(dtype.as_numpy_dtype))

    def run(
        self, fetched: Sequence[Tensor], fed: Mapping[Tensor, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        """Return the values of some tensors where others have these values.

        Raises `UsageProblem` if TensorFlow cannot compute them.
        """
        values: list[NDArray[Any]] = self._run(
            [self._tensor(tensor) for tensor in fetched],
            {self._tensor(tensor): value for tensor, value in fed.items()},
        )
        return values

    def _run(self, fetched: Any, fed: Mapping[Any, NDArray[Any]]) -> Any:
        try:
            return self._session.run(fetched, dict(fed))
        except (ValueError, TypeError, self._tf.errors.OpError) as error:
            raise self._problem("run", error) from error

    def close(self) -> None:
        """Free what the session holds."""
        if self._session is not None:
            self._session.close()


def refuse_operations(nodes: Nodes, names: Sequence[str]) -> None:
    """Raise `RecalibrationRefused` for nodes whose result is not that of inference alone.

    Those are loops of functions, random numbers, files, tables and whatever else has a state.
    """
    for name in names:
        fault = _fault(name, nodes)
        if fault is not None:
            raise RecalibrationRefused(f"The network {fault}.")


def _fault(name: str, nodes: Nodes) -> str | None:
    """Return what a node does that cannot be run, as a clause without subject; else None."""
    node = nodes[name]
    operation = node.op
    feed = f"feed it by --feed {name}=KEY"
    declared = operation_definition(operation)
    fault = None
    if operation.startswith(_DRAWS):
        fault = f"draws random numbers at {name}: {feed}, or {name}=0 if they are only added"
    elif operation in LOOPS:
        fault = f"has a loop at {name}, which is not run"
    elif operation in _CONDITIONAL and not _is_of_loop(nodes, node):
        condition = operand(node, _CONDITIONAL[operation])
        fault = f"has a branch at {name}: give its condition by --feed {condition}=true or false"
    elif operation in CALLS or _has_function(node):
        fault = f"calls a function at {name}, which is not run: {feed}"
    elif declared is None:
        fault = f"has {name}, whose operation {operation} TensorFlow does not know"
    elif _writes_variable(operation, declared):
        fault = f"changes a variable at {name} ({operation}): {feed}"
    elif operation in _FILES or (declared.is_stateful and not _may_have_state(operation)):
        fault = f"has {name}, whose operation {operation} keeps a state or uses files: {feed}"
    return fault


def _has_function(node: Any) -> bool:
    """Return whether an operation runs a function of the graph, whose operations are not known."""
    return any(
        attribute.HasField("func") or attribute.list.func for attribute in node.attr.values()
    )


def _writes_variable(operation: str, declared: Any) -> bool:
    """Return whether an operation writes to a variable, a resource or a reference.

    Those that write to references are not declared to have a state.
    """
    takes_variable = declared.is_stateful or any(argument.is_ref for argument in declared.input_arg)
    return takes_variable and (operation in ASSIGNS or operation.startswith(OTHER_WRITES))


def _is_of_loop(nodes: Nodes, switch: Any) -> bool:
    """Return whether a switch only says whether a loop goes on."""
    condition = nodes.get(operand(switch, _CONDITIONAL[switch.op]).node)
    return condition is not None and condition.op == LOOP_PREDICATE


def _may_have_state(operation: str) -> bool:
    return operation in _STATES or operation.startswith(_ARRAYS)


def same_numbers(
    computed: NDArray[Any], expected: NDArray[Any], scale: NDArray[Any], tolerance: float
) -> bool:
    """Return whether two vectors differ by no more than a share of `scale` in any channel."""
    if computed.size != expected.size:
        return False
    apart = np.abs(computed.astype(np.float64).reshape(-1) - expected)
    return bool((apart <= tolerance * scale).all())
