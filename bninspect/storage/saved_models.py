"""Layout of SavedModels: which file of a directory has the graph, and where its variables are.

TensorFlow writes `saved_model.pb` beside a directory `variables`
(tensorflow/cc/saved_model/constants.h). People also copy all files into one directory.
"""

from __future__ import annotations

import os

from bninspect.model.filenames import SAVED_MODEL, SAVED_MODEL_TEXT, VARIABLES
from bninspect.storage import filesystem
from bninspect.storage.urls import is_url


def has_saved_model(directory: str) -> bool:
    """Return whether a directory has the graph of a SavedModel under a usual name."""
    names = (SAVED_MODEL,) if is_url(directory) else (SAVED_MODEL, SAVED_MODEL_TEXT)
    return any(filesystem.exists(os.path.join(directory, name)) for name in names)


def graph_file(directory: str) -> str:
    """Return the file of a SavedModel's graph: the binary form, if both are there."""
    path = os.path.join(directory, SAVED_MODEL)
    text = os.path.join(directory, SAVED_MODEL_TEXT)
    is_text = not is_url(directory) and not filesystem.exists(path) and filesystem.exists(text)
    return text if is_text else path


def variables_prefix(directory: str) -> str | None:
    """Return the prefix of a SavedModel's variables; None without their index."""
    for parts in ((VARIABLES, VARIABLES), (VARIABLES,)):
        prefix = os.path.join(directory, *parts)
        if filesystem.exists(prefix + ".index"):
            return prefix
    return None


def saved_model_around(prefix: str) -> str | None:
    """Return the directory of the SavedModel whose variables are at `prefix`, None without one."""
    directory, name = os.path.split(prefix)
    if name != VARIABLES:
        return None
    for candidate in _around(directory):
        if has_saved_model(candidate):
            return candidate
    return None


def _around(directory: str) -> list[str]:
    parent, base = os.path.split(directory)
    above = [parent or "."] if base == VARIABLES else []
    return [*above, directory or "."]
