"""`LayerGuard`: options, readings and warnings of a guard, whatever framework trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np

from bninspect.config.model import make_config
from bninspect.errors import UsageProblem
from bninspect.guard.evidence import Reading, with_evidence
from bninspect.model.layer import BNLayer
from bninspect.model.report import Finding
from bninspect.model.roles import STATISTICS
from bninspect.model.rule import RuleContext
from bninspect.reporters.check_text import entries
from bninspect.reporters.escapes import printable
from bninspect.reporters.text_utils import TextStyle
from bninspect.rules import RULES, apply_rules, require_rules, stuck
from bninspect.wording import plural

Action = Literal["warn", "stop"]

# The rules that judge a model while it trains. The others are about files, notes, weights that were
# copied in, or what only a finished training can be blamed for (a layer that this training leaves
# alone; averages that are cold after a few batches).
GUARD_RULES = tuple(rule.code for rule in RULES if rule.live)
# Where one of these was reported for a layer, a comparison with an earlier state adds nothing.
_NEVER_UPDATED = tuple(rule.code for rule in stuck.RULES)
# Averages of one and the same batch converge to its statistics, and then rest. If their last move
# before they stood still was below this (in the units of `Change.largest`), they converged: one
# bit of a float32 is 1e-7 of it.
_CONVERGED = 1e-5


class BatchNormWarning(UserWarning):
    """The warning of `BatchNormGuard`: statistics that training does not update."""


class LayerGuard:
    """A judge of successive readings of the BN layers of one model in training.

    `action`, `select` and `ignore` are those of the public guards. Raises `UsageProblem` for a
    wrong option.
    """

    # What is read, in the sentences of a warning.
    _source = "the model"

    def __init__(self, action: Action, select: str | Iterable[str], ignore: str | Iterable[str]):
        if action not in get_args(Action):
            raise UsageProblem(f"action is one of {', '.join(get_args(Action))}, not {action!r}.")
        config = make_config(select, ignore)
        self._rules = require_rules(
            (rule for rule in config.rules if rule.live), f"a guard judges {', '.join(GUARD_RULES)}"
        )
        self.action = action
        self.findings: tuple[Finding, ...] = ()
        self._forget()

    @property
    def layers(self) -> tuple[BNLayer, ...]:
        """Return the BN layers with their values as of the last reading; () before the first."""
        return self._last.layers if self._last is not None else ()

    def _forget(self) -> None:
        """Forget what was said of another model."""
        self._reported: set[tuple[str, str]] = set()
        self._begin()

    def _begin(self) -> None:
        """Forget the last reading: another training begins."""
        self._last: Reading | None = None
        self._last_moves: dict[str, float] = {}
        self._moved: dict[str, str] = {}  # the last interval in which statistics moved, by layer

    def _judge(self, reading: Reading, *, went_on: bool, stacklevel: int) -> None:
        """Apply the rules to a reading and warn of new findings.

        `went_on` says that the training ran between the last reading and this one. `stacklevel` is
        that of the line to blame, as `warnings.warn` counts from here.
        """
        last, self._last = self._last, reading
        interval = f"from {last.moment} to {reading.moment}" if last else ""
        facts = (f"training went on {interval}",) if last and went_on else ()
        with np.errstate(all="ignore"):
            layers = with_evidence(reading.layers, last, facts)
            findings = self._find(layers)
        known = set(map(_key, findings)) | self._reported
        self.findings = tuple(
            finding
            for finding in findings
            if not (finding.rule.needs_earlier and self._has_converged(finding.layer))
            and not is_implied(finding, known)
        )
        self._remember_moves(layers, interval)
        new = [f for f in self.findings if f.severity != "note" and _key(f) not in self._reported]
        if new:
            self._reported |= set(map(_key, new))
            self._warn(new, reading.moment, len(layers), stacklevel + 1)

    def _find(self, layers: Sequence[BNLayer]) -> tuple[Finding, ...]:
        """Return the findings on layers that have their evidence of training."""
        return apply_rules(layers, self._rules, RuleContext(live=True))

    def _stop(self) -> None:
        """Stop the training."""
        raise NotImplementedError

    def _has_converged(self, name: str) -> bool:
        """Return whether statistics that stand still had come to rest by themselves."""
        return self._last_moves.get(name, 1.0) < _CONVERGED

    def _remember_moves(self, layers: Iterable[BNLayer], interval: str) -> None:
        for layer in layers:
            moves = [
                change.largest or 0.0
                for role, change in (layer.since.changes if layer.since else {}).items()
                if role in STATISTICS and change.moved
            ]
            if moves:
                self._last_moves[layer.name] = max(moves)
                self._moved[layer.name] = interval

    def _warn(self, findings: Sequence[Finding], moment: str, total: int, stacklevel: int) -> None:
        stops = self.action == "stop" and any(f.severity == "error" for f in findings)
        if stops:
            self._stop()
        worst = min(findings, key=lambda f: ("error", "warning").index(f.severity))
        count = sum(finding.rule is worst.rule for finding in findings)
        head = (
            f"{'training is stopped at ' if stops else ''}{moment}: {count} of"
            f" {plural(total, 'BN layer')}: {worst.rule.summary} ({worst.rule.code})"
        )
        lines = entries(findings, TextStyle(width=80), source=self._source)
        warnings.warn("\n".join([printable(head), *lines]), BatchNormWarning, stacklevel)


def is_implied(finding: Finding, known: set[tuple[str, str]]) -> bool:
    """Return whether a comparison adds nothing: the layer's statistics were never updated.

    `known` has layer and code of what is known.
    """
    return finding.rule.needs_earlier and any(
        (finding.layer, code) in known for code in _NEVER_UPDATED
    )


def _key(finding: Finding) -> tuple[str, str]:
    return finding.layer, finding.rule.code
