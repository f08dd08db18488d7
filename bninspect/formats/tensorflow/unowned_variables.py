"""Variables of an object graph that no object holds as an attribute: what they are called.

There are two kinds. Keras 3's optimizers list what they train, and tf.train.Checkpoint does not
store Keras 3 layers that a model keeps in a plain Python list: of those the optimizer's list is all
that is left. And Keras's `model.export` stores variables in lists alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bninspect.formats.tensorflow.object_graph import ROOT, TRAINED, ObjectGraph
from bninspect.wording import listed

_MAX_NAMES_IN_NOTE = 3
_MAX_SLOT_LISTS = 8  # lists of slots that are asked: Adam has two, no optimizer more than four


class Named(NamedTuple):
    """Names of variables by their number in the graph, and sentences on them."""

    names: dict[int, str]
    notes: tuple[str, ...]


def name_lost(graph: ObjectGraph, owners: dict[int, tuple[int, str]]) -> Named:
    """Variables that an optimizer trains and nothing else holds, though it trains others that are.

    (An optimizer all of whose variables are elsewhere trains a model that was not stored, on
    purpose.) Their slots tell whose they are: Keras 3 calls that of `net/bn/gamma`
    `adam/net_bn_gamma_momentum`, so the layer's name is there even where the variable itself is
    called `net/gamma` (keras/src/optimizers/base_optimizer.py).
    """
    names: dict[int, str] = {}
    for optimizer, trained in _trained_lists(graph):
        members = [number for number, _ in graph.children[trained] if number in graph.variables]
        held = {owners[number][0] for number in members if number in owners}
        if held <= {ROOT, *graph.optimizers}:
            continue
        slots = _slot_lists(graph, optimizer, trained)
        for place, (number, _) in enumerate(graph.children[trained]):
            loose = number in graph.variables and number not in owners and number not in names
            if loose and number not in graph.slots:
                variable = graph.variables[number]
                scope = _scope_in_slots(graph, [held[place] for held in slots], variable.leaf)
                names[number] = graph.join(scope, variable.leaf) if scope else variable.full_name
    return Named(names, tuple(_note_on_lost([*names.values()])))


def _trained_lists(graph: ObjectGraph) -> Iterator[tuple[int, int]]:
    """(optimizer, list) for each list of what an optimizer trains, each list once."""
    seen: set[int] = set()
    for optimizer in sorted(graph.optimizers):
        for child, name in graph.children[optimizer]:
            if name == TRAINED and child not in seen:
                seen.add(child)
                yield optimizer, child


def _slot_lists(graph: ObjectGraph, optimizer: int, trained: int) -> list[list[int]]:
    """The lists of an optimizer that are as long as that of what it trains: a slot for each."""
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


def _note_on_lost(names: list[str]) -> Iterator[str]:
    if names:
        yield (
            f"an optimizer trains {len(names)} variables of layers that the checkpoint does not"
            f" hold ({listed(names, _MAX_NAMES_IN_NOTE)}), so their other variables are"
            " lost; this happens, for example, to Keras 3 layers in a plain Python list or dict:"
            " make them attributes, or save with model.save_weights"
        )


def name_listed(graph: ObjectGraph, named: set[int], taken: set[str]) -> Named:
    """What only lists hold, by full names; `named` is what has a name, `taken` are others' scopes.

    A second list of copies adds nothing: those keep their keys.
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
                if any(len(numbers) > 1 for numbers in leaves.values()):
                    notes.append(
                        f"several layers are called {scope or 'nothing'} in this file: they are"
                        " numbered in its order, and what not all of them have is left out"
                    )
    return Named(names, tuple(dict.fromkeys(notes)))


def _by_scope(graph: ObjectGraph, listed: list[int]) -> dict[str, dict[str, list[int]]]:
    """Scope → last part of the name → variables, in the list's order, each once."""
    found: dict[str, dict[str, list[int]]] = {}
    for number in dict.fromkeys(listed):
        variable = graph.variables[number]
        found.setdefault(variable.scope, {}).setdefault(variable.leaf, []).append(number)
    return found


def _name_scope(
    graph: ObjectGraph, scope: str, leaves: dict[str, list[int]], taken: set[str]
) -> dict[int, str]:
    """Names for the variables of one scope, which may be several layers'.

    The first gamma belongs to the first moving_mean if there are as many of both, whatever the
    order of the list: layer by layer (Keras 3) or all that is trainable first (Keras 2). What there
    is another number of cannot be told to belong to any, and gets a scope of its own.
    """
    names = {}
    for leaf, numbers in leaves.items():
        several = len(numbers) > 1 or scope in taken
        for index, number in enumerate(numbers, 1):
            label = f"{scope}#{index}of{len(numbers)}" if several else scope
            names[number] = graph.join(label, leaf)
    return names
