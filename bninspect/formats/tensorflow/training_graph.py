"""The graph of a training in a file of its own, beside the checkpoints of that training.

`graph_files` of `model/filenames.py` has its names. It is a GraphDef, which has no collections.
When another training begins in the directory, that replaces it, so it counts only if it has the
variables of the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from bninspect.errors import OtherGraph
from bninspect.formats.tensorflow.graph_def import read_training_graph
from bninspect.formats.tensorflow.node_attributes import NodeAttributes
from bninspect.model.checkpoint import Variable
from bninspect.model.graph import STORED_VARIABLES, Graph
from bninspect.storage import filesystem
from bninspect.storage.filesystem import Stamp
from bninspect.storage.run_scope import of_run
from bninspect.storage.signatures import ends, message_kind

_FIRST_PARTITION, _PARTITION = "/part_0", re.compile(r"/part_\d+(?:/|$)")
_NUMBERS = ("float", "bfloat")

# The shapes of a graph's variables, by name; None where the graph does not fix one.
Shapes = dict[str, tuple[int, ...] | None]


def read_matching_graph(
    variables: Mapping[str, Variable], known_names: Mapping[str, str], files: Sequence[str]
) -> Graph | None:
    """Return the graph of the first of `files` that has the `variables` of a checkpoint.

    `known_names` are those of `Checkpoint`. None if no file is a graph. Raises `OtherGraph` if the
    graphs there have other variables, and another `ReadProblem` if one cannot be read.
    """
    others = []
    for path in files:
        if message_kind(ends(path)[0]) != "graph-def":
            continue
        graph, shapes = of_run(_TrainingGraphs).read(path)
        if _has_variables(shapes, variables, known_names):
            return graph
        others.append(path)
    if others:
        raise OtherGraph(
            others[0],
            "this graph has other variables than the checkpoint, and proves nothing about it",
            "Copy the .meta file of the checkpoint there.",
        )
    return None


class _TrainingGraphs:
    """The last graph that was read in a run: all checkpoints of a training share it."""

    def __init__(self) -> None:
        self._last: tuple[str, Stamp | None, Graph, Shapes] | None = None

    def read(self, path: str) -> tuple[Graph, Shapes]:
        """Return the graph in a file, and the shapes of its variables; raises a `ReadProblem`."""
        stamp = filesystem.stamp_of(path)
        last = self._last
        if last is not None and last[:2] == (path, stamp):
            return last[2:]
        graph, attributes = read_training_graph(path)
        shapes = _shapes(graph, attributes)
        self._last = path, stamp, graph, shapes
        return graph, shapes


def _shapes(graph: Graph, attributes: NodeAttributes) -> Shapes:
    return {
        name: attributes.shape(number)
        for number, (name, operation) in enumerate(zip(graph.names, graph.operations, strict=True))
        if operation in STORED_VARIABLES
    }


def _has_variables(
    shapes: Shapes, variables: Mapping[str, Variable], known_names: Mapping[str, str]
) -> bool:
    """Return whether a graph has each stored variable of floating-point numbers, of its shape.

    It may have more, such as those that a Saver of the trainable variables leaves out. But a
    checkpoint with its step is whole: then a graph whose optimizer has slots that are not stored is
    that of another training.
    """
    stored = {known_names.get(name, name): variable for name, variable in variables.items()}
    numbers = {name: one for name, one in stored.items() if one.dtype.startswith(_NUMBERS)}
    has_step = any(not one.shape and one.dtype.startswith("int") for one in stored.values())
    return (
        bool(numbers)
        and all(_is_variable(name, one.shape, shapes) for name, one in numbers.items())
        and not (has_step and _has_other_slots(numbers, shapes))
    )


def _is_variable(name: str, shape: tuple[int, ...], shapes: Shapes) -> bool:
    is_same = name in shapes and shapes[name] in (None, shape)
    return is_same or f"{name}{_FIRST_PARTITION}" in shapes


def _has_other_slots(stored: Collection[str], shapes: Shapes) -> bool:
    """Return whether a graph has slots of stored variables that are not stored, as `w/Adam`."""
    return any(
        name not in stored and name.rpartition("/")[0] in stored and not _PARTITION.search(name)
        for name in shapes
    )
