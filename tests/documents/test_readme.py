"""The README does not rot: it has the two commands of a checkout, and its lists are whole.

What its blocks show is held by `test_documents`, with that of the other documents.
"""

from __future__ import annotations

import re

from bninspect.cli.main import COMMANDS
from bninspect.rules import RULES
from tests.support.documents import README
from tests.support.pictures import SESSIONS

TEXT = README.read_text(encoding="utf-8")


def test_has_the_two_commands() -> None:
    commands = [line for line in TEXT.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "bninspect check" in commands[0]
    assert commands[1].endswith("python -m pytest -n auto")


def test_its_first_command_is_the_one_that_is_shown() -> None:
    """Below it stands the picture of what it prints."""
    first = re.search(r"&& (bninspect check .*)$", TEXT, re.MULTILINE)
    assert first
    assert first[1] == SESSIONS["check.svg"].command
    assert "(docs/pictures/check.svg)" in TEXT[first.end() :].partition("```sh")[0]


def test_names_every_rule() -> None:
    ranges = re.findall(r"(BN\d)(\d\d) to \1(\d\d)", TEXT)
    named = set(re.findall(r"BN\d{3}", TEXT)) | {
        f"{theme}{number:02}"
        for theme, first, last in ranges
        for number in range(int(first), int(last) + 1)
    }
    assert {rule.code for rule in RULES} == named


def test_names_every_command() -> None:
    assert set(re.findall(r"`bninspect ([a-z]+)", TEXT)) == set(COMMANDS)


def test_leads_to_every_document() -> None:
    documents = list((README.parent / "docs").glob("*.md"))
    assert documents
    for path in documents:
        assert f"(docs/{path.name})" in TEXT


def test_is_short() -> None:
    assert len(TEXT.splitlines()) <= 130
