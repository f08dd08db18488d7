"""The site of the documents: built strictly, whole, and without another host."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.browser import browser
from tests.support.documents import DOCUMENTS, RULE_PAGES
from tests.support.tools import need_tool

MAKER: dict[str, Any] = runpy.run_path(str(ROOT / "docs/make_site.py"))
SITE: str = MAKER["SITE"]

pytestmark = pytest.mark.xdist_group("site")  # which builds it once
needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("material") is None,
    reason="mkdocs-material is not installed: it asks for Python 3.11",
)


def build(sources: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(MAKER["BUILD"], cwd=sources, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    MAKER["write_sources"](folder)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as the workflow builds it."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, ROOT / "docs/make_site.py", target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


# --- Its sources ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "led_to"),
    [
        ("README.md", "docs/ci.md#exit-codes", "ci.md#exit-codes"),
        ("README.md", "docs/pictures/check.svg", "pictures/check.svg"),
        ("README.md", "CHANGELOG.md", "changes.md"),
        ("README.md", "LICENSE", "https://github.com/bninspect/bninspect/blob/main/LICENSE"),
        ("CHANGELOG.md", "docs/json.md", "json.md"),
        ("docs/ci.md", "json.md", "json.md"),
        ("docs/ci.md", "#formats", "#formats"),
        ("docs/ci.md", "../README.md#use-it", "index.md#use-it"),
        ("docs/rules/BN101.md", "../causes/untrained.md", "../causes/untrained.md"),
        ("docs/examples.md", f"{SITE}examples/broken.html", "examples/broken.html"),
        ("docs/rules/BN101.md", f"{SITE}examples/broken.html", "../examples/broken.html"),
        ("README.md", SITE, "index.md"),
        ("docs/ci.md", "https://example.org/a#b", "https://example.org/a#b"),
    ],
)
def test_a_link_leads_to_the_page_of_the_site(source: str, target: str, led_to: str) -> None:
    text = f"[a]({target}) and\n```sh\n[b]({target})\n```\n"
    expected = f"[a]({led_to}) and\n```sh\n[b]({target})\n```\n"
    assert MAKER["with_links_of_the_site"](text, source) == expected


@needs_mkdocs
@pytest.mark.processes
@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("ci.md", "[a](nowhere.md)"),
        ("ci.md", "[a](json.md#nowhere)"),
        ("ci.md", "![a picture](pictures/nowhere.png)"),
        ("examples.md", "[a](examples/nowhere.html)"),
        ("unlisted.md", "# A page"),
    ],
)
def test_a_fault_fails_the_build(sources: Path, page: str, text: str) -> None:
    path = sources / "docs" / page
    before = path.read_bytes() if path.exists() else None
    path.write_bytes((before or b"") + f"\n{text}\n".encode())
    try:
        done = build(sources)
        assert done.returncode == 1
        assert page in done.stderr
    finally:
        path.unlink() if before is None else path.write_bytes(before)


# --- Its pages ------------------------------------------------------------------------------------


@needs_mkdocs
@pytest.mark.processes
def test_every_document_has_an_address(site: Path) -> None:
    for document in (*DOCUMENTS, *RULE_PAGES):
        place = document.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/")
        page = site / ("" if place == "README" else place) / "index.html"
        title = document.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        heading = re.search(r"<h1[^>]*>(.*?)(?:<a |</h1>)", page.read_text("utf-8"))
        assert heading
        assert re.sub(r"<[^>]+>", "", heading[1]) == title


class Loaded(HTMLParser):
    """The addresses that a page loads something from, or submits something to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "link" and told.get("rel") not in {"canonical", "next", "prev"}:
            self.addresses.append(told["href"] or "")
        elif tag not in {"a", "link"}:
            named = (told.get(name) for name in ("src", "srcset", "action", "data", "poster"))
            self.addresses.extend(address for address in named if address)


@needs_mkdocs
@pytest.mark.processes
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > len(DOCUMENTS)
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text("utf-8"))
        assert [one for one in loaded.addresses if re.match(r"(https?:)?//", one)] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\(['\"]?)\s*(https?:)?//", sheet.read_text("utf-8"))


@needs_mkdocs
@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "verdict"), [("broken", "FAIL"), ("healthy", "PASS"), ("training", "FAIL")]
)
def test_the_live_examples_are_reports(site: Path, name: str, verdict: str) -> None:
    page = (site / "examples" / f"{name}.html").read_text("utf-8")
    assert re.search(rf"\b{verdict}\b", re.sub(r"<(style|script).*?</\1>", "", page, flags=re.S))
    assert f'href="{name}.html"' in (site / "examples/index.html").read_text("utf-8")
    assert set(MAKER["EXAMPLES"]) == {path.name for path in site.glob("examples/*[!x].html")}


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The address of the site, served on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


_RESULTS = "[...document.querySelectorAll('.md-search-result__link')].map((one) => one.href)"
_SEARCH = f"""new Promise((found) => {{
  const field = document.querySelector('.md-search__input');
  document.querySelector('#__search').checked = true;
  field.focus();
  field.value = 'update-ops-not-run';
  const look = () => {{
    field.dispatchEvent(new Event('keyup'));
    const results = {_RESULTS};
    results.length ? found(results) : setTimeout(look, 100);
  }};
  look();
}})"""


@needs_mkdocs
@pytest.mark.browser
@pytest.mark.servers
def test_search_needs_no_other_host(address: str, tmp_path: Path) -> None:
    with browser(need_tool("chromium"), tmp_path / "profile") as chromium:
        chromium.look(1280)
        chromium.call("Page.navigate", url=address)
        chromium.wait_for("Page.loadEventFired")
        results = chromium.value(_SEARCH)
        assert f"{address}causes/update-ops-not-run/" in {one.partition("?")[0] for one in results}
        assert chromium.requests
        assert [one for one in chromium.requests if not one.startswith((address, "data:"))] == []
        assert chromium.complaints == []


@needs_mkdocs
@pytest.mark.browser
@pytest.mark.servers
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_are_legible(address: str, tmp_path: Path, dark: bool) -> None:
    axe = Path(need_tool("axe")).read_text("utf-8")
    only = ["color-contrast", "link-in-text-block", "image-alt", "heading-order", "link-name"]
    with browser(need_tool("chromium"), tmp_path / "profile") as chromium:
        chromium.look(1280, dark=dark)
        for page in ("", "stories/", "rules/BN101/", "ci/"):
            chromium.call("Page.navigate", url=address + page)
            chromium.wait_for("Page.loadEventFired")
            chromium.value(f"{axe};0")
            found = chromium.value(
                f"axe.run({{runOnly: {only}}}).then((all) => all.violations.map((one) =>"
                " [one.id, one.nodes[0].html]))"
            )
            assert (page, found) == (page, [])
