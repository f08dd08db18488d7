"""`BatchNormGuard`, the callback for `fit`: readings of the model, and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bninspect.errors import UsageProblem
from bninspect.guard.evidence import Reading
from bninspect.guard.layer_guard import Action, LayerGuard
from bninspect.guard.live_layers import layer_config, read_layers, with_calls
from bninspect.guard.live_model import is_fitting, live_model
from bninspect.model.layer import BNLayer
from bninspect.model.report import Finding
from bninspect.model.rule import RuleContext
from bninspect.rules import apply_rules

_START = "the start of the training"


class BatchNormGuard(LayerGuard):
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
        super().__init__(action, select, ignore)
        self.after_batches = after_batches
        self.set_model(None)

    def set_params(self, params: object) -> None:  # noqa: ARG002 - the number of epochs and steps
        """Note whether `fit` runs the training: a loop with a `CallbackList` calls this, too."""
        self._is_fitted = is_fitting(self._model)

    def set_model(self, model: Any) -> None:
        """Watch `model`; forget the findings of another one."""
        self._model = model
        self._configs: dict[int, tuple[object, Mapping[str, Any]]] = {}
        self._is_fitted = False
        self._forget()

    def _begin(self) -> None:
        super()._begin()
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
            self._judge_now(f"batch {batch}{self._epoch}")
        self._batches_ran = True

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """Judge the layers."""
        self._judge_now(f"the end of epoch {epoch + 1}")

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

    def _judge_now(self, moment: str) -> None:
        went_on, self._batches_ran = self._batches_ran, False
        self._judge(self._read(moment), went_on=went_on, stacklevel=3)

    def _find(self, layers: Sequence[BNLayer]) -> tuple[Finding, ...]:
        findings = super()._find(layers)
        if not findings:
            return ()
        # Only now is the model's configuration worth its time.
        shown = live_model(self._model, is_fitted=self._is_fitted)
        context = RuleContext(live=True, live_model=shown)
        return apply_rules(with_calls(layers, self._model), self._rules, context)

    def _stop(self) -> None:
        self._model.stop_training = True


def _ignore_hook(*_: object, **__: object) -> None:
    """Do nothing in a hook that the guard has no use for."""
