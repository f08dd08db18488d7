"""Parts of a model under names that only the model itself tells: no output replaces them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bninspect.storage.named_files import is_part_of
from tests.conftest import FIXTURES, Run

ONNX = FIXTURES / "onnx_pytorch_external"
TFJS = FIXTURES / "tfjs_layers_stuck"


def renamed(folder: Path, part: str, name: str) -> Path:
    """Rename a part of a model, also in the model; both names have the same length."""
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(part.encode(), name.encode()))
    return (folder / part).rename(folder / name)


@pytest.mark.parametrize(
    ("source", "part", "name"),
    [
        (ONNX, "model.onnx.data", "weights_of.blob"),
        (TFJS, "group1-shard1of1.bin", "my_own_weights_1.bin"),
    ],
    ids=["onnx", "tfjs"],
)
def test_files_that_a_model_names(
    source: Path, part: str, name: str, tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    file = renamed(folder, part, name)
    model = next(path for path in folder.iterdir() if path != file)
    (folder / "old.json").write_text("{}")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for typed in (model, folder):
        outcome = run("check", typed, "-o", file)
        assert outcome.exit_code == 2
        assert "Refusing to overwrite" in outcome.err
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert run("check", model, "--format", "json", "-o", folder / "old.json").exit_code == 1
    assert not is_part_of(str(tmp_path / name), str(model))


def test_a_byte_order_mark_hides_no_name(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TFJS, tmp_path / "model"))
    model = folder / "model.json"
    model.write_bytes(b"\xef\xbb\xbf" + model.read_bytes())
    assert is_part_of(str(folder / "group1-shard1of1.bin"), str(model))


@pytest.mark.parametrize(
    ("stem", "graph"),
    [
        ("saved_model_tf1_stuck", "saved_model.pb"),
        ("saved_model_tf1_flat", "saved_model.pb"),
        ("tf1_graph_text_forgotten", "graph.pbtxt"),
    ],
)
def test_a_graph_of_any_name(stem: str, graph: str, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(FIXTURES / stem, tmp_path / "model"))
    file = (folder / graph).rename(folder / f"own{Path(graph).suffix}")
    before = file.read_bytes()
    outcome = run("check", folder, "-o", file)
    assert outcome.exit_code == 2
    assert "Refusing to overwrite" in outcome.err
    assert file.read_bytes() == before


def test_what_cannot_be_read_is_no_part(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    assert not is_part_of(str(tmp_path / "gone"), str(tmp_path / "model.json"))
    assert not is_part_of(str(tmp_path / "model.json"), str(tmp_path / "gone.onnx"))
