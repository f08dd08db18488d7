"""The pages of rules and causes: Markdown files beside this module, read on demand.

`CODE.md` is the page of a rule, `causes/NAME.md` that of a cause. Pages link to `fixes/NAME.md`, a
fix that several of them share. The sections of a page and their order are fixed; a file that has
others is a `ValueError`.

What is for some frameworks alone says so in an attribute, an item of a list at its end, code at its
beginning: `{.keras-2 .keras-3}`. All else is for all of `FRAMEWORKS`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bninspect.model.frameworks import FRAMEWORKS
from bninspect.model.rule import Cause, Rule

DIRECTORY = Path(__file__).parent
_DOCUMENTS = "https://github.com/bninspect/bninspect/blob/main/docs"

_RULE_SECTIONS = ("What it means", "Why it is bad", "Usual causes", "How to fix it")
_CAUSE_SECTIONS = (
    "What it means",
    "What proves it",
    "What does not",
    "Why it is bad",
    "Usual mistakes behind it",
    "How to fix it",
)
# A fenced block, or lines up to the next empty one.
_BLOCK = re.compile(r"```[a-z]+[^\n]*\n.*?\n```(?=\n|\Z)|(?:[^\n]+(?:\n|\Z))+", re.DOTALL)
_FENCE = re.compile(
    r"```(?P<language>[a-z]+)(?: (?P<for>\{[^}\n]*\}))?\n(?P<text>.*)\n```", re.DOTALL
)
_ATTRIBUTE = re.compile(r"(?P<text>.*?)(?: (?P<for>\{\.[^}]*\}))?")
_ITEM = re.compile(r"^- ", re.MULTILINE)
_LINKED_FIX = re.compile(r"\[(?P<where>[^\]]+)\]\((?P<file>[^)]+\.md)\)(?:: (?P<text>.+))?")
_OWN_FIX = re.compile(r"(?P<where>[^:`]+): (?P<text>.+)")


class Fix(NamedTuple):
    """One way to fix a finding: for what, a sentence, and Python code that the tests run.

    `text` or `code` may be empty, not both. `frameworks` are those that it is for; none where it is
    for all.
    """

    where: str
    text: str = ""
    code: str = ""
    frameworks: tuple[str, ...] = ()


class Page(NamedTuple):
    """The documentation of a rule or a cause. Paragraphs are separated by an empty line.

    `proof` says what in the files proves a cause and `unproved` what does not; both are empty for a
    rule. `arithmetic` is what inference computes: lines of up to 78 characters, columns separated
    by two spaces, results as `EXPRESSION = NUMBER`. `causes` are those of a rule, or the mistakes
    behind a cause; `cause_frameworks` says of each for which frameworks it is, none for all.
    """

    meaning: str
    proof: str
    unproved: str
    why: str
    arithmetic: str
    causes: tuple[str, ...]
    fixes: tuple[Fix, ...]
    cause_frameworks: tuple[tuple[str, ...], ...]

    def for_framework(self, framework: str) -> Page:
        """Return the page without what is for other frameworks alone."""
        causes = [
            (text, frameworks)
            for text, frameworks in zip(self.causes, self.cause_frameworks, strict=True)
            if not frameworks or framework in frameworks
        ]
        fixes = [fix for fix in self.fixes if not fix.frameworks or framework in fix.frameworks]
        return self._replace(
            causes=tuple(text for text, _ in causes),
            cause_frameworks=tuple(frameworks for _, frameworks in causes),
            fixes=tuple(fixes),
        )

    def has_fix_for(self, framework: str) -> bool:
        """Return whether a fix is for this framework, and not for all."""
        return any(framework in fix.frameworks for fix in self.fixes)


def title_of(entry: Rule | Cause) -> str:
    """Return the title of a page."""
    return f"{entry.code} {entry.name}" if isinstance(entry, Rule) else entry.name


def anchor_of(entry: Rule | Cause) -> str:
    """Return the anchor that GitHub makes of the title of a page."""
    return title_of(entry).lower().replace(" ", "-")


def document_of(entry: Rule | Cause) -> str:
    """Return the path of the page of a rule or a cause below docs/."""
    return f"rules/{entry.code}.md" if isinstance(entry, Rule) else f"causes/{entry.name}.md"


def documentation_url(entry: Rule | Cause) -> str:
    """Return the address of the page of a rule or a cause on the web."""
    return f"{_DOCUMENTS}/{document_of(entry)}"


@cache
def page_of(entry: Rule | Cause) -> Page:
    """Read the page of a rule or a cause; raise `ValueError` if the file is not written as one."""
    if isinstance(entry, Rule):
        path = DIRECTORY / f"{entry.code}.md"
        headings: tuple[str, ...] = _RULE_SECTIONS
    else:
        path = DIRECTORY / "causes" / f"{entry.name}.md"
        headings = _CAUSE_SECTIONS
    sections = _sections(path, title_of(entry), headings)
    *why, arithmetic = sections["Why it is bad"]
    causes = [_attributed(path, item) for item in _items(path, sections[headings[-2]])]
    return Page(
        meaning=_prose(path, sections["What it means"]),
        proof=_prose(path, sections.get("What proves it", ())),
        unproved=_prose(path, sections.get("What does not", ())),
        why=_prose(path, why),
        arithmetic=_fenced(path, arithmetic, "text"),
        causes=tuple(text for text, _ in causes),
        fixes=tuple(_fix(path, item) for item in _items(path, sections["How to fix it"])),
        cause_frameworks=tuple(frameworks for _, frameworks in causes),
    )


def _sections(path: Path, title: str, headings: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the blocks of text under each heading, which must be `headings` in this order."""
    first, *blocks = _blocks(path)
    if first != f"# {title}":
        raise ValueError(f"{path}: expected the title '# {title}', got {first!r}")
    sections: dict[str, list[str]] = {}
    for block in blocks:
        if block.startswith("#"):
            sections[block.removeprefix("## ")] = []
        elif not sections:
            raise ValueError(f"{path}: text before the first section")
        else:
            [*sections.values()][-1].append(block)
    if tuple(sections) != headings:
        raise ValueError(f"{path}: expected the sections {headings}, got {tuple(sections)}")
    for heading, content in sections.items():
        if not content:
            raise ValueError(f"{path}: the section {heading!r} is empty")
    return sections


def _blocks(path: Path) -> list[str]:
    return [block.rstrip("\n") for block in _BLOCK.findall(path.read_text(encoding="utf-8"))]


def _prose(path: Path, blocks: list[str] | tuple[()]) -> str:
    """Return paragraphs, each in one line, separated by empty lines."""
    for block in blocks:
        if block.startswith("- ") or "```" in block:
            raise ValueError(f"{path}: expected a paragraph, got {block!r}")
    return "\n\n".join(" ".join(block.split()) for block in blocks)


def _items(path: Path, blocks: list[str]) -> tuple[str, ...]:
    """Return the items of a list, each in one line."""
    if len(blocks) != 1 or not blocks[0].startswith("- "):
        raise ValueError(f"{path}: expected one list, got {blocks}")
    return tuple(" ".join(item.split()) for item in _ITEM.split(blocks[0])[1:])


def _attributed(path: Path, item: str) -> tuple[str, tuple[str, ...]]:
    """Return the text of an item, and the frameworks that it is for."""
    parts = _ATTRIBUTE.fullmatch(item)
    if parts is None:
        raise ValueError(f"{path}: expected one line, got {item!r}")
    return parts["text"], _frameworks(path, parts["for"])


def _frameworks(path: Path, attribute: str | None) -> tuple[str, ...]:
    """Return the frameworks that an attribute names; raise `ValueError` for others."""
    named = tuple(
        word.removeprefix(".") for word in (attribute or "").strip("{}").split()
    )
    if unknown := [name for name in named if name not in FRAMEWORKS]:
        raise ValueError(f"{path}: {unknown[0]!r} is none of {', '.join(FRAMEWORKS)}")
    return named


def _fix(page: Path, item: str) -> Fix:
    """Return a fix that is linked, with the item's own text if it has one, or written out."""
    item, frameworks = _attributed(page, item)
    if linked := _LINKED_FIX.fullmatch(item):
        path = page.parent / linked["file"]
        *text, last = _blocks(path)
        code = ""
        if last.startswith("```"):
            code, frameworks = _code(path, last)
        else:
            text = [*text, last]
        return Fix(linked["where"], linked["text"] or _prose(path, text), code, frameworks)
    if own := _OWN_FIX.fullmatch(item):
        return Fix(own["where"], own["text"], frameworks=frameworks)
    raise ValueError(f"{page}: expected '[WHERE](fixes/NAME.md)' or 'WHERE: TEXT', got {item!r}")


def _code(path: Path, block: str) -> tuple[str, tuple[str, ...]]:
    """Return the Python code of a block, and the frameworks that it is for."""
    fence = _FENCE.fullmatch(block)
    return _fenced(path, block, "python"), _frameworks(path, fence and fence["for"])


def _fenced(path: Path, block: str, language: str) -> str:
    fence = _FENCE.fullmatch(block)
    if fence is None or fence["language"] != language:
        raise ValueError(f"{path}: expected a block of {language}, got {block!r}")
    return fence["text"]
