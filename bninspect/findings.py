"""What is thought of a layer: the nouns of rules and reports, frozen and without I/O.

A *rule* looks at one layer and yields *violations*; with its rule's code and fix each is a
*finding*; a *report* is what was found in all checkpoints of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from bninspect.model import BNLayer, OptimizerSteps

if TYPE_CHECKING:
    from bninspect.errors import ReadProblem
    from bninspect.graph import GraphEvidence

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class RuleContext(NamedTuple):
    """What a rule knows besides the layer.

    `step` is the stored training step, `momentum` what the user gave. `trained` says that some
    layer of the checkpoint shows training; `restarted` that some layer has seen more updates than
    the step counts (a fine-tuned or recompiled model), so that the step tells nothing of any.
    `least_share` is the smallest of all variances as a share of what it started from, so that no
    layer of the same momentum holds more of its initial value. `optimizer_steps` are counts of
    optimizers, read where they matter. `graph` tells what the stored graph proves of a layer, None
    without one: reading it takes time, so a rule asks only for a finding it has.
    """

    step: int | None = None
    momentum: float | None = None
    trained: bool = False
    restarted: bool = False
    least_share: float | None = None
    optimizer_steps: tuple[OptimizerSteps, ...] = ()
    graph: Callable[[BNLayer], GraphEvidence | None] = lambda _: None


class Violation(NamedTuple):
    """What a rule yields for a layer: the sentence, and what it stands on.

    `cause` is None unless the file proves it. `severity` and `fix` are None for the rule's own.
    """

    message: str
    evidence: tuple[str, ...] = ()
    cause: str | None = None
    severity: Severity | None = None
    fix: str | None = None


class RuleDoc(NamedTuple):
    """A rule's page: what it means, why it is bad, usual causes, how to fix it (by framework)."""

    meaning: str
    why: str
    causes: tuple[str, ...]
    fixes: Mapping[str, str]


class Rule(NamedTuple):
    """One entry of the catalogue: `check` looks at a layer, `fix` says what to do for it."""

    code: str
    name: str
    severity: Severity
    summary: str
    doc: RuleDoc
    check: Callable[[BNLayer, RuleContext], Iterator[Violation]]
    fix: Callable[[BNLayer, Violation], str]

    def __repr__(self) -> str:
        return f"<Rule {self.code} {self.name}>"


class Finding(NamedTuple):
    """A rule's verdict on one layer of one checkpoint.

    `severity` may be milder than the rule's. `message` says in a sentence what is wrong, `evidence`
    what else is stored that bears on it, `fix` what to do. `cause` is None unless the files prove
    it, else one of `update-ops-not-run`, `built-with-training-false`, `layer-frozen`,
    `too-few-updates`, `saver-omitted-statistics`, `untrained`, `batch-statistics-mode` and
    `half-precision`.
    """

    rule: Rule
    severity: Severity
    layer: str
    message: str
    cause: str | None
    evidence: tuple[str, ...]
    fix: str

    @property
    def fingerprint(self) -> str:
        """What names this finding whatever the step and the path: rule and layer, 32 hex digits."""
        from hashlib import sha256  # noqa: PLC0415 - for baselines and SARIF only

        return sha256(f"{self.rule.code}\0{self.layer}".encode()).hexdigest()[:32]


@dataclass(frozen=True, eq=False, repr=False)
class CheckpointReport:
    """What was found in one checkpoint, or why it could not be read (`error`).

    `path` is as typed, `resolved` the file that was opened, `format` that of `Checkpoint`; `step`
    is the stored training step, None without one. `layers` come in the order of `find_layers`,
    `findings` layer by layer and then by code. `notes` are sentences about what was opened. With an
    `error` all else is empty.

    `names` are those of its variables if no layer was found, for a person who wonders why. `graph`
    is that of `RuleContext`.
    """

    path: str
    resolved: str | None = None
    format: str | None = None
    step: int | None = None
    variable_count: int = 0
    names: tuple[str, ...] = ()
    layers: tuple[BNLayer, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    error: ReadProblem | None = None
    graph: Callable[[BNLayer], GraphEvidence | None] = field(default=lambda _: None)

    def __repr__(self) -> str:
        told = self.error or f"{len(self.layers)} BN layers, {len(self.findings)} findings"
        return f"<CheckpointReport {self.path}: {told}>"


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What was found in all checkpoints of a run, in the order they were given.

    `bninspect.explain` writes it for a person.
    """

    checkpoints: tuple[CheckpointReport, ...]

    @property
    def ok(self) -> bool:
        """Whether every checkpoint was read, BN layers were found, and no finding is an error.

        So it says what `bninspect check` says with exit code 0.
        """
        return self.layer_count > 0 and not self.unreadable and not self.count("error")

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every finding, checkpoint by checkpoint."""
        return tuple(finding for item in self.checkpoints for finding in item.findings)

    @property
    def layer_count(self) -> int:
        """BN layers in all readable checkpoints."""
        return sum(len(item.layers) for item in self.checkpoints)

    @property
    def unreadable(self) -> int:
        """Checkpoints that could not be read."""
        return sum(item.error is not None for item in self.checkpoints)

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.count(severity)} {severity}s" for severity in SEVERITIES)
        return (
            f"<Report of {len(self.checkpoints)} checkpoints, {self.layer_count} BN layers:"
            f" {counts}, {self.unreadable} unreadable>"
        )
