"""BN that a TensorFlow.js graph model spells out: what is judged, what is named as not judged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.conftest import load_fixture
from tests.formats.tfjs.test_models import FUSED, graph_model, report_of, statistics

ONE_NUMBER = {"eps": np.array(1e-3), "two": np.array(2.0)}
OTHERS = {"unknown_4": np.arange(3.0) + 1, "unknown_5": np.arange(3.0) - 5, **ONE_NUMBER}


def nodes(*lines):
    """The nodes of lines such as `y = AddV2(a, b)`."""
    made = []
    for line in lines:
        name, call = line.split(" = ")
        operation, inputs = call.rstrip(")").split("(")
        made.append({"name": name, "op": operation, "input": inputs.split(", "), "attr": {}})
    return made


def beside_a_layer(folder, *lines, stuck=True):
    """The report of a model in which a healthy fused layer and an activation precede arithmetic."""
    values = {f"bn/{role}": one for role, one in statistics(stuck=False).items()}
    numbered = dict(
        zip(
            ("unknown", *(f"unknown_{n}" for n in range(3))),
            statistics(stuck).values(),
            strict=True,
        )
    )
    fused = {"name": "bn/FusedBatchNormV3", **FUSED, "input": ["x", *values]}
    graph_model(
        folder,
        [
            {"name": "x", "op": "Placeholder"},
            fused,
            *nodes("h = Tanh(bn/FusedBatchNormV3)", *lines),
        ],
        values | numbered | OTHERS,
    )
    report = report_of(folder)
    codes = {layer.name: [] for layer in report.layers}
    for finding in report.findings:
        codes[finding.layer].append(finding.rule.code)
    return codes, {group.name: group.reason for group in report.unchecked}


WHOLE = (
    "net/sub = Sub(h, unknown_1)",
    "net/add = AddV2(unknown_2, eps)",
    "net/root = Rsqrt(net/add)",
    "net/mul = Mul(net/sub, net/root)",
    "net/mul_1 = Mul(net/mul, unknown)",
    "net/add_1 = AddV2(net/mul_1, unknown_0)",
)


@pytest.mark.parametrize("stuck", [True, False])
def test_arithmetic_with_statistics_is_judged(tmp_path, stuck):
    codes, groups = beside_a_layer(tmp_path / "model", *WHOLE, stuck=stuck)
    assert codes == {"bn": [], "net": ["BN101"] if stuck else []}
    assert groups == {}


@pytest.mark.parametrize(
    ("lines", "name", "reason"),
    [
        (("a = Sub(h, unknown_4)", "b = Mul(a, unknown_5)"), "a", "no moving_variance left"),
        (("b = Mul(h, unknown_4)", "c = AddV2(b, unknown_5)"), "b", "may have been folded"),
    ],
)
def test_what_was_folded_is_not_judged(tmp_path, lines, name, reason):
    codes, groups = beside_a_layer(tmp_path / "model", *lines)
    assert codes == {"bn": []}
    assert [*groups] == [name]
    assert reason in groups[name]
    assert groups[name].endswith("check the model that it was converted from")


@pytest.mark.parametrize("axis", [0, 1])
def test_bn_by_the_moments_of_each_batch_is_named(tmp_path, axis):
    """Of LayerNormalization, whose moments are those of one sample, nothing is said."""
    moments = ("net/mean = Mean(h, axes)", "net/variance = Mean(net/sub, axes)")
    lines = tuple(
        line.replace("unknown_1)", "net/mean)").replace("unknown_2,", "net/variance,")
        for line in WHOLE
    )
    folder = tmp_path / "model"
    beside_a_layer(folder, *moments, *lines)
    path = folder / "model.json"
    contents = json.loads(path.read_text(encoding="utf-8"))
    contents["modelTopology"]["node"].append({"name": "axes", "op": "Const"})
    axes = {"name": "axes", "shape": [1], "dtype": "int32"}
    contents["weightsManifest"].append({"paths": ["axes.bin"], "weights": [axes]})
    path.write_text(json.dumps(contents), encoding="utf-8")
    (folder / "axes.bin").write_bytes(np.array([axis], "<i4").tobytes())
    report = report_of(folder)
    assert [group.name for group in report.unchecked] == (["net/root"] if axis == 0 else [])


@pytest.mark.parametrize(
    "lines",
    [
        ("a = Sub(x, unknown_4)", "b = Mul(a, unknown_5)"),  # an input normalizer
        ("a = Mul(h, two)", "b = AddV2(a, eps)"),
        ("a = Mul(bn/FusedBatchNormV3, unknown_4)", "b = AddV2(a, unknown_5)"),
    ],
)
def test_what_is_no_bn_is_not_named(tmp_path, lines):
    assert beside_a_layer(tmp_path / "model", *lines) == ({"bn": []}, {})


def test_a_fused_layer_in_a_loop_is_judged(tmp_path):
    """What a loop takes as arguments, the nodes of its function do not name."""
    values = {f"unknown_{n}": one for n, one in enumerate(statistics(stuck=True).values())}
    arguments = ["state", *(f"argument_{n}" for n in range(4))]
    body = {
        "signature": {
            "name": "body",
            "inputArg": [{"name": name} for name in arguments],
            "outputArg": [{"name": name} for name in arguments],
        },
        "nodeDef": [{"name": "loop/FusedBatchNormV3", **FUSED, "input": arguments}],
        "ret": {**{name: name for name in arguments}, "state": "loop/FusedBatchNormV3:y:0"},
    }
    loop = {
        "name": "while",
        "op": "StatelessWhile",
        "input": ["x", *values],
        "attr": {"body": {"func": {"name": "body"}}},
    }
    graph_model(tmp_path / "model", [{"name": "x", "op": "Placeholder"}, loop], values)
    path = tmp_path / "model" / "model.json"
    contents = json.loads(path.read_text(encoding="utf-8"))
    contents["modelTopology"]["library"] = {"function": [body]}
    path.write_text(json.dumps(contents), encoding="utf-8")
    report = report_of(path)
    assert [(one.layer, one.rule.code) for one in report.findings] == [("loop", "BN101")]


def test_a_missing_shard_leaves_the_arithmetic_unread(run, tmp_path):
    source = load_fixture("tfjs_graph_loop_stuck").path.parent
    (tmp_path / "model.json").write_bytes((source / "model.json").read_bytes())
    outcome = run("check", tmp_path / "model.json", "--format", "json")
    assert outcome.exit_code == 2
    (found,) = outcome.json["checkpoints"]
    assert found["error"]["kind"] == "incomplete"
    listed = run("list", tmp_path / "model.json")
    assert listed.exit_code == 0
    assert "not checked: its arithmetic: this shard of the weights is missing" in listed.said


def test_the_number_of_an_output_may_be_any_text(tmp_path):
    """Python refuses to read numbers of thousands of digits."""
    lines = tuple(line.replace("net/sub, ", f"net/sub:{'9' * 5000}, ") for line in WHOLE)
    codes, _ = beside_a_layer(tmp_path / "model", *lines)
    assert codes["bn"] == []
