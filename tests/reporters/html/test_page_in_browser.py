"""The page of `report` in a real browser, loaded from a file.

Needs a Chromium, and axe-core for what that says of it (`tests.support.tools`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bninspect
from bninspect.model.report import Suppressed, Suppression
from bninspect.reporters.escapes import printable
from bninspect.reporters.html.layers import STATES, anchor
from tests.conftest import FIXTURES
from tests.reporters.html.test_page import MARKUP, NAMES, STOPPED, STUCK, page_of
from tests.reporters.html.test_recalibration_page import cured, recalibration_page
from tests.support.browser import Browser, browser
from tests.support.pages import write_resnet
from tests.support.reports_in_memory import checkpoint, finding, report
from tests.support.table_writer import write_bundle
from tests.support.tools import find_tool, need_tool

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
WIDTHS = (1280, 390)
DARK = (False, True)

# Which layers are shown, as a person sees them: in the map, the table and the charts.
SHOWN = """[".map li", "table.numbers tbody tr", "section.layer"].map((selector) =>
    [...document.querySelectorAll(selector)].filter((one) => one.offsetParent !== null)
    .map((one) => one.dataset.layer || one.id))"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(need_tool("chromium"), tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of all kinds, by what is in them."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = [
        checkpoint(name, [finding(layer=name, evidence=(name,))], [name, "after"])
        for name in MARKUP
    ]
    mixed = FIXTURES / "tf1_history_forgotten"
    made = {
        "stuck": bninspect.check(STUCK),
        "stopped": bninspect.check(STOPPED, all_checkpoints=True),
        "several": bninspect.check(STUCK, FIXTURES / "nowhere", mixed, FIXTURES / "keras2_frozen"),
        "resnet": bninspect.check(_many_verdicts(folder / "mixed")),
        "empty": bninspect.check(FIXTURES / "keras2_lookalikes"),
        "hostile": report(*hostile),
    }
    files = {}
    for name, one in made.items():
        files[name] = folder / f"{name}.html"
        files[name].write_text(page_of(one).html, "utf-8", errors="backslashreplace")
    files["recalibration"] = folder / "recalibration.html"
    files["recalibration"].write_text(recalibration_page(cured()).html, "utf-8")
    return files


def _many_verdicts(prefix: Path) -> Path:
    """A checkpoint whose layers have no finding, an error, a warning and a note."""
    random = np.random.default_rng(3)
    stored: dict[str, np.ndarray] = {"global_step": np.int64(900)}  # type: ignore[dict-item]
    for number in range(1, 13):
        made = {
            "gamma": random.normal(1, 0.2, 8),
            "beta": random.normal(0, 0.2, 8),
            "moving_mean": random.normal(0, 1, 8),
            "moving_variance": random.lognormal(0, 1, 8) * number,
        }
        if number in (3, 4):
            made["moving_mean"], made["moving_variance"] = np.zeros(8), np.ones(8)
        if number == 7:
            made["moving_mean"][:2], made["moving_variance"][:2] = 0, 1
        if number == 9:
            made["moving_mean"][:2], made["moving_variance"][:2] = 0, 1e-20
        scope = f"net/block_{number}/bn"
        stored.update({f"{scope}/{role}": one.astype("f4") for role, one in made.items()})
    write_bundle(prefix, stored)
    return prefix


KINDS = ("stuck", "stopped", "several", "resnet", "empty", "hostile", "recalibration")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_alone_and_says_nothing(
    chromium: Browser, pages: dict[str, Path], kind: str, script: bool
) -> None:
    chromium.open(pages[kind], script=script)
    assert chromium.requests == [pages[kind].as_uri()]
    assert chromium.complaints == []


@pytest.mark.parametrize(
    "harm",
    [
        "<script>console.log(1)</script>",
        '<p style="color: red">x</p>',
        "<img src='http://127.0.0.1:9/x.png' alt=''>",
        "<style>p { color: red }</style>",
        '<svg onload="console.log(1)"></svg>',
    ],
)
def test_the_policy_stops_all_else(
    chromium: Browser, pages: dict[str, Path], tmp_path: Path, harm: str
) -> None:
    """What no page has, to see that the browser would say so."""
    file = tmp_path / "harm.html"
    html = pages["stuck"].read_text("utf-8").replace("</main>", f"{harm}</main>")
    file.write_text(html, "utf-8")
    chromium.open(file)
    assert any("Content Security Policy" in one for one in chromium.complaints)
    assert not any("console" in one for one in chromium.complaints if "Policy" not in one)


@pytest.mark.parametrize("dark", DARK, ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_the_window(
    chromium: Browser, pages: dict[str, Path], kind: str, width: int, dark: bool
) -> None:
    chromium.look(width, dark=dark)
    chromium.open(pages[kind])
    assert chromium.value("document.documentElement.scrollWidth") <= width
    paper = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(16, 20, 24)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("dark", DARK, ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_no_violation(
    chromium: Browser, pages: dict[str, Path], kind: str, width: int, dark: bool
) -> None:
    need_tool("axe")
    # As high as the page, so that nothing is left to be drawn later.
    chromium.look(width, dark=dark, height=12_000)
    chromium.open(pages[kind])
    chromium.value("for (const one of document.querySelectorAll('details')) one.open = true")
    assert _violations(chromium) == []


def _violations(chromium: Browser) -> list[str]:
    chromium.value(Path(need_tool("axe")).read_text("utf-8") + ";1")
    return chromium.value(
        """axe.run().then((found) => found.violations.flatMap((one) => one.nodes.map(
            (node) => `${one.id}: ${node.html}: ${node.failureSummary}`)))"""
    )


# --- Filter and sort ------------------------------------------------------------------------------


@pytest.fixture
def resnet(chromium: Browser, pages: dict[str, Path]) -> Browser:
    chromium.look(1280)
    chromium.open(pages["resnet"])
    return chromium


def layers(*numbers: int) -> list[str]:
    return [anchor(f"net/block_{number}/bn") for number in numbers]


def choose(chromium: Browser, **wanted: str) -> None:
    """Fill in the form as a person would."""
    for name, value in wanted.items():
        chromium.value(
            f"(() => {{ const one = document.forms[0].elements[{json.dumps(name)}];"
            f" one.value = {json.dumps(value)};"
            " one.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({}, range(1, 13)),
        ({"name": "BLOCK_1/"}, [1]),
        ({"name": "block_1"}, [1, 10, 11, 12]),
        ({"state": "error"}, [3, 4]),
        ({"state": "warning"}, [7]),
        ({"state": "note"}, [9]),
        ({"state": "any"}, [3, 4, 7, 9]),
        ({"state": "fine"}, [1, 2, 5, 6, 8, 10, 11, 12]),
        ({"rule": "BN101"}, [3, 4]),
        ({"rule": "BN303"}, [9]),
        ({"rule": "BN101", "name": "4"}, [4]),
        ({"state": "muted"}, []),
    ],
)
def test_filter(resnet: Browser, wanted: dict[str, str], shown: list[int]) -> None:
    choose(resnet, **wanted)
    assert resnet.value(SHOWN) == [layers(*shown)] * 3
    told = resnet.value("document.querySelector('output').textContent")
    assert told == f"{len(layers(*shown))} of 12 layers"
    resnet.value("document.querySelector('[type=reset]').click()")
    resnet.value("new Promise((done) => setTimeout(done, 50))")
    assert resnet.value(SHOWN) == [layers(*range(1, 13))] * 3


def test_what_does_not_count_is_found_by_its_rule(chromium: Browser, tmp_path: Path) -> None:
    why = Suppression(("b",), ("BN101",), "it is meant to be")
    shown = checkpoint("one", [finding(layer="a")], ["a", "b", "c"])
    shown = replace(shown, suppressed=(Suppressed(finding(layer="b"), why),))
    file = tmp_path / "page.html"
    file.write_text(page_of(report(shown)).html, "utf-8")
    chromium.open(file)
    for wanted, names in (("any", "a"), ("muted", "b"), ("fine", "c"), ("", "abc")):
        choose(chromium, state=wanted)
        assert chromium.value(SHOWN) == [[anchor(name) for name in names]] * 3
    choose(chromium, rule="BN101")
    assert chromium.value(SHOWN) == [[anchor(name) for name in "ab"]] * 3


def test_filter_over_time(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280)
    chromium.open(pages["stopped"])
    choose(chromium, name="conv2")
    shown = chromium.value(
        "[...document.querySelectorAll('table.trends tbody tr')]"
        ".filter((one) => one.offsetParent).map((one) => one.dataset.layer)"
    )
    assert shown == [anchor("conv2/batch_normalization")]


def test_a_link_shows_what_is_filtered_out(resnet: Browser) -> None:
    choose(resnet, state="error")
    resnet.value(f"location.hash = '#{layers(1)[0]}'")
    resnet.value("new Promise((done) => setTimeout(done, 100))")
    assert resnet.value(SHOWN)[2] == layers(*range(1, 13))
    top = resnet.value(f"document.getElementById('{layers(1)[0]}').getBoundingClientRect().top")
    assert 0 <= top < 900


def test_the_same_link_shows_it_again(resnet: Browser) -> None:
    """The page's address does not change by it, so no `hashchange` comes."""
    link = f"document.querySelector('.map a[href=\"#{layers(1)[0]}\"]')"
    for _ in range(2):
        resnet.value(f"{link}.click()")
        choose(resnet, state="error")
        assert resnet.value(SHOWN)[2] == layers(3, 4)
    resnet.value(f"{link}.click()")
    resnet.value("new Promise((done) => setTimeout(done, 100))")
    assert resnet.value(SHOWN)[2] == layers(*range(1, 13))


@pytest.mark.parametrize("window", [(1280, 900), (640, 450), (390, 800)])
def test_the_filter_covers_nothing_a_link_leads_to(
    chromium: Browser, pages: dict[str, Path], window: tuple[int, int]
) -> None:
    """640 by 450 is a window of 1280 by 900 magnified to 200 %."""
    chromium.look(window[0], height=window[1])
    chromium.open(pages["resnet"])
    chromium.value(f"location.hash = '#{layers(9)[0]}'")
    chromium.value("new Promise((done) => setTimeout(done, 100))")
    form, layer = (
        chromium.value(f"document.querySelector('{one}').getBoundingClientRect().{side}")
        for one, side in (("form", "bottom"), (f"#{layers(9)[0]}", "top"))
    )
    assert form <= layer < window[1]


def test_a_link_to_a_rule_opens_it(resnet: Browser) -> None:
    resnet.value("document.querySelector('a[href=\"#rule-BN101\"]').click()")
    resnet.value("new Promise((done) => setTimeout(done, 100))")
    assert resnet.value("document.getElementById('rule-BN101').open")


def test_sort(resnet: Browser) -> None:
    numbers = [layer.values["moving_variance"].maximum for layer in _layers(resnet)]
    rising = sorted(range(1, 13), key=lambda number: numbers[number - 1])
    falling = sorted(rising, key=lambda number: -numbers[number - 1])
    head = "document.querySelectorAll('table.numbers thead button')[10]"
    resnet.value(f"{head}.click()")
    assert resnet.value(SHOWN)[1:] == [layers(*rising)] * 2
    assert resnet.value(f"{head}.parentElement.getAttribute('aria-sort')") == "ascending"
    resnet.value(f"{head}.focus()")
    for kind in ("keyDown", "keyUp"):
        key = {"key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}
        resnet.call("Input.dispatchKeyEvent", type=kind, **key)
    assert resnet.value(SHOWN)[1:] == [layers(*falling)] * 2
    assert resnet.value(f"{head}.parentElement.getAttribute('aria-sort')") == "descending"
    resnet.value("document.querySelectorAll('table.numbers thead button')[1].click()")
    assert resnet.value(SHOWN)[1:] == [layers(*range(1, 13))] * 2  # 2 before 10
    resnet.value("document.querySelectorAll('table.numbers thead button')[2].click()")
    by_gravity = [3, 4, 7, 9, 1, 2, 5, 6, 8, 10, 11, 12]
    assert resnet.value(SHOWN)[1:] == [layers(*by_gravity)] * 2


def test_infinity_is_sorted_beyond_all_numbers(chromium: Browser, tmp_path: Path) -> None:
    least = {"a": -5.0, "b": -np.inf, "c": np.inf, "d": 3.0, "e": np.nan, "f": -0.2}
    stored: dict[str, np.ndarray] = {}
    for name, value in least.items():
        stored[f"{name}/moving_mean"] = np.full(2, value, "f4")
        stored[f"{name}/moving_variance"] = np.full(2, 2, "f4")
    write_bundle(tmp_path / "model", stored)
    file = tmp_path / "page.html"
    file.write_text(page_of(bninspect.check(tmp_path / "model")).html, "utf-8")
    chromium.open(file)
    head = "document.querySelectorAll('table.numbers thead button')[7]"
    for names in ("bafdce", "cdfabe"):
        chromium.value(f"{head}.click()")
        assert chromium.value(SHOWN)[1] == [anchor(name) for name in names]


def _layers(chromium: Browser) -> list[bninspect.BNLayer]:
    """The layers of the checkpoint that the page is of."""
    path = chromium.value("document.querySelector('section.checkpoint h2').textContent")
    return list(bninspect.list_layers(path).checkpoints[0].layers)


def test_all_is_there_without_script(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280)
    chromium.open(pages["resnet"], script=False)
    assert chromium.value(SHOWN) == [layers(*range(1, 13))] * 3
    assert not chromium.value("document.querySelector('form').offsetParent")
    assert chromium.value("document.querySelectorAll('button').length") == 1  # that of the form


@pytest.mark.parametrize("media", ["", "print"])
def test_a_state_in_the_map_has_a_shape_of_its_own(
    chromium: Browser, pages: dict[str, Path], media: str
) -> None:
    """Colour is not what tells an error from no finding: nothing but the colour is left out."""
    chromium.look(1280, media=media)
    chromium.open(pages["resnet"])
    shapes = chromium.value(
        """[...document.querySelectorAll(".states i")].map((one) => {
            const style = getComputedStyle(one);
            const filled = style.backgroundColor !== "rgba(0, 0, 0, 0)";
            const shape = [filled, style.backgroundImage, style.backgroundSize, style.borderWidth];
            return shape.join(" ").replaceAll(/rgba?[(][^)]*[)]/g, "");
        })"""
    )
    assert len(shapes) == len({*shapes}) == len(STATES)


def test_the_keyboard_reaches_the_verdict_first(resnet: Browser) -> None:
    key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    resnet.call("Input.dispatchKeyEvent", type="rawKeyDown", **key)
    assert resnet.value("document.activeElement.className") == "skip"


def test_print_shows_all_layers_and_no_form(resnet: Browser) -> None:
    resnet.look(720, media="print", dark=True)
    assert resnet.value(SHOWN)[2] == layers(*range(1, 13))
    assert not resnet.value("document.querySelector('form').offsetParent")
    assert resnet.value("document.documentElement.scrollWidth") <= 720
    assert resnet.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert resnet.value("getComputedStyle(document.querySelector('.layer')).contentVisibility") == (
        "visible"
    )


# --- Names, size, notebooks -----------------------------------------------------------------------


def test_hostile_names_stay_text(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280)
    chromium.open(pages["hostile"])
    shown = chromium.value(
        "[...document.querySelectorAll('section.layer .name')].map((one) => one.textContent)"
    )
    expected = [printable(name) for name in MARKUP for name in (name, "after")]
    assert shown == expected
    assert chromium.value("document.querySelectorAll('main script, img, b b').length") == 0
    assert chromium.value("document.scripts.length") == 1


def test_a_name_of_endless_accents_stays_in_its_line(chromium: Browser, tmp_path: Path) -> None:
    """It leaves its neighbour as one with a single accent does, point for point."""
    neighbour = "document.querySelector('table.numbers tbody tr')"
    seen = []
    for accents in (1, 3_000):
        name = "e" + "\u0301" * accents
        file = tmp_path / "page.html"
        one = report(checkpoint("a", [finding(layer="bn"), finding(layer="x")], ["bn", "x"]))
        html = page_of(one).html.replace("<bdi>x</bdi>", f"<bdi>{name}</bdi>")
        assert name in html
        file.write_text(html, "utf-8")
        chromium.look(1280, height=3_000)
        chromium.open(file)
        box = chromium.value(f"JSON.stringify({neighbour}.getBoundingClientRect())")
        clip = {key: json.loads(box)[key] for key in ("x", "y", "width", "height")} | {"scale": 1}
        seen.append(chromium.call("Page.captureScreenshot", clip=clip)["data"])
    assert seen[0] == seen[1]


def test_two_thousand_layers_open_smoothly(chromium: Browser, tmp_path: Path) -> None:
    count = write_resnet(tmp_path / "deep", units=(3, 8, 650, 3))
    assert count > 1990
    file = tmp_path / "deep.html"
    file.write_text(page_of(bninspect.check(tmp_path / "deep")).html, "utf-8")
    chromium.look(1280)
    chromium.open(file)
    assert chromium.complaints == []
    assert len(chromium.value(SHOWN)[2]) == count
    entry = chromium.value("performance.getEntriesByType('paint').at(-1).startTime")
    assert entry < 5_000
    # What is not in the window is not laid out: that is what keeps it smooth.
    assert chromium.value(
        "getComputedStyle(document.querySelector('.layer')).contentVisibility"
    ) == ("auto")
    spent = chromium.value(
        "(() => { const begun = performance.now(); const form = document.forms[0];"
        " form.elements.name.value = 'unit_2'; form.dispatchEvent(new Event('input'));"
        " document.body.offsetHeight; return performance.now() - begun; })()"
    )
    assert spent < 3_000


@pytest.mark.parametrize("dark", DARK, ids=["light", "dark"])
def test_a_notebook_shows_it_well(chromium: Browser, tmp_path: Path, dark: bool) -> None:
    found = bninspect.check(STUCK)
    cells = found._repr_html_() + found.checkpoints[0].layers[0]._repr_html_()
    head = "<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>a notebook</title>"
    head += "<main><h1>a</h1><h2>b</h2><h3>c</h3>"
    file = tmp_path / "notebook.html"
    file.write_text(f"{head}{cells}</main>", "utf-8")
    chromium.look(900, dark=dark, height=4000)
    chromium.open(file)
    assert chromium.complaints == []
    assert chromium.requests == [file.as_uri()]
    assert chromium.value("document.documentElement.scrollWidth") <= 900
    assert all(name in chromium.value("document.body.innerText") for name in NAMES)
    margin = chromium.value("getComputedStyle(document.body).margin")
    assert margin == "8px"  # what the notebook makes of its own page stays as it is
    if find_tool("axe"):
        assert _violations(chromium) == []
