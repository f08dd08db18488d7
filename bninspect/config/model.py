"""The options of a run, merged once from file and command line, and frozen.

`make_config` lays the options over what a file says (`toml_file`), wherever that was found
(`lookup`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bninspect.errors import UsageProblem
from bninspect.model.checkpoint import ENGINES, Engine
from bninspect.model.report import Suppression
from bninspect.model.roles import ROLES, Role
from bninspect.model.rule import Severity

if TYPE_CHECKING:
    from bninspect.batchnorm.name_patterns import NamePattern, Patterns


@dataclass(frozen=True)
class Config:
    """The options of a run.

    `select` and `ignore` are rule codes or their beginnings. `momentum` stands in where no stored
    configuration tells it. `patterns` are (role, expression) pairs for names of the user's own.
    `all_checkpoints` takes all of a training directory instead of its newest. `trends` compares
    each checkpoint with the one before it of its training, however they are named. `engine` is what
    reads the files: `native` or `tensorflow`. `since` is an earlier checkpoint to compare with.
    `skip_unknown` judges files that are named as those that are found in a directory. `jobs` is how
    many processes read checkpoints; with `scheduler`, its address, a Dask cluster does. `states`
    asks for the state of the files with each result. `verify` asks for the checksums that take a
    long time.
    `severity` has the severities of the user's own, by code or its beginning. `fail_on` is the
    least severity that fails the run, or `never`. `suppress` are the findings to live with,
    `baseline` is the file of those that are known.

    `file` is the configuration file that was used. `sources` says for each key of such a file that
    does not have its default where its value comes from: files' keys and options.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    momentum: float | None = None
    patterns: Patterns = ()
    all_checkpoints: bool = False
    trends: bool = False
    engine: Engine = "native"
    since: str | None = None
    skip_unknown: bool = False
    jobs: int = 1
    scheduler: str | None = None
    states: bool = False
    verify: bool = False
    severity: tuple[tuple[str, Severity], ...] = ()
    fail_on: str = "error"
    suppress: tuple[Suppression, ...] = ()
    baseline: str | None = None
    file: str | None = None
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


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
    jobs: int = 1,
    scheduler: str | None = None,
    verify: bool = False,
    fail_on: str | None = None,
    baseline: str | os.PathLike[str] | None = None,
    base: Config | None = None,
) -> Config:
    """Check the options, lay them over `base`, what a configuration file says, and freeze them.

    `select` and `ignore` may hold several codes in one string, set apart by commas; each of
    `patterns` is `ROLE=REGEX`. One string stands for a list of it. Raises
    `UsageProblem`, naming the option at fault.

    An option takes the place of what the file says, with three exceptions that spare a person from
    repeating the file: `ignore` adds to it (and `select`, as in ruff, sets both its `select` and
    its `ignore` aside, for what is asked for by name is to run), and `patterns` go before its own.
    """
    if engine not in ENGINES:
        raise UsageProblem(f"--engine is one of {', '.join(ENGINES)}, not {engine!r}.")
    if scheduler is not None and jobs != 1:
        raise UsageProblem("--jobs is for this machine, --scheduler for a cluster: give one.")
    selected, ignored = _codes(select), _codes(ignore)
    if select and not selected:
        raise UsageProblem("--select names no rule.")
    given: dict[str, Any] = {}  # by the key of a file
    base = base or Config()
    if selected:
        base = _for_every_rule(base)
        given["select"] = selected
    if ignored:
        given["ignore"] = (*base.ignore, *ignored)
    if momentum is not None:
        given["momentum"] = checked_momentum(momentum, "--momentum")
    if own := tuple(_pattern(pattern) for pattern in _strings(patterns)):
        given["patterns"] = (*own, *base.patterns)
    if fail_on is not None:
        given["fail-on"] = fail_on
    if baseline is not None:
        given["baseline"] = os.fspath(baseline)
    return replace(
        base,
        all_checkpoints=all_checkpoints,
        engine="tensorflow" if engine == "tensorflow" else "native",
        since=None if since is None else os.fspath(since),
        skip_unknown=skip_unknown,
        jobs=jobs,
        scheduler=scheduler,
        verify=verify,
        sources={**base.sources, **{key: _sources(base, key) for key in given}},
        **{key.replace("-", "_"): value for key, value in given.items()},
    )


def _for_every_rule(base: Config) -> Config:
    """`base` without its choice of rules."""
    sources = {key: told for key, told in base.sources.items() if key not in ("select", "ignore")}
    return replace(base, select=(), ignore=(), sources=sources)


def _sources(base: Config, key: str) -> tuple[str, ...]:
    """Where the value of a key comes from that an option gives."""
    if key == "patterns":
        return ("--pattern", *base.sources.get(key, ()))
    return (*(base.sources.get(key, ()) if key == "ignore" else ()), f"--{key}")


def checked_momentum(value: float, where: str) -> float:
    """A momentum; raises `UsageProblem`, which calls its place `where`, if it is none."""
    if not 0.0 <= value < 1.0:  # NaN is not, either
        raise UsageProblem(f"{where} must be at least 0 and below 1, not {value}.")
    return float(value)


def checked_pattern(role: Role, expression: str, where: str) -> NamePattern:
    """Return a pattern for names; raises `UsageProblem`, naming `where`, if it does not compile."""
    from bninspect.batchnorm.name_patterns import compile_pattern

    return compile_pattern(role, expression, where)


def _strings(values: str | Iterable[str]) -> Iterable[str]:
    return (values,) if isinstance(values, str) else values


def _codes(values: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(
        code.strip() for value in _strings(values) for code in value.split(",") if code.strip()
    )


def _pattern(text: str) -> NamePattern:
    name, equals, expression = text.partition("=")
    role = next((role for role in ROLES if role == name.strip()), None)
    if role is None or not equals or not expression:
        raise UsageProblem(
            f"--pattern: expected ROLE=REGEX with ROLE one of {', '.join(ROLES)}, got {text!r}."
        )
    return checked_pattern(role, expression, f"--pattern {role}")


OWN_FILE, PROJECT_FILE = "bninspect.toml", "pyproject.toml"
