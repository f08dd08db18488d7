"""Parsing a configuration file into a `Config`. An error names the file and the key.

The syntax is TOML 1.0; the keys are those of `_KEYS`, spelled like the options.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from bninspect.config.model import (
    PROJECT_FILE,
    Config,
    Setting,
    checked_momentum,
    checked_pattern,
)
from bninspect.errors import UsageProblem
from bninspect.model.report import Suppression
from bninspect.model.roles import ROLES
from bninspect.model.rule import SEVERITIES
from bninspect.model.target import PathPattern
from bninspect.rules import select_rules
from bninspect.wording import did_you_mean, nearest

if TYPE_CHECKING:
    from bninspect.batchnorm.name_patterns import NamePattern, Patterns

Word = TypeVar("Word", bound=str)

_SETTINGS: tuple[Setting, ...] = (*SEVERITIES, "off")
_ENTRY_KEYS = ("layer", "rules", "reason", "expires")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TYPES: Mapping[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "a table",
}


def parse_config(content: bytes, file: str) -> Config | None:
    """Parse a file; None for a `pyproject.toml` without a table `[tool.bninspect]`.

    Raises `UsageProblem`, naming the file as `file`.
    """
    table = _parse(content, file)
    prefix = ""
    if os.path.basename(file) == PROJECT_FILE:
        tool = table.get("tool")
        if not isinstance(tool, dict) or "bninspect" not in tool:
            return None
        prefix = "tool.bninspect"
        table = _table(tool["bninspect"], f"{file}: {prefix}")
        prefix += "."
    elif "tool" in table:
        _fail(file, "in this file the keys stand at the top, not below [tool.bninspect].")
    values, sources = {}, {}
    for key, value in table.items():
        if key not in _KEYS:
            _fail(file, f"{(prefix + key)!r} is not a key.{_suggestion(key, _KEYS)}")
        where = f"{file}: {prefix}{key}"
        values[key.replace("-", "_")] = _KEYS[key](value, where)
        sources[key] = (where,)
    if "baseline" in values:
        values["baseline"] = os.path.join(os.path.dirname(file), values["baseline"])
    return Config(**values, file=file, sources=sources)


def _parse(content: bytes, file: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        from tomllib import loads
    else:
        from tomli import loads
    try:
        text = content.decode("utf-8-sig")  # editors on Windows write a byte order mark
        document: dict[str, Any] = loads(text)
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 (byte {error.start})"
        raise UsageProblem(f"{file} is not valid TOML: {reason}.") from error
    except ValueError as error:  # TOMLDecodeError, and what int() and datetime refuse
        raise UsageProblem(f"{file} is not valid TOML: {error}.") from error
    except RecursionError as error:
        reason = "its values are nested too deeply"
        raise UsageProblem(f"{file} is not valid TOML: {reason}.") from error
    return document


def _codes(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_code(code, where) for code in _array(value, where, "rule codes"))


def _selected(value: Any, where: str) -> tuple[str, ...]:
    codes = _codes(value, where)
    if not codes:
        _fail(where, "it names no rule.")
    return codes


def _severities(value: Any, where: str) -> tuple[tuple[str, Setting], ...]:
    return tuple(
        (_code(code, where), _one_of(setting, _SETTINGS, f"{where}.{code}"))
        for code, setting in _table(value, where).items()
    )


def _fail_on(value: Any, where: str) -> str:
    return _one_of(value, (*SEVERITIES, "never"), where)


def _momentum(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong_type(value, "a number", where)
    return checked_momentum(value, where)


def _patterns(value: Any, where: str) -> Patterns:
    return tuple(_each_pattern(_table(value, where), where))


def _each_pattern(table: Mapping[str, Any], where: str) -> Iterator[NamePattern]:
    for name, expressions in table.items():
        role = _one_of(name, ROLES, where)
        key = f"{where}.{role}"
        if isinstance(expressions, str):
            expressions = [expressions]  # noqa: PLW2901 - a string stands for a list of one
        for expression in _array(expressions, key, "regular expressions"):
            if not expression:
                _fail(key, "an empty expression matches every name.")
            yield checked_pattern(role, expression, key)


def _suppressions(value: Any, where: str) -> tuple[Suppression, ...]:
    if not isinstance(value, list):
        _wrong_type(value, f"an array of tables, [[{where.rpartition(' ')[2]}]]", where)
    return tuple(
        _suppression(entry, f"{where}, entry {number}") for number, entry in enumerate(value, 1)
    )


def _suppression(value: Any, where: str) -> Suppression:
    entry = _table(value, where)
    for key in entry:
        if key not in _ENTRY_KEYS:
            _fail(where, f"{key!r} is not a key.{_suggestion(key, _ENTRY_KEYS)}")
    missing = next((key for key in ("layer", "rules", "reason") if key not in entry), None)
    if missing:
        _fail(where, f"{missing} is missing; an entry has layer, rules and reason.")
    reason = _string(entry["reason"], f"{where}: reason").strip()
    if not reason:
        _fail(where, "reason is empty; say why these findings are accepted.")
    return Suppression(
        layer=_string(entry["layer"], f"{where}: layer"),
        rules=_selected(entry["rules"], f"{where}: rules"),
        reason=reason,
        expires=_date(entry["expires"], f"{where}: expires") if "expires" in entry else None,
        where=where,
    )


def _date(value: Any, where: str) -> date:
    if type(value) is date:  # a date with a time is a subclass
        return value
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        _fail(where, f"expected a date such as 2030-12-31, got {value!r}.")
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise UsageProblem(f"{where}: {value} is not a date of the calendar.") from error


def _code(code: Any, where: str) -> str:
    try:
        select_rules([code], ())
    except UsageProblem as problem:
        raise UsageProblem(f"{where}: {problem}") from problem
    return str(code).upper()


def _one_of(value: Any, known: Iterable[Word], where: str) -> Word:
    word = _string(value, where)
    match = next((known_word for known_word in known if known_word == word), None)
    if match is None:
        _fail(where, f"{word!r} is not a known value.{_suggestion(word, known)}")
    return match


def _array(value: Any, where: str, items: str) -> list[str]:
    if not isinstance(value, list):
        _wrong_type(value, f"an array of {items}", where)
    for item in value:
        if not isinstance(item, str):
            _wrong_type(item, f"an array of {items}", where, "one with ")
    return value


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _wrong_type(value, "a table", where)
    return value


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        _wrong_type(value, "a string", where)
    if not value:
        _fail(where, "it is empty.")
    return value


def _file(value: Any, where: str) -> str:
    name = _string(value, where)
    if "\0" in name:
        _fail(where, "a path cannot hold a NUL character.")
    return name


def _wrong_type(value: Any, expected: str, where: str, prefix: str = "") -> NoReturn:
    got = _TYPES.get(type(value), "a date or time")
    _fail(where, f"expected {expected}, got {prefix}{got}.")


def _fail(where: str, message: str) -> NoReturn:
    raise UsageProblem(f"{where}: {message}")


def _suggestion(word: str, known: Iterable[str]) -> str:
    """Return the sentence after that on an unknown word: the nearest known word, or all of them."""
    names = list(known)
    return did_you_mean(nearest(word, names, cutoff=0.5)) or f" Known: {', '.join(names)}."


def _path_patterns(value: Any, where: str) -> tuple[PathPattern, ...]:
    base = os.path.dirname(where.rpartition(": ")[0]) or os.curdir
    texts = _array(value, where, "patterns")
    for text in texts:
        if not text.strip():
            _fail(where, "an empty pattern matches nothing.")
    return tuple(PathPattern(base, text) for text in texts)


_KEYS: Mapping[str, Callable[[Any, str], Any]] = {
    "select": _selected,
    "ignore": _codes,
    "exclude": _path_patterns,
    "include": _path_patterns,
    "severity": _severities,
    "fail-on": _fail_on,
    "momentum": _momentum,
    "patterns": _patterns,
    "suppress": _suppressions,
    "baseline": _file,
}
