"""BN that an ONNX model spells out: what is judged, what is named as not judged, what is no BN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from bninspect import check
from bninspect.formats.onnx import arithmetic
from tests.conftest import Run
from tests.formats.onnx.models import bn_node, members, model, named, write

SHAPE = (1, 3, 1, 1)
STATISTICS = {"mean": np.zeros(SHAPE, "f4"), "variance": np.ones(SHAPE, "f4")}
OTHERS = {
    "scale": np.array([0.5, 2.0, 3.0], "f4").reshape(SHAPE),
    "shift": np.array([1.0, -1.0, 0.5], "f4").reshape(SHAPE),
    "eps": np.array(1e-5, "f4"),
    "half": np.array(0.5, "f4"),
    "minus_half": np.array(-0.5, "f4"),
    "one": np.array(1.0, "f4"),
}
# The operations of one layer; `h` is its input, y its output.
ROOTS = {
    "sqrt": ["s = Sqrt(v)", "n = Div(c, s)"],
    "reciprocal": ["s = Sqrt(v)", "r = Reciprocal(s)", "n = Mul(c, r)"],
    "quotient": ["s = Sqrt(v)", "r = Div(one, s)", "n = Mul(c, r)"],
    "power": ["s = Pow(v, half)", "n = Div(c, s)"],
    "negative_power": ["r = Pow(v, minus_half)", "n = Mul(r, c)"],
}
CENTERED = ["c = Sub(h, mean)", "v = Add(variance, eps)"]
AFFINE = ["g = Mul(n, scale)", "y = Add(g, shift)"]


def nodes(lines: list[str], prefix: str = "layer/") -> list[onnx.NodeProto]:
    """The nodes of lines such as `y = Add(a, b)`, named after their output."""
    made = []
    for line in lines:
        output, call = line.split(" = ")
        op, inputs = call.rstrip(")").split("(")
        made.append(helper.make_node(op, inputs.split(", "), [output], name=f"{prefix}{output}"))
    return made


def beside_a_layer(folder: Path, lines: list[str], **arrays: Any) -> Path:
    """A model in which arithmetic stands behind a healthy layer and an activation."""
    stored = STATISTICS | OTHERS | arrays
    used = {name for one in nodes(lines) for name in one.input}
    tensors = [
        *named(members()),
        *(numpy_helper.from_array(stored[n], n) for n in stored if n in used),
    ]
    first = bn_node([f"bn.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")])
    tanh = helper.make_node("Tanh", ["bn_y"], ["h"])
    return write(folder, model(tensors, [first, tanh, *nodes(lines)]))


def found(run: Run, path: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The codes of each layer's findings, and the reasons for groups that are not judged."""
    (item,) = run("check", path, "--format", "json").json["checkpoints"]
    assert item["error"] is None, item["error"]
    codes: dict[str, list[str]] = {layer["name"]: [] for layer in item["layers"]}
    for finding in item["findings"]:
        codes[finding["layer"]].append(finding["rule"])
    return codes, {group["name"]: group["reason"] for group in item.get("unchecked", [])}


@pytest.mark.parametrize("root", ROOTS)
def test_statistics_under_a_root_are_judged(run: Run, tmp_path: Path, root: str) -> None:
    path = beside_a_layer(tmp_path, CENTERED + ROOTS[root] + AFFINE)
    assert found(run, path) == ({"bn": [], "layer": ["BN101"]}, {})
    moved = {"mean": OTHERS["scale"], "variance": OTHERS["scale"]}
    path = beside_a_layer(tmp_path, CENTERED + ROOTS[root] + AFFINE, **moved)
    assert found(run, path) == ({"bn": [], "layer": []}, {})


def test_the_form_of_tensorflow_is_judged(run: Run, tmp_path: Path) -> None:
    lines = ["v = Add(variance, eps)", "s = Sqrt(v)", "r = Reciprocal(s)", "i = Mul(r, scale)"]
    lines += ["a = Mul(h, i)", "m = Mul(mean, i)", "b = Sub(shift, m)", "y = Add(a, b)"]
    assert found(run, beside_a_layer(tmp_path, lines)) == ({"bn": [], "layer": ["BN101"]}, {})


def test_statistics_are_followed_through_reshapes(run: Run, tmp_path: Path) -> None:
    lines = [
        "w = Reshape(vector, shape)",
        "c = Sub(h, w)",
        "u = Unsqueeze(ones, axes)",
        "v = Add(u, eps)",
        *ROOTS["sqrt"],
        *AFFINE,
    ]
    path = beside_a_layer(
        tmp_path,
        lines,
        vector=np.zeros(3, "f4"),
        ones=np.ones(3, "f4"),
        shape=np.array(SHAPE, "i8"),
        axes=np.array([1, 2], "i8"),
    )
    assert found(run, path)[0]["layer"] == ["BN101"]


def test_branches_and_functions_are_searched(run: Run, tmp_path: Path) -> None:
    body = nodes(CENTERED + ROOTS["sqrt"] + AFFINE)
    tensors = [numpy_helper.from_array(one, name) for name, one in (STATISTICS | OTHERS).items()]
    value = helper.make_tensor_value_info("y", 1, None)
    inner = helper.make_graph(body, "branch", [], [value])
    choice = helper.make_node("If", ["flag"], ["out"], then_branch=inner, else_branch=inner)
    path = write(tmp_path, model(tensors, [choice], inputs=("x", "h", "flag")))
    assert [*found(run, path)[0].values()] == [["BN101"]]
    names = [*STATISTICS, "scale", "shift", "eps"]
    opsets = [helper.make_opsetid("", 15)]
    function = helper.make_function("own", "Norm", ["h", *names], ["y"], body, opsets)
    calls = [
        helper.make_node("Norm", ["x", *names], ["y1"], name="first", domain="own"),
        helper.make_node("Norm", ["y1", "scale", *names[1:]], ["y2"], name="second", domain="own"),
    ]
    path = write(tmp_path, model(tensors, calls, functions=[function]), "functions.onnx")
    codes, _ = found(run, path)
    assert codes == {"first/layer": ["BN101"], "second/layer": ["BN103"]}


@pytest.mark.parametrize(
    ("lines", "name", "reason"),
    [
        (
            ["c = Sub(h, scale)", "n = Div(c, shift)"],
            "layer/c",
            "variance of a BN layer was folded",
        ),
        (["c = Sub(h, scale)", "n = Mul(c, shift)", *AFFINE], "layer/c", "variance of a BN layer"),
        (["n = Mul(h, scale)", "y = Add(n, shift)"], "layer/n", "may have been folded into"),
        (["c = Sub(h, mean)", "s = Sqrt(variance)", "n = Div(c, s)"], "layer", "adds no epsilon"),
    ],
)
def test_what_was_folded_is_not_judged(
    run: Run, tmp_path: Path, lines: list[str], name: str, reason: str
) -> None:
    lines = lines if lines[-1].startswith("y") else [*lines, *AFFINE]
    codes, groups = found(run, beside_a_layer(tmp_path, lines))
    assert codes == {"bn": []}
    assert [*groups] == [name]
    assert reason in groups[name]
    assert groups[name].endswith("check the model that it was exported from")


@pytest.mark.parametrize("opset", [15, 18])
@pytest.mark.parametrize("axes", [(0, 2, 3), (1, 2, 3)])
def test_bn_by_the_moments_of_each_batch_is_named(
    run: Run, tmp_path: Path, axes: tuple[int, ...], opset: int
) -> None:
    lines = ["c = Sub(h, m)", "q = Mul(c, c)", "v = Add(w, eps)", *ROOTS["sqrt"], *AFFINE]
    means = []
    for name, value in (("m", "h"), ("w", "q")):
        if opset < 18:
            mean = helper.make_node("ReduceMean", [value], [name], axes=axes)
        else:
            mean = helper.make_node("ReduceMean", [value, "axes"], [name])
        means.append(mean)
    stored = OTHERS | {"axes": np.array(axes, "i8")}
    tensors = [numpy_helper.from_array(one, name) for name, one in stored.items()]
    made = model(tensors, [*means, *nodes(lines)], inputs=("h",), opset=opset)
    _, groups = found(run, write(tmp_path, made))
    assert [*groups] == (["layer/s"] if 0 in axes else [])
    assert all("moments of each batch" in reason for reason in groups.values())


MOMENTS = ["m = ReduceMean(h)", "c = Sub(h, m)", "q = Mul(c, c)", "w = ReduceMean(q)"]


@pytest.mark.parametrize(
    "lines",
    [
        [*MOMENTS, "v = Add(w, eps)", *ROOTS["sqrt"], *AFFINE],  # layer normalization
        [*MOMENTS, "v = Add(w, eps)", *ROOTS["reciprocal"], *AFFINE],
        ["c = Sub(x, mean)", "n = Div(c, scale)"],  # an input normalizer
        ["c = Mul(x, scale)", "n = Add(c, shift)"],
        ["n = InstanceNormalization(h, scale, shift)", *AFFINE],
        ["n = LayerNormalization(h, scale)", *AFFINE],
        ["n = Mul(h, scale)", "y = Tanh(n)"],  # LayerScale
        ["n = Add(h, shift)", "y = Mul(n, half)"],
        ["n = Mul(h, h)", "y = Add(n, shift)"],
    ],
)
def test_what_is_no_bn_is_not_named(run: Run, tmp_path: Path, lines: list[str]) -> None:
    assert found(run, beside_a_layer(tmp_path, lines)) == ({"bn": []}, {})


OPS = ("Sub", "Mul", "Div", "Add", "Sqrt", "Pow", "Reciprocal", "Neg", "Identity", "Reshape")
VALUES = ("x", "y", "h", "a", "b", "mean", "variance", "scale", "eps")
LINE = st.tuples(st.sampled_from(VALUES), st.sampled_from(OPS), st.lists(st.sampled_from(VALUES)))


@given(st.lists(LINE, max_size=30))
def test_any_graph_is_searched(tmp_path_factory: pytest.TempPathFactory, lines: Any) -> None:
    """Values may be given twice, used before they are given, or in a circle."""
    made = [helper.make_node(op, inputs, [output]) for output, op, inputs in lines]
    arrays = STATISTICS | {"scale": OTHERS["scale"], "eps": OTHERS["eps"]}
    tensors = [numpy_helper.from_array(one, name) for name, one in arrays.items()]
    path = tmp_path_factory.mktemp("any") / "model.onnx"
    path.write_bytes(model([*named(members()), *tensors], [*made]).SerializeToString())
    (report,) = check(str(path)).checkpoints
    assert report.error is None


def test_a_graph_that_is_too_large_is_not_judged(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "_MOST_NODES", 10)
    codes, groups = found(run, beside_a_layer(tmp_path, CENTERED + ROOTS["sqrt"] + AFFINE))
    assert codes == {"bn": []}
    assert "more operations" in groups["its arithmetic"]
