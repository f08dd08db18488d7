"""Templates, and the escapes by which a value from a file becomes text in a page.

Whatever a template writes is escaped, and control and direction marks are shown as escapes: a name
cannot become markup, nor turn the text around it.
"""

from __future__ import annotations

import base64
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bninspect.errors import shortened
from bninspect.reporters.escapes import printable
from bninspect.reporters.html.charts import HEIGHT, WIDTH, number
from bninspect.reporters.html.layers import STATES
from bninspect.wording import plural

_HERE = Path(__file__).parent
# The files of the script, each of which uses those before it.
_SCRIPTS = ("elements", "charts", "map", "tables", "layers", "compare", "page")


def render(template: str, **values: Any) -> Markup:
    """Return a template of this directory, filled in."""
    return Markup(_environment().get_template(template).render(**values))  # noqa: S704 - escaped


def write(stream: TextIO, template: str, **values: Any) -> None:
    """Write a template, filled in, piece by piece: a page may be large."""
    for piece in _environment().get_template(template).generate(**values):
        stream.write(piece)


def asset(name: str) -> Markup:
    """Return a file of this directory."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))  # noqa: S704 - our own


def scripts() -> Markup:
    """Return the script of a page: all files of it in one function, in their order."""
    body = Markup("\n").join(asset(f"script/{name}.js") for name in _SCRIPTS)
    return Markup('(() => {{\n"use strict";\n{}}})();').format(body)


def policy(*, has_script: bool = True) -> str:
    """Return the Content-Security-Policy of a page: its own style and script alone."""
    script = f" script-src '{_hash(scripts())}';" if has_script else ""
    return (
        f"default-src 'none'; style-src '{_hash(asset('style.css'))}';{script}"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters.update(
        prose=prose,
        unfolded=lambda text: " ".join(text.split()),
        lines=_lines,
        plural=plural,
        number=number,
        shortened=lambda name: shortened(printable(name)),
        name=_name,
    )
    environment.globals.update(WIDTH=WIDTH, HEIGHT=HEIGHT, STATES=STATES)
    return environment


def _printable(value: Any) -> Any:
    return printable(value) if type(value) is str else value


def _name(name: str) -> Markup:
    """Return a name or path that may break after a slash and does not change the text's direction.

    One of blanks alone is quoted: a link needs something to be seen.
    """
    parts = map(escape, printable(name if name.strip() else f"'{name}'").split("/"))
    return Markup("<bdi>{}</bdi>").format(Markup("/<wbr>").join(parts))


def _lines(text: str) -> Markup:
    """Return code, or columns of figures, with their line breaks; it scrolls, by keyboard too."""
    return Markup('<pre tabindex="0">{}</pre>').format("\n".join(map(printable, text.splitlines())))


def prose(text: str) -> Markup:
    """Return a sentence, with what stands between backticks as code."""
    parts = printable(text).split("`")
    if len(parts) % 2 == 0:
        return escape("`".join(parts))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )
