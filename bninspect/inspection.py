"""Paths → Report: opens each checkpoint, finds its layers, reads them, applies the rules.

`check` and `list_layers` are the package's public face. A checkpoint that cannot be read becomes
a result with an error; the others are still read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from bninspect.config import Config, make_config
from bninspect.errors import Incomplete, ReadProblem
from bninspect.evidence.keras_config import with_keras_config
from bninspect.evidence.progress import read_step, training_evidence
from bninspect.formats import open_checkpoint
from bninspect.layers import find_layers
from bninspect.measure import measure, settle_initial
from bninspect.model import (
    BNLayer,
    Checkpoint,
    CheckpointReport,
    Report,
    Rule,
    RuleContext,
)
from bninspect.rules import apply_rules, select_rules

PathName = str | os.PathLike[str]


def check(
    *paths: PathName,
    select: str | Iterable[str] = (),
    ignore: str | Iterable[str] = (),
    momentum: float | None = None,
    patterns: str | Iterable[str] = (),
) -> Report:
    """Apply the rules to every checkpoint that `paths` name.

    `select` and `ignore` are rule codes or their beginnings, `momentum` (0 to 1) stands in where
    none is stored, `patterns` are `ROLE=REGEX` for variable names of your own. A checkpoint that
    cannot be read is reported with its `error`. Raises `UsageProblem` for a wrong option.
    """
    return check_paths(paths, make_config(select, ignore, momentum, patterns))


def list_layers(*paths: PathName, patterns: str | Iterable[str] = ()) -> Report:
    """Find and read the BN layers of every checkpoint that `paths` name, without judging them.

    Where the values are missing (an index without its shards) the layers are listed without.
    """
    return list_paths(paths, make_config(patterns=patterns))


def check_paths(paths: Iterable[PathName], config: Config) -> Report:
    """`check` for options that are already a Config."""
    rules = select_rules(config.select, config.ignore)
    return Report(tuple(_report(os.fspath(path), config, rules) for path in paths))


def list_paths(paths: Iterable[PathName], config: Config) -> Report:
    """`list_layers` for options that are already a Config."""
    return Report(tuple(_report(os.fspath(path), config, None) for path in paths))


def read_one(path: PathName, config: Config) -> CheckpointReport:
    """The layers of one checkpoint with their values; raises a `ReadProblem` if it has none."""
    report = _report(os.fspath(path), config, ())
    if report.error is not None:
        raise report.error
    return report


def _report(path: str, config: Config, rules: tuple[Rule, ...] | None) -> CheckpointReport:
    """What is in one checkpoint; with `rules` None its values may be missing."""
    try:
        # What is not finite is a finding (BN301), not a matter for numpy's warnings.
        with open_checkpoint(path) as checkpoint, np.errstate(all="ignore"):
            layers = [
                with_keras_config(layer, checkpoint)
                for layer in find_layers(checkpoint, config.patterns)
            ]
            notes = checkpoint.notes
            try:
                if checkpoint.incomplete is not None:
                    raise checkpoint.incomplete
                step = read_step(checkpoint)
                layers = list(_read(checkpoint, layers, step))
            except Incomplete as problem:
                if rules is not None:
                    raise
                step = None
                notes = (*notes, f"the values are missing: {problem}")
            return CheckpointReport(
                path=path,
                resolved=checkpoint.resolved,
                format=checkpoint.format,
                step=step,
                variable_count=len(checkpoint.variables),
                sample=tuple(islice(checkpoint.variables, 3)),
                layers=tuple(layers),
                findings=apply_rules(layers, rules or (), RuleContext(step, config.momentum)),
                notes=notes,
            )
    except ReadProblem as problem:
        return CheckpointReport(path=path, error=problem)
    except MemoryError:
        message = "reading it takes more memory than there is"
        return CheckpointReport(
            path=path, error=ReadProblem(path, message, "Check it on a larger machine.")
        )


def _read(checkpoint: Checkpoint, layers: Sequence[BNLayer], step: int | None) -> Iterator[BNLayer]:
    """The layers with their values, and with evidence of training where a rule needs it."""
    measured = iter(
        measure(
            [
                (variable.read(), layer.initial.get(role, ()))
                for layer in layers
                for role, variable in layer.variables.items()
            ]
        )
    )
    read = [
        replace(layer, values={role: next(measured) for role in layer.variables})
        for layer in layers
    ]
    for layer in settle_initial(read):
        if layer.statistics and all(values.all_initial for values in layer.statistics):
            evidence = training_evidence(layer, checkpoint.variables, step)
            yield replace(layer, training=evidence)
        else:
            yield layer
