"""`bninspect rule --format json`: the catalogue of rules and causes with their pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

from bninspect.model.rule import Cause, Rule
from bninspect.reporters.json_v1 import heading, write_document
from bninspect.reporters.rule_pages import causes_of
from bninspect.rules.pages import Fix, Page, documentation_url, page_of


def write_rules(
    rules: Iterable[Rule],
    causes: Iterable[Cause],
    stream: TextIO,
    *,
    entry: Rule | Cause | None = None,
    framework: str | None = None,
) -> None:
    """Write all rules and causes, or `entry` alone, each with its whole page.

    With a `framework`, only what is for that one or for all.
    """
    rules, causes = tuple(rules), tuple(causes)
    document = {
        "rules": [_rule(rule, causes, framework) for rule in rules if entry in (None, rule)],
        "causes": [_cause(cause, framework) for cause in causes if entry in (None, cause)],
    }
    write_document(heading() | document, stream)


def _rule(rule: Rule, causes: Iterable[Cause], framework: str | None) -> dict[str, Any]:
    page = _page(rule, framework)
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": rule.severity,
        "summary": rule.summary,
        "url": documentation_url(rule),
        "meaning": page.meaning,
        "why": page.why,
        "arithmetic": page.arithmetic,
        "usual_causes": list(page.causes),
        "causes": [cause.name for cause in causes_of(rule, causes, framework)],
        "fixes": [_fix(fix) for fix in page.fixes],
    }


def _cause(cause: Cause, framework: str | None) -> dict[str, Any]:
    page = _page(cause, framework)
    return {
        "name": cause.name,
        "summary": cause.summary,
        "url": documentation_url(cause),
        "rules": list(cause.rules),
        "meaning": page.meaning,
        "proof": page.proof,
        "no_proof": page.unproved,
        "why": page.why,
        "usual_mistakes": list(page.causes),
        "fixes": [_fix(fix) for fix in page.fixes],
    }


def _page(entry: Rule | Cause, framework: str | None) -> Page:
    page = page_of(entry)
    return page if framework is None else page.for_framework(framework)


def _fix(fix: Fix) -> dict[str, Any]:
    return {
        "for": fix.where,
        "frameworks": list(fix.frameworks),
        "text": fix.text,
        "code": fix.code or None,
    }
