"""The hook for pre-commit: which files it takes, and what it says in a repository of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from tests.conftest import FIXTURES, ROOT, Fixture, Run, load_fixture
from tests.support.package_source import copy_package
from tests.support.tools import need_tool

HOOK: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))[0]
PROGRAM, *OPTIONS = shlex.split(HOOK["entry"])
STUCK = FIXTURES / "tf1_graph_update_ops_forgotten"  # with the graph: three files
KERAS = load_fixture("keras2_nested").path
# One clean checkpoint of each container, and one without a BN layer.
SOUND = (
    "tf1_layers_sharded",
    "tf1_v1_sharded",
    "tf1_v1_correct",
    "keras2_ckpt_legacy_correct",
    "keras2_functional_correct",
    "keras3_weights_sharded",
    "keras3_zip_nested",
    "saved_model_tf1_hub",
    "tf1_lookalikes",
    "tfjs_layers_correct",
)


TRAINING_GRAPH = "graph.pbtxt"


def taken(*names: str) -> list[str]:
    return [name for name in names if re.search(HOOK["files"], name)]


class TestFiles:
    def test_every_file_leads_to_its_checkpoint(self, run: Run, fixture: Fixture) -> None:
        """All files of a fixture name each checkpoint once, and any alone names one of them."""
        folder = FIXTURES / fixture.stem
        files = taken(*(str(path) for path in folder.rglob("*") if path.is_file()))
        report = run(*OPTIONS, *files, "--format", "json").json
        assert not [item["error"] for item in report["checkpoints"] if item["error"]]
        resolved = [item["resolved"] for item in report["checkpoints"]]
        assert len(resolved) == len(set(resolved))
        (named,) = run(*OPTIONS, fixture.path, "--format", "json").json["checkpoints"]
        assert os.path.normpath(named["resolved"]) in resolved
        for file in files:
            alone = run(*OPTIONS, file, "--format", "json").json["checkpoints"]
            if not alone:  # evidence, and no checkpoint by itself
                assert os.path.basename(file) == TRAINING_GRAPH
                continue
            assert len(alone) == 1
            assert alone[0]["resolved"] in resolved

    def test_the_checkpoint_is_called_by_its_prefix(self, run: Run) -> None:
        files = taken(*sorted(str(path) for path in STUCK.iterdir()))
        assert len(files) == 3
        (item,) = run(*OPTIONS, *files, "--format", "json").json["checkpoints"]
        assert item["path"] == str(STUCK / "model.ckpt-60")

    def test_names_of_no_checkpoint_are_not_taken(self) -> None:
        others = (
            "README.md",
            "index",
            "src/meta.py",
            "a.index.html",
            "a.json",
            "checkpoint",
        )
        assert not taken(*others, "x.h5.dvc", "y.data", "LICENSE", "t.ckpt.py")


# pre-commit runs in a repository, whose place a surrounding git tells in such variables.
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
PLAIN |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
PERSON = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.org")


@dataclass(frozen=True)
class PreCommit:
    """pre-commit with a home of its own, and the hook as it lies in the working tree."""

    source: Path
    revision: str
    home: Path

    def start(self, repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of pre-commit on what is staged in `repository`."""
        environment = PLAIN | {"PRE_COMMIT_HOME": str(self.home), "PRE_COMMIT_COLOR": "never"}
        return subprocess.run(
            [sys.executable, "-m", "pre_commit", *command],
            cwd=repository,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )

    def stage(self, repository: Path, *arguments: str) -> None:
        """Make a git repository of a folder, with the hook configured, and stage all its files."""
        hook = {"id": HOOK["id"]} | ({"args": list(arguments)} if arguments else {})
        repo = {"repo": str(self.source), "rev": self.revision, "hooks": [hook]}
        config = repository / ".pre-commit-config.yaml"
        config.write_text(yaml.safe_dump({"repos": [repo]}), "utf-8")
        git(repository, "init", "--quiet")
        git(repository, "add", "--all")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *PERSON, *arguments],
        cwd=folder, env=PLAIN, capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture(scope="module")
def pre_commit(tmp_path_factory: pytest.TempPathFactory) -> PreCommit:
    """pre-commit with the environment of the hook installed, once for all tests."""
    need_tool("git")
    source = tmp_path_factory.mktemp("source")
    copy_package(source)
    git(source, "init", "--quiet")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--no-verify", "--message", "as it is")
    home = tmp_path_factory.mktemp("home")
    ready = PreCommit(source, git(source, "rev-parse", "HEAD"), home)
    user = tmp_path_factory.mktemp("user")
    ready.stage(user)
    done = ready.start(user, "install-hooks")
    if done.returncode:
        need_tool("index")
        pytest.fail(done.stdout)
    return ready


@pytest.mark.processes
@pytest.mark.xdist_group("pre-commit")
class TestInARepository:
    def test_fails_with_the_finding(self, pre_commit: PreCommit, tmp_path: Path) -> None:
        shutil.copytree(STUCK, tmp_path / "models")
        pre_commit.stage(tmp_path)
        done = pre_commit.start(tmp_path, "run")
        assert done.returncode == 1
        assert "- exit code: 1" in done.stdout
        assert done.stdout.count("FAIL  models/model.ckpt-60: ") == 1
        assert "error BN101 statistics-never-updated" in done.stdout
        assert "\n1 checkpoint, " in done.stdout

    def test_passes_what_is_sound(self, pre_commit: PreCommit, tmp_path: Path) -> None:
        """Also files that are called like checkpoints and are something else."""
        for stem in SOUND:
            shutil.copytree(FIXTURES / stem, tmp_path / "models with a space" / stem)
        with h5py.File(tmp_path / "images.h5", "w") as file:
            file["images"] = np.zeros(3)
        (tmp_path / "weights.ckpt").write_bytes(b"\x80\x02}q\x00.")
        (tmp_path / "asset.h5.meta").write_text("guid: 0\n")
        pre_commit.stage(tmp_path)
        done = pre_commit.start(tmp_path, "run", "--verbose")
        assert (done.returncode, "Passed" in done.stdout) == (0, True), done.stdout
        assert f"{len(SOUND)} checkpoints: 1 without BN layers" in done.stdout

    def test_what_is_damaged_fails(self, pre_commit: PreCommit, tmp_path: Path) -> None:
        (tmp_path / "cut.h5").write_bytes(KERAS.read_bytes()[:4000])
        shutil.copy(STUCK / "model.ckpt-60.data-00000-of-00001", tmp_path)
        pre_commit.stage(tmp_path)
        done = pre_commit.start(tmp_path, "run")
        assert done.returncode == 1
        assert "- exit code: 2" in done.stdout
        assert "ERROR  cut.h5: " in done.stdout
        assert "ERROR  model.ckpt-60" in done.stdout

    def test_arguments_add_to_the_options(self, pre_commit: PreCommit, tmp_path: Path) -> None:
        shutil.copytree(STUCK, tmp_path / "models")
        with h5py.File(tmp_path / "images.h5", "w") as file:
            file["images"] = np.zeros(3)
        pre_commit.stage(tmp_path, "--ignore=BN101", "--format", "json")
        done = pre_commit.start(tmp_path, "run", "--verbose")
        assert done.returncode == 0
        start, end = done.stdout.index("{"), done.stdout.rindex("}")
        assert json.loads(done.stdout[start : end + 1])["summary"]["checkpoints"] == 1

    def test_other_files_are_no_matter_of_it(self, pre_commit: PreCommit, tmp_path: Path) -> None:
        (tmp_path / "README.md").write_text("A model.\n")
        pre_commit.stage(tmp_path)
        done = pre_commit.start(tmp_path, "run")
        assert done.returncode == 0
        assert "(no files to check)Skipped" in done.stdout
