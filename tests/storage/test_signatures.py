"""Files of other tools are named for what they are, whatever they are called."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.storage.signatures import begins_as_v1, is_onnx, other_format
from tests.conftest import FIXTURES, Run
from tests.support.table_writer import (
    SliceMeta,
    bytes_field,
    number_field,
    slices_meta,
    varint,
    write_slices,
)


def numpy_bytes(save: Callable[..., None], **values: object) -> bytes:
    stream = io.BytesIO()
    save(stream, **values)
    return stream.getvalue()


def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"")
    return stream.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def onnx(producer: bytes) -> bytes:
    """A ModelProto of onnx.proto: ir_version, producer_name, producer_version, graph."""
    return (
        number_field(1, 8)
        + (bytes_field(2, producer) + bytes_field(3, b"2.1") if producer else b"")
        + bytes_field(7, b"\x0a\x00")
    )


OTHERS = {
    "TensorFlow Lite": [b"\x1c\x00\x00\x00TFL3" + bytes(40)],
    "ONNX Runtime": [b"\x1c\x00\x00\x00ORTM" + bytes(40)],
    "safetensors": [safetensors()],
    "GGUF": [b"GGUF" + struct.pack("<IQQ", 3, 0, 0)],
    "PyTorch": [
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
        zipped("archive/data.pkl"),
        zipped("model/version"),
    ],
    "Python pickle": [pickle.dumps({"a": 1}), pickle.dumps([1], protocol=2)],
    "NumPy array": [numpy_bytes(np.save, arr=np.zeros(3))],
    "NumPy archive": [numpy_bytes(np.savez, x=np.zeros(3))],
    "gzip": [b"\x1f\x8b\x08\x00" + bytes(20)],
    "architecture of a Keras model": [b'{"class_name": "Sequential", "config": {"layers": []}}'],
    "JSON": [b'{"a": 1}'],
}


@pytest.mark.parametrize(
    ("named", "content"),
    [(named, content) for named, contents in OTHERS.items() for content in contents],
)
@pytest.mark.parametrize("name", ["model", "model.ckpt-60", "model.h5"])
def test_it_is_named_with_what_to_check_instead(
    run: Run, tmp_path: Path, named: str, content: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    outcome = run("check", tmp_path / name, "--format", "json")
    assert outcome.exit_code == 2
    (item,) = outcome.json["checkpoints"]
    assert named in item["error"]["message"]
    assert item["error"]["kind"] == "unknown-format"
    assert item["error"]["hint"]


def test_a_directory_of_them_says_what_it_holds(run: Run, tmp_path: Path) -> None:
    (tmp_path / "weights.tflite").write_bytes(OTHERS["TensorFlow Lite"][0])
    outcome = run("check", tmp_path)
    assert outcome.exit_code == 2
    assert "weights.tflite is a TensorFlow Lite model" in outcome.said


def test_no_checkpoint_is_taken_for_one() -> None:
    files = [
        path
        for path in FIXTURES.rglob("*")
        if path.is_file() and path.suffix not in (".json", ".py", ".md", ".meta", ".npz")
    ]
    assert len(files) > 100
    assert [path for path in files if other_format(path.read_bytes()[:64])] == []


class TestOnnx:
    @pytest.mark.parametrize(
        "producer", [b"pytorch", b"tf2onnx", b"", b"x" * 90, "é".encode() * 40]
    )
    def test_a_model_is_told_by_its_head(self, producer: bytes) -> None:
        assert is_onnx(onnx(producer)[:64])

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x08\x08",
            # saved_model.pb: the version of its schema, a MetaGraphDef
            number_field(1, 1) + bytes_field(2, bytes_field(1, b"x")),
            # Core ML, Model.proto: the version of its specification, a description
            number_field(1, 4) + bytes_field(2, bytes_field(1, bytes_field(1, b"image"))),
            # a TensorProto of ONNX itself: dimensions, the type, a name
            number_field(1, 3) + number_field(2, 1) + bytes_field(8, b"x"),
        ],
    )
    def test_others_are_none(self, content: bytes) -> None:
        assert not is_onnx(content[:64])

    @given(st.binary(max_size=64))
    def test_any_bytes_are_judged(self, head: bytes) -> None:
        is_onnx(b"\x08\x08" + head)


class TestV1:
    @pytest.mark.parametrize("length", [20, 64, 200])
    def test_a_file_that_was_cut_short_is_told_by_its_head(
        self, run: Run, tmp_path: Path, length: int
    ) -> None:
        values = {f"layer{number}/bn/gamma": np.ones(40, "f4") for number in range(30)}
        write_slices(tmp_path / "whole", values)
        content = (tmp_path / "whole").read_bytes()
        assert len(content) > 1000
        assert begins_as_v1(content[:64])
        (tmp_path / "model-200").write_bytes(content[:length])
        outcome = run("check", tmp_path / "model-200")
        assert outcome.exit_code == 2
        assert "was cut short" in outcome.said

    def test_the_index_of_a_v2_checkpoint_is_none(self) -> None:
        (path,) = (FIXTURES / "tf1_layers_correct").glob("*.index")
        assert not begins_as_v1(path.read_bytes()[:64])

    @given(st.binary(max_size=64))
    def test_any_bytes_are_judged(self, head: bytes) -> None:
        begins_as_v1(b"\x00\x00" + head)
        assert not begins_as_v1(b"\x00\x01" + head)

    @given(st.lists(st.binary(min_size=1, max_size=200), max_size=30))
    def test_the_head_of_any_variables(self, names: list[bytes]) -> None:
        value = slices_meta([SliceMeta(name, 1, (3,), ((None,),)) for name in names])
        assert begins_as_v1((b"\x00\x00" + varint(len(value)) + value)[:64])
