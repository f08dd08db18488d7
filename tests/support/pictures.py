"""The pictures of the documents, made from fixtures: `python -m tests.support.pictures`.

What `check` writes to a terminal becomes an SVG, from its colours, without a browser. Parts of
pages of `report` are photographed by Chromium (`tests.support.browser`); the same browser with the
same fonts makes the same files.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.conftest import ROOT
from tests.support.browser import Browser, browser
from tests.support.documents import make_workplace, run_in
from tests.support.tools import find_tool

PICTURES = ROOT / "docs" / "pictures"


class Session(NamedTuple):
    """A command, and the columns of the terminal on which its picture shows it.

    They are as many as the longest line has that is not folded.
    """

    command: str
    columns: int


SESSIONS = {
    "check.svg": Session(
        "bninspect check fixtures/tf1_graph_update_ops_forgotten/model.ckpt-60", 86
    ),
    "recalibrate.svg": Session(
        "bninspect recalibrate stuck.h5 --data samples.npz -o fixed.h5", 100
    ),
}

# The width in pixels that a page has in a README on GitHub.
WIDTH = 830
# Higher than any of the pages: layers and charts are drawn when they come into the window.
_HEIGHT = 5000
_DATE = "1767225600"  # 2026-01-01
_DRAWN = "new Promise((done) => setTimeout(done, 500))"


class Part(NamedTuple):
    """Of the page of `report` with these arguments: from the first element to the last."""

    arguments: str
    first: str
    last: str


_STUCK = "fixtures/tf1_graph_update_ops_forgotten/model.ckpt-60"
PARTS = {
    "report.png": Part(_STUCK, "main", ".answer"),
    "layers.png": Part(_STUCK, "h2[id$='-layers']", ".detail .charts figure:nth-child(4)"),
    "trends.png": Part(
        "fixtures/tf1_history_stopped --all-checkpoints", "h2[id$='-time']", "table.trends"
    ),
}
_ABOVE = 12  # pixels that are shown, too

# On a background of its own, it looks the same on light and dark pages. The colours have a contrast
# of 4.5 to it and more.
_THEME = TerminalTheme(
    (16, 20, 24),
    (228, 232, 236),
    [
        (16, 20, 24),
        (255, 138, 134),
        (111, 208, 140),
        (240, 184, 74),
        (124, 184, 255),
        (220, 150, 255),
        (90, 210, 220),
        (228, 232, 236),
    ],
)
# rich's own asks the network for a font.
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px ui-monospace, monospace }}
{styles}
</style>
<defs>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def terminal_picture(name: str) -> str:
    """The SVG of what a command of `SESSIONS` writes to a terminal."""
    command, columns = SESSIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        make_workplace(Path(folder))
        said = run_in(Path(folder), f"{command} --color always").stdout
    console = Console(record=True, file=io.StringIO(), width=columns)
    console.print(Text.from_ansi(f"$ {command}\n{said.rstrip()}"))
    unique = name.partition(".")[0]
    svg = console.export_svg(title="", theme=_THEME, code_format=_SVG, unique_id=unique)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def page_picture(chromium: Browser, part: Part, folder: Path) -> bytes:
    """The PNG of a part of a page, in a workplace (`tests.support.documents`)."""
    page = folder / "report.html"
    # The page shows its date: the same picture is made at any time.
    done = run_in(
        folder, f"bninspect report {part.arguments} -o {page.name}", SOURCE_DATE_EPOCH=_DATE
    )
    assert page.exists(), done.stdout
    chromium.look(WIDTH, height=_HEIGHT)
    chromium.open(page)
    chromium.value(f"{_DRAWN}.then(() => 0)")
    top, bottom = chromium.value(
        f"""[document.querySelector("{part.first}").getBoundingClientRect().top,
        document.querySelector("{part.last}").getBoundingClientRect().bottom]"""
    )
    top = max(round(top) - _ABOVE, 0)
    clip = {"x": 0, "y": top, "width": WIDTH, "height": round(bottom) - top, "scale": 1}
    shot = chromium.call("Page.captureScreenshot", clip=clip)
    return base64.b64decode(shot["data"])


def make_pictures() -> None:
    """Make all pictures again; ends with a sentence where there is no browser."""
    for name in SESSIONS:
        (PICTURES / name).write_text(terminal_picture(name), encoding="utf-8")
    program = find_tool("chromium")
    if program is None:
        sys.exit("no Chromium is installed: only the pictures of the terminal were made")
    with tempfile.TemporaryDirectory() as workplace, tempfile.TemporaryDirectory() as profile:
        make_workplace(Path(workplace))
        with browser(program, Path(profile)) as chromium:
            for name, part in PARTS.items():
                picture = page_picture(chromium, part, Path(workplace))
                (PICTURES / name).write_bytes(picture)


if __name__ == "__main__":
    make_pictures()
