"""BN layers of ONNX models: the tensors of a node, the names of layers, and what is no layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bninspect
from tests.conftest import Outcome, Run
from tests.formats.onnx.models import ROLES, STUCK, bn_node, members, model, named, write


def listed(run: Run, path: Path) -> dict[str, Any]:
    (item,) = run("list", path, "--format", "json").json["checkpoints"]
    assert item["error"] is None, item["error"]
    return dict(item)


def values_of(path: Path) -> dict[str, dict[str, list[float]]]:
    """The values of each layer, by name and role."""
    with bninspect.open_checkpoint(str(path)) as checkpoint:
        return {
            layer.name: {role: one.read().ravel().tolist() for role, one in layer.variables.items()}
            for layer in bninspect.find_layers(checkpoint)
        }


def expected(arrays: Any) -> dict[str, list[float]]:
    return {role: arrays[role].astype("f4").ravel().tolist() for role in ROLES}


# --- How tensors are stored -----------------------------------------------------------------------

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
HALF, BFLOAT = TensorProto.FLOAT16, TensorProto.BFLOAT16


@pytest.mark.parametrize("data_type", [FLOAT, DOUBLE, HALF, BFLOAT])
@pytest.mark.parametrize("raw", [True, False])
def test_every_type_is_read_as_onnx_reads_it(tmp_path: Path, data_type: int, raw: bool) -> None:
    arrays = members(5)
    tensors = []
    for role, array in arrays.items():
        as_type = array.astype(helper.tensor_dtype_to_np_dtype(data_type))
        if raw:
            tensors.append(
                helper.make_tensor(role, data_type, array.shape, as_type.tobytes(), raw=True)
            )
        else:
            tensors.append(helper.make_tensor(role, data_type, array.shape, as_type.tolist()))
        assert tensors[-1].HasField("raw_data") == raw
    (found,) = values_of(write(tmp_path, model(tensors))).values()
    for tensor, role in zip(tensors, ROLES, strict=True):
        theirs = numpy_helper.to_array(tensor).astype("f8").tolist()
        assert found[role] == theirs


@pytest.mark.parametrize("dtype", ["f2", "bfloat16"])
def test_a_variance_that_half_precision_rounds_to_1_is_no_error(
    run: Run, tmp_path: Path, dtype: str
) -> None:
    """Exports in half precision round what is near 1: whether it moved cannot be known."""
    near = members() | {"moving_variance": np.full(3, 1.0003, "f4")}
    as_type = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    found = {}
    for name, arrays in {"near": near, "stuck": STUCK}.items():
        halves = {role: array.astype(as_type) for role, array in arrays.items()}
        path = write(tmp_path, model(named(halves)), f"{name}.onnx")
        (item,) = run("check", path, "--format", "json").json["checkpoints"]
        (finding,) = item["findings"]
        found[name] = finding["rule"], finding["severity"]
        assert any("stored as " in fact for fact in finding["evidence"])
    assert found == {"near": ("BN103", "note"), "stuck": ("BN101", "error")}


def test_values_that_are_not_packed_are_read(tmp_path: Path) -> None:
    """Protocol buffers allow a field for each number (and a writer of proto2 makes them so)."""
    made = model(named(STUCK)).SerializeToString()
    (tensor,) = named({"gamma": STUCK["gamma"]})
    other = helper.make_tensor(tensor.name, FLOAT, (3,), STUCK["gamma"].tolist())
    packed = helper.make_tensor(tensor.name, FLOAT, (3,), STUCK["gamma"].tolist())
    unpacked = packed.SerializeToString().replace(
        b"\x22\x0c" + STUCK["gamma"].tobytes(),
        b"".join(b"\x25" + value.tobytes() for value in STUCK["gamma"]),
    )
    assert len(unpacked) == len(other.SerializeToString()) + 1
    parsed = TensorProto.FromString(unpacked)
    assert parsed.float_data == other.float_data
    sound = write(tmp_path, made)
    # The graph holds the message as it is written: its length is that of the parts around it.
    changed = model([parsed, *named(STUCK)[1:]])
    assert values_of(write(tmp_path, changed, "unpacked.onnx")) == values_of(sound)


def test_a_shape_with_ones_has_its_channels(run: Run, tmp_path: Path) -> None:
    arrays = {role: array.reshape(1, 3, 1, 1) for role, array in members().items()}
    (layer,) = listed(run, write(tmp_path, model(named(arrays))))["layers"]
    assert layer["channels"] == 3


@pytest.mark.parametrize("attribute", ["value", "value_floats"])
def test_constant_nodes_hold_statistics(tmp_path: Path, attribute: str) -> None:
    arrays = members()
    nodes = [
        helper.make_node(
            "Constant",
            [],
            [role],
            **{
                attribute: numpy_helper.from_array(array)
                if attribute == "value"
                else array.tolist()
            },
        )
        for role, array in arrays.items()
    ]
    path = write(tmp_path, model([], [*nodes, bn_node(ROLES, "norm")]))
    assert values_of(path) == {"norm": expected(arrays)}


@pytest.mark.parametrize("passing", ["Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze"])
def test_values_are_followed_through_nodes_that_keep_them(tmp_path: Path, passing: str) -> None:
    arrays = members()
    attributes = {"to": FLOAT} if passing == "Cast" else {}
    nodes = [
        helper.make_node(passing, [f"bn.{leaf}"], [f"after_{leaf}"], **attributes)
        for leaf in ("weight", "bias", "running_mean", "running_var")
    ]
    twice = helper.make_node("Identity", ["after_running_var"], ["twice"])
    inputs = ["after_weight", "after_bias", "after_running_mean", "twice"]
    path = write(tmp_path, model(named(arrays), [*nodes, twice, bn_node(inputs, "norm")]))
    assert [*values_of(path).values()] == [expected(arrays)]


def test_a_name_of_identity_is_that_of_the_layer(run: Run, tmp_path: Path) -> None:
    """The exporter of PyTorch stores equal tensors once, and keeps their names so."""
    first, second = named(STUCK, "a"), named(members(seed=1), "b")
    again = [helper.make_node("Identity", [f"a.{x}"], [f"b.{x}"]) for x in ("running_mean", "bias")]
    nodes = [
        *again,
        bn_node([one.name for one in first], "first"),
        bn_node(["b.weight", "b.bias", "b.running_mean", "b.running_var"], "second"),
    ]
    stored = [*first, second[0], second[3]]
    layers = listed(run, write(tmp_path, model(stored, nodes)))["layers"]
    assert [layer["name"] for layer in layers] == ["a", "b"]
    assert layers[1]["variables"]["moving_mean"] == "b.running_mean"


def test_an_input_that_is_also_an_initializer_is_stored(tmp_path: Path) -> None:
    """Up to version 3 of the format every initializer had to be an input too."""
    tensors = named(members())
    names = [one.name for one in tensors]
    assert "bn" in values_of(write(tmp_path, model(tensors, inputs=("x", *names))))


# --- Graphs and functions -------------------------------------------------------------------------


def branch(nodes: list[onnx.NodeProto], initializers: list[TensorProto]) -> onnx.GraphProto:
    return helper.make_graph(nodes, "branch", [], [], initializers)


def test_the_graphs_of_if_see_the_tensors_around_them(run: Run, tmp_path: Path) -> None:
    outer, inner = named(members(), "outer"), named(members(seed=1), "inner")
    test = helper.make_node(
        "If",
        ["flag"],
        ["y"],
        then_branch=branch([bn_node([one.name for one in outer], "a")], []),
        else_branch=branch([bn_node([one.name for one in inner], "b")], inner),
    )
    item = listed(run, write(tmp_path, model(outer, [test])))
    assert {layer["name"] for layer in item["layers"]} == {"outer", "inner"}
    assert item["variables"] == 8


def test_a_function_is_a_layer_for_each_call(tmp_path: Path) -> None:
    """Its parameters pass the tensors in, those of a function within a function too."""
    opset = [helper.make_opsetid("", 15)]
    inner = helper.make_function(
        "own", "norm", ["x", *ROLES], ["y"], [bn_node(ROLES, "bn", outputs=["y"])], opset
    )
    call = helper.make_node("norm", ["x", *ROLES], ["y"], domain="own")
    outer = helper.make_function(
        "own", "block", ["x", *ROLES], ["y"], [call], [*opset, helper.make_opsetid("own", 1)]
    )
    arrays = {scope: members(seed=seed) for seed, scope in enumerate(("a", "b"))}
    tensors = [one for scope, given in arrays.items() for one in named(given, scope)]
    names = [one.name for one in tensors]
    nodes = [
        helper.make_node("block", ["x", *names[:4]], ["p"], domain="own"),
        helper.make_node("norm", ["p", *names[4:]], ["q"], domain="own"),
    ]
    path = write(tmp_path, model(tensors, nodes, functions=[inner, outer]))
    assert values_of(path) == {scope: expected(given) for scope, given in arrays.items()}


def test_what_a_function_returns_is_followed(tmp_path: Path) -> None:
    opset = [helper.make_opsetid("", 15)]
    same = helper.make_function(
        "own", "same", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], opset
    )
    arrays = members()
    tensors = named(arrays)
    nodes = [
        helper.make_node("same", ["bn.running_mean"], ["mean"], domain="own"),
        bn_node(["bn.weight", "bn.bias", "mean", "bn.running_var"], "norm"),
    ]
    path = write(tmp_path, model(tensors, nodes, functions=[same]))
    assert [*values_of(path).values()] == [expected(arrays)]


@pytest.mark.parametrize("doubled", [False, True])
def test_functions_that_call_themselves_are_refused(
    run: Run, tmp_path: Path, doubled: bool
) -> None:
    """And those that call each other twice, and so 2^40 times."""
    opset = [helper.make_opsetid("", 15), helper.make_opsetid("own", 1)]

    def function(name: str, called: str) -> onnx.FunctionProto:
        call = helper.make_node(called, ["x"], ["y"], domain="own")
        return helper.make_function("own", name, ["x"], ["y"], [call, call], opset)

    functions = (
        [function(f"f{number}", f"f{number + 1}") for number in range(40)]
        if doubled
        else [function("f0", "f0")]
    )
    node = helper.make_node("f0", ["x"], ["y"], domain="own")
    outcome = run("check", write(tmp_path, model([], [node], functions=functions)))
    assert outcome.exit_code == 2
    assert "call each other" in outcome.said


# --- What is not stored ---------------------------------------------------------------------------


def unchecked(run: Run, path: Path) -> tuple[Outcome, list[tuple[str, str]]]:
    outcome = run("check", path, "--format", "json")
    (item,) = outcome.json["checkpoints"]
    return outcome, [(group["name"], group["reason"]) for group in item["unchecked"]]


def test_computed_statistics_are_not_checked(run: Run, tmp_path: Path) -> None:
    tensors = named(members())
    mean = helper.make_node("ReduceMean", ["x"], ["mean"])
    node = bn_node(["bn.weight", "bn.bias", "mean", "bn.running_var"], "/bn/BatchNormalization")
    outcome, groups = unchecked(run, write(tmp_path, model(tensors, [mean, node])))
    assert outcome.exit_code == 3
    ((name, reason),) = groups
    assert name == "bn"
    assert reason == "its moving_mean is computed by other nodes of the model, and not stored"


def test_sparse_statistics_are_not_checked(run: Run, tmp_path: Path) -> None:
    tensors = named(members())
    made = model(tensors)
    (mean,) = [one for one in made.graph.initializer if one.name == "bn.running_mean"]
    made.graph.initializer.remove(mean)
    indices = numpy_helper.from_array(np.arange(3, dtype="i8"))
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(mean, indices, [3]))
    outcome, groups = unchecked(run, write(tmp_path, made))
    assert outcome.exit_code == 3
    ((_, reason),) = groups
    assert "sparse" in reason


def test_statistics_that_are_inputs_are_not_checked(run: Run, tmp_path: Path) -> None:
    tensors = named({role: array for role, array in members().items() if "moving" not in role})
    node = bn_node(["bn.weight", "bn.bias", "mean", "variance"], "bn")
    path = write(tmp_path, model(tensors, [node], inputs=("x", "mean", "variance")))
    outcome, groups = unchecked(run, path)
    assert outcome.exit_code == 3
    ((_, reason),) = groups
    assert reason == "its moving_mean and moving_variance are given to the model as input"


def test_a_model_without_bn_is_no_pass(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path, model([], [helper.make_node("Relu", ["x"], ["y"])]))
    outcome = run("check", path)
    assert outcome.exit_code == 3
    assert "no BN layer" in outcome.said
    assert "check the model that it was exported from" in outcome.said
    assert "--pattern" not in outcome.said


@pytest.mark.parametrize("op", ["InstanceNormalization", "LayerNormalization"])
def test_other_normalizations_are_no_bn(run: Run, tmp_path: Path, op: str) -> None:
    tensors = named(members())
    node = helper.make_node(op, ["x", "bn.weight", "bn.bias"], ["y"])
    assert run("check", write(tmp_path, model(tensors, [node]))).exit_code == 3


@pytest.mark.parametrize("filled", [True, False])
def test_layer_normalization_of_keras_2_is_no_bn(run: Run, tmp_path: Path, filled: bool) -> None:
    """tf2onnx exports it as BN of each sample, with a gamma that is filled with 1."""
    one, count = np.array(1.0, "f4"), np.array([4], "i8")
    stored = {role: array for role, array in members().items() if "moving" not in role}
    tensors = [*named(stored), *map(numpy_helper.from_array, (one, count), ("one", "count"))]
    gamma = "ones" if filled else "bn.weight"
    nodes = [
        helper.make_node("Expand", ["one", "count"], ["ones"]),
        helper.make_node("ReduceMean", ["x"], ["mean"]),
        bn_node([gamma, "bn.bias", "mean", "mean"], "ln/FusedBatchNormV3"),
    ]
    outcome, groups = unchecked(run, write(tmp_path, model(tensors, nodes)))
    assert outcome.exit_code == 3
    assert bool(groups) != filled


@pytest.mark.parametrize(
    ("mean", "variance", "is_said"),
    [
        ("zeros", "ones", "its moving_mean and moving_variance are filled with one number"),
        ("bn.running_mean", "variance", "its moving_variance is computed by other nodes"),
        ("mean", "ones", "its moving_variance is filled with one number"),
        ("mean", "of_input", "its moving_variance is given to the model as input"),
    ],
)
def test_bn_whose_gamma_is_filled_is_not_passed_over(
    run: Run, tmp_path: Path, mean: str, variance: str, is_said: str
) -> None:
    """As in BN without scale, and statistics that an exporter wrote as one number."""
    stored = {role: array for role, array in members().items() if role != "gamma"}
    constants = {"one": np.array(1.0, "f4"), "count": np.array([3], "i8")}
    tensors = [*named(stored), *(numpy_helper.from_array(v, n) for n, v in constants.items())]
    nodes = [
        helper.make_node("Expand", ["one", "count"], ["ones"]),
        helper.make_node("ConstantOfShape", ["count"], ["zeros"]),
        helper.make_node("Expand", ["given", "count"], ["of_input"]),
        helper.make_node("ReduceMean", ["x"], ["mean"]),
        helper.make_node("ReduceMean", ["x"], ["variance"]),
        bn_node(["ones", "bn.bias", mean, variance], "bn"),
    ]
    made = model(tensors, nodes, inputs=("x", "given"))
    outcome, groups = unchecked(run, write(tmp_path, made))
    assert outcome.exit_code == 3
    assert is_said in dict(groups)["bn"]


def test_a_shape_is_no_statistic(run: Run, tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1, 3], "i8"), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Squeeze", ["zeros"], ["mean"]),
        bn_node(["bn.weight", "bn.bias", "mean", "bn.running_var"], "bn"),
    ]
    outcome, groups = unchecked(run, write(tmp_path, model([*named(members()), shape], nodes)))
    assert outcome.exit_code == 3
    assert "its moving_mean is filled with one number" in dict(groups)["bn"]


def test_a_node_of_another_domain_is_no_bn(run: Run, tmp_path: Path) -> None:
    tensors = named(STUCK)
    node = bn_node([one.name for one in tensors])
    node.domain = "com.example"
    assert run("check", write(tmp_path, model(tensors, [node]))).exit_code == 3
    node.domain = "ai.onnx"
    assert run("check", write(tmp_path, model(tensors, [node]))).exit_code == 1


def test_statistics_that_no_node_takes_are_not_checked(run: Run, tmp_path: Path) -> None:
    """Beside a healthy layer, BN that was written out as other operations is no pass by silence."""
    tensors = named(members(), "first")
    nodes = [
        bn_node([one.name for one in tensors], "first"),
        helper.make_node("Sub", ["first_y", "second.running_mean"], ["centered"]),
    ]
    made = model([*tensors, *named(STUCK, "second")], nodes)
    _, groups = unchecked(run, write(tmp_path, made))
    ((name, reason),) = groups
    assert name == "second"
    assert "no BatchNormalization node takes its moving_mean and moving_variance" in reason


def test_a_pattern_names_what_no_node_says(run: Run, tmp_path: Path) -> None:
    """Such as BN that was written out as other operations."""
    tensors = named(STUCK, "net.bn")
    path = write(tmp_path, model(tensors, [helper.make_node("Relu", ["x"], ["y"])]))
    assert run("check", path).exit_code == 3
    patterns = (
        *("--pattern", r"moving_mean=\.running_mean$"),
        *("--pattern", r"moving_variance=\.running_var$"),
    )
    outcome = run("check", path, *patterns, "--format", "json")
    assert outcome.exit_code == 1
    assert [finding["layer"] for finding in outcome.json["checkpoints"][0]["findings"]] == [
        "net.bn"
    ]


# --- Names and families ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "node", "producer", "layer", "family"),
    [
        (
            ("a.b.weight", "a.b.bias", "a.b.running_mean", "a.b.running_var"),
            "",
            "",
            "a.b",
            "pytorch",
        ),
        (("1", "2", "3", "4"), "/layer1/bn/BatchNormalization", "pytorch", "layer1/bn", "pytorch"),
        (("1", "2", "3", "4"), "", "", "bn_y", "onnx"),
        (("1", "2", "3", "4"), "BatchNormalization_7", "", "BatchNormalization_7", "onnx"),
        (("n/bn_scale", "n/bn_B", "n/bn_mean", "n/bn_var"), "", "", "n/bn", "onnx"),
        # MXNet, Paddle, keras2onnx
        (
            tuple(f"net_bn0_{x}" for x in ("gamma", "beta", "running_mean", "running_var")),
            "net_bn0_fwd",
            "",
            "net_bn0",
            "onnx",
        ),
        (("bn_0.w_0", "bn_0.b_0", "bn_0.w_1", "bn_0.w_2"), "", "PaddlePaddle", "bn_0", "onnx"),
        (
            tuple(f"batch_normalization_1/{role}:0" for role in ROLES),
            "batch_normalization_1",
            "keras2onnx",
            "batch_normalization_1",
            "keras",
        ),
        (
            tuple(f"m/bn/{x}:0" for x in ("ReadVariableOp", "ReadVariableOp_1"))
            + tuple(
                f"m/bn/FusedBatchNormV3/{x}" for x in ("ReadVariableOp:0", "ReadVariableOp_1:0")
            ),
            "m/bn/FusedBatchNormV3",
            "tf2onnx",
            "m/bn",
            "keras",
        ),
        (
            tuple(f"net/BatchNorm/{role}/read:0" for role in ROLES),
            "net/BatchNorm/FusedBatchNorm",
            "tf2onnx",
            "net/BatchNorm",
            "slim",
        ),
        (tuple(f"net/own/{role}:0" for role in ROLES), "", "tf2onnx", "net/own", "custom-scope"),
    ],
)
def test_names_say_what_a_layer_is(
    run: Run,
    tmp_path: Path,
    names: tuple[str, ...],
    node: str,
    producer: str,
    layer: str,
    family: str,
) -> None:
    tensors = [
        numpy_helper.from_array(array, name)
        for name, array in zip(names, members().values(), strict=True)
    ]
    made = model(tensors, [bn_node(names, node)], producer=producer)
    made.graph.node[0].output[0] = "bn_y"
    (found,) = listed(run, write(tmp_path, made))["layers"]
    assert (found["name"], found["family"]) == (layer, family)
    assert found["variables"] == dict(zip(ROLES, names, strict=True))


def test_tensors_that_are_stored_once_do_not_mix_layers_up(run: Run, tmp_path: Path) -> None:
    """tf2onnx gives a stuck layer the statistics of another one, by their names."""
    first = {role: f"net/a/{role}:0" for role in ROLES}
    second = first | {role: f"net/b/{role}:0" for role in ("gamma", "beta")}
    tensors = [numpy_helper.from_array(STUCK[role], name) for role, name in first.items()]
    tensors += [numpy_helper.from_array(STUCK[role], second[role]) for role in ("gamma", "beta")]
    nodes = [
        bn_node([*first.values()], "net/a/FusedBatchNormV3"),
        bn_node([*second.values()], "net/b/FusedBatchNormV3"),
    ]
    layers = listed(run, write(tmp_path, model(tensors, nodes)))["layers"]
    assert [layer["name"] for layer in layers] == ["net/a", "net/b"]
    assert layers[1]["variables"] == second


def test_a_layer_that_is_used_twice_is_one(run: Run, tmp_path: Path) -> None:
    tensors = named(members())
    names = [one.name for one in tensors]
    path = write(tmp_path, model(tensors, [bn_node(names, "a"), bn_node(names, "b")]))
    assert [layer["name"] for layer in listed(run, path)["layers"]] == ["bn"]


def test_layers_of_one_name_are_numbered(run: Run, tmp_path: Path) -> None:
    tensors = [
        numpy_helper.from_array(array, f"{tens}{number}")
        for tens in (1, 2)
        for number, array in enumerate(members().values())
    ]
    names = [one.name for one in tensors]
    nodes = [bn_node(names[:4], "same"), bn_node(names[4:], "same")]
    layers = listed(run, write(tmp_path, model(tensors, nodes)))["layers"]
    assert [layer["name"] for layer in layers] == ["same#1of2", "same#2of2"]


# --- Attributes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "attributes", "outputs", "in_training"),
    [
        (15, {}, 1, False),
        (15, {"training_mode": 1}, 3, True),
        (14, {"training_mode": 0}, 1, False),
        (9, {}, 1, False),
        (9, {}, 5, True),
        (7, {"spatial": 1}, 1, False),
        (6, {"is_test": 1}, 1, False),
        (6, {"is_test": 1}, 5, False),
        (6, {"is_test": 0}, 5, True),
        (1, {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]}, 1, False),
    ],
)
def test_each_opset_says_in_its_way_how_a_node_normalizes(
    run: Run,
    tmp_path: Path,
    opset: int,
    attributes: dict[str, Any],
    outputs: int,
    in_training: bool,
) -> None:
    tensors = named(members())
    names = [f"y{number}" for number in range(outputs)]
    node = bn_node([one.name for one in tensors], outputs=names, **attributes)
    path = write(tmp_path, model(tensors, [node], opset=opset))
    (item,) = run("list", path, "--graph", "--format", "json").json["checkpoints"]
    (layer,) = item["layers"]
    assert layer["graph"]["source"] == "onnx"
    assert layer["graph"]["is_training"] == [in_training]
    assert any("training mode" in note for note in item["notes"]) == in_training
    assert ("training_mode" in run("list", path, "--graph").out) == in_training


@pytest.mark.parametrize(
    ("attributes", "momentum", "epsilon"),
    [
        ({}, None, 1e-5),
        ({"momentum": 0.875, "epsilon": 0.5}, 0.875, 0.5),
        # PyTorch writes 1 for momentum=0 and for momentum=None.
        ({"momentum": 1.0}, None, 1e-5),
        ({"momentum": float("nan"), "epsilon": float("nan")}, None, None),
    ],
)
def test_momentum_and_epsilon(
    run: Run,
    tmp_path: Path,
    attributes: dict[str, float],
    momentum: float | None,
    epsilon: float | None,
) -> None:
    tensors = named(members())
    path = write(tmp_path, model(tensors, [bn_node([one.name for one in tensors], **attributes)]))
    (layer,) = listed(run, path)["layers"]
    assert (layer["momentum"], layer["epsilon"]) == (momentum, epsilon)


def test_a_momentum_of_one_is_suspected_and_not_proved(run: Run, tmp_path: Path) -> None:
    tensors = named(STUCK)
    node = bn_node([one.name for one in tensors], momentum=1.0)
    path = write(tmp_path, model(tensors, [node], producer="pytorch"))
    (finding,) = run("check", path, "--format", "json").json["checkpoints"][0]["findings"]
    assert finding["cause"] is None
    assert finding["possible_causes"][0]["cause"] == "momentum-one"


# --- What the exporter fills in -------------------------------------------------------------------


def filled_in(gamma: str, value: float) -> onnx.ModelProto:
    """A stuck layer without gamma and beta of its own."""
    arrays = STUCK | {"gamma": np.full(3, value, "f4"), "beta": np.zeros(3, "f4")}
    tensors = named({role: arrays[role] for role in ROLES[2:]})
    tensors += [
        numpy_helper.from_array(arrays[role], name)
        for role, name in (("gamma", gamma), ("beta", "val_2"))
    ]
    return model(tensors, [bn_node([gamma, "val_2", "bn.running_mean", "bn.running_var"])])


def test_constants_of_the_exporter_are_no_gamma_of_the_layer(run: Run, tmp_path: Path) -> None:
    """With them a stuck layer would look as if nothing had trained it."""
    outcome = run("check", write(tmp_path, filled_in("val_1", 1.0)), "--format", "json")
    (item,) = outcome.json["checkpoints"]
    assert item["layers"][0]["variables"]["gamma"] is None
    assert [finding["rule"] for finding in item["findings"]] == ["BN101"]


def merged(mean: str, variance: str) -> onnx.ModelProto:
    """A stuck layer whose gamma is stored with its variance, and beta with its mean."""
    arrays = {mean: STUCK["moving_mean"], variance: STUCK["moving_variance"]}
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return model(tensors, [bn_node([variance, mean, mean, variance])])


@pytest.mark.parametrize(
    "names",
    [
        ("bn.running_mean", "bn.running_var"),  # PyTorch's newer exporter
        ("a/FusedBatchNormV3/ReadVariableOp:0", "b/FusedBatchNormV3/ReadVariableOp_1:0"),  # tf2onnx
        ("a/FusedBatchNormV3/ReadVariableOp:0", "b/Const:0"),
    ],
)
def test_statistics_that_stand_for_equal_constants_are_no_gamma(
    run: Run, tmp_path: Path, names: tuple[str, str]
) -> None:
    """Equal tensors are stored once: the filled-in 1 and 0 as the statistics that equal them."""
    outcome = run("check", write(tmp_path, merged(*names)), "--format", "json")
    (item,) = outcome.json["checkpoints"]
    assert item["layers"][0]["variables"]["gamma"] is None
    assert item["layers"][0]["variables"]["beta"] is None
    assert [finding["rule"] for finding in item["findings"]] == ["BN101"]


def test_a_parameter_that_stands_for_equal_statistics_is_gamma(run: Run, tmp_path: Path) -> None:
    outcome = run("check", write(tmp_path, merged("bn.bias", "bn.weight")), "--format", "json")
    (item,) = outcome.json["checkpoints"]
    assert item["layers"][0]["variables"]["gamma"] == "bn.weight"
    assert [finding["rule"] for finding in item["findings"]] == ["BN105"]


def test_other_values_are_gamma_whatever_their_name(run: Run, tmp_path: Path) -> None:
    (layer,) = listed(run, write(tmp_path, filled_in("val_1", 0.5)))["layers"]
    assert layer["variables"]["gamma"] == "val_1"


# --- Advice ---------------------------------------------------------------------------------------


def test_a_model_of_pytorch_gets_no_advice_for_tensorflow(run: Run, tmp_path: Path) -> None:
    changes = {
        "stuck": STUCK,
        "mean": members() | {"moving_mean": np.zeros(3, "f4")},
        "variance": members() | {"moving_variance": np.ones(3, "f4")},
        "negative": members() | {"moving_variance": -np.ones(3, "f4")},
        "infinite": members() | {"moving_variance": np.full(3, np.inf, "f4")},
        "untouched": STUCK | {"gamma": np.ones(3, "f4"), "beta": np.zeros(3, "f4")},
    }
    for name, arrays in changes.items():
        path = write(tmp_path, model(named(arrays), producer="pytorch"), f"{name}.onnx")
        outcome = run("check", path)
        assert "BN" in outcome.out
        for word in ("tf.", "Keras", "keras", "UPDATE_OPS", "model.fit", "training=True"):
            assert word not in outcome.out, (name, word, outcome.out)


def test_a_half_precision_export_is_no_half_precision_training(run: Run, tmp_path: Path) -> None:
    arrays = {role: array.astype("f2") for role, array in members().items()}
    outcome = run("check", write(tmp_path, model(named(arrays))))
    assert outcome.exit_code == 0
    assert "BN305" not in outcome.out


@pytest.mark.parametrize(("momentum", "is_named"), [(0.9999, True), (0.99, False)])
def test_a_slow_momentum_without_a_step_is_not_judged(
    run: Run, tmp_path: Path, momentum: float, is_named: bool
) -> None:
    """It takes some 30,000 updates, and no ONNX model says how many there were."""
    tensors = named(members())
    node = bn_node([one.name for one in tensors], momentum=momentum)
    (item,) = run("check", write(tmp_path, model(tensors, [node])), "--format", "json").json[
        "checkpoints"
    ]
    assert item["findings"] == []
    notes = [note for note in item["notes"] if "BN106 was not judged: no step" in note]
    assert bool(notes) == is_named
    assert all("29956 updates" in note for note in notes)
