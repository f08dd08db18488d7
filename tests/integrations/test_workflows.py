"""The repository's own workflows and forms: valid for GitHub, clean by zizmor and actionlint."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.support.tools import need_tool

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.dependabot": [ROOT / ".github/dependabot.yml"],
    "vendor.github-issue-config": [ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.github-issue-forms": [
        path
        for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
        if path.name != "config.yml"
    ],
}


@pytest.mark.processes
@pytest.mark.parametrize("schema", SCHEMAS)
def test_fits_the_published_schema(schema: str) -> None:
    files = SCHEMAS[schema]
    assert files
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.processes
def test_zizmor_finds_nothing() -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    done = subprocess.run(
        [
            zizmor,
            "--offline",
            "--no-config",
            "--format",
            "json",
            ROOT / ".github",
            ROOT / "action.yml",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == [], done.stderr


_ACTIONLINT = """
const { readFileSync } = require("node:fs");
const [module, ...files] = process.argv.slice(1);
require(module).createLinter().then((lint) => {
  console.log(JSON.stringify(files.flatMap((file) => lint(readFileSync(file, "utf8"), file))));
  process.exit(0);
});
"""


def actionlint(*files: Path) -> list[dict[str, object]]:
    """Return what actionlint finds."""
    call = ["node", "-e", _ACTIONLINT, need_tool("actionlint"), *map(str, files)]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


@pytest.mark.processes
def test_actionlint_finds_nothing() -> None:
    assert WORKFLOWS
    assert actionlint(*WORKFLOWS) == []


@pytest.mark.processes
def test_actionlint_sees_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text("utf-8").replace("runs-on:", "run-on:"), "utf-8")
    assert actionlint(wrong)


def test_every_action_is_pinned_to_a_commit() -> None:
    """A tag can be moved to other code; the comment says which version the commit is."""
    uses = [
        line
        for path in WORKFLOWS
        for line in path.read_text("utf-8").splitlines()
        if re.match(r"\s*(- )?uses:", line)
    ]
    assert uses
    for line in uses:
        assert re.fullmatch(r"\s*(- )?uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_the_forms_ask_for_the_list() -> None:
    forms = SCHEMAS["vendor.github-issue-forms"]
    assert forms
    for form in forms:
        labels = [
            part["attributes"].get("label", "") for part in yaml.safe_load(form.read_text())["body"]
        ]
        assert any("bninspect list --verbose" in label for label in labels), form


def test_the_lock_file_has_what_the_tests_need() -> None:
    """Every package that pyproject.toml asks for has a version, and no server is named."""
    lock = (ROOT / "requirements-dev.txt").read_text("utf-8")
    locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", lock))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    dependencies = project.partition("\ndependencies = [")[2].partition("]")[0]
    tests = project.partition("\ntest = [")[2].partition("\n]")[0]
    wanted = set(re.findall(r'(?m)^    "([A-Za-z0-9_-]+)', dependencies + tests)) - {"bninspect"}
    assert len(wanted) > 20
    assert {name.lower().replace("_", "-") for name in wanted} <= locked
    assert "://" not in lock
