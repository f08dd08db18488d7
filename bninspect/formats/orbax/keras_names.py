"""Names of the variables of a Keras model that keras.callbacks.OrbaxCheckpoint saved.

Its tree (`get_state_tree` of keras/src/trainers/trainer.py) has four parts: `trainable_variables`,
`non_trainable_variables`, `optimizer_variables` and `metrics_variables`. In each a variable lies at
its path: the names of the layers around it that have made it, `net/bn1/gamma`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from bninspect.model.checkpoint import KerasLayer

Path = tuple[str, ...]

_MODEL = ("trainable_variables", "non_trainable_variables")
_OPTIMIZER, _METRICS = "optimizer_variables", "metrics_variables"


class KerasNames(NamedTuple):
    """The names of the variables: stored → known, and the stored names of the optimizer's."""

    known: dict[str, str]
    optimizer: frozenset[str]


def is_keras(paths: Collection[Path]) -> bool:
    """Return whether a tree is that of a Keras model."""
    parts = {path[0] for path in paths if path}
    return not parts.isdisjoint(_MODEL) and parts <= {*_MODEL, _OPTIMIZER, _METRICS}


def keras_names(paths: Mapping[str, Path], layers: Mapping[Path, KerasLayer] | None) -> KerasNames:
    """Return the names of variables, given as stored name → path.

    A layer has its name in the configuration: those of the inner models around it and its own. A
    path need not have them, since a model that is built later than its layers is not in it.
    """
    own = {path[1:-1] for path in paths.values() if path[0] in _MODEL and len(path) > 2}
    names = _layer_names(own, layers or {})
    known: dict[str, str] = {}
    optimizer = set()
    for stored, (part, *inner) in paths.items():
        if part == _OPTIMIZER:
            optimizer.add(stored)
            known[stored] = "/".join(inner)
        elif part in _MODEL and len(inner) > 1:
            known[stored] = "/".join((*names[tuple(inner[:-1])], inner[-1]))
    return KerasNames(known, frozenset(optimizer))


def _layer_names(own: Collection[Path], layers: Collection[Path]) -> dict[Path, Path]:
    """Return the name of the layer at each path: the longest that it ends with, else the path.

    Where only one layer of the tree and one of the configuration have a name, they are the same.
    """
    count = Counter(path[-1] for path in own)
    by_end: dict[str, list[Path]] = {}
    for layer in layers:
        by_end.setdefault(layer[-1], []).append(layer)
    names = {}
    for path in own:
        same = by_end.get(path[-1], [])
        ends = [layer for layer in same if path[-len(layer) :] == layer]
        if len(same) == 1 and count[path[-1]] == 1:
            ends = same
        names[path] = max(ends, key=len, default=path)
    used = Counter(names.values())
    return {path: name if used[name] == 1 else path for path, name in names.items()}
