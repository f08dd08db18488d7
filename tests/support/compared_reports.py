"""Reports of checkpoints that are checked together, compared with those of each alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bninspect.config.model import Config
from bninspect.model.report import CheckpointReport
from bninspect.opening import find_checkpoints
from bninspect.rules import RULES
from bninspect.runs.one_checkpoint import examine
from bninspect.runs.run import check_paths


class Collector:
    """An observer that keeps all reports."""

    needs_checkpoints = False
    render = None

    def __init__(self, *, needs_layers: bool) -> None:
        self.needs_layers = needs_layers
        self.reports: list[CheckpointReport] = []

    def begin(self, total: int) -> None:
        """Nothing is counted."""

    def add(self, item: CheckpointReport, _: None) -> None:
        """Keep the report."""
        self.reports.append(item)


def facts(report: CheckpointReport) -> tuple[Any, ...]:
    return (
        report.path,
        report.resolved,
        report.format,
        report.step,
        report.verified,
        report.variable_count,
        report.layer_count,
        tuple((f.rule.code, f.severity, f.layer, *f[3:]) for f in report.findings),
        report.notes,
        report.unchecked,
        None if report.error is None else (type(report.error), str(report.error)),
        report.since,
        report.training,
    )


def assert_same_reports(paths: list[Path], config: Config, *, reads_again: bool = True) -> None:
    """Check all together, with and without layers, and each alone: the same must be said.

    The ordinary reader of some formats `reads_again` after it was closed.
    """
    alone = [examine(find_checkpoints(str(path))[0], config, RULES) for path in paths]
    for needs_layers in (False, True, None):
        together = Collector(needs_layers=bool(needs_layers))
        report = check_paths(paths, config, None if needs_layers is None else together)
        reports = together.reports or report.checkpoints
        assert list(map(facts, reports)) == list(map(facts, alone))
        if needs_layers is not False:
            assert list(map(layers_of, reports)) == list(map(layers_of, alone))
        if needs_layers is None and reads_again:
            assert list(map(values_again, reports)) == list(map(values_again, alone))


def layers_of(report: CheckpointReport) -> list[Any]:
    """Everything that is known of the layers; the text of an array is equal where NaN is."""
    return [
        (
            layer.name,
            layer.family,
            layer.channels,
            layer.dtype,
            layer.momentum,
            layer.epsilon,
            layer.trainable,
            [(role, variable[:3]) for role, variable in layer.variables.items()],
            [
                (role, values.array.tobytes(), repr(values[1:]), repr(values.mean))
                for role, values in layer.values.items()
            ],
            layer.training,
            layer.may_be_optimized,
        )
        for layer in report.layers
    ]


def values_again(report: CheckpointReport) -> list[bytes]:
    """The bytes of all members, read once more."""
    return [
        variable.read().tobytes()
        for layer in report.layers
        for variable in layer.variables.values()
    ]
