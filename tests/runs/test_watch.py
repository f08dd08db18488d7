"""A training that is watched: what is reported of it, when, and how a watch ends."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bninspect.config.model import Config, make_config
from bninspect.model.report import CheckpointReport
from bninspect.runs.watch import DirectoryWatch, Pace
from tests.conftest import FIXTURES, ROOT, Run, parsed
from tests.support.processes import PATIENCE, start_program
from tests.support.table_writer import write_bundle
from tests.trainings.watched import SAVES

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
INTERVAL, GRACE = 10.0, 60.0
HISTORY = FIXTURES / "tf1_history_stopped"
DATA = ".data-00000-of-00001"


class Clock:
    """A watch by a clock that goes on only while it sleeps; `at` says what happens when."""

    def __init__(self, directory: Path, config: Config | None = None, **pace: Any) -> None:
        self.now = 1000.0
        self.looks = 0
        self._plan: list[tuple[float, Callable[[], object]]] = []
        pace = {"interval": INTERVAL, "grace": GRACE, "timeout": 500.0, **pace}
        self.watch = DirectoryWatch(
            str(directory), config or make_config(), Pace(**pace), lambda: self.now, self._sleep
        )

    def at(self, seconds: float, do: Callable[[], object]) -> None:
        self._plan.append((1000.0 + seconds, do))
        self._plan.sort(key=lambda one: one[0])

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.looks += 1
        until = self.now + seconds
        while self._plan and self._plan[0][0] <= until:
            self.now, do = self._plan.pop(0)
            do()
        self.now = until

    def run(self) -> list[tuple[float, CheckpointReport]]:
        """(seconds since the start, what was reported)."""
        return [(self.now - 1000.0, report) for report in self.watch.reports()]


def names(said: list[tuple[float, CheckpointReport]]) -> list[str]:
    return [Path(report.path).name for _, report in said]


def codes(report: CheckpointReport) -> set[str]:
    return {finding.rule.code for finding in report.findings}


def copy_step(step: int, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for path in HISTORY.glob(f"model.ckpt-{step}.*"):
        shutil.copy(path, to / path.name)


def hdf5_in_two(path: Path, libver: str) -> tuple[bytes, bytes]:
    """Weights of Keras 3 with two BN layers: flushed after the first, and when it is closed."""
    with h5py.File(path, "w", libver=libver, locking=False) as file:
        for number in (1, 2):
            layer = file.create_group(f"layers/batch_normalization_{number}/vars")
            for name, values in enumerate(bn(number).values()):
                layer.create_dataset(str(name), data=values)
            layer.create_dataset("3", data=np.ones(3, np.float32))
            if number == 1:
                file.flush()
        file.create_dataset("layers/dense/vars/0", data=np.ones((100, 100), np.float32))
        unfinished = path.read_bytes()
    return unfinished, path.read_bytes()


def bn(mean: float = 0.5, channels: int = 3) -> dict[str, np.ndarray]:
    return {
        "bn/gamma": np.linspace(1.1, 1.5, channels, dtype=np.float32),
        "bn/moving_mean": np.full(channels, mean, np.float32),
        "bn/moving_variance": np.full(channels, 1.0 if mean == 0 else 0.7, np.float32),
    }


class TestArrival:
    def test_each_is_told_once_and_compared_with_the_one_before(self, tmp_path: Path) -> None:
        clock = Clock(tmp_path)
        for number, step in enumerate((20, 40, 60)):
            clock.at(100 * number + 5, lambda step=step: copy_step(step, tmp_path))
        said = clock.run()
        assert names(said) == ["model.ckpt-20", "model.ckpt-40", "model.ckpt-60"]
        assert [report.step for _, report in said] == [20, 40, 60]
        assert [codes(report) for _, report in said] == [set(), set(), {"BN107"}]
        for number, (when, _) in enumerate(said):
            assert 0 < when - (100 * number + 5) <= INTERVAL + 1

    def test_only_the_newest_of_what_is_there_is_told(self, tmp_path: Path) -> None:
        for step in (20, 40):
            copy_step(step, tmp_path)
        for path in tmp_path.glob("*-20.*"):
            os.utime(path, (1, 1))
        clock = Clock(tmp_path)
        clock.at(50, lambda: copy_step(60, tmp_path))
        said = clock.run()
        assert names(said) == ["model.ckpt-40", "model.ckpt-60"]
        assert codes(said[1][1]) == {"BN107"}

    def test_or_all_of_them(self, tmp_path: Path) -> None:
        for step in (20, 40, 60):
            copy_step(step, tmp_path)
            for path in tmp_path.glob(f"*-{step}.*"):
                os.utime(path, (step, step))
        said = Clock(tmp_path, make_config(all_checkpoints=True)).run()
        assert names(said) == ["model.ckpt-20", "model.ckpt-40", "model.ckpt-60"]
        assert codes(said[2][1]) == {"BN107"}

    def test_the_directory_may_come_late(self, tmp_path: Path) -> None:
        late = tmp_path / "runs" / "1"
        clock = Clock(late)
        clock.at(100, lambda: [copy_step(step, late) for step in (20, 40)])
        assert names(clock.run()) == ["model.ckpt-20", "model.ckpt-40"]

    def test_one_that_is_written_anew_is_new(self, tmp_path: Path) -> None:
        target = tmp_path / "last.weights.h5"
        clock = Clock(tmp_path)
        epochs = FIXTURES / "keras3_history_weights"
        clock.at(5, lambda: shutil.copy(epochs / "epoch-6.weights.h5", target))
        clock.at(50, lambda: shutil.copy(epochs / "epoch-12.weights.h5", target))
        said = clock.run()
        assert names(said) == ["last.weights.h5"] * 2
        assert [report.step for _, report in said] == [60, 120]

    def test_another_name_is_not_news(self, tmp_path: Path) -> None:
        def rename() -> None:
            for path in list(tmp_path.iterdir()):
                path.rename(path.with_name(path.name.replace("model.ckpt-20", "best")))

        def link() -> None:
            for path in list(tmp_path.iterdir()):
                os.link(path, path.with_name(path.name.replace("best", "kept")))

        clock = Clock(tmp_path)
        clock.at(5, lambda: copy_step(20, tmp_path))
        clock.at(50, rename)
        clock.at(100, link)
        assert names(clock.run()) == ["model.ckpt-20"]

    def test_two_names_are_one_checkpoint(self, tmp_path: Path) -> None:
        copy_step(20, tmp_path)
        for path in list(tmp_path.iterdir()):
            path.with_name(path.name.replace("model.ckpt-20", "best")).symlink_to(path)
        assert len(Clock(tmp_path).run()) == 1

    @pytest.mark.parametrize("written", [0, 2**32])
    def test_the_clock_that_dates_files_does_not_matter(self, tmp_path: Path, written: int) -> None:
        def save(step: int) -> None:
            copy_step(step, tmp_path)
            for path in tmp_path.glob(f"*-{step}.*"):
                os.utime(path, (written, written))

        clock = Clock(tmp_path)
        clock.at(5, lambda: save(20))
        clock.at(50, lambda: save(40))
        assert names(clock.run()) == ["model.ckpt-20", "model.ckpt-40"]

    def test_a_directory_that_is_deleted_and_made_again(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        clock = Clock(run)
        clock.at(5, lambda: copy_step(20, run))
        clock.at(50, lambda: shutil.rmtree(run))
        clock.at(100, lambda: run.write_bytes(b""))
        clock.at(150, run.unlink)
        clock.at(200, lambda: copy_step(20, run))
        said = clock.run()
        assert [(report.step, report.error) for _, report in said] == [(20, None)] * 2
        assert not clock.watch.conclude("timeout").notes

    def test_one_that_is_deleted_is_not_news(self, tmp_path: Path) -> None:
        clock = Clock(tmp_path)
        clock.at(5, lambda: copy_step(20, tmp_path))
        # As Saver does, one after the other, and slowly.
        clock.at(50, (tmp_path / "model.ckpt-20.index").unlink)
        clock.at(250, (tmp_path / f"model.ckpt-20{DATA}").unlink)
        clock.at(300, lambda: copy_step(40, tmp_path))
        assert names(clock.run()) == ["model.ckpt-20", "model.ckpt-40"]

    def test_a_late_graph_is_not_news(self, tmp_path: Path) -> None:
        fixture = FIXTURES / "slim_graph_correct"
        parts = [path for path in fixture.iterdir() if path.suffix != ".meta"]
        graph = next(fixture.glob("*.meta"))
        clock = Clock(tmp_path)
        clock.at(5, lambda: [shutil.copy(path, tmp_path) for path in parts])
        clock.at(50, lambda: shutil.copy(graph, tmp_path))
        assert len(clock.run()) == 1

    def test_a_graph_is_waited_for_where_others_have_one(self, tmp_path: Path) -> None:
        """Saver writes it last, and a large one takes its time; without it no cause is told."""

        def save(step: int) -> None:
            for path in fixture.iterdir():
                name = path.name.replace(prefix, f"model.ckpt-{step}")
                if path.suffix != ".meta" and path.name.startswith(prefix):
                    shutil.copy(path, tmp_path / name)

        def save_graph(step: int) -> None:
            for path in tmp_path.glob("*.meta"):
                path.unlink()
            shutil.copy(fixture / f"{prefix}.meta", tmp_path / f"model.ckpt-{step}.meta")

        fixture = FIXTURES / "slim_graph_update_ops_forgotten"
        prefix = next(fixture.glob("*.meta")).stem
        clock = Clock(tmp_path)
        clock.at(1, lambda: [save(1), save_graph(1)])
        clock.at(41, lambda: save(2))
        clock.at(49, lambda: save_graph(2))
        clock.at(101, lambda: save(3))  # which never gets one
        said = clock.run()
        assert names(said) == [f"model.ckpt-{step}" for step in (1, 2, 3)]
        causes = [{one.cause for one in report.findings} for _, report in said]
        assert causes[0] == causes[1] != causes[2] == {None}
        assert said[2][0] <= 101 + 10 + INTERVAL + 1

    @pytest.mark.parametrize("every", [0.3, 0.9])
    def test_one_that_is_written_anew_all_the_time(self, tmp_path: Path, every: float) -> None:
        """It never settles, and is told about all the same, whole."""
        epochs = [FIXTURES / f"keras3_history_weights/epoch-{one}.weights.h5" for one in (6, 12)]
        target = tmp_path / "last.weights.h5"
        clock = Clock(tmp_path)
        for number in range(int(60 / every)):
            clock.at(
                20 + number * every,
                lambda number=number: shutil.copy(epochs[number % 2], target),
            )
        said = clock.run()
        assert not [report.error for _, report in said if report.error]
        assert len(said) >= 60 / INTERVAL - 1
        assert said[-1][0] >= 80
        assert not clock.watch.conclude("timeout").notes

    def test_those_that_are_deleted_too_soon_are_told_at_the_end(self, tmp_path: Path) -> None:
        def save(step: int) -> None:
            for path in tmp_path.glob(f"*-{step - 2}.*"):
                path.unlink()
            write_bundle(tmp_path / f"model.ckpt-{step}", bn(step + 1.0))

        clock = Clock(tmp_path)
        for step in range(150):
            clock.at(20 + step * 0.4, lambda step=step: save(step))
        said = clock.run()
        assert len(said) >= 60 / INTERVAL - 1
        assert len(set(names(said))) == len(said)
        (note,) = clock.watch.conclude("timeout").notes
        assert "deleted before they could be checked" in note
        assert "--interval" in note

    def test_none_is_missed_that_is_only_called_otherwise(self, tmp_path: Path) -> None:
        clock = Clock(tmp_path)
        source = FIXTURES / "keras3_history_weights" / "epoch-6.weights.h5"
        temporary = tmp_path / "new.weights.h5"

        def finish() -> None:
            with temporary.open("ab") as file:
                file.write(source.read_bytes()[1000:])
            temporary.rename(tmp_path / "last.weights.h5")

        clock.at(9.5, lambda: temporary.write_bytes(source.read_bytes()[:1000]))
        clock.at(10.5, finish)
        assert names(clock.run()) == ["last.weights.h5"]
        assert not clock.watch.conclude("timeout").notes

    def test_what_is_no_checkpoint_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone"\n')
        (tmp_path / "notes-1").write_bytes(b"hello" * 100)
        (tmp_path / "pickle.ckpt").write_bytes(b"\x80\x04hello")
        clock = Clock(tmp_path, timeout=300)
        events = tmp_path / "events.out.tfevents.1"
        for second in range(0, 100, 3):
            clock.at(second, lambda: events.open("ab").write(b"event") and None)
        assert clock.run() == []
        # And none of it makes a look follow a look.
        assert clock.looks <= 31

    def test_those_of_one_look_come_in_the_order_they_were_written(self, tmp_path: Path) -> None:
        def write() -> None:
            for number, name in enumerate(("b", "c", "a")):
                write_bundle(tmp_path / f"{name}.ckpt", bn())
                for path in tmp_path.glob(f"{name}.ckpt*"):
                    os.utime(path, (number, number))

        clock = Clock(tmp_path)
        clock.at(5, write)
        assert names(clock.run()) == ["b.ckpt", "c.ckpt", "a.ckpt"]

    def test_those_of_a_training_come_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        """A copy has other times, and of old graphs Saver keeps none."""
        for step, written in ((20, 3), (40, 1), (60, 2)):
            copy_step(step, tmp_path)
            for path in tmp_path.glob(f"*-{step}.*"):
                os.utime(path, (written, written))
        graph = next((FIXTURES / "slim_graph_correct").glob("*.meta"))
        shutil.copy(graph, tmp_path / "model.ckpt-60.meta")
        said = Clock(tmp_path, make_config(all_checkpoints=True)).run()
        assert names(said) == ["model.ckpt-20", "model.ckpt-40", "model.ckpt-60"]
        assert [codes(report) for _, report in said] == [set(), set(), {"BN107"}]

    def test_folders_and_links_to_them_are_followed_once(self, tmp_path: Path) -> None:
        run = tmp_path / "run_1"
        clock = Clock(tmp_path)
        clock.at(5, lambda: copy_step(20, run))
        clock.at(50, lambda: (tmp_path / "latest").symlink_to("run_1"))
        clock.at(51, lambda: (run / "up").symlink_to(".."))
        clock.at(100, lambda: copy_step(40, run))
        said = clock.run()
        assert [Path(report.path).relative_to(tmp_path) for _, report in said] == [
            Path("run_1/model.ckpt-20"),
            Path("run_1/model.ckpt-40"),
        ]


class TestHalfWritten:
    def test_a_shard_that_is_short_of_what_is_no_bn_variable(self, tmp_path: Path) -> None:
        """The BN variables are all there and read well; a checkpoint it is not yet."""
        (tmp_path / "a").mkdir()
        write_bundle(tmp_path / "a" / "m.ckpt", {**bn(), "dense": np.ones(5000, np.float32)})
        shard = tmp_path / "a" / f"m.ckpt{DATA}"
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-4])
        clock = Clock(tmp_path)
        clock.at(45, lambda: shard.write_bytes(whole))
        ((when, report),) = clock.run()
        assert report.error is None
        assert 45 < when <= 45 + INTERVAL + 1

    def test_one_that_stays_broken_is_told_once(self, tmp_path: Path) -> None:
        copy_step(20, tmp_path)
        index = tmp_path / "model.ckpt-20.index"
        whole = index.read_bytes()
        index.write_bytes(whole[:-9])
        clock = Clock(tmp_path, timeout=300)
        ((when, report),) = clock.run()
        assert report.error is not None
        assert "for 60 s (--grace)" in report.notes[0]
        assert GRACE <= when <= GRACE + INTERVAL
        assert clock.watch.conclude("timeout").tally.unreadable == {report.path}

    def test_and_again_when_it_comes_whole(self, tmp_path: Path) -> None:
        copy_step(20, tmp_path)
        index = tmp_path / "model.ckpt-20.index"
        whole = index.read_bytes()
        index.write_bytes(whole[:-9])
        clock = Clock(tmp_path)
        clock.at(100, lambda: index.write_bytes(whole))
        said = clock.run()
        assert [report.error is None for _, report in said] == [False, True]
        tally = clock.watch.conclude("timeout").tally
        assert not tally.unreadable
        assert tally.checkpoints == 1

    @pytest.mark.parametrize("libver", ["earliest", "v110"])
    def test_hdf5_that_was_flushed_and_is_not_closed(self, tmp_path: Path, libver: str) -> None:
        """What it holds so far reads well, and is not all."""
        unfinished, whole = hdf5_in_two(tmp_path / "elsewhere.h5", libver)
        target = tmp_path / "run" / "last.weights.h5"
        target.parent.mkdir()
        clock = Clock(target.parent)
        clock.at(5, lambda: target.write_bytes(unfinished))
        clock.at(45, lambda: target.write_bytes(whole))
        ((when, report),) = clock.run()
        assert report.error is None
        assert report.layer_count == 2
        assert 45 < when <= 45 + INTERVAL + 1
        target.write_bytes(unfinished)
        ((_, report),) = Clock(target.parent).run()
        assert report.error is not None
        assert "still open for writing" in str(report.error)

    def test_grace_begins_anew_with_every_change(self, tmp_path: Path) -> None:
        target = tmp_path / "model.keras"
        whole = (FIXTURES / "keras3_zip_nested" / "model.keras").read_bytes()
        clock = Clock(tmp_path)
        for number in range(10):
            part = whole[: len(whole) * (number + 1) // 10]
            clock.at(50 * number + 1, lambda part=part: target.write_bytes(part))
        ((when, report),) = clock.run()
        assert report.error is None
        assert 451 < when <= 451 + INTERVAL + 1

    def test_a_saved_model_whose_variables_come_first(self, tmp_path: Path) -> None:
        source = FIXTURES / "saved_model_keras3_export"
        target = tmp_path / "export" / "1"
        clock = Clock(tmp_path)
        clock.at(5, lambda: shutil.copytree(source / "variables", target / "variables"))
        clock.at(45, lambda: shutil.copy(source / "saved_model.pb", target))
        clock.at(85, lambda: shutil.copy(source / "fingerprint.pb", target))
        ((when, report),) = clock.run()
        assert report.format == "saved-model"
        assert 45 < when <= 45 + INTERVAL + 1

    def test_shards_whose_map_comes_last(self, tmp_path: Path) -> None:
        source = FIXTURES / "keras3_weights_sharded"
        clock = Clock(tmp_path)
        order = ("model_00000.weights.h5", "model_00001.weights.h5", "model.weights.json")
        for number, name in enumerate(order):
            clock.at(20 * number + 5, lambda name=name: shutil.copy(source / name, tmp_path))
        ((when, report),) = clock.run()
        assert report.path.endswith("model.weights.json")
        assert 45 < when <= 45 + INTERVAL + 1

    def test_a_tensorflow_js_model_whose_json_comes_last(self, tmp_path: Path) -> None:
        """As the converter writes it; also when it is written over an earlier one."""
        source, place = FIXTURES / "tfjs_layers_stuck", tmp_path / "model"
        shard, text = "group1-shard1of1.bin", "model.json"
        clock = Clock(tmp_path)
        place.mkdir()
        shutil.copyfile(source / shard, place / shard)
        clock.at(50, lambda: shutil.copyfile(source / text, place / text))
        clock.at(150, lambda: shutil.copyfile(source / shard, place / shard))
        said = clock.run()
        assert names(said) == ["model.json", "model.json"]
        assert [codes(report) for _, report in said] == [{"BN101"}] * 2
        assert said[0][0] >= 50

    def test_a_tensorflow_js_model_whose_shard_comes_last(self, tmp_path: Path) -> None:
        """As TensorFlow.js in Node.js may write it: the JSON alone is incomplete."""
        source, place = FIXTURES / "tfjs_javascript", tmp_path / "model"
        clock = Clock(tmp_path)
        place.mkdir()
        shutil.copyfile(source / "model.json", place / "model.json")
        clock.at(30, lambda: shutil.copyfile(source / "weights.bin", place / "weights.bin"))
        ((seconds, report),) = clock.run()
        assert report.error is None
        assert seconds >= 30

    @pytest.mark.parametrize("last", ["model.onnx", "model.onnx.data"])
    def test_an_onnx_model_and_its_external_data(self, tmp_path: Path, last: str) -> None:
        """Whichever of both comes first: the one alone is incomplete."""
        source, place = FIXTURES / "onnx_pytorch_external", tmp_path / "model"
        (first,) = {"model.onnx", "model.onnx.data"} - {last}
        clock = Clock(tmp_path)
        place.mkdir()
        shutil.copyfile(source / first, place / first)
        clock.at(30, lambda: shutil.copyfile(source / last, place / last))
        ((seconds, report),) = clock.run()
        assert codes(report) == {"BN101"}
        assert seconds >= 30

    def test_epochs_with_five_digits_are_no_shards(self, tmp_path: Path) -> None:
        source = FIXTURES / "keras3_history_weights"
        clock = Clock(tmp_path)
        for epoch in (6, 12):
            target = tmp_path / f"epoch_{epoch:05d}.weights.h5"
            clock.at(
                20 * epoch,
                lambda epoch=epoch, target=target: shutil.copy(
                    source / f"epoch-{epoch}.weights.h5", target
                ),
            )
        assert names(clock.run()) == ["epoch_00006.weights.h5", "epoch_00012.weights.h5"]

    def test_one_that_is_deleted_between_listing_and_opening(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import bninspect.runs.watch as module

        def late(found: Any) -> None:
            for path in tmp_path.glob("model.ckpt-20.*"):
                path.unlink()
            require(found)

        require = module.require_whole
        monkeypatch.setattr(module, "require_whole", late)
        copy_step(20, tmp_path)
        clock = Clock(tmp_path)
        clock.at(20, lambda: monkeypatch.setattr(module, "require_whole", require))
        clock.at(50, lambda: copy_step(40, tmp_path))
        assert names(clock.run()) == ["model.ckpt-40"]

    def test_one_that_is_written_while_it_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import bninspect.runs.watch as module

        def slow(*given: Any, **more: Any) -> CheckpointReport:
            report = examine(*given, **more)
            monkeypatch.setattr(module, "examine", examine)
            shutil.copy(FIXTURES / "keras3_history_weights/epoch-12.weights.h5", target)
            return report

        examine = module.examine
        monkeypatch.setattr(module, "examine", slow)
        target = tmp_path / "last.weights.h5"
        shutil.copy(FIXTURES / "keras3_history_weights/epoch-6.weights.h5", target)
        ((_, report),) = Clock(tmp_path).run()
        assert report.step == 120

    def test_a_directory_that_cannot_be_read_for_a_while(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a network file system that is away: nothing is an error, and nothing is told again."""
        from bninspect.storage import filesystem

        def away(_: str) -> None:
            raise OSError(116, "Stale file handle")

        copy_step(20, tmp_path)
        clock = Clock(tmp_path)
        entries = filesystem.entries_in
        clock.at(20, lambda: monkeypatch.setattr(filesystem, "entries_in", away))
        clock.at(70, lambda: monkeypatch.setattr(filesystem, "entries_in", entries))
        clock.at(100, lambda: copy_step(40, tmp_path))
        assert names(clock.run()) == ["model.ckpt-20", "model.ckpt-40"]

    def test_a_directory_that_stays_unreadable_is_told_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from bninspect.storage import filesystem

        def refused(_: str) -> None:
            raise PermissionError(13, "Permission denied")

        copy_step(20, tmp_path)
        clock = Clock(tmp_path)
        entries = filesystem.entries_in
        clock.at(20, lambda: monkeypatch.setattr(filesystem, "entries_in", refused))
        clock.at(200, lambda: monkeypatch.setattr(filesystem, "entries_in", entries))
        said = clock.run()
        assert [report.error is None for _, report in said] == [True, False]
        assert "Permission denied" in str(said[1][1].error)

    def test_an_unreadable_directory_is_reported_whatever_the_timeout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from bninspect.storage import filesystem

        def refused(_: str) -> None:
            raise PermissionError(13, "Permission denied")

        copy_step(20, tmp_path)
        monkeypatch.setattr(filesystem, "entries_in", refused)
        clock = Clock(tmp_path, timeout=2.0)
        ((_, report),) = clock.run()
        assert "Permission denied" in str(report.error)


FORMATS = (
    "tf1_v1_correct",
    "tf1_layers_correct",
    "keras3_ckpt_correct",
    "keras2_functional_correct",
    "keras3_zip_nested",
    "onnx_pytorch_correct",
    "onnx_pytorch_external",
    "keras3_weights_subclassed",
    "keras3_weights_sharded",
    "saved_model_keras3_export",
    "tfjs_layers_correct",
)


def shards_of(paths: list[Path]) -> list[int]:
    """The numbers of sharded Keras weights, in the order of the files."""
    return [number for path in paths for number in (0, 1) if f"_{number:05d}." in path.name]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_prefix_is_an_error_and_the_whole_is_told_once(data: st.DataObject) -> None:
    """The files of a checkpoint come byte by byte, one after the other, in any order."""
    source = FIXTURES / data.draw(st.sampled_from(FORMATS))
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    # Without their map, the second shard without the first may as well be the weights of epoch 1.
    order = data.draw(
        st.permutations(files).filter(
            lambda o: "sharded" not in source.name or shards_of(o) == [0, 1]
        )
    )
    sizes = [path.stat().st_size for path in order]
    ends = list(accumulate(sizes))
    one_cut = st.integers(0, ends[-1]) | st.sampled_from(ends)
    cuts = data.draw(st.lists(one_cut, max_size=4).map(sorted))
    with tempfile.TemporaryDirectory() as folder:

        def write(upto: int) -> None:
            for path, size in zip(order, sizes, strict=True):
                target = Path(folder, path.relative_to(source))
                if upto > 0:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    part = path.read_bytes()[:upto]
                    if not target.exists() or target.stat().st_size != len(part):
                        target.write_bytes(part)
                upto -= size

        clock = Clock(Path(folder), make_config(all_checkpoints=True), grace=1000.0)
        for number, cut in enumerate(cuts):
            clock.at(30 * number, lambda cut=cut: write(cut))
        end = 30.0 * len(cuts)
        clock.at(end, lambda: write(sum(sizes)))
        said = clock.run()
    early = [report for when, report in said if when < end]
    assert not [report.error for report in early if report.error]
    assert not [report.error for _, report in said if report.error]
    # Without a graph or a fingerprint, which are not read, it may have been whole before.
    whole = {(report.path, report.format, report.step, report.layer_count) for _, report in said}
    assert len(said) == len(whole) == 1


class TestNothingGrows:
    def test_between_two_looks_nothing_is_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(5):
            write_bundle(tmp_path / f"model.ckpt-{number}", bn())
        clock = Clock(tmp_path)
        opened = Counter[str]()
        really = os.open

        def counting(path: Any, *given: Any, **more: Any) -> int:
            opened[os.fspath(path)] += 1
            return really(path, *given, **more)

        clock.at(50, lambda: monkeypatch.setattr(os, "open", counting))
        assert len(clock.run()) == 1
        assert not [path for path in opened if str(tmp_path) in path]
        assert clock.looks > 40

    @pytest.mark.slow
    def test_what_is_kept_does_not(self, tmp_path: Path) -> None:
        """Of 300 checkpoints, of which two are kept, layers and files."""
        clock = Clock(tmp_path)
        for number in range(300):

            def save(number: int = number) -> None:
                write_bundle(tmp_path / f"model.ckpt-{number}", bn(number + 1.0))
                for path in tmp_path.glob(f"model.ckpt-{number - 2}.*"):
                    path.unlink()

            clock.at(30 * number, save)
        said = []
        for report in clock.watch.reports():
            said.append(report.path)
            arrivals = clock.watch._arrivals
            assert len(clock.watch._latest) == 1
            assert len(arrivals._handled) <= 8
            assert len(arrivals._pending) + len(arrivals._ignored) <= 2
            assert len(arrivals._busy) + len(arrivals._graph_directories) <= 2
        assert len(said) == 300


class TestEnd:
    def test_timeout_counts_from_the_last_checkpoint(self, tmp_path: Path) -> None:
        clock = Clock(tmp_path, timeout=100)
        clock.at(80, lambda: copy_step(20, tmp_path))
        assert len(clock.run()) == 1
        assert 180 <= clock.now - 1000 <= 200

    def test_exit_codes_are_those_of_check(self, run: Run, tmp_path: Path) -> None:
        call = ("watch", tmp_path, "--interval", "0.1", "--timeout", "0.4", "--grace", "0.2")
        assert run(*call).exit_code == 3
        assert run(*call, "--allow-empty").exit_code == 0
        write_bundle(tmp_path / "healthy.ckpt", bn())
        assert run(*call).exit_code == 0
        write_bundle(tmp_path / "stuck.ckpt", bn(0))
        assert run(*call).exit_code == 1
        assert run(*call, "--fail-on", "never").exit_code == 0
        assert run(*call, "--ignore", "BN1").exit_code == 0
        (tmp_path / "torn.keras").write_bytes(b"PK\x03\x04 no more")
        outcome = run(*call)
        assert outcome.exit_code == 2
        assert "torn.keras" in outcome.said
        assert "3 checkpoints (1 unreadable, 1 failed, 1 passed)" in outcome.said

    def test_wrong_use(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"")
        for call in (
            (file,),
            ("",),
            (HISTORY / "model.ckpt-20",),
            (tmp_path, "--interval", "nan"),
            (tmp_path, "--interval", "0"),
            (tmp_path, "--timeout", "-1"),
            (tmp_path, "--select", "BN1", "--ignore", "BN1"),
        ):
            outcome = run("watch", *call)
            assert outcome.exit_code == 2
            assert outcome.err
            assert "Traceback" not in outcome.err

    def test_at_a_step(self, run: Run, tmp_path: Path) -> None:
        for step in (20, 40, 60):
            copy_step(step, tmp_path)
            for path in tmp_path.glob(f"*-{step}.*"):
                os.utime(path, (step, step))
        call = ("watch", tmp_path, "--all-checkpoints", "--interval", "0.1", "--timeout", "5")
        outcome = run(*call, "--until-step", 40)
        assert outcome.exit_code == 0
        assert "2 checkpoints (2 passed)" in outcome.said
        assert "--until-step" in outcome.said

    def test_with_the_first_finding(self, run: Run, tmp_path: Path) -> None:
        for number, mean in enumerate((1, 0, 2)):
            write_bundle(tmp_path / f"{number}.ckpt", bn(mean))
            for path in tmp_path.glob(f"{number}.ckpt*"):
                os.utime(path, (number, number))
        call = ("watch", tmp_path, "--all-checkpoints", "--interval", "0.1", "--fail-fast")
        call = (*call, "--timeout", "5")
        outcome = run(*call)
        assert outcome.exit_code == 1
        assert "2 checkpoints (1 failed, 1 passed)" in outcome.said
        assert f"not checked: {tmp_path / '2.ckpt'}" in outcome.said
        mild = run(*call[:-1], "0.3", "--fail-on", "never")
        assert mild.exit_code == 0
        assert "3 checkpoints" in mild.said

    @pytest.mark.processes
    def test_with_what_is_unfinished(self, tmp_path: Path) -> None:
        torn = tmp_path / "torn.keras"
        torn.write_bytes(b"PK\x03\x04 no more")
        with watched(tmp_path, "--grace", "1000", "--allow-empty") as process:
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            *_, summary = lines_of(process)
        assert summary["unchecked"] == [str(torn)]
        assert process.returncode == 0

    @pytest.mark.processes
    @pytest.mark.parametrize(
        ("number", "ended", "code"),
        [
            (signal.SIGINT, "interrupted", 130),
            (signal.SIGTERM, "terminated", 1),
            (signal.SIGHUP, "terminated", 1),
        ],
    )
    def test_by_a_signal(self, tmp_path: Path, number: int, ended: str, code: int) -> None:
        write_bundle(tmp_path / "stuck.ckpt", bn(0))
        with watched(tmp_path) as process:
            first = parsed(process.stdout.readline())
            process.send_signal(number)
            (summary,) = lines_of(process)
        assert first["event"] == "checkpoint"
        assert summary["ended"] == ended
        assert summary["summary"]["errors"] == 1
        assert process.returncode == code

    @pytest.mark.processes
    def test_not_by_a_signal_that_is_ignored(self, tmp_path: Path) -> None:
        """As under nohup."""
        write_bundle(tmp_path / "a.ckpt", bn())
        with watched(tmp_path, before="signal.signal(signal.SIGHUP, signal.SIG_IGN)") as process:
            process.stdout.readline()
            process.send_signal(signal.SIGHUP)
            write_bundle(tmp_path / "b.ckpt", bn())
            second = parsed(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            (summary,) = lines_of(process)
        assert second["event"] == "checkpoint"
        assert summary["ended"] == "interrupted"

    @pytest.mark.processes
    def test_sigterm_takes_a_last_look(self, tmp_path: Path) -> None:
        with watched(tmp_path, "--interval", "1000") as process:
            time.sleep(1)
            write_bundle(tmp_path / "stuck.ckpt", bn(0))
            process.send_signal(signal.SIGTERM)
            checkpoint, summary = lines_of(process)
        assert {one["rule"] for one in checkpoint["findings"]} == {"BN101"}
        assert summary["ended"] == "terminated"
        assert process.returncode == 1

    @pytest.mark.processes
    def test_by_who_reads_it(self, tmp_path: Path) -> None:
        write_bundle(tmp_path / "a.ckpt", bn())
        with watched(tmp_path) as process:
            process.stdout.readline()
            process.stdout.close()
            write_bundle(tmp_path / "b.ckpt", bn())
            assert process.wait(timeout=PATIENCE) == 141
            assert "Traceback" not in process.stderr.read()


class TestText:
    def test_a_line_each_and_findings_once(self, run: Run, tmp_path: Path) -> None:
        for step in (1, 2, 3):
            write_bundle(tmp_path / f"model.ckpt-{step}", bn(0))
            for path in tmp_path.glob(f"*-{step}.*"):
                os.utime(path, (step, step))
        call = ("watch", tmp_path, "--all-checkpoints", "--interval", "0.1", "--timeout", "0.3")
        usual = run(*call).out
        assert usual.count("FAIL") == 3
        assert usual.count("error BN101") == 1
        assert usual.count("; as before\n") == 2
        assert run(*call, "--verbose").out.count("error BN101") == 3
        quiet = run(*call, "--quiet")
        assert len(quiet.out.splitlines()) == 4
        assert quiet.err == ""

    def test_what_has_no_bn_is_told_with_a_hint(self, run: Run, tmp_path: Path) -> None:
        write_bundle(tmp_path / "m.ckpt", {"dense/kernel": np.ones(3, np.float32)})
        outcome = run("watch", tmp_path, "--interval", "0.1", "--timeout", "0.3")
        assert outcome.exit_code == 3
        assert "no BN layer among 1 variable" in outcome.said
        assert "--pattern" in outcome.said

    def test_without_bn107_nothing_is_compared(self, run: Run, tmp_path: Path) -> None:
        for epoch, step in ((1, 60), (2, 40)):  # an order that is worth a note
            for path in HISTORY.glob(f"model.ckpt-{step}.*"):
                shutil.copy(path, tmp_path / path.name.replace(f"-{step}.", f"-{epoch}."))
        call = ("watch", tmp_path, "--all-checkpoints", "--interval", "0.1", "--timeout", "0.3")
        assert "not compared" in run(*call).said
        assert "not compared" not in run(*call, "--ignore", "BN107").said

    def test_names_do_not_steer_the_terminal(self, run: Run, tmp_path: Path) -> None:
        hostile = tmp_path / "a\x1b[2J\n"
        hostile.mkdir()
        write_bundle(hostile / "m.ckpt", bn(0))
        outcome = run("watch", hostile, "--interval", "0.1", "--timeout", "0.3")
        assert "\x1b" not in outcome.out + outcome.err
        assert "m.ckpt" in outcome.out

    def test_suppressions_and_the_baseline_hold(self, run: Run, tmp_path: Path) -> None:
        model = tmp_path / "run" / "m.ckpt"
        model.parent.mkdir()
        write_bundle(model, bn(0))
        config = tmp_path / "bninspect.toml"
        config.write_text(
            '[[suppress]]\nlayer = "bn"\nrules = ["BN101"]\nreason = "known"\n'
            '[[suppress]]\nlayer = "x"\nrules = ["BN101"]\nreason = "old"\nexpires = 2020-01-01\n',
            encoding="utf-8",
        )
        call = ("watch", tmp_path / "run", "--interval", "0.1", "--timeout", "0.3")
        outcome = run(*call, "--config", config)
        assert outcome.exit_code == 0
        assert "1 suppressed" in outcome.said
        assert "expired on 2020-01-01" in outcome.said
        baseline = tmp_path / "known.json"
        run("check", model, "--baseline", baseline, "--update-baseline")
        outcome = run(*call, "--baseline", baseline, "--format", "jsonl")
        assert outcome.exit_code == 0
        assert json.loads(outcome.out.splitlines()[-1])["summary"]["baseline"] == {
            "known": 1,
            "gone": 0,
        }


def test_no_file_is_locked(run: Run, tmp_path: Path) -> None:
    """Who opens an HDF5 file to write fails while somebody else holds a lock, so none is taken."""
    target = tmp_path / "last.weights.h5"
    shutil.copy(FIXTURES / "keras3_history_weights/epoch-6.weights.h5", target)
    with target.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert "open for writing in another program" in run("check", target).said
        outcome = run("watch", tmp_path, "--interval", "0.1", "--timeout", "0.3")
    assert outcome.exit_code == 0


class watched:  # noqa: N801 - reads as a verb
    """`bninspect watch` of a directory in a process of its own, which ends with the block."""

    def __init__(self, directory: Path, *options: str, before: str = "") -> None:
        call = ("watch", directory, "--format", "jsonl", "--interval", "0.2", *options)
        self.process = start_program(*call, before=before)

    def __enter__(self) -> subprocess.Popen[str]:
        assert "watching" in self.process.stderr.readline()
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            with suppress(OSError):
                stream.close()


def lines_of(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What a watch that ends has still to say."""
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    return [parsed(line) for line in out.splitlines()]


def followed(name: str, folder: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """(what a training says it saved, what the watch of it said).

    The training goes on when all of what it saved has been told.
    """
    command = [sys.executable, "-m", "tests.trainings.watched", name, str(folder)]
    saved: list[str] = []
    told: list[str] = []
    with (
        watched(folder) as process,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=ENVIRONMENT,
        ) as training,
        too_long(process, training),
    ):
        for line in training.stdout:
            if line.startswith("saved:"):
                saved += line.removeprefix("saved:").rstrip("\n").split("\t")
                while len(told) < len(saved) and (heard := process.stdout.readline()):
                    told.append(heard)
                training.stdin.write("\n")
        assert training.wait() == 0
        process.send_signal(signal.SIGTERM)
        rest = lines_of(process)
    assert process.returncode == 1
    return saved, [*map(parsed, told), *rest]


@contextmanager
def too_long(*processes: subprocess.Popen[str]) -> Iterator[None]:
    """Ends processes that would be waited for without an end."""

    def end() -> None:
        for process in processes:
            process.kill()

    timer = threading.Timer(300, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.processes
@pytest.mark.parametrize("name", ["tf1", "keras"])
def test_a_training_that_saves_meanwhile(name: str, tmp_path: Path) -> None:
    """Each checkpoint is told once, though TF1 keeps but two; only what is broken fails."""
    saved, said = followed(name, tmp_path / "runs")
    assert len(saved) == {"tf1": 2, "keras": 4}[name] * SAVES
    *checkpoints, summary = said
    assert summary["summary"]["unreadable"] == 0
    assert Counter(one["path"] for one in checkpoints) == Counter(saved)
    for one in checkpoints:
        assert one["error"] is None
        found = {finding["rule"] for finding in one["findings"]}
        assert ("BN101" in found) == ("/broken/" in one["path"]), one["path"]
        if "/healthy/" in one["path"]:
            assert not found
    later = [one for one in checkpoints if "/broken/" in one["path"]][2:]
    assert any("BN107" in {f["rule"] for f in one["findings"]} for one in later)
