"""Every committed fixture: we find what its maker says, and read what its framework reads."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bninspect
from bninspect.model.roles import ROLES, STATISTICS
from tests.conftest import FIXTURES, ROOT, Fixture, Run, load_fixture

# What TensorFlow's own reader opens; where it stores an object graph, that is no variable.
TENSORFLOW = ("tf-v1", "tf-v2", "tf-object", "saved-model", "graph-def")
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def test_check_finds_what_the_maker_says(fixture: Fixture, run: Run) -> None:
    expected = fixture.expected
    since = expected.get("since")
    earlier = () if since is None else ("--since", FIXTURES / fixture.stem / since)
    outcome = run("check", fixture.path, "--format", "json", *expected["options"], *earlier)
    assert outcome.exit_code == expected["exit_code"]
    (checkpoint,) = outcome.json["checkpoints"]
    assert checkpoint["error"] is None
    assert checkpoint["format"] == expected["format"]
    assert checkpoint["step"] == expected["step"]
    assert checkpoint["variables"] == expected["variables"]
    found = [
        {"rule": finding["rule"], "layer": finding["layer"], "cause": finding["cause"]}
        for finding in checkpoint["findings"]
    ]
    assert found == expected["findings"]
    assert [group["name"] for group in checkpoint["unchecked"]] == expected.get("unchecked", [])


def test_list_finds_the_layers(fixture: Fixture, run: Run) -> None:
    (checkpoint,) = run("list", fixture.path, "--format", "json").json["checkpoints"]
    found = [
        {
            "name": layer["name"],
            "family": layer["family"],
            "channels": layer["channels"],
            "stored": layer["variables"],
            "at_initial": {
                role: (layer["statistics"][role] or {}).get("at_initial") for role in STATISTICS
            },
        }
        for layer in checkpoint["layers"]
    ]
    assert found == fixture.expected["layers"]


@pytest.mark.framework
def test_the_framework_reads_the_same_values(fixture: Fixture) -> None:
    """Every variable, value for value, whether it belongs to a BN layer or not."""
    with bninspect.open_checkpoint(str(fixture.path)) as checkpoint:
        if checkpoint.format in TENSORFLOW:
            _compare_with_tensorflow(checkpoint)
        elif checkpoint.format == "orbax":
            _compare_with_maker(fixture.expected["values"], checkpoint)
            _compare_with_orbax(checkpoint)
        elif checkpoint.format == "onnx":
            _compare_with_onnx(fixture, checkpoint)
        elif checkpoint.format == "tfjs":
            _compare_by_name(fixture.expected, checkpoint)
        else:
            if "values" in fixture.expected:
                _compare_with_maker(fixture.expected["values"], checkpoint)
            if fixture.expected.get("oracle_model", "") is not None:
                _needs_keras(fixture.expected)
                _compare_with_keras(fixture, checkpoint)


def _compare_with_tensorflow(checkpoint: Any) -> None:
    """Name for name and value for value; of strings, which no rule asks for, all but the values."""
    import tensorflow as tf

    prefix = checkpoint.resolved
    if checkpoint.frozen:
        _compare_constants(checkpoint, _graph_of_tensorflow(Path(prefix)))
        return
    if checkpoint.format == "saved-model":
        inside = Path(prefix) / "variables" / "variables"
        prefix = str(inside if inside.parent.is_dir() else Path(prefix) / "variables")
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    assert set(checkpoint.variables) == set(shapes) - {OBJECT_GRAPH}
    for name, variable in checkpoint.variables.items():
        assert list(variable.shape) == shapes[name], name
        assert variable.dtype == dtypes[name].name, name
        if variable.dtype == "string":
            continue
        if checkpoint.format == "tf-v1":
            theirs = _restored(checkpoint.resolved, name, dtypes[name])
        else:
            theirs = reader.get_tensor(name)
        if variable.dtype == "bfloat16":
            theirs = theirs.astype(np.float32)
        np.testing.assert_array_equal(variable.read(), theirs, err_msg=name)


def _compare_with_onnx(fixture: Fixture, checkpoint: Any) -> None:
    """Name for name and value for value, those too that the model names again by Identity."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(fixture.path).graph
    theirs = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity":
            theirs[node.output[0]] = theirs[node.input[0]]
    assert {one.name for one in graph.initializer} <= set(checkpoint.variables)
    for name, variable in checkpoint.variables.items():
        assert variable.shape == theirs[name].shape, name
        assert variable.dtype == theirs[name].dtype.name, name
        np.testing.assert_array_equal(variable.read(), theirs[name], err_msg=name)


def _graph_of_tensorflow(path: Path) -> Any:
    """The GraphDef of a file, or of a SavedModel's directory, as TensorFlow parses it."""
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    if path.is_dir():
        data = (path / "saved_model.pb").read_bytes()
        return saved_model_pb2.SavedModel.FromString(data).meta_graphs[0].graph_def
    if path.suffix == ".pbtxt":
        return text_format.Parse(path.read_text(encoding="utf-8"), tf.compat.v1.GraphDef())
    return tf.compat.v1.GraphDef.FromString(path.read_bytes())


def _compare_constants(checkpoint: Any, graph: Any) -> None:
    import tensorflow as tf

    tensors = {node.name: node.attr["value"].tensor for node in graph.node if node.op == "Const"}
    theirs = {name: tf.make_ndarray(tensor) for name, tensor in tensors.items()}
    weights = {
        name: values
        for name, values in theirs.items()
        if values.dtype.kind == "f" and values.ndim and values.size
    }
    assert set(checkpoint.variables) == set(weights)
    for name, variable in checkpoint.variables.items():
        assert variable.shape == weights[name].shape, name
        assert variable.dtype == weights[name].dtype.name, name
        np.testing.assert_array_equal(variable.read(), weights[name], err_msg=name)


def _restored(place: str, name: str, dtype: Any) -> Any:
    """A variable of a V1 checkpoint as it is restored: the reader refuses partitioned ones."""
    import tensorflow as tf

    (tensor,) = tf.raw_ops.RestoreV2(
        prefix=place, tensor_names=[name], shape_and_slices=[""], dtypes=[dtype]
    )
    return tensor.numpy()


def _compare_with_orbax(checkpoint: Any) -> None:
    """Every array, the optimizer's too, by its path in the tree that Orbax restores."""
    import jax
    import orbax.checkpoint as ocp

    step = Path(checkpoint.resolved)
    found = {**checkpoint.variables, **checkpoint.optimizer}
    is_item = (step / "_METADATA").exists()
    items = [""] if is_item else sorted({name.rpartition("/")[0] for name in found})
    if not is_item and items == [""]:
        (only,) = (one.parent.name for one in step.glob("*/manifest.ocdbt"))
    else:
        only = ""
    theirs = {}
    for item in items:
        tree = ocp.PyTreeCheckpointer().restore(step.resolve() / (item or only))
        for path, value in jax.tree_util.tree_leaves_with_path(tree):
            keys = [str(getattr(key, "key", getattr(key, "idx", ""))) for key in path]
            theirs[f"{item}/" * bool(item) + ".".join(keys)] = np.asarray(value)
    assert found.keys() == theirs.keys()
    for name, variable in found.items():
        assert variable.shape == theirs[name].shape, name
        assert variable.dtype == theirs[name].dtype.name, name
        np.testing.assert_array_equal(variable.read(), theirs[name], err_msg=name)


def _compare_by_name(expected: dict[str, Any], checkpoint: Any) -> None:
    """Member by member, by its stored name: what the reader of the converter reads."""
    for layer in expected["layers"]:
        for role, values in expected["values"][layer["name"]].items():
            assert checkpoint.variables[layer["stored"][role]].read().ravel().tolist() == values


def _compare_with_maker(expected: dict[str, Any], checkpoint: Any) -> None:
    """Layer by layer: the values that the framework had in memory when it saved."""
    found = {
        layer.name: {role: one.read().ravel().tolist() for role, one in layer.variables.items()}
        for layer in bninspect.find_layers(checkpoint)
    }
    assert found == expected


def _needs_keras(expected: dict[str, Any]) -> None:
    """Skip the test where Keras is older than the one that wrote the file: it need not load it."""
    import keras

    writer = re.match(r"keras (3\.\d+)", expected["made_with"])
    oldest = expected.get("oracle_keras") or (writer[1] if writer else "3.0")
    if _minor_version(keras.__version__) < _minor_version(oldest):
        pytest.skip(f"Keras {oldest} wrote the file, and this is Keras {keras.__version__}")


def _minor_version(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def _compare_with_keras(fixture: Fixture, checkpoint: Any) -> None:
    if checkpoint.format == "keras-weights-h5":
        _compare_statistics(_keras_model(fixture), checkpoint)
        return
    _compare_layers(fixture, checkpoint)


def _compare_statistics(model: Any, checkpoint: Any) -> None:
    """All statistics of a model into which Keras loaded weights, whatever their layers' names."""
    theirs = [
        [layer.moving_mean.numpy().tolist(), layer.moving_variance.numpy().tolist()]
        for layer in model._flatten_layers()
        if hasattr(layer, "moving_mean")
    ]
    ours = [
        [layer.variables[role].read().tolist() for role in STATISTICS]
        for layer in bninspect.find_layers(checkpoint)
    ]
    assert sorted(ours) == sorted(theirs)


def _compare_layers(fixture: Fixture, checkpoint: Any) -> None:
    """Layer by layer: the BN layers of the model that Keras makes of the file."""
    ours = {layer.name.rpartition("/")[2]: layer for layer in bninspect.find_layers(checkpoint)}
    theirs = dict(_keras_bn_layers(_keras_model(fixture)))
    assert set(ours) == set(theirs)
    for name, layer in ours.items():
        for role in ROLES:
            attribute = getattr(theirs[name], role, None)
            assert (role in layer.variables) == (attribute is not None), (name, role)
            if attribute is not None:
                expected = np.asarray(attribute)
                # Keras 3 keeps BN in float16 under a float16 policy, where Keras 2 wrote float32.
                np.testing.assert_array_equal(
                    layer.variables[role].read().astype(expected.dtype), expected
                )


def _keras_model(fixture: Fixture) -> Any:
    import keras

    network = fixture.expected.get("oracle_network")
    if network is not None:
        sys.path.insert(0, str(FIXTURES / "make"))
        model = getattr(importlib.import_module("keras_networks"), network)()
        model(np.zeros((2, 6, 6, 3), np.float32))  # builds one that is no functional model
        model.load_weights(fixture.path)
        return model
    same_architecture = fixture.expected.get("oracle_model")
    if same_architecture is None:
        return keras.models.load_model(fixture.path, compile=False)
    model = keras.models.load_model(load_fixture(same_architecture).path, compile=False)
    model.load_weights(fixture.path)
    return model


def _keras_bn_layers(model: Any) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        layer = getattr(layer, "layer", layer)  # in a wrapper  # noqa: PLW2901
        if hasattr(layer, "layers"):
            yield from _keras_bn_layers(layer)
        elif hasattr(layer, "moving_mean"):
            yield layer.name, layer


def test_fixture_maker_and_expectation_share_a_stem() -> None:
    expectations = {path.stem for path in FIXTURES.glob("*.json")}
    folders = {path.name for path in FIXTURES.iterdir() if path.is_dir()} - {"make"}
    makers = {path.stem for path in (FIXTURES / "make").glob("*.py")}
    assert expectations == folders
    assert expectations <= makers
    sources = [path.read_text(encoding="utf-8") for path in (FIXTURES / "make").glob("*.py")]
    shared = makers - expectations
    assert shared
    for stem in shared:  # what makes no fixture is imported by what does
        assert any(re.search(rf"^\s*(from|import) {stem}\b", text, re.M) for text in sources), stem


@pytest.mark.parametrize(
    ("correct", "broken"),
    [
        ("tf1_layers_correct", "tf1_layers_update_ops_forgotten"),
        ("tf1_layers_correct", "tf1_layers_training_false"),
        ("tf1_v1_correct", "tf1_v1_update_ops_forgotten"),
        ("slim_correct", "slim_update_ops_forgotten"),
        ("tf1_graph_correct", "tf1_graph_update_ops_forgotten"),
        ("tf1_graph_correct", "tf1_graph_unfetched_loss"),
        ("tf1_graph_correct", "tf1_graph_identity_loss"),
        ("tf1_graph_correct", "tf1_graph_training_false"),
        ("tf1_graph_placeholder_true", "tf1_graph_placeholder_false"),
        ("tf1_graph_placeholder_true", "tf1_graph_placeholder_forgotten"),
        ("tf1_graph_cond_v1_correct", "tf1_graph_cond_v1_forgotten"),
        ("tf1_graph_cond_v2_correct", "tf1_graph_cond_v2_forgotten"),
        ("slim_graph_correct", "slim_graph_update_ops_forgotten"),
        ("tfslim_graph_correct", "tfslim_graph_forgotten"),
        ("keras2_graph_layers_correct", "keras2_graph_layers_forgotten"),
        ("sonnet1_correct", "sonnet1_update_ops_forgotten"),
        ("tf1_handwritten_pop", "tf1_handwritten_pop_stuck"),
        ("tf1_moments_ema", "tf1_moments_ema_stuck"),
        ("compare_gan_scheme", "compare_gan_scheme_unfilled"),
        ("keras1_correct", "keras1_model_updates_ignored"),
        ("keras1_correct", "keras1_batch_statistics"),
        ("keras2_functional_correct", "keras2_training_false"),
        ("keras3_functional_correct", "keras3_custom_loop_stuck"),
        ("keras2_ckpt_legacy_correct", "keras2_ckpt_legacy_stuck"),
        ("keras3_ckpt_correct", "keras3_ckpt_stuck"),
        ("sonnet2_correct", "sonnet2_never_updated"),
        ("tf2_module_population", "tf2_module_population_stuck"),
        ("onnx_pytorch_correct", "onnx_pytorch_stuck"),
    ],
)
def test_twins_differ_in_the_mistake_alone(correct: str, broken: str) -> None:
    clean, stuck = load_fixture(correct).expected, load_fixture(broken).expected
    assert [layer["stored"] for layer in clean["layers"]] == [
        layer["stored"] for layer in stuck["layers"]
    ]
    assert not clean["findings"]
    assert {finding["rule"] for finding in stuck["findings"]} == {"BN101"}


def test_fixtures_stay_small() -> None:
    for path in FIXTURES.rglob("*"):
        if path.is_file():
            assert path.stat().st_size < 200_000, path.relative_to(ROOT)
