"""Names of files: which of them belong to one checkpoint, and their natural order. No I/O.

All patterns are meant to match the whole of a name or path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from itertools import pairwise

STATE_FILE = "checkpoint"  # of a training directory
SAVED_MODEL = "saved_model.pb"  # tensorflow/cc/saved_model/constants.h
SAVED_MODEL_TEXT = "saved_model.pbtxt"  # the same in the text form
GRAPHS_OF_SAVED_MODEL = (SAVED_MODEL, SAVED_MODEL_TEXT)
VARIABLES = "variables"  # kSavedModelVariablesDirectory and kSavedModelVariablesFilename there
# The files beside it: kFingerprintFilenamePb there, SAVED_METADATA_PATH of Keras
# (keras/src/saving/legacy/saved_model/constants.py), and that of a TF-Hub module
# (_MODULE_PROTO_FILENAME_PB of tensorflow_hub/native_module.py).
BESIDE_SAVED_MODEL = ("fingerprint.pb", "keras_metadata.pb", "tfhub_module.pb")

# (prefix, part): the files of one V2 checkpoint (tensorflow/core/util/tensor_bundle/naming.cc), and
# Saver's graph.
PART = re.compile(r"(?s)(.*)\.(index|meta|data-[0-9]{5}-of-[0-9]{5})")
# (prefix, number, count): a shard of a V1 checkpoint; (prefix, count): all of them as its Saver
# calls them. ShardedFilename and ShardedFilespec of tensorflow/core/kernels/save_op.cc.
V1_SHARD = re.compile(r"(?s)(.*)-([0-9]{5,})-of-([0-9]{5,})")
ALL_V1_SHARDS = re.compile(r"(?s)(.*)-\?{5}-of-([0-9]{5,})")
# (stem): a file of sharded Keras weights, whose map is the stem and KERAS_MAP
# (keras/src/saving/saving_lib.py).
KERAS_SHARD = re.compile(r"(?s)(.*)_[0-9]{5,}\.weights\.h5")
# (model): the file of external data of an ONNX model, as PyTorch (torch/onnx/_internal/exporter/
# _onnx_program.py) and optimum call it. Others give it any name.
ONNX_DATA = re.compile(r"(?s)(.*\.onnx)[._]data")
FIRST_KERAS_SHARD = "00000"
KERAS_MAP = ".weights.json"
# The JSON of a TensorFlow.js model, and the shards that its converter writes beside it (since 1.3
# with an extension; write_weights.py); (stem): those that TensorFlow.js itself writes beside
# model.json or STEM.json (tfjs-node/src/io/file_system.ts, tfjs-core/src/io/browser_files.ts).
TFJS_JSON = "model.json"
TFJS_SHARD = re.compile(r"(?s)group[0-9]+-shard[0-9]+of[0-9]+(?:\.bin)?|(?:(.+)\.)?weights\.bin")

# A saved step of Orbax, and a directory with arrays, which may be the step itself (metadata/tree.py
# and metadata/checkpoint.py of orbax/checkpoint/_src, the manifest of OCDBT). A save that is not
# finished has the infix in its name, or lacks the last file (TMP_DIR_SUFFIX, COMMIT_SUCCESS_FILE of
# …/_src/path/atomicity_types.py).
ORBAX_STEP = "_CHECKPOINT_METADATA"
ORBAX_TREE, ORBAX_DATABASE = "_METADATA", "manifest.ocdbt"
ORBAX_MARKERS = (ORBAX_STEP, ORBAX_TREE, ORBAX_DATABASE)
ORBAX_COMMIT = "commit_success.txt"
ORBAX_UNFINISHED = ".orbax-checkpoint-tmp"
# A file of a step by whose name it is recognised: those above, an array's metadata, a data file.
ORBAX_FILE = re.compile(
    r"(?s)(?:.*/)?(_CHECKPOINT_METADATA|_METADATA|manifest\.ocdbt|commit_success\.txt|\.zarray"
    r"|zarr\.json|d/[0-9a-f]{32})"
)
# (prefix, number): the directory of a step (ALLOWED_STEP_NAME_PATTERN of …/_src/path/step.py).
ORBAX_STEP_NAME = re.compile(r"(?s)(?:(.+)_)?([0-9]+)")
_DIGITS = re.compile("([0-9]+)")


def holds_orbax_arrays(names: Collection[str]) -> bool:
    """Return whether a directory with files of these names holds arrays that Orbax saved."""
    return ORBAX_TREE in names or ORBAX_DATABASE in names


def is_of_orbax(names: Collection[str]) -> bool:
    """Return whether a directory with files of these names is a step of Orbax, or a part of it."""
    return ORBAX_STEP in names or holds_orbax_arrays(names)


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which `model.ckpt-200` comes before `model.ckpt-1000`."""
    return [
        (len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (-1, part)
        for part in _DIGITS.split(name)
        if part
    ]


def all_v1_shards(path: str) -> str:
    """Return the pattern of all shards for the name of a V1 shard, else the path itself."""
    shard = V1_SHARD.fullmatch(path)
    if shard is None or int(shard[2]) >= int(shard[3]):
        return path
    return f"{shard[1]}-?????-of-{shard[3]}"


def checkpoint_of(path: str) -> str:
    """Return the name that all files of a checkpoint in one directory share.

    It is the prefix, the map of sharded Keras weights, the JSON of a TensorFlow.js model, the graph
    of a SavedModel, or an ONNX model.
    """
    for pattern in (PART, V1_SHARD, ALL_V1_SHARDS, ONNX_DATA):
        if match := pattern.fullmatch(path):
            return match[1]
    if shard := KERAS_SHARD.fullmatch(path):
        return shard[1] + KERAS_MAP
    directory, name = os.path.split(path)
    if shard := TFJS_SHARD.fullmatch(name):
        return os.path.join(directory, f"{shard[1]}.json" if shard[1] else TFJS_JSON)
    return os.path.join(directory, SAVED_MODEL) if name in BESIDE_SAVED_MODEL else path


def without_numbers(name: str) -> str:
    """Return a name with # for each number: the common part of a training's checkpoints."""
    return _DIGITS.sub("#", name)


def counters(names: Sequence[str]) -> list[int] | None:
    """Return the number that counts the checkpoints of one training, from each of their names.

    `names` differ in numbers alone. None if there is no such number: no whole number differs
    (`loss0.31.h5`, `loss0.29.h5`), or two of them give different orders (`acc93-epoch5.h5`,
    `acc91-epoch6.h5`).
    """
    numbers = (re.findall(r"[0-9]+\.[0-9]+|[0-9]+", name) for name in names)
    columns = [
        [int(number) for number in column]
        for column in zip(*numbers, strict=True)
        if not any("." in number for number in column)
    ]
    if len(names) < 2:
        return [0] * len(names)
    by_size = sorted(columns, key=lambda column: len(set(column)), reverse=True)
    if not by_size or len(set(by_size[0])) < len(names):
        return None
    order = sorted(range(len(names)), key=by_size[0].__getitem__)
    rising = all(column[a] <= column[b] for column in columns for a, b in pairwise(order))
    return by_size[0] if rising else None


def meta_graph(prefix: str) -> str:
    """Return the name of the graph that TensorFlow 1 writes beside a checkpoint.

    It has not the shards of a V1 checkpoint: meta_graph_filename of
    tensorflow/python/training/checkpoint_management.py.
    """
    if "-of-" in prefix:
        prefix = re.sub(r"-[\d\?]+-of-\d+$", "", prefix)
    return prefix + ".meta"


# The graph of a training in a file of its own: an Estimator, a MonitoredTrainingSession and a
# Supervisor write the first one (basic_session_run_hooks.py and supervisor.py of
# tensorflow/python/training), the documentation of tf.io.write_graph the others.
_GRAPHS = ("graph.pbtxt", "train.pbtxt", "graph.pb", "train.pb")


def shared_graph(path: str) -> str | None:
    """Return the name of a graph that a whole training shares, None of any other.

    It may be of an earlier training in the same directory, unlike one that is saved with each
    checkpoint.
    """
    name = os.path.basename(path)
    return name if name in _GRAPHS else None


def graph_files(prefix: str, *, in_url: bool) -> list[str]:
    """Return the usual names of a training's graph beside the checkpoint `prefix`.

    In a URL it is one alone, since each may cost a request.
    """
    beside = os.path.join(os.path.dirname(prefix), "")
    return [beside + name for name in (_GRAPHS[:1] if in_url else _GRAPHS)]
