"""Immutable data types of the files to open for a typed path. No I/O."""

from __future__ import annotations

from typing import Literal

from bninspect.errors import ReadProblem
from bninspect.frozen import NamedTuple


class Target(NamedTuple):
    """The file or directory to open, with sentences on how it was chosen.

    `path` is a V2 prefix (tensor-bundle), for V1 (tensor-slices) a file or `PREFIX-?????-of-0000N`,
    a SavedModel's directory, a frozen graph (graph-def), a Keras file (hdf5, keras-zip) or the map
    of sharded Keras weights (keras-shards), the directory of a step that Orbax saved (orbax), the
    JSON of a TensorFlow.js model (tfjs), an ONNX model (onnx). A "directory" is none of these: it
    may hold any number of checkpoints (see `discover`). `live` says that a training may write it at
    any moment: no lock is asked for. `graph` is the name of a SavedModel's graph, empty if it is a
    usual one.
    """

    kind: Literal[
        "tensor-bundle",
        "tensor-slices",
        "saved-model",
        "graph-def",
        "hdf5",
        "keras-zip",
        "keras-shards",
        "onnx",
        "orbax",
        "tfjs",
        "directory",
    ]
    path: str
    notes: tuple[str, ...] = ()
    live: bool = False
    graph: str = ""


class Training(NamedTuple):
    """Identity of a training, the same for each checkpoint that it writes.

    `folder` is the real path of the directory that it writes to, `name` the common part of the file
    names, with # for each number.
    """

    folder: str
    name: str


class PathPattern(NamedTuple):
    """A pattern for paths, as in a .gitignore file, and the directory from which it is seen."""

    base: str
    text: str


class CheckpointLocation(NamedTuple):
    """The location of one checkpoint; `path` is the one to type for it.

    `problem` says why there is no `target`. `claimed` says that its name or its directory marks it
    as a checkpoint; otherwise it is skipped if its content is something else. `training` is None
    unless asked for, see `locate.trainings`.
    """

    path: str
    target: Target | None
    problem: ReadProblem | None = None
    claimed: bool = True
    training: Training | None = None
