"""Examining one checkpoint: open it, find its BN layers, read their values, apply the rules."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bninspect.batchnorm.find_layers import (
    empty_groups,
    is_empty,
    known_names,
    notes_on_unchecked,
    unchecked_groups,
    unmatched,
)
from bninspect.config.model import Config
from bninspect.errors import Incomplete, Overwritten, ReadProblem, Unsupported
from bninspect.evidence.keras_config import with_keras_config
from bninspect.evidence.optimizer_slots import with_signs_of_optimizers
from bninspect.evidence.progress import Slots, read_optimizer_steps, read_step
from bninspect.formats.opening import open_target
from bninspect.frozen import NamedTuple
from bninspect.model.checkpoint import Checkpoint, UncheckedGroup
from bninspect.model.layer import BNLayer, ModeProof, OptimizerSteps
from bninspect.model.report import CheckpointReport, Earlier
from bninspect.model.rule import Rule, RuleContext
from bninspect.model.target import CheckpointLocation, Target
from bninspect.rules import apply_rules, not_judged
from bninspect.runs.graph_beside import GraphBeside
from bninspect.runs.read_layers import (
    may_be_stuck,
    prefetch_evidence,
    prefetch_values,
    read_what_can_be_read,
    with_training,
    with_values,
)
from bninspect.storage import filesystem

if TYPE_CHECKING:
    from bninspect.evidence.training_mode import TrainingModes
    from bninspect.model.graph import GraphEvidence


def examine(
    location: CheckpointLocation,
    config: Config,
    rules: tuple[Rule, ...] | None,
    *,
    since: CheckpointReport | None = None,
    previous: Callable[[], CheckpointReport | None] | None = None,
) -> CheckpointReport:
    """Return the report of one checkpoint; with `rules` None its values may be missing.

    It is compared with `since`, which the user named; without that, with what `previous` returns,
    the previous one of its training by the names, if it is a later state of that. `previous` is
    called when the checkpoint has been read; it may raise a `ReadProblem`.
    """
    path, earlier = location.path, EarlierReports(since, previous)
    try:
        try:
            return _read(location, config, rules, earlier)
        except Overwritten:  # a training may have finished writing it by now
            return _read(location, config, rules, earlier)
    except ReadProblem as problem:
        return CheckpointReport(path=path, error=problem)
    except MemoryError:
        message = "reading it takes more memory than there is"
        return CheckpointReport(
            path=path, error=Unsupported(path, message, "Check it on a larger machine.")
        )


class EarlierReports(NamedTuple):
    """The reports that a checkpoint may be compared with: see `examine`."""

    since: CheckpointReport | None
    find_previous: Callable[[], CheckpointReport | None] | None = None

    def previous(self) -> CheckpointReport | None:
        """Return the previous report of the training; raises as `find_previous`."""
        return None if self.find_previous is None else self.find_previous()


class Wanted(NamedTuple):
    """The properties that a run needs of its reports.

    `values` says that layers must have their values, `variables` that they can be read again, too.
    `passes_plain` is whether each rule does.
    """

    config: Config
    rules: tuple[Rule, ...]
    values: bool
    variables: bool
    passes_plain: bool


def _read(
    location: CheckpointLocation,
    config: Config,
    rules: tuple[Rule, ...] | None,
    earlier: EarlierReports,
) -> CheckpointReport:
    """Return the report of one checkpoint; raises `Overwritten` if its files changed meanwhile."""
    target = _located(location)
    # Values that are not finite are findings (BN301): numpy need not warn about them.
    with (
        filesystem.unchanged(target.path),
        open_target(location.path, target, config.engine, verify=config.verify) as checkpoint,
        np.errstate(all="ignore"),
    ):
        beside = GraphBeside(checkpoint)
        read = _read_layers(checkpoint, beside, config, rules)
        ahead = None
        if earlier.find_previous is not None and filesystem.is_read_ahead(target.path):
            # What rules read of the graph is fetched now: with the previous report, which is not
            # there yet, they read the same.
            with suppress(ReadProblem):
                alone = EarlierReports(earlier.since)
                ahead = judge(location, beside, read, config, rules, alone)
        if ahead is not None and earlier.previous() is None:
            return ahead
        return judge(location, beside, read, config, rules, earlier)


def _located(location: CheckpointLocation) -> Target:
    if location.target is None:
        raise location.problem or ReadProblem(location.path, "cannot be read", "Check the path.")
    return location.target


class ReadLayers(NamedTuple):
    """The layers of a checkpoint with their values and the evidence of their training.

    `notes` are sentences about reading them; the others are those of `CheckpointReport` and
    `RuleContext`.
    """

    layers: list[BNLayer]
    step: int | None
    optimizer_steps: tuple[OptimizerSteps, ...] = ()
    notes: tuple[str, ...] = ()
    unchecked: tuple[UncheckedGroup, ...] = ()


def _read_layers(
    checkpoint: Checkpoint, beside: GraphBeside, config: Config, rules: tuple[Rule, ...] | None
) -> ReadLayers:
    """Find the layers and read their values; raises a `ReadProblem` if they cannot be read."""
    found = beside.search_layers(config.patterns, always=config.graph)
    empty = empty_groups(found)
    layers = with_keras_config([one for one in found if not is_empty(one)], checkpoint)
    unchecked = unchecked_groups((*checkpoint.unchecked, *beside.unchecked, *empty), layers)
    notes = (
        *checkpoint.notes,
        *notes_on_unchecked(unchecked),
        *unmatched(checkpoint, config.patterns),
    )
    try:
        if checkpoint.incomplete is not None:
            raise checkpoint.incomplete
        prefetch_values(checkpoint, layers)
        step = read_step(checkpoint)
        read = with_evidence(checkpoint, with_values(layers), step)
    except Incomplete as problem:
        if rules is not None:
            raise
        step, layers, missing = read_what_can_be_read(checkpoint, layers)
        read, notes = ReadLayers(layers, step), (*notes, f"{missing}: {problem}")
    return read._replace(notes=notes, unchecked=unchecked)


def with_evidence(checkpoint: Checkpoint, layers: list[BNLayer], step: int | None) -> ReadLayers:
    """Return layers that have values together with the evidence of their training.

    Raises a `ReadProblem` if it cannot be read.
    """
    optimizer_steps: tuple[OptimizerSteps, ...] = ()
    if step is None or any(map(may_be_stuck, layers)):
        prefetch_evidence(checkpoint, layers)
        optimizer_steps = read_optimizer_steps(checkpoint)
    slots = Slots(checkpoint.variables)
    layers = [with_training(layer, slots, step, optimizer_steps) for layer in layers]
    layers = with_signs_of_optimizers(checkpoint, layers)
    return ReadLayers(layers, step, optimizer_steps)


def judge(
    location: CheckpointLocation,
    beside: GraphBeside,
    read: ReadLayers,
    config: Config,
    rules: tuple[Rule, ...] | None,
    earlier: EarlierReports,
) -> CheckpointReport:
    """Return the report of an open checkpoint whose layers were read.

    Raises a `ReadProblem` if evidence beside them cannot be read.
    """
    checkpoint, step = beside.checkpoint, read.step
    comparison = _compare(read.layers, step, earlier)
    layers = comparison.layers
    notes = (*read.notes, *comparison.notes)
    graph = beside.evidence_of(layers)
    mode = _modes_of(checkpoint, graph)
    context = RuleContext(
        step,
        config.momentum,
        optimizer_steps=read.optimizer_steps,
        graph=graph,
        mode=mode,
        format=checkpoint.format,
        resolved=checkpoint.resolved,
        frozen=checkpoint.frozen,
    )
    findings = apply_rules(layers, rules or (), context)
    notes = (*notes, *not_judged(layers, rules or (), context))
    computations = None
    if config.graph:
        from bninspect.evidence.computation import find_computations

        computations = find_computations(checkpoint.resolved, layers, beside.computed, graph, mode)
    return CheckpointReport(
        path=location.path,
        resolved=checkpoint.resolved,
        format=checkpoint.format,
        step=step,
        verified=checkpoint.verified,
        variable_count=len(checkpoint.variables),
        names=() if layers else known_names(checkpoint),
        converted_from=checkpoint.converted_from,
        layers=tuple(layers),
        findings=findings,
        notes=(*notes, *beside.notes),
        unchecked=read.unchecked,
        since=comparison.since,
        graph=graph,
        # Constants have no update ops to compare by; their graph is kept in memory.
        graphs=tuple if checkpoint.frozen else checkpoint.graphs,
        computations=computations,
        training=location.training,
        previous=comparison.previous,
    )


class _Comparison(NamedTuple):
    """The layers with their changes since an earlier checkpoint, and notes on the comparison.

    `since` describes the earlier checkpoint; `previous` is the path of the checkpoint before this
    one of its training.
    """

    layers: list[BNLayer]
    notes: tuple[str, ...] = ()
    since: Earlier | None = None
    previous: str | None = None


def _compare(layers: list[BNLayer], step: int | None, reports: EarlierReports) -> _Comparison:
    """Compare the layers with those of `since`, else of `previous` if they are a later state."""
    since, previous = reports.since, reports.previous()
    if since is None and previous is None:
        return _Comparison(layers)
    from bninspect.evidence import changes

    why_not = () if previous is None else changes.not_followed(previous, layers, step)
    follows = None if previous is None or why_not is not None else previous
    before = None if follows is None else follows.path
    earlier = since or follows
    if earlier is None:
        return _Comparison(layers, why_not or ())
    layers, notes = changes.with_since(layers, step, earlier)
    if since is not None:
        notes = (*notes, *changes.contradictions(layers, step, since))
    compared = sum(map(changes.is_compared, layers))
    described = Earlier(earlier.path, earlier.step, compared, is_named=since is not None)
    return _Comparison(layers, notes, described, before)


def _modes_of(
    checkpoint: Checkpoint, graph: Callable[[BNLayer], GraphEvidence | None]
) -> Callable[[BNLayer], ModeProof | None]:
    """Return a function that gives the mode in which training ran a layer, if it is proved."""

    @cache
    def modes() -> TrainingModes:
        from bninspect.evidence.training_mode import TrainingModes

        return TrainingModes(checkpoint, graph)

    return cache(lambda layer: modes().of(layer))
