"""Immutable data types of findings and reports. No I/O.

A *rule* judges one layer and yields *violations*. A violation with the code and the fix of its rule
is a *finding*. A *report* has the findings in all checkpoints of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from bninspect.frozen import NamedTuple, frozen
from bninspect.model.checkpoint import UncheckedGroup
from bninspect.model.layer import BNLayer
from bninspect.model.rule import SEVERITIES, PossibleCause, Rule, Severity, at_least, no_graph

if TYPE_CHECKING:
    from datetime import date

    from bninspect.errors import ReadProblem
    from bninspect.model.computation import Computation
    from bninspect.model.graph import Graph, GraphEvidence
    from bninspect.model.target import Training

# The number of names of variables that are kept as examples.
_NAMES_KEPT = 10


class Suppression(NamedTuple):
    """Findings that the user accepts, and the reason.

    `layer` is a layer's name or a pattern for names, `rules` are codes or their beginnings,
    `expires` is the last day on which it holds. `where` names it in sentences.
    """

    layer: str
    rules: tuple[str, ...]
    reason: str
    expires: date | None = None
    where: str = "the suppression"

    def holds(self, day: date) -> bool:
        """Return whether it has not expired."""
        return self.expires is None or day <= self.expires


class Finding(NamedTuple):
    """A rule's verdict on one layer of one checkpoint.

    `severity` may be milder than the rule's. `message` is a sentence on what is wrong, `evidence`
    are stored facts that support it, `fix` says what to do. `cause` is None unless the files prove
    it, else one of `update-ops-not-run`, `built-with-training-false`, `layer-frozen`,
    `trained-in-inference-mode`, `too-few-updates`, `saver-omitted-statistics`,
    `statistics-not-loaded`, `untrained`, `batch-statistics-mode`, `momentum-one`,
    `call-without-training` and `half-precision`. Without one, `possible_causes` are the reasons
    that the files do not rule out, the most likely first. `framework` is the one of the layer, as
    `bninspect rule CODE --for` takes it; None where the page of the rule has nothing for it alone.
    """

    rule: Rule
    severity: Severity
    layer: str
    message: str
    cause: str | None
    evidence: tuple[str, ...]
    fix: str
    possible_causes: tuple[PossibleCause, ...] = ()
    framework: str | None = None

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of rule and layer, the same for every step and path."""
        return fingerprint(self.rule.code, self.layer)


def fingerprint(*parts: str) -> str:
    """Return 32 hex digits that identify the texts together."""
    from hashlib import sha256

    # A stored name need not be UTF-8: its other bytes are surrogates.
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Suppressed(NamedTuple):
    """A finding that does not count, and the suppression that says so."""

    finding: Finding
    suppression: Suppression


class BaselineCount(NamedTuple):
    """The counts of a baseline in a run.

    `known` counts the findings that are in it and so are not reported, `gone` the entries that no
    finding has any more: None if that is unknown because something could not be read.
    """

    known: int
    gone: int | None


def any_at_least(severity: str, findings: Iterable[Finding]) -> bool:
    """Return whether one of some findings has that severity or a graver one; none has `never`."""
    failing = at_least(severity)
    return any(finding.severity in failing for finding in findings)


class Earlier(NamedTuple):
    """The earlier checkpoint that one was compared with.

    `layers` counts those of which a statistic could be compared. `is_named` says that `--since`
    named it; otherwise it is the previous checkpoint of the same training.
    """

    path: str
    step: int | None
    layers: int
    is_named: bool = True


@frozen(eq=False)
class CheckpointReport:
    """The findings in one checkpoint, or why it could not be read (`error`).

    `path` is as typed, `resolved` the file that was opened, `format` that of `Checkpoint`; `step`
    is the stored training step, None without one; `verified` is that of `Checkpoint`. `layers` come
    in the order of `find_layers`, `findings` layer by layer and then by code: those that count,
    `suppressed` and `known` (by the baseline) are the others. `notes` are sentences about what was
    opened; those on the `unchecked` groups, which may be BN layers and were not judged, are among
    them. `since` is the earlier checkpoint, if BN107 is judged. With an `error` all else is empty.

    `names` are those of its variables if no layer was found, so that the user can see why. `graph`
    is that of `RuleContext`, `graphs` that of `Checkpoint`. `computations` says how training
    computes each layer, by the layer's name, if that was requested. `layers_left_out` counts layers
    that are no longer kept; then only some of the names are. `state` is the fingerprint of the
    files, if it was asked for. `converted_from` is that of `Checkpoint`. `line` is the line of an
    earlier run's results that this report comes from.

    If a run follows trainings, `training` is that of this checkpoint, and `previous` the path of
    the checkpoint before it: an earlier state of this one, by its layers and its step.
    """

    path: str
    resolved: str | None = None
    format: str | None = None
    step: int | None = None
    verified: bool | None = None
    variable_count: int = 0
    names: tuple[str, ...] = ()
    converted_from: str = ""
    layers: Sequence[BNLayer] = ()
    findings: tuple[Finding, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    known: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    unchecked: tuple[UncheckedGroup, ...] = ()
    error: ReadProblem | None = None
    since: Earlier | None = None
    graph: Callable[[BNLayer], GraphEvidence | None] = no_graph
    graphs: Callable[[], Sequence[Graph]] = tuple
    computations: Mapping[str, Computation] | None = None
    layers_left_out: int = 0
    state: str | None = None
    line: str | None = None
    training: Training | None = None
    previous: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a pickle holds: only the values that are not the default."""
        given = {
            name: value for name, value in vars(self).items() if value is not _DEFAULTS.get(name)
        }
        return _report_with, (given,)

    @property
    def layer_count(self) -> int:
        """Return the number of BN layers, including those that are no longer kept."""
        return len(self.layers) + self.layers_left_out

    @property
    def example_names(self) -> tuple[str, ...]:
        """Return some of the `names`."""
        return self.names[:_NAMES_KEPT]

    @property
    def none_compared(self) -> bool:
        """Return whether it has BN layers, and none of them could be compared with `--since`."""
        since = self.since
        return since is not None and since.is_named and not since.layers and self.layer_count > 0

    def without_layers(self) -> CheckpointReport:
        """Return the report without its layers, to save memory when they have been written."""
        if self.layers_left_out and self.line is None:
            return self
        return self.with_fields(
            layers=(),
            names=self.example_names,
            graph=no_graph,
            graphs=tuple,
            layers_left_out=self.layer_count,
            line=None,
        )

    def with_fields(self, **fields: Any) -> CheckpointReport:
        """Return the report with other `fields`, at a tenth of the time of `dataclasses.replace`.

        A run over many checkpoints makes several copies of each report.
        """
        report = object.__new__(CheckpointReport)
        report.__dict__.update(self.__dict__, **fields)
        return report

    def __repr__(self) -> str:
        outcome = self.error or f"{self.layer_count} BN layers, {len(self.findings)} findings"
        return f"<CheckpointReport {self.path}: {outcome}>"


_DEFAULTS = {item.name: item.default for item in fields(CheckpointReport)}


def _report_with(given: Mapping[str, Any]) -> CheckpointReport:
    report = object.__new__(CheckpointReport)  # as in `with_fields`
    report.__dict__.update(_DEFAULTS, **given)
    return report


@frozen(eq=False)
class Report:
    """The reports on all checkpoints of a run, in the order they were given.

    `rules` are those that were applied, none if layers were only listed. `notes` are sentences
    about the run. `baseline` is None without one. `interrupted` says that not all of the named
    checkpoints were read. `bninspect.explain` returns it as text.
    """

    checkpoints: tuple[CheckpointReport, ...]
    rules: tuple[Rule, ...] = ()
    notes: tuple[str, ...] = ()
    baseline: BaselineCount | None = None
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Return whether every checkpoint was read and checked, and no finding is an error.

        It is True if `bninspect check --fail-on error` has exit code 0.
        """
        done = self.checked and not self.unreadable and not self.interrupted
        return done and not self.count("error")

    @property
    def checked(self) -> bool:
        """Return whether BN layers were found, and compared if that was asked for."""
        return self.layer_count > 0 and not self.none_compared

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return every finding, checkpoint by checkpoint."""
        return tuple(finding for item in self.checkpoints for finding in item.findings)

    @property
    def layer_count(self) -> int:
        """Return the number of BN layers in all readable checkpoints."""
        return sum(item.layer_count for item in self.checkpoints)

    @property
    def unreadable(self) -> int:
        """Return the number of checkpoints that could not be read."""
        return sum(item.error is not None for item in self.checkpoints)

    @property
    def none_compared(self) -> bool:
        """Return whether `--since` was given and no layer of any checkpoint could be compared."""
        named = [
            item.since
            for item in self.checkpoints
            if item.since is not None and item.since.is_named
        ]
        return bool(named) and not any(earlier.layers for earlier in named)

    @property
    def suppressed(self) -> int:
        """Return the number of suppressed findings."""
        return sum(len(item.suppressed) for item in self.checkpoints)

    def count(self, severity: Severity) -> int:
        """Return the number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.count(severity)} {severity}s" for severity in SEVERITIES)
        several = "" if len(self.checkpoints) == 1 else "s"
        return (
            f"<Report of {len(self.checkpoints)} checkpoint{several}, {self.layer_count} BN layers:"
            f" {counts}, {self.unreadable} unreadable>"
        )
