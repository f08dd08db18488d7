"""SavedModel directories: their variables, Keras's metadata old and new, and damaged ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bninspect
from tests.conftest import load_fixture
from tests.support.table_writer import (
    Node,
    bytes_field,
    graph_of,
    number_field,
    varint,
    write_bundle,
)

VALUES = {
    "gamma": np.float32([1, 1]),
    "beta": np.float32([0, 0]),
    "moving_mean": np.float32([0, 0]),
    "moving_variance": np.float32([1, 1]),
}
CONFIG = {"name": "bn", "momentum": 0.5, "epsilon": 0.01}
METADATA = {"class_name": "BatchNormalization", "name": "bn", "trainable": False, "config": CONFIG}
SOUND = number_field(1, 1)  # a SavedModel of no graph
MODEL = {
    "class_name": "Functional",
    "config": {
        "name": "model",
        "layers": [
            {
                "class_name": "BatchNormalization",
                "config": CONFIG,
                "inbound_nodes": [[["x", 0, 0, {"training": False}]], [["x", 1, 0, {}]]],
            }
        ],
    },
}


@pytest.fixture
def saved(tmp_path):
    """A SavedModel with one layer, held as `layer_with_weights-0`, without its saved_model.pb."""
    (tmp_path / "variables").mkdir()
    nodes = [Node({"layer_with_weights-0": 1}), Node({role: i for i, role in enumerate(VALUES, 2)})]
    nodes += [Node(key=f"layer_with_weights-0/{role}", full_name=f"bn/{role}") for role in VALUES]
    write_bundle(
        tmp_path / "variables" / "variables",
        {f"layer_with_weights-0/{role}": array for role, array in VALUES.items()},
        object_graph=graph_of(nodes),
    )
    return tmp_path


def keras_metadata(*layers):
    """SavedMetadata: (path, metadata) of each."""
    return b"".join(
        bytes_field(1, bytes_field(3, path.encode()) + bytes_field(5, as_json(metadata)))
        for path, metadata in layers
    )


def saved_model(*objects, graph=b"x" * 1000):
    """SavedModel: objects as (children by name, metadata), behind a graph that must be skipped."""
    nodes = b""
    for children, metadata in objects:
        held = b"".join(
            bytes_field(1, number_field(1, number) + bytes_field(2, name.encode()))
            for name, number in children.items()
        )
        user_object = bytes_field(4, bytes_field(3, as_json(metadata)))
        nodes += bytes_field(1, held + user_object)
    meta_graph = bytes_field(1, b"") + bytes_field(2, graph) + bytes_field(7, nodes)
    return number_field(1, 1) + bytes_field(2, meta_graph)


def as_json(metadata):
    return metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()


def layer_of(directory):
    (checkpoint,) = bninspect.list_layers(directory).checkpoints
    assert checkpoint.error is None
    assert checkpoint.format == "saved-model"
    (layer,) = checkpoint.layers
    assert layer.name == "bn"
    return layer


def told(layer):
    return layer.momentum, layer.epsilon, layer.trainable


def test_metadata_in_a_file_of_its_own(saved):
    (saved / "saved_model.pb").write_bytes(saved_model(({}, b"not JSON, and not asked")))
    metadata = keras_metadata(("root", MODEL), ("root.layer_with_weights-0", METADATA))
    (saved / "keras_metadata.pb").write_bytes(metadata)
    layer = layer_of(saved)
    assert told(layer) == (0.5, 0.01, False)
    assert layer.keras.calls == 2


def test_metadata_in_the_object_graph(saved):
    objects = [({"layer_with_weights-0": 1}, MODEL), ({"gamma": 2}, METADATA), ({}, b"")]
    (saved / "saved_model.pb").write_bytes(saved_model(*objects))
    assert told(layer_of(saved)) == (0.5, 0.01, False)


def test_no_metadata(saved):
    (saved / "saved_model.pb").write_bytes(SOUND)
    assert told(layer_of(saved)) == (None, None, None)


@pytest.mark.parametrize("part", ["variables/variables", "variables/variables.index", "variables"])
def test_its_variables_mean_the_whole(saved, part):
    (saved / "saved_model.pb").write_bytes(SOUND)
    (saved / "keras_metadata.pb").write_bytes(
        keras_metadata(("root.layer_with_weights-0", METADATA))
    )
    assert told(layer_of(saved / part)) == (0.5, 0.01, False)


def test_metadata_of_something_that_is_not_there(saved):
    (saved / "saved_model.pb").write_bytes(SOUND)
    (saved / "keras_metadata.pb").write_bytes(keras_metadata(("root.other.bn", METADATA)))
    assert told(layer_of(saved)) == (None, None, None)


def test_an_empty_object_graph_beside_metadata(saved, run):
    write_bundle(
        saved / "variables" / "variables",
        {f"layer_with_weights-0/{role}": array for role, array in VALUES.items()},
        object_graph=graph_of([]),
    )
    (saved / "keras_metadata.pb").write_bytes(
        keras_metadata(("root.layer_with_weights-0", METADATA))
    )
    report = bninspect.list_layers(saved)
    assert [layer.name for layer in report.checkpoints[0].layers] == ["layer_with_weights-0"]
    assert report.checkpoints[0].layers[0].keras is None
    assert any("keys are shown as names" in note for note in report.checkpoints[0].notes)


def test_a_graph_of_any_size_is_not_read(saved, monkeypatch):
    objects = [({"layer_with_weights-0": 1}, MODEL), ({}, METADATA)]
    (saved / "saved_model.pb").write_bytes(saved_model(*objects, graph=bytes(10_000_000)))
    from bninspect.storage.source import Source

    read = []
    original = Source.read
    monkeypatch.setattr(
        Source,
        "read",
        lambda source, offset, length, what: (
            read.append(length) or original(source, offset, length, what)
        ),
    )
    assert told(layer_of(saved)) == (0.5, 0.01, False)
    assert sum(read) < 10_000


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("keras_metadata.pb", b"", "expected metadata of 1 to 268435456 bytes, got 0"),
        ("saved_model.pb", b"", "this file is empty"),
        ("keras_metadata.pb", b"\xff\xff", "the Keras metadata cannot be parsed"),
        (
            "keras_metadata.pb",
            keras_metadata(("root.layer_with_weights-0", b'{"momentum": ')),
            "metadata of a layer cannot be parsed",
        ),
        (
            "keras_metadata.pb",
            keras_metadata(("root", b"[" * 100_000)),
            "metadata of a layer cannot be parsed",
        ),
        ("saved_model.pb", b"\xff" * 30, "the SavedModel's graph cannot be parsed"),
        (
            "saved_model.pb",
            varint(2 << 3 | 2) + varint(1 << 60) + b"x",
            "the SavedModel's graph was cut short",
        ),
        (
            "saved_model.pb",
            bytes_field(2, bytes_field(7, b"\x0a" * 1000)),
            "the SavedModel's graph cannot be parsed",
        ),
        (
            "saved_model.pb",
            saved_model(({"layer_with_weights-0": 9}, MODEL)),
            "the SavedModel's graph cannot be parsed",
        ),
        ("saved_model.pb", b"\x08\x01" * 20_000, "the SavedModel's graph cannot be parsed"),
    ],
    ids=[
        "empty metadata",
        "empty graph",
        "metadata",
        "JSON",
        "nested JSON",
        "graph",
        "terabytes",
        "nested",
        "objects",
        "fields",
    ],
)
def test_damaged_metadata_is_one_sentence(saved, run, name, contents, message):
    (saved / "saved_model.pb").write_bytes(SOUND)
    (saved / name).write_bytes(contents)
    outcome = run("check", saved)
    assert outcome.exit_code == 2
    assert message in outcome.said


@pytest.mark.parametrize("metadata", [[], "text", {"config": 7, "momentum": 1}, {"momentum": None}])
def test_metadata_of_another_shape_tells_nothing(saved, metadata):
    (saved / "saved_model.pb").write_bytes(SOUND)
    listed = [("root.layer_with_weights-0", {"momentum": metadata}), ("root", metadata)]
    (saved / "keras_metadata.pb").write_bytes(keras_metadata(*listed))
    assert told(layer_of(saved)) == (None, None, None)


def test_an_empty_graph_without_variables(tmp_path, run):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    outcome = run("check", tmp_path)
    assert outcome.exit_code == 2
    assert "the file is empty" in outcome.said


def test_a_missing_index(saved, run):
    (saved / "saved_model.pb").write_bytes(SOUND)
    (saved / "variables" / "variables.index").unlink()
    outcome = run("check", saved)
    assert outcome.exit_code == 2
    assert "the .index file of the SavedModel's variables is missing" in outcome.said


def test_a_missing_shard(saved, run):
    (saved / "saved_model.pb").write_bytes(SOUND)
    (saved / "variables" / "variables.data-00000-of-00001").unlink()
    assert run("check", saved).exit_code == 2
    assert run("list", saved).exit_code == 0


ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, max_examples=100)
STEMS = ["saved_model_keras2_nested_frozen", "saved_model_keras3_export"]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved_models")
    for stem in STEMS:
        shutil.copytree(load_fixture(stem).path, folder / stem)
    return folder


@pytest.mark.parametrize("stem", STEMS)
@ALWAYS_THE_SAME
@given(data=st.data())
def test_damage_gives_an_answer_or_a_problem(copies, stem, data):
    """Neither of the two .pb files has a checksum, so another answer is possible."""
    files = sorted((copies / stem).glob("*.pb"))
    damaged = data.draw(st.sampled_from(files), "file")
    sound = damaged.read_bytes()
    contents = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3), "flips")):
        place = data.draw(st.integers(0, len(sound) - 1), "place")
        contents[place] ^= 1 << data.draw(st.integers(0, 7), "bit")
    if data.draw(st.booleans(), "cut off"):
        del contents[data.draw(st.integers(0, len(sound) - 1), "end") :]
    try:
        damaged.write_bytes(contents)
        bninspect.check(copies / stem)
    finally:
        damaged.write_bytes(sound)


# --- Layouts --------------------------------------------------------------------------------------


FLAT = load_fixture("saved_model_tf1_flat").path
CONSTANTS = load_fixture("saved_model_tf1_constants").path


@pytest.mark.parametrize(
    "name",
    ["", "saved_model.pb", "variables", "variables.index", "variables.data-00000-of-00001"],
)
def test_files_in_one_directory_are_the_saved_model(run, name):
    (checkpoint,) = run("check", FLAT / name, "--format", "json").json["checkpoints"]
    assert (checkpoint["format"], len(checkpoint["layers"])) == ("saved-model", 3)
    assert Path(checkpoint["resolved"]) == FLAT


@pytest.mark.parametrize("pattern", ["export", "*/*", "export/v*"])
def test_a_search_counts_files_in_one_directory_once(tmp_path, run, monkeypatch, pattern):
    shutil.copytree(FLAT, tmp_path / "export")
    monkeypatch.chdir(tmp_path)
    report = run("check", pattern, "--format", "json").json
    assert [item["format"] for item in report["checkpoints"]] == ["saved-model"]


def test_both_layouts_are_one_checkpoint_each(tmp_path, run):
    shutil.copytree(FLAT, tmp_path / "flat")
    shutil.copytree(load_fixture("saved_model_tf1_stuck").path, tmp_path / "usual")
    assert run("check", tmp_path, "--format", "json").json["summary"]["checkpoints"] == 2


@pytest.mark.parametrize("name", ["saved_model.pb", "model.pb"])
def test_a_graph_alone_lacks_its_variables(tmp_path, run, name):
    shutil.copy(FLAT / "saved_model.pb", tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        (checkpoint,) = run("check", path, "--format", "json").json["checkpoints"]
        assert checkpoint["error"]["kind"] == "incomplete"
        assert "Copy all files" in checkpoint["error"]["hint"]


@pytest.mark.parametrize("source", [FLAT, CONSTANTS], ids=["variables", "constants"])
def test_a_graph_under_another_name_is_recognised_by_its_content(tmp_path, run, source):
    shutil.copytree(source, tmp_path / "export")
    (tmp_path / "export" / "saved_model.pb").rename(tmp_path / "export" / "model.pb")
    (checkpoint,) = run("check", tmp_path / "export" / "model.pb", "--format", "json").json[
        "checkpoints"
    ]
    assert (checkpoint["format"], len(checkpoint["layers"])) == ("saved-model", 3)


def as_text(folder: Path) -> None:
    """Replace the graph of a SavedModel by its text form, as builder.save(as_text=True) does."""
    from google.protobuf import text_format
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    graph = folder / "saved_model.pb"
    text = text_format.MessageToString(SavedModel.FromString(graph.read_bytes()))
    (folder / "saved_model.pbtxt").write_text(text, encoding="utf-8")
    graph.unlink()


@pytest.mark.framework
@pytest.mark.parametrize(
    "stem", ["saved_model_tf1_flat", "saved_model_tf1_stuck", "saved_model_tf1_constants"]
)
def test_a_graph_in_text_form_says_the_same(stem: str, tmp_path, run):
    shutil.copytree(load_fixture(stem).path, tmp_path / "export")
    told = []
    for write in (lambda _: None, as_text):
        write(tmp_path / "export")
        (item,) = run("check", tmp_path / "export", "--format", "json").json["checkpoints"]
        listed = run("list", tmp_path / "export", "--graph", "--format", "json")
        for layer in listed.json["checkpoints"][0]["layers"]:
            del layer["graph"]["path"]
            told.append(layer)
        told.append([item["format"], item["layers"], item["findings"], item["notes"]])
    half = len(told) // 2
    assert told[:half] == told[half:]


def test_the_variables_of_a_graph_in_damaged_text_are_read(tmp_path, run):
    shutil.copytree(FLAT, tmp_path / "export")
    (tmp_path / "export" / "saved_model.pb").unlink()
    text = "saved_model_schema_version: 1\nmeta_graphs {\n"
    (tmp_path / "export" / "saved_model.pbtxt").write_text(text, encoding="utf-8")
    outcome = run("list", tmp_path / "export", "--graph", "--format", "json")
    (checkpoint,) = outcome.json["checkpoints"]
    assert (checkpoint["format"], len(checkpoint["layers"])) == ("saved-model", 3)
    assert any("not a TensorFlow graph, or it is damaged" in note for note in checkpoint["notes"])
