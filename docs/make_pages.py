"""The documents of rules and causes, made by the program: `python docs/make_pages.py`.

`docs/rules/CODE.md` and `docs/causes/NAME.md` are the pages that `bninspect rule` shows, and
`docs/rules.md` lists them. A test fails if one of them is not what this makes.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bninspect.model.rule import Cause, Rule
from bninspect.reporters.rule_pages import write_document
from bninspect.rules import CAUSES, RULES
from bninspect.rules.pages import document_of, title_of

DOCS = Path(__file__).parent

_INTRODUCTION = """\
# Rules and causes

Every rule that `bninspect check` applies, and every cause that it can prove. Each has a page, with
the arithmetic behind it and code that fixes it. `bninspect rule CODE` and `bninspect rule CAUSE`
show the same page in a terminal, with `--for FRAMEWORK` the fixes of one framework first.
"""


def documents() -> Iterator[tuple[str, str]]:
    """Yield the path below docs/ and the text of each document that is made."""
    yield "rules.md", _index()
    for entry in (*RULES, *CAUSES):
        stream = io.StringIO()
        path = document_of(entry)
        write_document(entry, RULES, CAUSES, stream, address=partial(_link, path))
        yield path, stream.getvalue()


def _index() -> str:
    """Return the list of all pages.

    Each has a heading: addresses such as `rules.md#bn101-statistics-never-updated` stay valid.
    """
    parts = [_INTRODUCTION]
    listed: tuple[tuple[str, tuple[Rule | Cause, ...]], ...] = (
        ("Rules", tuple(RULES)),
        ("Causes", tuple(CAUSES)),
    )
    for heading, entries in listed:
        parts.append(f"\n## {heading}\n")
        for entry in entries:
            parts.append(f"\n### [{title_of(entry)}]({document_of(entry)})\n")
            kind = f"{entry.severity.capitalize()}: " if isinstance(entry, Rule) else ""
            parts.append(f"\n{kind}{entry.summary}.\n")
    return "".join(parts)


def _link(path: str, entry: Rule | Cause) -> str:
    """Return the address of the page of `entry`, relative to the document at `path`."""
    return posixpath.relpath(document_of(entry), posixpath.dirname(path))


def main() -> None:
    """Write all documents that are made."""
    for path, text in documents():
        document = DOCS / path
        document.parent.mkdir(exist_ok=True)
        document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
