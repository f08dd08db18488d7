"""Opening of a located target by the reader of its format, which is imported only then."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from bninspect.errors import BninspectError, ReadProblem, Unsupported
from bninspect.frozen import NamedTuple
from bninspect.model.checkpoint import Checkpoint, Engine, Variable
from bninspect.model.filenames import graph_files, meta_graph
from bninspect.model.target import CheckpointLocation, Target
from bninspect.storage import filesystem
from bninspect.storage.urls import is_url

if TYPE_CHECKING:
    from bninspect.model.graph import Graph

_NO_CHECKSUMS = "--verify: HDF5 files have no checksums, so nothing could be verified"
_NO_CHECKSUMS_IN_GRAPHS = "--verify: graphs have no checksums, so nothing could be verified"
_NO_CHECKSUMS_IN_ONNX = "--verify: ONNX models have no checksums, so nothing could be verified"
_INDEX_CHECKSUMS = "--verify: Orbax has checksums for its index alone, which are always verified"
_NO_CHECKSUMS_OF = {
    "graph-def": _NO_CHECKSUMS_IN_GRAPHS,
    "saved-model": _NO_CHECKSUMS_IN_GRAPHS,
    "onnx": _NO_CHECKSUMS_IN_ONNX,
    "orbax": _INDEX_CHECKSUMS,
    "tfjs": "--verify: TensorFlow.js models have no checksums, so nothing could be verified",
}


def open_target(
    path: str, target: Target, engine: Engine = "native", *, verify: bool = False
) -> Checkpoint:
    """Return the open checkpoint of a located target; `path` is what the user typed.

    `verify` also verifies checksums that take a long time; a note says if there are none.
    Raises a `ReadProblem` if it cannot be read. With the engine tensorflow, raises `UsageProblem`
    if TensorFlow is not installed and `Unsupported` for a URL.
    """
    if engine == "tensorflow":
        if is_url(target.path):
            raise Unsupported(
                path,
                "--engine tensorflow reads local files only",
                "Omit --engine, or copy the files here first.",
            )
        from bninspect.formats.tensorflow.tensorflow_engine import open_with_tensorflow

        checkpoint = open_with_tensorflow(path, target)
        return checkpoint if _is_graph_alone(target) else with_graphs(checkpoint, target)
    if target.kind == "keras-zip":
        checkpoint = _open_keras_zip(path, target, verify=verify)
    else:
        checkpoint = _READERS[target.kind](path, target)
    if verify and checkpoint.verified is None:
        note = _NO_CHECKSUMS_OF.get(target.kind, _NO_CHECKSUMS)
        return replace(checkpoint, notes=(*checkpoint.notes, note))
    return checkpoint


def with_graphs(checkpoint: Checkpoint, target: Target) -> Checkpoint:
    """Return a checkpoint of TensorFlow with the graphs beside it, which are read when needed."""
    # All containers of TensorFlow have checksums, and they are verified of all that is read.
    names = _Names(checkpoint.named_by, checkpoint.variables, checkpoint.known_names)
    return replace(checkpoint, graphs=partial(_read_graphs, names, target), verified=True)


class _Names(NamedTuple):
    """The names and shapes by which a graph belongs to a checkpoint; they can be pickled."""

    named_by: str
    variables: Mapping[str, Variable]
    known_names: Mapping[str, str]

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a pickle holds: variables that cannot be read."""
        stored = self.variables.items() if self.named_by == "graph" else ()  # no others count
        variables = {name: one._replace(load=_raise_closed) for name, one in stored}
        return _Names, (self.named_by, variables, dict(self.known_names))


def _raise_closed() -> NoReturn:
    raise BninspectError("The process that read this checkpoint has closed it.")


def _read_graphs(names: _Names, target: Target) -> Sequence[Graph]:
    is_saved_model = target.kind == "saved-model"
    path = _saved_graph(target) if is_saved_model else meta_graph(target.path)
    graphs: Sequence[Graph] = ()
    if filesystem.exists(path):
        from bninspect.formats.tensorflow.graph_def import read_graphs

        graphs = read_graphs(path, saved_model=is_saved_model)
    if is_saved_model or names.named_by != "graph" or _may_be_of(names, graphs):
        return graphs
    files = graph_files(target.path, in_url=is_url(target.path))
    files = [file for file in files if filesystem.is_file(file)]
    if not files:
        return graphs
    from bninspect.formats.tensorflow.training_graph import read_matching_graph

    try:
        graph = read_matching_graph(names.variables, names.known_names, files)
    except ReadProblem:
        if not graphs:
            raise
        return graphs
    return graphs if graph is None else (graph,)


def _may_be_of(names: _Names, graphs: Sequence[Graph]) -> bool:
    """Return whether graphs have a weight of a checkpoint by its name; all have some scalars."""
    if not graphs:  # as beside most: no entry of an index is parsed for nothing
        return False
    weights = {name for name, variable in names.variables.items() if variable.shape}
    return any(not weights.isdisjoint(graph.names) for graph in graphs)


def _is_graph_alone(target: Target) -> bool:
    """Return whether the weights are constants of the graph, which opening the target reads."""
    if target.kind != "saved-model":
        return target.kind == "graph-def"
    from bninspect.storage.saved_models import variables_prefix

    return variables_prefix(target.path) is None


def _saved_graph(target: Target) -> str:
    from bninspect.storage.saved_models import graph_file

    name = target.graph
    return os.path.join(target.path, name) if name else graph_file(target.path)


# Each reader brings its own libraries, so only the one that is needed is imported.
def _open_saved_model(path: str, target: Target) -> Checkpoint:
    from bninspect.formats.tensorflow.saved_model import open_saved_model

    checkpoint = open_saved_model(path, target.path, target.notes, target.graph)
    return checkpoint if _is_graph_alone(target) else with_graphs(checkpoint, target)


def _open_tensor_slices(path: str, target: Target) -> Checkpoint:
    from bninspect.formats.tensorflow.v1_slices import open_tensor_slices

    return with_graphs(open_tensor_slices(path, target.path, target.notes), target)


def _open_tensor_bundle(path: str, target: Target) -> Checkpoint:
    from bninspect.formats.tensorflow.v2_bundle import open_tensor_bundle

    return with_graphs(open_tensor_bundle(path, target.path, target.notes), target)


def _open_frozen_graph(path: str, target: Target) -> Checkpoint:
    from bninspect.formats.tensorflow.frozen_graph import open_frozen_graph

    return open_frozen_graph(path, target.path, target.notes)


def _open_keras_zip(path: str, target: Target, *, verify: bool) -> Checkpoint:
    from bninspect.formats.keras.archive import open_keras_zip

    return open_keras_zip(path, target.path, target.notes, verify=verify)


def _open_keras_shards(path: str, target: Target) -> Checkpoint:
    from bninspect.formats.keras.sharded_weights import open_keras_shards

    return open_keras_shards(path, target.path, target.notes, live=target.live)


def _open_onnx(path: str, target: Target) -> Checkpoint:
    from bninspect.formats.onnx.file import open_onnx

    return open_onnx(path, target.path, target.notes)


def _open_hdf5(path: str, target: Target) -> Checkpoint:
    """Return the open HDF5 file, in whichever of Keras's two layouts it has."""
    from bninspect.formats.hdf5.file import Hdf5
    from bninspect.formats.keras.h5 import read_hdf5

    file = Hdf5(target.path, live=target.live)
    try:
        return read_hdf5(path, file, target.notes)
    except BaseException:
        file.close()
        raise


def _open_orbax(path: str, target: Target) -> Checkpoint:
    from bninspect.formats.orbax.checkpoint import open_orbax

    return open_orbax(path, target.path, target.notes)


def _open_tfjs(path: str, target: Target) -> Checkpoint:
    from bninspect.formats.tfjs.model import open_tfjs

    return open_tfjs(path, target.path, target.notes)


_READERS: Mapping[str, Callable[[str, Target], Checkpoint]] = {
    "graph-def": _open_frozen_graph,
    "hdf5": _open_hdf5,
    "keras-shards": _open_keras_shards,
    "onnx": _open_onnx,
    "orbax": _open_orbax,
    "saved-model": _open_saved_model,
    "tensor-bundle": _open_tensor_bundle,
    "tensor-slices": _open_tensor_slices,
    "tfjs": _open_tfjs,
}


def require_whole(location: CheckpointLocation) -> None:
    """Raise a `ReadProblem` if any byte of a checkpoint is missing, also of variables without BN.

    Only V2 checkpoints (and SavedModels, which hold one) need it: other formats do not open then.
    """
    if location.target is None or location.target.kind not in ("tensor-bundle", "saved-model"):
        return
    prefix: str | None = location.target.path
    if location.target.kind == "saved-model":
        from bninspect.storage.saved_models import variables_prefix

        prefix = variables_prefix(location.target.path)
    if prefix is not None:  # otherwise opening it shows whether its graph has the weights
        from bninspect.formats.tensorflow.v2_bundle import require_shards

        require_shards(prefix)
