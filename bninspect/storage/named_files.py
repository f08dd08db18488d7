"""Other files that a local model consists of, under names that the model itself gives."""

from __future__ import annotations

import json
import os

from bninspect.errors import ReadProblem
from bninspect.storage import filesystem
from bninspect.storage.signatures import begins_as_json, ends, is_onnx, message_kind
from bninspect.storage.source import Source
from bninspect.storage.varint import encoded_varint

_BLOCK = 1 << 24  # bytes that are searched at once


def is_part_of(file: str, model: str) -> bool:
    """Return whether an existing file is a part of a local model, or the graph beside it.

    An ONNX model names its external data, JSON the shards of a TensorFlow.js or Keras model; the
    graph of a SavedModel, or of a training, may have any name.
    """
    directory = model if filesystem.is_directory(model) else os.path.dirname(model)
    try:
        if os.path.dirname(file) == directory and message_kind(ends(file)[0]) is not None:
            return True
        return filesystem.is_file(model) and _names(model, os.path.relpath(file, directory))
    except ReadProblem:
        return False


def _names(model: str, relative: str) -> bool:
    """Return whether a model names a file by its path relative to the model."""
    name = relative.replace(os.sep, "/")
    head, _ = ends(model)
    if is_onnx(head):
        # An entry of external_data: its key, and its value with the length (onnx/onnx.proto).
        encoded = name.encode("utf-8", "surrogateescape")
        wanted = b"\x0a\x08location\x12" + encoded_varint(len(encoded)) + encoded
    elif begins_as_json(head):
        wanted = json.dumps(name).encode()
    else:
        return False
    return _holds(model, wanted)


def _holds(path: str, wanted: bytes) -> bool:
    """Return whether a file holds some bytes."""
    with Source(path) as source:
        overlap = len(wanted) - 1
        for start in range(0, source.size, _BLOCK):
            size = min(_BLOCK + overlap, source.size - start)
            if wanted in source.read(start, size, "the names of its files"):
                return True
    return False
