"""ONNX files as files: external data, damage, directories, commands that do not take them."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import external_data_helper, helper

import bninspect
from bninspect.errors import ReadProblem
from bninspect.formats.onnx.file import open_onnx
from tests.conftest import FIXTURES, Run, load_fixture, parsed
from tests.formats.onnx.models import STUCK, bn_node, members, model, named, write
from tests.support.processes import start_program
from tests.support.table_writer import bytes_field, number_field, varint

STUCK_MODEL = model(named(STUCK), producer="pytorch")


# --- External data --------------------------------------------------------------------------------


def external(folder: Path, location: str = "model.data") -> Path:
    """A stuck model whose values are all in another file."""
    folder.mkdir(exist_ok=True)
    made = onnx.ModelProto.FromString(STUCK_MODEL.SerializeToString())
    external_data_helper.convert_model_to_external_data(
        made, location=location, size_threshold=0, convert_attribute=False
    )
    path = folder / "model.onnx"
    onnx.save(made, path)
    return path


def with_entry(path: Path, key: str, value: str) -> Path:
    """The model with another entry in the external data of its tensors."""
    made = onnx.load(path, load_external_data=False)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value
    path.write_bytes(made.SerializeToString())
    return path


def test_external_data_is_read_beside_the_model(run: Run, tmp_path: Path) -> None:
    outcome = run("check", external(tmp_path), "--format", "json")
    assert outcome.exit_code == 1
    inside = run("check", write(tmp_path, STUCK_MODEL, "inside.onnx"), "--format", "json")
    for key in ("layers", "findings"):
        assert outcome.json["checkpoints"][0][key] == inside.json["checkpoints"][0][key]


def test_its_file_stands_for_the_model(run: Run, tmp_path: Path) -> None:
    external(tmp_path, "model.onnx.data")
    outcome = run("check", tmp_path / "model.onnx.data")
    assert outcome.exit_code == 1
    assert "is the external data of" in outcome.said
    assert run("check", tmp_path).exit_code == 1


def test_a_missing_file_is_incomplete_and_list_names_the_layers(run: Run, tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "model.data").unlink()
    outcome = run("check", path, "--format", "json")
    assert outcome.exit_code == 2
    error = outcome.json["checkpoints"][0]["error"]
    assert error["kind"] == "incomplete"
    assert "model.data, which does not exist" in error["message"]
    listed = run("list", path)
    assert listed.exit_code == 0
    assert "1 BN layer" in listed.out
    assert "the values of 4 of 4" in listed.out or "the values are missing" in listed.out


def test_a_short_file_is_incomplete(run: Run, tmp_path: Path) -> None:
    path = external(tmp_path)
    data = tmp_path / "model.data"
    data.write_bytes(data.read_bytes()[:-1])
    outcome = run("check", path, "--format", "json")
    assert outcome.exit_code == 2
    assert outcome.json["checkpoints"][0]["error"]["kind"] == "incomplete"


@pytest.mark.parametrize(
    "location",
    ["../model.data", "/etc/hostname", "a/../../model.data", "", "..\\model.data", "a\0b"],
)
def test_a_file_elsewhere_is_never_opened(run: Run, tmp_path: Path, location: str) -> None:
    path = with_entry(external(tmp_path / "inside"), "location", location)
    shutil.copy(tmp_path / "inside" / "model.data", tmp_path / "model.data")
    outcome = run("check", path, "--format", "json")
    assert outcome.exit_code == 2
    error = outcome.json["checkpoints"][0]["error"]
    assert error["kind"] == "corrupt"
    assert "not in the directory of the model" in error["message"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("offset", "-4"), ("offset", "x"), ("offset", "9" * 30), ("length", "1e3"), ("length", "8")],
)
def test_a_wrong_extent_is_an_error(run: Run, tmp_path: Path, key: str, value: str) -> None:
    outcome = run("check", with_entry(external(tmp_path), key, value))
    assert outcome.exit_code == 2
    assert "Traceback" not in outcome.said


@pytest.mark.processes
def test_a_file_for_each_tensor_takes_no_more_descriptors(tmp_path: Path) -> None:
    tensors = [one for number in range(20) for one in named(STUCK, f"bn{number}")]
    names = [one.name for one in tensors]
    made = model(tensors, [bn_node(names[i : i + 4], f"n{i}") for i in range(0, len(names), 4)])
    external_data_helper.convert_model_to_external_data(
        made, all_tensors_to_one_file=False, size_threshold=0
    )
    onnx.save(made, tmp_path / "model.onnx")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"
    process = start_program("check", tmp_path / "model.onnx", "--format", "json", before=limit)
    out, err = process.communicate()
    assert process.returncode == 1, err
    assert len(parsed(out)["checkpoints"][0]["findings"]) == 20


# --- Damage ---------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    """Read every layer, as `check` does; damage is a `ReadProblem`."""
    try:
        with open_onnx(str(path), str(path)) as checkpoint:
            for layer in bninspect.find_layers(checkpoint):
                for variable in layer.variables.values():
                    variable.read()
    except ReadProblem:
        pass


RICH = [
    FIXTURES / stem / "model.onnx"
    for stem in ("onnx_pytorch_external", "onnx_pytorch_stuck", "onnx_keras2_correct")
]


@given(data=st.data())
def test_any_change_of_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    source = data.draw(st.sampled_from(RICH))
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp() / "changed"
    folder.mkdir(exist_ok=True)
    read_all(write(folder, bytes(content)))


@pytest.mark.parametrize("source", RICH, ids=lambda path: path.parent.name)
def test_every_cut_is_told(tmp_path: Path, source: Path) -> None:
    """A file without its end is no file with fewer layers."""
    content = source.read_bytes()
    for length in range(3, len(content), 41):
        path = write(tmp_path, content[:length])
        with pytest.raises(ReadProblem), open_onnx(str(path), str(path)):
            pass


def test_a_cut_file_is_incomplete(run: Run, tmp_path: Path) -> None:
    content = STUCK_MODEL.SerializeToString()
    outcome = run("check", write(tmp_path, content[: len(content) // 2]), "--format", "json")
    assert outcome.exit_code == 2
    error = outcome.json["checkpoints"][0]["error"]
    assert error["kind"] == "incomplete"
    assert "cut short" in error["message"]


def test_values_that_are_too_few_are_an_error(run: Run, tmp_path: Path) -> None:
    made = model(named(STUCK))
    made.graph.initializer[2].dims[0] = 4
    outcome = run("check", write(tmp_path, made), "--format", "json")
    assert outcome.exit_code == 2
    assert "takes 16 bytes" in outcome.json["checkpoints"][0]["error"]["message"]


HEAD = number_field(1, 8)
OPSET = bytes_field(8, number_field(2, 15))
NESTED_NAME = bytes_field(1, b"then_branch")


def nested(depth: int) -> bytes:
    """Graphs of If within each other."""
    graph = b""
    for _ in range(depth):
        attribute = NESTED_NAME + bytes_field(6, graph)
        graph = bytes_field(1, bytes_field(4, b"If") + bytes_field(5, attribute))
    return graph


TENSOR = number_field(1, 1 << 40) + number_field(2, 1) + bytes_field(8, b"w")
HOSTILE = {
    "graphs without end": nested(5000),
    "a tensor of 4 TB": bytes_field(5, TENSOR + bytes_field(9, bytes(4))),
    "many dimensions": bytes_field(5, bytes_field(1, b"\x01" * 1_000_000)),
    "a long name": bytes_field(5, bytes_field(8, b"x" * 1_000_000)),
    "a long number": bytes_field(5, b"\x08" + b"\xff" * 100),
    "a group": bytes_field(1, b"\x0b\x0c"),
    "many nodes": bytes_field(1, bytes_field(4, b"Identity")) * 10_000,
    "many tensors": bytes_field(5, b"") * 10_000,
    "many inputs": bytes_field(1, bytes_field(1, b"") * 10_000),
}


@pytest.mark.parametrize("graph", HOSTILE.values(), ids=HOSTILE)
def test_hostile_graphs_take_little_memory(tmp_path: Path, graph: bytes) -> None:
    path = write(tmp_path, HEAD + bytes_field(7, graph) + OPSET)
    tracemalloc.start()
    read_all(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


def test_integers_of_a_tensor_take_no_more_than_is_stored(tmp_path: Path) -> None:
    """Each byte of int32_data may be a number: 8 bytes in memory."""
    count = 2_000_000
    halves = bytes_field(1, varint(count)) + number_field(2, 10) + bytes_field(5, b"\x01" * count)
    tensors = b"".join(bytes_field(5, halves + bytes_field(8, name)) for name in (b"m", b"v"))
    node = b"".join(bytes_field(1, name) for name in (b"x", b"", b"", b"m", b"v"))
    node = bytes_field(1, node + bytes_field(2, b"y") + bytes_field(4, b"BatchNormalization"))
    path = write(tmp_path, HEAD + bytes_field(7, node + tensors) + OPSET)
    with open_onnx(str(path), str(path)) as checkpoint:
        mean = checkpoint.variables["m"]
        with pytest.raises(ReadProblem, match="integers of any length"):
            mean.read()


def test_large_weights_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bninspect.storage.source import Source

    weights = [
        helper.make_tensor(f"w{i}", 1, [1 << 20], bytes(4 << 20), raw=True) for i in range(4)
    ]
    path = write(
        tmp_path, model([*weights, *named(STUCK)], [bn_node([n.name for n in named(STUCK)])])
    )
    read, count = Source.read, []

    def counting(self: Source, offset: int, length: int, what: str) -> bytes:
        count.append(length)
        return read(self, offset, length, what)

    monkeypatch.setattr(Source, "read", counting)
    read_all(path)
    assert path.stat().st_size > 16_000_000
    assert sum(count) < 400_000


# --- Where they lie -------------------------------------------------------------------------------


def test_a_directory_of_models_is_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", STUCK_MODEL)
    write(tmp_path, model(named(members())), "healthy.onnx")
    external(tmp_path / "b")
    outcome = run("check", tmp_path, "--format", "json")
    paths = {item["path"]: item["format"] for item in outcome.json["checkpoints"]}
    assert paths == {
        str(tmp_path / name): "onnx" for name in ("a/model.onnx", "b/model.onnx", "healthy.onnx")
    }
    assert outcome.exit_code == 1


def test_its_name_claims_a_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"<html>not found</html>")
    assert run("check", tmp_path).exit_code == 2


def test_the_kind_is_told_by_content(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path, STUCK_MODEL, "model.bin")
    assert run("check", path).exit_code == 1


def test_compare_and_since_see_what_moved(run: Run, tmp_path: Path) -> None:
    first = write(tmp_path, model(named(members())), "model_1.onnx")
    second = write(tmp_path, model(named(members(seed=1))), "model_2.onnx")
    outcome = run("compare", first, second, "--format", "json")
    assert outcome.exit_code == 0
    frozen = members(seed=1) | {
        role: members()[role] for role in ("moving_mean", "moving_variance")
    }
    third = write(tmp_path, model(named(frozen)), "model_3.onnx")
    checked = run("check", third, "--since", first, "--format", "json")
    (finding,) = checked.json["checkpoints"][0]["findings"]
    assert finding["rule"] == "BN107"


def test_dump_gives_the_values(run: Run, tmp_path: Path) -> None:
    arrays = members()
    path = write(tmp_path, model(named(arrays)))
    outcome = run("dump", path, "--layer", "bn", "--format", "json")
    (layer,) = outcome.json["layers"]
    assert layer["values"]["moving_mean"] == pytest.approx(arrays["moving_mean"].tolist())


def test_recalibrate_says_where_to_start(run: Run, tmp_path: Path) -> None:
    samples = tmp_path / "samples.npy"
    np.save(samples, np.zeros((4, 6, 6, 3), "f4"))
    path = load_fixture("onnx_keras2_stuck").path
    output = tmp_path / "fixed.onnx"
    for options in (("-o", output), ("--dry-run",)):
        outcome = run("recalibrate", path, "--data", samples, *options)
        assert outcome.exit_code == 2
        assert "the model that it was exported from" in outcome.err
    assert not output.exists()


def test_verify_says_that_there_is_nothing_to_verify(run: Run, tmp_path: Path) -> None:
    outcome = run("check", write(tmp_path, STUCK_MODEL), "--verify")
    assert "ONNX models have no checksums" in outcome.said
