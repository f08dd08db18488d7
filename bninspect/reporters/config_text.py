"""`bninspect config`: the configuration that `check` uses, and the source of each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from bninspect.config.model import Config
from bninspect.model.report import Suppression
from bninspect.model.rule import Rule
from bninspect.reporters.escapes import printable, write_lines
from bninspect.reporters.text_utils import wrap

# The keys of a configuration file, as `Config` has them.
_KEYS = (
    "select",
    "ignore",
    "exclude",
    "include",
    "severity",
    "fail-on",
    "momentum",
    "patterns",
    "baseline",
    "suppress",
)
_DEFAULT = "default"


def write_config(
    config: Config, rules: Sequence[Rule], stream: TextIO, *, width: int | None = None
) -> None:
    """Write one line per value with its source in brackets; `rules` are those that run."""
    lines = [f"file      {printable(config.file or 'none')}"]
    for key in _KEYS:
        sources = ", ".join(_sources(config, key))
        for number, text in enumerate(_shown(key, _value(config, key))):
            head = "" if number else key
            lines += wrap(f"{head:<10}", f"{text}  ({sources})", width or 100, 12)
    codes = ", ".join(rule.code for rule in rules)
    lines += wrap("rules     ", codes or "none", width or 100, 10)
    write_lines(stream, lines)


def config_document(config: Config, rules: Sequence[Rule]) -> dict[str, Any]:
    """Return the configuration for JSON: each value as a file has it, with its sources."""
    return {
        "file": config.file,
        "values": {
            key: {"value": _value(config, key), "sources": _sources(config, key)} for key in _KEYS
        },
        "rules": [rule.code for rule in rules],
    }


def _sources(config: Config, key: str) -> list[str]:
    return list(config.sources.get(key, (_DEFAULT,)))


def _value(config: Config, key: str) -> Any:
    """Return a value as a configuration file has it; None where there is none."""
    value = getattr(config, key.replace("-", "_"))
    if key == "severity":
        return dict(value)
    if key in ("exclude", "include"):
        return [pattern.text for pattern in value]
    if key == "patterns":
        patterns: dict[str, list[str]] = {}
        for role, expression in value:
            patterns.setdefault(role, []).append(expression.pattern)
        return patterns
    if key == "suppress":
        return [_suppression(suppression) for suppression in value]
    return list(value) if isinstance(value, tuple) else value


def _suppression(suppression: Suppression) -> dict[str, Any]:
    layer, rules, reason, expires, _ = suppression
    return {
        "layer": layer,
        "rules": list(rules),
        "reason": reason,
        "expires": None if expires is None else expires.isoformat(),
    }


def _shown(key: str, value: Any) -> list[str]:
    """Return a value as lines: one, or one for each suppression."""
    if key == "suppress":
        return [_in_words(suppression) for suppression in value] or ["none"]
    if isinstance(value, dict):
        pairs = [
            f"{name} = {item}"
            for name, entry in value.items()
            for item in (entry if isinstance(entry, list) else [entry])
        ]
        return [", ".join(pairs) or "none"]
    if isinstance(value, list):
        return [", ".join(value) or ("all" if key == "select" else "none")]
    return ["none" if value is None else str(value)]


def _in_words(suppression: dict[str, Any]) -> str:
    until = f" until {suppression['expires']}" if suppression["expires"] else ""
    rules = ", ".join(suppression["rules"])
    return f"{rules} in {suppression['layer']!r}{until}: {suppression['reason']}"
