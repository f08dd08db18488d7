"""Names for the variables of an object graph that no object holds as an attribute.

There are two kinds. tf.train.Checkpoint does not store the layers of a Keras 3 model that are in a
plain Python list: of these only the list of variables that the optimizer trains is stored. And
Keras's `model.export` stores variables in lists only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bninspect.batchnorm.families import FAMILIES
from bninspect.formats.tensorflow.object_graph import ROOT, TRAINED, ObjectGraph
from bninspect.wording import listed

_MAX_NAMES_IN_NOTE = 3
_OF_BN = {"gamma", "beta"}.union(*(one for family in FAMILIES for one in family.statistics))
_MAX_SLOT_LISTS = 8  # Adam has two lists of slots, no optimizer more than four


class Named(NamedTuple):
    """Names of variables by their numbers in the object graph, and sentences on them."""

    names: dict[int, str]
    notes: tuple[str, ...]


def name_trained_only(graph: ObjectGraph, owners: dict[int, tuple[int, str]]) -> Named:
    """Return names for variables that are only in an optimizer's list of those it trains.

    Optimizers are passed over if none of their variables has an owner: their model was left out on
    purpose. The names of slots show the layer: Keras 3 calls the slot of `net/bn/gamma`
    `adam/net_bn_gamma_momentum`, even if the variable itself is called `net/gamma`
    (keras/src/optimizers/base_optimizer.py).
    """
    names: dict[int, str] = {}
    for optimizer, trained in _trained_lists(graph):
        members = [number for number, _ in graph.children[trained] if number in graph.variables]
        held = {owners[number][0] for number in members if number in owners}
        if held <= {ROOT, *graph.optimizers}:
            continue
        slots = _slot_lists(graph, optimizer, trained)
        for index, (number, _) in enumerate(graph.children[trained]):
            unowned = number in graph.variables and number not in owners and number not in names
            if unowned and number not in graph.slots:
                variable = graph.variables[number]
                scope = _scope_in_slots(graph, [held[index] for held in slots], variable.leaf)
                names[number] = graph.join(scope, variable.leaf) if scope else variable.full_name
    return Named(names, tuple(_note_on_trained_only([*names.values()])))


def _trained_lists(graph: ObjectGraph) -> Iterator[tuple[int, int]]:
    """Yield (optimizer, list) for each list of trained variables, each list once."""
    seen: set[int] = set()
    for optimizer in sorted(graph.optimizers):
        for child, name in graph.children[optimizer]:
            if name == TRAINED and child not in seen:
                seen.add(child)
                yield optimizer, child


def _slot_lists(graph: ObjectGraph, optimizer: int, trained: int) -> list[list[int]]:
    """Return the lists of slots: those as long as the list of trained variables."""
    length = len(graph.children[trained])
    lists = {
        child
        for child, name in graph.children[optimizer]
        if name != TRAINED and len(graph.children[child]) == length
    }
    chosen = sorted(lists)[:_MAX_SLOT_LISTS]
    return [[number for number, _ in graph.children[child]] for child in chosen]


def _scope_in_slots(graph: ObjectGraph, slots: list[int], leaf: str) -> str | None:
    for number in slots:
        if number in graph.variables:
            scope, _, _ = graph.variables[number].leaf.rpartition(f"_{leaf}_")
            if scope:
                return scope
    return None


def _note_on_trained_only(names: list[str]) -> Iterator[str]:
    if names:
        yield (
            f"an optimizer trains {len(names)} variables of layers that the checkpoint does not"
            f" hold ({listed(names, _MAX_NAMES_IN_NOTE)}), so their other variables are"
            " lost; this happens, for example, to Keras 3 layers in a plain Python list or dict:"
            " make them attributes, or save with model.save_weights"
        )


def name_listed(graph: ObjectGraph, named: set[int], taken: set[str]) -> Named:
    """Return names for variables that only lists hold, made of their full names.

    `named` are the variables with names, `taken` the scopes of other layers. Variables of a second
    list of copies keep their keys as names.
    """
    names: dict[int, str] = {}
    notes: list[str] = []
    seen: set[str] = set()
    for children in graph.children:
        listed = [n for n, _ in children if n in graph.variables and n not in named]
        full_names = {graph.variables[number].full_name for number in listed}
        if not full_names <= seen:
            seen |= full_names
            named.update(listed)
            for scope, leaves in _by_scope(graph, listed).items():
                names |= _name_scope(graph, scope, leaves, taken)
                if any(len(leaves[leaf]) > 1 for leaf in leaves.keys() & _OF_BN):
                    name = f"the name {scope}" if scope else "no name"
                    notes.append(
                        f"several layers have {name} in this file: they are numbered in its order,"
                        " without the variables that only some of them have"
                    )
    return Named(names, tuple(dict.fromkeys(notes)))


def _by_scope(graph: ObjectGraph, listed: list[int]) -> dict[str, dict[str, list[int]]]:
    """Return scope → last part of the name → variables, in the order of the list, each once."""
    scopes: dict[str, dict[str, list[int]]] = {}
    for number in dict.fromkeys(listed):
        variable = graph.variables[number]
        scopes.setdefault(variable.scope, {}).setdefault(variable.leaf, []).append(number)
    return scopes


def _name_scope(
    graph: ObjectGraph, scope: str, leaves: dict[str, list[int]], taken: set[str]
) -> dict[int, str]:
    """Return names for the variables of one scope, which several layers may share.

    If there are as many gammas as moving_means, the first belongs to the first, whether the list
    has layer after layer (Keras 3) or all trainable variables first (Keras 2). If the numbers
    differ, each kind gets scopes of its own.
    """
    names = {}
    for leaf, numbers in leaves.items():
        several = len(numbers) > 1 or scope in taken
        for index, number in enumerate(numbers, 1):
            label = f"{scope}#{index}of{len(numbers)}" if several else scope
            names[number] = graph.join(label, leaf)
    return names
