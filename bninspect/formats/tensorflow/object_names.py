"""Names for the variables of an object graph.

Variables form a layer if one object holds them as its attributes. Their keys do not show that:
Keras 3 stores gamma and beta of a layer under its optimizer. The name of an object is the scope of
its variables' full names (`bn1` of `bn1/gamma`), if no other object has that scope. In subclassed
models of Keras 3 all layers have the scope `net`; there the name is the path of attributes from the
root. No two objects with variables get the same name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from bninspect.errors import Incomplete
from bninspect.formats.tensorflow.object_graph import ROOT, ObjectGraph, Stored
from bninspect.formats.tensorflow.unowned_variables import name_listed, name_trained_only

_KEY_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = "/.OPTIMIZER_SLOT/"

# Attributes that Keras generates for layers: one for each layer in Keras 2, lists in Keras 3. The
# names of these layers are elsewhere.
_GENERATED = r"layer(_with_weights)?-\d+"
_GENERATED_LISTS = {"_operations", "_layers", "_functional"}


class ObjectNames(NamedTuple):
    """Names of variables and objects by an object graph.

    `known` maps keys of variables to names made of the owner's name and the attribute. `second`
    maps them to names with the last part of the full name, if that is another. The slots of
    optimizers have no names. `name_at` takes the path of attributes of an object
    (`["layer_with_weights-1"]`) and returns its name, or None. `configurations` maps layers, and ""
    for the whole model, to the keys of their configurations. `partial` has the layers that lack
    variables by the graph, `notes` are sentences on that; `incomplete` is the error for a missing
    graph.
    """

    known: dict[str, str]
    second: dict[str, str]
    name_at: Callable[[Sequence[str]], str | None]
    configurations: dict[str, str]
    partial: frozenset[str]
    notes: tuple[str, ...]
    incomplete: Incomplete | None = None


def name_objects(encoded: bytes, stored: Iterable[str]) -> ObjectNames:
    """Return the names by a serialized TrackableObjectGraph; `stored` are all keys.

    Raises ValueError if it cannot be parsed, refers to a missing object, or gives names that are
    longer than those of any real file.
    """
    graph = ObjectGraph(encoded)
    owners = _find_owners(graph)
    trained = name_trained_only(graph, owners)
    labels = _label_objects(graph, owners, trained.names)
    known, second = {}, {}
    for number, (owner, attribute) in owners.items():
        key, leaf = graph.variables[number].key, graph.variables[number].leaf
        # Objects without a path from the root have no label.
        label = labels.get(owner, graph.variables[number].scope)
        known[key] = graph.join(label, attribute)
        if leaf not in ("", attribute):
            second[key] = graph.join(label, leaf)
    listed = name_listed(graph, {*owners, *trained.names, *graph.slots}, {*labels.values()})
    for number, name in {**trained.names, **listed.names}.items():
        known[graph.variables[number].key] = name
    outside = [key for key in stored if key not in graph.keys]
    known |= name_by_keys(outside).known
    configurations = {
        labels[number]: key for number, key in graph.configurations.items() if number in labels
    }
    return ObjectNames(
        known,
        second,
        _finder(graph, labels),
        configurations,
        frozenset(name.rpartition("/")[0] for name in trained.names.values()),
        (*trained.notes, *listed.notes, *_note_on_keys_outside(outside)),
    )


def _note_on_keys_outside(keys: list[str]) -> Iterator[str]:
    if keys:
        yield (
            f"{len(keys)} variables are not in the object graph ({keys[0]}"
            f"{', ...' if len(keys) > 1 else ''}); their keys are shown as names"
        )


def name_by_keys(keys: Iterable[str]) -> ObjectNames:
    """Return the names by the keys alone, where there is no graph: paths of attributes."""
    known = {key: key.removesuffix(_KEY_SUFFIX) for key in keys if _SLOT not in key}
    note = "the object graph is missing, so the keys are shown as names"
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
    """Return the owner of each variable, and the attribute; lists are no owners.

    Of several objects, the owner is the one whose attribute is the variable's own name, else the
    one with most variables of its scope: `trainer.reg = bn.gamma` does not take gamma from `bn`.
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
        child: max(candidates, key=lambda holder: fits(graph.variables[child], holder))
        for child, candidates in holders.items()
    }


def _scopes(graph: ObjectGraph, owners: dict[int, tuple[int, str]]) -> dict[int, str]:
    """Return the scope of each object, if the full names of all its variables have the same."""
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
    graph: ObjectGraph, owners: dict[int, tuple[int, str]], trained_only: Iterable[int]
) -> dict[int, str]:
    """Return a name for each object: its scope if that is unique, else its path from the root."""
    scopes = _scopes(graph, owners)
    users = Counter(scopes.values())
    users.update({graph.variables[number].scope for number in trained_only})
    own = {number: scope for number, scope in scopes.items() if scope and users[scope] == 1}
    siblings = Counter(
        (graph.parents[n][0], scope) for n, scope in scopes.items() if n in graph.parents
    )
    holding = {owner for owner, _ in owners.values()}
    taken = set(own.values())
    labels: dict[int, str] = {}
    for number, (parent, attribute) in graph.parents.items():
        around = labels.get(parent, "")
        if number in own:
            labels[number] = own[number]
        elif number == ROOT or (attribute in _GENERATED_LISTS and number not in holding):
            labels[number] = around
        else:
            scope = scopes.get(number, "")
            in_list = graph.parents[parent][1] in _GENERATED_LISTS
            is_generated = in_list or re.fullmatch(_GENERATED, attribute)
            by_scope = is_generated and scope and siblings[parent, scope] == 1
            label = graph.join(around, scope if by_scope else attribute)
            if number in holding:
                if label in taken:
                    label = _distinct(graph, number, taken)
                taken.add(label)
            labels[number] = label
    return labels


def _distinct(graph: ObjectGraph, number: int, taken: set[str]) -> str:
    """Return the whole path to an object, with a number if another object has that name."""
    path: list[str] = []
    while number != ROOT:
        number, attribute = graph.parents[number]
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
