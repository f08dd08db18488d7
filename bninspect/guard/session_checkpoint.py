"""A TF1 session as a checkpoint: its variables, read by session.run, and its graph.

The variables are those of the collection GLOBAL_VARIABLES, which tf.train.Saver saves by default.
No node is added to the graph, which may be finalized: session.run fetches the read op that each
variable has (tensorflow/python/ops/resource_variable_ops.py, `_graph_element`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from numpy.typing import NDArray

from bninspect.errors import Unsupported
from bninspect.formats.tensorflow.graph_def import COLLECTIONS, parse_graph
from bninspect.guard.arrays import copied_values
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.graph import Graph

_SOURCE = "the graph of the session"
# tensorflow/python/framework/ops.py: GraphKeys.GLOBAL_VARIABLES
_GLOBAL_VARIABLES = "variables"


class SessionVariables(Mapping[str, Variable]):
    """The global variables of a session by name; `session` may be replaced by one of its graph.

    `fetch` reads many at once; a value that was fetched is returned until the next `fetch`.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self._fetches = {
            variable.op.name: variable
            for variable in session.graph.get_collection(_GLOBAL_VARIABLES)
            if variable.shape.is_fully_defined()
        }
        self._values: dict[str, NDArray[Any]] = {}

    def fetch(self, variables: Iterable[Variable]) -> None:
        """Read some variables in one session.run, and forget all values before."""
        fetches = {variable.name: self._fetches[variable.name] for variable in variables}
        fetched = self.session.run(fetches)
        self._values = {name: copied_values(value) for name, value in fetched.items()}

    def _read(self, name: str) -> NDArray[Any]:
        if name not in self._values:
            self._values[name] = copied_values(self.session.run(self._fetches[name]))
        return self._values[name]

    def __getitem__(self, name: str) -> Variable:
        variable = self._fetches[name]
        shape = tuple(variable.shape.as_list())
        dtype = variable.dtype.base_dtype.name
        return Variable(name, shape, dtype, lambda: self._read(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._fetches)

    def __len__(self) -> int:
        return len(self._fetches)


def session_checkpoint(variables: SessionVariables) -> Checkpoint:
    """Return the checkpoint that a Saver would write of a session."""
    return Checkpoint(
        path="the session",
        resolved="the session",
        format="tf-v2",
        variables=variables,
        graphs=cache(lambda: (_graph_of(variables.session.graph),)),
        prefetch=variables.fetch,
    )


def _graph_of(graph: Any) -> Graph:
    """Return the graph of a session as it is now; raises a `ReadProblem` if it cannot be read."""
    collections = {key: [item.name for item in graph.get_collection(key)] for key in COLLECTIONS}
    try:
        graph_def = graph.as_graph_def().SerializeToString()
    except ValueError as error:
        raise Unsupported(
            _SOURCE, "it has more than 2 GB", "Keep data out of the graph."
        ) from error
    return parse_graph(_SOURCE, graph_def, collections)
