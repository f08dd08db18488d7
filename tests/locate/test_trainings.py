"""Which checkpoints form one training, and in which order: by check, report, compare and watch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bninspect.model.filenames import counters
from tests.conftest import FIXTURES, Run, load_fixture
from tests.support.pages import Page
from tests.support.table_writer import write_bundle

# Trained with its update ops until step 40, without them until step 60: see fixtures/make.
STOPPED = FIXTURES / "tf1_history_stopped"
STEPS = (20, 40, 60)
NAMES = [f"model.ckpt-{step}" for step in STEPS]
KERAS = load_fixture("keras2_nested").path


def saved_with_absolute_names(directory: Path, names: list[str] = NAMES) -> Path:
    """Copy the training to a directory, as a Saver with an absolute prefix would have left it."""
    shutil.copytree(STOPPED, directory)
    lines = [f'model_checkpoint_path: "{directory}/{names[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{directory}/{name}"' for name in names]
    (directory / "checkpoint").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def write(prefix: Path, step: int | None, mean: float, gamma: float = 1.0) -> Path:
    """Write a checkpoint of one BN layer, whose statistics are those of `mean`."""
    stored: dict[str, Any] = {
        "bn/gamma": np.full(3, gamma, "f4"),
        "bn/moving_mean": np.full(3, mean, "f4"),
        "bn/moving_variance": np.full(3, 1 + mean, "f4"),
    }
    if step is not None:
        stored["global_step"] = np.int64(step)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(prefix, stored)
    return prefix


def checked(run: Run, *arguments: object) -> list[dict[str, Any]]:
    outcome = run("check", *arguments, "--all-checkpoints", "--format", "json")
    found: list[dict[str, Any]] = outcome.json["checkpoints"]
    return found


def paths(items: list[dict[str, Any]]) -> list[str]:
    return [item["path"] for item in items]


def frozen(items: list[dict[str, Any]]) -> list[str]:
    """The names of the checkpoints in which BN107 found something."""
    return [
        os.path.basename(item["path"])
        for item in items
        if any(finding["rule"] == "BN107" for finding in item["findings"])
    ]


@pytest.fixture
def typed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The directory of a training as it is typed, in the way that the test asks for."""
    run = saved_with_absolute_names(tmp_path / "run")
    way = request.param
    if way == ".":
        monkeypatch.chdir(run)
        return "."
    monkeypatch.chdir(tmp_path)
    if way == "through a link":
        (tmp_path / "link").symlink_to("run")
        return "link"
    if way == "a copy":
        shutil.copytree(run, tmp_path / "copy")
        return "copy"
    if way == "moved":
        run.rename(tmp_path / "moved")
        return "moved"
    return str(run) if way == "absolute" else "run"


ways = pytest.mark.parametrize(
    "typed", ["relative", ".", "through a link", "absolute", "a copy", "moved"], indirect=True
)


class TestAbsoluteNames:
    """A Saver that is given an absolute prefix writes absolute names into its state file."""

    @ways
    def test_are_taken_oldest_first_below_what_was_typed(self, run: Run, typed: str) -> None:
        items = checked(run, typed)
        assert paths(items) == [os.path.join(typed, name) for name in NAMES]
        assert frozen(items) == ["model.ckpt-60"]

    @ways
    def test_are_compared_and_drawn_in_that_order(self, run: Run, typed: str) -> None:
        compared = run("compare", typed, "--format", "json").json
        assert paths(compared["checkpoints"]) == [os.path.join(typed, name) for name in NAMES]
        assert not any("contradict" in note for note in compared["notes"])
        report = run("report", typed, "--all-checkpoints")
        assert report.exit_code == 1
        assert "3 checkpoints, from step 20 to step 60" in Page(report.out).text

    @ways
    def test_the_newest_is_opened_below_what_was_typed(self, run: Run, typed: str) -> None:
        (item,) = run("check", typed, "--format", "json").json["checkpoints"]
        assert item["resolved"] == os.path.join(typed, "model.ckpt-60")
        assert not any("other models" in note for note in item["notes"])

    @ways
    def test_one_is_the_earlier_of_another(self, run: Run, typed: str) -> None:
        newest, earlier = (os.path.join(typed, name) for name in (NAMES[2], NAMES[1]))
        assert run("check", newest, "--since", earlier).exit_code == 1

    @pytest.mark.parametrize("typed", ["through a link"], indirect=True)
    def test_two_paths_to_one_directory_are_one_training(self, run: Run, typed: str) -> None:
        items = checked(run, "run/model.ckpt-60", *(f"{typed}/{name}" for name in NAMES[:2]))
        assert paths(items) == ["link/model.ckpt-20", "link/model.ckpt-40", "run/model.ckpt-60"]
        assert frozen(items) == ["model.ckpt-60"]


class TestCopies:
    def test_one_that_lacks_the_newest_is_not_completed_from_the_original(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        original = saved_with_absolute_names(tmp_path / "run")
        shutil.copytree(original, "copy")
        for part in Path("copy").glob("model.ckpt-60.*"):
            part.unlink()
        items = checked(run, "copy")
        assert paths(items) == ["copy/model.ckpt-20", "copy/model.ckpt-40"]
        assert f"{original}/model.ckpt-60, which is not in this directory" in items[0]["notes"][0]
        (newest,) = run("check", "copy", "--format", "json").json["checkpoints"]
        assert newest["resolved"] == "copy/model.ckpt-40"
        assert "which is outside of this directory" in newest["notes"][0]

    def test_what_never_lay_here_is_taken_from_where_it_lies(
        self, run: Run, tmp_path: Path
    ) -> None:
        saved = saved_with_absolute_names(tmp_path / "run")
        (tmp_path / "log").mkdir()
        shutil.move(saved / "checkpoint", tmp_path / "log" / "checkpoint")
        items = checked(run, tmp_path / "log")
        assert paths(items) == [str(saved / name) for name in NAMES]
        assert frozen(items) == ["model.ckpt-60"]


class TestOrder:
    """The numbers in the names count; where they do not, the stored steps do."""

    @pytest.mark.parametrize(
        "names",
        [
            ["acc0.95-a.ckpt", "acc0.91-a.ckpt", "acc0.93-a.ckpt"],
            ["acc95-epoch1", "acc91-epoch2", "acc93-epoch3"],
        ],
    )
    def test_of_names_with_a_metric(self, run: Run, tmp_path: Path, names: list[str]) -> None:
        for step, name in enumerate(names, 1):
            write(tmp_path / name, 10 * step, mean=min(step, 2), gamma=step)
        items = checked(run, tmp_path)
        assert paths(items) == [str(tmp_path / name) for name in names]
        assert frozen(items) == names[2:]
        compared = run("compare", tmp_path, "--format", "json").json
        assert paths(compared["checkpoints"]) == paths(items)

    def test_of_files_that_the_shell_has_sorted(self, run: Run, tmp_path: Path) -> None:
        typed = [tmp_path / f"epoch{number}" for number in (1, 10, 9)]
        for path, step in zip(typed, (1, 10, 9), strict=True):
            write(path, step, mean=min(step, 9), gamma=step)
        items = checked(run, *typed)
        assert paths(items) == [str(tmp_path / f"epoch{number}") for number in (1, 9, 10)]
        assert frozen(items) == ["epoch10"]

    def test_of_an_optimizer_that_was_made_anew(self, run: Run, tmp_path: Path) -> None:
        for epoch, step in enumerate((10, 20, 30, 10, 20), 1):
            write(tmp_path / f"epoch{epoch}", step, mean=min(epoch, 4), gamma=epoch)
        items = checked(run, tmp_path)
        assert paths(items) == [str(tmp_path / f"epoch{epoch}") for epoch in range(1, 6)]
        assert frozen(items) == ["epoch5"]
        compared = run("compare", tmp_path, "--format", "json").json
        assert paths(compared["checkpoints"]) == paths(items)

    def test_of_a_last_one_without_a_number(self, run: Run, tmp_path: Path) -> None:
        for name, step in (("model.ckpt-9", 9), ("model.ckpt-10", 10), ("model.ckpt", 11)):
            write(tmp_path / name, step, mean=min(step, 10), gamma=step)
        compared = run("compare", tmp_path, "--format", "json")
        names = [os.path.basename(path) for path in paths(compared.json["checkpoints"])]
        assert names == ["model.ckpt-9", "model.ckpt-10", "model.ckpt"]
        assert compared.exit_code == 1

    def test_of_names_that_tell_nothing_and_steps_that_are_not_stored(
        self, run: Run, tmp_path: Path
    ) -> None:
        for name in ("loss0.5.ckpt", "loss0.25.ckpt"):
            write(tmp_path / name, None, mean=1)
        assert paths(checked(run, tmp_path)) == [
            str(tmp_path / name) for name in ("loss0.5.ckpt", "loss0.25.ckpt")
        ]


class TestFolders:
    def test_of_one_checkpoint_each_are_a_training(self, run: Run, tmp_path: Path) -> None:
        for epoch in (1, 9, 10):
            write(tmp_path / f"epoch_{epoch}" / "model", epoch, mean=min(epoch, 9), gamma=epoch)
        items = checked(run, tmp_path)
        assert len(items) == 3
        assert [bool(item["findings"]) for item in items] == [False, False, True]
        compared = run("compare", tmp_path, "--format", "json")
        assert paths(compared.json["checkpoints"]) == paths(items)
        assert compared.exit_code == 1

    def test_of_several_checkpoints_are_trainings_of_their_own(
        self, run: Run, tmp_path: Path
    ) -> None:
        for number in (1, 2):
            for step in (10, 20):
                mean = 10 * number + step
                write(tmp_path / f"run_{number}" / f"model-{step}", step, mean, gamma=step)
        assert not frozen(checked(run, tmp_path))
        refused = run("compare", tmp_path)
        assert refused.exit_code == 2
        assert "2 folders" in refused.err

    def test_of_another_kind_are_told(self, run: Run, tmp_path: Path) -> None:
        saved = saved_with_absolute_names(tmp_path / "run")
        shutil.copy(KERAS, saved / "best.h5")
        (item,) = run("check", saved, "--format", "json").json["checkpoints"]
        assert any("also holds other models" in note for note in item["notes"])


@pytest.mark.parametrize(
    ("names", "counted"),
    [
        (["m-5", "m-10"], [5, 10]),
        (["a3-m-5", "a3-m-10"], [5, 10]),
        (["e1-s100", "e1-s200", "e2-s300"], [100, 200, 300]),
        (["w.01-0.5.h5", "w.02-0.4.h5"], [1, 2]),
        (["loss0.5", "loss0.4"], None),
        (["acc95-e1", "acc91-e2"], None),
        (["m", "m"], None),
        (["m"], [0]),
        ([], []),
    ],
)
def test_the_number_that_counts(names: list[str], counted: list[int] | None) -> None:
    assert counters(names) == counted
