"""`BatchNormGuard`, the callback for `fit`: readings of the model, and warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from bninspect.config.model import make_config
from bninspect.errors import UsageProblem
from bninspect.guard.evidence import Reading, with_evidence
from bninspect.guard.live_layers import layer_config, read_layers, with_calls
from bninspect.guard.live_model import is_fitting, live_model
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
_START = "the start of the training"


class BatchNormWarning(UserWarning):
    """The warning of `BatchNormGuard`: statistics that training does not update."""


class BatchNormGuard:
    """A callback for `fit` that warns of BN statistics that training does not update.

    It reads the model's BN layers after `after_batches` batches of an epoch and at the end of each
    epoch, and compares them with the reading before. Each finding is a `BatchNormWarning`, once
    for each layer and rule, with evidence and fix. With `action="stop"` an error also stops the
    training after the next batch (`model.stop_training`); a warning does not.

    `select` and `ignore` are rule codes or their beginnings, as in `bninspect check`; `GUARD_RULES`
    are those that are judged here. `findings` are those of the last reading, including notes, which
    are never warned of: a layer that is frozen, or called with training=False, on purpose. Where
    the model's configuration does not show that purpose (a `call` of your own that passes
    training=False to layers whose gamma and beta it trains), ignore BN107.

    A cause is named where the live model proves it: momentum 1, a frozen layer, training=False in a
    functional model (Keras 2), and under `fit` of Keras 3 a `call` that does not take `training`.
    What a `call` or a `train_step` of your own may do is said as evidence, not as a cause.

    A loop of your own calls `set_model`, `on_train_begin`, `on_epoch_begin`, `on_train_batch_begin`
    and `on_epoch_end` as `fit` does. Raises `UsageProblem` for a wrong option.
    """

    # Keras 2 need not fetch the losses of each batch for it: it does not read them.
    _supports_tf_logs = True

    def __init__(
        self,
        *,
        after_batches: int = 50,
        action: Action = "warn",
        select: str | Iterable[str] = (),
        ignore: str | Iterable[str] = (),
    ) -> None:
        if after_batches < 1:
            raise UsageProblem(f"after_batches must be at least 1, not {after_batches}.")
        if action not in get_args(Action):
            raise UsageProblem(f"action is one of {', '.join(get_args(Action))}, not {action!r}.")
        config = make_config(select, ignore)
        self._rules = require_rules(
            (rule for rule in config.rules if rule.live), f"a guard judges {', '.join(GUARD_RULES)}"
        )
        self.after_batches = after_batches
        self.action = action
        self.findings: tuple[Finding, ...] = ()
        self.set_model(None)

    def set_params(self, params: object) -> None:  # noqa: ARG002 - the number of epochs and steps
        """Note whether `fit` runs the training: a loop with a `CallbackList` calls this, too."""
        self._is_fitted = is_fitting(self._model)

    def set_model(self, model: Any) -> None:
        """Watch `model`; forget the findings of another one."""
        self._model = model
        self._reported: set[tuple[str, str]] = set()
        self._configs: dict[int, tuple[object, Mapping[str, Any]]] = {}
        self._is_fitted = False
        self._begin()

    def _begin(self) -> None:
        self._last: Reading | None = None
        self._last_moves: dict[str, float] = {}
        self._epoch = ""
        self._epoch_was_judged = False  # at after_batches of this epoch
        self._batches_ran = False  # since the last reading

    def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002 - Keras passes it
        """Take a first reading to compare with."""
        self._begin()
        self._last = self._read(_START)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """Count the batches of this epoch from 0."""
        self._epoch = f" of epoch {epoch + 1}"
        self._epoch_was_judged = False

    # At the beginning of a batch and not at the end of the one before: Keras 3 waits for every
    # batch as soon as one callback implements the hook of its end.
    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Judge the layers once `after_batches` batches of the epoch are done.

        `batch` is the number of batches before this one.
        """
        if not self._epoch_was_judged and batch >= self.after_batches:
            self._epoch_was_judged = True
            self._judge(f"batch {batch}{self._epoch}")
        self._batches_ran = True

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """Judge the layers."""
        self._judge(f"the end of epoch {epoch + 1}")

    # CallbackList of Keras 2 calls these three (keras/src/callbacks.py).
    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):  # every other hook of today's and later versions of Keras
            return _ignore_hook
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _read(self, moment: str) -> Reading:
        """Read the BN layers as they are now; raises `UsageProblem` without a model."""
        if self._model is None:
            raise UsageProblem("The guard has no model: call set_model(model) before the training.")
        return Reading(moment, read_layers(self._model, self._config))

    def _config(self, layer: Any) -> Mapping[str, Any]:
        """Return a layer's configuration, which is read once.

        The layer is kept beside it, so that its id is not given to another object.
        """
        if id(layer) not in self._configs:
            self._configs[id(layer)] = layer, layer_config(layer)
        return self._configs[id(layer)][1]

    def _judge(self, moment: str) -> None:
        """Read the layers, apply the rules and warn of new findings."""
        last, reading = self._last, self._read(moment)
        batches_ran = (
            (f"training went on from {last.moment} to {moment}",)
            if last and self._batches_ran
            else ()
        )
        self._last, self._batches_ran = reading, False
        with np.errstate(all="ignore"):
            layers = with_evidence(reading.layers, last, batches_ran)
            findings = apply_rules(layers, self._rules, RuleContext(live=True))
            if findings:  # only now is the model's configuration worth its time
                layers = with_calls(layers, self._model)
                shown = live_model(self._model, is_fitted=self._is_fitted)
                context = RuleContext(live=True, live_model=shown)
                findings = apply_rules(layers, self._rules, context)
        known = set(map(_key, findings)) | self._reported
        self.findings = tuple(
            finding
            for finding in findings
            if not finding.rule.needs_earlier
            or not (self._has_converged(finding.layer) or _implied(finding.layer, known))
        )
        self._remember_moves(layers)
        new = [f for f in self.findings if f.severity != "note" and _key(f) not in self._reported]
        if new:
            self._reported |= set(map(_key, new))
            self._warn(new, moment, len(layers))

    def _has_converged(self, name: str) -> bool:
        """Return whether statistics that stand still had come to rest by themselves."""
        return self._last_moves.get(name, 1.0) < _CONVERGED

    def _remember_moves(self, layers: Iterable[BNLayer]) -> None:
        for layer in layers:
            moves = [
                change.largest or 0.0
                for role, change in (layer.since.changes if layer.since else {}).items()
                if role in STATISTICS and change.moved
            ]
            if moves:
                self._last_moves[layer.name] = max(moves)

    def _warn(self, findings: Sequence[Finding], moment: str, total: int) -> None:
        stops = self.action == "stop" and any(f.severity == "error" for f in findings)
        if stops:
            self._model.stop_training = True
        worst = min(findings, key=lambda f: ("error", "warning").index(f.severity))
        count = sum(finding.rule is worst.rule for finding in findings)
        head = (
            f"{'training is stopped at ' if stops else ''}{moment}: {count} of"
            f" {plural(total, 'BN layer')}: {worst.rule.summary} ({worst.rule.code})"
        )
        lines = entries(findings, TextStyle(width=80), source="the model")
        warnings.warn("\n".join([printable(head), *lines]), BatchNormWarning, stacklevel=3)


def _ignore_hook(*_: object, **__: object) -> None:
    """Do nothing in a hook that the guard has no use for."""


def _key(finding: Finding) -> tuple[str, str]:
    return finding.layer, finding.rule.code


def _implied(name: str, known: set[tuple[str, str]]) -> bool:
    """Return whether the layer is known to have statistics that were never updated."""
    return any((name, code) in known for code in _NEVER_UPDATED)
