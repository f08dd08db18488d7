"""Recalibration of a model file: check it, run its model on samples, and write a copy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bninspect.config.model import Config
from bninspect.errors import ReadProblem, RecalibrationRefused, UsageProblem
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.layer import BNLayer
from bninspect.model.recalibration import Recalibration
from bninspect.model.report import CheckpointReport, Finding
from bninspect.model.roles import STATISTICS
from bninspect.opening import open_checkpoint
from bninspect.recalibrate import refusals
from bninspect.recalibrate.engines import Engine
from bninspect.recalibrate.engines.opening import open_engine, require_runnable
from bninspect.recalibrate.estimate import Progress, Statistics, estimate, without_progress
from bninspect.recalibrate.moments import FloatArray
from bninspect.recalibrate.samples import Samples, choose_samples, parse_feeds, read_columns
from bninspect.recalibrate.writing import require_writable, write_statistics
from bninspect.runs.run import check_paths
from bninspect.verdicts.selection import choose_layers

BATCH = 64


@dataclass(frozen=True)
class Options:
    """The options of a recalibration; `names` are those of layers, or globs.

    `most` is the largest number of samples that are taken. A dry run writes nothing.
    """

    data: str
    output: str | None = None
    feeds: tuple[str, ...] = ()
    labels: str | None = None
    batch: int = BATCH
    most: int | None = None
    names: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False


def recalibrate_file(
    path: str, options: Options, progress: Progress = without_progress
) -> Recalibration:
    """Re-estimate the stuck statistics of a model file, and write the copy `options.output`.

    The result of a refusal has a `refusal` and nothing is written. Raises a `ReadProblem` if the
    file cannot be read, and `UsageProblem` if its model cannot be run on the samples.
    """
    report = _checked(path)
    empty = Recalibration(report.path, dry_run=options.dry_run)
    with open_checkpoint(report.path) as checkpoint:  # the one that a pattern names
        if options.output is not None:
            require_writable(checkpoint, options.output)
        try:
            return _recalibrated(checkpoint, report, options, progress, empty)
        except RecalibrationRefused as problem:
            return replace(empty, refusal=str(problem))


def _checked(path: str) -> CheckpointReport:
    """Return the report of `bninspect check` on the one checkpoint that `path` names."""
    report = check_paths([path], Config())
    if len(report.checkpoints) != 1:
        raise UsageProblem(f"{path} names {len(report.checkpoints)} checkpoints; name one of them.")
    [item] = report.checkpoints
    if item.error is not None:
        raise item.error
    return item


def _recalibrated(
    checkpoint: Checkpoint,
    report: CheckpointReport,
    options: Options,
    progress: Progress,
    empty: Recalibration,
) -> Recalibration:
    """Return the result, with the copy written; raises `RecalibrationRefused`."""
    from bninspect.evidence.training_mode import TrainingModes
    from bninspect.model.report import Report

    named = choose_layers(report.path, Report((report,)), options.names)
    chosen = refusals.choose(report, named)
    evidence = refusals.Evidence(TrainingModes(checkpoint, report.graph).of, report.graph)
    refusals.require_curable(chosen, report.findings, evidence)
    proof = refusals.proof_of_batch_mode(chosen, report, evidence)
    require_runnable(checkpoint)
    if options.output is not None:
        names = [layer.variables[role].name for layer in chosen for role in STATISTICS]
        require_writable(checkpoint, options.output, names)
    if proof is None and options.labels is None and not options.force:
        refusals.require_proof(None, None, force=False)  # before any framework is imported
    feeds = {feed.name: feed.constant for feed in parse_feeds(options.feeds)}
    engine = open_engine(checkpoint, report.layers, feeds)
    samples = _samples(engine, options)
    kept = tuple(layer.name for layer in report.layers if layer not in chosen)
    result = replace(empty, kept=kept, notes=(*samples.notes, *_notes(chosen)))
    estimated = estimate(
        engine, samples, chosen, proof, force=options.force, progress=progress, result=result
    )
    if options.output is None or options.dry_run:
        return estimated.result
    values = _by_stored_name(engine, estimated.statistics)
    left: list[Finding] = []

    def accept(copy: Path) -> None:
        left.extend(_findings_left(copy, {layer.name for layer in chosen}))

    write_statistics(checkpoint, options.output, values, accept)
    notes = (*estimated.result.notes, *_notes_on_copy(left))
    return replace(estimated.result, output=options.output, notes=notes)


def _samples(engine: Engine, options: Options) -> Samples:
    specs = engine.inputs()
    feeds = parse_feeds(options.feeds)
    needed = [spec.name for spec in specs] + [feed.value for feed in feeds]
    needed += [options.labels] if options.labels is not None else []
    return choose_samples(
        read_columns(options.data, needed),
        specs,
        feeds=feeds,
        labels=options.labels,
        batch=options.batch,
        most=options.most,
    )


def _notes(layers: Sequence[BNLayer]) -> tuple[str, ...]:
    if not any(layer.shadows for layer in layers):
        return ()
    stay = "averages of the statistics by tf.train.ExponentialMovingAverage stay as they are"
    return (f"{stay}: an evaluation that restores them is not cured",)


def _by_stored_name(engine: Engine, statistics: Statistics) -> Mapping[str, FloatArray]:
    """Return the new values by the names of the variables in the file."""
    values = {}
    for layer in engine.layers():
        if layer.name in statistics:
            values[layer.moving_mean], values[layer.moving_variance] = statistics[layer.name]
    return values


def _findings_left(copy: Path, names: set[str]) -> list[Finding]:
    """Return the findings of `bninspect check` on the cured layers of a copy.

    Raises `RecalibrationRefused` if one of them is an error, or if the copy cannot be read.
    """
    try:
        report = _checked(os.fspath(copy))
    except ReadProblem as problem:
        raise RecalibrationRefused(f"The copy cannot be read: {problem.message}.") from problem
    left = [finding for finding in report.findings if finding.layer in names]
    for finding in left:
        if finding.severity == "error":
            raise RecalibrationRefused(
                f"The copy would not pass: {finding.message} in the layer {finding.layer}"
                f" ({finding.rule.code})."
            )
    return left


def _notes_on_copy(left: Iterable[Finding]) -> tuple[str, ...]:
    """Return a note if the copy gets BN106, which counts the updates of the training alone."""
    note = (
        "`bninspect check` warns of BN106 in the copy, which is not true of the new statistics: it"
        " counts the steps of the training, and no file shows that statistics were re-estimated;"
        " leave it out by `--ignore BN106`"
    )
    return (note,) if any(finding.rule.code == "BN106" for finding in left) else ()
