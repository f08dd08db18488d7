"""`StepGuard`: what the guards of loops share, in which the user counts the steps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from bninspect.batchnorm.find_layers import known_names
from bninspect.errors import UsageProblem
from bninspect.guard.evidence import Reading
from bninspect.guard.layer_guard import Action, BatchNormWarning, LayerGuard
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.layer import BNLayer
from bninspect.runs.read_layers import prefetch_values, with_values
from bninspect.wording import listed, plural


class StepGuard(LayerGuard):
    """A guard of a loop, which reads the layers at the first step and every `every_n_steps` later.

    `should_stop` says that an error was found, with `action="stop"`.
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 50,
        action: Action = "warn",
        select: str | Iterable[str] = (),
        ignore: str | Iterable[str] = (),
    ) -> None:
        if every_n_steps < 1:
            raise UsageProblem(f"every_n_steps must be at least 1, not {every_n_steps}.")
        super().__init__(action, select, ignore)
        self.every_n_steps = every_n_steps

    def _forget(self) -> None:
        super()._forget()
        self.should_stop = False

    def _begin(self) -> None:
        super()._begin()
        self._step: int | None = None  # that of the last reading

    def _is_due(self, step: int) -> bool:
        """Return whether the layers are to be read at a step.

        A step before that of the last reading begins another training.
        """
        if self._step is not None and step < self._step:
            self._begin()
        return self._step is None or step - self._step >= self.every_n_steps

    def _judge_at(
        self, step: int, checkpoint: Checkpoint, found: Sequence[BNLayer], *, stacklevel: int
    ) -> None:
        """Read the layers that were `found` in a live checkpoint, and judge them after the first.

        Without any layer there is a warning, once. `stacklevel` is that of the line to blame, as
        `warnings.warn` counts from here.
        """
        if not found and self._step is None:
            message = f"nothing is judged: {_none_among(checkpoint)}"
            warnings.warn(message, BatchNormWarning, stacklevel=stacklevel)
        is_first, self._step = self._step is None, step
        reading = Reading(f"step {step}", read_live(checkpoint, found))
        if is_first:
            self._last = reading
        else:
            self._judge(reading, went_on=True, stacklevel=stacklevel + 1)

    def _stop(self) -> None:
        self.should_stop = True


def read_live(checkpoint: Checkpoint, found: Sequence[BNLayer]) -> tuple[BNLayer, ...]:
    """Return the layers that were `found` in a live checkpoint, with their present values."""
    prefetch_values(checkpoint, found)
    with np.errstate(all="ignore"):  # values that are not finite are a finding (BN301)
        layers = with_values(found)
    return tuple(layers)


def _none_among(checkpoint: Checkpoint) -> str:
    names = known_names(checkpoint)
    among = f"no BN layer is among {plural(len(names), 'variable')}"
    return f"{among} ({listed(names, 3)})" if names else among
