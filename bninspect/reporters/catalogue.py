"""`bninspect rule`: the catalogue, and one rule's page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TextIO

from bninspect.findings import Rule

# What there is to do in any framework is told in sentences, in one framework as code.
_PROSE = "Any framework"


def write_catalogue(rules: Iterable[Rule], stream: TextIO) -> None:
    """One line a rule."""
    for rule in rules:
        stream.write(f"{rule.code}  {rule.severity:<8} {rule.name:<26} {rule.summary}\n")
    stream.write("\nbninspect rule CODE shows what a rule means and how to fix what it finds.\n")


def write_rule(rule: Rule, stream: TextIO, *, width: int = 80) -> None:
    """A rule's page: what it means, why it is bad, usual causes, how to fix it."""

    def paragraph(text: str) -> None:
        stream.write(textwrap.fill(text, width) + "\n")

    stream.write(f"{rule.code} {rule.name} ({rule.severity})\n")
    paragraph(f"{rule.summary}.")
    stream.write("\nWhat it means\n")
    paragraph(rule.doc.meaning)
    stream.write("\nWhy it is bad\n")
    paragraph(rule.doc.why)
    stream.write("\nUsual causes\n")
    for cause in rule.doc.causes:
        lines = textwrap.fill(cause, width, initial_indent="- ", subsequent_indent="  ")
        stream.write(lines + "\n")
    if rule.doc.fixes:
        stream.write("\nHow to fix it\n")
    for framework, code in rule.doc.fixes.items():
        stream.write(f"\n{framework}:\n\n{textwrap.indent(code, '    ')}\n")


def rule_markdown(rule: Rule) -> str:
    """A rule's page in Markdown, without its title."""
    parts = [f"{rule.summary}."]
    parts += ["## What it means", rule.doc.meaning, "## Why it is bad", rule.doc.why]
    parts += ["## Usual causes", "\n".join(f"- {cause}" for cause in rule.doc.causes)]
    if rule.doc.fixes:
        parts.append("## How to fix it")
    for framework, code in rule.doc.fixes.items():
        told = code if framework == _PROSE else f"```python\n{code}\n```"
        parts += [f"### {framework}", told]
    return "\n\n".join(parts) + "\n"
