"""`exclude` and `include`: what of a directory is searched, and that it is said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import CLEAN, STUCK, Run


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`models/` with a sound model in a/, stuck ones in old/ and a/old/, and a damaged file."""
    for name, prefix in (("a", CLEAN), ("old", STUCK), ("a/old", STUCK)):
        directory = tmp_path / "models" / name
        directory.mkdir(parents=True, exist_ok=True)
        for file in prefix.parent.glob(f"{prefix.name}.*"):
            shutil.copy(file, directory)
    (tmp_path / "models" / "old" / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(run: Run, *arguments: object) -> list[str]:
    outcome = run("check", *arguments, "--format", "json", "--exit-zero")
    return [item["path"] for item in outcome.json["checkpoints"]]


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "left"),
        [
            ((), ["a", "a/old", "old/damaged.h5", "old"]),
            (("--exclude", "old"), ["a"]),
            (("--exclude", "/models/old/"), ["a", "a/old"]),
            (("--exclude", "models/**/old/"), ["a"]),
            (("--exclude", "*.h5"), ["a", "a/old", "old"]),
            (("--exclude", "*.index"), ["old/damaged.h5"]),
            (("--include", "a/"), ["a", "a/old"]),
            (("--include", "a/", "--exclude", "old/"), ["a"]),
            (("--include", "*.ckpt-60"), ["a", "a/old", "old"]),
            (("--exclude", "old/", "--exclude", "!models/a/old/"), ["a", "a/old"]),
        ],
    )
    def test_choose(self, run: Run, tree: Path, options: tuple[str, ...], left: list[str]) -> None:
        paths = [
            f"models/{name}" if "." in name else f"models/{name}/{CLEAN.name}" for name in left
        ]
        for typed in ("models", str(tree / "models"), "models/**"):
            found = [os.path.relpath(path) for path in checked(run, typed, *options)]
            assert sorted(found) == sorted(paths), typed

    @pytest.mark.usefixtures("tree")
    def test_what_is_left_out_is_said(self, run: Run) -> None:
        outcome = run("check", "models", "--exclude", "old/")
        assert outcome.exit_code == 0
        note = "note: models: models/old, models/a/old left out (exclude, include)"
        assert note in " ".join(outcome.out.split())
        assert "left out (exclude, include)" in run("list", "models", "--exclude", "old/").out

    @pytest.mark.usefixtures("tree")
    def test_an_excluded_directory_is_not_opened(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
        run("check", "models", "--exclude", "old/")
        assert "models/a" in listed
        assert not [path for path in listed if "old" in path]

    @pytest.mark.usefixtures("tree")
    def test_a_typed_file_counts(self, run: Run) -> None:
        prefix = f"models/old/{STUCK.name}"
        assert run("check", prefix, "--exclude", "old/").exit_code == 1

    @pytest.mark.usefixtures("tree")
    def test_nothing_left_is_no_pass(self, run: Run) -> None:
        outcome = run("check", "models", "--exclude", "*")
        assert outcome.exit_code == 3
        assert "left out" in outcome.out
        assert run("check", "models", "--exclude", "*", "--allow-empty").exit_code == 0


class TestConfiguration:
    def test_is_seen_from_its_file(
        self, run: Run, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tree / "bninspect.toml").write_text('exclude = ["/models/old/", "*.h5"]\n')
        expected = [f"a/{CLEAN.name}", f"a/old/{CLEAN.name}"]
        assert sorted(checked(run, "models")) == [f"models/{name}" for name in expected]
        monkeypatch.chdir(tree / "models")
        assert sorted(checked(run, ".")) == [os.path.join(".", name) for name in expected]
        shown = run("config", "--format", "json").json["values"]["exclude"]
        assert shown["value"] == ["/models/old/", "*.h5"]

    def test_an_option_adds_to_it(self, run: Run, tree: Path) -> None:
        (tree / "bninspect.toml").write_text('exclude = ["/models/old/"]\n')
        assert checked(run, "models", "--exclude", "models/a/old/") == [f"models/a/{CLEAN.name}"]
        assert len(checked(run, "models", "--isolated")) == 4

    def test_every_command_that_searches_goes_by_it(self, run: Run, tree: Path) -> None:
        (tree / "bninspect.toml").write_text('exclude = ["old/"]\n')
        page = tree / "page.html"
        assert run("report", "models", "-o", page).exit_code == 0
        (item,) = run("list", "models", "--format", "json").json["checkpoints"]
        assert item["path"] == f"models/a/{CLEAN.name}"
        prefix = f"models/old/{STUCK.name}"
        assert run("dump", prefix, "--layer", "*").exit_code == 0

    @pytest.mark.parametrize("text", ["exclude = 1", "exclude = [1]", 'include = [""]'])
    def test_a_wrong_value(self, run: Run, tree: Path, text: str) -> None:
        (tree / "bninspect.toml").write_text(text + "\n")
        outcome = run("check", "models")
        assert outcome.exit_code == 2
        assert "clude" in outcome.err


def test_a_pattern_that_is_not_valid_is_refused(run: Run) -> None:
    outcome = run("check", CLEAN, "--exclude", "!")
    assert outcome.exit_code == 2
    assert "expected patterns as in a .gitignore file" in outcome.err
    assert "'!'" in outcome.err
