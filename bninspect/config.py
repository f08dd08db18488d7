"""What a run is told to do: the options, checked once and frozen."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from bninspect.errors import UsageProblem
from bninspect.model import ENGINES, ROLES, Engine, Role


@dataclass(frozen=True)
class Config:
    """The options of a run.

    `select` and `ignore` are rule codes or their beginnings. `momentum` stands in where no stored
    configuration tells it. `patterns` are (role, expression) pairs for names of the user's own.
    `all_checkpoints` takes all of a training directory instead of its newest. `engine` is what
    reads the files: `native` or `tensorflow`. `since` is an earlier checkpoint to compare with.
    `skip_unknown` judges files that are named as those that are found in a directory.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    momentum: float | None = None
    patterns: tuple[tuple[Role, re.Pattern[str]], ...] = ()
    all_checkpoints: bool = False
    engine: Engine = "native"
    since: str | None = None
    skip_unknown: bool = False


def make_config(
    select: str | Iterable[str] = (),
    ignore: str | Iterable[str] = (),
    momentum: float | None = None,
    patterns: str | Iterable[str] = (),
    *,
    all_checkpoints: bool = False,
    engine: str = "native",
    since: str | os.PathLike[str] | None = None,
    skip_unknown: bool = False,
) -> Config:
    """Check the options and freeze them.

    `select` and `ignore` may hold several codes in one string, set apart by commas; each of
    `patterns` is `ROLE=REGEX`. One string stands for a list of it. Raises
    `UsageProblem`, naming the option at fault.
    """
    if engine not in ENGINES:
        raise UsageProblem(f"--engine is one of {', '.join(ENGINES)}, not {engine!r}.")
    if momentum is not None and not (math.isfinite(momentum) and 0.0 <= momentum < 1.0):
        raise UsageProblem(f"--momentum must be at least 0 and below 1, not {momentum}.")
    selected = _codes(select)
    if select and not selected:
        raise UsageProblem("--select names no rule.")
    return Config(
        select=selected,
        ignore=_codes(ignore),
        momentum=momentum,
        patterns=tuple(_pattern(pattern) for pattern in _strings(patterns)),
        all_checkpoints=all_checkpoints,
        engine="tensorflow" if engine == "tensorflow" else "native",
        since=None if since is None else os.fspath(since),
        skip_unknown=skip_unknown,
    )


def _strings(values: str | Iterable[str]) -> Iterable[str]:
    return (values,) if isinstance(values, str) else values


def _codes(values: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(
        code.strip() for value in _strings(values) for code in value.split(",") if code.strip()
    )


def _pattern(text: str) -> tuple[Role, re.Pattern[str]]:
    name, equals, expression = text.partition("=")
    role = next((role for role in ROLES if role == name.strip()), None)
    if role is None or not equals or not expression:
        raise UsageProblem(
            f"--pattern takes ROLE=REGEX with ROLE one of {', '.join(ROLES)}: {text!r}"
        )
    try:
        return role, re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageProblem(
            f"--pattern {role}: {expression!r} is no expression ({error})"
        ) from error
