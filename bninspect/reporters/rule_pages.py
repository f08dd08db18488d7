"""`bninspect rule`: the catalogue, and the pages of rules and causes, as text or Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, TextIO

from bninspect.model.frameworks import FRAMEWORKS
from bninspect.model.rule import Cause, Rule
from bninspect.reporters.text_utils import bold, folded, wrap
from bninspect.rules.pages import Fix, anchor_of, page_of, title_of

_CODE_LANGUAGE = "python"
_INTRODUCTION = (
    "Every rule that `bninspect check` applies, and every cause that it can prove. The same pages"
    " are shown by `bninspect rule CODE` and `bninspect rule CAUSE`."
)
_SAMPLES = (
    "Names that the code does not define, such as `images`, `x` (the activations before the layer)"
    " or `optimizer`, are those of your training; in TF1 code `tf` is TensorFlow 1, or"
    " `tensorflow.compat.v1`. bninspect's tests run this code as it stands."
)

_NO_FIX = "This page has no fix for it; without --for it has those for other frameworks."


class _Block(NamedTuple):
    """A part of a page, before it is written as text or Markdown."""

    kind: Literal["heading", "paragraph", "items", "formulas", "framework", "code"]
    text: str = ""
    items: tuple[str, ...] = ()


def write_catalogue(
    rules: Iterable[Rule], causes: Iterable[Cause], stream: TextIO, *, width: int | None = None
) -> None:
    """Write one line per rule, then one per cause, folded to the `width` of a terminal."""
    for rule in rules:
        _write_entry(f"{rule.code}  {rule.severity:<8} {rule.name:<26} ", rule, stream, width)
    stream.write("\nCauses, where the files prove one:\n")
    for cause in causes:
        _write_entry(f"{cause.name:<26} ", cause, stream, width)
    stream.write(
        "\nbninspect rule CODE shows what a rule means and how to fix what it finds;"
        "\nbninspect rule CAUSE, what proves a cause.\n"
    )


def _write_entry(head: str, entry: Rule | Cause, stream: TextIO, width: int | None) -> None:
    lines = [head + entry.summary]
    if width is not None:
        lines = wrap(head, entry.summary, width, len(head))
    stream.write("".join(f"{line}\n" for line in lines))


def write_page(
    entry: Rule | Cause,
    rules: Iterable[Rule],
    causes: Iterable[Cause],
    stream: TextIO,
    *,
    framework: str | None = None,
    width: int = 80,
    color: bool = False,
) -> None:
    """Write the page of a rule or a cause as text of at most `width` columns.

    With a `framework`, only what is for that one or for all, how to fix it first. With `color`,
    headings are bold and code is highlighted.
    """
    kind = entry.severity if isinstance(entry, Rule) else "cause"
    stream.write(bold(f"{title_of(entry)} ({kind})", color=color) + "\n")
    related = _related(entry, rules, causes, framework)
    for block in _page(entry, related, framework=framework):
        if color and block.kind == "code":
            stream.write(f"\n{textwrap.indent(_highlighted(block.text), '    ')}\n")
        else:
            text = _as_text(block, width)
            stream.write(bold(text, color=color and block.kind == "heading"))


def _highlighted(code: str) -> str:
    """Return code with syntax colours; its lines are not folded."""
    from rich.console import Console
    from rich.syntax import Syntax

    console = Console(width=1000, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        highlighted = Syntax("", _CODE_LANGUAGE, theme="ansi_dark").highlight(code)
        console.print(highlighted, soft_wrap=True, end="")
    return capture.get().rstrip("\n")


def write_markdown(
    rules: Iterable[Rule],
    causes: Iterable[Cause],
    stream: TextIO,
    *,
    entry: Rule | Cause | None = None,
    framework: str | None = None,
) -> None:
    """Write the whole catalogue as Markdown, or the page of `entry` alone.

    `framework` is that of `write_page`.
    """
    rules, causes = tuple(rules), tuple(causes)
    if entry is not None:
        _write_markdown_page(entry, _related(entry, rules, causes, framework), stream, framework)
        return
    stream.write(f"# Rules and causes\n\n{_INTRODUCTION}\n")
    for title, listed in (("Rules", rules), ("Causes", causes)):
        stream.write(f"\n**{title}**\n\n")
        for item in listed:
            stream.write(f"- [{title_of(item)}]({_anchor(item)}): {item.summary}\n")
    entries: tuple[Rule | Cause, ...] = (*rules, *causes)
    for item in entries:
        stream.write("\n")
        related = _related(item, rules, causes, framework)
        _write_markdown_page(item, related, stream, framework, address=_anchor)


def write_document(
    entry: Rule | Cause,
    rules: Iterable[Rule],
    causes: Iterable[Cause],
    stream: TextIO,
    *,
    address: Callable[[Rule | Cause], str],
) -> None:
    """Write the page of a rule or a cause as a Markdown document with a title of its own.

    `address` returns the address of the page of another rule or cause, for the links.
    """
    related = _related(entry, rules, causes, None)
    _write_markdown_page(entry, related, stream, None, address=address, level=1)


def _write_markdown_page(
    entry: Rule | Cause,
    related: tuple[Rule | Cause, ...],
    stream: TextIO,
    framework: str | None,
    *,
    address: Callable[[Rule | Cause], str] | None = None,
    level: int = 2,
) -> None:
    """Write a page whose title is a heading of this level; without `address` it has no links."""
    stream.write(f"{'#' * level} {title_of(entry)}\n")
    if isinstance(entry, Rule):
        stream.write(f"\nSeverity: {entry.severity}.\n")
    for block in _page(entry, related, address=address, framework=framework):
        stream.write(_as_markdown(block, level + 1))


def _anchor(entry: Rule | Cause) -> str:
    return f"#{anchor_of(entry)}"


def causes_of(rule: Rule, causes: Iterable[Cause], framework: str | None) -> tuple[Cause, ...]:
    """Return those of `causes` that a rule may give; with a `framework`, in that one."""
    return tuple(
        cause
        for cause in causes
        if rule.code in cause.rules
        and (framework is None or not cause.frameworks or framework in cause.frameworks)
    )


def _related(
    entry: Rule | Cause, rules: Iterable[Rule], causes: Iterable[Cause], framework: str | None
) -> tuple[Rule | Cause, ...]:
    """Return the causes that a rule may give (in a framework), or the rules a cause explains."""
    if isinstance(entry, Rule):
        return causes_of(entry, causes, framework)
    return tuple(rule for rule in rules if rule.code in entry.rules)


def _page(
    entry: Rule | Cause,
    related: tuple[Rule | Cause, ...],
    *,
    address: Callable[[Rule | Cause], str] | None = None,
    framework: str | None = None,
) -> Iterator[_Block]:
    page = page_of(entry)
    is_cause = isinstance(entry, Cause)
    yield _Block("paragraph", f"{entry.summary}.")
    if framework is not None:
        page = page.for_framework(framework)
        yield from _fixes(page.fixes, f"How to fix it: {FRAMEWORKS[framework]}")
    yield from _prose("What it means", page.meaning)
    if is_cause:
        yield from _prose("What proves it", page.proof)
        yield from _prose("What does not", page.unproved)
    yield from _prose("Why it is bad", page.why)
    yield _Block("formulas", page.arithmetic)
    if page.causes:
        yield _Block("heading", "Usual mistakes behind it" if is_cause else "Usual causes")
        yield _Block("items", items=page.causes)
    if related:
        title = "Rules that may give it" if is_cause else "Causes that the files may prove"
        yield _Block("heading", title)
    yield _Block("items", items=tuple(_reference(other, address) for other in related))
    if framework is None:
        yield from _fixes(page.fixes, "How to fix it")


def _reference(entry: Rule | Cause, address: Callable[[Rule | Cause], str] | None) -> str:
    name = title_of(entry) if address is None else f"[{title_of(entry)}]({address(entry)})"
    return f"{name}: {entry.summary}"


def _prose(heading: str, text: str) -> Iterator[_Block]:
    yield _Block("heading", heading)
    for index, paragraph in enumerate(text.split("\n\n")):
        yield _Block("paragraph", paragraph if not index else f"\n{paragraph}")


def _fixes(fixes: Iterable[Fix], heading: str) -> Iterator[_Block]:
    fixes = tuple(fixes)
    yield _Block("heading", heading)
    if not fixes:
        yield _Block("paragraph", _NO_FIX)
    if any(fix.code for fix in fixes):
        yield _Block("paragraph", _SAMPLES)
    for fix in fixes:
        yield _Block("framework", fix.where, (fix.text,) if fix.text else ())
        if fix.code:
            yield _Block("code", fix.code)


def _as_text(block: _Block, width: int) -> str:
    match block.kind:
        case "heading":
            return f"\n{block.text}\n"
        case "paragraph":
            gap = "\n" if block.text.startswith("\n") else ""
            return f"{gap}{_folded(block.text.strip(), width)}\n"
        case "items":
            return "".join(
                textwrap.indent(_folded(item, width - 2), "  ").replace("  ", "- ", 1) + "\n"
                for item in block.items
            )
        case "framework":
            return f"\n{_folded(' '.join((f'{block.text}:', *block.items)), width)}\n"
        case "formulas":
            return f"\n{textwrap.indent(block.text, '  ')}\n"
        case "code":
            return f"\n{textwrap.indent(block.text, '    ')}\n"


def _folded(text: str, width: int) -> str:
    return "\n".join(folded(text, width))


def _as_markdown(block: _Block, level: int) -> str:
    """Return a block as Markdown, with headings of this level.

    A paragraph is one line, for a folded one may begin a list.
    """
    match block.kind:
        case "heading":
            return f"\n{'#' * level} {block.text}\n"
        case "paragraph":
            return f"\n{block.text.strip()}\n"
        case "items":
            return "" if not block.items else "\n" + "".join(f"- {item}\n" for item in block.items)
        case "framework":
            return "\n" + " ".join((f"**{block.text}.**", *block.items)) + "\n"
        case "formulas":
            return f"\n```text\n{block.text}\n```\n"
        case "code":
            return f"\n```{_CODE_LANGUAGE}\n{block.text}\n```\n"
