"""What people type as PATH: which checkpoints it names, each once, and what is said about it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import bninspect
from tests.conftest import CLEAN, FIXTURES, STUCK, Run, load_fixture
from tests.support.work import LINEAR, growth

KERAS = load_fixture("keras2_nested").path
TRAINING = FIXTURES / "tf1_training_directory"
SHARDED = load_fixture("tf1_layers_sharded").path
V1 = load_fixture("tf1_v1_correct").path
V1_STUCK = load_fixture("tf1_v1_update_ops_forgotten").path
V1_SHARDS = FIXTURES / "tf1_v1_sharded"
SAVED = FIXTURES / "saved_model_keras2_traced"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def put(prefix: Path, source: Path = CLEAN) -> Path:
    """A copy of the V2 checkpoint `source` under another name."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for part in source.parent.glob(f"{source.name}.*"):
        shutil.copy(part, f"{prefix}{part.name.removeprefix(source.name)}")
    return prefix


def put_keras(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(KERAS, path)
    return path


def put_table(path: Path) -> Path:
    """A file that ends like a V1 checkpoint does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(f"{CLEAN}.index", path)
    return path


def state(directory: Path, *names: str) -> None:
    """A state file that calls the last of `names` the newest."""
    lines = [f'model_checkpoint_path: "{names[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
    (directory / "checkpoint").write_text("\n".join(lines) + "\n", encoding="utf-8")


def items(run: Run, *arguments: object) -> list[dict[str, Any]]:
    checkpoints: list[dict[str, Any]] = run("check", *arguments, "--format", "json").json[
        "checkpoints"
    ]
    return checkpoints


def names(run: Run, directory: Path, *arguments: object) -> list[str]:
    """The paths of what `check` reported, relative to `directory`; a problem's with its kind."""
    return [
        os.path.relpath(item["path"], directory)
        + (f" {item['error']['kind']}" if item["error"] else "")
        for item in items(run, *arguments)
    ]


class TestOneCheckpoint:
    @pytest.mark.parametrize(
        "typed",
        [
            "m.ckpt-7",
            "m.ckpt-7.index",
            "m.ckpt-7.meta",
            "m.ckpt-7.data-00000-of-00001",
            "m.ckpt-7.",
        ],
    )
    def test_by_any_of_its_files(self, run: Run, tmp_path: Path, typed: str) -> None:
        put(tmp_path / "m.ckpt-7")
        (tmp_path / "m.ckpt-7.meta").write_bytes(b"\x0a\x00")
        (item,) = items(run, tmp_path / typed)
        assert item["resolved"] == str(tmp_path / "m.ckpt-7")
        assert len(item["layers"]) == 3

    def test_a_prefix_without_a_basename(self, run: Run, tmp_path: Path) -> None:
        run_directory = tmp_path / "run"
        put(run_directory / "model")
        for part in list(run_directory.iterdir()):
            part.rename(run_directory / part.name.removeprefix("model"))
        for typed in (str(run_directory), f"{run_directory}/", f"{run_directory}/.index"):
            (item,) = items(run, typed)
            assert item["error"] is None
            assert len(item["layers"]) == 3
        assert names(run, tmp_path, tmp_path) == ["run"]

    def test_the_name_of_a_directory_too(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "model")
        put(tmp_path / "model" / "inner.ckpt", STUCK)
        (item,) = items(run, tmp_path / "model")
        assert not item["findings"]
        assert any("a checkpoint and a directory" in note for note in item["notes"])
        (item,) = items(run, f"{tmp_path}/model/")
        assert item["findings"]
        assert names(run, tmp_path, tmp_path) == ["model", "model/inner.ckpt"]

    @pytest.mark.parametrize(
        "name",
        ["a model", "model[1]", "model*", "what?", "[!a]", "-x", "n" * 230, "mod\u00e8le", "a\nb"],
    )
    def test_odd_names(self, run: Run, tmp_path: Path, name: str) -> None:
        """A path that exists is never a pattern."""
        put(tmp_path / name)
        put(tmp_path / "model1")
        (item,) = items(run, tmp_path / name)
        assert item["resolved"] == str(tmp_path / name)
        assert sorted(names(run, tmp_path, tmp_path)) == sorted([name, "model1"])

    def test_bytes_that_are_no_text(self, run: Run, tmp_path: Path) -> None:
        name = os.fsdecode(b"mod\xe8le")
        put(tmp_path / name)
        assert names(run, tmp_path, tmp_path / name) == [name]
        assert names(run, tmp_path, tmp_path) == [name]
        assert names(run, tmp_path, f"{tmp_path}/mod*") == [name]

    @pytest.mark.parametrize(
        "typed", ["", "x" * 300, "x/" * 3000, "a\0b", "[", "x*" * 300, "no.ckpt*"]
    )
    def test_nothing_is_there(self, run: Run, typed: str) -> None:
        (item,) = items(run, typed)
        assert item["error"]["kind"] == "not-found"
        assert run("check", typed).exit_code == 2

    def test_a_pytorch_file_is_an_error_by_itself(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "model.ckpt").write_bytes(
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + bytes(50)
        )
        put_keras(tmp_path / "a.h5")
        assert names(run, tmp_path, tmp_path / "model.ckpt") == ["model.ckpt unknown-format"]
        assert names(run, tmp_path, tmp_path) == ["a.h5"]


class TestTrainingDirectory:
    def test_the_newest_or_all_oldest_first(self, run: Run, tmp_path: Path) -> None:
        for step in (1000, 200, 30):
            put(tmp_path / f"model.ckpt-{step}")
        state(tmp_path, "model.ckpt-200", "model.ckpt-1000")
        (item,) = items(run, tmp_path)
        assert item["resolved"] == str(tmp_path / "model.ckpt-1000")
        assert len(item["notes"]) == 1
        for typed in (tmp_path, tmp_path / "checkpoint"):
            found = names(run, tmp_path, typed, "--all-checkpoints")
            assert found == ["model.ckpt-30", "model.ckpt-200", "model.ckpt-1000"]

    @pytest.mark.parametrize("home", ["/home/of/another", "C:\\\\runs"])
    def test_paths_of_another_machine(self, run: Run, tmp_path: Path, home: str) -> None:
        put(tmp_path / "model.ckpt-5")
        separator = "\\\\" if "\\" in home else "/"
        state(tmp_path, f"{home}{separator}model.ckpt-4", f"{home}{separator}model.ckpt-5")
        (item,) = items(run, tmp_path)
        assert item["resolved"] == str(tmp_path / "model.ckpt-5")
        assert "which is not there" in item["notes"][0]

    def test_a_step_that_is_gone(self, run: Run, tmp_path: Path) -> None:
        for name in ("model.ckpt-200", "model.ckpt-1000", "other-9000"):
            put(tmp_path / name)
        state(tmp_path, "model.ckpt-2000")
        for typed in (tmp_path, tmp_path / "checkpoint"):
            (item,) = items(run, typed)
            assert item["resolved"] == str(tmp_path / "model.ckpt-1000")
            assert "model.ckpt-2000, which is not there" in item["notes"][0]

    def test_nothing_that_it_names_is_left(self, run: Run, tmp_path: Path) -> None:
        state(tmp_path, "model.ckpt-2000")
        (item,) = items(run, tmp_path)
        assert item["error"]["kind"] == "incomplete"

    def test_checkpoints_that_lie_elsewhere(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "old" / "model.ckpt-1")
        put(tmp_path / "run" / "model.ckpt-2")
        state(tmp_path / "run", f"{tmp_path}/old/model.ckpt-1", "model.ckpt-2")
        found = names(run, tmp_path, tmp_path / "run", "--all-checkpoints")
        assert found == ["old/model.ckpt-1", "run/model.ckpt-2"]

    def test_thousands_of_names(self, run: Run, tmp_path: Path) -> None:
        for step in (9998, 9999):
            put(tmp_path / f"model.ckpt-{step}")
        state(
            tmp_path,
            *(f"/a/rather/long/path/of/another/machine/model.ckpt-{i}" for i in range(10_000)),
        )
        assert names(run, tmp_path, tmp_path, "--all-checkpoints") == [
            "model.ckpt-9998",
            "model.ckpt-9999",
        ]

    @pytest.mark.parametrize("other", ["best.h5", "export/model.h5", "export/1/saved_model.pb"])
    def test_models_of_another_kind_are_told(self, run: Run, tmp_path: Path, other: str) -> None:
        shutil.copytree(TRAINING, tmp_path / "run")
        place = tmp_path / "run" / other
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(KERAS, place)
        (item,) = items(run, tmp_path / "run")
        assert item["resolved"].endswith("model.ckpt-60")
        assert any("also holds other models" in note for note in item["notes"])
        assert "also holds other models" in run("check", tmp_path / "run").out.replace(
            "\n      ", " "
        )
        assert len(items(run, tmp_path / "run", "--all-checkpoints")) == 3

    def test_what_is_no_model_is_not_told(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(TRAINING, tmp_path / "run")
        (tmp_path / "run" / "eval").mkdir()
        for name in (
            "eval/events.out.tfevents.17.host",
            "graph.pbtxt",
            "model.ckpt-60.meta.tmp3fa",
        ):
            (tmp_path / "run" / name).write_bytes(b"\x0a\x00")
        (item,) = items(run, tmp_path / "run")
        assert len(item["notes"]) == 1

    def test_a_model_called_checkpoint(self, run: Run, tmp_path: Path) -> None:
        put_keras(tmp_path / "checkpoint")
        for typed in (tmp_path, tmp_path / "checkpoint"):
            assert names(run, tmp_path, typed) == ["checkpoint"]

    @pytest.mark.parametrize("typed", ["run", "run/checkpoint"])
    def test_the_newest_v1_checkpoint_that_lies_there(
        self, run: Run, tmp_path: Path, typed: str
    ) -> None:
        (tmp_path / "run").mkdir()
        for step, source in ((40, V1), (60, V1), (100, V1_STUCK)):
            shutil.copy(source, tmp_path / "run" / f"model-{step}")
        (tmp_path / "run" / "model-500").write_bytes(b"no checkpoint")
        (tmp_path / "run" / "model-600").mkdir()
        shutil.copy(V1, tmp_path / "run" / "other-900")
        state(tmp_path / "run", "model-200")
        (item,) = items(run, tmp_path / typed)
        assert item["resolved"] == str(tmp_path / "run" / "model-100")
        assert item["findings"]
        assert "model-200, which is not there" in item["notes"][0]
        assert "model-100, the newest in the directory" in item["notes"][0]

    def test_the_newest_may_be_in_shards(self, run: Run, tmp_path: Path) -> None:
        for shard in V1_SHARDS.iterdir():
            name = shard.name.replace("model.ckpt-60", "model.ckpt-100")
            shutil.copy(shard, tmp_path / name)
        shutil.copy(V1, tmp_path / "model.ckpt-60")
        put(tmp_path / "model.ckpt-20")
        state(tmp_path, "model.ckpt-300-?????-of-00004")
        (item,) = items(run, tmp_path)
        assert item["resolved"] == str(tmp_path / "model.ckpt-100-?????-of-00004")
        assert item["layers"]

    def test_the_newest_may_be_a_pointer(self, run: Run, tmp_path: Path) -> None:
        shutil.copy(V1, tmp_path / "model-60")
        (tmp_path / "model-100").write_bytes(POINTER)
        (tmp_path / "picture-900.png").write_bytes(POINTER)
        state(tmp_path, "model-200")
        (item,) = items(run, tmp_path)
        assert f"{tmp_path}/model-100: this is a Git LFS pointer" in item["error"]["message"]

    @pytest.mark.parametrize("options", [(), ("--all-checkpoints",)])
    def test_a_name_that_no_file_can_have(
        self, run: Run, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "a\\000b/c"\n')
        outcome = run("check", tmp_path, *options)
        assert outcome.exit_code == 2
        assert "it names a\\x00b/c, which is not " in outcome.said
        assert not outcome.err

    def test_an_empty_name_is_none(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: ""\n', encoding="utf-8")
        (item,) = items(run, tmp_path)
        assert "it names no checkpoint" in item["error"]["message"]
        put(tmp_path / "model.ckpt-5")
        (item,) = items(run, tmp_path)
        assert item["resolved"] == str(tmp_path / "model.ckpt-5")

    def test_all_that_it_names_and_is_gone(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "model.ckpt-3")
        put(tmp_path / "model.ckpt-4")
        state(tmp_path, "model.ckpt-3", "model.ckpt-4")
        assert not any(item["notes"] for item in items(run, tmp_path, "--all-checkpoints"))
        state(tmp_path, "model.ckpt-1", "/elsewhere/model.ckpt-2", "model.ckpt-3", "model.ckpt-4")
        first, second = items(run, tmp_path, "--all-checkpoints")
        (note,) = first["notes"]
        assert "2 checkpoints that are not in this directory" in note
        assert "(model.ckpt-1, /elsewhere/model.ckpt-2)" in note
        assert not second["notes"]
        for part in tmp_path.glob("model.ckpt-?.*"):
            part.unlink()
        (item,) = items(run, tmp_path, "--all-checkpoints")
        assert item["error"]["kind"] == "incomplete"
        assert "4 checkpoints that are not in this directory" in item["error"]["message"]

    def test_thousands_that_are_gone_beside_thousands(self, run: Run, tmp_path: Path) -> None:
        def checking(size: int) -> Callable[[], object]:
            folder = tmp_path / str(size)
            folder.mkdir(exist_ok=True)
            for number in range(size):
                (folder / f"image-{number}.png").touch()
            put(folder / "model.ckpt-1")
            state(folder, *(f"/gone/model.ckpt-{number}" for number in range(1, size + 1)))
            return lambda: names(run, folder, folder, "--all-checkpoints")

        assert checking(50)() == ["model.ckpt-1"]
        assert growth(checking, 50) < LINEAR


class TestPointers:
    """Files that Git LFS has not fetched."""

    @pytest.mark.parametrize(
        ("source", "typed", "part"),
        [
            (CLEAN.parent, ".", "model.ckpt-60.index"),
            (CLEAN.parent, "model.ckpt-60", "model.ckpt-60.index"),
            (CLEAN.parent, "model.ckpt-60.index", "model.ckpt-60.index"),
            (CLEAN.parent, "model.ckpt-60", "model.ckpt-60.data-00000-of-00001"),
            (V1_SHARDS, "model.ckpt-60", "model.ckpt-60-00000-of-00004"),
            (V1_SHARDS, "model.ckpt-60", "model.ckpt-60-00001-of-00004"),
            (V1_SHARDS, ".", "model.ckpt-60-00002-of-00004"),
            (SAVED, ".", "variables/variables.index"),
            (SAVED, ".", "variables/variables.data-00000-of-00001"),
            (FIXTURES / "saved_model_keras2_nested_frozen", ".", "keras_metadata.pb"),
            (TRAINING, "checkpoint", "checkpoint"),
            (KERAS.parent, KERAS.name, KERAS.name),
            (
                load_fixture("keras3_weights_sharded").path.parent,
                load_fixture("keras3_weights_sharded").path.name,
                load_fixture("keras3_weights_sharded").path.name.replace(
                    ".weights.json", "_00001.weights.h5"
                ),
            ),
        ],
        ids=lambda value: value.name if isinstance(value, Path) else value,
    )
    def test_are_called_so(
        self, run: Run, tmp_path: Path, source: Path, typed: str, part: str
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(source, copy)
        assert (copy / part).is_file()
        (copy / part).write_bytes(POINTER)
        outcome = run("check", os.path.normpath(copy / typed), "--format", "json")
        assert outcome.exit_code == 2
        (item,) = outcome.json["checkpoints"]
        assert item["error"]["message"] == (
            f"{copy / part}: this is a Git LFS pointer, not the file itself"
        )
        assert "git lfs pull" in item["error"]["hint"]

    def test_the_graph_of_a_saved_model(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(SAVED, tmp_path / "saved")
        (tmp_path / "saved" / "saved_model.pb").write_bytes(POINTER)
        (item,) = items(run, tmp_path / "saved")
        assert "saved_model.pb: this is a Git LFS pointer" in item["error"]["message"]

    def test_a_state_file_is_done_without(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(TRAINING, tmp_path / "run")
        (tmp_path / "run" / "checkpoint").write_bytes(POINTER)
        (item,) = items(run, tmp_path / "run")
        assert item["resolved"] == str(tmp_path / "run" / "model.ckpt-60")
        assert "this is a Git LFS pointer" in item["notes"][0]
        for part in (tmp_path / "run").glob("model.ckpt*"):
            part.unlink()
        assert names(run, tmp_path, tmp_path / "run") == ["run unknown-format"]

    def test_the_index_still_tells_the_layers(self, run: Run, tmp_path: Path) -> None:
        prefix = put(tmp_path / "m")
        Path(f"{prefix}.data-00000-of-00001").write_bytes(POINTER)
        listed = run("list", prefix)
        assert listed.exit_code == 0
        assert "Git LFS pointer" in listed.said
        assert "conv1/batch_normalization" in listed.out

    @pytest.mark.parametrize("name", ["model-200", "net.v1-200", "model"])
    def test_a_walk_reports_them(self, run: Run, tmp_path: Path, name: str) -> None:
        shutil.copy(V1, tmp_path / "other-5")
        (tmp_path / name).write_bytes(POINTER)
        (tmp_path / "picture.png").write_bytes(POINTER)
        found = names(run, tmp_path, tmp_path)
        assert sorted(found) == sorted([f"{name} unknown-format", "other-5"])

    def test_a_text_of_that_beginning_is_none(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "a.h5").write_bytes(POINTER + b" " * 2000)
        (item,) = items(run, tmp_path / "a.h5")
        assert "this is a text file" in item["error"]["message"]


class TestV1CutShort:
    """A V1 checkpoint has no name of its own kind, so a cut one must not pass for another file."""

    @pytest.mark.parametrize("length", [40, 1000])
    def test_is_named_in_a_directory(self, run: Run, tmp_path: Path, length: int) -> None:
        put_keras(tmp_path / "a.h5")
        (tmp_path / "model-200").write_bytes(V1.read_bytes()[:length])
        assert names(run, tmp_path, tmp_path) == ["a.h5", "model-200 incomplete"]
        assert (
            "model-200: this TensorFlow V1 checkpoint was cut short" in run("check", tmp_path).said
        )

    def test_all_shards_are_named_once(self, run: Run, tmp_path: Path) -> None:
        for shard in V1_SHARDS.iterdir():
            (tmp_path / shard.name).write_bytes(shard.read_bytes()[:50])
        assert names(run, tmp_path, tmp_path) == ["model.ckpt-60-?????-of-00004 incomplete"]

    @pytest.mark.parametrize("content", [b"", b"\0", b"<html>not found</html>"])
    def test_one_named_like_its_siblings_is_claimed(
        self, run: Run, tmp_path: Path, content: bytes
    ) -> None:
        shutil.copy(V1, tmp_path / "model-100")
        (tmp_path / "model-200").write_bytes(content)
        (tmp_path / "DONE").write_bytes(content)
        assert names(run, tmp_path, tmp_path) == ["model-100", "model-200 unknown-format"]

    def test_the_newest_is_not_done_without(self, run: Run, tmp_path: Path) -> None:
        shutil.copy(V1, tmp_path / "model-100")
        (tmp_path / "model-200").write_bytes(V1.read_bytes()[:100])
        state(tmp_path, "model-300")
        (item,) = items(run, tmp_path)
        assert item["error"]["kind"] == "incomplete"
        assert "model-200" in item["error"]["message"]


class TestOutOfReach:
    """Files that are there, or may be, and cannot be opened; as root all of them can."""

    @staticmethod
    def close(monkeypatch: pytest.MonkeyPatch, closed: str, function: str) -> None:
        real = getattr(os, function)

        def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(closed):
                if function == "access":
                    return False
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *arguments, **options)

        monkeypatch.setattr(os, function, refuse)

    @pytest.mark.parametrize("typed", ["m", "m.index", "sub/m", "no.h5"])
    def test_a_directory_that_cannot_be_entered(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
    ) -> None:
        put(tmp_path / "closed" / "m")
        for function in ("stat", "access"):
            self.close(monkeypatch, f"{tmp_path}/closed/", function)
        outcome = run("check", tmp_path / "closed" / typed)
        assert outcome.exit_code == 2
        assert "cannot be reached (Permission denied)" in outcome.said

    def test_a_walk_reports_a_closed_file_of_a_name_that_is_ours(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "closed").mkdir()
        for name in ("model-200", "notes.txt", "model.pretrained"):
            shutil.copy(V1, tmp_path / "closed" / name)
        put_keras(tmp_path / "a.h5")
        self.close(monkeypatch, f"{tmp_path}/closed/", "open")
        assert names(run, tmp_path, tmp_path) == ["a.h5", "closed/model-200 corrupt"]
        assert "Permission denied" in run("check", tmp_path / "closed" / "model-200").said

    @pytest.mark.parametrize("name", ["loop", "loop.index", "loop.h5"])
    def test_a_link_that_leads_to_itself(self, run: Run, tmp_path: Path, name: str) -> None:
        (tmp_path / name).symlink_to(name)
        for typed in {name, name.removesuffix(".index")}:
            outcome = run("check", tmp_path / typed)
            assert outcome.exit_code == 2
            assert "symbolic links" in outcome.said

    def test_a_link_that_leads_nowhere(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "model.h5").symlink_to("gone.h5")
        outcome = run("check", tmp_path / "model.h5")
        assert outcome.exit_code == 2
        assert "this link leads nowhere" in outcome.said
        assert "Did you mean" not in outcome.said

    def test_an_empty_index_is_called_so(self, run: Run, tmp_path: Path) -> None:
        prefix = put(tmp_path / "m")
        Path(f"{prefix}.index").write_bytes(b"")
        for typed in (tmp_path, prefix, f"{prefix}.index"):
            (item,) = items(run, typed)
            assert "m.index: this file is empty" in item["error"]["message"]


class TestDirectoryOfModels:
    def test_files_of_any_name_are_told_by_their_content(self, run: Run, tmp_path: Path) -> None:
        shutil.copy(V1, tmp_path / "inception.pretrained")
        put_keras(tmp_path / "model.hdf")
        shutil.copy(load_fixture("keras3_zip_nested").path, tmp_path / "archive.zip")
        with h5py.File(tmp_path / "data.nc", "w") as file:
            file["images"] = np.zeros(3)
        for name, content in (
            ("a.png", b"\x89PNG"),
            ("b.json", b"{}"),
            ("c.txt", b""),
            ("d.pb", b"8"),
        ):
            (tmp_path / name).write_bytes(content)
        assert names(run, tmp_path, tmp_path) == [
            "archive.zip", "inception.pretrained", "model.hdf",
        ]  # fmt: skip

    def test_maps_cost_their_number(self, run: Run, tmp_path: Path) -> None:
        def checking(size: int) -> Callable[[], object]:
            folder = tmp_path / str(size)
            folder.mkdir(exist_ok=True)
            for number in range(size):
                (folder / f"{number}.weights.json").touch()
            put_keras(folder / "7_00000.weights.h5")
            return lambda: names(run, folder, folder)

        assert checking(50)() == ["7.weights.json unknown-format"]
        assert growth(checking, 50) < LINEAR

    def test_every_checkpoint_once(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(TRAINING, tmp_path / "run")
        put(tmp_path / "sharded" / "m", SHARDED)
        put_keras(tmp_path / "b.h5")
        put_keras(tmp_path / "a" / "weird.keras")
        put_keras(tmp_path / ".hidden" / "c.h5")
        put_keras(tmp_path / "._b.h5")
        put_table(tmp_path / "run" / "._model.ckpt-60.index")
        (tmp_path / "README.md").write_text("model.h5", encoding="utf-8")
        assert names(run, tmp_path, tmp_path) == [
            "b.h5", "a/weird.keras", "run/model.ckpt-40", "run/model.ckpt-60", "sharded/m",
        ]  # fmt: skip

    def test_steps_in_natural_order(self, run: Run, tmp_path: Path) -> None:
        for name in ("model.ckpt-1000", "model.ckpt-200", "run10/m", "run9/m"):
            put(tmp_path / name)
        found = names(run, tmp_path, tmp_path)
        assert found == ["model.ckpt-200", "model.ckpt-1000", "run9/m", "run10/m"]

    def test_other_containers_count_once(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "saved" / "variables" / "variables")
        (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
        (tmp_path / "saved" / "assets").mkdir()
        for shard in range(3):
            put_table(tmp_path / f"old.ckpt-5-0000{shard}-of-00003")
        (tmp_path / "old.ckpt-5.meta").write_bytes(b"\x0a\x00")
        put_table(tmp_path / "older-7")
        (tmp_path / "big.weights.json").write_text('{"weight_map": {}}', encoding="utf-8")
        for shard in range(2):
            put_keras(tmp_path / f"big_0000{shard}.weights.h5")
        found = [name.split()[0] for name in names(run, tmp_path, tmp_path)]
        assert found == ["big.weights.json", "old.ckpt-5-?????-of-00003", "older-7", "saved"]

    def test_what_is_no_checkpoint_is_passed_over(self, run: Run, tmp_path: Path) -> None:
        put_keras(tmp_path / "model.h5")
        with h5py.File(tmp_path / "data.h5", "w") as file:
            file["images"] = np.zeros(3)
        np.save(tmp_path / "array.ckpt", np.zeros(3), allow_pickle=False)
        (tmp_path / "array.ckpt.npy").rename(tmp_path / "array.ckpt")
        (tmp_path / "torch.ckpt").write_bytes(
            b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(99)
        )
        (tmp_path / "vectors.index").write_bytes(b"IxF2" + bytes(100))
        (tmp_path / "lonely.meta").write_bytes(b"\x0a\x00")
        (tmp_path / "train-00000-of-00100").write_bytes(bytes(100))
        os.mkfifo(tmp_path / "pipe.h5")
        put(tmp_path / "model.ckpt-9_temp_0123456789abcdef0123456789abcdef" / "part-00000-of-00001")
        assert names(run, tmp_path, tmp_path) == ["model.h5"]

    @pytest.mark.parametrize(
        ("name", "content", "kind"),
        [
            ("cut.h5", KERAS.read_bytes()[:4000], "corrupt"),
            ("empty.hdf5", b"", "unknown-format"),
            ("page.weights.h5", b"<html>not found</html>", "unknown-format"),
            ("pointer.ckpt", b"version https://git-lfs.github.com/spec/v1\n", "unknown-format"),
            ("model.keras", b"PK\x03\x04" + bytes(100), "corrupt"),
            ("cut.ckpt-20", b"\x00" * 100, "unknown-format"),
        ],
    )
    def test_what_claims_to_be_one_is_reported(
        self, run: Run, tmp_path: Path, name: str, content: bytes, kind: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        put_keras(tmp_path / "sound.h5")
        assert sorted(names(run, tmp_path, tmp_path)) == sorted([f"{name} {kind}", "sound.h5"])
        assert run("check", tmp_path).exit_code == 2

    def test_half_a_checkpoint_is_reported(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "a")
        (tmp_path / "a.index").unlink()
        put(tmp_path / "b")
        (tmp_path / "b.data-00000-of-00001").unlink()
        put(tmp_path / "c")
        (tmp_path / "c.index").write_bytes((tmp_path / "c.index").read_bytes()[:200])
        (tmp_path / "d.h5").symlink_to("nowhere")
        assert names(run, tmp_path, tmp_path) == [
            "a incomplete", "b incomplete", "c unknown-format", "d.h5 not-found",
        ]  # fmt: skip

    def test_links(self, run: Run, tmp_path: Path) -> None:
        root = tmp_path / "models"
        put(root / "run3" / "m")
        put_keras(tmp_path / "outside" / "n.h5")
        (root / "best").symlink_to("run3")
        (root / "linked").symlink_to("../outside")
        (root / "run3" / "loop").symlink_to("..")
        (root / "run3" / "itself").symlink_to("itself")
        (root / "run3" / "up").symlink_to(tmp_path)
        assert names(run, root, root) == ["run3/m", "linked/n.h5"]

    def test_nothing_below_it(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
        with h5py.File(tmp_path / "data.h5", "w") as file:
            file["images"] = np.zeros(3)
        outcome = run("check", tmp_path)
        assert outcome.exit_code == 2
        assert "holds no checkpoint" in outcome.said
        assert names(run, tmp_path, tmp_path) == [". not-found"]

    def test_a_directory_that_cannot_be_read(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_keras(tmp_path / "a.h5")
        put_keras(tmp_path / "closed" / "b.h5")
        put_keras(tmp_path / "gone" / "c.h5")
        real = os.scandir

        def scandir(path: str) -> Any:
            if str(path).endswith("closed"):
                raise PermissionError(13, "Permission denied")
            if str(path).endswith("gone"):
                raise FileNotFoundError(2, "No such file or directory")
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
        assert names(run, tmp_path, tmp_path) == ["a.h5", "closed not-found"]
        assert "Permission denied" in run("check", tmp_path / "closed").said
        assert names(run, tmp_path, tmp_path / "gone") == ["gone not-found"]

    def test_files_cost_their_number(self, run: Run, tmp_path: Path) -> None:
        endings = ("", ".png", ".json", ".ckpt")  # all are opened

        def checking(size: int) -> Callable[[], object]:
            root = tmp_path / str(size)
            for number in range(size):
                folder = root / str(number % 10)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number}{endings[number % 4]}").write_bytes(b"\x80" * 100)
            return lambda: names(run, root, root)

        assert checking(50)() == [". not-found"]
        assert growth(checking, 50) < LINEAR


@pytest.mark.parametrize(
    "stem", ["saved_model_tf1_hub", "saved_model_keras2_nested_frozen", "saved_model_keras3_export"]
)
def test_a_saved_model_by_any_of_its_files(run: Run, stem: str, tmp_path: Path) -> None:
    files = [path for path in (FIXTURES / stem).rglob("*") if path.is_file()]
    assert files
    for typed in ([file] for file in files):
        (item,) = items(run, *typed)
        assert item["error"] is None
        assert item["resolved"] == str(FIXTURES / stem)
    assert len(items(run, *files)) == 1
    shutil.copy(FIXTURES / "saved_model_keras3_export" / "fingerprint.pb", tmp_path)
    assert names(run, tmp_path, tmp_path / "fingerprint.pb") == ["fingerprint.pb unknown-format"]


class TestListed:
    """`--skip-unknown`: files that a tool lists are judged as those of a directory."""

    def test_what_is_no_checkpoint_is_passed_over(self, run: Run, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "data.h5", "w") as file:
            file["images"] = np.zeros(3)
        (tmp_path / "torch.ckpt").write_bytes(b"\x80\x02}q\x00.")
        (tmp_path / "asset.h5.meta").write_text("guid: 0\n")
        (tmp_path / "vectors.index").write_bytes(b"IxF2" + bytes(100))
        (tmp_path / "train-00000-of-00100").write_bytes(bytes(100))
        files = list(tmp_path.iterdir())
        assert run("check", *files).exit_code == 2
        assert names(run, tmp_path, *files, "--skip-unknown") == []
        assert run("check", *files, "--skip-unknown").exit_code == 3
        assert run("check", *files, "--skip-unknown", "--allow-empty").exit_code == 0
        files.append(put_keras(tmp_path / "model.h5"))
        assert names(run, tmp_path, *files, "--skip-unknown") == ["model.h5"]

    def test_what_claims_to_be_one_is_reported(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "cut.h5").write_bytes(KERAS.read_bytes()[:4000])
        (tmp_path / "pointer.h5").write_bytes(POINTER)
        (tmp_path / "empty.keras").write_bytes(b"")
        put(tmp_path / "a")
        (tmp_path / "a.index").unlink()
        typed = [*sorted(tmp_path.iterdir()), tmp_path / "gone.h5"]
        assert names(run, tmp_path, *typed, "--skip-unknown") == [
            "a incomplete", "cut.h5 corrupt", "empty.keras unknown-format",
            "pointer.h5 unknown-format", "gone.h5 not-found",
        ]  # fmt: skip

    def test_parts_stand_for_the_whole(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "m-5")
        put_table(tmp_path / "n-5")
        (tmp_path / "n-5.meta").write_bytes(b"\x0a\x00")
        for file in (FIXTURES / "keras3_weights_sharded").iterdir():
            shutil.copy(file, tmp_path)
        for listed, whole in (
            ("m-5.index", "m-5"),
            ("m-5.data-00000-of-00001", "m-5"),
            ("n-5.meta", "n-5"),
            ("model.weights.json", "model.weights.json"),
            ("model_00001.weights.h5", "model.weights.json"),
        ):
            found = names(run, tmp_path, tmp_path / listed, "--skip-unknown")
            assert [name.split()[0] for name in found] == [whole]
        # An index that is damaged is told by the data beside it, which is not listed.
        (tmp_path / "m-5.index").write_bytes(b"x")
        assert names(run, tmp_path, tmp_path / "m-5.index", "--skip-unknown") == [
            "m-5 unknown-format"
        ]

    def test_other_paths_mean_what_they_mean(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(tmp_path / "m-5")
        state(tmp_path, "m-5")
        for typed in (tmp_path, tmp_path / "m-5", tmp_path / "checkpoint", f"{tmp_path}/m*"):
            assert len(items(run, typed, "--skip-unknown")) == 1
        monkeypatch.chdir(tmp_path)
        assert [item["path"] for item in items(run, "m-5.index", "--skip-unknown")] == ["m-5"]

    def test_files_cost_their_number(self, run: Run, tmp_path: Path) -> None:
        def checking(size: int) -> Callable[[], list[object]]:
            folder = tmp_path / str(size)
            folder.mkdir(exist_ok=True)
            for number in range(size):
                for part in ("index", "data-00000-of-00001"):
                    (folder / f"m-{number}.{part}").touch()
            files = list(map(str, folder.iterdir()))
            return lambda: items(run, *files, "--skip-unknown")

        assert len(checking(25)()) == 25
        assert growth(checking, 25) < LINEAR


class TestSeveral:
    def test_patterns_that_the_shell_left_alone(self, run: Run, tmp_path: Path) -> None:
        for name in ("a/model.ckpt-200", "a/model.ckpt-1000", "b/model.ckpt-5"):
            put(tmp_path / name)
        (tmp_path / "a" / "model.ckpt-200.meta").write_bytes(b"\x0a\x00")
        expected = ["a/model.ckpt-200", "a/model.ckpt-1000", "b/model.ckpt-5"]
        assert names(run, tmp_path, f"{tmp_path}/*/model.ckpt-*") == expected
        assert names(run, tmp_path, f"{tmp_path}/*/model.ckpt-*.index") == expected
        assert names(run, tmp_path, f"{tmp_path}/*") == expected
        assert names(run, tmp_path, f"{tmp_path}/?/model.ckpt-5") == ["b/model.ckpt-5"]
        assert names(run, tmp_path, f"{tmp_path}/*.h5") == ["*.h5 not-found"]

    def test_one_that_several_paths_name_is_read_once(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "model.ckpt-5")
        (tmp_path / "link").symlink_to(tmp_path)
        state(tmp_path, "model.ckpt-5")
        put_keras(tmp_path / "sub" / "a.h5")
        typed = [
            tmp_path / "model.ckpt-5.index",
            *sorted(path for path in tmp_path.glob("model.ckpt-5.*")),
            tmp_path,
            f"{tmp_path}/link/model.ckpt-5",
            f"{tmp_path}/*ckpt-*",
            tmp_path / "sub" / "a.h5",
            f"{tmp_path}/sub/../sub",
        ]
        assert names(run, tmp_path, *typed) == ["model.ckpt-5.index", "sub/a.h5"]
        assert run("check", *typed, "--format", "json").json["summary"]["checkpoints"] == 2

    def test_a_file_that_a_directory_passes_over_may_be_named(
        self, run: Run, tmp_path: Path
    ) -> None:
        put_keras(tmp_path / "sound.h5")
        with h5py.File(tmp_path / "data.h5", "w") as file:
            file["images"] = np.zeros(3)
        for typed in ([tmp_path, tmp_path / "data.h5"], [tmp_path / "data.h5", tmp_path]):
            assert sorted(names(run, tmp_path, *typed)) == ["data.h5 unknown-format", "sound.h5"]
            assert run("check", *typed).exit_code == 2

    def test_all_that_is_wrong_with_one_is_said_once(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "m")
        (tmp_path / "m.index").unlink()
        (tmp_path / "m.meta").write_bytes(b"\x0a\x00")
        typed = (tmp_path / "m", *tmp_path.iterdir())
        assert len(items(run, *typed)) == 1

    def test_a_map_of_shards_is_matched_by_its_name(self, run: Run) -> None:
        pattern = FIXTURES / "keras3_weights_sharded" / "*.weights.json"
        assert run("check", pattern, "--format", "json").json["summary"]["checkpoints"] == 1

    def test_the_first_line_is_the_answer(self, run: Run, tmp_path: Path) -> None:
        for number in range(8):
            put(tmp_path / f"good{number}")
        put(tmp_path / "stuck", STUCK)
        (tmp_path / "cut.h5").write_bytes(KERAS.read_bytes()[:4000])
        for options in ((), ("--quiet",)):
            lines = run("check", tmp_path, *options).out.splitlines()
            assert lines[0] == (
                "ERROR  10 checkpoints: 1 unreadable, 1 failed (BN101), 8 passed;"
                f" first unreadable: {tmp_path}/cut.h5"
            )
            assert lines[-1].startswith(
                "10 checkpoints, 27 BN layers: 3 errors, 0 warnings, 0 notes"
            )
            assert lines[-1].endswith("; 1 unreadable, 1 failed, 8 passed")
        (tmp_path / "cut.h5").unlink()
        first = run("check", tmp_path).out.splitlines()[0]
        assert first == (
            f"FAIL  9 checkpoints: 1 failed (BN101), 8 passed; first failed: {tmp_path}/stuck"
        )

    def test_output_never_replaces_what_a_directory_holds(self, run: Run, tmp_path: Path) -> None:
        model = put_keras(tmp_path / "models" / "a.h5")
        for command in (("check",), ("list",), ("dump", "--layer", "*")):
            outcome = run(*command, tmp_path / "models", "-o", model)
            assert outcome.exit_code == 2
            assert "is a file of the checkpoint" in outcome.err
        assert model.read_bytes() == KERAS.read_bytes()

    def test_output_never_replaces_a_part(self, run: Run, tmp_path: Path) -> None:
        shard = put_table(tmp_path / "old.ckpt-5-00001-of-00003")
        graph = tmp_path / "saved" / "saved_model.pb"
        graph.parent.mkdir()
        graph.write_bytes(b"\x08\x01")
        for part in (shard, graph):
            before = part.read_bytes()
            assert "is a file of" in run("check", tmp_path, "-o", part).err
            assert part.read_bytes() == before

    def test_variables_are_the_saved_model_only_inside_of_it(
        self, run: Run, tmp_path: Path
    ) -> None:
        put(tmp_path / "saved" / "other" / "variables")
        put(tmp_path / "saved" / "variables" / "variables", STUCK)
        (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
        typed = (tmp_path / "saved" / "variables", tmp_path / "saved" / "other")
        assert len(items(run, *typed)) == 2
        assert len(items(run, tmp_path / "saved" / "variables" / "variables", *typed)) == 2


class TestDump:
    def test_of_several_wants_to_be_told(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "a")
        put(tmp_path / "b")
        outcome = run("dump", tmp_path, "--layer", "*")
        assert outcome.exit_code == 2
        assert "names 2 checkpoints" in outcome.err
        assert "--all-checkpoints" in outcome.err

    def test_all_checkpoints(self, run: Run, tmp_path: Path) -> None:
        options = (TRAINING, "--all-checkpoints", "--layer", "conv1/*")
        prefixes = [str(TRAINING / f"model.ckpt-{step}") for step in (40, 60)]
        text = run("dump", *options).out
        assert [text.count(f"from {prefix}\n") for prefix in prefixes] == [1, 1]
        document = run("dump", *options, "--format", "json").json
        assert [item["path"] for item in document["checkpoints"]] == prefixes
        assert [item["step"] for item in document["checkpoints"]] == [40, 60]
        rows = run("dump", *options, "--format", "csv").out.splitlines()
        assert rows[0].startswith("checkpoint,layer,channel,")
        assert {row.split(",")[0] for row in rows[1:]} == set(prefixes)
        run("dump", *options, "--format", "npz", "-o", tmp_path / "values.npz")
        with np.load(tmp_path / "values.npz") as arrays:
            assert f"{prefixes[0]}/conv1/batch_normalization/gamma" in arrays

    def test_goes_on_after_an_unreadable_one(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / "a")
        (tmp_path / "cut.h5").write_bytes(KERAS.read_bytes()[:4000])
        outcome = run("dump", tmp_path, "--all-checkpoints", "--layer", "*", "--format", "csv")
        assert outcome.exit_code == 2
        assert "cut.h5" in outcome.err
        assert len(outcome.out.splitlines()) > 3


class TestWithoutData:
    def test_what_lies_in_the_shards_that_are_there_has_values(
        self, run: Run, tmp_path: Path
    ) -> None:
        whole = run("list", SHARDED, "--format", "json").json["checkpoints"][0]["layers"]
        values = 0
        for shard in range(4):
            prefix = put(tmp_path / str(shard) / "m", SHARDED)
            missing = Path(f"{prefix}.data-0000{shard}-of-00004")
            missing.unlink()
            listed = run("list", prefix, "--format", "json")
            assert listed.exit_code == 0
            (item,) = listed.json["checkpoints"]
            assert [layer["name"] for layer in item["layers"]] == [layer["name"] for layer in whole]
            told = []
            assert whole
            for layer, sound in zip(item["layers"], whole, strict=True):
                for role, statistic in layer["statistics"].items():
                    assert statistic in (None, sound["statistics"][role])
                    told.append(statistic is not None)
            values += sum(told)
            if not all(told):
                assert any(missing.name in note for note in item["notes"])
                checked = run("check", prefix)
                assert checked.exit_code == 2
                assert missing.name in checked.out
        assert values == (4 - 1) * 2 * len(whole)  # each statistic lies in one shard

    def test_an_index_alone(self, run: Run, tmp_path: Path) -> None:
        shutil.copy(f"{SHARDED}.index", tmp_path / "m.index")
        out = run("list", tmp_path).out
        assert "the values are missing" in out
        assert run("check", tmp_path).exit_code == 2


class TestInPython:
    def test_open_checkpoint_wants_one(self, tmp_path: Path) -> None:
        put(tmp_path / "a")
        with bninspect.open_checkpoint(tmp_path) as checkpoint:
            assert checkpoint.resolved == str(tmp_path / "a")
        put(tmp_path / "b")
        with pytest.raises(bninspect.ReadProblem, match="Name one of them"):
            bninspect.open_checkpoint(tmp_path)
        (tmp_path / "empty").mkdir()
        with pytest.raises(bninspect.ReadProblem, match="holds no checkpoint"):
            bninspect.open_checkpoint(tmp_path / "empty")
        with bninspect.open_checkpoint(TRAINING) as checkpoint:
            assert checkpoint.resolved == str(TRAINING / "model.ckpt-60")

    def test_check_and_list_take_directories(self, tmp_path: Path) -> None:
        put(tmp_path / "a")
        put(tmp_path / "b", STUCK)
        assert [len(item.findings) for item in bninspect.check(tmp_path).checkpoints] == [0, 3]
        assert len(bninspect.list_layers(tmp_path, tmp_path / "a").checkpoints) == 2
        assert len(bninspect.check(TRAINING, all_checkpoints=True).checkpoints) == 2

    def test_json_holds_any_path(self, run: Run, tmp_path: Path) -> None:
        put(tmp_path / os.fsdecode(b"\xff"))
        json.loads(run("check", tmp_path, "--format", "json").out)


@pytest.mark.parametrize(
    ("typed", "meant"), [("model.ckpt", "model.ckpt-60"), ("modle.ckpt-60", "model.ckpt-60")]
)
def test_a_name_that_is_nearly_right(run: Run, typed: str, meant: str) -> None:
    folder = load_fixture("tf1_layers_correct").path.parent
    outcome = run("check", folder / typed)
    assert outcome.exit_code == 2
    assert f"Did you mean {folder / meant}?" in outcome.said


class TestSavedModels:
    """A SavedModel counts once, whatever its graph is called and whatever lies beside it."""

    @pytest.mark.parametrize("stem", ["saved_model_tf1_stuck", "saved_model_tf1_flat"])
    @pytest.mark.parametrize("names", [("a.pb",), ("z.pb",), ("saved_model.pb", "copy.pb")])
    def test_variables_count_once(
        self, run: Run, tmp_path: Path, stem: str, names: tuple[str, ...]
    ) -> None:
        folder = shutil.copytree(FIXTURES / stem, tmp_path / "models" / "export")
        graph = (folder / "saved_model.pb").rename(tmp_path / "graph")
        for name in names:
            shutil.copy(graph, folder / name)
        (item,) = items(run, tmp_path / "models")
        assert len(item["layers"]) == 3
        assert item["format"] == "saved-model"

    def test_graphs_without_variables_are_models_of_their_own(
        self, run: Run, tmp_path: Path
    ) -> None:
        for name in ("a.pb", "b.pb"):
            shutil.copy(FIXTURES / "saved_model_tf1_constants" / "saved_model.pb", tmp_path / name)
        assert names(run, tmp_path, tmp_path) == ["a.pb", "b.pb"]
