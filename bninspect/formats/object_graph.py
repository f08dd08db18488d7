"""The object graph of an object-based checkpoint: from its keys to the names a person knows.

tf.train.Checkpoint stores variables under paths through Python objects
(`model/layer_with_weights-11/gamma/.ATTRIBUTES/VARIABLE_VALUE`) and, beside them, a
TrackableObjectGraph: which object holds which under what attribute name, and the full name of every
variable (tensorflow/core/protobuf/trackable_object_graph.proto,
tensorflow/python/checkpoint/util.py). Two things are read from it:

- which variables belong together: those that one object holds as its attributes. The keys do not
  tell, since Keras 3 stores gamma and beta of a layer under its optimizer.
- what they are called: their full names (`bn1/gamma`) where those are one object's alone. Full
  names collide in Keras 3 subclassed models, where every layer says `net/gamma`; then the names of
  attributes on the way from the root say which is which.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from bninspect.errors import Incomplete
from bninspect.formats.protos import DecodeError, declare

(TrackableObjectGraph,) = declare("TrackableObjectGraph")

_ROOT = 0
_KEY_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = "/.OPTIMIZER_SLOT/"
_VALUE, _CONFIGURATION = "VARIABLE_VALUE", "OBJECT_CONFIG_JSON"
_ITERATIONS = {"iter", "iterations", "_iterations"}  # what only optimizers hold
_TRAINED = "_trainable_variables"
_MAX_NAMES_IN_NOTE = 3

# All names together are longer than the graph, which says each part once; in real files less than
# threefold.
_MAX_NAME_GROWTH = 100

# The attributes that Keras makes up for layers whose real names are elsewhere: one a layer in
# Keras 2, lists in Keras 3.
_MADE_UP = r"layer(_with_weights)?-\d+"
_MADE_UP_LISTS = {"_operations", "_layers", "_functional"}


class ObjectNames(NamedTuple):
    """What the graph says: `known` maps keys to names (an optimizer's slots have none).

    `name_at` takes an object's path of attributes (`["layer_with_weights-1"]`) and gives its name,
    or None if there is none. `configurations` maps layers, "" for the whole, to the keys of their
    stored configurations. `partial` names layers of which the graph shows that more should be
    there, `notes` are sentences on that; `incomplete` is why there is no graph.
    """

    known: dict[str, str]
    name_at: Callable[[Sequence[str]], str | None]
    configurations: dict[str, str]
    partial: frozenset[str]
    notes: tuple[str, ...]
    incomplete: Incomplete | None = None


class _Variable(NamedTuple):
    key: str
    full_name: str

    @property
    def scope(self) -> str:
        return self.full_name.rpartition("/")[0]

    @property
    def leaf(self) -> str:
        return self.full_name.rpartition("/")[2]


def read_object_graph(encoded: bytes) -> ObjectNames:
    """The names in a serialized TrackableObjectGraph.

    Raises ValueError if it cannot be parsed, refers to objects it does not have, or spells names
    that are longer than any file's.
    """
    return _Graph(encoded).names()


def name_by_keys(keys: Iterable[str]) -> ObjectNames:
    """What the keys alone tell, where the graph is not there: paths of attributes for names."""
    known = {key: key.removesuffix(_KEY_SUFFIX) for key in keys if _SLOT not in key}
    note = "the object graph is missing, so layers go by their keys"
    return ObjectNames(known, lambda _: None, {}, frozenset(), (note,))


def shortest_ways(children: Sequence[Sequence[tuple[int, str]]]) -> dict[int, tuple[int, str]]:
    """The object before each on the shortest way from the root, in order of distance.

    `children` has for each object the numbers and attribute names of those it holds. The root is
    number 0; what cannot be reached from it is left out.
    """
    ways = {_ROOT: (_ROOT, "")} if children else {}
    queue = [*ways]
    for number in queue:
        for child, name in children[number]:
            if child not in ways:
                ways[child] = (number, name)
                queue.append(child)
    return ways


class _Graph:
    """The objects by number: what each holds, and which are variables."""

    def __init__(self, encoded: bytes) -> None:
        try:
            nodes = TrackableObjectGraph.FromString(encoded).nodes
        except DecodeError as error:
            raise ValueError from error
        self.room = _MAX_NAME_GROWTH * len(encoded)
        self.children: list[list[tuple[int, str]]] = []
        self.variables: dict[int, _Variable] = {}
        self.configurations: dict[int, str] = {}
        slots: set[int] = set()
        for number, node in enumerate(nodes):
            children = [(child.node_id, _text(child.local_name)) for child in node.children]
            if any(not 0 <= child < len(nodes) for child, _ in children):
                raise ValueError
            self.children.append(children)
            for attribute in node.attributes:
                name, key = _text(attribute.name), _text(attribute.checkpoint_key)
                if name == _VALUE:
                    self.variables[number] = _Variable(key, _text(attribute.full_name))
                elif name == _CONFIGURATION:
                    self.configurations[number] = key
            slots.update(slot.slot_variable_node_id for slot in node.slot_variables)
        self.owners = self._find_owners()
        self.optimizers = [
            number
            for number, children in enumerate(self.children)
            if any(name in _ITERATIONS for _, name in children)
        ]
        slots |= self._find_slots()
        self.loose = set(self.variables) - set(self.owners) - slots
        self.ways = shortest_ways(self.children)

    def names(self) -> ObjectNames:
        """Everything that is known, put together."""
        labels = self._label_objects()
        known = self._name_owned(labels)
        lost = self._name_lost(known)
        self._name_listed(known)
        keys = {self.variables[number].key: name for number, name in known.items()}
        held = [{name: child for child, name in children} for children in self.children]

        def name_at(path: Sequence[str]) -> str | None:
            number: int | None = _ROOT
            for attribute in path:
                if number is not None:
                    number = held[number].get(attribute)
            return None if number is None else labels.get(number)

        configurations = {
            labels[number]: key for number, key in self.configurations.items() if number in labels
        }
        partial = frozenset(name.rpartition("/")[0] for name in lost)
        return ObjectNames(keys, name_at, configurations, partial, tuple(_note_on_lost(lost)))

    def _join(self, scope: str, name: str) -> str:
        """The name in the scope; raises ValueError if names grow beyond all measure."""
        joined = f"{scope}/{name}" if scope else name
        self.room -= len(joined)
        if self.room < 0:
            raise ValueError
        return joined

    def _find_owners(self) -> dict[int, tuple[int, str]]:
        """Who holds each variable as an attribute, and under what name; a list owns nothing."""
        owners: dict[int, tuple[int, str]] = {}
        for number, children in enumerate(self.children):
            for child, name in children:
                if child in self.variables and not name.isdecimal():
                    owners.setdefault(child, (number, name))
        return owners

    def _find_slots(self) -> set[int]:
        """What an optimizer holds in lists, but for the list of what it trains."""
        return {
            variable
            for optimizer in self.optimizers
            for child, name in self.children[optimizer]
            if name != _TRAINED and child not in self.variables
            for variable, _ in self.children[child]
        }

    def _scopes(self) -> dict[int, str]:
        """The scope of each object that all its variables' full names agree on."""
        held: dict[int, list[_Variable]] = {}
        for variable, (owner, _) in self.owners.items():
            held.setdefault(owner, []).append(self.variables[variable])
        return {
            owner: variables[0].scope
            for owner, variables in held.items()
            if len({variable.scope for variable in variables}) == 1
            and len({variable.full_name for variable in variables}) == len(variables)
        }

    def _label_objects(self) -> dict[int, str]:
        """A name for each object: its scope if that is its alone, else its way from the root."""
        scopes = self._scopes()
        users = Counter(scopes.values())
        users.update({self.variables[number].scope for number in self._lost()})
        labels = {}
        for number, (before, attribute) in self.ways.items():
            scope = scopes.get(number, "")
            listed = self.ways[before][1] in _MADE_UP_LISTS
            if scope and users[scope] == 1:
                labels[number] = scope
            elif number == _ROOT or attribute in _MADE_UP_LISTS:
                labels[number] = labels.get(before, "")
            elif scope and (listed or re.fullmatch(_MADE_UP, attribute)):
                labels[number] = self._join(labels[before], scope)
            else:
                labels[number] = self._join(labels[before], attribute)
        return labels

    def _name_owned(self, labels: dict[int, str]) -> dict[int, str]:
        """Variables by the label of the object that holds them and the name it has for them."""
        known = {}
        for number, (owner, attribute) in self.owners.items():
            variable = self.variables[number]
            if owner in labels:
                known[number] = self._join(labels[owner], attribute)
            else:
                known[number] = variable.full_name or variable.key
        return known

    def _lost(self) -> Iterator[int]:
        """Variables that an optimizer trains and no other object of the checkpoint holds.

        In a checkpoint of the optimizer alone nothing is lost: the model lies elsewhere.
        """
        if {owner for owner, _ in self.owners.values()} <= {_ROOT, *self.optimizers}:
            return
        for _, _, variable in self._trained_by():
            if variable in self.loose:
                yield variable

    def _trained_by(self) -> Iterator[tuple[int, int, int]]:
        """(optimizer, place in its list, variable) of everything that is trained."""
        for optimizer in self.optimizers:
            for child, name in self.children[optimizer]:
                if name == _TRAINED:
                    for place, (variable, _) in enumerate(self.children[child]):
                        yield optimizer, place, variable

    def _name_lost(self, known: dict[int, str]) -> list[str]:
        """Name what only the optimizer holds; the slots' names tell whose it is.

        Keras 3 calls the slot of `net/bn/gamma` `adam/net_bn_gamma_momentum`, so the layer's name
        is there even where the variable itself is called `net/gamma`
        (keras/src/optimizers/base_optimizer.py).
        """
        names = []
        lost = set(self._lost())
        for optimizer, place, number in self._trained_by():
            if number in lost and number not in known:
                variable = self.variables[number]
                scope = self._scope_in_slots(optimizer, place, variable.leaf)
                known[number] = self._join(scope, variable.leaf) if scope else variable.full_name
                names.append(known[number])
        return names

    def _scope_in_slots(self, optimizer: int, place: int, leaf: str) -> str | None:
        """The layer's name in the slots' lists, which are as long as that of what is trained."""
        lists = {name: self.children[child] for child, name in self.children[optimizer]}
        for slots in lists.values():
            if slots is lists[_TRAINED] or len(slots) != len(lists[_TRAINED]):
                continue
            slot = self.variables.get(slots[place][0])
            if slot is not None:
                scope, _, _ = slot.leaf.rpartition(f"_{leaf}_")
                if scope:
                    return scope
        return None

    def _name_listed(self, known: dict[int, str]) -> None:
        """Name what only lists hold (Keras 3's export): by full names, and by order.

        A list has layer after layer, and of each the trainable variables first. A second list of
        copies adds nothing: those keep their keys.
        """
        trainable = {
            variable
            for children in self.children
            for child, name in children
            if name in {"trainable_variables", _TRAINED}
            for variable, _ in self.children[child]
        }
        seen: set[str] = set()
        for children in self.children:
            listed = [n for n, _ in children if n in self.loose and n not in known]
            names = {self.variables[number].full_name for number in listed}
            if not names <= seen:
                seen |= names
                self._name_runs(listed, trainable, known)

    def _name_runs(self, listed: list[int], trainable: set[int], known: dict[int, str]) -> None:
        """Give each layer in a list a scope of its own where several share one."""
        runs: dict[str, list[dict[str, int]]] = {}
        before = -1
        for number in listed:
            variable = self.variables[number]
            layers = runs.setdefault(variable.scope, [{}])
            next_layer = number in trainable and before not in trainable
            if variable.leaf in layers[-1] or (next_layer and layers[-1]):
                layers.append({})
            layers[-1][variable.leaf] = before = number
        for scope, layers in runs.items():
            for index, layer in enumerate(layers, 1):
                label = scope if len(layers) == 1 else f"{scope}#{index}"
                known |= {number: self._join(label, leaf) for leaf, number in layer.items()}


def _note_on_lost(names: list[str]) -> Iterator[str]:
    if names:
        some = ", ".join(names[:_MAX_NAMES_IN_NOTE])
        more = ", ..." if len(names) > _MAX_NAMES_IN_NOTE else ""
        yield (
            f"the optimizer trains {len(names)} variables of layers that the checkpoint does not"
            f" hold ({some}{more}): tf.train.Checkpoint leaves out Keras 3 layers kept in a plain"
            " Python list or dict, so their other variables are lost"
        )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
