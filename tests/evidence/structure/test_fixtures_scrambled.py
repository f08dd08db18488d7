"""Layers by structure alone: in every fixture with a graph, with all names replaced by others."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bninspect
from bninspect.evidence.structure.layers import layers_by_structure
from bninspect.formats.tensorflow.graph_def import read_graphs
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.graph import Constant, Graph
from tests.conftest import FIXTURES, load_fixture

# A model that was saved without being called: its graph holds the saving of variables alone.
NOTHING_COMPUTED = {"saved_model_keras2_nested_frozen"}
NO_BN = {"tf1_graph_lookalikes"}
# Keras 3 exports a copy of each variable, and computes with the copies.
COPIED = {"saved_model_keras3_export"}
# Its weights are constants of the graph: formats.tensorflow.frozen_graph finds its layers.
FROZEN = {"saved_model_tf1_constants"}
GRAPHS = sorted(
    path
    for pattern in ("*/*.meta", "*/saved_model.pb")
    for path in FIXTURES.glob(pattern)
    if path.parent.name not in FROZEN
)


def test_there_are_fixtures_with_graphs() -> None:
    assert len(GRAPHS) > 80


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_layer_is_found_without_names_and_no_other(path: Path) -> None:
    is_saved_model = path.suffix == ".pb"
    graphs = read_graphs(str(path), saved_model=is_saved_model)
    with bninspect.open_checkpoint(path.parent if is_saved_model else path.with_suffix("")) as it:
        rename = renaming(it, graphs)
        layers = layers_by_structure(
            renamed_checkpoint(it, rename), [renamed_graph(graph, rename) for graph in graphs]
        )
        found = [
            {role: variable.name for role, variable in layer.variables.items()} for layer in layers
        ]
        stored = [layer["stored"] for layer in load_fixture(path.parent.name).expected["layers"]]
        expected = [{role: rename(name) for role, name in one.items() if name} for one in stored]
        if path.parent.name in COPIED:
            values = {
                rename(name): value.read().tolist()
                for name, value in it.variables.items()
                if value.shape
            }
            found, expected = (
                [{r: values[n] for r, n in one.items()} for one in some]
                for some in (found, expected)
            )
    assert bool(expected) != (path.parent.name in NO_BN)
    if path.parent.name in NOTHING_COMPUTED:
        expected = []
    assert sorted(map(in_order, found)) == sorted(map(in_order, expected))


def in_order(members: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(members.items())


def renaming(checkpoint: Checkpoint, graphs: tuple[Graph, ...]) -> Callable[[str], str]:
    """Return a function that gives each name another one, always the same."""
    names = sorted({*checkpoint.variables, *(name for graph in graphs for name in graph.names)})
    numbers = list(range(len(names)))
    random.Random(7).shuffle(numbers)  # noqa: S311
    new = {name: f"v{number}" for name, number in zip(names, numbers, strict=True)}
    return lambda name: new.get(name, name)


def renamed_checkpoint(checkpoint: Checkpoint, rename: Callable[[str], str]) -> Checkpoint:
    variables: dict[str, Variable] = {
        rename(name): variable._replace(name=rename(name))
        for name, variable in checkpoint.variables.items()
    }
    return Checkpoint("scrambled", "scrambled", checkpoint.format, variables)


def renamed_graph(graph: Graph, rename: Callable[[str], str]) -> Graph:
    def constant(node: int) -> Constant | None:
        found = graph.constant(node)
        if found is None:
            return None
        elements = tuple(rename(one) if isinstance(one, str) else one for one in found.elements)
        return Constant(found.shape, elements)

    return graph._replace(names=[rename(name) for name in graph.names], constant=constant)
