"""The object graph of an object-based checkpoint: who holds whom, and which are variables.

tf.train.Checkpoint stores variables under paths through Python objects
(`model/layer_with_weights-11/gamma/.ATTRIBUTES/VARIABLE_VALUE`) and, beside them, a
TrackableObjectGraph: the objects by number, what each holds under what attribute name, and the full
name of every variable (tensorflow/core/protobuf/trackable_object_graph.proto,
tensorflow/python/checkpoint/util.py). What the variables are called follows from it:
`object_names`, and `loose_variables` for those that no object holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bninspect.formats.tensorflow.protos import DecodeError, declare

(TrackableObjectGraph,) = declare("TrackableObjectGraph")

ROOT = 0
TRAINED = "_trainable_variables"  # an optimizer's list of what it trains
_VALUE, _CONFIGURATION = "VARIABLE_VALUE", "OBJECT_CONFIG_JSON"

# What tells an optimizer from other objects that count (tf_keras, Keras 2 and 3).
_ITERATIONS = {"iter", "iterations", "_iterations"}
_OPTIMIZERS_OWN = {"learning_rate", "_learning_rate", "_variables", TRAINED}

# All names together are longer than the graph, which says each part once; in real files less than
# threefold.
_MAX_NAME_GROWTH = 100


class Stored(NamedTuple):
    """A variable: its key in the checkpoint and its full name."""

    key: str
    full_name: str

    @property
    def scope(self) -> str:
        """The full name without its last part."""
        return self.full_name.rpartition("/")[0]

    @property
    def leaf(self) -> str:
        """The last part of the full name."""
        return self.full_name.rpartition("/")[2]


class ObjectGraph:
    """The objects by number; number 0 is the root.

    `children` has for each the numbers and attribute names of those it holds. `variables` are those
    that are variables, `configurations` the keys of stored configurations, `optimizers` those that
    are optimizers, `slots` the variables that only these keep for themselves, `keys` all that any
    object has in the checkpoint. `ways` has the object before each on the shortest way from the
    root.

    Raises ValueError if `encoded` cannot be parsed or refers to objects it does not have.
    """

    def __init__(self, encoded: bytes) -> None:
        try:
            nodes = TrackableObjectGraph.FromString(encoded).nodes
        except DecodeError as error:
            raise ValueError from error
        self._room = _MAX_NAME_GROWTH * len(encoded)
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
        self.ways = shortest_ways(self.children)

    def _slots_in_lists(self) -> set[int]:
        """What optimizers hold in lists, but for the lists of what they train."""
        lists = {
            child
            for optimizer in self.optimizers
            for child, name in self.children[optimizer]
            if name != TRAINED and child not in self.variables
        }
        return {variable for number in lists for variable, _ in self.children[number]}

    def join(self, scope: str, name: str) -> str:
        """The name in the scope; raises ValueError if all names grow beyond any file's."""
        joined = f"{scope}/{name}" if scope else name
        self._room -= len(joined)
        if self._room < 0:
            raise ValueError
        return joined


def _is_optimizer(children: list[tuple[int, str]]) -> bool:
    names = {name for _, name in children}
    return not names.isdisjoint(_ITERATIONS) and not names.isdisjoint(_OPTIMIZERS_OWN)


def shortest_ways(children: Sequence[Sequence[tuple[int, str]]]) -> dict[int, tuple[int, str]]:
    """The object before each on the shortest way from the root, in order of distance.

    `children` is as in `ObjectGraph`; what cannot be reached from the root is left out. Raises
    IndexError for a number beyond the objects.
    """
    ways = {ROOT: (ROOT, "")} if children else {}
    queue = [*ways]
    for number in queue:
        for child, name in children[number]:
            if child not in ways:
                ways[child] = (number, name)
                queue.append(child)
    return ways


def text_of(raw: bytes) -> str:
    """A name of the graph, as the keys of the index are shown."""
    return raw.decode("utf-8", "surrogateescape")
