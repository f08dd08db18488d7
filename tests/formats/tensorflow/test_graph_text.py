"""Graphs in the text form: read as the parser of protocol buffers reads them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bninspect.errors import Corrupt
from bninspect.formats.tensorflow.graph_text import encode_text
from bninspect.formats.tensorflow.protos import declare
from tests.conftest import FIXTURES
from tests.support.work import work_of

(GraphDef,) = declare("GraphDef")
GRAPHS = sorted(
    str(path.relative_to(FIXTURES))
    for pattern in ("frozen_*/graph.pb*", "tf1_graph_text*/*.pbtxt", "saved_model_*/saved_model.pb")
    for path in FIXTURES.glob(pattern)
)


def encoded(text: str) -> Any:
    return GraphDef.FromString(encode_text("graph.pbtxt", text.encode(), "GraphDef"))


def names(text: str) -> list[bytes]:
    return [node.name for node in encoded(text).node]


@pytest.mark.framework
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_text_form_encodes_to_what_the_binary_form_has(graph: str) -> None:
    """Less the fields that are passed over, which TensorFlow then lacks in the result, too."""
    from google.protobuf import text_format
    from tensorflow.core.framework.graph_pb2 import GraphDef as TheirGraph
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = FIXTURES / graph
    is_saved_model = path.name.startswith("saved_model")
    theirs: Any = SavedModel() if is_saved_model else TheirGraph()
    if path.suffix == ".pb":
        theirs.ParseFromString(path.read_bytes())
    else:
        text_format.Parse(path.read_bytes(), theirs)
    text = text_format.MessageToString(theirs).encode()
    name = "SavedModel" if is_saved_model else "GraphDef"
    ours = type(theirs).FromString(encode_text(graph, text, name))
    pairs = zip(ours.meta_graphs, theirs.meta_graphs, strict=True) if is_saved_model else ()
    graphs = [(a.graph_def, b.graph_def) for a, b in pairs] or [(ours, theirs)]
    for one, other in graphs:
        assert_equal_nodes(one.node, other.node)
        functions = zip(one.library.function, other.library.function, strict=True)
        for function, expected in functions:
            assert function.signature.name == expected.signature.name
            assert function.ret == expected.ret
            assert_equal_nodes(function.node_def, expected.node_def)


def assert_equal_nodes(nodes: Any, expected: Any) -> None:
    assert [node.name for node in nodes] == [node.name for node in expected]
    for node, other in zip(nodes, expected, strict=True):
        assert (node.op, node.input, node.attr.keys()) == (other.op, other.input, other.attr.keys())
        for key in node.attr:
            value, wanted = node.attr[key], other.attr[key]
            assert value.tensor.SerializeToString() == wanted.tensor.SerializeToString()
            assert (value.f, value.b, value.func.name) == (wanted.f, wanted.b, wanted.func.name)


@pytest.mark.framework
def test_graphs_with_functions_and_gradients_of_tensorflow_are_read(tmp_path: Path) -> None:
    """Their text has fields that nothing here declares, such as experimental_full_type."""
    import tensorflow as tf
    from tensorflow.core.framework.full_type_pb2 import TFT_PRODUCT

    graph = tf.Graph()
    with graph.as_default():

        @tf.function
        def squared(x):
            return tf.cond(x > 0, lambda: x * x, lambda: -x)

        x = tf.compat.v1.placeholder(tf.float32, (), name="x")
        tf.gradients(squared(x), x)
    message = graph.as_graph_def()
    message.node[0].experimental_type.type_id = TFT_PRODUCT
    message.library.gradient.add(function_name="f", gradient_func="g")
    message.debug_info.files.append("train.py")
    tf.io.write_graph(message, str(tmp_path), "graph.pbtxt", as_text=True)
    text = (tmp_path / "graph.pbtxt").read_text(encoding="utf-8")
    assert "experimental_type" in text
    assert names(text) == [node.name.encode() for node in message.node]
    assert len(encoded(text).library.function) == len(message.library.function) > 0


@pytest.mark.parametrize(
    "text",
    [
        "node { name: 'a' }",
        "node: < name: 'a' >;",
        "node [{ name: 'a' }]",
        '# a comment\nnode{name:"a"},',
        "node { name: '\\141' } new_field { deep { er: 1e-7 list: [1, -2.5f, inf] } }",
        "node { name: '' \"a\" } [a.b/c.D] { x: 1 } [ext.field]: 3 library { gradient { f: 'x' } }",
        "node { name: '\\x61' 17: 5 unknown: - nan unknown: IDENTIFIER unknown: 0x1F }",
        "node { name: '\\u0061' attr { key: 'k' value { type: DT_OF_LATER_VERSIONS } } }",
    ],
)
def test_what_the_specification_allows_is_read(text: str) -> None:
    assert names(text) == [b"a"]


@pytest.mark.parametrize(
    "text",
    [
        "node { name: 'a'",
        "node { name: 'a' > ",
        "node { name: 'a",
        "node { name: 'a\n' }",
        "node { name: 1 }",
        "node { name }",
        "node: 'a'",
        "node { name { } }",
        "node { unknown: }",
        "node { unknown: [1 2] }",
        "node { name: '\\q' }",
        "node { name: '\\777' }",
        "node { name: '\\ud800' }",
        "node { attr { value { f: one } } }",
        "node { attr { value { b: maybe } } }",
        "node { attr { value { tensor { int_val: 1.5 } } } }",
        "node { attr { value { tensor { int64_val: 99999999999999999999 } } } }",
        "}",
        "node { } $",
        "node " + "{ x " * 200,
    ],
)
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(Corrupt, match="damaged"):
        encoded(text)


def test_numbers_are_those_of_the_text() -> None:
    values = (
        "f: 1.5 } } attr { value { f: -inf } } attr { value { b: true } } attr { value { f: 2e38f"
    )
    nodes = encoded(f"node {{ attr {{ value {{ {values} }} }} }}").node
    (pair, value) = declare("AttributePair", "AttributeValue")
    decoded = [value.FromString(pair.FromString(data).value) for data in nodes[0].attr]
    assert [one.f for one in decoded] == [1.5, float("-inf"), 0.0, pytest.approx(2e38)]
    assert decoded[2].b


@pytest.mark.parametrize("unit", ["x { } ", "x: 1 ", "# comment\n", "x: '\\000\\000' ", "x: [1] "])
def test_the_work_grows_with_the_size(unit: str) -> None:
    less, more = (work_of(lambda count=count: encoded(unit * count)) for count in (500, 2000))
    assert more < less * 4.2


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.data())
def test_flipped_and_cut_text_is_read_or_refused(data) -> None:
    text = bytearray((FIXTURES / "tf1_graph_text" / "graph.pbtxt").read_bytes()[:6000])
    for _ in range(data.draw(st.integers(1, 4), "changes")):
        place = data.draw(st.integers(0, len(text) - 1), "place")
        text[place] = data.draw(st.integers(0, 255), "byte")
    with suppress(Corrupt):
        encode_text(
            "graph.pbtxt", bytes(text[: data.draw(st.integers(1, 6000), "end")]), "GraphDef"
        )
