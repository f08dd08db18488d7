"""Imports of TensorFlow and Keras without the lines that they log about the machine."""

from __future__ import annotations

import importlib
import os
from typing import Any

from bninspect.formats.tensorflow.tensorflow_engine import silent_libraries


def import_framework(name: str) -> Any:
    """Return the module `name`: tensorflow, keras or tf_keras; raises `ImportError`.

    What TensorFlow logs on import, about CUDA and the CPU, is no part of the report.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with silent_libraries():
        return importlib.import_module(name)
