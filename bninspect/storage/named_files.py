"""Other files that a local model consists of, under names that the model itself gives."""

from __future__ import annotations

import json
import mmap
import os

from bninspect.storage.signatures import HEAD, is_onnx, message_kind


def is_part_of(file: str, model: str) -> bool:
    """Return whether an existing file is a part of a local model, or the graph beside it.

    An ONNX model names its external data, JSON the shards of a TensorFlow.js or Keras model; the
    graph of a SavedModel, or of a training, may have any name.
    """
    directory = model if os.path.isdir(model) else os.path.dirname(model)
    try:
        if os.path.dirname(file) == directory and message_kind(_head(file)) is not None:
            return True
        return os.path.isfile(model) and _names(model, os.path.relpath(file, directory))
    except OSError:
        return False


def _head(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(HEAD)


def _names(model: str, relative: str) -> bool:
    """Return whether a model names a file by its path relative to the model."""
    name = relative.replace(os.sep, "/")
    head = _head(model)
    if is_onnx(head):
        # An entry of external_data: its key, and its value (onnx/onnx.proto), whose length is a
        # varint of one byte or two.
        encoded = name.encode("utf-8", "surrogateescape")
        size = len(encoded)
        length = [size] if size < 0x80 else [size & 0x7F | 0x80, size >> 7 & 0x7F]
        wanted = b"\x0a\x08location\x12" + bytes(length) + encoded
    elif head.lstrip().startswith(b"{"):
        wanted = json.dumps(name).encode()
    else:
        return False
    with (
        open(model, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return content.find(wanted) >= 0
