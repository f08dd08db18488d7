"""Frozen graphs: constants in every form that TensorFlow stores, large and damaged files."""

from __future__ import annotations

import resource
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bninspect
from bninspect.errors import ReadProblem
from bninspect.formats.tensorflow.protos import declare
from tests.conftest import FIXTURES, Run
from tests.support.table_writer import bytes_field, number_field, varint
from tests.support.work import work_of

FLOAT, DOUBLE, HALF, BFLOAT16 = 1, 2, 19, 14
ONE = bytes_field(5, struct.pack("<f", 1))  # float_val: it stands for every element
ROLES = ("gamma", "beta", "moving_mean", "moving_variance")
STEMS = ("frozen_tf1_correct", "frozen_tf1_stuck", "frozen_keras2_stuck")
ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, max_examples=150)


def attribute(name: bytes, value: bytes) -> bytes:
    return bytes_field(5, bytes_field(1, name) + bytes_field(2, value))


def node(name: str, op: str, *inputs: str, attributes: bytes = b"") -> bytes:
    """A NodeDef as a field of a GraphDef."""
    taken = b"".join(bytes_field(3, one.encode()) for one in inputs)
    return bytes_field(
        1, bytes_field(1, name.encode()) + bytes_field(2, op.encode()) + taken + attributes
    )


def tensor(dtype: int, shape: tuple[int, ...], values: bytes) -> bytes:
    """A TensorProto; `values` are its fields with elements."""
    sizes = b"".join(bytes_field(2, number_field(1, size)) for size in shape)
    return number_field(1, dtype) + bytes_field(2, sizes) + values


def constant(name: str, dtype: int, shape: tuple[int, ...], values: bytes) -> bytes:
    value = bytes_field(8, tensor(dtype, shape, values))
    return node(name, "Const", attributes=attribute(b"value", value))


def content(values: object, dtype: str = "<f4") -> bytes:
    return bytes_field(4, np.asarray(values, dtype).tobytes())


INFERENCE = attribute(b"is_training", number_field(5, 0, even_zero=True))
TRAINING = attribute(b"is_training", number_field(5, 1))


def batch_norm(**constants: bytes) -> bytes:
    """A GraphDef of one fused kernel; constants that are not given have four channels."""
    usual = {
        role: constant(f"bn/{role}", FLOAT, (4,), content([0.5, 1.5, 2.5, 3.5])) for role in ROLES
    }
    epsilon = attribute(b"epsilon", b"\x25" + struct.pack("<f", 0.01))
    kernel = node(
        "bn/FusedBatchNorm",
        "FusedBatchNorm",
        "x",
        *(f"bn/{role}" for role in ROLES),
        attributes=epsilon + INFERENCE,
    )
    return node("x", "Placeholder") + b"".join({**usual, **constants}.values()) + kernel


@pytest.fixture
def write(tmp_path: Path):
    def write(data: bytes, name: str = "graph.pb") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def layer_of(path: Path):
    (layer,) = bninspect.check(path).checkpoints[0].layers
    return layer


def mean_of(path: Path) -> list[float]:
    with bninspect.open_checkpoint(str(path)) as checkpoint:
        return checkpoint.variables["bn/moving_mean"].read().tolist()


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (FLOAT, content([1, 2, 3, 4]), [1, 2, 3, 4]),
        (FLOAT, bytes_field(5, struct.pack("<2f", 1, 7)), [1, 7, 7, 7]),  # the last one repeated
        (FLOAT, b"\x2d" + struct.pack("<f", 3), [3, 3, 3, 3]),  # not packed
        (FLOAT, b"", [0, 0, 0, 0]),
        (DOUBLE, content([1, 2, 3, 4], "<f8"), [1, 2, 3, 4]),
        (DOUBLE, bytes_field(6, struct.pack("<d", 1.5)), [1.5] * 4),
        (HALF, content([1, 2, 3, 4], "<f2"), [1, 2, 3, 4]),
        (HALF, number_field(13, int(np.float16(1.5).view(np.uint16))), [1.5] * 4),
        (BFLOAT16, number_field(13, 0x3FC0), [1.5] * 4),
        (BFLOAT16, content([0x3F80, 0x4000, 0x4040, 0x4080], "<u2"), [1, 2, 3, 4]),
    ],
)
def test_constants_are_read_in_every_form(write, dtype, values, expected) -> None:
    path = write(batch_norm(moving_mean=constant("bn/moving_mean", dtype, (4,), values)))
    assert mean_of(path) == expected
    layer = layer_of(path)
    assert (layer.name, layer.channels, layer.epsilon) == ("bn", 4, 0.01)


def test_a_variance_that_half_precision_rounds_to_1_is_no_error(write) -> None:
    near = constant("bn/moving_variance", HALF, (4,), content([1.0003] * 4, "<f2"))
    (finding,) = bninspect.check(write(batch_norm(moving_variance=near))).findings
    assert (finding.rule.code, finding.severity) == ("BN103", "note")
    assert any("stored as float16" in fact for fact in finding.evidence)


@pytest.mark.parametrize("field", [4, 5])
def test_a_large_constant_is_read_from_its_place(write, field: int) -> None:
    values = np.arange(5000, dtype="<f4")
    stored = bytes_field(field, values.tobytes())
    many = {role: constant(f"bn/{role}", FLOAT, (5000,), content(np.ones(5000))) for role in ROLES}
    many["moving_mean"] = constant("bn/moving_mean", FLOAT, (5000,), stored)
    assert mean_of(write(batch_norm(**many))) == values.tolist()


def test_weights_that_nobody_needs_are_not_read(write) -> None:
    size = 64 << 20
    path = write(b"")
    with path.open("wb") as stream:  # a node whose content is a hole of the file
        stream.write(before_content(size))
        stream.seek(size, 1)
        stream.write(batch_norm())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert layer_of(path).name == "bn"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < size >> 11  # half of it, in KiB


def before_content(size: int) -> bytes:
    """What stands before the content of a Const of `size` bytes."""
    encoded = b""
    levels = (
        (4, tensor(FLOAT, (size // 4,), b"")),
        (8, b""),
        (2, bytes_field(1, b"value")),
        (5, bytes_field(1, b"kernel") + bytes_field(2, b"Const")),
        (1, b""),
    )
    for number, before in levels:
        encoded = before + bytes([number << 3 | 2]) + varint(len(encoded) + size) + encoded
    return encoded


def test_the_work_grows_with_the_nodes_not_with_the_constants(write) -> None:
    small = write(batch_norm() + constant("k", FLOAT, (2000,), content(np.ones(2000))), "small.pb")
    large = write(
        batch_norm() + constant("k", FLOAT, (2_000_000,), content(np.ones(2_000_000))), "large.pb"
    )
    layer_of(small)
    less, more = (work_of(lambda path=path: layer_of(path)) for path in (small, large))
    assert more < less * 1.1


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"moving_mean": constant("bn/moving_mean", FLOAT, (4,), content([1, 2]))}, "2 elements"),
        (
            {"moving_mean": constant("bn/moving_mean", FLOAT, (4,), bytes_field(4, b"abc"))},
            "not whole numbers",
        ),
        (
            {role: constant(f"bn/{role}", FLOAT, (1 << 40,), ONE) for role in ROLES},
            "far more bytes",
        ),
    ],
    ids=["too few", "half a number", "terabytes"],
)
def test_a_constant_that_does_not_fit_is_one_sentence(write, run: Run, constants, message) -> None:
    outcome = run("check", write(batch_norm(**constants)))
    assert outcome.exit_code == 2
    assert message in outcome.said


def test_a_graph_of_variables_names_the_checkpoint(write, run: Run) -> None:
    path = write(node("x", "Placeholder") + node("bn/moving_mean", "VariableV2"))
    outcome = run("check", path)
    assert outcome.exit_code == 2
    assert "not frozen" in outcome.said
    assert "bn/moving_mean" in outcome.said
    assert run("check", path.parent, "--format", "json").exit_code == 2  # nothing else is there


@pytest.mark.parametrize("roles", [("moving_mean",), ("moving_mean", "moving_variance")])
@pytest.mark.parametrize("are_named", [True, False])
def test_computed_statistics_are_not_checked(
    write, run: Run, roles: tuple[str, ...], are_named: bool
) -> None:
    """A layer whose statistics are no constants is named, also beside others that are checked.

    Nothing is missing of it, whatever its other constants are called.
    """
    computed = {role: node(f"bn/{role}", "Dequantize", "x") for role in roles}
    layer = batch_norm(**computed)
    if not are_named:
        layer = layer.replace(b"moving_mean", b"dequantized").replace(b"moving", b"stored")
    path = write(batch_norm().replace(b"bn/", b"ok/") + layer)
    (item,) = run("check", path, "--format", "json").json["checkpoints"]
    ((name, why),) = [(group["name"], group["reason"]) for group in item["unchecked"]]
    assert name == "bn"
    assert "not both constants" in why


def test_a_convolution_that_has_its_bn_in_it(write, run: Run) -> None:
    """The kernel that Grappler's remapper makes of both takes all four constants."""
    values = {"moving_mean": [0.0] * 4, "moving_variance": [1.0] * 4}
    constants = [
        constant(f"bn/{role}", FLOAT, (4,), content(values.get(role, [0.5, 1.5, 2.5, 3.5])))
        for role in ROLES
    ]
    constants.append(constant("kernel", FLOAT, (1, 1, 4, 4), content(np.ones(16))))
    taken = (f"bn/{role}" for role in ROLES)
    kernel = node("bn/FusedBatchNorm", "_FusedConv2D", "x", "kernel", *taken)
    path = write(node("x", "Placeholder") + b"".join(constants) + kernel)
    (item,) = run("check", path, "--format", "json").json["checkpoints"]
    assert [layer["name"] for layer in item["layers"]] == ["bn"]
    assert [finding["rule"] for finding in item["findings"]] == ["BN101"]
    assert item["unchecked"] == []


@pytest.mark.parametrize(
    ("scope", "reads", "family"),
    [
        ("model/batch_normalization_3", "ReadVariableOp{}/resource", "keras"),
        ("model/batch_normalization_3", "ReadVariableOp{}", "graph"),  # tf.layers gives such names
        ("model/bn", "ReadVariableOp{}/resource", "graph"),
        ("model/bn", "Cast{}/ReadVariableOp/resource", "keras"),
        ("model/bn", "Cast{}/ReadVariableOp", "keras"),
    ],
)
def test_names_that_prove_keras(write, scope: str, reads: str, family: str) -> None:
    numbers = {"moving_mean": "", "moving_variance": "_1", "gamma": "_2", "beta": "_3"}
    names = [f"{scope}/{reads.format(numbers[role])}" for role in ROLES]
    constants = [constant(name, FLOAT, (4,), content([1, 2, 3, 4])) for name in names]
    kernel = node(
        f"{scope}/FusedBatchNormV3", "FusedBatchNormV3", "x", *names, attributes=INFERENCE
    )
    layer = layer_of(write(node("x", "Placeholder") + b"".join(constants) + kernel))
    assert (layer.name, layer.family) == (scope, family)


def test_half_precision_of_a_graph_is_no_half_precision_training(write) -> None:
    values = content([0.5, 1.5, 2.5, 3.5], "<f2")
    constants = {role: constant(f"bn/{role}", HALF, (4,), values) for role in ROLES}
    assert bninspect.check(write(batch_norm(**constants))).checkpoints[0].findings == ()


def test_a_kernel_in_training_mode_is_not_checked(write, run: Run) -> None:
    empty = constant("empty", FLOAT, (0,), b"")
    affine = constant("bn/gamma", FLOAT, (4,), content([0.5, 1.5, 2.5, 3.5]))
    names = ("x", "bn/gamma", "bn/gamma", "empty", "empty")
    kernel = node("bn/FusedBatchNorm", "FusedBatchNorm", *names, attributes=TRAINING)
    path = write(node("x", "Placeholder") + empty + affine + kernel)
    outcome = run("check", path, "--format", "json")
    assert outcome.exit_code == 3
    ((reason),) = [one["reason"] for one in outcome.json["checkpoints"][0]["unchecked"]]
    assert "moments of each batch" in reason


def test_a_layer_whose_gamma_another_layer_takes_is_checked(write) -> None:
    """Equal constants may have become one, under the name of any of the layers."""
    stuck = {"moving_mean": [0.0] * 4, "moving_variance": [1.0] * 4}
    kernel = node(
        "ok/FusedBatchNorm",
        "FusedBatchNorm",
        *("x", "bn/gamma", "ok/beta", "ok/moving_mean", "ok/moving_variance"),
        attributes=INFERENCE,
    )
    values = {f"ok/{role}": [0.5, 1.5, 2.5, 3.5] for role in ROLES[1:]}
    values |= {f"bn/{role}": stuck.get(role, [0.5, 1.5, 2.5, 3.5]) for role in ROLES}
    constants = [constant(name, FLOAT, (4,), content(one)) for name, one in values.items()]
    report = bninspect.check(write(node("x", "Placeholder") + b"".join(constants) + kernel))
    (item,) = report.checkpoints
    assert [layer.name for layer in item.layers] == ["bn", "ok"]
    assert [(one.layer, one.rule.code) for one in item.findings] == [("bn", "BN101")]


@pytest.mark.parametrize("is_scaled", [True, False])
def test_the_kernel_of_tensorflow_before_1(write, *, is_scaled: bool) -> None:
    roles = ("moving_mean", "moving_variance", "beta", "gamma")  # the names say nothing
    kernel = node(
        "old/batchnorm",
        "BatchNormWithGlobalNormalization",
        "x",
        *(f"Const_{index}" for index in range(4)),
        attributes=attribute(b"variance_epsilon", b"\x25" + struct.pack("<f", 0.001))
        + attribute(b"scale_after_normalization", number_field(5, int(is_scaled))),
    )
    constants = b"".join(
        constant(f"Const_{index}", FLOAT, (3,), content([index, index, index]))
        for index in range(4)
    )
    layer = layer_of(write(node("x", "Placeholder") + constants + kernel))
    assert {role: variable.name for role, variable in layer.variables.items()} == {
        role: f"Const_{index}" for index, role in enumerate(roles) if is_scaled or role != "gamma"
    }


@pytest.mark.parametrize(
    "first",
    [
        bytes_field(4, number_field(1, 134) + number_field(2, 12)),  # versions
        number_field(3, 24),  # version
        bytes_field(2, bytes_field(1, bytes_field(1, bytes_field(1, b"function")))),  # library
    ],
    ids=["versions", "version", "library"],
)
def test_a_graph_is_recognised_by_whichever_field_comes_first(write, first: bytes) -> None:
    assert layer_of(write(first + batch_norm(), "model")).name == "bn"


def test_text_that_is_no_graph(write, run: Run) -> None:
    for text in (b"node { name: 'a' op: 'Const' attr { key: 'x' ", b"node { name: 'a' other }"):
        outcome = run("check", write(text, "graph.pbtxt"))
        assert outcome.exit_code == 2
        assert "not a TensorFlow graph" in outcome.said


def test_two_nodes_of_one_name_are_refused(write, run: Run) -> None:
    """As TensorFlow does: which of them is the statistic of the layer would be a guess."""
    stuck = {
        "moving_mean": constant("bn/moving_mean", FLOAT, (4,), content([0, 0, 0, 0])),
        "moving_variance": constant("bn/moving_variance", FLOAT, (4,), content([1, 1, 1, 1])),
    }
    moved = constant("bn/moving_mean", FLOAT, (4,), content([1, 2, 3, 4]))
    assert run("check", write(batch_norm(**stuck))).exit_code == 1
    outcome = run("check", write(batch_norm(**stuck) + moved))
    assert outcome.exit_code == 2
    assert "bn/moving_mean more than once" in outcome.said


@pytest.mark.parametrize("place", [0.5, 0.99])
def test_damaged_text_is_reported_in_a_directory(tmp_path: Path, run: Run, place: float) -> None:
    """Its beginning says what it is: it is not passed over as the file of another tool."""
    text = (FIXTURES / "frozen_tf1_stuck" / "graph.pbtxt").read_bytes()
    (tmp_path / "graph.pbtxt").write_bytes(text[: int(len(text) * place)])
    (tmp_path / "sound.pb").write_bytes(batch_norm())
    outcome = run("check", tmp_path)
    assert outcome.exit_code == 2
    assert "graph.pbtxt: this text is not a TensorFlow graph, or it is damaged" in outcome.said


@pytest.mark.filterwarnings("error")
def test_text_with_an_escape_that_python_does_not_know(write, run: Run) -> None:
    outcome = run("check", write(rb"node { name: 'a\-' op: 'NoOp' }", "graph.pbtxt"))
    assert outcome.exit_code in (2, 3)


def test_the_graph_of_a_training_is_passed_over_whatever_its_size(tmp_path: Path, run: Run) -> None:
    """Estimators write a graph.pbtxt beside their checkpoints, of tens of megabytes."""
    variable = b'node {\n  name: "v"\n  op: "VariableV2"\n}\n'
    path = tmp_path / "graph.pbtxt"
    path.write_bytes(variable)
    with path.open("r+b") as stream:
        stream.truncate((1 << 25) + 1)
    (tmp_path / "sound.pb").write_bytes(batch_norm())
    (checkpoint,) = run("check", tmp_path, "--format", "json").json["checkpoints"]
    assert checkpoint["path"].endswith("sound.pb")
    assert "not frozen" in run("check", path).said


def test_text_nested_without_end(write, run: Run) -> None:
    text = b"node { name: 'a' " + b"attr { value { list { func { " * 5000
    assert run("check", write(text, "graph.pbtxt")).exit_code == 2


def test_text_is_parsed_up_to_a_size(write, run: Run) -> None:
    path = write(b"node { name: 'a' }", "graph.pbtxt")
    with path.open("r+b") as stream:
        stream.truncate((1 << 25) + 1)
    assert "text form" in run("check", path).said


@pytest.mark.parametrize("stem", STEMS)
@ALWAYS_THE_SAME
@given(data=st.data())
def test_damage_gives_an_answer_or_a_problem(tmp_path_factory, stem: str, data) -> None:
    """A graph has no checksum, so another answer is possible."""
    (sound,) = (path for path in (FIXTURES / stem).iterdir())
    contents = bytearray(sound.read_bytes())
    for _ in range(data.draw(st.integers(1, 4), "changes")):
        place = data.draw(st.integers(0, len(contents) - 1), "place")
        contents[place] = data.draw(st.integers(0, 255), "byte")
    if data.draw(st.booleans(), "cut off"):
        del contents[data.draw(st.integers(1, len(contents) - 1), "end") :]
    damaged = tmp_path_factory.mktemp("damaged") / sound.name
    damaged.write_bytes(contents)
    (checkpoint,) = bninspect.check(damaged).checkpoints
    if checkpoint.error is None:
        with bninspect.open_checkpoint(str(damaged)) as opened:
            for variable in opened.variables.values():
                with suppress(ReadProblem):
                    assert variable.read().shape == variable.shape


def test_a_function_of_tensorflow_2_gets_no_advice_for_train_ops(run: Run) -> None:
    fixes = {}
    for stem in ("frozen_keras2_stuck", "frozen_tf1_merged_stuck"):
        path = next((FIXTURES / stem).glob("graph.pb*"))
        (item,) = run("check", path, "--format", "json").json["checkpoints"]
        fixes[stem] = " ".join(finding["fix"] for finding in item["findings"])
    assert "tf.control_dependencies" in fixes["frozen_tf1_merged_stuck"]
    assert "tf.control_dependencies" not in fixes["frozen_keras2_stuck"]
    assert "training=True" in fixes["frozen_keras2_stuck"]


def test_a_finding_names_the_page_of_its_framework(run: Run) -> None:
    out = run("check", FIXTURES / "frozen_tf1_stuck").out
    assert "bninspect rule BN101 --for tf1-layers" in out


def test_layer_normalization_by_the_fused_kernel_is_no_bn(write, run: Run) -> None:
    """Keras 2 normalizes each sample by it, with a gamma that it fills with 1 for each of them."""
    filled = [
        node(f"layer_normalization/{name}", "Fill", "samples", name) for name in ("ones", "zeros")
    ]
    kernel = node(
        "layer_normalization/FusedBatchNormV3",
        "FusedBatchNormV3",
        "x",
        *(f"layer_normalization/{name}" for name in ("ones", "zeros")),
        "empty",
        "empty",
        attributes=TRAINING,
    )
    given = b"".join(node(name, "Placeholder") for name in ("x", "samples", "ones", "zeros"))
    weights = constant("dense/kernel", FLOAT, (4,), content([0.5, 1.5, 2.5, 3.5]))
    nothing = constant("empty", FLOAT, (0,), b"")
    graph = write(given + weights + nothing + b"".join(filled) + kernel)
    outcome = run("check", graph, "--format", "json")
    (item,) = outcome.json["checkpoints"]
    assert outcome.exit_code == 3
    assert item["error"] is None
    assert item.get("unchecked", []) == []


def test_what_was_folded_beside_a_layer_is_not_judged(write, run: Run) -> None:
    """Tools that fold constants leave no variance, and of a mean of 0 no difference either."""
    members = ("k1", "k2", "k3", "k4")
    constants = [constant(name, FLOAT, (3,), content([1.0, 2.0, 3.0])) for name in members]
    kernel = node("bn/FusedBatchNorm", "FusedBatchNormV3", "x", *members, attributes=INFERENCE)
    graph = [
        *constants,
        *(constant(name, FLOAT, (3,), content([4.0, 5.0, 6.0])) for name in ("c", "d")),
        node("x", "Placeholder"),
        kernel,
        node("h", "Tanh", "bn/FusedBatchNorm"),
        node("net/sub", "Sub", "h", "c"),
        node("net/mul", "Mul", "net/sub", "d"),
        node("h2", "Tanh", "net/mul"),
        node("net/mul_1", "Mul", "h2", "c"),
        node("net/add", "AddV2", "net/mul_1", "d"),
    ]
    (item,) = run("check", write(b"".join(graph)), "--format", "json").json["checkpoints"]
    assert [layer["name"] for layer in item["layers"]] == ["bn"]
    assert [group["name"] for group in item["unchecked"]] == ["net/sub", "net/mul_1"]


@pytest.mark.parametrize("stem", ["frozen_keras2_no_gamma_beta", "frozen_tf1_training_mode"])
def test_operations_without_operands_are_read(write: Callable[..., Path], stem: str) -> None:
    """A damaged graph says which operation it is, and not what it takes."""
    (encoded,) = (FIXTURES / stem).iterdir()
    message = declare("GraphDef")[0]
    for number in range(len(message.FromString(encoded.read_bytes()).node)):
        graph = message.FromString(encoded.read_bytes())
        del graph.node[number].input[:]
        (report,) = bninspect.check(write(graph.SerializeToString())).checkpoints
        assert report.error is None


@pytest.mark.parametrize(
    "source", ["frozen_tf1_correct/graph.pb", "onnx_pytorch_correct/model.onnx"]
)
def test_blocks_of_zeros_are_refused(tmp_path: Path, run: Run, source: str) -> None:
    """No field has the number 0: a file of which a part was never written is no pass."""
    path = tmp_path / Path(source).name
    path.write_bytes((FIXTURES / source).read_bytes() + bytes(64))
    outcome = run("check", path)
    assert outcome.exit_code == 2
    assert "cannot be parsed: a field at byte" in outcome.out
