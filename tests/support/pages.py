"""A page of `report`, taken apart: its elements, what they say, and what holds for every page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.table_writer import write_bundle

_VOID = {"meta", "input", "br", "wbr"}
_WITH_NAMES = ("id", "href", "class", "d", "style", "src")


@dataclass
class Element:
    """An element with its attributes and all the text in it."""

    tag: str
    attributes: dict[str, str]
    inside: tuple[str, ...]
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).split())

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()


class Page(HTMLParser):
    """The elements of a page in order; a tag that is not closed as it should be is a fault."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.raw: dict[str, str] = {}
        self._open: list[Element] = []
        self.html = html
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {[one.tag for one in self._open]}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        assert len(given) == len(attributes), f"an attribute twice: {attributes}"
        one = Element(tag, given, tuple(parent.tag for parent in self._open))
        self.elements.append(one)
        if tag == "dd":  # begins a line of its own
            self.handle_data(" ")
        if tag not in _VOID:
            self._open.append(one)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for one in self._open:
            one.pieces.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def all(self, tag: str = "", class_: str = "") -> list[Element]:
        return [
            one
            for one in self.elements
            if (not tag or one.tag == tag) and (not class_ or class_ in one.classes)
        ]

    def one(self, tag: str = "", class_: str = "") -> Element:
        found = self.all(tag, class_)
        assert len(found) == 1, f"{len(found)} of {tag} {class_}"
        return found[0]

    @property
    def text(self) -> str:
        return self.one("main").text


def whole_page(html: str) -> Page:
    """A page, of which is seen that it is closed in itself and obeys its own policy."""
    assert html.startswith("<!DOCTYPE html>")
    page = Page(html)
    keep_to_themselves(page)
    policy = page.elements[3].attributes  # html, head, the encoding, then before all else this
    assert policy["http-equiv"] == "Content-Security-Policy"
    directives = dict(part.strip().split(" ", 1) for part in policy["content"].split(";"))
    script = {"script-src": _hash_of(page, "script")} if scripts_of(page) else {}
    assert directives == {
        "default-src": "'none'",
        "style-src": _hash_of(page, "style"),
        **script,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    identifiers = [one.attributes["id"] for one in page.elements if "id" in one.attributes]
    assert len({*identifiers}) == len(identifiers)
    for one in page.all("a"):
        assert one.attributes["href"][1:] in identifiers
    return page


def without_run(html: str) -> str:
    """A page without its command and date, in which pages of one result differ."""
    html = re.sub('(?<=<code id="command">)[^<]+', "", html)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", html)


def keep_to_themselves(page: Page) -> None:
    """No element leads out of the page, or does what its policy forbids."""
    for one in page.elements:
        assert not {"style", "src", "srcset", "action", "background"} & {*one.attributes}, one
        assert not [name for name in one.attributes if name.startswith("on")], one
        assert one.attributes.get("href", "#").startswith("#"), one
        assert one.tag not in ("link", "img", "iframe", "object", "embed", "base", "image"), one
    for one in page.all("style"):
        assert not re.search(r"url\(|@import", "".join(one.pieces))


def scripts_of(page: Page) -> list[Element]:
    """What the browser runs: a script of JSON is data."""
    return [one for one in page.all("script") if one.attributes.get("type") != "application/json"]


def data_of(page: Page) -> list[Any]:
    """The data that the script draws, in the order of the page."""
    scripts = [one for one in page.all("script") if "type" in one.attributes]
    return [json.loads("".join(one.pieces)) for one in scripts]


def _hash_of(page: Page, tag: str) -> str:
    (one,) = scripts_of(page) if tag == "script" else page.all(tag)
    digest = hashlib.sha256("".join(one.pieces).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def write_resnet(
    prefix: Path, *, units: tuple[int, ...] = (3, 8, 36, 3), stuck: bool = False
) -> int:
    """A checkpoint with the BN layers of a ResNet (152, unless `units` says otherwise).

    Returns how many layers it has.
    """
    random = np.random.default_rng(7)
    stored: dict[str, np.ndarray] = {"global_step": np.int64(1000)}  # type: ignore[dict-item]

    def layer(name: str, channels: int) -> None:
        made = {
            "gamma": random.normal(1, 0.2, channels),
            "beta": random.normal(0, 0.3, channels),
            "moving_mean": np.zeros(channels) if stuck else random.normal(0, 0.5, channels),
            "moving_variance": np.ones(channels) if stuck else random.lognormal(-1, 1.5, channels),
        }
        stored.update({f"{name}/{role}": one.astype("f4") for role, one in made.items()})

    layer("resnet_v1_152/conv1/BatchNorm", 64)
    for block, count in enumerate(units):
        width = 64 * 2**block
        for unit in range(count):
            scope = f"resnet_v1_152/block{block + 1}/unit_{unit + 1}/bottleneck_v1"
            if not unit:
                layer(f"{scope}/shortcut/BatchNorm", 4 * width)
            for name, channels in (("conv1", width), ("conv2", width), ("conv3", 4 * width)):
                layer(f"{scope}/{name}/BatchNorm", channels)
    write_bundle(prefix, stored)
    return len(stored) // 4
