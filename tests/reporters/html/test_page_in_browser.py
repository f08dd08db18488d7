"""The page of `report` in a real browser, loaded from a file.

Needs a Chromium, and axe-core for what that says of it (`tests.support.tools`).
"""

from __future__ import annotations

import csv
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
from tests.support.layers_in_memory import bn
from tests.support.pages import write_resnet
from tests.support.reports_in_memory import checkpoint, finding, report
from tests.support.table_writer import write_bundle
from tests.support.tools import find_tool, need_tool

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
WIDTHS = (1280, 390)
DARK = (False, True)

# Which layers are shown, in the order in which a person sees them.
SHOWN = """[...document.querySelectorAll("table.layers tbody tr[id]")]
    .filter((one) => one.offsetParent !== null).map((one) => one.id)"""
# Which of them are open.
OPEN = """[...document.querySelectorAll("table.layers tr.detail")]
    .map((one) => one.previousElementSibling.id)"""
SOON = "new Promise((done) => setTimeout(done, 150))"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(need_tool("chromium"), tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(autouse=True)
def complaints(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[None]:
    """Fail a test in which the page logged something, or its script raised an error."""
    yield
    if "harm" not in request.fixturenames:
        assert chromium.complaints == []


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
    chromium.value("document.querySelector('#sides button')?.click()")
    chromium.value(SOON)
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
        ({"finding": "error"}, [3, 4]),
        ({"finding": "warning"}, [7]),
        ({"finding": "note"}, [9]),
        ({"finding": "any"}, [3, 4, 7, 9]),
        ({"finding": "none"}, [1, 2, 5, 6, 8, 10, 11, 12]),
        ({"rule": "BN101"}, [3, 4]),
        ({"rule": "BN303"}, [9]),
        ({"rule": "BN101", "name": "4"}, [4]),
        ({"name": "nowhere"}, []),
    ],
)
def test_filter(resnet: Browser, wanted: dict[str, str], shown: list[int]) -> None:
    choose(resnet, **wanted)
    assert resnet.value(SHOWN) == layers(*shown)
    told = resnet.value("document.querySelector('output').textContent")
    assert told == f"{len(layers(*shown))} of 12 layers"
    resnet.value("document.querySelector('[type=reset]').click()")
    resnet.value(SOON)
    assert resnet.value(SHOWN) == layers(*range(1, 13))


def test_what_does_not_count_is_found_by_its_rule(chromium: Browser, tmp_path: Path) -> None:
    why = Suppression(("b",), ("BN101",), "it is meant to be")
    shown = checkpoint("one", [finding(layer="a")], ["a", "b", "c"])
    shown = replace(shown, suppressed=(Suppressed(finding(layer="b"), why),))
    file = tmp_path / "page.html"
    file.write_text(page_of(report(shown)).html, "utf-8")
    chromium.open(file)
    for wanted, names in (("any", "a"), ("not counted", "b"), ("none", "c"), ("", "abc")):
        choose(chromium, finding=wanted)
        assert chromium.value(SHOWN) == [anchor(name) for name in names]
    choose(chromium, rule="BN101")
    assert chromium.value(SHOWN) == [anchor(name) for name in "ab"]


def test_filter_over_time(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280)
    chromium.open(pages["stopped"])
    choose(chromium, name="conv2")
    shown = chromium.value(
        "[...document.querySelectorAll('table.trends tbody tr')]"
        ".filter((one) => one.offsetParent).map((one) => one.cells[0].textContent)"
    )
    assert shown == ["conv2/batch_normalization"]


def test_models_are_filtered_by_verdict_and_sorted(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.look(1280)
    chromium.open(pages["several"])
    shown = """[...document.querySelectorAll("table.models tbody tr")]
        .filter((one) => one.offsetParent).map((one) => one.cells[0].textContent)"""
    first = chromium.value(shown)
    assert first[0] == "ERROR"
    assert {*first} == {"ERROR", "FAIL", "WARN"}
    choose(chromium, verdict="FAIL")
    assert {*chromium.value(shown)} == {"FAIL"}
    choose(chromium, verdict="")
    head = "document.querySelectorAll('table.models thead button')[0]"
    chromium.value(f"{head}.click(); {head}.click()")
    assert chromium.value(shown) == first[::-1]


def test_a_link_to_a_model_opens_it(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280)
    chromium.open(pages["several"])
    link = "document.querySelector('table.models tbody tr:nth-child(2) a')"
    assert not chromium.value(f"document.querySelector({link}.hash).open")
    chromium.value(f"{link}.click()")
    chromium.value(SOON)
    assert chromium.value(f"document.querySelector({link}.hash).open")


def test_the_skip_link_leads_to_the_verdict(resnet: Browser) -> None:
    resnet.value("scrollTo(0, 2000); document.querySelector('.skip').click()")
    resnet.value(SOON)
    assert resnet.value("scrollY") == 0


def test_a_link_shows_what_is_filtered_out(resnet: Browser) -> None:
    choose(resnet, finding="error")
    resnet.value(f"location.hash = '#{layers(1)[0]}'")
    resnet.value(SOON)
    assert resnet.value(SHOWN) == layers(*range(1, 13))
    top = resnet.value(f"document.getElementById('{layers(1)[0]}').getBoundingClientRect().top")
    assert -1 < top < 900
    assert layers(1)[0] in resnet.value(OPEN)


def test_the_same_link_shows_it_again(resnet: Browser) -> None:
    """The page's address does not change by it, so no `hashchange` comes."""
    link = f"document.querySelector('.places a[href=\"#{layers(3)[0]}\"]')"
    for _ in range(2):
        resnet.value(f"{link}.click()")
        choose(resnet, name="block_4")
        assert resnet.value(SHOWN) == layers(4)
    resnet.value(f"{link}.click()")
    resnet.value(SOON)
    assert resnet.value(SHOWN) == layers(*range(1, 13))


def test_a_link_to_a_rule_opens_it(resnet: Browser) -> None:
    resnet.value("document.querySelector('a[href=\"#rule-BN101\"]').click()")
    resnet.value(SOON)
    assert resnet.value("document.getElementById('rule-BN101').open")


def press(chromium: Browser, key: str, code: int, text: str = "") -> None:
    """Press a key as a person would."""
    for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
        typed = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        if text:
            typed["text"] = text
        chromium.call("Input.dispatchKeyEvent", type=kind, **typed)


def test_sort(resnet: Browser) -> None:
    numbers = [layer.values["moving_variance"].maximum for layer in _layers(resnet)]
    rising = sorted(range(1, 13), key=lambda number: numbers[number - 1])
    falling = sorted(rising, key=lambda number: -numbers[number - 1])
    head = "document.querySelectorAll('table.layers thead button')[10]"
    resnet.value(f"{head}.click()")
    assert resnet.value(SHOWN) == layers(*rising)
    assert resnet.value(f"{head}.parentElement.getAttribute('aria-sort')") == "ascending"
    resnet.value(f"{head}.focus()")
    press(resnet, "Enter", 13, "\r")
    assert resnet.value(SHOWN) == layers(*falling)
    assert resnet.value(f"{head}.parentElement.getAttribute('aria-sort')") == "descending"
    resnet.value("document.querySelectorAll('table.layers thead button')[1].click()")
    assert resnet.value(SHOWN) == layers(*range(1, 13))  # 2 before 10
    resnet.value("document.querySelectorAll('table.layers thead button')[2].click()")
    by_gravity = [3, 4, 7, 9, 1, 2, 5, 6, 8, 10, 11, 12]
    assert resnet.value(SHOWN) == layers(*by_gravity)


def test_an_open_layer_stays_below_its_row(resnet: Browser) -> None:
    resnet.value(f"location.hash = '#{layers(5)[0]}'")
    resnet.value(SOON)
    resnet.value("document.querySelectorAll('table.layers thead button')[10].click()")
    assert layers(5)[0] in resnet.value(OPEN)
    choose(resnet, finding="error")
    assert resnet.value(f"document.getElementById('{layers(5)[0]}').nextElementSibling.hidden")


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
    head = "document.querySelectorAll('table.layers thead button')[7]"
    for names in ("bafdce", "cdfabe"):
        chromium.value(f"{head}.click()")
        assert chromium.value(SHOWN) == [anchor(name) for name in names]


def _layers(chromium: Browser) -> list[bninspect.BNLayer]:
    """The layers of the checkpoint that the page is of."""
    path = chromium.value("document.querySelector('.subject').textContent")
    return list(bninspect.list_layers(path).checkpoints[0].layers)


def test_verdicts_and_numbers_are_there_without_script(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.look(1280)
    chromium.open(pages["resnet"], script=False)
    assert chromium.value(SHOWN) == layers(*range(1, 13))
    shown = "[...document.querySelectorAll('button, form')].filter((one) => one.offsetParent)"
    assert chromium.value(f"{shown}.length") == 0
    assert "need JavaScript" in chromium.value("document.body.innerText")


# --- The fold -------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [(1280, 900), (390, 844)])
@pytest.mark.parametrize("kind", ["stuck", "stopped", "several"])
def test_verdict_cause_and_fix_are_seen_at_once(
    chromium: Browser, pages: dict[str, Path], kind: str, window: tuple[int, int]
) -> None:
    chromium.look(window[0], height=window[1])
    chromium.open(pages[kind])
    for part in ("h1", "dt", "dd[id$=-fix]", ".copy"):
        bottom = chromium.value(f"document.querySelector('{part}').getBoundingClientRect().bottom")
        assert 0 < bottom <= window[1], part


def test_a_button_copies_the_fix(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280)
    chromium.open(pages["stuck"])
    chromium.value(
        "Object.defineProperty(navigator, 'clipboard',"
        " { value: { writeText: async (text) => { window.copied = text; } } })"
    )
    for button, begins in ((0, "Run the update ops"), (1, "x = tf.layers")):
        chromium.value(f"document.querySelectorAll('.copy')[{button}].click()")
        chromium.value(SOON)
        assert chromium.value("window.copied").startswith(begins)
        assert chromium.value("document.querySelector('[role=status]').textContent") == "Copied"


# --- Charts ---------------------------------------------------------------------------------------


def test_the_first_layer_with_a_finding_is_open(resnet: Browser) -> None:
    resnet.value("document.querySelector('table.layers').scrollIntoView()")
    resnet.value(SOON)
    assert resnet.value(OPEN) == layers(3)


def test_a_layer_opens_to_its_distributions_and_channels(resnet: Browser) -> None:
    link = f"document.querySelector('#{layers(2)[0]} a.name')"
    resnet.value(f"{link}.focus()")
    press(resnet, "Enter", 13, "\r")
    assert resnet.value(f"{link}.getAttribute('aria-expanded')") == "true"
    detail = f"document.querySelector('#{layers(2)[0]}').nextElementSibling"
    names = resnet.value(
        f"[...{detail}.querySelectorAll('.charts figcaption b')].map((one) => one.textContent)"
    )
    assert names == ["gamma", "beta", "moving_mean", "moving_variance", "scale", "shift"]
    labels = resnet.value(
        f"[...{detail}.querySelectorAll('svg')].map((one) => one.getAttribute('aria-label'))"
    )
    assert len(labels) == 7
    assert all("channel" in label for label in labels)
    press(resnet, "Enter", 13, "\r")
    assert not resnet.value(f"{detail}.classList.contains('detail')")


def test_arrow_keys_read_the_values(resnet: Browser) -> None:
    layer = _layers(resnet)[1]
    resnet.value(f"document.querySelector('#{layers(2)[0]} a.name').click()")
    detail = f"document.querySelector('#{layers(2)[0]}').nextElementSibling"
    resnet.value(f"{detail}.querySelector('.channels svg').focus()")
    said = "document.querySelector('[role=status]').textContent"
    for channel in range(2):
        press(resnet, "ArrowRight", 39)
        values = ", ".join(
            f"{role} {layer.values[role].array[channel]:.3g}"
            for role in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        assert resnet.value(said) == f"channel {channel}: {values}"
    resnet.value(f"{detail}.querySelector('.charts svg').focus()")
    counted = 0
    press(resnet, "Home", 36)
    before = ""
    while (text := resnet.value(said)) != before:
        counted += int(text.split(": ")[1].split()[0])
        before = text
        press(resnet, "ArrowRight", 39)
    assert counted == layer.channels


def test_channels_of_a_layer_whose_members_disagree(chromium: Browser, tmp_path: Path) -> None:
    stored = {
        "bn/gamma": np.full(3, 2, "f4"),
        "bn/moving_mean": np.arange(2, dtype="f4"),
        "bn/moving_variance": np.ones(2, "f4"),
    }
    write_bundle(tmp_path / "model", stored)
    file = tmp_path / "page.html"
    file.write_text(page_of(bninspect.check(tmp_path / "model")).html, "utf-8")
    chromium.look(1280)
    chromium.open(file)
    chromium.value("document.querySelector('table.layers').scrollIntoView()")
    chromium.value(SOON)
    choice = "document.querySelector('.channels select')"
    chromium.value(f"{choice}.value = 'gamma'; {choice}.dispatchEvent(new Event('input'))")
    chromium.value("document.querySelector('.channels svg').focus()")
    press(chromium, "End", 35)
    assert chromium.value("document.querySelector('[role=status]').textContent") == (
        "channel 2: gamma 2, moving_mean not stored, moving_variance not stored"
    )
    assert chromium.complaints == []


def test_a_layer_without_values_has_no_channels(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page_of(report(checkpoint("a", [], ["bn"]))).html, "utf-8")
    chromium.look(1280)
    chromium.open(file)
    chromium.value("document.querySelector('table.layers').scrollIntoView()")
    chromium.value(SOON)
    text = chromium.value("document.querySelector('.detail-body').textContent")
    assert "gamma not stored" in text
    assert "channels fit" not in text


def test_the_pointer_reads_the_values(resnet: Browser) -> None:
    resnet.value(f"location.hash = '#{layers(1)[0]}'")
    resnet.value(SOON)
    figure = f"document.querySelector('#{layers(1)[0]}').nextElementSibling.querySelector('figure')"
    before = resnet.value(f"{figure}.querySelector('.readout').textContent")
    box = f"{figure}.querySelector('svg').getBoundingClientRect()"
    x, y = resnet.value(f"[{box}.left + {box}.width / 2, {box}.top + {box}.height / 2]")
    resnet.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    resnet.value(SOON)
    during = resnet.value(f"{figure}.querySelector('.readout').textContent")
    assert during.endswith((" channel", " channels"))
    resnet.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    resnet.value(SOON)
    assert resnet.value(f"{figure}.querySelector('.readout').textContent") == before


def test_zero_and_one_are_marked(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280)
    chromium.open(pages["stuck"])
    chromium.value("document.querySelector('table.layers').scrollIntoView()")
    chromium.value(SOON)
    marked = chromium.value(
        "[...document.querySelectorAll('.charts figure')].slice(2, 4).map((one) =>"
        " [...one.querySelectorAll('text.strong')].map((each) => each.textContent))"
    )
    assert marked == [["0", "1"], ["1"]]


def test_the_map_is_read_by_keyboard(resnet: Browser) -> None:
    resnet.value("document.querySelector('.map').scrollIntoView()")
    resnet.value(SOON)
    names = resnet.value(
        "[...document.querySelectorAll('.map svg text')].map((t) => t.textContent)"
    )
    assert names == [f"net/block_{number}/bn" for number in range(1, 13)]
    resnet.value("document.querySelector('.map svg[tabindex]').focus()")
    for _ in range(3):
        press(resnet, "ArrowDown", 40)
    assert resnet.value("document.querySelector('[role=status]').textContent") == (
        "net/block_3/bn: gamma no finding, beta no finding, moving_mean error,"
        " moving_variance error"
    )
    press(resnet, "Enter", 13, "\r")
    resnet.value(SOON)
    assert resnet.value("location.hash") == f"#{layers(3)[0]}"


@pytest.mark.parametrize("media", ["", "print"])
def test_a_state_in_the_map_has_a_shape_of_its_own(
    chromium: Browser, tmp_path: Path, media: str
) -> None:
    """Colour is not what tells an error from no finding."""
    why = Suppression(("d",), ("BN101",), "it is meant to be")
    codes = {"a": "BN101", "b": "BN104", "c": "BN303"}
    found = [finding(code, layer=name) for name, code in codes.items()]
    shown = checkpoint("one", found, [*"abcd"])
    shown = replace(shown, suppressed=(Suppressed(finding(layer="d"), why),))
    whole = bn(name="e", mean=[1.0], variance=[2.0])
    shown = replace(shown, layers=(*shown.layers, whole))
    file = tmp_path / "page.html"
    file.write_text(page_of(report(shown)).html, "utf-8")
    chromium.look(1280, media=media)
    chromium.open(file)
    chromium.value("document.querySelector('.map').scrollIntoView()")
    chromium.value(SOON)
    shapes = chromium.value(
        "[...document.querySelectorAll('.states path')].map((one) => one.getAttribute('d'))"
    )
    assert len(shapes) == len({*shapes}) == len(STATES)


# --- Side by side, CSV ----------------------------------------------------------------------------


def test_two_checkpoints_side_by_side(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280, height=3_000)
    chromium.open(pages["stopped"])
    chromium.value("document.querySelector('#sides button').click()")
    chromium.value("document.querySelector('#sides').scrollIntoView()")
    chromium.value(SOON)
    labels = chromium.value(
        "[...document.querySelectorAll('#sides select')[0].options].map((one) => one.textContent)"
    )
    assert labels == ["step 20", "step 40", "step 60"]
    cell = "document.querySelector('table.pairs tbody td:nth-child(4)')"
    mean = [
        item.layers[0].values["moving_mean"]
        for item in bninspect.list_layers(STOPPED, all_checkpoints=True).checkpoints
    ]
    told = [f"{one.minimum:.3g} to {one.maximum:.3g}" for one in mean]
    assert chromium.value(f"{cell}.dataset.text") == f"A: {told[0]}; B: {told[2]}"
    assert chromium.value(f"{cell}.querySelectorAll('svg').length") == 2


def test_models_with_other_layers_say_so(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280)
    chromium.open(pages["several"])
    chromium.value("document.querySelector('#sides button').click()")
    chromium.value(SOON)
    assert "no such layer" in chromium.value("document.querySelector('table.pairs').textContent")


def test_csv_has_what_is_shown(resnet: Browser) -> None:
    resnet.value(
        "URL.createObjectURL = (blob) => { window.saved = blob; return 'blob:null/x'; };"
        "HTMLAnchorElement.prototype.click = function () { window.named = this.download; };"
    )
    choose(resnet, finding="error")
    resnet.value("[...document.querySelectorAll('form button')].at(-1).click()")
    lines = resnet.value("window.saved.text()").splitlines()
    assert resnet.value("window.named") == "layers.csv"
    assert lines[0].startswith("#,Layer,Finding,Rules,Channels,")
    assert [line.split(",")[1] for line in lines[1:]] == ["net/block_3/bn", "net/block_4/bn"]
    assert lines[1].endswith(",error,BN101,8,8,0,0,0,1,1")


def test_csv_is_no_formula(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    names = ["=cmd|' /C calc'!A0", 'a,"b"', "-1x"]
    file.write_text(page_of(report(checkpoint("a", [], names))).html, "utf-8")
    chromium.open(file)
    chromium.value(
        "URL.createObjectURL = (blob) => { window.saved = blob; return 'blob:null/x'; };"
        "HTMLAnchorElement.prototype.click = () => {};"
    )
    chromium.value("[...document.querySelectorAll('form button')].at(-1).click()")
    rows = list(csv.reader(chromium.value("window.saved.text()").splitlines()))
    assert [row[1] for row in rows[1:]] == ["'=cmd|' /C calc'!A0", 'a,"b"', "'-1x"]


def test_a_narrow_table_says_that_it_scrolls(chromium: Browser, pages: dict[str, Path]) -> None:
    for width, hidden in ((390, False), (1280, True)):
        chromium.look(width)
        chromium.open(pages["stuck"])
        chromium.value(SOON)
        assert chromium.value("document.querySelector('.hint').hidden") == hidden


def test_the_keyboard_reaches_the_verdict_first(resnet: Browser) -> None:
    key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    resnet.call("Input.dispatchKeyEvent", type="rawKeyDown", **key)
    assert resnet.value("document.activeElement.className") == "skip"


def test_print_shows_all_layers_and_no_form(resnet: Browser) -> None:
    resnet.look(720, media="print", dark=True)
    resnet.value("dispatchEvent(new Event('beforeprint'))")
    assert resnet.value(SHOWN) == layers(*range(1, 13))
    assert not resnet.value("document.querySelector('form').offsetParent")
    assert resnet.value("document.documentElement.scrollWidth") <= 720
    assert resnet.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert resnet.value("[...document.querySelectorAll('details')].every((one) => one.open)")


@pytest.mark.parametrize("kind", ["stopped", "resnet", "several"])
def test_print_cuts_no_table(chromium: Browser, pages: dict[str, Path], kind: str) -> None:
    chromium.look(720, media="print")
    chromium.open(pages[kind])
    chromium.value("dispatchEvent(new Event('beforeprint'))")
    chromium.value(SOON)
    assert chromium.value(
        "[...document.querySelectorAll('.scroll')].every((one) =>"
        " one.querySelector('table').offsetHeight <= one.offsetHeight)"
    )


# --- Names, size, notebooks -----------------------------------------------------------------------


def test_hostile_names_stay_text(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.look(1280)
    chromium.open(pages["hostile"])
    shown = chromium.value(
        "[...document.querySelectorAll('table.layers .name')].map((one) => one.textContent)"
    )
    expected = [printable(name) for name in MARKUP for name in (name, "after")]
    assert shown == expected
    assert chromium.value("document.querySelectorAll('img, b b').length") == 0
    running = "[...document.scripts].filter((one) => one.type !== 'application/json')"
    assert chromium.value(f"{running}.length") == 1


def test_a_name_of_endless_accents_stays_in_its_line(chromium: Browser, tmp_path: Path) -> None:
    """It leaves its neighbour as one with a single accent does, point for point."""
    neighbour = "document.querySelector('table.layers tbody tr')"
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
        chromium.value(SOON)
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
    assert len(chromium.value(SHOWN)) == count
    # Charts are drawn when they come into the window: that is what keeps it smooth.
    assert chromium.value("document.querySelectorAll('svg').length") < 10
    assert chromium.value("document.querySelectorAll('*').length") < 25 * count
    assert file.stat().st_size < 3_500_000
    choose(chromium, name="unit_2/")
    assert 0 < len(chromium.value(SHOWN)) < 20


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
