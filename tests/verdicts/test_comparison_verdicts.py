"""What `compare` and `check --since` say of runs that are not simply right or wrong.

Diverged, recovered, restarted, never moved, given in the wrong order, of another type, several in
one directory: the first line must be true, and no time or progress is told that the files do not
show.
"""

from __future__ import annotations

import csv
import io
import os
import pty
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import FIXTURES, ROOT, Outcome, Run
from tests.support.table_writer import write_bundle

CORRECT = FIXTURES / "tf1_history_correct"
FORGOTTEN = FIXTURES / "tf1_history_forgotten"
SAVED_MODEL = FIXTURES / "saved_model_keras3_export"
STOPPED = FIXTURES / "tf1_history_stopped"
OTHER = FIXTURES / "keras2_history_frozen" / "epoch-6.h5"
NAN, INF = float("nan"), float("inf")


def layer(gamma: float, mean: float, *, channels: int = 2, dtype: Any = np.float32) -> Any:
    """A layer whose gamma and moving_mean are told; the variance never moves."""
    given = {"gamma": gamma, "moving_mean": mean, "moving_variance": 0.5}
    return {member: np.full(channels, value, dtype) for member, value in given.items()}


def save(prefix: Path, step: int | None = None, **layers: Any) -> Path:
    """A TensorFlow checkpoint of these layers."""
    variables = {
        f"{name}/{member}": values
        for name, members in layers.items()
        for member, values in members.items()
    }
    if step is not None:
        variables["global_step"] = np.asarray(step, np.int64)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(str(prefix), variables)
    return prefix


def saved(folder: Path, means: list[float], steps: list[int] | None = None) -> Path:
    """A run whose gamma moves from checkpoint to checkpoint, with these means of its layer `bn`.

    A layer `well` beside it is updated all the time.
    """
    steps = steps or [100 * number for number in range(1, len(means) + 1)]
    for number, (step, mean) in enumerate(zip(steps, means, strict=True), 1):
        both = {"bn": layer(number, mean), "well": layer(number, number)}
        save(folder / f"model.ckpt-{number}", step, **both)
    return folder


def first_line(outcome: Outcome) -> str:
    return outcome.out.splitlines()[0]


def row(outcome: Outcome, name: str) -> str:
    return next(line for line in outcome.out.splitlines() if line.startswith(f"{name} "))


class TestNotFinite:
    @pytest.mark.framework
    @pytest.mark.parametrize(("value", "called"), [(NAN, "NaN"), (INF, "infinite")])
    def test_a_run_that_diverged(self, run: Run, tmp_path: Path, value: float, called: str) -> None:
        outcome = run("compare", saved(tmp_path, [0.1, 0.2, value, value]))
        assert outcome.exit_code == 1
        assert first_line(outcome).startswith("FAIL")
        assert first_line(outcome).endswith(
            "1 of 2 BN layers: NaN or infinity in a member (BN301), since step 300"
        )
        assert row(outcome, "bn").endswith(f"█!!    {called} since step 300")
        assert (
            "_ still, ? not compared, ! from or to NaN, infinity or a variance below 0"
            in outcome.said
        )
        assert "all of it was finite at step 200" in outcome.said

    def test_the_legend_has_no_mark_that_is_not_drawn(self, run: Run) -> None:
        assert "! from" not in run("compare", STOPPED).said

    @pytest.mark.framework
    def test_in_json(self, run: Run, tmp_path: Path) -> None:
        document = run("compare", saved(tmp_path, [0.1, NAN, NAN]), "--format", "json").json
        lost, well = document["layers"]
        assert lost["not_finite_since"] == 1
        assert lost["not_finite"] == [{"from": 1, "to": 2, "or_earlier": False}]
        assert (well["not_finite_since"], well["not_finite"]) == (None, [])
        (finding,) = document["findings"]
        assert (finding["rule"], finding["severity"]) == ("BN301", "error")
        assert (finding["layer"], finding["from"], finding["to"]) == ("bn", 1, 2)
        assert document["summary"]["errors"] == 1

    @pytest.mark.framework
    def test_of_one_that_was_so_from_the_beginning(self, run: Run, tmp_path: Path) -> None:
        outcome = run("compare", saved(tmp_path, [NAN, NAN]))
        assert first_line(outcome).endswith("(BN301), since step 100 or earlier")
        assert outcome.exit_code == 1

    @pytest.mark.framework
    def test_what_is_over_is_a_warning(self, run: Run, tmp_path: Path) -> None:
        outcome = run("compare", saved(tmp_path, [0.1, NAN, 0.3]))
        assert outcome.exit_code == 0
        assert first_line(outcome).startswith("WARN")
        assert first_line(outcome).endswith("(BN301, a warning), at step 200")

    def test_what_nothing_can_be_measured_by_has_moved(self, run: Run, tmp_path: Path) -> None:
        save(tmp_path / "m-1", 1, bn=layer(1, 1))
        lost = {**layer(2, 2), "moving_variance": np.full(2, -1, np.float32)}
        save(tmp_path / "m-2", 2, bn=lost)
        assert "moved" in row(run("compare", tmp_path), "bn").split()

    def test_a_variance_that_turned_negative(self, run: Run, tmp_path: Path) -> None:
        for number, variance in enumerate((1.0, 0.9, -0.5, -0.0001), 1):
            wrong = {**layer(number, number), "moving_variance": np.full(2, variance, "f4")}
            save(tmp_path / f"m-{number}", number, bn=wrong)
        outcome = run("compare", tmp_path)
        assert outcome.exit_code == 1
        assert first_line(outcome).endswith(
            "1 of 1 BN layer: a moving_variance is below 0 (BN302), since step 3"
        )
        assert row(outcome, "bn").endswith("!!    negative since step 3")
        assert "! from or to NaN, infinity or a variance below 0" in outcome.said
        assert "no variance was below 0 at step 2" in outcome.said
        (finding,) = run("compare", tmp_path, "--format", "json").json["findings"]
        assert (finding["rule"], finding["from"], finding["to"]) == ("BN302", 2, 3)
        rows = [*csv.DictReader(io.StringIO(run("compare", tmp_path, "--format", "csv").out))]
        assert {(one["member"], one["to_step"]) for one in rows if one["finding"] == "BN302"} == {
            ("moving_variance", "3"),
            ("moving_variance", "4"),
        }

    def test_a_variance_that_was_negative_is_a_warning(self, run: Run, tmp_path: Path) -> None:
        for number, variance in enumerate((1.0, -0.5, 0.9), 1):
            wrong = {**layer(number, number), "moving_variance": np.full(2, variance, "f4")}
            save(tmp_path / f"m-{number}", number, bn=wrong)
        outcome = run("compare", tmp_path)
        assert outcome.exit_code == 0
        assert first_line(outcome).endswith("(BN302, a warning), at step 2")

    def test_layers_without_channels_are_not_compared(self, run: Run, tmp_path: Path) -> None:
        for step in (1, 2):
            save(tmp_path / f"m-{step}", step, bn=layer(1, 1, channels=0))
        outcome = run("compare", tmp_path)
        assert outcome.exit_code == 3
        assert first_line(outcome).endswith(": no BN layer that can be compared")
        assert outcome.out.count("not checked: bn: ") == 2

    @pytest.mark.framework
    def test_a_real_training_that_diverges(self, run: Run, tmp_path: Path) -> None:
        import keras

        keras.utils.set_random_seed(1)
        normalized = keras.layers.BatchNormalization(momentum=0.5, name="bn")
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3), normalized, keras.layers.Dense(1)]
        )
        model.compile(keras.optimizers.SGD(0.01), "mse")
        inputs = np.random.default_rng(1).normal(3, 2, (16, 4))
        for epoch in (1, 2, 3):
            if epoch == 3:
                model.optimizer.learning_rate = 1e20
            for _ in range(5):
                model.train_on_batch(inputs, inputs[:, :1])
            model.save(tmp_path / f"epoch-{epoch}.keras")
        outcome = run("compare", tmp_path)
        assert not np.isfinite(np.asarray(normalized.moving_mean)).any()
        assert outcome.exit_code == 1
        assert first_line(outcome).endswith("(BN301), since step 15")


class TestSinceWhen:
    def test_statistics_that_never_moved(self, run: Run) -> None:
        outcome = run("compare", FORGOTTEN)
        assert first_line(outcome).endswith("(BN107), never moved: still initial (BN101)")
        assert row(outcome, "conv1/batch_normalization").endswith("never moved")
        assert "both are still at their initial values (BN101)" in outcome.said
        document = run("compare", FORGOTTEN, "--format", "json").json
        assert document["layers"]
        for one in document["layers"]:
            (stretch,) = one["stretches"]
            assert stretch["never_moved"]
            assert stretch["or_earlier"]

    def test_a_history_that_begins_in_the_middle(self, run: Run) -> None:
        paths = (STOPPED / "model.ckpt-40", STOPPED / "model.ckpt-60")
        outcome = run("compare", *paths)
        assert first_line(outcome).endswith("(BN107), since step 40 or earlier")
        assert row(outcome, "conv1/batch_normalization").endswith("step 40 or earlier")
        (stretch,) = run("compare", *paths, "--format", "json").json["layers"][0]["stretches"]
        assert (stretch["or_earlier"], stretch["never_moved"]) == (True, False)

    def test_one_that_the_files_show(self, run: Run) -> None:
        outcome = run("compare", STOPPED)
        assert first_line(outcome).endswith("(BN107), since step 40")

    def test_a_change_of_type_hides_when_it_began(self, run: Run, tmp_path: Path) -> None:
        for number, dtype in ((1, np.float64), (2, np.float32), (3, np.float32)):
            one = layer(number, 0.5, dtype=dtype)
            save(tmp_path / f"model.ckpt-{number}", 100 * number, bn=one)
        assert first_line(run("compare", tmp_path)).endswith("since step 200 or earlier")

    @pytest.mark.framework
    def test_a_recovered_run_is_a_warning_about_the_past(self, run: Run, tmp_path: Path) -> None:
        folder = saved(tmp_path, [0.1, 0.2, 0.3, 0.3, 0.5])
        outcome = run("compare", folder)
        assert outcome.exit_code == 0
        assert first_line(outcome).startswith("WARN")
        assert first_line(outcome).endswith(
            "1 of 2 BN layers: moving_mean and moving_variance stood still while training went on"
            " (BN107, a warning), from step 300 until step 400"
        )
        assert "this was over before it" in outcome.said
        document = run("compare", folder, "--format", "json").json
        assert [one["severity"] for one in document["findings"]] == ["warning"]
        assert document["layers"][0]["still_since"] is None

    @pytest.mark.framework
    @pytest.mark.parametrize(
        ("fail_on", "recovered", "stuck"),
        [("error", 0, 1), ("warning", 1, 1), ("note", 1, 1), ("never", 0, 0)],
    )
    def test_fail_on(
        self, run: Run, tmp_path: Path, fail_on: str, recovered: int, stuck: int
    ) -> None:
        folder = saved(tmp_path, [0.1, 0.1, 0.3])
        assert run("compare", folder, "--fail-on", fail_on).exit_code == recovered
        assert run("compare", STOPPED, "--fail-on", fail_on).exit_code == stuck
        frozen = run("compare", OTHER.parent, "--fail-on", fail_on)
        assert frozen.exit_code == (1 if fail_on == "note" else 0)

    def test_several_rules_in_the_first_line(self, run: Run, tmp_path: Path) -> None:
        for number in (1, 2):
            lost = layer(number, NAN if number == 2 else 1)
            wide = layer(number, number, channels=number)
            save(tmp_path / f"m-{number}", number, still=layer(number, 1), lost=lost, wide=wide)
        told = first_line(run("compare", tmp_path))
        assert "(BN107), since step 1 or earlier; 1 of 3 BN layers: NaN" in told
        assert told.endswith("(BN301), since step 2; 1 cannot be compared")


class TestOrder:
    def test_the_later_step_first(self, run: Run) -> None:
        outcome = run("compare", CORRECT / "model.ckpt-60", CORRECT / "model.ckpt-20")
        assert "model.ckpt-20, the later step first (60, then 20): the" in first_line(outcome)
        document = run(
            "compare", CORRECT / "model.ckpt-60", CORRECT / "model.ckpt-20", "--format", "json"
        ).json
        assert document["summary"]["step_goes_back"] == [60, 20]
        assert run("compare", CORRECT, "--format", "json").json["summary"]["step_goes_back"] is None

    @pytest.mark.framework
    def test_a_step_that_starts_anew_is_no_progress(self, run: Run, tmp_path: Path) -> None:
        outcome = run("compare", saved(tmp_path, [0.5] * 4, [20, 40, 10, 60]))
        assert "where the stored step goes back from 40 to 10: 1 of 2" in first_line(outcome)
        assert "the stored step went from 20 to 40, then from 10 to 60" in outcome.said
        assert "from 20 to 60" not in outcome.said

    @pytest.mark.framework
    def test_a_history_that_is_not_followed_is_said(self, run: Run, tmp_path: Path) -> None:
        folder = saved(tmp_path, [0.5] * 4, [20, 40, 40, 60])
        outcome = run("check", folder, "--all-checkpoints")
        told = f"not compared with {folder}/model.ckpt-2 before it, since its step, 40, is not"
        assert told in outcome.said
        assert f"BN107 needs --since {folder}/model.ckpt-2" in outcome.said
        assert outcome.said.count("not compared with") == 1
        document = run("check", folder, "--all-checkpoints", "--format", "json").json
        found = [[one["rule"] for one in item["findings"]] for item in document["checkpoints"]]
        assert found == [[], ["BN107"], [], ["BN107"]]
        earlier = [one["since"] and one["since"]["step"] for one in document["checkpoints"]]
        assert earlier == [None, 20, None, 40]
        advice = ("--since", folder / "model.ckpt-2")
        assert run("check", folder / "model.ckpt-3", *advice).exit_code == 1

    @pytest.mark.framework
    def test_a_restart_that_was_updated_needs_no_word(self, run: Run, tmp_path: Path) -> None:
        folder = saved(tmp_path, [0.1, 0.2, 0.3, 0.4], [20, 40, 10, 60])
        outcome = run("check", folder, "--all-checkpoints")
        assert outcome.exit_code == 0
        assert "not compared" not in outcome.said


class TestWhatCannotBeCompared:
    def test_another_type_in_all_layers(self, run: Run, tmp_path: Path) -> None:
        paths = [
            save(tmp_path / f"m-{n}", n, bn=layer(n, n, dtype=dtype))
            for n, dtype in ((1, np.float32), (2, np.float64))
        ]
        outcome = run("compare", *paths)
        assert outcome.exit_code == 3
        assert first_line(outcome).endswith(
            "nothing of 1 BN layer can be compared: of 1 the type or the number of channels changed"
        )

    def test_another_type_in_some_layers(self, run: Run, tmp_path: Path) -> None:
        paths = [
            save(tmp_path / f"m-{n}", 1, a=layer(1, 1), b=layer(1, 1, dtype=dtype))
            for n, dtype in ((1, np.float32), (2, np.float64))
        ]
        told = first_line(run("compare", *paths))
        assert told.endswith("nothing moved in 1 of 2 BN layers; 1 cannot be compared")
        later = save(tmp_path / "m-3", 2, a=layer(2, 2), b=layer(2, 2, dtype=np.float64))
        told = first_line(run("compare", paths[0], later))
        assert told.endswith("the statistics of 1 of 2 BN layers moved; 1 cannot be compared")

    def test_since_says_it_layer_by_layer(self, run: Run, tmp_path: Path) -> None:
        same, gone = layer(1, 1), layer(1, 1)
        earlier = save(tmp_path / "a", 1, same=same, gone=gone, wide=gone, exact=gone)
        later = save(
            tmp_path / "b",
            2,
            same=layer(2, 2),
            new=layer(1, 1),
            wide=layer(1, 1, channels=3),
            exact=layer(1, 1, dtype=np.float64),
        )
        outcome = run("check", later, "--since", earlier)
        assert outcome.exit_code == 0
        told = outcome.said
        assert f"{earlier} lacks 1 of 4 BN layers (new): BN107 cannot be judged there" in told
        assert f"1 of 4 BN layers of {earlier} are not in it (gone)" in told
        members = "moving_mean, moving_variance: from 2 x float32 to"
        assert f"cannot be compared with {earlier} (wide): {members} 3 x float32" in told
        assert f"cannot be compared with {earlier} (exact): {members} 2 x float64" in told
        (item,) = run("check", later, "--since", earlier, "--format", "json").json["checkpoints"]
        assert item["since"] == {"path": str(earlier), "step": 1, "compared": 1}

    def test_since_of_which_nothing_matches_checks_nothing(self, run: Run) -> None:
        arguments = ("check", CORRECT / "model.ckpt-60", "--since", OTHER)
        outcome = run(*arguments)
        assert outcome.exit_code == 3
        assert first_line(outcome).startswith("NONE")
        assert first_line(outcome).endswith(
            f"3 BN layers, no finding; none could be compared with {OTHER} (--since)"
        )
        assert run(*arguments, "--allow-empty").exit_code == 0
        told = f"{CORRECT / 'model.ckpt-60'}: none: no BN layer could be compared with {OTHER}\n"
        assert run(*arguments, "--format", "concise").out == told
        (item,) = run(*arguments, "--format", "json").json["checkpoints"]
        assert item["since"]["compared"] == 0

    @pytest.mark.parametrize("format_", ["github", "sarif", "junit"])
    def test_is_said_in_the_formats_of_ci(self, run: Run, format_: str) -> None:
        arguments = ("check", CORRECT / "model.ckpt-60", "--format", format_)
        nothing = {
            "github": "::error title=nothing was checked::No BN layer could be compared with",
            "sarif": "Nothing was checked: no file had a BN layer that can be checked, or none",
            "junit": '<skipped message="no BN layer could be compared with',
        }[format_]
        outcome = run(*arguments, "--since", OTHER)
        assert outcome.exit_code == 3
        assert nothing in outcome.out
        assert nothing not in run(*arguments, "--since", CORRECT / "model.ckpt-40").out

    def test_findings_go_before_it(self, run: Run) -> None:
        outcome = run("check", FORGOTTEN / "model.ckpt-60", "--since", OTHER)
        assert outcome.exit_code == 1
        assert first_line(outcome).endswith(f"none could be compared with {OTHER} (--since)")

    def test_one_that_matches_is_enough(self, run: Run) -> None:
        since = ("--since", CORRECT / "model.ckpt-20")
        outcome = run("check", CORRECT / "model.ckpt-60", OTHER, *since)
        assert outcome.exit_code == 0
        assert "2 checkpoints: 1 with nothing to compare, 1 passed" in first_line(outcome)

    def test_a_rule_that_is_not_asked_needs_no_comparison(self, run: Run) -> None:
        arguments = ("check", CORRECT / "model.ckpt-60", "--since", OTHER, "--ignore", "BN107")
        assert run(*arguments).exit_code == 0


class TestDirectories:
    @pytest.mark.framework
    def test_sibling_folders_are_no_training(self, run: Run, tmp_path: Path) -> None:
        for name in ("a", "b"):
            saved(tmp_path / "runs" / name, [0.1, 0.2])
        outcome = run("compare", tmp_path / "runs")
        assert outcome.exit_code == 2
        assert f"2 folders: {tmp_path}/runs/a, {tmp_path}/runs/b." in outcome.err
        assert run("compare", tmp_path / "runs" / "a").exit_code == 0

    def test_nor_if_each_holds_one(self, run: Run, tmp_path: Path) -> None:
        for name in ("alice", "bob"):
            save(tmp_path / name / "best", 1, bn=layer(1, 1))
        assert run("compare", tmp_path).exit_code == 2
        outcome = run("compare", tmp_path / "*" / "best")
        assert outcome.exit_code == 2
        assert f"2 folders: {tmp_path}/alice, {tmp_path}/bob." in outcome.err

    @pytest.mark.framework
    def test_nor_if_they_are_numbered(self, run: Run, tmp_path: Path) -> None:
        for name in ("fold_1", "fold_2"):
            saved(tmp_path / name, [0.1, 0.2])
        assert run("compare", tmp_path).exit_code == 2

    def test_a_folder_an_epoch_is_one(self, run: Run, tmp_path: Path) -> None:
        for number in (1, 2, 3):
            save(tmp_path / f"epoch_{number}" / "model", number, bn=layer(number, number))
        outcome = run("compare", tmp_path, "--format", "json")
        assert outcome.exit_code == 0
        assert len(outcome.json["checkpoints"]) == 3

    @pytest.mark.framework
    def test_what_lies_below_a_training_is_of_it(self, run: Run, tmp_path: Path) -> None:
        saved(tmp_path, [0.1, 0.2])
        for name in ("best", "last"):
            save(tmp_path / name / "model", 200, bn=layer(2, 0.2), well=layer(2, 2))
        assert run("compare", tmp_path).exit_code == 0

    def test_saved_models_side_by_side_make_no_training_of_what_lies_beside(
        self, run: Run, tmp_path: Path
    ) -> None:
        for name in ("first", "second"):
            shutil.copytree(SAVED_MODEL, tmp_path / name)
            save(tmp_path / f"run_{name}" / "model", 1, bn=layer(1, 1))
        outcome = run("compare", tmp_path)
        assert outcome.exit_code == 2
        assert f"2 folders: {tmp_path}/run_first, {tmp_path}/run_second." in outcome.err
        assert run("compare", tmp_path / "first", tmp_path / "second").exit_code == 0

    @pytest.mark.framework
    def test_folders_that_are_named_are_taken_as_they_come(self, run: Run, tmp_path: Path) -> None:
        first = saved(tmp_path / "first", [0.1, 0.2])
        second = saved(tmp_path / "second", [0.3, 0.4], [300, 400])
        assert run("compare", first, second).exit_code == 0

    def test_the_first_line_of_check_names_the_rules(self, run: Run, tmp_path: Path) -> None:
        for part in FORGOTTEN.glob("model.ckpt-20.*"):
            shutil.copy(part, tmp_path / part.name.replace("model.ckpt-20", "stuck"))
        save(tmp_path / "lost", 1, bn=layer(1, NAN))
        save(tmp_path / "half", 1, bn=layer(1, 1, dtype=np.float16))
        save(tmp_path / "well", 1, bn=layer(1, 1))
        assert first_line(run("check", tmp_path)) == (
            f"FAIL  4 checkpoints: 2 failed (BN101, BN301), 2 passed; first failed: {tmp_path}/lost"
        )


class TestCsv:
    def rows(self, run: Run, *arguments: object) -> list[dict[str, str]]:
        text = run("compare", *arguments, "--format", "csv").out
        return list(csv.DictReader(io.StringIO(text)))

    def test_new_columns_come_last(self, run: Run) -> None:
        header = run("compare", STOPPED, "--format", "csv").out.splitlines()[0]
        assert header.endswith(",moved,largest_change,finding,cause")

    def test_findings_stand_where_they_are(self, run: Run) -> None:
        found = {
            (row["member"], row["from_step"], row["finding"], row["cause"])
            for row in self.rows(run, STOPPED)
            if row["finding"]
        }
        assert found == {(role, "40", "BN107", "") for role in ("moving_mean", "moving_variance")}

    def test_with_the_cause(self, run: Run) -> None:
        told = {(row["finding"], row["cause"]) for row in self.rows(run, OTHER.parent)}
        assert told == {("", ""), ("BN107", "layer-frozen")}

    @pytest.mark.framework
    def test_not_finite(self, run: Run, tmp_path: Path) -> None:
        rows = self.rows(run, saved(tmp_path, [0.1, NAN, NAN, 0.2]))
        found = [(row["member"], row["to_step"]) for row in rows if row["finding"] == "BN301"]
        assert found == [("moving_mean", "200"), ("moving_mean", "300")]


@pytest.mark.processes
class TestWidth:
    def on_a_terminal(self, columns: int, *arguments: object) -> list[str]:
        """What the program writes to a terminal of so many columns."""
        import fcntl
        import termios

        outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        command = [sys.executable, "-m", "bninspect", *map(str, arguments)]
        with subprocess.Popen(
            command, stdin=inner, stdout=inner, cwd=ROOT, env=environment
        ) as program:
            os.close(inner)
            told = b""
            while True:
                try:
                    part = os.read(outer, 65536)
                except OSError:  # the other end is closed
                    break
                if not part:
                    break
                told += part
            program.wait()
        os.close(outer)
        return told.decode().replace("\r", "").splitlines()

    @pytest.mark.parametrize(("columns", "widest"), [(60, 60), (80, 80), (160, 100)])
    @pytest.mark.parametrize("command", ["compare", "check"])
    def test_prose_is_as_wide_as_a_person_reads(
        self, command: str, columns: int, widest: int
    ) -> None:
        path = STOPPED if command == "compare" else FORGOTTEN / "model.ckpt-60"
        lines = self.on_a_terminal(columns, command, "--color", "never", path)
        evidence = lines.index(next(line for line in lines if "evidence" in line))
        prose = [line for line in lines[evidence:] if "tf.control_dependencies" not in line]
        longest = max(map(len, prose))
        assert widest - 20 < longest <= widest

    def test_columns_where_there_is_no_terminal(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def longest() -> int:
            outcome = run("check", FORGOTTEN / "model.ckpt-60")
            lines = outcome.out.splitlines()[1:]
            return max(len(line) for line in lines if line.startswith("    - conv"))

        monkeypatch.delenv("COLUMNS", raising=False)
        assert longest() <= 80
        monkeypatch.setenv("COLUMNS", "160")
        assert 80 < longest() <= 100
        for nonsense in ("", "wide", "0", "-5", "9" * 50):
            monkeypatch.setenv("COLUMNS", nonsense)
            assert longest() <= 100
