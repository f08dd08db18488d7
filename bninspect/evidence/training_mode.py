"""Mode of training, proved by the bias right before a BN layer.

A bias is added to every input of the layer. In batch mode the layer subtracts the mean of the batch
and with it the bias, so that the bias has no gradient but rounding noise. In inference mode its
gradient is that of beta times gamma / sqrt(moving_variance + epsilon). So a bias, or its optimizer
slot, that is mere noise compared with that of beta proves batch mode. A bias that moved as beta did
proves inference mode, if both started at 0.

The thresholds are from the trainings of benchmarks/bias_before_bn.py; docs/verified.md has the
table. Between them nothing is claimed: that is the range of mixed modes and of 16-bit trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bninspect.evidence.keras_slots import (
    KERAS_SLOTS,
    SLOTS_BY_NAME,
    name_parts,
    slot_keys,
    weight_name,
)
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.graph import GraphEvidence
from bninspect.model.layer import BNLayer, ModeProof

# The largest share of the value in inference mode that is taken for noise. In batch mode values
# stayed below 1e-5 (SGD, Momentum) and second moments below 5e-9, in 16 bits below 4e-5; in mixed
# modes both were above 1e-2.
_NOISE = 1e-4
# The largest distance of a bias from beta, as a share of beta: inference mode stayed below 0.1 in
# most trainings, mixed modes above 0.12.
_SAME = 0.1
# With fewer channels two vectors may be alike by chance.
_LEAST_CHANNELS = 4
# A channel whose gamma is about 0 passes no gradient on to the bias in either mode.
_LEAST_SCALE = 1e-2

# The slots of TensorFlow 1 and those of Keras: averages of squared gradients have the power 2
# (tensorflow/python/training/*.py; keras/src/optimizers/*.py).
_SLOTS = {"Adam_1": 2, "RMSProp": 2, "Momentum": 1, "Adam": 1}


class _Slot(NamedTuple):
    """A slot of the bias with that of beta; `power` is 2 for averages of squared gradients."""

    bias: Variable
    beta: Variable
    power: int


class TrainingModes:
    """The modes that training ran the BN layers of an open checkpoint in, as biases prove them."""

    def __init__(
        self, checkpoint: Checkpoint, graph: Callable[[BNLayer], GraphEvidence | None]
    ) -> None:
        self._checkpoint = checkpoint
        self._graph = graph

    def of(self, layer: BNLayer) -> ModeProof | None:
        """Return the mode of a layer, None unless it is proved.

        Values prove it for the whole training, so only where the layer is not compared with an
        earlier checkpoint; slots for the last steps. Raises a `ReadProblem` if they cannot be read.
        """
        beta, name = layer.values.get("beta"), self._bias_before(layer)
        bias = self._checkpoint.variables.get(name) if name is not None else None
        if beta is None or bias is None or not 0 < bias.size == beta.channels:
            return None
        scale = _scale(layer)
        for slot in self._slots(layer.variables["beta"].name, bias.name):
            noise = _share(_read(slot.bias), _read(slot.beta), scale**slot.power)
            if noise is not None and noise <= _NOISE:
                return ModeProof("batch", _fact_of_slot(bias.name, slot))
        if layer.since is not None or beta.initial != 0.0:
            return None
        return _by_values(_read(bias), beta.array.astype("f8"), scale, bias.name)

    def _bias_before(self, layer: BNLayer) -> str | None:
        """Return the stored name of the bias before a layer: configuration, position or graph."""
        if layer.keras is not None:
            return layer.keras.bias_before
        if self._checkpoint.format == "keras-h5":
            return self._stored_before(layer)
        graph = self._graph(layer) if self._checkpoint.named_by == "graph" else None
        return None if graph is None else graph.bias_before

    def _stored_before(self, layer: BNLayer) -> str | None:
        """Return the bias that is stored right before a layer, in a file in the network's order."""
        own = {variable.name for variable in layer.variables.values()}
        before = {self._previous.get(name, "") for name in own} - own
        name = before.pop() if len(before) == 1 else ""
        return name if name.partition(":")[0].endswith("bias") else None

    @cached_property
    def _previous(self) -> dict[str, str]:
        return {name: before for before, name in pairwise(self._checkpoint.variables)}

    def _slots(self, beta: str, bias: str) -> Iterator[_Slot]:
        """Yield the optimizer slots of a bias with the slots of beta, second moments first."""
        if self._checkpoint.named_by == "graph":
            variables = self._checkpoint.variables
            for slot, power in _SLOTS.items():
                yield from _pair(variables, f"{bias}/{slot}", f"{beta}/{slot}", power)
        elif self._checkpoint.format in SLOTS_BY_NAME:
            for slot, power in KERAS_SLOTS.items():
                names = [
                    self._keras_slots.get((weight_name(weight), slot), "")
                    for weight in (bias, beta)
                ]
                yield from _pair(self._checkpoint.optimizer, names[0], names[1], power)

    @cached_property
    def _keras_slots(self) -> dict[tuple[str, str], str]:
        """Return the stored names of slots by the weight's name, joined by `_`, and the slot's.

        Keras 2 writes `SGD/m/conv/bias:0` or `Adam/conv/bias/m:0`, Keras 3
        `adam/conv_bias_velocity`. A key that fits two slots maps to an empty name.
        """
        names: dict[tuple[str, str], str] = {}
        for stored in self._checkpoint.optimizer:
            for key in slot_keys(name_parts(stored)):
                names[key] = "" if key in names else stored
        return names


def _pair(variables: Mapping[str, Variable], bias: str, beta: str, power: int) -> Iterator[_Slot]:
    if bias in variables and beta in variables:
        yield _Slot(variables[bias], variables[beta], power)


def _fact_of_slot(bias: str, slot: _Slot) -> str:
    noise, moved = (np.abs(_read(variable)).max() for variable in (slot.bias, slot.beta))
    return (
        f"`{bias}`, which is added right before the layer, had no gradient but rounding noise in"
        f" the last steps: its slot `{slot.bias.name}` is at most {noise:.1g}, that of beta"
        f" {moved:.1g}, so they normalized by batch statistics"
    )


def _by_values(
    bias: NDArray[Any], beta: NDArray[Any], scale: NDArray[Any], name: str
) -> ModeProof | None:
    """Return the mode that bias and beta prove if both started at 0, or None."""
    if not (np.isfinite(bias).all() and np.isfinite(beta).all()):
        return None
    largest, moved = float(np.abs(bias).max()), float(np.abs(scale * beta).max())
    if 0.0 < largest <= _NOISE * moved:
        return ModeProof(
            "batch",
            f"`{name}`, which is added right before the layer, is {largest:.1g} at most while beta"
            f" moved by {np.abs(beta).max():.2g}: training normalized by batch statistics",
        )
    enough = np.count_nonzero(beta) >= _LEAST_CHANNELS
    for expected in (beta, scale * beta):
        apart = float(np.linalg.norm(bias - expected))
        if enough and apart <= _SAME * float(np.linalg.norm(expected)):
            return ModeProof(
                "inference",
                f"`{name}`, which is added right before the layer, moved as beta did (by"
                f" {largest:.2g} and {np.abs(beta).max():.2g}); batch statistics would have"
                " cancelled it, so training ran in inference mode",
            )
    return None


def _scale(layer: BNLayer) -> NDArray[Any]:
    """Return the factor of inference: gamma / sqrt(variance + epsilon), of shape (C,)."""
    channels = layer.values["beta"].channels
    gamma, variance = layer.values.get("gamma"), layer.values.get("moving_variance")
    epsilon = layer.usual_epsilon if layer.epsilon is None else layer.epsilon
    scale = np.ones(channels) if gamma is None else gamma.array.astype("f8") + layer.gamma_offset
    if variance is not None and variance.channels == channels:
        scale = scale / np.sqrt(np.maximum(variance.array.astype("f8"), 0.0) + epsilon)
    return np.abs(scale)


def _share(part: NDArray[Any], whole: NDArray[Any], factor: NDArray[Any]) -> float | None:
    """Return the largest share that `part` is of `whole * factor`; None if nothing can be said.

    Nothing can be said of slots that are 0 throughout: the bias may be frozen.
    """
    if part.shape != whole.shape or not np.isfinite(part).all() or not np.isfinite(whole).all():
        return None
    expected = np.abs(whole) * factor
    used = (factor >= _LEAST_SCALE) & (expected > 0.0)
    if not part.any() or not used.any():
        return None
    return float((np.abs(part)[used] / expected[used]).max())


def _read(variable: Variable) -> NDArray[Any]:
    values: NDArray[Any] = variable.read().astype("f8").reshape(-1)
    return values
