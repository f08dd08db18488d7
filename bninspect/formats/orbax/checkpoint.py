"""Orbax checkpoints: one saved step, with the arrays of a Flax train state or of a Keras model.

A step is a directory with `_CHECKPOINT_METADATA`. Either it holds the arrays itself, or each item
that was saved has a directory in it: `pytree/` and `model_config/` of Keras's OrbaxCheckpoint,
`default/` or names of one's own of a CheckpointManager. Each directory with arrays has its tree in
`_METADATA`, see `tree`. Nothing outside of the step's directory is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from bninspect.errors import Corrupt, Incomplete, ReadProblem
from bninspect.formats.keras.layer_before import with_layers_before
from bninspect.formats.keras.model_config import keras_layers, keras_model, optimizer_class
from bninspect.formats.orbax.arrays import Array, Store, open_store, require_tensorstore
from bninspect.formats.orbax.flax_names import flax_names
from bninspect.formats.orbax.haiku_averages import with_sums_for_averages
from bninspect.formats.orbax.keras_names import is_keras, keras_names
from bninspect.formats.orbax.ocdbt import DAMAGED
from bninspect.formats.orbax.stacked import with_stacked_layers
from bninspect.formats.orbax.tree import Tree, read_tree
from bninspect.model.checkpoint import Checkpoint, KerasModel, Variable
from bninspect.model.filenames import holds_orbax_arrays
from bninspect.storage import filesystem
from bninspect.storage.json_file import read_json
from bninspect.storage.source import Budget

Path = tuple[str, ...]

_FORMAT = "orbax"
# The item that OrbaxCheckpoint keeps the configuration in (keras/src/callbacks/orbax_checkpoint.py)
# and the file that Orbax keeps strings in.
_CONFIGURATION = os.path.join("model_config", "_strings.json")
_LARGEST_CONFIGURATION = 16 << 20  # bytes
_KERAS_VERSION = "3"  # the only one with an OrbaxCheckpoint


def open_orbax(path: str, directory: str, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Open the step saved in `directory`; `path` is what the user typed.

    Raises `Unsupported` if tensorstore is not installed, another `ReadProblem` if the step is
    damaged or incomplete.
    """
    require_tensorstore(path)
    items = _open_items(directory)
    arrays = dict(_arrays(items))
    paths = {stored: array.path for stored, array in arrays.items()}
    if is_keras(paths.values()):
        return _of_keras(path, directory, arrays, notes)
    names = flax_names(paths, [other for item in items for other in item.tree.others])
    checkpoint = _checkpoint(path, directory, arrays, names.optimizer, notes)
    checkpoint = replace(
        checkpoint,
        named_by="tree",
        known_names=with_sums_for_averages(names.known, checkpoint.variables),
        partial=names.partial,
        unchecked=names.unchecked,
    )
    return with_stacked_layers(checkpoint, paths)


class _Item(NamedTuple):
    """A directory with arrays in a step; `name` is empty if it is the step itself."""

    name: str
    store: Store
    tree: Tree


class _StoredArray(NamedTuple):
    """An array: its path in what was saved, its name in the store, and the item it is in."""

    path: Path
    name: str
    item: _Item


class _Variables(Mapping[str, Variable]):
    """Some arrays as variables, by stored name, in the order of the tree."""

    def __init__(
        self, directory: str, arrays: Mapping[str, _StoredArray], names: Collection[str]
    ) -> None:
        self._directory = directory
        self._arrays = {stored: array for stored, array in arrays.items() if stored in names}
        self._opened: dict[str, Variable] = {}

    def __getitem__(self, stored: str) -> Variable:
        if stored not in self._opened:
            _, name, item = self._arrays[stored]
            array = Array(self._directory, item.store, name, is_filled=item.tree.is_filled)
            self._opened[stored] = Variable(stored, array.shape, array.dtype, array.read)
        return self._opened[stored]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _open_items(directory: str) -> list[_Item]:
    """Return the items that hold arrays; raises a `ReadProblem` if there is none."""
    budget = Budget()
    items = []
    for name in _item_names(directory):
        item_directory = os.path.join(directory, name) if name else directory
        store = open_store(item_directory, budget)
        tree = read_tree(item_directory, store)
        if tree.paths:
            items.append(_Item(name, store, tree))
    if not items:
        raise Incomplete(
            directory,
            "this Orbax checkpoint holds no arrays",
            "Copy all files of the checkpoint, or check a step with the train state.",
        )
    return items


def _item_names(directory: str) -> list[str]:
    """Return the names of the directories with arrays, empty for the step itself."""
    try:
        if holds_orbax_arrays(filesystem.names_in(directory)):
            return [""]
        below = [name for name, kind in filesystem.entries_in(directory) if kind != "file"]
        items = [
            name
            for name in sorted(below)
            if holds_orbax_arrays(filesystem.names_in(os.path.join(directory, name)))
        ]
    except OSError as error:
        raise ReadProblem(
            directory,
            f"a directory of the checkpoint cannot be read ({error.strerror or error})",
            "Check the path, and the permissions of the directories in it.",
        ) from error
    return items or [""]  # the arrays may be all that is left of the step


def _arrays(items: list[_Item]) -> Iterator[tuple[str, _StoredArray]]:
    """Yield the arrays by stored name, which begins with the item's if several have arrays."""
    for item in items:
        for name, path in item.tree.paths.items():
            if len(items) == 1:
                yield name, _StoredArray(path, name, item)
            else:
                yield f"{item.name}/{name}", _StoredArray((item.name, *path), name, item)


def _of_keras(
    path: str, directory: str, arrays: Mapping[str, _StoredArray], notes: tuple[str, ...]
) -> Checkpoint:
    """Return the checkpoint of a Keras model, with its configuration if that was saved."""
    paths = {stored: array.path for stored, array in arrays.items()}
    config = _read_configuration(directory)
    of_jax = all(array.item.tree.of_jax for array in arrays.values())
    try:
        layers = None if config is None else keras_layers(config, _KERAS_VERSION)
        names = keras_names(paths, layers)
        if layers is not None:
            layers = with_layers_before(layers, config, partial(_last_variable, names.known))
        model = None if config is None else _model(config, of_jax=of_jax)
    except RecursionError as error:
        raise Corrupt(directory, "its model_config is nested too deep", DAMAGED) from error
    return replace(
        _checkpoint(path, directory, arrays, names.optimizer, notes),
        named_by="object",
        known_names=names.known,
        keras_layers=layers,
        keras_model=model,
        keras_version=_KERAS_VERSION,
    )


def _checkpoint(
    path: str,
    directory: str,
    arrays: Mapping[str, _StoredArray],
    optimizer: Collection[str],
    notes: tuple[str, ...],
) -> Checkpoint:
    """Return a checkpoint of arrays; `optimizer` are the stored names of the optimizer's."""
    return Checkpoint(
        path=path,
        resolved=directory,
        format=_FORMAT,
        variables=_Variables(directory, arrays, arrays.keys() - optimizer),
        optimizer=_Variables(directory, arrays, optimizer),
        notes=notes,
    )


def _read_configuration(directory: str) -> Any:
    """Return the configuration of the model, None without one; raises a `ReadProblem`."""
    file = os.path.join(directory, _CONFIGURATION)
    if not filesystem.is_file(file):
        return None
    strings = read_json(file, "a configuration", _LARGEST_CONFIGURATION, DAMAGED)
    stored = strings.get("config") if isinstance(strings, dict) else None
    try:
        return json.loads(stored) if isinstance(stored, str) else None
    except (ValueError, RecursionError) as error:
        raise Corrupt(file, f"its config is not valid JSON ({error})", DAMAGED) from error


def _model(config: Any, *, of_jax: bool) -> KerasModel | None:
    """Return the whole model; arrays of JAX show that Keras ran on it."""
    compiled = config.get("compile_config") if isinstance(config, dict) else None
    return keras_model(
        config,
        is_compiled=bool(compiled),
        optimizer=optimizer_class(compiled),
        backend="jax" if of_jax else None,
    )


def _last_variable(known: Mapping[str, str], layer: Path, count: int) -> str | None:
    """Return the stored name of the bias of a layer, if it has `count` variables."""
    scope = "/".join(layer)
    members = {
        name.rpartition("/")[2]: stored
        for stored, name in known.items()
        if name.rpartition("/")[0] == scope
    }
    return members.get("bias") if len(members) == count else None
