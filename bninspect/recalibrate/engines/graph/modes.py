"""Modes of a graph: the values of its boolean placeholders and variables at inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

from bninspect.evidence.graph.operations import PLACEHOLDERS, VARIABLES
from bninspect.recalibrate.engines.graph.branches import Predicates, Scalar, predicates_of
from bninspect.recalibrate.engines.graph.nodes import Nodes

_BOOL = 10  # DT_BOOL of tensorflow/core/framework/types.proto
_MOST_TOGETHER = 3  # modes of which all combinations are tried


def inference_modes(
    nodes: Nodes,
    known: Mapping[str, Scalar],
    score: Callable[[Mapping[str, Scalar]], tuple[int, int]],
) -> dict[str, Scalar]:
    """Return the values of those modes that decide how the graph normalizes, as at inference.

    `score` rates a choice: how many layers take their stored statistics, and how few random numbers
    are drawn. A mode that does not change the best score is left out.
    """
    modes = _modes(nodes, known)
    if not modes:
        return {}
    choices = [dict(zip(modes, values, strict=True)) for values in _combinations(len(modes))]
    scores = [score({**known, **choice}) for choice in choices]
    best = [choice for choice, rating in zip(choices, scores, strict=True) if rating == max(scores)]
    return {
        mode: best[0][mode]
        for mode in modes
        if all(choice[mode] == best[0][mode] for choice in best)
    }


def _modes(nodes: Nodes, known: Mapping[str, Scalar]) -> list[str]:
    """Return the boolean placeholders and variables that predicates read and that are not known."""
    predicates = Predicates(nodes, known)
    sources = {name for predicate in predicates_of(nodes) for name in predicates.reads(predicate)}
    return [
        name
        for name in sorted(sources)
        if name not in known
        and (nodes[name].op in PLACEHOLDERS or nodes[name].op in VARIABLES)
        and nodes[name].attr["dtype"].type == _BOOL
    ]


def _combinations(number: int) -> Sequence[tuple[bool, ...]]:
    if number <= _MOST_TOGETHER:
        return list(product((False, True), repeat=number))
    return [(False,) * number, (True,) * number]
