"""Regular expressions for variable names of the user's own (`--pattern`), with a limit on time.

The expressions are those of Python's `re`. They are searched by the package `regex`, because `re`
knows no time limit: some expressions, such as (a|a)+b, would take years.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import regex

from bninspect.errors import UsageProblem
from bninspect.model.roles import Role

_SECONDS = 5.0  # for all names of a checkpoint; an ordinary expression takes 5 microseconds a name


class NamePattern(NamedTuple):
    """A role and the compiled expression that finds its names."""

    role: Role
    expression: Any

    def __str__(self) -> str:
        return f"{self.role}={self.expression.pattern}"


Patterns = tuple[NamePattern, ...]


def compile_pattern(role: Role, expression: str, where: str) -> NamePattern:
    """Return the pattern of a regular expression; raises `UsageProblem`, naming `where`."""
    try:
        return NamePattern(role, regex.compile(expression))
    except (regex.error, OverflowError, RecursionError) as error:
        raise UsageProblem(
            f"{where}: {expression!r} is not a regular expression: {error}."
        ) from error


class NameSearch:
    """Search of the names of one checkpoint by patterns, within 5 seconds in all."""

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = patterns
        self._end = time.monotonic() + _SECONDS

    def search(self, pattern: NamePattern, name: str) -> Any:
        """Return the match, or None; raises `UsageProblem` when the time is over."""
        try:
            left = max(self._end - time.monotonic(), 1e-3)
            return pattern.expression.search(name, timeout=left)
        except TimeoutError as error:
            raise UsageProblem(
                f"The pattern {pattern} takes more than {_SECONDS:g} seconds to search the names"
                f" of one checkpoint; it stopped at {name}. Avoid repetitions inside repetitions"
                " and of alternatives that overlap, such as (a+)+ and (a|a)+."
            ) from error

    def split(self, name: str) -> tuple[str, Role] | None:
        """Return scope and role of a name by the first pattern that matches it, or None.

        The scope is the group `layer` of the expression, else what stands before the match.
        """
        for pattern in self.patterns:
            if match := self.search(pattern, name):
                scope = match.groupdict().get("layer") or name[: match.start()].rstrip("/_.")
                return scope, pattern.role
        return None
