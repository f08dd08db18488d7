"""`BatchNormGuard` of JAX and Flax, and `check_updated`, which compares two states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bninspect.batchnorm.find_layers import find_layers, notes_on_unchecked, unchecked_groups
from bninspect.config.model import make_config
from bninspect.errors import UsageProblem
from bninspect.evidence.changes import is_compared
from bninspect.guard.evidence import Reading, with_evidence
from bninspect.guard.layer_guard import GUARD_RULES, is_implied
from bninspect.guard.step_guard import StepGuard, read_live
from bninspect.guard.train_state import find_leaves, is_variable, state_checkpoint
from bninspect.model.report import CheckpointReport, Earlier, Report
from bninspect.model.rule import RuleContext
from bninspect.rules import apply_rules, require_rules
from bninspect.wording import listed, plural

_OLD, _NEW = "the old state", "the new state"


class BatchNormGuard(StepGuard):
    """A guard of a JAX training that warns of BN statistics that training does not update.

    A loop calls `check` with its state after each step. It reads the BN layers at the first step
    and every `every_n_steps` steps later, and compares them with the reading before. Each finding
    is a `BatchNormWarning`, once for each layer and rule, with evidence and fix. With
    `action="stop"`, `check` returns True once an error was found.

    `select` and `ignore` are rule codes or their beginnings, as in `bninspect check`; `GUARD_RULES`
    are those that are judged here. `findings` are those of the last reading, `layers` the BN layers
    with their values then. `should_stop` says that the training is to stop.

    No cause is named: the states do not show the call of the model. Raises `UsageProblem` for a
    wrong option.
    """

    _source = "the states"

    def check(self, state: Any, step: int) -> bool:
        """Judge the layers of `state` if `step` is due; return whether training is to stop.

        `state` is what `check_updated` takes; its arrays are copied. `step` counts the training
        steps. Raises `UsageProblem` for a state without arrays.
        """
        if self._is_due(step):
            checkpoint = state_checkpoint(state, "the state")
            self._judge_at(step, checkpoint, find_layers(checkpoint), stacklevel=3)
        return self.should_stop


def check_updated(
    old: Any, new: Any, *, select: str | Iterable[str] = (), ignore: str | Iterable[str] = ()
) -> Report:
    """Judge which BN statistics training steps have updated, from the states before and after them.

    A state is a dict or FrozenDict of linen's variables (`params` and `batch_stats`), a TrainState
    with both, or `nnx.state(model)`. With the parameters, a layer whose scale and bias stand still
    is taken to be frozen, and may keep its statistics. Where nothing but the statistics is given
    (`state.batch_stats`), each layer has to be updated.

    The report is that of `bninspect.check`: `ok` is False if statistics that training should have
    updated are still at their initial values, or exactly what they were, and if there is no BN
    layer; `bninspect.explain` says it as text. `select` and `ignore` are rule codes or their
    beginnings; `bninspect.flax.GUARD_RULES` are those that are judged here.

    Raises `UsageProblem` for a state without arrays, for two states that share no BN layer, and for
    variables of NNX that are in both: these are changed in place, so the old state has to be a
    copy, `jax.tree.map(jnp.copy, nnx.state(model))`.
    """
    rules = require_rules(
        (rule for rule in make_config(select, ignore).rules if rule.live),
        f"check_updated judges {', '.join(GUARD_RULES)}",
    )
    _refuse_shared(old, new)
    checkpoint = state_checkpoint(new, _NEW)
    earlier_checkpoint = state_checkpoint(old, _OLD)
    earlier = read_live(earlier_checkpoint, find_layers(earlier_checkpoint))
    layers = read_live(checkpoint, find_layers(checkpoint))
    facts = (f"training went on from {_OLD} to {_NEW}",)
    with np.errstate(all="ignore"):
        judged = with_evidence(layers, Reading(_OLD, earlier), facts)
        findings = apply_rules(judged, rules, RuleContext(live=True))
    left = [layer.name for layer in judged if not is_compared(layer)]
    if layers and len(left) == len(layers):
        raise UsageProblem("old and new have no BN layer in common: are they of one model?")
    known = {(finding.layer, finding.rule.code) for finding in findings}
    unchecked = unchecked_groups(checkpoint.unchecked, layers)
    report = CheckpointReport(
        path=_NEW,
        variable_count=len(checkpoint.variables),
        layers=tuple(judged),
        findings=tuple(finding for finding in findings if not is_implied(finding, known)),
        notes=(*notes_on_unchecked(unchecked), *_not_compared(left, len(layers))),
        unchecked=unchecked,
        since=Earlier(_OLD, None, len(layers) - len(left), is_named=False),
    )
    return Report((report,), rules)


def _not_compared(names: Sequence[str], total: int) -> Iterator[str]:
    if names:
        these = f"{len(names)} of {plural(total, 'BN layer')}"
        yield f"{these} cannot be compared with {_OLD}: {listed(names)}"


def _refuse_shared(old: Any, new: Any) -> None:
    """Raise `UsageProblem` if both states hold the same variables, not two that may differ."""
    variables = {id(leaf) for _, leaf in find_leaves(old) if is_variable(leaf)}
    if any(id(leaf) in variables for _, leaf in find_leaves(new)):
        raise UsageProblem(
            "old and new hold the same variables of NNX, which training changes in place: make old"
            " a copy, jax.tree.map(jnp.copy, nnx.state(model))"
        )
