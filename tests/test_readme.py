"""The README does not rot: its commands run, its output is what they print, its lists are whole."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest

from bninspect.layers import FAMILIES
from bninspect.rules import RULES
from tests.conftest import FIXTURES, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def console_sessions() -> list[tuple[str, str]]:
    """(command, output) of everything in ```console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    sessions = []
    for block in blocks:
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = session.partition("\n")
            sessions.append((command, output.strip("\n")))
    return sessions


@pytest.mark.parametrize(("command", "output"), console_sessions(), ids=lambda text: text[:40])
def test_output_is_what_the_program_prints(command: str, output: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "bninspect"
    done = subprocess.run(
        [sys.executable, "-m", "bninspect", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=ROOT,
        env={"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == ""
    assert done.stdout.strip("\n") == output


def test_has_the_two_commands() -> None:
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "bninspect check" in commands[0]
    assert commands[1].endswith("python -m pytest")


def test_names_every_rule() -> None:
    ranges = re.findall(r"(BN\d)(\d\d) to \1(\d\d)", README)
    named = set(re.findall(r"BN\d{3}", README)) | {
        f"{theme}{number:02}"
        for theme, first, last in ranges
        for number in range(int(first), int(last) + 1)
    }
    assert {rule.code for rule in RULES} == named


def written_by() -> dict[str, set[str]]:
    """The rows of the table of files: format → the frameworks and versions it names."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| [^|]+ \| ([^|]+) \|$", README, re.MULTILINE)
    return {name: {text.strip().lower() for text in cell.split(",")} for name, cell in rows}


def test_the_table_of_files_says_what_the_fixtures_prove() -> None:
    proved: dict[str, set[str]] = {}
    for path in FIXTURES.glob("*.json"):
        expected = json.loads(path.read_text(encoding="utf-8"))
        # "keras 3.12.4, tensorflow 2.21.0": who wrote the file comes first.
        writer = expected["made_with"].partition(",")[0].lower()
        proved.setdefault(expected["format"], set()).add(writer)
    assert written_by() == proved


def test_names_every_family() -> None:
    text = " ".join(README.lower().replace("-", " ").split())
    for family in FAMILIES:
        if family.name != "custom-scope":
            assert family.name.replace("-", " ") in text, family.name
