"""The object graph of an object-based checkpoint: objects, their attributes, their variables.

tf.train.Checkpoint stores variables under paths through Python objects
(`model/layer_with_weights-11/gamma/.ATTRIBUTES/VARIABLE_VALUE`) and, beside them, a
TrackableObjectGraph: the objects by number, what each holds under what attribute name, and the full
name of every variable (tensorflow/core/protobuf/trackable_object_graph.proto,
tensorflow/python/checkpoint/util.py). `object_names` gives names to the variables,
`unowned_variables` to those that no object holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bninspect.formats.tensorflow.protos import DecodeError, declare

(TrackableObjectGraph,) = declare("TrackableObjectGraph")

ROOT = 0
TRAINED = "_trainable_variables"  # an optimizer's list of the variables that it trains
_VALUE, _CONFIGURATION = "VARIABLE_VALUE", "OBJECT_CONFIG_JSON"

# Attributes that distinguish an optimizer from other objects that count steps (Keras 2 and 3).
_ITERATIONS = {"iter", "iterations", "_iterations"}
_OPTIMIZERS_OWN = {"learning_rate", "_learning_rate", "_variables", TRAINED}

# All names together are longer than the graph, which stores each part once: less than threefold in
# real files.
_MAX_NAME_GROWTH = 100


class Stored(NamedTuple):
    """A variable of the object graph: its key in the checkpoint and its full name."""

    key: str
    full_name: str

    @property
    def scope(self) -> str:
        """Return the full name without its last part."""
        return self.full_name.rpartition("/")[0]

    @property
    def leaf(self) -> str:
        """Return the last part of the full name."""
        return self.full_name.rpartition("/")[2]


class ObjectGraph:
    """A TrackableObjectGraph; objects are numbers, and the root is 0.

    `children` lists for each object the numbers and attribute names of its children. `variables`
    maps variables to their names, `configurations` layers to the keys of their configurations.
    `optimizers` are the objects that are optimizers, `slots` the variables of optimizers, `keys`
    all keys of any object. `parents` is that of `shortest_paths`.

    Raises ValueError if `encoded` cannot be parsed or refers to a missing object.
    """

    def __init__(self, encoded: bytes) -> None:
        try:
            nodes = TrackableObjectGraph.FromString(encoded).nodes
        except DecodeError as error:
            raise ValueError from error
        self._name_budget = _MAX_NAME_GROWTH * len(encoded)
        self.children: list[list[tuple[int, str]]] = []
        self.variables: dict[int, Stored] = {}
        self.configurations: dict[int, str] = {}
        self.slots: set[int] = set()
        self.keys: set[str] = set()
        for number, node in enumerate(nodes):
            children = [(child.node_id, text_of(child.local_name)) for child in node.children]
            if any(not 0 <= child < len(nodes) for child, _ in children):
                raise ValueError
            self.children.append(children)
            for attribute in node.attributes:
                name, key = text_of(attribute.name), text_of(attribute.checkpoint_key)
                self.keys.add(key)
                if name == _VALUE:
                    self.variables[number] = Stored(key, text_of(attribute.full_name))
                elif name == _CONFIGURATION:
                    self.configurations[number] = key
            self.slots.update(slot.slot_variable_node_id for slot in node.slot_variables)
        self.optimizers = {
            number for number, children in enumerate(self.children) if _is_optimizer(children)
        }
        self.slots |= self._slots_in_lists()
        self.parents = shortest_paths(self.children)

    def _slots_in_lists(self) -> set[int]:
        """Return the variables in the lists of optimizers, except the lists of what they train."""
        lists = {
            child
            for optimizer in self.optimizers
            for child, name in self.children[optimizer]
            if name != TRAINED and child not in self.variables
        }
        return {variable for number in lists for variable, _ in self.children[number]}

    def join(self, scope: str, name: str) -> str:
        """Return scope and name joined; raises ValueError if all names together are too long."""
        joined = f"{scope}/{name}" if scope else name
        self._name_budget -= len(joined)
        if self._name_budget < 0:
            raise ValueError
        return joined


def _is_optimizer(children: list[tuple[int, str]]) -> bool:
    names = {name for _, name in children}
    return not names.isdisjoint(_ITERATIONS) and not names.isdisjoint(_OPTIMIZERS_OWN)


def shortest_paths(children: Sequence[Sequence[tuple[int, str]]]) -> dict[int, tuple[int, str]]:
    """Return the parent of each object on the shortest path from the root, and its attribute there.

    The objects come in order of distance; `children` is that of `ObjectGraph`. Objects without a
    path from the root are left out. Raises IndexError for the number of a missing object.
    """
    parents = {ROOT: (ROOT, "")} if children else {}
    queue = [*parents]
    for number in queue:
        for child, name in children[number]:
            if child not in parents:
                parents[child] = (number, name)
                queue.append(child)
    return parents


def text_of(raw: bytes) -> str:
    """Return a name of the object graph as text; bytes that are not UTF-8 become surrogates."""
    return raw.decode("utf-8", "surrogateescape")
