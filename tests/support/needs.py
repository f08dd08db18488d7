"""What a test needs besides Python: noted while it runs, and held against its markers.

The markers are `framework`, `servers`, `browser` and `processes` (pyproject.toml describes them). A
test without any of them is `quick`. Tools that pip does not install (Chromium, axe-core, azurite,
the SARIF Multitool) are looked for here; without its tool a test is skipped, or fails where
BNINSPECT_REQUIRE names the tool: `BNINSPECT_REQUIRE=chromium,axe`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARKERS = ("framework", "servers", "browser", "processes")
# Frameworks and servers start processes of their own.
_PROCESSES_TOO = {"framework", "servers", "browser"}
_FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "tf_slim", "jax"}
_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"}
_SOCKETS = {"socket.bind", "socket.connect"}

noted: set[str] = set()


def note_event(event: str, arguments: tuple[Any, ...]) -> None:
    """Note which marker an audit event of Python asks for (docs.python.org, audit events table)."""
    if event == "import":
        if arguments[0].partition(".")[0] in _FRAMEWORKS:
            noted.add("framework")
    elif event in _STARTS:
        noted.add("processes")
    elif event in _SOCKETS:
        # An address on the network is a tuple. That of the forkserver is a path.
        noted.add("servers" if isinstance(arguments[1], tuple) else "processes")


def unmarked(item: pytest.Item) -> set[str]:
    """Return the markers that a test lacks, by what was noted while it ran."""
    has = {marker.name for marker in item.iter_markers()} & set(MARKERS)
    return noted - has - ({"processes"} if has & _PROCESSES_TOO else set())


def _npm_file(variable: str, place: str) -> str | None:
    """Return the file that `variable` names, else one of npm's in this directory or above."""
    if named := os.environ.get(variable):
        return named
    folders = (ROOT, *ROOT.parents)
    return next((str(f / place) for f in folders if (f / place).is_file()), None)


def _first_on_path(*names: str) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)


@cache
def _package_index() -> str | None:
    """Return what builds the package, if pip finds it."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*pip, "--dest", folder, "hatchling"], capture_output=True, check=False
        )
    return None if b"No matching distribution found" in done.stderr else "hatchling"


class Tool(NamedTuple):
    """A tool that may be missing."""

    find: Callable[[], str | None]
    missing: str


_TOOLS = {
    "axe": Tool(
        lambda: _npm_file("BNINSPECT_AXE", "node_modules/axe-core/axe.min.js"),
        "axe-core is not installed (npm install axe-core, or BNINSPECT_AXE)",
    ),
    "azurite": Tool(
        lambda: (
            _npm_file("BNINSPECT_AZURITE", "node_modules/.bin/azurite-blob")
            or shutil.which("azurite-blob")
        ),
        "azurite is not installed (npm install azurite, or BNINSPECT_AZURITE)",
    ),
    "chromium": Tool(
        lambda: (
            os.environ.get("BNINSPECT_CHROMIUM")
            or _first_on_path(
                "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
            )
        ),
        "no Chromium is installed (a package of the system, or BNINSPECT_CHROMIUM)",
    ),
    "git": Tool(lambda: shutil.which("git"), "git is not installed"),
    "index": Tool(_package_index, "pip reaches no package index"),
    "openssl": Tool(lambda: shutil.which("openssl"), "openssl is not installed"),
    "sarif": Tool(
        lambda: (
            _npm_file("BNINSPECT_SARIF", "node_modules/.bin/sarif-multitool")
            or shutil.which("sarif-multitool")
        ),
        "the SARIF Multitool is not installed (npm install @microsoft/sarif-multitool)",
    ),
}


def required() -> set[str]:
    """Return the tools that the environment says are there."""
    named = {name for name in os.environ.get("BNINSPECT_REQUIRE", "").split(",") if name}
    assert named <= _TOOLS.keys(), f"BNINSPECT_REQUIRE names {named - _TOOLS.keys()}"
    return named


def find_tool(name: str) -> str | None:
    """Return where a tool is, or None; fail the test if the tool is required and missing."""
    found = _TOOLS[name].find()
    if found is None and name in required():
        pytest.fail(f"BNINSPECT_REQUIRE names {name}, but {_TOOLS[name].missing}")
    return found


def need_tool(name: str) -> str:
    """Return where a tool is; skip the test if the tool is missing, or fail it, see `find_tool`."""
    found = find_tool(name)
    if found is None:
        pytest.skip(_TOOLS[name].missing)
    return found
