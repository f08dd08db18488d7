"""Layers by structure alone: in every fixture with a graph, with all names replaced by others."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

import bninspect
from bninspect.batchnorm.find_layers import find_layers
from bninspect.evidence.structure.layers import layers_by_structure
from bninspect.formats.tensorflow.graph_def import read_graphs
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.graph import Constant, Graph
from bninspect.model.layer import BNLayer
from tests.conftest import FIXTURES

GRAPHS = sorted([*FIXTURES.glob("*/*.meta"), *FIXTURES.glob("*/saved_model.pb")])
# A model that was saved without being called: its graph holds the saving of variables alone.
NOTHING_COMPUTED = {"saved_model_keras2_nested_frozen"}
# Keras 3 exports a copy of each variable, and computes with the copies.
COPIED = {"saved_model_keras3_export"}


def test_there_are_fixtures_with_graphs() -> None:
    assert len(GRAPHS) > 80


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_layer_is_found_without_names_and_no_other(path: Path) -> None:
    is_saved_model = path.suffix == ".pb"
    graphs = read_graphs(str(path), saved_model=is_saved_model)
    prefix = path.parent if is_saved_model else path.with_suffix("")
    with bninspect.open_checkpoint(prefix) as checkpoint:
        by_names = find_layers(checkpoint)
        rename = renaming(checkpoint, graphs)
        by_graph = layers_by_structure(
            renamed_checkpoint(checkpoint, rename), [renamed_graph(one, rename) for one in graphs]
        )
        if path.parent.name in COPIED:
            found, expected = sorted(map(values, by_graph)), sorted(map(values, by_names))
        else:
            found = sorted(map(names, by_graph))
            expected = sorted(names(layer, rename) for layer in by_names)
    assert expected
    assert found == ([] if path.parent.name in NOTHING_COMPUTED else expected)


def names(layer: BNLayer, rename: Callable[[str], str] = str) -> list[tuple[str, str]]:
    return sorted((role, rename(variable.name)) for role, variable in layer.variables.items())


def values(layer: BNLayer) -> list[tuple[str, list[float]]]:
    return sorted((role, variable.read().tolist()) for role, variable in layer.variables.items())


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
