"""The options of a run, merged once from the configuration file and the command line.

`lookup` finds the file, `toml_file` parses it, and `make_config` merges the options into it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Literal

from bninspect.errors import UsageProblem
from bninspect.frozen import frozen
from bninspect.model.checkpoint import ENGINES, Engine
from bninspect.model.report import Suppression
from bninspect.model.roles import ROLES, Role
from bninspect.model.rule import Severity
from bninspect.model.target import PathPattern

if TYPE_CHECKING:
    from bninspect.batchnorm.name_patterns import NamePattern, Patterns
    from bninspect.model.rule import Rule

Setting = Severity | Literal["off"]
Jobs = int | Literal["auto"]


@frozen()
class Config:
    """The options of a run.

    `select` and `ignore` are rule codes or their beginnings. `momentum` is used if no stored
    configuration has one. `patterns` are those of the user for variable names. `engine` reads the
    files: `native` or `tensorflow`. `verify` also verifies the checksums that take a long time.

    `all_checkpoints` reads all checkpoints of a training directory instead of the newest. `trends`
    compares each with the previous one of its training, even if they were named one by one. `since`
    is an earlier checkpoint to compare with. `skip_unknown` treats typed files like those found in
    a directory: a file that is not a checkpoint is left out.

    `graph` asks for how training computes each layer, by the stored graph or configuration.

    `jobs` is the largest number of processes that read checkpoints, `auto` for as many as pay; with
    `scheduler`, the address of one, a Dask cluster reads them. `fingerprints` asks for the
    fingerprint of the files in each result.

    `exclude` and `include` are patterns for what is found below directories: what matches the one
    is left out, what matches none of the other, too.

    `severity` has the user's severities, by code or its beginning; a rule that is off is not
    applied. `fail_on` is the least severity that fails the run, or `never`. `suppress` are accepted
    findings, `baseline` is the file of known ones.

    `file` is the configuration file that was used. `sources` has for each key without its default
    value the sources of the value: keys of files, and options.
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
    graph: bool = False
    jobs: Jobs = 1
    scheduler: str | None = None
    fingerprints: bool = False
    verify: bool = False
    exclude: tuple[PathPattern, ...] = ()
    include: tuple[PathPattern, ...] = ()
    severity: tuple[tuple[str, Setting], ...] = ()
    fail_on: str = "error"
    suppress: tuple[Suppression, ...] = ()
    baseline: str | None = None
    file: str | None = None
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return the rules to apply: those selected, less those that are ignored or off."""
        from bninspect.rules import select_rules

        selected = select_rules(self.select, self.ignore)
        return tuple(rule for rule in selected if self.setting_of(rule.code) != "off")

    def setting_of(self, code: str) -> Setting | None:
        """Return the user's severity of a rule, that of the longest matching code; None if none."""
        matching = [pair for pair in self.severity if code.startswith(pair[0])]
        return max(matching, key=lambda pair: len(pair[0]))[1] if matching else None


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
    graph: bool = False,
    jobs: Jobs = 1,
    scheduler: str | None = None,
    verify: bool = False,
    fail_on: str | None = None,
    baseline: str | os.PathLike[str] | None = None,
    exclude: str | Iterable[str] = (),
    include: str | Iterable[str] = (),
    base: Config | None = None,
) -> Config:
    """Check the options and merge them into `base`, the content of a configuration file.

    `select` and `ignore` may hold several codes in one string, separated by commas; each of
    `patterns` is `ROLE=REGEX`. A string stands for a list of one. Raises `UsageProblem`, naming the
    option at fault.

    An option replaces the value of the file, with these exceptions: `ignore`, `exclude` and
    `include` add to it, `select` replaces both its `select` and its `ignore` (as in ruff: a rule
    that is named must run), and `patterns` are tried before its own.
    """
    if engine not in ENGINES:
        raise UsageProblem(f"--engine: expected one of {', '.join(ENGINES)}, got {engine!r}.")
    _check_jobs(jobs, scheduler)
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
    given |= _path_patterns(exclude=(base.exclude, exclude), include=(base.include, include))
    if baseline is not None:
        given["baseline"] = os.fspath(baseline)
    return replace(
        base,
        all_checkpoints=all_checkpoints,
        engine="tensorflow" if engine == "tensorflow" else "native",
        since=None if since is None else os.fspath(since),
        skip_unknown=skip_unknown,
        graph=graph,
        jobs=jobs,
        scheduler=scheduler,
        verify=verify,
        sources={**base.sources, **{key: _sources(base, key) for key in given}},
        **{key.replace("-", "_"): value for key, value in given.items()},
    )


def _for_every_rule(base: Config) -> Config:
    """Return `base` without its choice of rules: a rule that an option selects is not off."""
    sources = {key: where for key, where in base.sources.items() if key not in ("select", "ignore")}
    severity = tuple(pair for pair in base.severity if pair[1] != "off")
    return replace(base, select=(), ignore=(), severity=severity, sources=sources)


def _sources(base: Config, key: str) -> tuple[str, ...]:
    """Return the sources of a key that an option sets."""
    if key == "patterns":
        return ("--pattern", *base.sources.get(key, ()))
    adds = key in ("ignore", "exclude", "include")
    return (*(base.sources.get(key, ()) if adds else ()), f"--{key}")


def _path_patterns(
    **keys: tuple[tuple[PathPattern, ...], str | Iterable[str]],
) -> dict[str, tuple[PathPattern, ...]]:
    """Return the patterns of each key to which an option adds some: (of the file, of options)."""
    added = {
        key: (of_file, tuple(PathPattern(os.curdir, text) for text in _strings(texts)))
        for key, (of_file, texts) in keys.items()
    }
    return {key: (*of_file, *own) for key, (of_file, own) in added.items() if own}


def _check_jobs(jobs: Jobs, scheduler: str | None) -> None:
    if jobs != "auto" and jobs < 1:
        raise UsageProblem(f"--jobs: expected a number of processes or auto, got {jobs}.")
    if scheduler is not None and jobs not in (1, "auto"):
        raise UsageProblem("--jobs cannot be combined with --scheduler, which has its own.")


def checked_momentum(value: float, where: str) -> float:
    """Return a momentum; raises `UsageProblem`, naming `where`, if it is not in [0, 1)."""
    if not 0.0 <= value < 1.0:  # also for NaN
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
