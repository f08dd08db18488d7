"""The pictures of the documents: they say what the program says, are small, and are shown."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.browser import browser
from tests.support.documents import DOCUMENTS, framework_marks, make_workplace, run_in
from tests.support.pictures import (
    PARTS,
    PICTURES,
    SESSIONS,
    WIDTH,
    page_picture,
    terminal_picture,
)
from tests.support.tools import need_tool

ALL = sorted(path for path in PICTURES.iterdir() if path.is_file())
TERMINALS = [PICTURES / name for name in SESSIONS]
PNG = [path for path in ALL if path.suffix == ".png"]
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[ElementTree.Element]:
    """What is written in a picture, in the order in which it is read."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - made here
    return sorted(root.iter(f"{SVG}text"), key=lambda one: (float(one.get("y", 0)), _left(one)))


def _left(text: ElementTree.Element) -> float:
    return float(text.get("x", 0))


def words(svg: str) -> list[str]:
    return " ".join(one.text or "" for one in texts(svg)).split()


def chunks(png: bytes) -> dict[str, bytes]:
    """The chunks of a PNG by their types (https://www.w3.org/TR/png-3/#5Chunk-layout)."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        found[png[at + 4 : at + 8].decode("ascii")] = png[at + 8 : at + 8 + length]
        at += length + 12
    return found


def size_of(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", chunks(png)["IHDR"])
    return width, height


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    make_workplace(tmp_path)
    return tmp_path


# --- The terminal ---------------------------------------------------------------------------------

each_session = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=framework_marks([session.command]))
        for name, session in SESSIONS.items()
    ],
)
each_terminal = pytest.mark.parametrize("terminal", TERMINALS, ids=lambda path: path.name)


def rounded(text: str) -> str:
    """A text without its numbers, of which another processor or release makes others."""
    return re.sub(r"\d+(\.\d+)*(e-\d+)?", "0", text)


@pytest.mark.processes
@each_session
@pytest.mark.parametrize("again", [False, True], ids=["as it is", "made again"])
def test_the_terminal_shows_what_the_program_says(workplace: Path, name: str, again: bool) -> None:
    """To the digit, but for a model that is run."""
    command = SESSIONS[name].command
    said = run_in(workplace, command).stdout
    shown = words(terminal_picture(name) if again else (PICTURES / name).read_text("utf-8"))
    expected = ["$", *command.split(), *said.split()]
    if framework_marks([command]):
        shown, expected = [*map(rounded, shown)], [*map(rounded, expected)]
    assert said.startswith(("FAIL ", "CURED "))
    assert shown == expected


@pytest.mark.processes
@each_session
def test_what_is_coloured_is_coloured_in_the_picture(workplace: Path, name: str) -> None:
    said = run_in(workplace, f"{SESSIONS[name].command} --color always").stdout
    coloured = re.findall(r"(?:\x1b\[\d+m)+(.+?)\x1b\[0m", said)
    svg = (PICTURES / name).read_text("utf-8")
    bold = re.findall(r"^\.([\w-]+) \{[^}]*font-weight: bold", svg, re.MULTILINE)
    assert [one.text for one in texts(svg) if one.get("class") in bold] == coloured
    assert {"FAIL", "CURED"} & {*coloured}


@each_terminal
def test_no_line_of_the_terminal_is_cut(terminal: Path) -> None:
    svg = terminal.read_text("utf-8")
    _, _, width, height = map(float, ElementTree.fromstring(svg).get("viewBox", "").split())  # noqa: S314
    lines = list(texts(svg))
    assert lines
    for one in lines:
        assert _left(one) + float(one.get("textLength", 0)) < width, one.text
        assert float(one.get("y", 0)) < height


@each_terminal
def test_the_terminal_needs_nothing_from_elsewhere(terminal: Path) -> None:
    svg = terminal.read_text("utf-8")
    assert "//" not in svg.replace("http://www.w3.org/2000/svg", "", 1)
    assert "@" not in svg
    assert "url(" not in svg.replace("url(#", "")
    assert {one.tag for one in ElementTree.fromstring(svg).iter()} == {  # noqa: S314
        SVG + name for name in ("svg", "style", "defs", "clipPath", "rect", "circle", "g", "text")
    }


# --- All of them ----------------------------------------------------------------------------------


def test_there_are_those_that_are_made() -> None:
    assert {path.name for path in ALL} == {*SESSIONS, *PARTS}


@pytest.mark.parametrize("picture", ALL, ids=lambda path: path.name)
def test_each_is_shown_with_words_for_who_cannot_see_it(picture: Path) -> None:
    shown = [
        alt
        for document in DOCUMENTS
        for alt, path in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", document.read_text("utf-8"))
        if (document.parent / path).resolve() == picture
    ]
    assert shown
    assert shown
    assert all(len(alt) > 20 for alt in shown)


@pytest.mark.parametrize("picture", ALL, ids=lambda path: path.name)
def test_each_is_small(picture: Path) -> None:
    assert picture.stat().st_size < 150_000


@pytest.mark.parametrize("picture", PNG, ids=lambda path: path.name)
def test_a_photograph_has_the_width_of_a_page_and_no_text_of_its_own(picture: Path) -> None:
    """No time, path or program stands in it beside the picture."""
    content = picture.read_bytes()
    width, height = size_of(content)
    assert width == WIDTH
    assert 200 < height < 900
    assert set(chunks(content)) <= {"IHDR", "sRGB", "gAMA", "IDAT", "IEND"}


@pytest.mark.browser
def test_the_photographs_can_be_made_again(workplace: Path, tmp_path: Path) -> None:
    """With other fonts a page is a little higher or lower; a part that is missing is no picture."""
    with browser(need_tool("chromium"), tmp_path / "profile") as chromium:
        for name, part in PARTS.items():
            width, height = size_of(page_picture(chromium, part, workplace))
            before = size_of((PICTURES / name).read_bytes())
            assert width == before[0]
            assert 0.7 < height / before[1] < 1.4, name
