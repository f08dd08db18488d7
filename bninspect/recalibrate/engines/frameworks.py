"""Imports of TensorFlow and Keras without the lines that they log about the machine."""

from __future__ import annotations

import importlib
import os
from typing import Any

from bninspect.errors import Corrupt, UsageProblem
from bninspect.formats.tensorflow.graph_def import read_bytes
from bninspect.formats.tensorflow.tensorflow_engine import silent_libraries
from bninspect.wording import install_command


def import_framework(name: str) -> Any:
    """Return the module `name`: tensorflow, keras or tf_keras; raises `ImportError`.

    What TensorFlow logs on import, about CUDA and the CPU, is no part of the report.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with silent_libraries():
        return importlib.import_module(name)


def require_tensorflow(path: str) -> None:
    """Import TensorFlow, which runs the model `path`; raises `UsageProblem` if that fails."""
    try:
        import_framework("tensorflow")
    except ImportError as error:
        raise UsageProblem(
            f"{path} is run by TensorFlow, which cannot be imported ({error}). Install it with:"
            f" {install_command('tensorflow')}."
        ) from error


def parse_message(message: Any, path: str) -> Any:
    """Return the protocol buffer of the class `message` in a file; raises a `ReadProblem`."""
    decode_error = importlib.import_module("google.protobuf.message").DecodeError
    try:
        return message.FromString(read_bytes(path))
    except decode_error as error:
        raise Corrupt(path, "TensorFlow cannot parse the graph", "Copy the file again.") from error
