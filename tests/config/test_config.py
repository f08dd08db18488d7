"""Configuration: which file counts, how options are laid over it, what is wrong in it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bninspect
from bninspect.cli.main import run as run_program
from bninspect.rules import RULES
from tests.conftest import CLEAN, ROOT, STUCK, Run, load_fixture, unmeasured_environment
from tests.support.table_writer import write_bundle

COLD = load_fixture("tf1_layers_too_few_steps").path
STOPPED = load_fixture("tf1_history_stopped").path.parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def configuration(run: Run, *options: object) -> dict[str, Any]:
    """What `bninspect config` says: key → (value, sources), and "file", "rules"."""
    outcome = run("config", "--format", "json", *options)
    assert outcome.exit_code == 0, outcome.err
    document = outcome.json
    values = {key: (one["value"], one["sources"]) for key, one in document["values"].items()}
    return values | {"file": document["file"], "rules": document["rules"]}


class TestLookup:
    @pytest.mark.usefixtures("here")
    def test_without_a_file_all_is_default(self, run: Run) -> None:
        found = configuration(run)
        assert found["file"] is None
        assert found["fail-on"] == ("error", ["default"])
        assert found["select"] == ([], ["default"])
        assert found["rules"] == [rule.code for rule in RULES]
        assert run("config").out.startswith("file      none\n")

    @pytest.mark.parametrize("depth", ["", "a", "a/b/c"])
    def test_from_the_working_directory_upward(
        self, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, depth: str
    ) -> None:
        write(here / "bninspect.toml", 'ignore = ["BN1"]\n')
        (here / depth).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(here / depth)
        file = os.path.relpath(here / "bninspect.toml")
        assert configuration(run)["ignore"] == (["BN1"], [f"{file}: ignore"])
        assert run("check", STUCK).exit_code == 0

    def test_the_nearest_wins_alone(
        self, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(here / "bninspect.toml", 'ignore = ["BN1"]\nmomentum = 0.5\n')
        write(here / "near" / "pyproject.toml", '[tool.bninspect]\nfail-on = "note"\n')
        monkeypatch.chdir(here / "near")
        found = configuration(run)
        assert found["file"] == "pyproject.toml"
        assert found["fail-on"] == ("note", ["pyproject.toml: tool.bninspect.fail-on"])
        assert found["ignore"] == ([], ["default"])
        assert found["momentum"] == (None, ["default"])

    def test_bninspect_toml_goes_first(self, run: Run, here: Path) -> None:
        write(here / "pyproject.toml", '[tool.bninspect]\nfail-on = "note"\n')
        write(here / "bninspect.toml", "")
        found = configuration(run)
        assert found["file"] == "bninspect.toml"
        assert found["fail-on"] == ("error", ["default"])

    @pytest.mark.parametrize(
        "text",
        [
            '[project]\nname = "x"\n',
            '[project]\nname = "x"\ndependencies = ["bninspect"]\n',
            "[tool.ruff]\nline-length = 100 # bninspect\n",
            "tool = 3 # bninspect\n",
            "broken = = =\n",
        ],
    )
    def test_a_project_without_the_table_is_passed_by(
        self, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        write(here / "bninspect.toml", 'fail-on = "never"\n')
        write(here / "near" / "pyproject.toml", text)
        monkeypatch.chdir(here / "near")
        assert configuration(run)["file"] == os.path.join("..", "bninspect.toml")

    def test_a_broken_project_that_mentions_it_is_said(self, run: Run, here: Path) -> None:
        write(here / "pyproject.toml", "[tool.bninspect]\nfail-on = = 3\n")
        outcome = run("check", CLEAN)
        assert outcome.exit_code == 2
        assert outcome.err.startswith("bninspect: pyproject.toml is not valid TOML: ")
        assert "line 2" in outcome.err

    def test_what_is_no_file_is_passed_by(self, run: Run, here: Path) -> None:
        (here / "bninspect.toml").mkdir()
        os.mkfifo(here / "pyproject.toml")
        assert configuration(run)["file"] is None

    def test_a_link_that_leads_to_itself_is_said(self, run: Run, here: Path) -> None:
        (here / "bninspect.toml").symlink_to("bninspect.toml")
        outcome = run("check", CLEAN)
        assert outcome.exit_code == 2
        assert "--isolated" in outcome.err
        assert run("check", CLEAN, "--isolated").exit_code == 0

    @pytest.mark.processes
    def test_a_working_directory_that_is_gone(self, tmp_path: Path) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        done = subprocess.run(
            ["bash", "-c", f"cd {gone} && rmdir {gone} && {sys.executable} -m bninspect config"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("file      none")

    def test_config_names_the_file(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", 'fail-on = "note"\n')
        other = write(here / "ci" / "strict.toml", 'fail-on = "warning"\n')
        project = write(here / "ci" / "pyproject.toml", '[tool.bninspect]\nfail-on = "never"\n')
        assert configuration(run, "--config", other)["fail-on"][0] == "warning"
        assert configuration(run, "--config", project)["fail-on"][0] == "never"

    def test_isolated_uses_none(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", 'ignore = ["BN1"]\n')
        assert configuration(run, "--isolated")["file"] is None
        assert run("check", STUCK, "--isolated").exit_code == 1

    @pytest.mark.parametrize("name", ["missing.toml", ".", "without/pyproject.toml", "nul\0.toml"])
    def test_a_file_that_is_no_configuration(self, run: Run, here: Path, name: str) -> None:
        write(here / "without" / "pyproject.toml", '[project]\nname = "bninspect-user"\n')
        outcome = run("check", CLEAN, "--config", name)
        assert outcome.exit_code == 2
        assert outcome.err.startswith("bninspect: --config ")
        assert len(outcome.err.splitlines()) == 1

    def test_both_at_once_is_wrong_usage(self, run: Run, here: Path) -> None:
        file = write(here / "bninspect.toml", "")
        outcome = run("check", CLEAN, "--config", file, "--isolated")
        assert outcome.exit_code == 2
        assert "cannot be combined" in outcome.err

    @pytest.mark.processes
    def test_no_parser_is_imported_without_a_file(self, here: Path) -> None:
        program = (
            "import sys, bninspect.__main__\n"
            "try:\n    bninspect.__main__.main()\n"
            "except SystemExit:\n    print(*sys.modules)\n"
        )
        for text, imported in (("[project]\n", False), ("[tool.bninspect]\n", True)):
            write(here / "pyproject.toml", text)
            done = subprocess.run(
                [sys.executable, "-c", program, "check", str(CLEAN), "-q"],
                capture_output=True,
                text=True,
                check=True,
                cwd=here,
                env={**unmeasured_environment(), "PYTHONPATH": str(ROOT)},
            )
            modules = set(done.stdout.split())
            assert bool(modules & {"tomllib", "tomli"}) == imported
            assert ("bninspect.config.toml_file" in modules) == imported

    def test_a_mark_of_the_byte_order_is_no_fault(self, run: Run, here: Path) -> None:
        (here / "bninspect.toml").write_bytes(b"\xef\xbb\xbf" + b'select = ["BN3"]\n')
        assert run("check", STUCK).exit_code == 0


class TestValues:
    def test_select_ignore_and_fail_on(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", 'select = ["BN3"]\n')
        assert run("check", STUCK).exit_code == 0
        write(here / "bninspect.toml", 'ignore = ["bn101"]\n')
        assert run("check", STUCK).exit_code == 0
        write(here / "bninspect.toml", 'fail-on = "never"\n')
        assert run("check", STUCK).exit_code == 0

    def test_momentum(self, run: Run, here: Path) -> None:
        assert run("check", COLD, "--fail-on", "warning").exit_code == 0
        write(here / "bninspect.toml", "momentum = 0.99\n")
        assert run("check", COLD, "--fail-on", "warning").exit_code == 1
        assert run("check", COLD, "--fail-on", "warning", "--momentum", "0").exit_code == 0
        write(here / "bninspect.toml", "momentum = 0\n")
        assert configuration(run)["momentum"] == (0.0, ["bninspect.toml: momentum"])

    def test_patterns_are_for_every_command(self, run: Run, here: Path) -> None:
        for step in (1, 2):
            members = {
                "net/mu": np.full(3, step, np.float32),
                "net/sigma2": np.full(3, 2, np.float32),
                "net/own_scale": np.full(3, step, np.float32),
            }
            write_bundle(str(here / f"own.ckpt-{step}"), members)
        one, two = here / "own.ckpt-1", here / "own.ckpt-2"
        assert run("check", one).exit_code == 3
        patterns = '[patterns]\nmoving_mean = "/mu$"\nmoving_variance = ["/nope$", "/sigma2$"]\n'
        write(here / "bninspect.toml", patterns)
        assert run("check", one).exit_code == 0
        assert run("list", one, "-q").out == "net\n"
        assert run("dump", one, "--layer", "net").exit_code == 0
        assert run("compare", one, two).exit_code == 0
        layer = run("check", one, "--pattern", "gamma=/own_scale$", "--format", "json").json[
            "checkpoints"
        ][0]["layers"][0]
        assert layer["variables"] == {
            "gamma": "net/own_scale",
            "beta": None,
            "moving_mean": "net/mu",
            "moving_variance": "net/sigma2",
        }
        for command in ("check", "list"):
            assert (
                run(command, one, "--isolated", "--format", "json").json["summary"]["layers"] == 0
            )

    def test_severities_come_before_fail_on_and_show_everywhere(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", '[severity]\nBN1 = "warning"\n')
        outcome = run("check", STUCK)
        assert outcome.exit_code == 0
        assert outcome.out.startswith("WARN ")
        assert "warning BN101" in outcome.out
        assert outcome.said.endswith("0 errors, 3 warnings, 0 notes")
        assert run("check", STUCK, "--fail-on", "warning").exit_code == 1
        assert "BN101 warning conv1" in run("check", STUCK, "--format", "concise").out
        document = run("check", STUCK, "--format", "json").json
        assert {one["severity"] for one in document["checkpoints"][0]["findings"]} == {"warning"}
        assert document["summary"]["warnings"] == 3

    def test_the_longest_code_says_the_severity(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", '[severity]\nBN101 = "note"\nBN1 = "warning"\n')
        assert run("check", STUCK).said.endswith("0 errors, 0 warnings, 3 notes")

    def test_a_rule_that_is_off_does_not_run(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", '[severity]\nBN1 = "off"\nBN105 = "note"\n')
        outcome = run("check", STUCK, "--format", "json")
        assert outcome.exit_code == 0
        assert outcome.json["checkpoints"][0]["findings"] == []
        codes = run("config", "--format", "json").json["rules"]
        assert "BN105" in codes
        assert not {"BN101", "BN102"} & {*codes}

    def test_an_option_selects_a_rule_that_is_off(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", '[severity]\nBN1 = "off"\nBN101 = "off"\nBN3 = "note"\n')
        assert run("check", STUCK, "--select", "BN101").exit_code == 1
        shown = run("config", "--select", "BN1", "--format", "json").json
        assert "BN101" in shown["rules"]
        assert shown["values"]["severity"]["value"] == {"BN3": "note"}

    def test_all_rules_off_is_no_pass(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", '[severity]\nBN = "off"\n')
        outcome = run("check", CLEAN)
        assert outcome.exit_code == 2
        assert "ignored or off" in outcome.err

    def test_in_compare_severities_and_choices_are_not_for_use(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", 'ignore = ["BN1"]\n[severity]\nBN1 = "note"\n')
        assert run("compare", STOPPED).exit_code == 1

    def test_a_choice_that_leaves_no_rule(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", 'select = ["BN3"]\nignore = ["BN3"]\n')
        for command in (("check", STUCK), ("watch", STUCK.parent, "--timeout", "1")):
            outcome = run(*command)
            assert outcome.exit_code == 2
            assert "No rule is left" in outcome.err


class TestMerging:
    FILE = 'select = ["BN1", "BN3"]\nignore = ["BN101"]\nfail-on = "warning"\n'

    def test_select_sets_the_choice_of_the_file_aside(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", self.FILE)
        found = configuration(run, "--select", "BN101")
        assert found["rules"] == ["BN101"]
        assert found["select"] == (["BN101"], ["--select"])
        assert found["ignore"] == ([], ["default"])
        assert run("check", STUCK, "--select", "BN101").exit_code == 1

    def test_ignore_adds_to_the_file(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", self.FILE)
        found = configuration(run, "--ignore", "BN102,BN3")
        sources = ["bninspect.toml: ignore", "--ignore"]
        assert found["ignore"] == (["BN101", "BN102", "BN3"], sources)
        of_file = [rule.code for rule in RULES if rule.code.startswith("BN1")]
        assert found["rules"] == [code for code in of_file if code not in ("BN101", "BN102")]

    def test_other_options_win(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", self.FILE + 'momentum = 0.9\nbaseline = "known.json"\n')
        options = ("--fail-on", "never", "--momentum", "0.5", "--baseline", "mine.json")
        found = configuration(run, *options)
        assert found["fail-on"] == ("never", ["--fail-on"])
        assert found["momentum"] == (0.5, ["--momentum"])
        assert found["baseline"] == ("mine.json", ["--baseline"])

    def test_patterns_of_the_call_go_before_those_of_the_file(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", '[patterns]\ngamma = "a$"\nbeta = "b$"\n')
        value, sources = configuration(run, "--pattern", "gamma=c$")["patterns"]
        assert value == {"gamma": ["c$", "a$"], "beta": ["b$"]}
        assert sources == ["--pattern", "bninspect.toml: patterns"]

    def test_the_text_says_the_same(self, run: Run, here: Path) -> None:
        write(
            here / "bninspect.toml",
            self.FILE
            + '[severity]\nBN303 = "error"\n[[suppress]]\nlayer = "conv*"\nrules = ["BN1"]\n'
            'reason = "frozen on purpose"\nexpires = 2999-12-31\n',
        )
        said = run("config", "--ignore", "BN302").said
        assert "fail-on warning (bninspect.toml: fail-on)" in said
        assert "ignore BN101, BN302 (bninspect.toml: ignore, --ignore)" in said
        assert "severity BN303 = error (bninspect.toml: severity)" in said
        assert "BN1 in 'conv*' until 2999-12-31: frozen on purpose" in said
        assert "momentum none (default)" in said
        codes = [rule.code for rule in RULES if rule.code.startswith(("BN1", "BN3"))]
        assert (
            f"rules {', '.join(code for code in codes if code not in ('BN101', 'BN302'))}" in said
        )

    @pytest.mark.usefixtures("here")
    @pytest.mark.parametrize("options", [("--select", "BN9"), ("--momentum", "2")])
    def test_wrong_options(self, run: Run, options: tuple[str, ...]) -> None:
        assert run("config", *options).exit_code == 2


@pytest.mark.usefixtures("here")
def test_every_key_of_a_file_is_shown(run: Run) -> None:
    Path("bninspect.toml").write_text("xyz = 1\n", encoding="utf-8")
    told = run("check", CLEAN).err.partition("Known: ")[2].rstrip(".\n").split(", ")
    shown = run("config", "--isolated", "--format", "json").json["values"]
    assert sorted(told) == sorted(shown)


ENTRY = 'layer = "a"\nrules = ["BN1"]\nreason = "b"\n'


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "key", "right"),
        [
            ("fail_on = 1", "'fail_on'", "fail-on"),
            ("selct = []", "'selct'", "select"),
            ("xyz = 1", "'xyz'", "select, ignore, exclude"),
            ("[supress]", "'supress'", "suppress"),
            ("'' = 1", "''", "select"),
            ("[tool.bninspect]", "bninspect.toml", "top"),
            ('select = ["BN1O1"]', "select", "BN101"),
            ("select = []", "select", "no rule"),
            ('select = "BN1"', "select", "an array of rule codes, got a string"),
            ("select = [1]", "select", "an array of rule codes, got one with an integer"),
            ('select = [""]', "select", "no rule ''"),
            ('ignore = ["BN1,BN2"]', "ignore", "'BN1,BN2'"),
            ("ignore = 1979-05-27", "ignore", "got a date"),
            ('fail-on = "warn"', "fail-on", "warning"),
            ("fail-on = true", "fail-on", "got a boolean"),
            ('momentum = "0.9"', "momentum", "a number, got a string"),
            ("momentum = true", "momentum", "a number, got a boolean"),
            ("momentum = 1", "momentum", "below 1"),
            ("momentum = nan", "momentum", "below 1"),
            (f"momentum = 1{'0' * 400}", "momentum", "below 1"),
            ("severity = 1", "severity", "a table, got an integer"),
            ('severity = { BN9 = "note" }', "severity", "'BN9'"),
            ('severity = { BN1 = "warn" }', "severity.BN1", "warning"),
            ("severity = { BN1 = 1 }", "severity.BN1", "a string"),
            ('patterns = ["x"]', "patterns", "a table, got an array"),
            ('patterns = { mean = "x" }', "patterns", "moving_mean"),
            ("patterns = { gamma = 1 }", "patterns.gamma", "expressions, got an integer"),
            ('patterns = { gamma = "(" }', "patterns.gamma", "is not a regular expression"),
            ('patterns = { gamma = "" }', "patterns.gamma", "empty"),
            ('patterns = { gamma = ["x", ""] }', "patterns.gamma", "empty"),
            ("suppress = 1", "suppress", "[[suppress]]"),
            ("suppress = [1]", "suppress, entry 1", "a table"),
            ("[[suppress]]\n" + ENTRY + "[[suppress]]", "suppress, entry 2", "layer is missing"),
            (
                '[[suppress]]\nlayer = "a"\nrules = ["BN1"]',
                "suppress, entry 1",
                "reason is missing",
            ),
            ("[[suppress]]\n" + ENTRY + "reasons = 1", "suppress, entry 1", "reason"),
            ("[[suppress]]\n" + ENTRY.replace('"b"', '" "'), "suppress, entry 1", "say why"),
            ("[[suppress]]\n" + ENTRY.replace('"a"', '""'), "entry 1: layer", "empty"),
            ("[[suppress]]\n" + ENTRY.replace("BN1", "BN7"), "entry 1: rules", "BN7"),
            ("[[suppress]]\n" + ENTRY.replace('"BN1"', ""), "entry 1: rules", "no rule"),
            ("[[suppress]]\n" + ENTRY + "expires = 1", "entry 1: expires", "a date"),
            ("[[suppress]]\n" + ENTRY + "expires = 2030-01-01T00:00:00", "expires", "a date"),
            ("[[suppress]]\n" + ENTRY + 'expires = "20300101"', "expires", "2030-12-31"),
            (
                "[[suppress]]\n" + ENTRY + 'expires = "2030-02-30"',
                "expires",
                "is not a date",
            ),
            ("baseline = []", "baseline", "a string, got an array"),
            ('baseline = ""', "baseline", "empty"),
            ("a = 2030-02-30", "bninspect.toml", "not valid TOML"),
            ("a = " + "[" * 5000, "bninspect.toml", "not valid TOML"),
            ("a = 1" + "0" * 5000, "bninspect.toml", "not valid TOML"),
            ("#" * ((1 << 20) + 1), "bninspect.toml", "too large"),
        ],
        ids=lambda value: value[:40].replace("\n", " ") if isinstance(value, str) else None,
    )
    def test_is_a_sentence_with_file_key_and_what_is_right(
        self, run: Run, here: Path, text: str, key: str, right: str
    ) -> None:
        write(here / "bninspect.toml", text)
        for command in (("check", CLEAN), ("list", CLEAN), ("config",)):
            outcome = run(*command)
            assert outcome.exit_code == 2
            assert outcome.out == ""
            assert len(outcome.err.splitlines()) == 1
            assert "bninspect.toml" in outcome.err
            assert key in outcome.err
            assert right in outcome.err.partition(key)[2] or right in outcome.err

    def test_names_the_key_under_its_table(self, run: Run, here: Path) -> None:
        write(here / "pyproject.toml", '[tool.bninspect]\nfail-on = "warn"\n')
        err = run("check", CLEAN).err
        assert err.startswith("bninspect: pyproject.toml: tool.bninspect.fail-on: ")
        write(here / "pyproject.toml", "[tool.bninspect]\nfail_on = 1\n")
        err = run("check", CLEAN).err
        assert err.startswith("bninspect: pyproject.toml: 'tool.bninspect.fail_on' is not a key")
        write(here / "pyproject.toml", "[tool]\nbninspect = 1\n")
        err = run("check", CLEAN).err
        assert err.startswith("bninspect: pyproject.toml: tool.bninspect: expected a table")

    def test_control_characters_never_reach_the_terminal(self, run: Run, here: Path) -> None:
        write(here / "bninspect.toml", '"\\u001b[31m" = 1\n')
        assert "\x1b" not in run("check", CLEAN).err
        entry = ENTRY.replace('"b"', '"\\u001b[31m"').replace('"a"', '"\\u001b[31m"')
        write(here / "bninspect.toml", f"[[suppress]]\n{entry}")
        for command in (("config",), ("check", CLEAN, "-v")):
            outcome = run(*command)
            assert outcome.exit_code == 0
            assert "\x1b" not in outcome.out
            assert "\\x1b[31m" in outcome.out


# TOML values, as TOML: JSON's numbers, strings and arrays are written alike.
SCALARS = st.one_of(
    st.booleans().map(lambda value: "true" if value else "false"),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8).map(json.dumps),
    st.sampled_from(["BN1", "bn101", "BN1O1", "error", "warn", "note", "never", "(", "x$"]).map(
        json.dumps
    ),
    st.dates().map(str),
    st.times().map(str),
    st.sampled_from(["2030-01-01T00:00:00Z", '"2030-01-01"', '"2030-13-01"']),
)
KEYS = ("select", "ignore", "severity", "fail-on", "momentum", "patterns", "suppress", "baseline")
INNER = ("layer", "rules", "reason", "expires", "gamma", "BN1", "BN101", "tool", "fail_on")
NAMES = st.sampled_from((*KEYS, *INNER))


def inline_table(pairs: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name} = {value}" for name, value in pairs.items()) + "}"


VALUES = st.recursive(
    SCALARS,
    lambda values: st.one_of(
        st.lists(values, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(NAMES, values, max_size=4).map(inline_table),
    ),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4).map(
    lambda pairs: "".join(f"{name} = {value}\n" for name, value in pairs.items())
)


def exit_code_of(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as leaving:
        run_program(arguments)
    return int(leaving.value.code or 0)


@pytest.fixture(scope="class")
def empty_folder() -> Iterator[None]:
    """A working directory for many examples of one test."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        yield
        os.chdir(before)


# A busy machine is slow; that is no fault of an example.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.usefixtures("empty_folder")
class TestProperties:
    def exit_code(self, content: bytes, *, name: str = "bninspect.toml") -> int:
        """That of `bninspect config`, which ends a bug of ours with "internal error"."""
        for other in Path().iterdir():
            other.unlink()
        Path(name).write_bytes(content)
        said = io.StringIO()
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            code = exit_code_of(["config", "--format", "json"])
        assert "internal error" not in said.getvalue()
        assert len(said.getvalue().splitlines()) == (1 if code else 0)
        return code

    @PATIENT
    @given(st.binary(max_size=200))
    def test_bytes(self, content: bytes) -> None:
        assert self.exit_code(content) in (0, 2)
        assert self.exit_code(b"[tool.bninspect]\n" + content, name="pyproject.toml") in (0, 2)

    @PATIENT
    @given(DOCUMENTS)
    def test_values_of_every_type_under_every_key(self, text: str) -> None:
        assert self.exit_code(text.encode("utf-8", "replace")) in (0, 2)

    @PATIENT
    @given(st.sampled_from(sorted({rule.code[:n] for rule in RULES for n in (1, 3, 5)})))
    def test_every_code_is_taken(self, code: str) -> None:
        text = (
            f'select = ["{code}"]\nignore = ["BN101"]\nseverity = {{ {code.lower()} = "note" }}\n'
        )
        assert self.exit_code(text.encode()) == 0


class TestInPython:
    def test_no_file_is_looked_for(self, here: Path) -> None:
        write(here / "bninspect.toml", 'ignore = ["BN1"]\n')
        assert len(bninspect.check(STUCK).findings) == 3

    def test_a_file_that_is_named_is_used(self, here: Path) -> None:
        file = write(here / "mine.toml", 'ignore = ["BN1"]\n')
        assert bninspect.check(STUCK, config=file).findings == ()
        assert len(bninspect.check(STUCK, config=file, select="BN101").findings) == 3
        with pytest.raises(bninspect.UsageProblem, match=r"no\.toml"):
            bninspect.check(STUCK, config="no.toml")
