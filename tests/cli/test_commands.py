"""The commands as a person or a pipeline calls them: exit codes, streams, formats, words."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import pty
import re
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import BashComplete

import bninspect
from bninspect.cli.formats import CHECK
from bninspect.cli.main import main as main_group
from bninspect.formats.tensorflow.sstable import read_table
from bninspect.rules import RULES
from bninspect.storage.source import Source
from tests.conftest import CLEAN, EMPTY, FIXTURES, STUCK, Run, load_fixture, parsed
from tests.support.pages import without_run
from tests.support.processes import ENVIRONMENT, start_program
from tests.support.table_writer import write_bundle, write_index

COLD = load_fixture("tf1_layers_too_few_steps")
MISSING = FIXTURES / "no_such_checkpoint"


class TestExitCodes:
    @pytest.mark.parametrize(
        ("paths", "code"),
        [
            ((CLEAN,), 0),
            ((STUCK,), 1),
            ((MISSING,), 2),
            ((EMPTY,), 3),
            ((CLEAN, STUCK), 1),
            ((CLEAN, EMPTY), 0),
            ((STUCK, EMPTY), 1),
            ((STUCK, MISSING), 2),
            ((EMPTY, MISSING), 2),
        ],
    )
    def test_of_check(self, run: Run, paths: tuple[Path, ...], code: int) -> None:
        assert run("check", *paths).exit_code == code

    @pytest.mark.parametrize(
        ("fail_on", "code"), [("error", 0), ("warning", 1), ("note", 1), ("never", 0)]
    )
    def test_fail_on(self, run: Run, fail_on: str, code: int) -> None:
        options = (*COLD.expected["options"], "--fail-on", fail_on)
        assert run("check", COLD.path, *options).exit_code == code

    def test_never_still_reports_what_cannot_be_read(self, run: Run) -> None:
        assert run("check", MISSING, "--fail-on", "never").exit_code == 2

    def test_allow_empty(self, run: Run) -> None:
        assert run("check", EMPTY, "--allow-empty").exit_code == 0
        assert "exit code 3 without --allow-empty" in run("check", EMPTY).said
        assert "--allow-empty" not in run("check", CLEAN, EMPTY).said
        assert "--allow-empty" not in run("check", EMPTY, MISSING).said

    def test_layers_that_cannot_be_checked_are_not_said_to_be_missing(self, run: Run) -> None:
        folded = load_fixture("onnx_pytorch_folded").path
        first, *_ = run("check", CLEAN, folded, EMPTY, "--quiet").out.splitlines()
        assert first == (
            "PASS  3 checkpoints: 1 without BN layers, 1 with no BN layer that can be checked,"
            " 1 passed"
        )

    @pytest.mark.parametrize("options", [(), ("--quiet",)])
    def test_a_run_without_checkpoints_says_so_first(
        self, run: Run, options: tuple[str, ...]
    ) -> None:
        outcome = run("check", FIXTURES / "tf1_layers_correct", "--exclude", "*", *options)
        assert outcome.exit_code == 3
        assert outcome.out.startswith("NONE  no checkpoint was checked\n")

    @pytest.mark.parametrize("path", ["model.h5", "runs/model", "a b.keras"])
    def test_of_a_path_without_a_command(self, run: Run, path: str) -> None:
        outcome = run(path)
        assert outcome.exit_code == 2
        assert f"bninspect check {shlex.quote(path)}" in outcome.err

    @pytest.mark.parametrize("path", [CLEAN.parent, CLEAN, FIXTURES / "*"])
    def test_of_a_plain_word_that_is_a_path(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, path: Path
    ) -> None:
        monkeypatch.chdir(path.parent)
        outcome = run(path.name)
        assert outcome.exit_code == 2
        assert f"`bninspect check {shlex.quote(path.name)}`" in outcome.err

    def test_of_list_and_dump(self, run: Run) -> None:
        assert run("list", STUCK).exit_code == 0
        assert run("list", EMPTY).exit_code == 0
        assert run("list", MISSING).exit_code == 2
        assert run("dump", CLEAN, "--layer", "*").exit_code == 0
        assert run("dump", MISSING, "--layer", "*").exit_code == 2

    @pytest.mark.parametrize("format_", sorted(CHECK))
    @pytest.mark.parametrize(
        "arguments",
        [
            (CLEAN,),
            (STUCK,),
            (MISSING,),
            (EMPTY,),
            (EMPTY, "--allow-empty"),
            (STUCK, MISSING),
            (STUCK, "--fail-on", "never"),
            (COLD.path, *COLD.expected["options"], "--fail-on", "warning"),
        ],
        ids=lambda words: " ".join(Path(str(word)).name for word in words),
    )
    def test_a_format_never_changes_it(
        self, run: Run, tmp_path: Path, format_: str, arguments: tuple[object, ...]
    ) -> None:
        code = run("check", *arguments).exit_code
        alone = run("check", *arguments, "--format", format_)
        assert alone.exit_code == code
        target = tmp_path / "report"
        to_file = run("check", *arguments, "--format", f"{format_}={target}", "--format", "text")
        assert to_file.exit_code == code
        assert without_run(target.read_text(encoding="utf-8")) == without_run(alone.out)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("check",),
            ("check", CLEAN, "--format", "yaml"),
            ("check", CLEAN, "--format", "yaml=report"),
            ("check", CLEAN, "--format", "json="),
            ("check", CLEAN, "--format", "json", "--format", "text"),
            ("list", CLEAN, "--format", "json", "--format", "json"),
            ("check", CLEAN, "--format", "json=/no/such/folder/a", "-o", "b"),
            ("compare", CLEAN, "--format", "json=a", "--format", "csv=./a"),
            ("check", CLEAN, "--select", "BN9"),
            ("check", CLEAN, "--momentum", "1"),
            ("check", CLEAN, "--momentum", "nan"),
            ("check", CLEAN, "--momentum", "much"),
            ("check", CLEAN, "--pattern", "mean=x"),
            ("check", CLEAN, "--pattern", "moving_mean"),
            ("check", CLEAN, "--pattern", "moving_mean=("),
            ("check", CLEAN, "-o", FIXTURES / "no" / "such" / "folder" / "report.txt"),
            ("dump", CLEAN),
            ("dump", CLEAN, "--layer", "no such layer"),
            ("dump", CLEAN, "--layer", "*", "--format", "npz"),
            ("rule", "BN999"),
            ("frobnicate",),
        ],
        ids=lambda words: " ".join(str(word) for word in words if word is not CLEAN),
    )
    def test_wrong_usage_is_2_and_says_why(self, run: Run, arguments: tuple[object, ...]) -> None:
        outcome = run(*arguments)
        assert outcome.exit_code == 2
        assert not outcome.out
        assert "Traceback" not in outcome.err
        assert outcome.err.startswith("bninspect: ")
        first = outcome.err.splitlines()[0]
        assert first.endswith((".", "?", ":"))
        assert len(first) > 30

    @pytest.mark.parametrize(
        ("arguments", "meant"),
        [
            (("chek", CLEAN), "check"),
            (("check", CLEAN, "--fromat", "json"), "--format"),
            (("check", CLEAN, "--format", "jsom"), "json"),
            (("check", CLEAN, "--fail-on", "warnings"), "warning"),
            (("check", CLEAN, "--engine", "tensorflw"), "tensorflow"),
            (("list", CLEAN, "--color", "alway"), "always"),
            (("rule", "BN101", "--format", "markdwn"), "markdown"),
            (("watch", CLEAN.parent, "--format", "josnl"), "jsonl"),
        ],
        ids=lambda value: " ".join(map(str, value[-2:])) if isinstance(value, tuple) else value,
    )
    def test_a_mistyped_word_gets_the_nearest(
        self, run: Run, arguments: tuple[object, ...], meant: str
    ) -> None:
        outcome = run(*arguments)
        assert outcome.exit_code == 2
        assert f"Did you mean {meant}?" in outcome.err
        assert len(outcome.err.splitlines()) == 1


class TestCheckText:
    def test_the_first_line_is_the_answer(self, run: Run) -> None:
        assert run("check", CLEAN).out.startswith("PASS  ")
        first = run("check", STUCK).out.splitlines()[0]
        assert first.startswith("FAIL ")
        assert "3 of 3 BN layers" in first
        assert "BN101" in first

    @pytest.mark.parametrize(
        ("paths", "word"),
        [
            ((CLEAN, EMPTY), "PASS"),
            ((COLD.path, EMPTY), "WARN"),
            ((EMPTY, STUCK), "FAIL"),
            ((EMPTY, FIXTURES / "keras2_lookalikes"), "NONE"),
        ],
    )
    def test_the_first_line_is_of_the_exit_code(
        self, run: Run, paths: tuple[Path, ...], word: str
    ) -> None:
        outcome = run("check", *paths, "--quiet", *COLD.expected["options"])
        codes = {"PASS": 0, "WARN": 0, "FAIL": 1, "NONE": 3}
        assert outcome.out.startswith(f"{word}  {len(paths)} checkpoints")
        assert outcome.exit_code == codes[word]

    def test_findings_are_grouped_by_rule(self, run: Run, tmp_path: Path) -> None:
        names = [f"block{i}/batch_normalization" for i in range(46)]
        write_stuck_checkpoint(tmp_path / "many.ckpt", names)
        out = run("check", tmp_path / "many.ckpt").out
        assert out.count("BN101 statistics-never-updated: 46 layers") == 1
        assert "block0/batch_normalization" in out
        assert "block45/batch_normalization" not in out
        assert "43 more" in out
        verbose = run("check", tmp_path / "many.ckpt", "--verbose").out
        assert names
        assert all(f"{name}:" in " ".join(verbose.split()) for name in names)

    def test_it_ends_with_the_fix_and_where_to_read_on(self, run: Run) -> None:
        out = run("check", STUCK).out
        assert "tf.GraphKeys.UPDATE_OPS" in out
        assert "bninspect rule BN101" in out
        assert out.rstrip().endswith("3 errors, 0 warnings, 0 notes")

    def test_a_run_goes_on_after_an_unreadable_file(self, run: Run) -> None:
        out = run("check", MISSING, STUCK, CLEAN).out
        assert "ERROR" in out
        assert "FAIL" in out
        assert "PASS" in out
        assert "3 checkpoints, 6 BN layers" in out
        assert "1 unreadable" in out

    def test_quiet_leaves_the_verdict(self, run: Run) -> None:
        assert "evidence" not in run("check", STUCK, "--quiet").out
        assert run("check", STUCK, "--quiet").out.startswith("FAIL")

    def test_names_are_never_cut(self, run: Run, tmp_path: Path) -> None:
        name = "/".join(["a_rather_long_scope_name"] * 8) + "/batch_normalization"
        write_stuck_checkpoint(tmp_path / "long.ckpt", [name])
        assert name in run("check", tmp_path / "long.ckpt").out
        assert name in run("list", tmp_path / "long.ckpt").out

    def test_concise_is_a_line_a_finding(self, run: Run) -> None:
        lines = run("check", STUCK, MISSING, "--format", "concise").out.splitlines()
        assert len(lines) == 4
        assert lines[0].startswith(f"{STUCK}: BN101 error conv1/batch_normalization: moving_mean")
        assert lines[3].startswith(f"{MISSING}: not-found: ")


class TestSteps:
    """Checkpoints that may be steps of one training, which nobody asked to compare."""

    TRAINING = FIXTURES / "tf1_history_stopped"

    def said(self, run: Run, *arguments: object) -> bool:
        return "--all-checkpoints compares each with the" in run("check", *arguments).said

    def test_are_named(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(self.TRAINING, tmp_path / "run1")
        assert self.said(run, tmp_path)
        assert self.said(run, tmp_path / "run1" / "*")
        assert "3 checkpoints like" in run("check", tmp_path).said
        assert self.said(run, *(self.TRAINING / f"model.ckpt-{step}" for step in (20, 40)))

    def test_are_not_named_where_they_are_compared_or_alone(self, run: Run) -> None:
        assert not self.said(run, self.TRAINING, "--all-checkpoints")
        assert not self.said(run, FIXTURES / "tf1_training_directory")  # its newest checkpoint
        assert not self.said(run, CLEAN, STUCK)
        both = [self.TRAINING / f"model.ckpt-{step}" for step in (40, 60)]
        assert not self.said(run, *both, "--since", self.TRAINING / "model.ckpt-20")
        assert not self.said(run, *both, "--ignore", "BN107")


class TestSelection:
    def test_select_and_ignore(self, run: Run) -> None:
        assert run("check", STUCK, "--select", "BN2,BN3").exit_code == 0
        assert run("check", STUCK, "--select", "BN2", "--select", "bn101").exit_code == 1
        assert run("check", STUCK, "--ignore", "BN1").exit_code == 0
        assert run("check", STUCK, "--select", "BN1", "--ignore", "BN101").exit_code == 0

    def test_an_unknown_code_names_the_nearest(self, run: Run) -> None:
        assert "BN101" in run("check", STUCK, "--ignore", "BN1O1").err

    def test_momentum_stands_in(self, run: Run) -> None:
        findings = run("check", COLD.path, "--momentum", "0.99", "--format", "json").json
        assert findings["summary"]["warnings"] == len(COLD.expected["layers"])
        assert run("check", COLD.path, "--format", "json").json["summary"]["warnings"] == 0

    def test_pattern_names_own_variables(self, run: Run, tmp_path: Path) -> None:
        prefix = tmp_path / "own.ckpt"
        members = {
            "net/mu": np.zeros(3, np.float32),
            "net/sigma2": np.ones(3, np.float32),
            "net/gamma": np.array([0.5, 1.0, 2.0], np.float32),
        }
        write_bundle(str(prefix), members)
        assert run("check", prefix).exit_code == 3
        patterns = ("--pattern", "moving_mean=/mu$", "--pattern", "moving_variance=/sigma2$")
        outcome = run("check", prefix, *patterns, "--format", "json")
        assert outcome.exit_code == 1
        (layer,) = outcome.json["checkpoints"][0]["layers"]
        assert layer["name"] == "net"
        assert layer["variables"]["moving_variance"] == "net/sigma2"


class TestJson:
    def test_is_the_contract(self, run: Run) -> None:
        document = run("check", STUCK, MISSING, "--format", "json").json
        assert document["schema_version"] == 1
        assert document["tool"] == {"name": "bninspect", "version": bninspect.__version__}
        stuck, missing = document["checkpoints"]
        assert stuck["path"] == str(STUCK)
        assert stuck["resolved"] == str(STUCK)
        layer = stuck["layers"][0]
        assert set(layer) >= {
            "name", "family", "channels", "dtype", "momentum", "epsilon", "trainable", "variables",
            "statistics",
        }  # fmt: skip
        assert layer["statistics"]["moving_variance"] == {
            "min": 1.0, "max": 1.0, "mean": 1.0, "at_initial": 4,
        }  # fmt: skip
        finding = stuck["findings"][0]
        assert set(finding) == {
            "rule", "name", "severity", "layer", "message", "cause", "evidence", "fix",
            "possible_causes", "framework",
        }  # fmt: skip
        assert missing["layers"] == missing["findings"] == []
        assert missing["error"]["kind"] == "not-found"
        assert set(missing["error"]) == {"kind", "message", "hint"}
        assert document["summary"] == {
            "checkpoints": 2, "layers": 3, "errors": 3, "warnings": 0, "notes": 0, "unreadable": 1,
            "suppressed": 0,
        }  # fmt: skip

    def test_of_list_has_no_findings(self, run: Run) -> None:
        document = run("list", STUCK, "--format", "json").json
        assert "findings" not in document["checkpoints"][0]
        assert "errors" not in document["summary"]

    def test_what_json_lacks_is_a_string(self, run: Run, tmp_path: Path) -> None:
        members = {
            "bn/gamma": np.array([1.5, 2.0], np.float32),
            "bn/moving_mean": np.array([np.nan, 0.5], np.float32),
            "bn/moving_variance": np.array([np.inf, -np.inf], np.float32),
        }
        write_bundle(str(tmp_path / "nan.ckpt"), members)
        document = run("check", tmp_path / "nan.ckpt", "--format", "json")
        statistics = document.json["checkpoints"][0]["layers"][0]["statistics"]
        assert statistics["moving_mean"]["min"] == "NaN"
        assert statistics["moving_variance"]["max"] == "Infinity"
        assert statistics["moving_variance"]["min"] == "-Infinity"
        assert {f["rule"] for f in document.json["checkpoints"][0]["findings"]} >= {"BN301"}
        dumped = run("dump", tmp_path / "nan.ckpt", "--layer", "bn", "--format", "json").json
        assert dumped["layers"][0]["values"]["moving_mean"] == ["NaN", 0.5]


class TestDump:
    def test_scale_and_shift_are_what_inference_computes(self, run: Run) -> None:
        layer = run("dump", CLEAN, "--layer", "conv1/*", "--format", "json").json["layers"][0]
        values = {name: np.array(column) for name, column in layer["values"].items()}
        x = np.linspace(-3, 3, values["gamma"].size)
        expected = (
            values["gamma"] * (x - values["moving_mean"])
            / np.sqrt(values["moving_variance"] + 0.001) + values["beta"]
        )  # fmt: skip
        np.testing.assert_allclose(x * values["scale"] + values["shift"], expected)

    def test_a_stored_epsilon_is_used(self, run: Run) -> None:
        path = load_fixture("keras2_functional_correct").path
        out = run("dump", path, "--layer", "*").out
        assert "epsilon stored" in out
        assert "epsilon assumed" in run("dump", CLEAN, "--layer", "*").out

    @pytest.mark.parametrize("stem", ["keras1_weights", "keras105_theano", "keras1_correct"])
    def test_a_running_std_of_unknown_version_may_be_a_standard_deviation(
        self, run: Run, stem: str
    ) -> None:
        path = load_fixture(stem).path
        unknown = stem != "keras1_correct"
        out = run("dump", path, "--layer", "bn1").out
        assert ("moving_variance: without a stored configuration" in out) == unknown
        document = run("dump", path, "--layer", "bn1", "--format", "json").json
        assert (document["layers"][0]["caution"] is not None) == unknown
        assert "deviation" not in run("dump", CLEAN, "--layer", "*").out

    def test_lingvo_gamma_is_a_distance_from_one(self, run: Run) -> None:
        path = load_fixture("lingvo_scheme").path
        layer = run("dump", path, "--layer", "*", "--format", "json").json["layers"][0]
        values = {name: np.array(column) for name, column in layer["values"].items()}
        scale = (1 + values["gamma"]) / np.sqrt(values["moving_variance"] + 0.001)
        np.testing.assert_allclose(values["scale"], scale)

    def test_csv_and_npz_hold_the_exact_values(self, run: Run, tmp_path: Path) -> None:
        run("dump", CLEAN, "--layer", "*", "--format", "npz", "-o", tmp_path / "values.npz")
        rows = list(
            csv.DictReader(io.StringIO(run("dump", CLEAN, "--layer", "*", "--format", "csv").out))
        )
        with (
            bninspect.open_checkpoint(str(CLEAN)) as checkpoint,
            np.load(tmp_path / "values.npz") as arrays,
        ):
            layers = list(bninspect.find_layers(checkpoint))
            assert layers
            for layer in layers:
                for role, variable in layer.variables.items():
                    stored = variable.read()
                    np.testing.assert_array_equal(arrays[f"{layer.name}/{role}"], stored)
                    column = [float(row[role]) for row in rows if row["layer"] == layer.name]
                    assert column == stored.tolist()

    def test_a_thousand_channels_stay_readable(self, run: Run, tmp_path: Path) -> None:
        members = {
            "bn/moving_mean": np.linspace(-1, 1, 1000, dtype=np.float32),
            "bn/moving_variance": np.linspace(0.5, 2, 1000, dtype=np.float32),
        }
        write_bundle(str(tmp_path / "wide.ckpt"), members)
        short = run("dump", tmp_path / "wide.ckpt", "--layer", "bn").out.splitlines()
        assert len(short) < 40
        assert any("984 more channels" in line for line in short)
        full = run("dump", tmp_path / "wide.ckpt", "--layer", "bn", "--verbose").out.splitlines()
        assert len(full) > 1000

    def test_without_a_layer_names_them_all(self, run: Run) -> None:
        names = [layer["name"] for layer in load_fixture("tf1_layers_correct").expected["layers"]]
        assert names
        outcome = run("dump", CLEAN)
        assert (outcome.exit_code, outcome.out) == (2, "")
        first, *shown = outcome.err.splitlines()
        assert "--layer" in first
        assert [name.strip() for name in shown] == names
        assert run("dump", EMPTY).err == f"bninspect: {EMPTY} has no BN layer.\n"

    def test_layers_by_name_and_glob(self, run: Run) -> None:
        dumped = run("dump", CLEAN, "--layer", "dense/*", "--layer", "conv?/*", "--format", "json")
        assert [layer["name"].split("/")[0] for layer in dumped.json["layers"]] == [
            "conv1", "conv2", "dense",
        ]  # fmt: skip

    def test_a_mistyped_name_gets_a_suggestion(self, run: Run) -> None:
        outcome = run("dump", CLEAN, "--layer", "conv1/batchnormalization")
        assert "Did you mean conv1/batch_normalization?" in outcome.err
        assert "bninspect list" in outcome.err


class TestList:
    def test_quiet_is_names_only(self, run: Run) -> None:
        names = [layer["name"] for layer in load_fixture("tf1_layers_correct").expected["layers"]]
        assert run("list", CLEAN, "--quiet").out.splitlines() == names

    def test_verbose_names_the_variables(self, run: Run) -> None:
        assert "conv1/batch_normalization/moving_variance" in run("list", CLEAN, "-v").out

    def test_what_is_not_stored_is_shown(self, run: Run) -> None:
        out = run("list", load_fixture("slim_trainable_only_saver").path).out
        assert "-b--" in out

    def test_an_index_without_its_shard(self, run: Run, tmp_path: Path) -> None:
        shutil.copy(f"{CLEAN}.index", tmp_path / "model.ckpt.index")
        listed = run("list", tmp_path / "model.ckpt")
        assert listed.exit_code == 0
        assert "conv1/batch_normalization" in listed.out
        assert "values are missing" in listed.said
        assert "model.ckpt.data-00000-of-00001" in listed.out
        checked = run("check", tmp_path / "model.ckpt", "--format", "json")
        assert checked.exit_code == 2
        assert checked.json["checkpoints"][0]["error"]["kind"] == "incomplete"


class TestOutput:
    def test_appears_whole_or_not_at_all(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "report.json"
        outcome = run("check", STUCK, "--format", "json", "-o", target)
        assert outcome.exit_code == 1
        assert outcome.out == ""
        assert parsed(target.read_text(encoding="utf-8"))["summary"]["errors"] == 3
        target.write_text("before", encoding="utf-8")
        failed = run("dump", CLEAN, "--layer", "nothing", "-o", target)
        assert failed.exit_code == 2
        assert target.read_text(encoding="utf-8") == "before"
        assert [path.name for path in tmp_path.iterdir()] == ["report.json"]

    def test_several_formats_in_one_run(self, run: Run, tmp_path: Path) -> None:
        report, values = tmp_path / "report.json", tmp_path / "a=b.npz"
        outcome = run("check", STUCK, "--format", f"json={report}", "--format", "concise")
        assert outcome.exit_code == 1
        assert outcome.out == run("check", STUCK, "--format", "concise").out
        assert str(report) in outcome.err
        alone = run("check", STUCK, "--format", "json")
        assert report.read_text(encoding="utf-8") == alone.out
        placed = run("check", STUCK, "--format", f"json={report}", "--format", "text", "-o", values)
        assert placed.out == ""
        assert values.read_text(encoding="utf-8") == run("check", STUCK).out
        dumped = ("dump", CLEAN, "--layer", "*", "--format", f"npz={values}", "--format", "csv")
        assert run(*dumped).out == run("dump", CLEAN, "--layer", "*", "--format", "csv").out
        assert np.load(values)
        for command in ("list", "compare"):
            paths = (CLEAN, STUCK)[: 1 + (command == "compare")]
            both = run(command, *paths, "--format", "text", "--format", f"json={report}")
            assert both.out == run(command, *paths).out
            assert report.read_text() == run(command, *paths, "--format", "json").out

    def test_no_format_is_written_if_one_would_replace_an_input(
        self, run: Run, tmp_path: Path
    ) -> None:
        for part in (".index", ".data-00000-of-00001"):
            shutil.copy(f"{CLEAN}{part}", tmp_path / f"model.ckpt{part}")
        target = tmp_path / "report.json"
        both = ("--format", f"json={target}", "--format", f"text={tmp_path / 'model.ckpt.index'}")
        assert run("check", tmp_path / "model.ckpt", *both).exit_code == 2
        assert not target.exists()

    def test_has_the_mode_of_any_new_file(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "other").write_text("", encoding="utf-8")
        run("check", CLEAN, "-o", tmp_path / "report.txt")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert len(modes) == 1

    def test_colour(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "\x1b[" not in run("check", STUCK).out
        assert "\x1b[" in run("check", STUCK, "--color", "always").out
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b[" not in run("check", STUCK, "--color", "auto").out


@pytest.mark.processes
@pytest.mark.parametrize("columns", [40, 80, 160])
def test_a_terminal_cuts_no_word(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(STUCK.parent)
    for command, code in (("check", 1), ("list", 0)):
        lines = on_terminal(columns, command, STUCK.name, code=code)
        assert len(lines) > 4
        if command == "list":
            lines = lines[: next(i for i, line in enumerate(lines) if "channels" in line)]
        wide = [line for line in lines if len(line) > columns]
        # What sticks out is code, which is copied in one piece.
        assert [line for line in wide if not re.search("`[^`]{20,}`", line)] == []


@pytest.mark.processes
def test_code_in_a_fix_is_in_one_piece() -> None:
    text = "\n".join(on_terminal(80, "check", STUCK, code=1))
    for code in (
        "`tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS))`",
        "`bninspect rule BN101`",
    ):
        assert code in text


def test_names_of_several_checkpoints_come_with_their_paths(run: Run) -> None:
    alone = run("list", STUCK, "-q").out.splitlines()
    assert "conv1/batch_normalization" in alone
    both = run("list", STUCK, CLEAN, "-q").out.splitlines()
    assert both[: len(alone)] == [f"{STUCK}: {name}" for name in alone]


def on_terminal(columns: int, *arguments: object, code: int | None = 0) -> list[str]:
    """The lines that the program writes to a terminal of that width, without colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "bninspect", *map(str, arguments), "--color", "never"]
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "COLUMNS"}
    with subprocess.Popen(command, stdout=its, env=environment) as process:
        os.close(its)
        written = b""
        with suppress(OSError):  # the other end is closed
            while part := os.read(ours, 1 << 16):
                written += part
    os.close(ours)
    assert code in (None, process.returncode)
    return written.decode().splitlines()


class TestProgram:
    @pytest.mark.processes
    def test_python_m_is_the_same_program(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "bninspect", "check", str(STUCK)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stdout.startswith("FAIL")

    @pytest.mark.processes
    def test_a_terminal_without_unicode(self) -> None:
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        for arguments in (["list", str(CLEAN)], ["dump", str(CLEAN), "--layer", "*"], ["rule"]):
            done = subprocess.run(
                [sys.executable, "-m", "bninspect", *arguments],
                capture_output=True,
                text=True,
                check=False,
                env=environment,
            )
            assert done.returncode == 0, done.stderr

    @pytest.mark.processes
    @pytest.mark.parametrize("columns", [40, 80, 160])
    def test_no_name_of_a_list_is_folded_in_a_terminal(self, columns: int) -> None:
        layers = load_fixture("keras2_nested").expected["layers"]
        lines = on_terminal(columns, "list", FIXTURES / "keras2_nested" / "model.h5")
        assert layers
        for layer in layers:
            name = layer["name"]
            (at,) = (at for at, line in enumerate(lines) if line.split()[:1] == [name])
            row = lines[at].removeprefix(name) or lines[at + 1]
            assert row.split()[:2] == [str(layer["channels"]), "gbmv"]
            assert len(lines[at]) <= columns or lines[at] == name

    def test_a_bug_of_ours_is_no_finding(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def explode(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("bninspect.runs.graph_beside.search_layers", explode)
        outcome = run("check", CLEAN)
        assert outcome.exit_code == 2
        assert "internal error" in outcome.err
        assert "ZeroDivisionError" in outcome.err


class TestRule:
    def test_lists_all(self, run: Run) -> None:
        out = run("rule").out
        assert all(f"{rule.code}  " in out and rule.name in out for rule in RULES)

    def test_shows_one_by_code_or_name(self, run: Run) -> None:
        page = run("rule", "bn101").out
        assert page == run("rule", "statistics-never-updated").out
        for heading in ("What it means", "Why it is bad", "Usual causes", "How to fix it"):
            assert heading in page


class TestWhatOtherProgramsTeach:
    """Options and commands that a person expects from linters and other programs."""

    def test_exit_zero_is_fail_on_never(self, run: Run) -> None:
        for command in (("check", STUCK), ("compare", CLEAN, STUCK)):
            assert run(*command, "--exit-zero").exit_code == 0
        assert run("check", STUCK, "--exit-zero", "--fail-on", "never").exit_code == 0
        assert run("check", MISSING, "--exit-zero").exit_code == 2
        outcome = run("check", STUCK, "--exit-zero", "--fail-on", "note")
        assert outcome.exit_code == 2
        assert "--exit-zero cannot be combined with --fail-on note" in outcome.err

    def test_output_format_is_format(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "a.json"
        assert run("check", STUCK, "--output-format", "concise").out == (
            run("check", STUCK, "--format", "concise").out
        )
        run("check", STUCK, f"--output-format=json={file}")
        assert parsed(file.read_text("utf-8"))["summary"]["checkpoints"] == 1
        assert run("rule", "--output-format", "json").out == run("rule", "--format", "json").out

    def test_version_is_short_too(self, run: Run) -> None:
        assert (
            run("-V").out == run("--version").out == f"bninspect, version {bninspect.__version__}\n"
        )

    def test_help_is_a_command(self, run: Run) -> None:
        assert run("help").out == run("--help").out
        assert run("help", "check").out == run("check", "--help").out
        outcome = run("help", "chekc")
        assert outcome.exit_code == 2
        assert "Did you mean check?" in outcome.err

    def test_a_missing_shell_is_asked_for_in_one_line(self, run: Run) -> None:
        outcome = run("completion")
        assert outcome.exit_code == 2
        assert "Choose from: bash, fish, zsh." in outcome.err

    def test_a_shell_without_completion_is_refused(self, run: Run) -> None:
        outcome = run("completion", "tcsh")
        assert outcome.exit_code == 2
        assert "bash, fish, zsh" in outcome.err

    @pytest.mark.parametrize(
        ("words", "typed", "offered"),
        [
            (("dump", CLEAN, "--layer"), "conv", ["conv1/batch", "conv2/batch"]),
            (("dump", CLEAN, "-q", "--layer"), "dense", ["dense/batch"]),
            (("dump", "no_such_checkpoint", "--layer"), "", []),
            (("dump", "https://example.invalid/model.h5", "--layer"), "", []),
            (("dump", "--layer"), "", []),
        ],
    )
    def test_layers_are_completed(
        self, words: tuple[object, ...], typed: str, offered: list[str]
    ) -> None:
        shell = BashComplete(main_group, {}, "bninspect", "_BNINSPECT_COMPLETE")
        items = shell.get_completions([str(word) for word in words], typed)
        assert [item.value for item in items] == [f"{name}_normalization" for name in offered]

    def test_a_dash_is_standard_output(self, run: Run, tmp_path: Path) -> None:
        printed = run("check", CLEAN).out
        file = tmp_path / "report.json"
        outcome = run("check", CLEAN, "--format", "text=-", "--format", f"json={file}")
        assert outcome.out == printed
        assert run("check", CLEAN, "-o", "-").out == printed
        assert run("report", CLEAN, "-o", "-").out.startswith("<!DOCTYPE html>")
        outcome = run("check", CLEAN, "--format", "text=-", "--format", "json")
        assert outcome.exit_code == 2
        assert "cannot both be written to standard output" in outcome.err

    def test_the_rules_for_programs(self, run: Run) -> None:
        document = parsed(run("rule", "--format", "json").out)
        assert [one["code"] for one in document["rules"]] == [rule.code for rule in RULES]
        one = parsed(
            run("rule", "update-ops-not-run", "--for", "tf1-layers", "--format", "json").out
        )
        assert one["rules"] == []
        (cause,) = one["causes"]
        assert "BN101" in cause["rules"]
        assert any("tf1-layers" in fix["frameworks"] for fix in cause["fixes"])
        every = parsed(run("rule", "update-ops-not-run", "--format", "json").out)
        assert len(every["causes"][0]["fixes"]) > len(cause["fixes"])
        (rule,) = parsed(run("rule", "BN101", "--for", "flax", "--format", "json").out)["rules"]
        page = run("rule", "BN101", "--for", "flax").out
        assert rule["causes"]
        assert all(f"- {name}: " in page for name in rule["causes"])
        assert "update-ops-not-run" not in rule["causes"]


class TestInPython:
    def test_check_prints_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        report = bninspect.check(STUCK)
        assert [finding.rule.code for finding in report.findings] == ["BN101"] * 3
        assert capsys.readouterr() == ("", "")

    def test_wrong_options_raise(self) -> None:
        with pytest.raises(bninspect.UsageProblem, match="BN7"):
            bninspect.check(STUCK, select=["BN7"])

    def test_unreadable_is_a_result(self) -> None:
        (item,) = bninspect.check(MISSING).checkpoints
        assert isinstance(item.error, bninspect.ReadProblem)


def write_stuck_checkpoint(prefix: Path, names: list[str]) -> None:
    members = {}
    for name in names:
        members[f"{name}/gamma"] = np.array([0.5, 1.5], np.float32)
        members[f"{name}/moving_mean"] = np.zeros(2, np.float32)
        members[f"{name}/moving_variance"] = np.ones(2, np.float32)
    write_bundle(str(prefix), members)


class TestWhatAPersonTypes:
    def test_output_never_replaces_an_input(self, run: Run, tmp_path: Path) -> None:
        for part in (".index", ".data-00000-of-00001"):
            shutil.copy(f"{CLEAN}{part}", tmp_path / f"model.ckpt{part}")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        for given in ("model.ckpt", "model.ckpt.index"):
            for target in before:
                outcome = run("check", tmp_path / given, "-o", tmp_path / target)
                assert outcome.exit_code == 2
                assert "it is a file of the checkpoint" in outcome.err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        for _ in range(2):  # a report beside it is none of its files
            report = tmp_path / "model.ckpt.json"
            assert run("check", tmp_path / "model.ckpt", "-o", report).exit_code == 0

    def test_output_follows_links_and_keeps_modes(self, run: Run, tmp_path: Path) -> None:
        target, link = tmp_path / "target", tmp_path / "link"
        target.write_text("before", encoding="utf-8")
        target.chmod(0o600)
        link.symlink_to(target)
        run("check", CLEAN, "-o", link)
        assert link.is_symlink()
        assert target.read_text(encoding="utf-8").startswith("PASS")
        assert stat.S_IMODE(target.stat().st_mode) == 0o600

    def test_output_never_replaces_an_older_checkpoint_of_a_training(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = tmp_path / "run"
        shutil.copytree(FIXTURES / "tf1_training_directory", directory)
        (tmp_path / "link").symlink_to(directory)
        monkeypatch.chdir(directory)
        files = sorted(directory.glob("model.ckpt-*.*"))
        assert {file.name.partition(".index")[0] for file in files} > {"model.ckpt-60"}
        before = [file.read_bytes() for file in files]
        for typed in (directory, ".", "../run", tmp_path / "link"):
            for file in files:
                outcome = run("check", typed, "-o", file)
                assert outcome.exit_code == 2
                assert "Refusing to overwrite" in outcome.err
        assert [file.read_bytes() for file in files] == before
        assert run("check", directory, "-o", directory / "report.txt").exit_code < 2

    def test_output_never_replaces_the_state_file(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(FIXTURES / "tf1_training_directory", tmp_path / "run")
        before = (tmp_path / "run" / "checkpoint").read_bytes()
        for typed in ("run", "run/checkpoint", "run/model.ckpt-60", "run/*", "r?n"):
            outcome = run("check", tmp_path / typed, "-o", tmp_path / "run" / "checkpoint")
            assert outcome.exit_code == 2
            assert "Refusing to overwrite" in outcome.err
        assert (tmp_path / "run" / "checkpoint").read_bytes() == before
        (tmp_path / "checkpoint").write_text("mine", encoding="utf-8")
        assert run("check", tmp_path / "run", "-o", tmp_path / "checkpoint").exit_code == 2
        assert run("check", CLEAN, "-o", tmp_path / "checkpoint").exit_code == 0

    def test_output_never_replaces_a_shard_of_keras(self, run: Run, tmp_path: Path) -> None:
        fixture = load_fixture("keras3_weights_sharded")
        shutil.copytree(fixture.path.parent, tmp_path / "copy")
        shards = sorted((tmp_path / "copy").glob("*.h5"))
        assert len(shards) > 1
        for shard in shards:
            outcome = run("check", tmp_path / "copy" / fixture.path.name, "-o", shard)
            assert "it is a file of the checkpoint" in outcome.err

    def test_links_that_lead_to_themselves(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        report = tmp_path / "out.txt"
        assert run("check", tmp_path / "loop", "-o", report).exit_code == 2
        assert "symbolic links" in report.read_text(encoding="utf-8")
        for output in ("loop", "loop/x"):
            outcome = run("check", CLEAN, "-o", tmp_path / output)
            assert outcome.exit_code == 2
            assert outcome.err.startswith("bninspect: Cannot write ")
        assert (tmp_path / "loop").is_symlink()

    def test_an_empty_choice_of_rules(self, run: Run) -> None:
        assert run("check", CLEAN, "--select", ",").exit_code == 2

    @pytest.mark.parametrize("expression", ["a{99999999999}", "(" * 5000 + ")" * 5000])
    def test_a_pattern_that_cannot_be_compiled(self, run: Run, expression: str) -> None:
        outcome = run("check", CLEAN, "--pattern", f"gamma={expression}")
        assert outcome.exit_code == 2
        assert "Traceback" not in outcome.err

    @pytest.mark.parametrize("expression", [r"^(\w|[a-z]|/)+\d$", r"(.|\w|[a-z_])*\d\d"])
    def test_a_pattern_that_never_ends(
        self, run: Run, expression: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bninspect.batchnorm.name_patterns._SECONDS", 0.2)
        outcome = run("check", CLEAN, "--pattern", f"gamma={expression}")
        assert outcome.exit_code == 2
        assert f"The pattern gamma={expression} takes more than 0.2 seconds" in outcome.err
        assert "Traceback" not in outcome.err

    def test_notes_are_no_clean_bill(self, run: Run) -> None:
        untrained = load_fixture("tf1_layers_untrained").path
        first = run("check", untrained).out.splitlines()[0]
        assert "BN105, a note" in first
        assert "nothing wrong" not in first

    def test_the_proof_of_a_cause_is_shown(self, run: Run) -> None:
        out = run("check", load_fixture("keras2_training_false").path).out
        assert "training=False" in out.partition("evidence")[2].partition(" cause ")[0]


class TestOddStates:
    def test_a_state_file_in_octal(self, run: Run, tmp_path: Path) -> None:
        """TensorFlow writes bytes beyond ASCII that way."""
        for part in (".index", ".data-00000-of-00001"):
            shutil.copy(f"{CLEAN}{part}", tmp_path / f"modèle.ckpt{part}")
        state = 'model_checkpoint_path: "mod\\303\\250le.ckpt"\n'
        (tmp_path / "checkpoint").write_text(state, encoding="utf-8")
        assert run("check", tmp_path).exit_code == 0

    @pytest.mark.parametrize("escaped", [rb"\8", rb"\9x", rb"\777", rb"\q", rb"\\", rb"\""])
    def test_a_state_file_with_odd_escapes(self, run: Run, tmp_path: Path, escaped: bytes) -> None:
        (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "a' + escaped + b'"\n')
        outcome = run("check", tmp_path)
        assert outcome.exit_code == 2
        assert "internal error" not in outcome.err

    def test_a_state_file_of_newlines(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "checkpoint").write_text("\n" * 500_000, encoding="utf-8")
        assert run("check", tmp_path).exit_code == 2

    def test_control_characters_never_reach_the_terminal(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "\\033[31mx\\007"\n')
        outcome = run("dump", tmp_path, "--layer", "x")
        assert "\x1b" not in outcome.err
        assert "\\x1b[31m" in outcome.err
        name = "x\x1b[2J\ny"
        write_stuck_checkpoint(tmp_path / "names.ckpt", [name])
        for arguments in (("check",), ("check", "--format", "concise"), ("list", "-v")):
            out = run(*arguments[:1], tmp_path / "names.ckpt", *arguments[1:]).out
            assert "\x1b" not in out
            assert "x\\x1b[2J\\ny" in out

    @pytest.mark.parametrize("name", ["a" * 200_000, "a b" * 70_000])
    def test_endless_names_make_no_endless_message(
        self, run: Run, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "checkpoint").write_text(
            f'model_checkpoint_path: "{name}z"\n', encoding="utf-8"
        )
        out = run("check", tmp_path).out
        assert "it names aaaa" in out or "it names a ba b" in out
        assert "z, which is not there" in out
        assert "…" in out
        assert len(out) < 4000
        assert len(run("check", tmp_path, "--format", "json").out) < 6000
        write_stuck_checkpoint(tmp_path / "long.ckpt", [name])
        assert len(run("dump", tmp_path / "long.ckpt", "--layer", "a").err) < 4000

    @pytest.mark.processes
    def test_csv_never_steers_a_terminal(self, run: Run, tmp_path: Path) -> None:
        """A pipe may end in a terminal: names are escaped wherever the table goes."""
        for folder in ("a", "b\x1b"):
            (tmp_path / folder).mkdir()
            write_stuck_checkpoint(tmp_path / folder / "m.ckpt", ["x\x1b[2J\ny"])
        arguments = ("dump", tmp_path, "--all-checkpoints", "--layer", "*", "--format", "csv")
        rows = list(csv.reader(io.StringIO(run(*arguments).out, newline="")))
        assert {row[1] for row in rows[1:]} == {r"x\x1b[2J\ny"}
        assert {row[0] for row in rows[1:]} == {
            str(tmp_path / folder / "m.ckpt") for folder in ("a", r"b\x1b")
        }

    def test_the_smallest_numbers_have_a_histogram(self, run: Run, tmp_path: Path) -> None:
        members = {
            "bn/moving_mean": np.array([0, 5e-324]),
            "bn/moving_variance": np.array([1e308, 1e308]),
        }
        write_bundle(str(tmp_path / "tiny.ckpt"), members)
        assert run("dump", tmp_path / "tiny.ckpt", "--layer", "bn").exit_code == 0
        statistics = run("check", tmp_path / "tiny.ckpt", "--format", "json").json["checkpoints"][
            0
        ]["layers"][0]["statistics"]
        assert statistics["moving_variance"]["max"] == 1e308

    def test_a_name_too_long_for_an_archive(self, run: Run, tmp_path: Path) -> None:
        write_stuck_checkpoint(tmp_path / "long.ckpt", ["n" * 70_000])
        npz = ("--format", "npz", "-o", tmp_path / "values.npz")
        assert run("dump", tmp_path / "long.ckpt", "--layer", "*", *npz).exit_code == 2
        assert not (tmp_path / "values.npz").exists()

    def test_many_variables_on_the_same_bytes(self, run: Run, tmp_path: Path) -> None:
        """An index may name one megabyte a thousand times."""
        prefix = str(tmp_path / "bomb.ckpt")
        write_bundle(prefix, {"x": np.ones(1 << 18, np.float32)})
        with Source(f"{prefix}.index") as source:
            entries = read_table(source)
        for layer in range(600):
            for role in ("moving_mean", "moving_variance"):
                entries[f"bn{layer:03}/{role}".encode()] = entries[b"x"]
        write_index(prefix, entries)
        (checkpoint,) = run("check", prefix, "--format", "json").json["checkpoints"]
        assert checkpoint["error"]["kind"] == "corrupt"
        assert "far more bytes than are stored" in checkpoint["error"]["message"]

    @pytest.mark.processes
    def test_hdf5_that_is_being_written(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "model.h5"
        shutil.copy(load_fixture("keras2_functional_correct").path, path)
        program = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(1); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-u", "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as writer:
            assert writer.stdout
            writer.stdout.readline()
            outcome = run("check", path)
        assert outcome.exit_code == 2
        assert "open for writing" in outcome.said


ENDLESS = """
import time
import bninspect.runs.sequential

def endlessly(*_, **__):
    print("reading", flush=True)
    time.sleep(600)

bninspect.runs.sequential.examine = endlessly
"""


class TestStreams:
    def shell(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        program = f"{sys.executable} -m bninspect"
        return subprocess.run(
            ["bash", "-c", command.replace("bninspect", program, 1)],
            capture_output=True,
            text=True,
            check=False,
            cwd=FIXTURES.parent,
            env={**os.environ, **environment},
        )

    @pytest.mark.processes
    def test_a_reader_that_has_seen_enough(self) -> None:
        done = self.shell(f"bninspect dump {CLEAN} --layer '*' | true; exit ${{PIPESTATUS[0]}}")
        assert done.returncode in (0, 141)
        assert done.stderr == ""

    @pytest.mark.processes
    def test_a_full_disk(self) -> None:
        done = self.shell(f"bninspect check {STUCK} > /dev/full")
        assert done.returncode == 2
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.processes
    def test_no_output_at_all(self) -> None:
        for command in (f"check {STUCK}", f"list {STUCK}", f"report {STUCK}", "rule"):
            done = self.shell(f"bninspect {command} >&-")
            assert done.returncode == 2
            assert done.stderr == "bninspect: Standard output is closed; use --output FILE.\n"

    @pytest.mark.processes
    @pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-"])
    def test_a_file_needs_no_standard_output(self, closed: str, tmp_path: Path) -> None:
        target = tmp_path / "report.json"
        done = self.shell(f"bninspect check {STUCK} --format json -o {target} {closed}")
        assert done.returncode == 1
        assert parsed(target.read_text(encoding="utf-8"))["summary"]["errors"] == 3

    @pytest.mark.processes
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
    def test_a_killed_run_leaves_no_file(self, number: int, tmp_path: Path) -> None:
        process = start_program("check", CLEAN, "-o", tmp_path / "report.txt", before=ENDLESS)
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(number)
        process.communicate()
        assert process.returncode == -number
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.processes
    def test_a_name_of_standard_output_is_written_to(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "bninspect", "check", STUCK, "-q", "-o", "/dev/stdout"],
            capture_output=True,
            text=True,
            check=False,
            cwd=FIXTURES.parent,
        )
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith("FAIL")

    @pytest.mark.processes
    def test_a_working_directory_that_is_gone_is_said(self, tmp_path: Path) -> None:
        program = f'"{sys.executable}" -m bninspect check "$0" -q'
        for path, code in ((".", 2), (STUCK, 1)):
            gone = tmp_path / "gone"
            gone.mkdir()
            done = subprocess.run(
                ["sh", "-c", f"rmdir '{gone}' && {program}", path],
                capture_output=True,
                text=True,
                check=False,
                cwd=gone,
                env={**os.environ, "PYTHONPATH": str(FIXTURES.parent)},
            )
            assert done.returncode == code
            gone_is_said = "bninspect: the working directory is gone; change to one that exists.\n"
            assert done.stderr == (gone_is_said if code == 2 else "")

    @pytest.mark.processes
    @pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&1 >/dev/null | exec true"])
    def test_an_exit_code_does_not_depend_on_who_listens(self, stderr: str, tmp_path: Path) -> None:
        calls = {
            "check": 2,
            "rule nope": 2,
            "compare nope": 2,
            f"check '{STUCK}' -o report": 1,
            f"check '{CLEAN}' -o report": 0,
            f"check '{CLEAN}' --baseline known.json --update-baseline": 0,
        }
        for arguments, code in calls.items():
            # The pipe's reader is gone before the program has started.
            call = (
                f'(sleep 0.1; "{sys.executable}" -m bninspect {arguments}; echo $? >code) {stderr}'
            )
            subprocess.run(
                ["sh", "-c", call],
                capture_output=True,
                check=False,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(FIXTURES.parent)},
            )
            assert int((tmp_path / "code").read_text(encoding="ascii")) == code, arguments

    def test_an_empty_name_of_a_file_is_said(self, run: Run) -> None:
        outcome = run("check", STUCK, "-o", "")
        assert outcome.exit_code == 2
        assert outcome.err == "bninspect: The name of the file to write is empty.\n"

    def test_an_empty_path_is_said(self, run: Run) -> None:
        outcome = run("check", "")
        assert outcome.exit_code == 2
        assert "'': the path is empty" in outcome.out

    def test_an_interrupt_is_no_finding(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("bninspect.runs.graph_beside.search_layers", interrupt)
        assert run("check", CLEAN).exit_code == 130

    @pytest.mark.processes
    def test_a_terminal_gets_colours_unless_told_otherwise(self) -> None:
        command = f'script -qec "{sys.executable} -m bninspect check {STUCK}" /dev/null'
        plain = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        for extra, coloured in (({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False)):
            done = subprocess.run(
                ["bash", "-c", command],
                capture_output=True,
                text=True,
                check=False,
                cwd=FIXTURES.parent,
                env={**plain, **extra},
            )
            assert ("\x1b[" in done.stdout) == coloured


class TestNextSteps:
    def test_output_leaves_a_line_on_stderr(self, run: Run, tmp_path: Path) -> None:
        outcome = run("check", STUCK, "-o", tmp_path / "report.txt")
        assert "3 errors" in outcome.err
        assert str(tmp_path / "report.txt") in outcome.err
        assert run("check", STUCK, "-q", "-o", tmp_path / "report.txt").err == ""

    def test_an_archive_wants_its_format(self, run: Run, tmp_path: Path) -> None:
        outcome = run("dump", CLEAN, "--layer", "*", "-o", tmp_path / "values.npz")
        assert outcome.exit_code == 2
        assert "--format npz" in outcome.err
        assert not list(tmp_path.iterdir())

    def test_no_layer_shows_the_names_that_are_there(self, run: Run, tmp_path: Path) -> None:
        write_bundle(str(tmp_path / "own.ckpt"), {"net/norm1/mu": np.zeros(3, np.float32)})
        outcome = run("check", tmp_path / "own.ckpt")
        assert outcome.exit_code == 3
        assert "net/norm1/mu" in outcome.out
        assert "--pattern" in outcome.out

    def test_a_folder_of_keras_files_stands_for_them(self, run: Run) -> None:
        model = load_fixture("keras2_nested").path
        outcome = run("check", model.parent, "--format", "json")
        assert [item["path"] for item in outcome.json["checkpoints"]] == [str(model)]

    def test_the_state_file_stands_for_its_folder(self, run: Run) -> None:
        folder = FIXTURES / "tf1_training_directory"
        by_file = run("check", folder / "checkpoint", "--format", "json").json
        by_folder = run("check", folder, "--format", "json").json
        assert by_file["checkpoints"][0]["layers"] == by_folder["checkpoints"][0]["layers"]

    def test_the_verdict_is_one_line_and_names_the_path(self, run: Run) -> None:
        first = run("check", STUCK).out.splitlines()[0]
        assert str(STUCK) in first
        assert first.endswith("(BN101)")


def test_concise_says_that_there_is_no_layer(run: Run) -> None:
    path = load_fixture("tf1_lookalikes").path
    outcome = run("check", path, "--format", "concise")
    assert outcome.exit_code == 3
    assert outcome.out.startswith(f"{path}: none: no BN layer among ")
    assert len(outcome.out.splitlines()) == 1


def test_list_verbose_shows_the_names_that_a_pattern_needs(run: Run) -> None:
    path = load_fixture("tf1_lookalikes").path
    with bninspect.open_checkpoint(path) as checkpoint:
        names = set(checkpoint.variables)
    shown = run("list", path, "--verbose").out.split()
    assert names <= set(shown)
    assert not names <= set(run("list", path).out.split())


def test_a_pattern_that_matches_nothing_is_told(run: Run) -> None:
    path = load_fixture("tf1_lookalikes").path
    patterns = ["--pattern", "moving_mean=/nope$", "--pattern", "gamma=."]
    outcome = run("check", path, *patterns, "--format", "json")
    (checkpoint,) = outcome.json["checkpoints"]
    assert checkpoint["notes"] == ["the pattern moving_mean=/nope$ matches no variable"]


def test_dump_to_npz_of_a_name_that_is_not_utf8(run: Run, tmp_path: Path) -> None:
    layer = {b"a\xff/moving_mean": np.float32([1]), b"a\xff/moving_variance": np.float32([2])}
    write_bundle(tmp_path / "model", layer)
    target = tmp_path / "values.npz"
    arguments = ["--layer", "*", "--format", "npz", "-o", target]
    assert run("dump", tmp_path / "model", *arguments).exit_code == 0
    with np.load(target) as values:
        assert any(name.endswith("moving_mean") for name in values.files)


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    outcome = run()
    assert outcome.exit_code == 2
    assert outcome.out == ""
    assert outcome.err == run("--help").out
    assert "\\n" not in outcome.err
