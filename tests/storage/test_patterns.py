"""Patterns match the same paths on disk and behind a URL, and name what they may not read."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bninspect.storage import run_scope
from bninspect.storage.patterns import matching
from tests.conftest import Run, load_fixture

KERAS = load_fixture("keras2_nested").path

# One tree for all: directories end in a slash.
TREE = (
    "a.h5",
    "runs/b.h5",
    "runs/one/c.h5",
    "runs/one/deep/d.h5",
    "runs/one/deep/e.txt",
    "runs/two/c.h5",
    "runs/.hidden/f.h5",
    "runs/two/.g.h5",
)
PATTERNS = {
    "*.h5": ["a.h5"],
    "runs/*.h5": ["runs/b.h5"],
    "runs/*/c.h5": ["runs/one/c.h5", "runs/two/c.h5"],
    "runs/*": ["runs/b.h5", "runs/one", "runs/two"],
    "runs/*/": ["runs/one", "runs/two"],
    "runs/**": ["runs/b.h5", "runs/one", "runs/two"],
    "**/*.h5": ["a.h5", "runs/b.h5", "runs/one/c.h5", "runs/one/deep/d.h5", "runs/two/c.h5"],
    "runs/**/*.h5": ["runs/b.h5", "runs/one/c.h5", "runs/one/deep/d.h5", "runs/two/c.h5"],
    "**/deep/d.h5": ["runs/one/deep/d.h5"],
    "**/one/**/d.h5": ["runs/one/deep/d.h5"],
    "runs/**/**/d.h5": ["runs/one/deep/d.h5"],
    "runs/t?o/c.h5": ["runs/two/c.h5"],
    "runs/[!t]*/c.h5": ["runs/one/c.h5"],
    "runs/*/nothing": [],
    "runs/.*/f.h5": ["runs/.hidden/f.h5"],
    "runs/**/.g.h5": ["runs/two/.g.h5"],
    "nowhere/*": [],
}


def grow(root: Path) -> Path:
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(KERAS, root / name)
    return root


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_same_on_disk_and_behind_a_url(tmp_path: Path, pattern: str) -> None:
    grow(tmp_path)
    found = matching(f"{tmp_path}/{pattern}")
    assert [os.path.relpath(path, tmp_path) for path in found.paths] == PATTERNS[pattern]
    memory = fsspec.filesystem("memory")
    for name in TREE:
        memory.pipe_file(f"/patterns/{name}", b"x")
    run_scope.begin_run()
    there = matching(f"memory://patterns/{pattern}")
    assert [path.removeprefix("memory://patterns/") for path in there.paths] == PATTERNS[pattern]
    assert not (found.faults)
    assert not (there.faults)


def test_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(grow(tmp_path))
    assert matching("**/c.h5").paths == ["runs/one/c.h5", "runs/two/c.h5"]


def test_links_to_directories_are_followed_once(tmp_path: Path) -> None:
    grow(tmp_path)
    (tmp_path / "runs" / "again").symlink_to("one")
    (tmp_path / "runs" / "one" / "round").symlink_to("..")
    paths = matching(f"{tmp_path}/**/d.h5").paths
    assert [os.path.relpath(path, tmp_path) for path in paths] == ["runs/one/deep/d.h5"]
    assert len(matching(f"{tmp_path}/runs/*/deep").paths) == 2


_name = st.text("ab", min_size=1, max_size=2)


@settings(max_examples=60)
@given(
    st.sets(st.lists(_name, min_size=1, max_size=4).map("/".join), max_size=8),
    st.lists(st.sampled_from(["**", "*", "a*", "?", "b", "[ab]b"]), min_size=1, max_size=4),
)
def test_any_depth_is_as_a_regular_expression_has_it(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], parts: list[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name in files:
        path = root / name
        if not any(one.is_file() for one in (path, *path.parents)) and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    if parts[-1] == "**":
        parts[-1] = "*"
    expression = "".join("(?:[^/]+/)*" if part == "**" else _one_name(part) + "/" for part in parts)
    everything = (os.path.relpath(path, root) for path in root.rglob("*"))
    fitting = {path for path in everything if re.fullmatch(expression, path + "/")}
    outermost = {
        path for path in fitting if not any(str(parent) in fitting for parent in Path(path).parents)
    }
    found = matching(f"{root}/{'/'.join(parts)}").paths if _is_pattern(parts) else None
    assert found is None or {os.path.relpath(path, root) for path in found} == outermost


def _is_pattern(parts: list[str]) -> bool:
    return any(part != "b" for part in parts)


def _one_name(part: str) -> str:
    return fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z").replace(".", "[^/]")


class TestUnreadable:
    """As root all directories can be read, so the system's answers are replaced."""

    @pytest.fixture
    def closed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        grow(tmp_path)
        closed = str(tmp_path / "runs" / "two")

        def refuse(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(path: Any, *arguments: Any, **options: Any) -> Any:
                if isinstance(path, str | os.PathLike):
                    place = os.fspath(path)
                    if (place == closed and function is scandir) or place.startswith(f"{closed}/"):
                        raise PermissionError(13, "Permission denied", place)
                return function(path, *arguments, **options)

            return call

        scandir = os.scandir
        for name in ("scandir", "stat", "lstat"):
            monkeypatch.setattr(os, name, refuse(getattr(os, name)))
        return tmp_path

    @pytest.mark.parametrize("pattern", ["runs/*/*.h5", "**/c.h5", "runs/*/c.h5"])
    def test_it_is_named(self, run: Run, closed: Path, pattern: str) -> None:
        outcome = run("check", f"{closed}/{pattern}", "--format", "json")
        assert outcome.exit_code == 2
        items = outcome.json["checkpoints"]
        faults = [item["error"]["message"] for item in items if item["error"]]
        assert len(items) > len(faults) == 1
        assert "runs/two: this directory cannot be read (Permission denied)" in faults[0]
