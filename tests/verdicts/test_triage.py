"""What of the findings counts: suppressions and the baseline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bninspect
from bninspect.model.report import CheckpointReport
from bninspect.verdicts.baseline import Entry, place_of, read_baseline, write_baseline
from tests.conftest import CLEAN, EMPTY, FIXTURES, STUCK, Run, load_fixture
from tests.support.table_writer import write_bundle

STOPPED = load_fixture("tf1_history_stopped").path.parent
OTHER = FIXTURES / "keras2_history_frozen" / "epoch-6.h5"
MISSING = FIXTURES / "no_such_checkpoint"
NAMES = [f"{name}/batch_normalization" for name in ("conv1", "conv2", "dense")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entry(layer: str, *rules: str, reason: str = "momentum 0 is meant", expires: str = "") -> str:
    """A suppression, as a configuration file has it."""
    until = f"expires = {expires}\n" if expires else ""
    return (
        f"[[suppress]]\nlayer = {json.dumps(layer)}\nrules = {json.dumps(rules)}\n"
        f"reason = {json.dumps(reason)}\n{until}"
    )


def configure(*entries: str) -> None:
    Path("bninspect.toml").write_text("".join(entries), encoding="utf-8")


def write_stuck(prefix: Path, *names: str, stuck: bool = True) -> Path:
    members = {}
    for name in names:
        members[f"{name}/gamma"] = np.array([0.5, 1.5], np.float32)
        members[f"{name}/moving_mean"] = np.full(2, 0 if stuck else 0.5, np.float32)
        members[f"{name}/moving_variance"] = np.full(2, 1 if stuck else 2, np.float32)
    write_bundle(str(prefix), members)
    return prefix


@pytest.mark.usefixtures("here")
class TestSuppressions:
    def test_what_is_suppressed_does_not_count(self, run: Run) -> None:
        configure(entry("*", "BN101"))
        outcome = run("check", STUCK, "--fail-on", "note")
        assert outcome.exit_code == 0
        assert outcome.out.startswith("PASS ")
        assert "no finding (3 suppressed)" in outcome.said
        assert "BN101" not in outcome.out
        assert outcome.said.endswith("0 errors, 0 warnings, 0 notes, 3 suppressed")
        assert run("check", STUCK, "--format", "concise").out == ""

    def test_the_others_do(self, run: Run) -> None:
        configure(entry("conv*", "BN1"))
        outcome = run("check", STUCK, "--format", "json")
        assert outcome.exit_code == 1
        (item,) = outcome.json["checkpoints"]
        assert [finding["layer"] for finding in item["findings"]] == NAMES[2:]
        assert [finding["layer"] for finding in item["suppressed"]] == NAMES[:2]
        assert outcome.json["summary"]["errors"] == 1
        assert outcome.json["summary"]["suppressed"] == 2

    def test_verbose_shows_them_with_the_reason(self, run: Run) -> None:
        configure(entry("conv?/*", "BN101", expires="2999-12-31"), entry("dense*", "BN1"))
        said = run("check", STUCK, "--verbose").said
        assert "suppressed BN101 statistics-never-updated: 2 layers" in said
        assert "suppressed BN101 statistics-never-updated: 1 layer " in said
        assert all(f"{name}: moving_mean is still 0" in said for name in NAMES)
        assert "reason momentum 0 is meant (until 2999-12-31)" in said
        assert "reason" not in run("check", STUCK).said

    def test_json_has_the_finding_and_why(self, run: Run) -> None:
        found = run("check", STUCK, "--format", "json").json["checkpoints"][0]["findings"]
        configure(entry("conv1/*", "bn1", "BN3", expires='"2999-12-31"'), entry("*", "BN101"))
        suppressed = run("check", STUCK, "--format", "json").json["checkpoints"][0]["suppressed"]
        assert found
        for plain, one in zip(found, suppressed, strict=True):
            assert {key: value for key, value in one.items() if key != "suppression"} == plain
        assert [one["suppression"] for one in suppressed[:2]] == [
            {
                "reason": "momentum 0 is meant",
                "expires": "2999-12-31",
                "layer": "conv1/*",
                "rules": ["BN1", "BN3"],
            },
            {"reason": "momentum 0 is meant", "expires": None, "layer": "*", "rules": ["BN101"]},
        ]

    def test_of_another_rule_nothing_is_suppressed(self, run: Run) -> None:
        configure(entry("*", "BN102", "BN3"))
        assert run("check", STUCK).exit_code == 1

    def test_a_layer_is_meant_as_dump_means_it(self, run: Run, here: Path) -> None:
        both = write_stuck(here / "model.ckpt", "block[1]", "block1", "Block1")
        for layer, left in (
            ("block[1]", ["Block1", "block1"]),
            ("block[12]", ["Block1", "block[1]"]),
            ("block*", ["Block1"]),
            ("block", ["Block1", "block1", "block[1]"]),
        ):
            configure(entry(layer, "BN101"))
            (item,) = run("check", both, "--format", "json").json["checkpoints"]
            assert sorted(finding["layer"] for finding in item["findings"]) == left
            dumped = run("dump", both, "--layer", layer, "--format", "json")
            meant = [one["layer"] for one in item["suppressed"]]
            assert meant == (
                [] if dumped.exit_code else [one["name"] for one in dumped.json["layers"]]
            )

    def test_an_expired_one_no_longer_holds_and_is_told(self, run: Run) -> None:
        configure(entry("*", "BN101", reason="until the next training", expires="2020-02-29"))
        outcome = run("check", STUCK)
        assert outcome.exit_code == 1
        assert "note: bninspect.toml: suppress, entry 1: expired on 2020-02-29" in outcome.said
        assert "until the next training" in outcome.said
        document = run("check", STUCK, "--format", "json").json
        assert len(document["notes"]) == 1
        assert document["summary"]["suppressed"] == 0

    def test_it_holds_on_its_last_day(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        from datetime import date

        for day, exit_code in ((28, 0), (29, 0), (30, 1)):

            class Today(date):
                @classmethod
                def today(cls) -> date:
                    return date(2030, 6, day)  # noqa: B023

            monkeypatch.setattr("bninspect.verdicts.triage.date", Today)
            configure(entry("*", "BN101", expires="2030-06-29"))
            assert run("check", STUCK).exit_code == exit_code

    def test_one_that_matches_nothing_is_a_note_and_no_failure(self, run: Run) -> None:
        configure(entry("conv9*", "BN101"), entry("dense*", "BN3"), entry("conv*", "BN1"))
        outcome = run("check", CLEAN, STUCK, "--select", "BN1", "--fail-on", "never")
        assert outcome.exit_code == 0
        assert outcome.said.count("matches no finding of this run") == 1
        assert (
            "suppress, entry 1: matches no finding of this run (BN101 in 'conv9*')" in outcome.said
        )
        assert run("check", CLEAN).exit_code == 0

    def test_one_behind_another_matches_as_well(self, run: Run) -> None:
        configure(entry("*", "BN101"), entry("conv*", "BN1"))
        assert "matches no finding" not in run("check", STUCK).said

    def test_nothing_is_said_of_what_could_not_be_judged(self, run: Run) -> None:
        configure(entry("conv9*", "BN101"))
        assert "matches no finding" not in run("check", STUCK, MISSING).said
        configure(entry("*", "BN107"))
        assert "matches no finding" not in run("check", STUCK).said
        assert "matches no finding" in run("check", CLEAN, "--since", CLEAN).said

    def test_it_says_nothing_of_what_is_not_checked(self, run: Run) -> None:
        configure(entry("*", "BN101"))
        assert "suppressed" not in run("list", STUCK, "--format", "json").json["summary"]
        assert run("compare", STOPPED).exit_code == 1

    def test_in_python(self) -> None:
        configure(entry("conv*", "BN101", expires="2999-01-01"))
        report = bninspect.check(STUCK, config="bninspect.toml")
        assert [finding.layer for finding in report.findings] == NAMES[2:]
        assert report.suppressed == 2
        finding, suppression = report.checkpoints[0].suppressed[0]
        assert (finding.layer, suppression.reason) == (NAMES[0], "momentum 0 is meant")


HEAD = '{"kind": "bninspect baseline", "version": 2, "findings":'
OLD = '{"kind": "bninspect baseline", "version": 1, "findings":'
UPDATE = ("--baseline", "known.json", "--update-baseline")
USE = ("--baseline", "known.json")


@pytest.mark.usefixtures("here")
class TestUpdateOfTheBaseline:
    def test_writes_what_is_found_sorted_and_nothing_else(self, run: Run, here: Path) -> None:
        for folder, names in (("b", ("z", "a")), ("a", ("a", "m/n"))):
            (here / folder).mkdir()
            write_stuck(here / folder / "model.ckpt", *names)
        outcome = run("check", here, *UPDATE)
        assert outcome.exit_code == 0
        assert outcome.out == ""
        assert outcome.err == "4 findings of 2 checkpoints written to known.json\n"
        text = Path("known.json").read_text(encoding="utf-8")
        document = json.loads(text)
        assert document == {
            "kind": "bninspect baseline",
            "version": 2,
            "findings": [
                {
                    "rule": "BN101",
                    "layer": layer,
                    "checkpoint": f"{folder}/model.ckpt",
                    "fingerprint": Entry("BN101", layer, f"{folder}/model.ckpt").fingerprint,
                }
                for layer, folder in (("a", "a"), ("a", "b"), ("m/n", "a"), ("z", "b"))
            ],
        }
        assert str(here) not in text
        assert len(text.splitlines()) == 2 + 4 + 1

    def test_is_the_same_whatever_the_order_and_the_typed_path(
        self, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(STUCK.parent, here / "models" / "stuck")
        shutil.copytree(CLEAN.parent, here / "models" / "clean")
        (here / "link").symlink_to(here / "models")
        known = here / "known.json"
        update = ("--baseline", known, "--update-baseline")
        assert run("check", f"models/stuck/{STUCK.name}", "models/clean", *update).exit_code == 0
        before = known.read_bytes()
        assert b"models/stuck/model.ckpt-#" in before
        for paths in (("models/clean", here / "models" / "stuck"), ("link/*",), ("./models",)):
            known.unlink()
            assert run("check", *paths, *update).exit_code == 0
            assert known.read_bytes() == before
        monkeypatch.chdir(here / "models" / "stuck")
        assert run("check", ".", "../clean", *update).exit_code == 0
        assert known.read_bytes() == before

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("model.ckpt-200", "model.ckpt-#"),
            ("ckpt-3", "ckpt-#"),
            ("epoch12.h5", "epoch#.h5"),
            ("weights.05-0.32.hdf5", "weights.#-#.#.hdf5"),
            ("checkpoint-500/model.h5", "checkpoint-#/model.h5"),
            ("resnet50.h5", "resnet50.h5"),
            ("mobilenet_v2.h5", "mobilenet_v2.h5"),
            ("run1/model.ckpt-200", "run1/model.ckpt-#"),
            ("../other/net.keras", "../other/net.keras"),
            ("s3://bucket/run1/model.ckpt-200", "s3://bucket/run1/model.ckpt-#"),
        ],
    )
    def test_the_place_has_no_step(self, here: Path, name: str, place: str) -> None:
        assert place_of(CheckpointReport(name), str(here / "known.json")) == place

    def test_of_nothing_is_an_empty_list(self, run: Run) -> None:
        assert run("check", CLEAN, *UPDATE).exit_code == 0
        assert json.loads(Path("known.json").read_text(encoding="utf-8"))["findings"] == []
        assert run("check", STUCK, *USE).exit_code == 1

    def test_quiet_says_nothing(self, run: Run) -> None:
        outcome = run("check", STUCK, "-q", *UPDATE)
        assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")

    def test_what_is_suppressed_or_ignored_is_not_written(self, run: Run) -> None:
        configure(entry("conv*", "BN101"))
        run("check", STUCK, *UPDATE)
        assert [one["layer"] for one in _entries()] == NAMES[2:]
        run("check", STUCK, "--ignore", "BN1", *UPDATE)
        assert _entries() == []

    @pytest.mark.parametrize(
        ("paths", "code", "why"),
        [
            ((STUCK, MISSING), 2, "1 checkpoint could not be read"),
            ((EMPTY,), 3, "no BN layer was found"),
            ((CLEAN, "--since", OTHER), 3, "no BN layer could be compared"),
        ],
    )
    def test_a_part_of_it_is_not_written(
        self, run: Run, paths: tuple[object, ...], code: int, why: str
    ) -> None:
        outcome = run("check", *paths, *UPDATE)
        assert outcome.exit_code == code
        assert f"known.json is left as it was: {why}" in outcome.err
        assert not Path("known.json").exists()
        run("check", STUCK, *UPDATE)
        before = Path("known.json").read_bytes()
        assert run("check", *paths, *UPDATE).exit_code == code
        assert Path("known.json").read_bytes() == before

    def test_an_empty_run_is_written_if_it_is_allowed(self, run: Run) -> None:
        assert run("check", EMPTY, "--allow-empty", *UPDATE).exit_code == 0
        assert _entries() == []

    def test_an_interrupted_run_is_not_written(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("bninspect.runs.one_checkpoint.apply_rules", interrupt)
        outcome = run("check", STUCK, *UPDATE)
        assert outcome.exit_code == 130
        assert outcome.err == "bninspect: interrupted; known.json is left as it was.\n"
        assert not Path("known.json").exists()

    def test_without_a_baseline_is_wrong_usage(self, run: Run) -> None:
        outcome = run("check", STUCK, "--update-baseline")
        assert outcome.exit_code == 2
        assert "--baseline FILE --update-baseline" in outcome.err

    def test_writes_no_report(self, run: Run) -> None:
        outcome = run("check", STUCK, *UPDATE, "-o", "report.json")
        assert outcome.exit_code == 2
        assert "report.json" in outcome.err
        assert not Path("known.json").exists()

    def test_never_replaces_another_file(self, run: Run, here: Path) -> None:
        prefix = write_stuck(here / "model.ckpt", "bn")
        (here / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
        before = {path.name: path.read_bytes() for path in here.iterdir()}
        for name in before:
            outcome = run("check", prefix, "--baseline", name, "--update-baseline")
            assert outcome.exit_code == 2
            assert name in outcome.err
        assert {path.name: path.read_bytes() for path in here.iterdir()} == before

    def test_a_damaged_one_may_be_written_anew(self, run: Run) -> None:
        run("check", STUCK, *UPDATE)
        whole = Path("known.json").read_text(encoding="utf-8")
        Path("known.json").write_text(whole.replace(' "findings"', "<<<<<<<"), encoding="utf-8")
        assert run("check", STUCK, *USE).exit_code == 2
        assert run("check", STUCK, *UPDATE).exit_code == 0
        assert Path("known.json").read_text(encoding="utf-8") == whole

    def test_a_folder_that_is_not_there(self, run: Run) -> None:
        outcome = run("check", STUCK, "--baseline", "no/known.json", "--update-baseline")
        assert outcome.exit_code == 2
        assert outcome.err.startswith("bninspect: Cannot write no/known.json")


@pytest.mark.usefixtures("here")
class TestUseOfTheBaseline:
    def test_only_what_is_new_is_reported(self, run: Run, here: Path) -> None:
        run("check", write_stuck(here / "model.ckpt-1", "a", "b"), *UPDATE)
        grown = write_stuck(here / "model.ckpt-2", "a", "b", "c")
        outcome = run("check", grown, *USE)
        assert outcome.exit_code == 1
        assert "1 of 3 BN layers" in outcome.said
        assert "baseline: 2 known findings, 0 gone" in outcome.out.splitlines()
        outcome = run("check", grown, *USE, "--format", "json")
        assert [one["layer"] for one in outcome.json["checkpoints"][0]["findings"]] == ["c"]
        assert outcome.json["summary"]["baseline"] == {"known": 2, "gone": 0}
        assert outcome.json["summary"]["errors"] == 1
        (line,) = run("check", grown, *USE, "--format", "concise").out.splitlines()
        assert " c: " in line

    def test_what_is_known_does_not_fail(self, run: Run) -> None:
        run("check", STUCK, *UPDATE)
        outcome = run("check", STUCK, *USE, "--fail-on", "note")
        assert outcome.exit_code == 0
        assert "no new finding (3 known)" in outcome.out.splitlines()[0]
        assert run("check", STUCK, MISSING, *USE).exit_code == 2
        assert run("check", EMPTY, *USE).exit_code == 3

    def test_what_has_gone_is_counted(self, run: Run, here: Path) -> None:
        run("check", write_stuck(here / "model.ckpt-1", "a", "b"), *UPDATE)
        healed = write_stuck(here / "model.ckpt-2", "a", "b", stuck=False)
        outcome = run("check", healed, *USE)
        assert outcome.exit_code == 0
        assert "baseline: 0 known findings, 2 gone" in outcome.out
        summary = run("check", healed, *USE, "--format", "json").json["summary"]
        assert summary["baseline"] == {"known": 0, "gone": 2}

    def test_nothing_has_gone_that_was_not_looked_for(self, run: Run, here: Path) -> None:
        stuck = shutil.copytree(STUCK.parent, here / "stuck") / STUCK.name
        run("check", stuck, *UPDATE)

        def gone(*arguments: object) -> object:
            document = run("check", *arguments, *USE, "--format", "json").json
            return document["summary"]["baseline"]["gone"]

        assert gone(stuck) == gone(stuck, MISSING) == 0
        assert gone(CLEAN) == 0  # nothing is said of a checkpoint that is not checked
        for end in (".index", ".data-00000-of-00001"):
            shutil.copy(f"{CLEAN}{end}", f"{stuck}{end}")
        assert gone(stuck) == 3
        assert gone(stuck, "--ignore", "BN101") == 0
        assert gone(stuck, "--select", "BN3") == 0
        assert gone(stuck, MISSING) is None
        assert "cannot be told" in run("check", stuck, MISSING, *USE).said
        configure(entry("conv*", "BN101"))
        run("check", STUCK, *UPDATE)
        assert gone(STUCK) == 0

    def test_a_comparison_that_is_not_made_has_not_gone(self, run: Run) -> None:
        whole = (STOPPED, "--all-checkpoints", "--select", "BN107")
        assert run("check", *whole).exit_code == 1
        assert run("check", *whole, *UPDATE).exit_code == 0
        assert run("check", *whole, *USE).exit_code == 0
        assert "0 known findings, 0 gone" in run("check", STOPPED, *USE).said

    def test_a_new_model_with_the_same_layers_is_news(self, run: Run, here: Path) -> None:
        for folder in ("x", "y"):
            (here / folder).mkdir()
            write_stuck(here / folder / "model.ckpt-1", "bn")
        run("check", here / "x", *UPDATE)
        outcome = run("check", here, *USE)
        assert outcome.exit_code == 1
        assert "1 known finding, 0 gone" in outcome.out
        write_stuck(here / "x" / "resnet50.ckpt", "bn")
        assert run("check", here / "x" / "resnet50.ckpt", *USE).exit_code == 1
        write_stuck(here / "x" / "model.ckpt-2", "bn")
        assert run("check", here / "x" / "model.ckpt-2", *USE).exit_code == 0

    def test_one_of_version_1_is_read_with_a_note(self, run: Run, here: Path) -> None:
        """Its entries stand for every layer of that name, as they did when it was written."""
        for folder in ("x", "y"):
            (here / folder).mkdir()
            write_stuck(here / folder / "model.ckpt", "bn")
        fingerprint = Entry("BN101", "bn", "").fingerprint
        found = f'[{{"rule": "BN101", "layer": "bn", "fingerprint": "{fingerprint}"}}]'
        Path("known.json").write_text(f"{OLD} {found}}}", encoding="utf-8")
        outcome = run("check", "x", "y", *USE)
        assert outcome.exit_code == 0
        assert "2 known findings, 0 gone" in outcome.out
        assert "known.json is of version 1" in outcome.said
        assert "--update-baseline" in outcome.said
        assert run("check", "x", "y", *UPDATE).exit_code == 0
        assert len(_entries()) == 2
        assert "version 1" not in run("check", "x", "y", *USE).said

    def test_the_configuration_may_name_it(
        self, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure('baseline = "ci/known.json"\n')
        (here / "ci").mkdir()
        (here / "deep").mkdir()
        monkeypatch.chdir(here / "deep")
        assert run("check", STUCK).exit_code == 2
        assert run("check", STUCK, "--update-baseline").exit_code == 0
        assert (here / "ci" / "known.json").exists()
        assert run("check", STUCK).exit_code == 0
        assert run("check", STUCK, "--isolated").exit_code == 1
        report = bninspect.check(STUCK, config=here / "bninspect.toml")
        assert report.findings == ()
        assert report.baseline == (3, 0)
        assert len(report.checkpoints[0].known) == 3

    def test_names_that_are_not_utf8(self, run: Run, here: Path) -> None:
        members = {
            b"a\xff/gamma": np.float32([2]),
            b"a\xff/moving_mean": np.float32([0]),
            b"a\xff/moving_variance": np.float32([1]),
        }
        write_bundle(str(here / "model.ckpt"), members)
        assert run("check", "model.ckpt", *UPDATE).exit_code == 0
        assert run("check", "model.ckpt", *USE).exit_code == 0

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (None, "file not found"),
            ("", "not a baseline"),
            ("{", "not a baseline"),
            ("[]", "not a baseline"),
            ("{}", "not a baseline"),
            ('{"version": "2.1.0", "runs": []}', "not a baseline"),
            ("[" * 100_000, "not a baseline"),
            (HEAD + " [", "damaged"),
            ('{"kind": "bninspect baseline", "version": 3, "findings": []}', "version 3"),
            ('{"kind": "bninspect baseline", "version": 1}', "no list"),
            (OLD + " [1]}", "finding 1"),
            (OLD + ' [{"rule": "a"}]}', "finding 1"),
            (OLD + ' [{"rule": "BN101", "layer": "a", "fingerprint": "00"}]}', "finding 1"),
            (HEAD + ' [{"rule": "BN101", "layer": "a", "fingerprint": "00"}]}', "finding 1"),
            (
                HEAD + ' [{"rule": "BN101", "layer": "a", "checkpoint": "b", "fingerprint": ""}]}',
                "finding 1",
            ),
        ],
    )
    def test_a_file_that_is_none(self, run: Run, content: str | None, why: str) -> None:
        if content is not None:
            Path("known.json").write_text(content, encoding="utf-8")
        outcome = run("check", STUCK, *USE)
        assert outcome.exit_code == 2
        assert outcome.out == ""
        assert outcome.err.startswith("bninspect: --baseline known.json: ")
        assert why in outcome.err
        assert "--baseline known.json --update-baseline" in outcome.err
        assert len(outcome.err.splitlines()) == 1

    def test_a_report_never_replaces_it(self, run: Run, here: Path) -> None:
        configure('baseline = "known.json"\n')
        run("check", STUCK, "--update-baseline")
        before = {path.name: path.read_bytes() for path in here.iterdir()}
        for name in ("known.json", "bninspect.toml"):
            outcome = run("check", STUCK, "-o", here / name)
            assert outcome.exit_code == 2
            assert "this run reads it" in outcome.err
        assert {path.name: path.read_bytes() for path in here.iterdir()} == before
        assert run("check", STUCK, "-o", "report.txt").exit_code == 0

    @pytest.mark.parametrize("command", [("list",), ("dump", "--layer", "*"), ("compare",)])
    def test_nor_do_other_results(self, run: Run, here: Path, command: tuple[str, ...]) -> None:
        configure('select = ["BN1"]\n')
        before = (here / "bninspect.toml").read_bytes()
        outcome = run(*command, STUCK, "-o", "bninspect.toml")
        assert outcome.exit_code == 2
        assert "this run reads it" in outcome.err
        assert (here / "bninspect.toml").read_bytes() == before

    def test_an_empty_name(self, run: Run, here: Path) -> None:
        for options in ((), ("--update-baseline",)):
            outcome = run("check", STUCK, "--baseline", "", *options)
            assert outcome.exit_code == 2
            assert len(outcome.err.splitlines()) == 1
        assert not list(here.iterdir())

    def test_a_configured_name_that_no_file_has(self, run: Run) -> None:
        configure('baseline = "a\\u0000b"\n')
        for options in ((), ("--update-baseline",)):
            outcome = run("check", STUCK, *options)
            assert outcome.exit_code == 2
            assert outcome.err == (
                "bninspect: bninspect.toml: baseline: a path cannot hold a NUL character.\n"
            )

    def test_what_cannot_be_read(self, run: Run, here: Path) -> None:
        (here / "known.json").mkdir()
        assert run("check", STUCK, *USE).exit_code == 2
        assert run("check", STUCK, *UPDATE).exit_code == 2


@settings(deadline=None)
@given(data=st.data())
def test_a_damaged_baseline_is_never_taken_for_whole(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Flipped and cut bytes are a UsageProblem, or change nothing that is read."""
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    entries = read_baseline(_write(path)).entries
    assert len(entries) == 3
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:place]
    else:
        damaged = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    path.write_bytes(damaged)
    try:
        known = read_baseline(str(path)).entries
    except bninspect.UsageProblem:
        return
    assert known == entries


def _write(path: Path) -> str:
    with path.open("w", encoding="utf-8") as stream:
        write_baseline(bninspect.check(STUCK), str(path), stream)
    return str(path)


def _entries() -> list[dict[str, str]]:
    entries: list[dict[str, str]] = json.loads(Path("known.json").read_text(encoding="utf-8"))[
        "findings"
    ]
    return entries
