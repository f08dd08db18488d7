"""The tree of a checkpoint: the path of each array in what was saved, and its name in the store.

`_METADATA` (orbax/checkpoint/_src/metadata/tree.py) is JSON: {"tree_metadata": {PATH:
{"key_metadata": [{"key": KEY}, …], "value_metadata": {"value_type": TYPE}}}}. The keys joined by
points are the array's name. Without it, as Orbax wrote in 2023, the names of the arrays are all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from bninspect.errors import Incomplete, UnknownFormat
from bninspect.formats.orbax.arrays import ZARR_2, ZARR_3, Store
from bninspect.formats.orbax.ocdbt import DAMAGED, MANIFEST
from bninspect.storage import filesystem
from bninspect.storage.json_file import read_json

METADATA = "_METADATA"
_LARGEST = 64 << 20  # bytes
# The types of values that are no arrays (orbax/checkpoint/_src/metadata/value.py,
# _src/serialization/type_handlers.py).
_OF_JAX = "jax.Array"
_NO_ARRAYS = ("None", "Dict", "List", "Tuple", "NamedTuple", "string", "ArrayProvider")


class Tree(NamedTuple):
    """The paths of all arrays by their names.

    `is_filled` is that of an `Array`. `of_jax` says that all were arrays of JAX when they were
    saved. `others` are the paths of values that are no arrays, such as None.
    """

    paths: dict[str, tuple[str, ...]]
    is_filled: bool = False
    of_jax: bool = False
    others: tuple[tuple[str, ...], ...] = ()


def read_tree(directory: str, store: Store) -> Tree:
    """Return the tree of the arrays in a directory; raises a `ReadProblem`."""
    path = os.path.join(directory, METADATA)
    if not filesystem.is_file(path):
        return Tree(dict(_stored(store)))
    contents = read_json(path, "a tree", _LARGEST, DAMAGED)
    try:
        types = set[str]()
        others: list[tuple[str, ...]] = []
        paths = dict(_paths(contents["tree_metadata"], types, others))
        is_filled = contents.get("store_array_data_equal_to_fill_value") is True
        needs_database = contents.get("use_ocdbt") is True
    except (AttributeError, KeyError, TypeError) as error:
        raise UnknownFormat(
            path, "this is not the tree of an Orbax checkpoint", "Check that it is the right file."
        ) from error
    if paths and needs_database and not filesystem.is_file(os.path.join(directory, MANIFEST)):
        raise Incomplete(
            directory,
            f"{MANIFEST}, the index of its arrays, is missing",
            "Copy all files of the checkpoint.",
        )
    return Tree(paths, is_filled, of_jax=types == {_OF_JAX}, others=tuple(others))


def _stored(store: Store) -> Iterator[tuple[str, tuple[str, ...]]]:
    for key in store.names():
        name, _, last = key.rpartition("/")
        if last in (ZARR_2, ZARR_3):
            yield name, tuple(name.split("."))


def _paths(
    tree: Any, types: set[str], others: list[tuple[str, ...]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield name and path of each array; add its type to `types`, other paths to `others`.

    Raises KeyError or TypeError for another layout.
    """
    for node in tree.values():
        value = node["value_metadata"]
        keys = tuple(str(key["key"]) for key in node["key_metadata"])
        if value["value_type"] in _NO_ARRAYS or value.get("skip_deserialize"):
            others.append(keys)
        else:
            types.add(value["value_type"])
            yield ".".join(keys), keys
