"""From an object graph to the names that people know its variables by.

Variables belong together if one object holds them as its attributes. Keys do not tell that: Keras 3
stores gamma and beta of a layer under its optimizer. An object goes by the scope of its variables'
full names (`bn1` of `bn1/gamma`) where that is its alone. In Keras 3 subclassed models every layer
says `net/gamma`; then the attributes on the way from the root say which is which. No two objects
that hold variables get the same name, so none hides another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from bninspect.errors import Incomplete
from bninspect.formats.tensorflow.object_graph import ROOT, ObjectGraph, Stored
from bninspect.formats.tensorflow.unowned_variables import name_listed, name_lost

_KEY_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = "/.OPTIMIZER_SLOT/"

# The attributes that Keras makes up for layers whose real names are elsewhere: one a layer in
# Keras 2, lists in Keras 3.
_MADE_UP = r"layer(_with_weights)?-\d+"
_MADE_UP_LISTS = {"_operations", "_layers", "_functional"}


class ObjectNames(NamedTuple):
    """What the graph says of names.

    `known` maps the keys of variables to names, of the holder and the attribute; `second` to names
    with the last part of the full name, where that is another (an optimizer's slots have neither).
    `name_at` takes an object's path of attributes (`["layer_with_weights-1"]`) and gives its name,
    or None if there is none. `configurations` maps layers, "" for the whole, to the keys of their
    stored configurations. `partial` names layers of which the graph shows that more should be
    there, `notes` are sentences on that; `incomplete` is why there is no graph.
    """

    known: dict[str, str]
    second: dict[str, str]
    name_at: Callable[[Sequence[str]], str | None]
    configurations: dict[str, str]
    partial: frozenset[str]
    notes: tuple[str, ...]
    incomplete: Incomplete | None = None


def name_objects(encoded: bytes, stored: Iterable[str]) -> ObjectNames:
    """The names in a serialized TrackableObjectGraph; `stored` are all keys of the checkpoint.

    Raises ValueError if it cannot be parsed, refers to objects it does not have, or spells names
    that are longer than any file's.
    """
    graph = ObjectGraph(encoded)
    owners = _find_owners(graph)
    lost = name_lost(graph, owners)
    labels = _label_objects(graph, owners, lost.names)
    known, second = {}, {}
    for number, (owner, attribute) in owners.items():
        key, leaf = graph.variables[number].key, graph.variables[number].leaf
        # What the root does not lead to has no label of its own.
        label = labels.get(owner, graph.variables[number].scope)
        known[key] = graph.join(label, attribute)
        if leaf not in ("", attribute):
            second[key] = graph.join(label, leaf)
    listed = name_listed(graph, {*owners, *lost.names, *graph.slots}, {*labels.values()})
    for number, name in {**lost.names, **listed.names}.items():
        known[graph.variables[number].key] = name
    strangers = [key for key in stored if key not in graph.keys]
    known |= name_by_keys(strangers).known
    configurations = {
        labels[number]: key for number, key in graph.configurations.items() if number in labels
    }
    return ObjectNames(
        known,
        second,
        _finder(graph, labels),
        configurations,
        frozenset(name.rpartition("/")[0] for name in lost.names.values()),
        (*lost.notes, *listed.notes, *_note_on_strangers(strangers)),
    )


def _note_on_strangers(keys: list[str]) -> Iterator[str]:
    if keys:
        yield (
            f"{len(keys)} variables are of no object of the graph ({keys[0]}"
            f"{', ...' if len(keys) > 1 else ''}); they go by their keys"
        )


def name_by_keys(keys: Iterable[str]) -> ObjectNames:
    """What the keys alone tell, where the graph is not there: paths of attributes for names."""
    known = {key: key.removesuffix(_KEY_SUFFIX) for key in keys if _SLOT not in key}
    note = "the object graph is missing, so layers go by their keys"
    return ObjectNames(known, {}, lambda _: None, {}, frozenset(), (note,))


def _finder(graph: ObjectGraph, labels: dict[int, str]) -> Callable[[Sequence[str]], str | None]:
    held: dict[int, dict[str, int]] = {}

    def name_at(path: Sequence[str]) -> str | None:
        if not graph.children:
            return None  # the graph is empty, so there is no root either
        number = ROOT
        for attribute in path:
            if number not in held:
                held[number] = {name: child for child, name in graph.children[number]}
            if attribute not in held[number]:
                return None
            number = held[number][attribute]
        return labels.get(number)

    return name_at


def _find_owners(graph: ObjectGraph) -> dict[int, tuple[int, str]]:
    """Which object holds each variable, and under what attribute; a list holds none.

    Of several that one whose attribute is the variable's own name, else the one with most
    variables of its scope: `trainer.reg = bn.gamma` does not take gamma from its layer.
    """
    holders: dict[int, list[tuple[int, str]]] = {}
    of_scope: Counter[tuple[int, str]] = Counter()
    for number, children in enumerate(graph.children):
        for child, attribute in children:
            if child in graph.variables and not attribute.isdecimal():
                holders.setdefault(child, []).append((number, attribute))
                of_scope[number, graph.variables[child].scope] += 1

    def fits(variable: Stored, holder: tuple[int, str]) -> tuple[bool, int]:
        number, attribute = holder
        return attribute.lstrip("_") == variable.leaf, of_scope[number, variable.scope]

    return {
        child: max(found, key=lambda holder: fits(graph.variables[child], holder))
        for child, found in holders.items()
    }


def _scopes(graph: ObjectGraph, owners: dict[int, tuple[int, str]]) -> dict[int, str]:
    """The scope of each object that all its variables' full names agree on."""
    held: dict[int, list[Stored]] = {}
    for number, (owner, _) in owners.items():
        held.setdefault(owner, []).append(graph.variables[number])
    return {
        owner: variables[0].scope
        for owner, variables in held.items()
        if len({variable.scope for variable in variables}) == 1
        and len({variable.full_name for variable in variables}) == len(variables)
    }


def _label_objects(
    graph: ObjectGraph, owners: dict[int, tuple[int, str]], lost: Iterable[int]
) -> dict[int, str]:
    """A name for each object: its scope if that is its alone, else its way from the root."""
    scopes = _scopes(graph, owners)
    users = Counter(scopes.values())
    users.update({graph.variables[number].scope for number in lost})
    own = {number: scope for number, scope in scopes.items() if scope and users[scope] == 1}
    beside = Counter((graph.ways[n][0], scope) for n, scope in scopes.items() if n in graph.ways)
    holding = {owner for owner, _ in owners.values()}
    taken = set(own.values())
    labels: dict[int, str] = {}
    for number, (before, attribute) in graph.ways.items():
        around = labels.get(before, "")
        if number in own:
            labels[number] = own[number]
        elif number == ROOT or (attribute in _MADE_UP_LISTS and number not in holding):
            labels[number] = around
        else:
            scope = scopes.get(number, "")
            made_up = graph.ways[before][1] in _MADE_UP_LISTS or re.fullmatch(_MADE_UP, attribute)
            by_scope = made_up and scope and beside[before, scope] == 1
            label = graph.join(around, scope if by_scope else attribute)
            if number in holding:
                if label in taken:
                    label = _distinct(graph, number, taken)
                taken.add(label)
            labels[number] = label
    return labels


def _distinct(graph: ObjectGraph, number: int, taken: set[str]) -> str:
    """The whole path to an object, with a number if even that is another's name."""
    path: list[str] = []
    while number != ROOT:
        number, attribute = graph.ways[number]
        path.append(attribute)
    whole = ""
    for attribute in reversed(path):
        whole = graph.join(whole, attribute)
    label = whole
    count = 1
    while label in taken:
        count += 1
        label = graph.join("", f"{whole}#{count}")
    return label
