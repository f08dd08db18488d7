"""TensorFlow.js models: what is found in them, which files they are, and what is said of them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from bninspect import check, open_checkpoint
from tests.conftest import FIXTURES, load_fixture

CORRECT = FIXTURES / "tfjs_layers_correct"
SOUND = FIXTURES / "keras2_functional_correct" / "model.h5"
STUCK = FIXTURES / "tfjs_layers_stuck"
ROLES = ("gamma", "beta", "moving_mean", "moving_variance")


@pytest.fixture
def folder(tmp_path):
    """A copy of a model in seven shards, which may be changed."""
    return shutil.copytree(CORRECT, tmp_path / "model")


def document(folder):
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))


def write(folder, contents):
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(json.dumps(contents), encoding="utf-8")


def report_of(path):
    (report,) = check(str(path)).checkpoints
    return report


def weights(values):
    """The manifest of some float32 arrays by name, and their bytes."""
    entries = [
        {"name": name, "shape": list(array.shape), "dtype": "float32"}
        for name, array in values.items()
    ]
    data = b"".join(array.astype("<f4").tobytes() for array in values.values())
    return [{"paths": ["group1-shard1of1.bin"], "weights": entries}], data


def graph_model(folder, nodes, values):
    """A graph model whose constants have these values, as a converter before 1.0 leaves it."""
    manifest, data = weights(values)
    constants = [{"name": name, "op": "Const"} for name in values]
    write(
        folder,
        {
            "format": "graph-model",
            "generatedBy": "1.13.1",
            "convertedBy": "TensorFlow.js Converter v1.0.0",
            "modelTopology": {"node": [*constants, *nodes]},
            "weightsManifest": manifest,
        },
    )
    (folder / "group1-shard1of1.bin").write_bytes(data)


def statistics(stuck):
    moved = np.arange(3) + 0.5
    return dict(
        zip(
            ROLES,
            (moved, moved, np.zeros(3) if stuck else moved, np.ones(3) if stuck else moved),
            strict=True,
        )
    )


# --- Which files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "model.json", "group1-shard1of7.bin", "group1-shard7of7.bin"])
def test_every_file_leads_to_the_model(run, name):
    (found,) = run("check", CORRECT / name, "--format", "json").json["checkpoints"]
    assert found["error"] is None
    assert found["resolved"] == str(CORRECT / "model.json")
    assert len(found["layers"]) == 2


def test_a_search_counts_a_model_once(run, tmp_path):
    shutil.copytree(CORRECT, tmp_path / "one")
    shutil.copytree(STUCK, tmp_path / "two")
    (tmp_path / "tsconfig.json").write_text('{"compilerOptions": {}}', encoding="utf-8")
    (tmp_path / "other.json").write_text('{"format": "prettier"}', encoding="utf-8")
    outcome = run("check", tmp_path, "--format", "json")
    assert [one["path"] for one in outcome.json["checkpoints"]] == [
        str(tmp_path / name / "model.json") for name in ("one", "two")
    ]
    assert outcome.exit_code == 1


def test_the_name_of_the_json_is_free(tmp_path, folder):
    (folder / "model.json").rename(folder / "net.json")
    (report,) = check(str(folder)).checkpoints
    assert report.error is None
    assert len(report.layers) == 2


def test_weights_that_tensorflow_js_saved_itself(run, tmp_path):
    """`model.save('file://…')` and downloads: one file of weights, and `./` before its name."""
    manifest, data = weights({f"bn/{role}": one for role, one in statistics(stuck=True).items()})
    manifest[0]["paths"] = ["./net.weights.bin"]
    layer = {"class_name": "BatchNormalization", "config": {"name": "bn", "momentum": 0.9}}
    topology = {
        "class_name": "Sequential",
        "config": {"name": "net", "layers": [layer]},
        "keras_version": "tfjs-layers 4.22.0",
        "backend": "tensor_flow.js",
    }
    contents = {
        "modelTopology": topology,
        "format": "layers-model",
        "generatedBy": "TensorFlow.js tfjs-layers v4.22.0",
        "convertedBy": None,
        "weightsManifest": manifest,
    }
    (tmp_path / "net.json").write_text(json.dumps(contents), encoding="utf-8")
    (tmp_path / "net.weights.bin").write_bytes(data)
    for typed in (tmp_path, tmp_path / "net.json", tmp_path / "net.weights.bin"):
        (found,) = run("check", typed, "--format", "json").json["checkpoints"]
        assert [one["rule"] for one in found["findings"]] == ["BN101"]
        fix = found["findings"][0]["fix"]
        assert "{training: true}" in fix
        assert "convert the model again" not in fix
        assert "compiled" not in str(found["findings"][0]["evidence"])
        assert "Keras" not in str(found["findings"][0]["possible_causes"])


def test_the_fingerprint_changes_with_the_shards(folder):
    from bninspect.locate.discover import discover
    from bninspect.locate.fingerprint import fingerprint_of

    shutil.move(folder / "group1-shard1of7.bin", folder / "group1-shard1of1.bin")
    contents = document(folder)
    contents["weightsManifest"][0]["paths"][0] = "group1-shard1of1.bin"
    write(folder, contents)
    (location,) = discover(str(folder))
    before = fingerprint_of(location)
    shard = folder / "group1-shard1of1.bin"
    shard.write_bytes(shard.read_bytes() + b"\0")
    assert before is not None
    assert fingerprint_of(location) != before


# --- Missing and wrong parts ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 4, 7])
def test_a_missing_shard_is_incomplete(run, folder, number):
    shard = folder / f"group1-shard{number}of7.bin"
    shard.unlink()
    (found,) = run("check", folder, "--format", "json").json["checkpoints"]
    assert found["error"]["kind"] == "incomplete"
    assert shard.name in found["error"]["message"] + report_of(folder).error.path
    (found,) = run("list", folder, "--format", "json").json["checkpoints"]
    assert [layer["name"] for layer in found["layers"]] == ["bn1", "bn2"]


def test_a_short_shard_is_incomplete(folder):
    shard = folder / "group1-shard7of7.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert report_of(folder).error.kind == "incomplete"


def test_a_git_lfs_pointer_is_incomplete(folder):
    (folder / "group1-shard1of7.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    error = report_of(folder).error
    assert error.kind == "incomplete"
    assert "Git LFS" in str(error)


def test_json_that_is_a_git_lfs_pointer_is_reported(run, tmp_path, folder):
    (folder / "model.json").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    shutil.copytree(CORRECT, tmp_path / "sound")
    outcome = run("check", tmp_path, "--format", "json")
    assert outcome.exit_code == 2
    errors = [one["error"] for one in outcome.json["checkpoints"]]
    assert [error and "Git LFS" in error["message"] for error in errors] == [True, None]


def test_shards_of_another_model_are_refused(folder):
    shard = folder / "group1-shard7of7.bin"
    shard.write_bytes(shard.read_bytes() + b"\0\0\0\0")
    error = report_of(folder).error
    assert error.kind == "corrupt"
    assert "manifest counts" in str(error)


@pytest.mark.parametrize(
    "path",
    [
        "../model/group1-shard1of7.bin",
        "a/../../x.bin",
        "/etc/hostname",
        "https://example.org/x.bin",
        "s3://bucket/x.bin",
        "..",
        "",
        "a\\..\\x.bin",
        "x\0.bin",
        "shards/",
        7,
        None,
    ],
)
def test_no_file_elsewhere_is_opened(folder, path, monkeypatch):
    contents = document(folder)
    contents["weightsManifest"][0]["paths"][0] = path
    write(folder, contents)
    error = report_of(folder).error
    assert error.kind == "corrupt"
    assert "its own directory" in str(error)


def test_shards_may_lie_below_the_json(folder):
    (folder / "shards").mkdir()
    contents = document(folder)
    paths = contents["weightsManifest"][0]["paths"]
    for name in paths:
        (folder / name).rename(folder / "shards" / name)
    contents["weightsManifest"][0]["paths"] = [f"./shards/{name}" for name in paths]
    write(folder, contents)
    assert report_of(folder).error is None


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1 << 62, 1 << 62]},
        {"shape": [10**30]},
        {"shape": [-1]},
        {"shape": "4"},
        {"shape": [4.0]},
        {"shape": [1] * 100},
        {"dtype": "float128"},
        {"dtype": ["float32"]},
        {"name": None},
        {"name": "bn1/beta"},
        {"quantization": {"dtype": "uint8"}},
        {"quantization": {"dtype": "uint8", "scale": True, "min": 0}},
        {"quantization": {"dtype": "int4", "scale": 1, "min": 0}},
        {"quantization": []},
    ],
    ids=str,
)
def test_a_wrong_entry_is_one_sentence(run, folder, change):
    contents = document(folder)
    contents["weightsManifest"][0]["weights"][0] |= change
    write(folder, contents)
    outcome = run("check", folder, "--format", "json")
    assert outcome.exit_code == 2
    assert outcome.json["checkpoints"][0]["error"]["kind"] in {
        "corrupt",
        "incomplete",
        "unsupported",
    }


@pytest.mark.parametrize("length", [0, 8, 40, 3000])
def test_json_that_was_cut_short_is_reported(run, tmp_path, folder, length):
    text = (folder / "model.json").read_bytes()
    (folder / "model.json").write_bytes(text[:length])
    (tmp_path / "sound.h5").write_bytes(SOUND.read_bytes())
    outcome = run("check", tmp_path)
    assert outcome.exit_code == 2
    assert "model.json: this JSON was cut short" in outcome.said or length == 0
    assert "this file is empty" in outcome.said or length


def test_a_shard_alone_is_called_so(run, tmp_path, folder):
    (folder / "model.json").unlink()
    shard = next(folder.glob("*.bin"))
    assert "a shard of a TensorFlow.js model" in run("check", shard).said


def test_a_byte_order_mark_is_skipped(run, folder):
    """Editors of Windows write one, and browsers read such a model."""
    path = folder / "model.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    for given in (folder, path, next(folder.glob("*.bin"))):
        assert run("check", given).exit_code == 0


def test_the_list_of_weights_of_an_old_model_is_called_so(run, folder):
    """Converters before 1.0 wrote it beside tensorflowjs_model.pb."""
    manifest = document(folder)["weightsManifest"]
    (folder / "model.json").unlink()
    (folder / "weights_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for path in (folder, folder / "weights_manifest.json"):
        outcome = run("check", path)
        assert outcome.exit_code == 2
        assert "list of a TensorFlow.js model's weights" in outcome.said
        assert "convert that again" in outcome.said


def test_json_of_other_tools_is_no_model(run, tmp_path):
    (tmp_path / "model.json").write_text('{"class_name": "Sequential", "config": {}}', "utf-8")
    outcome = run("check", tmp_path / "model.json")
    assert outcome.exit_code == 2
    assert "architecture of a Keras model" in outcome.err + outcome.out


# --- Layers models --------------------------------------------------------------------------------


def test_the_configuration_is_evidence(run):
    (found,) = run("check", STUCK, "--format", "json").json["checkpoints"]
    assert {one["cause"] for one in found["findings"]} == {"built-with-training-false"}
    assert all(one["fix"].endswith("Then convert the model again.") for one in found["findings"])
    assert found["layers"][0]["momentum"] == 0.9
    assert found["layers"][0]["epsilon"] == 0.001


def test_strings_before_the_statistics_are_skipped(folder):
    contents = document(folder)
    entry = {"name": "words", "shape": [2], "dtype": "string"}
    words = b"\x03\0\0\0abc\0\0\0\0"
    contents["weightsManifest"][0]["weights"].insert(0, entry)
    contents["weightsManifest"][0]["paths"].insert(0, "words.bin")
    write(folder, contents)
    (folder / "words.bin").write_bytes(words)
    with open_checkpoint(str(folder)) as changed, open_checkpoint(str(CORRECT)) as original:
        for name, variable in original.variables.items():
            np.testing.assert_array_equal(changed.variables[name].read(), variable.read())


# --- Graph models ---------------------------------------------------------------------------------

FUSED = {"op": "FusedBatchNormV3", "attr": {"is_training": {"b": False}}}


@pytest.mark.parametrize("stuck", [True, False])
def test_fused_nodes_tell_the_roles_of_constants(tmp_path, stuck):
    """Constants that a function of TensorFlow 2 read have no names of statistics."""
    names = [f"net/bn1/ReadVariableOp{end}" for end in ("", "_1", "_2", "_3")]
    values = dict(zip(names, statistics(stuck).values(), strict=True))
    passed = {"name": "net/bn1/mean", "op": "Identity", "input": [names[2]]}
    node = {"name": "net/bn1/FusedBatchNormV3", **FUSED}
    node["input"] = ["x", names[0], names[1], "net/bn1/mean", f"{names[3]}:0"]
    graph_model(tmp_path / "model", [passed, node], values)
    report = report_of(tmp_path / "model")
    (layer,) = report.layers
    assert layer.name == "net/bn1"
    assert {role: one.name for role, one in layer.variables.items()} == dict(
        zip(ROLES, names, strict=True)
    )
    assert [finding.rule.code for finding in report.findings] == (["BN101"] if stuck else [])


@pytest.mark.parametrize(
    "shared",
    [
        {"moving_mean": "zeros", "moving_variance": "ones"},  # by both layers
        {"beta": "zeros", "moving_mean": "zeros"},  # by two roles of each
        {"moving_mean": "a/moving_mean", "moving_variance": "a/moving_variance"},
    ],
)
def test_layers_that_share_equal_constants_are_each_found(tmp_path, shared):
    """TensorFlow's optimizer of graphs keeps one of several equal constants."""
    values, nodes = {"zeros": np.zeros(3), "ones": np.ones(3)}, []
    for name in "ab":
        members = {role: f"{name}/{role}" for role in ROLES} | shared
        values |= {f"{name}/{role}": one for role, one in statistics(stuck=True).items()}
        node = {"name": f"{name}/FusedBatchNormV3", **FUSED, "input": ["x", *members.values()]}
        nodes.append(node)
    used = {name for node in nodes for name in node["input"]}
    graph_model(tmp_path / "model", nodes, {name: values[name] for name in values if name in used})
    report = report_of(tmp_path / "model")
    assert [layer.name for layer in report.layers] == ["a", "b"]
    assert [(one.layer, one.rule.code) for one in report.findings] == [
        ("a", "BN101"),
        ("b", "BN101"),
    ]


def test_nodes_that_take_the_same_constants_are_one_layer(tmp_path):
    values = {f"bn/{role}": one for role, one in statistics(stuck=False).items()}
    nodes = [
        {"name": f"{name}/FusedBatchNormV3", **FUSED, "input": ["x", *values]}
        for name in ("first", "second")
    ]
    graph_model(tmp_path / "model", nodes, values)
    assert [layer.name for layer in report_of(tmp_path / "model").layers] == ["first"]


def test_a_computed_gamma_hides_no_statistics(tmp_path):
    values = {f"bn/{role}": one for role, one in statistics(stuck=True).items() if role != "gamma"}
    node = {"name": "bn/FusedBatchNormV3", **FUSED, "input": ["x", "bn/Exp", *values]}
    graph_model(tmp_path / "model", [node], values)
    (finding,) = report_of(tmp_path / "model").findings
    assert (finding.layer, finding.rule.code) == ("bn", "BN101")


@pytest.mark.parametrize(
    ("is_training", "mean", "reason"),
    [(True, "weights/moving_mean", "moments of each batch"), (False, "bn/Mean", "computed")],
)
def test_a_node_without_stored_statistics_is_not_checked(run, tmp_path, is_training, mean, reason):
    values = {f"layer/w{n}": one for n, one in enumerate(statistics(stuck=False).values())}
    node = {
        "name": "bn/FusedBatchNorm",
        "op": "FusedBatchNormV3",
        "attr": {"is_training": {"b": is_training}},
        "input": ["x", "layer/w0", "layer/w1", mean, "layer/w3"],
    }
    graph_model(tmp_path / "model", [node], values)
    outcome = run("check", tmp_path / "model", "--format", "json")
    assert outcome.exit_code == 3
    (found,) = outcome.json["checkpoints"]
    ((name, why),) = [(group["name"], group["reason"]) for group in found["unchecked"]]
    assert name == "bn"
    assert reason in why


def test_layer_normalization_by_a_fused_node_is_no_bn(run, tmp_path):
    """Keras 2 normalizes each sample by it, with a gamma that it fills with 1 for each of them."""
    filled = {"name": "norm/ones", "op": "Fill", "input": ["samples", "one"]}
    node = {
        "name": "norm/FusedBatchNormV3",
        "op": "FusedBatchNormV3",
        "attr": {"is_training": {"b": True}},
        "input": ["x", "norm/ones", "norm/zeros", "norm/Const", "norm/Const_1"],
    }
    graph_model(tmp_path / "model", [filled, node], {"dense/kernel": np.ones(3)})
    outcome = run("check", tmp_path / "model", "--format", "json")
    assert outcome.exit_code == 3
    (found,) = outcome.json["checkpoints"]
    assert found["error"] is None
    assert found.get("unchecked", []) == []


def test_names_of_tensorflow_1_tell_the_family(tmp_path):
    values = {f"Conv/BatchNorm/{role}": one for role, one in statistics(stuck=True).items()}
    node = {"name": "Conv/BatchNorm/FusedBatchNorm", **FUSED, "op": "FusedBatchNorm"}
    graph_model(tmp_path / "model", [node | {"input": ["x", *values]}], values)
    report = report_of(tmp_path / "model")
    assert [layer.family for layer in report.layers] == ["slim"]
    assert [finding.rule.code for finding in report.findings] == ["BN101"]


def test_one_statistic_that_is_left_was_folded(run, tmp_path):
    """Of (x - mean) * constant the mean alone keeps its name: no half of a layer (BN202)."""
    values = {"bn/gamma": np.ones(3), "bn/pop_mean": np.arange(3.0), "bn/mul": np.ones(3)}
    node = {"name": "bn/sub", "op": "Sub", "input": ["x", "bn/pop_mean"]}
    graph_model(tmp_path / "model", [node], values)
    outcome = run("check", tmp_path / "model", "--format", "json")
    assert outcome.exit_code == 3
    (found,) = outcome.json["checkpoints"]
    assert [group["name"] for group in found["unchecked"]] == ["bn"]


@pytest.mark.parametrize("stem", ["tfjs_graph_folded", "tfjs1_graph_folded"])
def test_folded_layers_are_not_checked(run, stem):
    fixture = load_fixture(stem)
    outcome = run("check", fixture.path, "--format", "json")
    assert outcome.exit_code == 3
    (found,) = outcome.json["checkpoints"]
    assert [group["name"] for group in found["unchecked"]] == fixture.expected["unchecked"]
    (note,) = found["notes"]
    assert "folded into other constants by the converter" in note


@pytest.mark.parametrize("topology", [{"node": []}, {"node": 5}, {"node": [3]}, {"node": {}}])
def test_a_topology_that_is_no_graph(folder, topology):
    contents = document(folder)
    contents["modelTopology"] = topology
    write(folder, contents)
    assert report_of(folder).error.kind == "corrupt"


@pytest.mark.framework
def test_a_graph_whose_values_are_elsewhere_is_not_zero(run, tmp_path):
    """As converters before 1.0 left tensorflowjs_model.pb: constants without their values."""
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    graph.ParseFromString(load_fixture("frozen_keras2_stuck").path.read_bytes())
    for node in graph.node:
        if node.op == "Const":
            for field in ("tensor_content", "float_val", "int_val"):
                node.attr["value"].tensor.ClearField(field)
    (tmp_path / "tensorflowjs_model.pb").write_bytes(graph.SerializeToString())
    outcome = run("check", tmp_path / "tensorflowjs_model.pb", "--format", "json")
    assert outcome.exit_code == 2
    (found,) = outcome.json["checkpoints"]
    assert found["error"]["kind"] == "unsupported"
    assert "no values" in found["error"]["message"]


# --- Quantized weights ----------------------------------------------------------------------------


def quantized(folder, values, dtype, roles=ROLES):
    """A layers model with BN `bn`, `roles` quantized as tensorflowjs/quantization.py does."""
    entries, data = [], b""
    for role, array in values.items():
        entry = {"name": f"bn/{role}", "shape": [array.size], "dtype": "float32"}
        if role not in roles:
            entries.append(entry)
            data += array.astype("<f4").tobytes()
            continue
        if dtype == "float16":
            with np.errstate(over="ignore"):
                stored, more = array.astype("<f2"), {}
        else:
            low, high = float(array.min()), float(array.max())
            steps = np.iinfo(dtype).max
            scale = (high - low) / steps or 1.0
            if low < 0 < high:
                low = -np.round(-low / scale) * scale
            stored = np.round((array - low) / scale).astype(dtype)
            more = {"scale": scale, "min": low}
        entries.append(entry | {"quantization": {"dtype": dtype, **more}})
        data += stored.tobytes()
    layer = {"class_name": "BatchNormalization", "config": {"name": "bn", "momentum": 0.9}}
    model = {"class_name": "Sequential", "config": {"name": "net", "layers": [layer]}}
    write(
        folder,
        {
            "format": "layers-model",
            "modelTopology": {"keras_version": "2.15.0", "model_config": model},
            "weightsManifest": [{"paths": ["weights.bin"], "weights": entries}],
        },
    )
    (folder / "weights.bin").write_bytes(data)
    return report_of(folder)


def codes(report):
    return [(finding.rule.code, finding.severity) for finding in report.findings]


MOVED = np.array([0.5, 2.0, -1.0, 3.0])


def values_with(mean, variance):
    return dict(zip(ROLES, (MOVED, MOVED, np.array(mean), np.array(variance)), strict=True))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
def test_stuck_statistics_show_whatever_they_were_quantized_to(tmp_path, dtype):
    report = quantized(tmp_path / "model", values_with([0.0] * 4, [1.0] * 4), dtype)
    assert codes(report) == [("BN101", "error")]
    (finding,) = report.findings
    what = "stored as" if dtype == "float16" else "quantized to"
    assert any(f"{what} {dtype}" in fact for fact in finding.evidence)
    assert ("still" in finding.message) == (dtype != "float16")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_one_stuck_statistic_shows_in_whole_numbers(tmp_path, dtype):
    mean_stuck = quantized(tmp_path / "a", values_with([0.0] * 4, [0.5, 0.7, 0.6, 2.0]), dtype)
    assert codes(mean_stuck) == [("BN102", "error")]
    variance_stuck = quantized(tmp_path / "b", values_with(MOVED, [1.0] * 4), dtype)
    assert codes(variance_stuck) == [("BN103", "error")]


def test_only_what_was_quantized_is_named(tmp_path):
    """The converter quantizes what a pattern of names picks."""
    values = values_with([0.0] * 4, [1.0] * 4)
    (finding,) = quantized(tmp_path / "a", values, "float16", ["moving_variance"]).findings
    assert finding.message.endswith(", moving_variance as float16 stores it")
    assert not any("moving_mean" in fact for fact in finding.evidence)
    values = values_with(MOVED, [1e6, 1.0, 2.0, 3.0])
    (finding,) = quantized(tmp_path / "b", values, "float16").findings
    assert not any("moving_mean" in fact for fact in finding.evidence)


def test_one_statistic_that_float16_rounds_is_a_note(tmp_path):
    mean = quantized(tmp_path / "a", values_with([2e-9] * 4, [0.5, 0.7, 0.6, 2.0]), "float16")
    assert codes(mean) == [("BN102", "note")]
    assert "is lost" in mean.findings[0].message
    variance = quantized(tmp_path / "b", values_with(MOVED, [1.0002] * 4), "float16")
    assert codes(variance) == [("BN103", "note")]
    both = quantized(tmp_path / "c", values_with([1e-9] * 4, [1e-9] * 4), "float16")
    assert codes(both) == [("BN102", "note")]
    assert "exactly" not in both.findings[0].message


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
def test_rounded_channels_are_not_judged(tmp_path, dtype):
    """A mean of 1e-9 becomes 0, and variances below the step the least of all: no dead channel."""
    report = quantized(
        tmp_path / "model", values_with([1e-9, -2e-9, 3.0, 4.0], [1.0, 1.0, 0.5, 3.0]), dtype
    )
    assert codes(report) == []
    assert any("BN104 and BN303 were not judged" in note for note in report.notes)


def test_what_float16_made_infinite_is_found(tmp_path):
    report = quantized(tmp_path / "model", values_with(MOVED, [1e6, 1.0, 2.0, 3.0]), "float16")
    assert codes(report) == [("BN301", "error")]
    assert any("65504" in fact for fact in report.findings[0].evidence)
    assert "without quantizing" in report.findings[0].fix


def test_healthy_quantized_statistics_pass(run):
    outcome = run("check", FIXTURES / "tfjs_layers_uint8")
    assert outcome.exit_code == 0


# --- Models that TensorFlow.js trained ------------------------------------------------------------

NAN = np.full(4, np.nan)
STATES = {
    "stuck": ({"moving_mean": np.zeros(4), "moving_variance": np.ones(4)}, "{training: true}"),
    "mean": ({"moving_mean": np.zeros(4)}, "{training: true}"),
    "zeros": ({"moving_mean": np.zeros(4), "moving_variance": np.zeros(4)}, "weights set to zeros"),
    "not finite": ({"moving_mean": NAN}, "tf.all(tf.isFinite(batch)).print()"),
    "negative": ({"moving_variance": -np.ones(4)}, "layer.setWeights("),
}


def trained_in_javascript(folder, **changes):
    """The model that TensorFlow.js trained, with other values of its BN layer."""
    source = FIXTURES / "tfjs_javascript"
    contents = json.loads((source / "model.json").read_text(encoding="utf-8"))
    data, at = (source / "weights.bin").read_bytes(), 0
    for weight in contents["weightsManifest"][0]["weights"]:
        size = 4 * int(np.prod(weight["shape"]))
        role = weight["name"].removeprefix("bn/")
        if role in changes:
            values = changes[role].astype("<f4").tobytes()
            data = data[:at] + values + data[at + size :]
        at += size
    write(folder, contents)
    (folder / "weights.bin").write_bytes(data)
    return folder


@pytest.mark.parametrize("state", STATES)
def test_words_are_those_of_javascript(run, tmp_path, state):
    changes, word = STATES[state]
    outcome = run("check", trained_in_javascript(tmp_path / "model", **changes), "-v")
    assert outcome.exit_code == 1
    said = " ".join(outcome.out.split())
    assert word in said
    for python in ("training=True", "training=False", "set_weights", "np.", "print(", "train_step"):
        assert python not in said.replace(word, "")


def test_still_statistics_have_the_words_of_javascript(run, tmp_path):
    before = trained_in_javascript(tmp_path / "a")
    after = trained_in_javascript(tmp_path / "b", gamma=np.arange(4) + 0.5)
    outcome = run("check", after, "--since", before)
    assert outcome.exit_code == 1
    assert "{training: false}" in outcome.out
    assert "training=" not in outcome.out


# --- Other commands -------------------------------------------------------------------------------


def test_recalibrate_says_from_which_file_to_start(run, tmp_path):
    np.savez(tmp_path / "samples.npz", images=np.zeros((8, 6, 6, 3), np.float32))
    outcome = run(
        "recalibrate", STUCK, "--data", tmp_path / "samples.npz", "-o", tmp_path / "fixed"
    )
    assert outcome.exit_code == 2
    assert "converted from" in outcome.err
    assert not (tmp_path / "fixed").exists()


def test_the_graph_is_that_of_the_original(run):
    outcome = run("list", CORRECT, "--graph", "--format", "json")
    assert outcome.exit_code == 0


@pytest.mark.parametrize("command", ["compare", "report"])
def test_models_of_one_training(run, tmp_path, command):
    for step, source in enumerate((CORRECT, STUCK), 1):
        shutil.copytree(source, tmp_path / f"epoch_{step}")
    more = ["-o", tmp_path / "page.html"] if command == "report" else []
    outcome = run(command, tmp_path, *more)
    assert outcome.exit_code in (0, 1)
    assert "Traceback" not in outcome.err
