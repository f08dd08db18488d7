"""Graphs that no library would write: searched within bounds, or given up with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bninspect
from bninspect.errors import ReadProblem
from bninspect.evidence.structure import dataflow
from bninspect.evidence.structure.layers import layers_by_structure
from bninspect.formats.tensorflow.graph_def import read_graphs
from bninspect.model.graph import ARGUMENT, Constant, Function, Graph
from tests.conftest import FIXTURES, Run
from tests.support.layers_in_memory import checkpoint
from tests.support.work import LINEAR, growth

OPERATIONS = [
    *(
        "VariableV2",
        "VarHandleOp",
        "Const",
        "Placeholder",
        "Identity",
        "ReadVariableOp",
        "IdentityN",
    ),
    *("Switch", "Merge", "Select", "Enter", "NextIteration", "Reshape", "StopGradient", "ConcatV2"),
    *("If", "While", "PartitionedCall", "f", "g", "FusedBatchNormV3", "SaveV2"),
    *("Rsqrt", "Sqrt", "Pow", "Add", "Sub", "Mul", "RealDiv", "Neg", "Reciprocal", "Mean"),
    *("Assign", "AssignSub", "AssignVariableOp", "AssignSubVariableOp"),
]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any edges, circles among them, and two functions that may call each other."""
    size = draw(st.integers(1, 40))
    operations = [draw(st.sampled_from(OPERATIONS)) for _ in range(size)]
    nodes = st.integers(-1, size - 1)
    inputs = [tuple(draw(st.lists(nodes, max_size=5))) for _ in range(size)]
    functions = {}
    for name in "fg":
        places = draw(st.lists(st.integers(0, size - 1), max_size=3, unique=True))
        for place in places:
            operations[place] = ARGUMENT
        outputs = draw(st.lists(st.tuples(nodes, st.integers(0, 2)), max_size=3))
        own = draw(st.lists(st.integers(0, size - 1), max_size=size, unique=True))
        functions[name] = Function(places, own, [node for node, _ in outputs if node >= 0], outputs)
    called = draw(st.lists(st.sampled_from(["f", "g"]), max_size=2))
    constants = st.sampled_from([0.001, 1.0, -0.5, 0.5, 0, "v1"])
    elements = [draw(constants) for _ in range(size)]
    return Graph(
        path="drawn",
        names=[f"v{node}" for node in range(size)],
        operations=operations,
        inputs=inputs,
        controls=[()] * size,
        functions=functions,
        collections={},
        attribute=lambda node, name: (
            tuple(called) if name in ("f", "then_branch", "body") else elements[node]
        ),
        constant=lambda node: Constant((), (elements[node],)),
        output=lambda node, place: (node + place) % 3,
    )


@given(graphs())
def test_any_graph_is_searched(graph: Graph) -> None:
    variables = checkpoint([f"v{node}" for node in range(40)])
    for layer in layers_by_structure(variables, [graph]):
        assert {"moving_mean", "moving_variance"} <= set(layer.graph_names)


def normalizations(count: int, length: int) -> Graph:
    """So many square roots behind one chain of additions, each with a product of its own."""
    operations, inputs = ["VariableV2", "Placeholder"], [(), ()]

    def add(operation: str, *taken: int) -> int:
        operations.append(operation)
        inputs.append(taken)
        return len(operations) - 1

    last = 0
    for _ in range(length):
        last = add("Identity", last)
    for _ in range(count):
        root = add("Rsqrt", last)
        add("Mul", add("Sub", 1, last), root)
    size = len(operations)
    return Graph(
        "drawn",
        [f"v{node}" for node in range(size)],
        operations,
        inputs,
        [()] * size,
        {},
        {},
        lambda _, __: None,
    )


def test_the_cost_of_a_search_grows_with_the_graph() -> None:
    def searching(size: int) -> Callable[[], object]:
        graph = normalizations(size, length=5)
        return lambda: layers_by_structure(checkpoint(["v0"]), [graph])

    assert growth(searching, 100) < LINEAR


def test_a_graph_that_takes_too_many_steps_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "_STEPS", 1000)
    monkeypatch.setattr(dataflow, "_STEPS_OF_NODE", 10)
    layers_by_structure(checkpoint(["v0"]), [normalizations(100, length=1)])
    with pytest.raises(ReadProblem, match="drawn: searching it for BN layers takes too long"):
        layers_by_structure(checkpoint(["v0"]), [normalizations(100, length=300)])


def test_a_graph_that_is_given_up_is_a_note(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "_STEPS", 10)
    monkeypatch.setattr(dataflow, "_STEPS_OF_NODE", 0)
    outcome = run("check", FIXTURES / "tf1_graph_own_names" / "model.ckpt-60")
    assert "searching it for BN layers takes too long" in outcome.said
    assert outcome.exit_code == 3


GRAPH = FIXTURES / "tf1_graph_cond_v2_correct" / "model.ckpt-60"


@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_graphs_are_searched_or_refused(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    meta = bytearray(Path(f"{GRAPH}.meta").read_bytes())
    for place, byte in flips:
        meta[place % len(meta)] = byte
    path = tmp_path_factory.getbasetemp() / "flipped.meta"
    path.write_bytes(meta)
    with bninspect.open_checkpoint(GRAPH) as opened:
        try:
            layers_by_structure(opened, read_graphs(str(path)))
        except ReadProblem as problem:
            assert problem.path == str(path)  # noqa: PT017 - or it was searched
