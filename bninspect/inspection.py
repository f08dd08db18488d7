"""Paths → Report: opens each checkpoint, finds its layers, reads them, applies the rules.

`check`, `list_layers` and `compare` are the package's public face. A checkpoint that cannot be read
becomes a result with an error; the others are still read. One that several paths name is read once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bninspect.config import Config, make_config
from bninspect.config.lookup import base_config
from bninspect.errors import Incomplete, NotFound, ReadProblem, UnknownFormat, UsageProblem
from bninspect.evidence.keras_config import with_keras_config
from bninspect.evidence.progress import read_optimizer_steps, read_step
from bninspect.findings import CheckpointReport, Earlier, Report, Rule, RuleContext
from bninspect.formats import find_checkpoints, open_target
from bninspect.formats.locate import Found, Target
from bninspect.layer_values import may_be_stuck, read_what_is_there, with_training, with_values
from bninspect.layers import find_layers, known_names, unmatched
from bninspect.model import BNLayer, Checkpoint, Engine, OptimizerSteps
from bninspect.rules import apply_rules, not_judged, select_rules

if TYPE_CHECKING:
    from bninspect.comparison import Comparison
    from bninspect.graph import GraphEvidence

PathName = str | os.PathLike[str]


def check(
    *paths: PathName,
    select: str | Iterable[str] = (),
    ignore: str | Iterable[str] = (),
    momentum: float | None = None,
    patterns: str | Iterable[str] = (),
    all_checkpoints: bool = False,
    engine: Engine = "native",
    since: PathName | None = None,
    config: PathName | None = None,
) -> Report:
    """Apply the rules to every checkpoint that `paths` name.

    A path is a prefix, a file of a checkpoint, a directory or a pattern. A training directory
    stands for its newest checkpoint, with `all_checkpoints` for all of them; a directory without
    a state file stands for every checkpoint below it. `select` and `ignore` are rule codes or
    their beginnings, `momentum` (0 to 1) stands in where none is stored, `patterns` are
    `ROLE=REGEX` for variable names of your own, `engine` is what reads the files. A checkpoint that
    cannot be read is reported with its `error`. Raises `UsageProblem` for a wrong option.

    `since` is an earlier checkpoint of the training, with which all are compared (BN107); raises a
    `ReadProblem` if it cannot be read; `none_compared` of the report says if no layer could be
    compared. Without it, `all_checkpoints` compares each checkpoint with the one before it in the
    same directory whose name differs in numbers alone, if it has the same layers and its step is
    later; a note says where that is not so and it matters.

    No configuration file is looked for: `config` names the one to use (`bninspect.toml`, or a
    `pyproject.toml` with a table `[tool.bninspect]`), with its suppressions and its baseline.
    """
    options = make_config(
        select,
        ignore,
        momentum,
        patterns,
        all_checkpoints=all_checkpoints,
        engine=engine,
        since=since,
        base=None if config is None else base_config(config),
    )
    return check_paths(paths, options)


def list_layers(
    *paths: PathName,
    patterns: str | Iterable[str] = (),
    all_checkpoints: bool = False,
    engine: Engine = "native",
) -> Report:
    """Find and read the BN layers of every checkpoint that `paths` name, without judging them.

    Where the values are missing (an index without its shards) the layers are listed without.
    `all_checkpoints` and `engine` are those of `check`.
    """
    config = make_config(patterns=patterns, all_checkpoints=all_checkpoints, engine=engine)
    return list_paths(paths, config)


def compare(
    *paths: PathName,
    patterns: str | Iterable[str] = (),
    engine: Engine = "native",
) -> Comparison:
    """Say what became of each BN layer from checkpoint to checkpoint of one training.

    `paths` name two checkpoints or more, oldest first; a directory stands for all that it keeps.
    Statistics that stood still while training went on are findings (BN107), and so is NaN (BN301):
    errors if they last up to the newest checkpoint, else warnings. A checkpoint that cannot be read
    is among the `unreadable` of the result; with fewer than two that can be read, raises that
    `ReadProblem`. Raises `UsageProblem` if so few are named, or if a directory holds the folders of
    several trainings. `patterns` and `engine` are those of `check`.
    """
    return compare_paths(paths, make_config(patterns=patterns, engine=engine))


def check_paths(paths: Iterable[PathName], config: Config) -> Report:
    """`check` for options that are already a Config."""
    rules = select_rules(config.select, config.ignore)
    if not rules:
        raise UsageProblem("No rule is left: all that are selected are ignored, too.")
    if not config.since and not config.all_checkpoints and [r.code for r in rules] == ["BN107"]:
        raise UsageProblem("BN107 compares: give an earlier checkpoint with --since CHECKPOINT.")
    reports = _reports(paths, config, rules)
    if not (config.severity or config.suppress or config.baseline is not None):
        return Report(tuple(reports), rules)
    from bninspect.triage import triage  # noqa: PLC0415 - few have told what they want to hear

    return triage(reports, rules, config)


def list_paths(paths: Iterable[PathName], config: Config) -> Report:
    """`list_layers` for options that are already a Config."""
    return Report(tuple(_reports(paths, config, None)))


def read_values(path: PathName, config: Config) -> Report:
    """The layers of one checkpoint with all their values, without judging them.

    With `config.all_checkpoints` those of all that `path` names. Raises a `ReadProblem` if it
    names several otherwise, or if none of them can be read.
    """
    report = Report(tuple(_reports((path,), config, ())))
    several = len(report.checkpoints)
    if several > 1 and not config.all_checkpoints:
        raise NotFound(
            os.fspath(path),
            f"it names {several} checkpoints",
            f"Name one of them ({report.checkpoints[0].path}), or use --all-checkpoints.",
        )
    problem = report.checkpoints[0].error
    if problem is not None and report.unreadable == several:
        raise problem
    return report


def compare_paths(paths: Iterable[PathName], config: Config) -> Comparison:
    """`compare` for options that are already a Config."""
    from bninspect.comparison import compare_checkpoints  # noqa: PLC0415 - other commands do without

    typed = [os.fspath(path) for path in paths]
    named = {path: find_checkpoints(path, every=True) for path in typed}
    for path, found in named.items():
        _refuse_several_trainings(path, found)
    reports = tuple(_reports(typed, replace(config, all_checkpoints=True), (), named))
    readable = sum(report.error is None for report in reports)
    problem = next((report.error for report in reports if report.error is not None), None)
    if readable < 2 and problem is not None:
        raise problem
    if readable < 2:
        given = ", ".join(typed) or "nothing"
        one = "names the same one" if len(typed) > 1 else "names one"
        raise UsageProblem(
            f"compare needs at least two checkpoints of a training, and {given}"
            f" {one if readable else 'names none'}."
        )
    return compare_checkpoints(reports)


def _refuse_several_trainings(path: str, found: Sequence[Found]) -> None:
    """Raise `UsageProblem` if a directory or pattern stands for more than one training."""
    from bninspect.formats.discover import trainings_in  # noqa: PLC0415

    folders = trainings_in(path, found)
    if len(folders) > 1:
        some = ", ".join(folders[:3]) + (", ..." if len(folders) > 3 else "")
        raise UsageProblem(
            f"compare takes the checkpoints of one training, and {path} holds those of"
            f" {len(folders)} folders: {some}. Compare one folder at a time, or name the"
            " checkpoints, oldest first."
        )


def _reports(
    paths: Iterable[PathName],
    config: Config,
    rules: tuple[Rule, ...] | None,
    named: Mapping[str, list[Found]] | None = None,
) -> Iterator[CheckpointReport]:
    """Path by path what is in the checkpoints it names, each checkpoint once.

    `named` holds what has been looked for already.
    """
    typed = [os.fspath(path) for path in paths]
    seen: set[str] = set()
    since = None if config.since is None else _read_since(config.since, config)
    compares = any(rule.code == "BN107" for rule in rules or ())
    by_itself = config.all_checkpoints and since is None and compares
    latest: dict[tuple[str, str], CheckpointReport] = {}
    listed = _listed(typed) if config.skip_unknown else {}
    known = {**(named or {}), **listed}
    for path in typed:
        found = (
            known[path] if path in known else find_checkpoints(path, every=config.all_checkpoints)
        )
        empty = path not in listed
        for item in found:
            if len(typed) > 1 or len(found) > 1:
                from bninspect.formats.discover import identity  # noqa: PLC0415

                opened = identity(item)
                if opened in seen:
                    empty = False
                    continue
                seen.add(opened)
            training = _training_of(item) if by_itself else None
            earlier = latest.get(training) if training else since if compares else None
            report = _report(item, config, rules, earlier, certain=since is not None)
            if training and not report.error:
                latest[training] = report
            if item.claimed or not isinstance(report.error, UnknownFormat):
                empty = False
                yield report
        if empty:
            from bninspect.formats.discover import nothing_in  # noqa: PLC0415

            yield CheckpointReport(path, error=nothing_in(path))


def _listed(paths: Sequence[str]) -> dict[str, list[Found]]:
    from bninspect.formats.listed import listed_files  # noqa: PLC0415

    return listed_files(paths)


def _located(found: Found) -> Target:
    if found.target is None:
        raise found.problem or ReadProblem(found.path, "cannot be read", "Check the path.")
    return found.target


def _training_of(found: Found) -> tuple[str, str] | None:
    from bninspect.formats.discover import training_of  # noqa: PLC0415

    return training_of(found)


def _read_since(path: str, config: Config) -> CheckpointReport:
    """The one earlier checkpoint that `--since` names; raises a `ReadProblem`."""
    found = find_checkpoints(path)
    if len(found) != 1:
        from bninspect.formats.discover import nothing_in  # noqa: PLC0415

        if not found:
            raise nothing_in(path)
        several = f"--since is to name one checkpoint, and this names {len(found)}"
        raise NotFound(path, several, f"Name one of them ({found[0].path}).")
    report = _report(found[0], config, ())
    if report.error is not None:
        raise report.error
    return report


def _report(
    found: Found,
    config: Config,
    rules: tuple[Rule, ...] | None,
    earlier: CheckpointReport | None = None,
    *,
    certain: bool = True,
) -> CheckpointReport:
    """What is in one checkpoint; with `rules` None its values may be missing.

    `earlier` is the one to compare with; unless that is `certain`, only if it may be of the same
    training.
    """
    path = found.path
    try:
        target = _located(found)
        # What is not finite is a finding (BN301), not a matter for numpy's warnings.
        with open_target(path, target, config.engine) as checkpoint, np.errstate(all="ignore"):
            return _inspect(path, checkpoint, config, rules, earlier, certain=certain)
    except ReadProblem as problem:
        return CheckpointReport(path=path, error=problem)
    except MemoryError:
        message = "reading it takes more memory than there is"
        return CheckpointReport(
            path=path, error=ReadProblem(path, message, "Check it on a larger machine.")
        )


def _inspect(
    path: str,
    checkpoint: Checkpoint,
    config: Config,
    rules: tuple[Rule, ...] | None,
    earlier: CheckpointReport | None,
    *,
    certain: bool,
) -> CheckpointReport:
    """`_report` for a checkpoint that is open; what cannot be read of it is raised."""
    layers = with_keras_config(find_layers(checkpoint, config.patterns), checkpoint)
    notes = (*checkpoint.notes, *unmatched(checkpoint, config.patterns))
    optimizer_steps: tuple[OptimizerSteps, ...] = ()
    try:
        if checkpoint.incomplete is not None:
            raise checkpoint.incomplete
        step = read_step(checkpoint)
        layers = with_values(layers)
        if step is None or any(map(may_be_stuck, layers)):
            optimizer_steps = read_optimizer_steps(checkpoint)
        layers = [with_training(checkpoint, one, step, optimizer_steps) for one in layers]
    except Incomplete as problem:
        if rules is not None:
            raise
        step, layers, missing = read_what_is_there(checkpoint, layers)
        notes = (*notes, f"{missing}: {problem}")
    since = None
    if earlier is not None:
        from bninspect.evidence import history  # noqa: PLC0415

        told = None if certain else history.not_followed(earlier, layers, step)
        if told is None:
            layers, told = history.with_since(layers, step, earlier)
        notes = (*notes, *told)
        if certain:
            notes = (*notes, *history.contradictions(layers, step, earlier))
            compared = sum(map(history.is_compared, layers))
            since = Earlier(earlier.path, earlier.step, compared)
    graph = _GraphBeside(checkpoint, layers)
    context = RuleContext(step, config.momentum, optimizer_steps=optimizer_steps, graph=graph)
    findings = apply_rules(layers, rules or (), context)
    notes = (*notes, *not_judged(layers, rules or (), context))
    return CheckpointReport(
        path=path,
        resolved=checkpoint.resolved,
        format=checkpoint.format,
        step=step,
        variable_count=len(checkpoint.variables),
        names=() if layers else known_names(checkpoint),
        layers=tuple(layers),
        findings=findings,
        notes=(*notes, *graph.notes),
        since=since,
        graph=graph,
    )


class _GraphBeside:
    """What the graph beside a checkpoint proves of its layers, read when a rule first asks.

    A graph that cannot be read proves nothing, and `notes` say so.
    """

    def __init__(self, checkpoint: Checkpoint, layers: Sequence[BNLayer]) -> None:
        self._checkpoint = checkpoint
        self._layers = layers
        self._found: dict[str, GraphEvidence] | None = None
        self.notes: tuple[str, ...] = ()

    def __call__(self, layer: BNLayer) -> GraphEvidence | None:
        if self._found is None:
            self._found = self._read()
        return self._found.get(layer.name)

    def _read(self) -> dict[str, GraphEvidence]:
        try:
            graphs = self._checkpoint.graphs()
        except ReadProblem as problem:
            self.notes = (f"the graph beside it cannot be read: {problem}",)
            return {}
        if not graphs:
            return {}
        from bninspect.evidence.graph import graph_evidence  # noqa: PLC0415 - seldom needed

        found = graph_evidence(graphs, self._layers, self._checkpoint.known_names)
        beside = graphs[0].path
        # A SavedModel's graph comes with its variables, under names of its own perhaps.
        if beside.endswith(".meta") and not any(one.statistics for one in found.values()):
            told = "has no variable by the name of a BN statistic here and proves nothing"
            self.notes = (f"the graph beside it, {beside}, {told}: is it of another model?",)
        return found
