"""Scale and shift of BN layers: the factor and the summand of inference in each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport
from bninspect.model.roles import ROLES


@dataclass(frozen=True, eq=False)
class Inference:
    """Inference of one layer: `y = x * scale + shift`, with one value for each channel.

    `scale = gamma / sqrt(variance + epsilon)`, `shift = beta - mean * scale`, both of shape (C,) in
    float64; None where a statistic is missing or the members differ in channels. `assumed` says
    that `epsilon` is the family's usual one, not a stored one. `caution` is a sentence on what else
    the file does not store, or None.
    """

    epsilon: float
    assumed: bool
    scale: NDArray[Any] | None
    shift: NDArray[Any] | None
    caution: str | None = None


# keras/layers/normalization.py of 1.0.5, keras/backend/theano_backend.py of 1.0.6. Whole models,
# which store a configuration, came with 1.0.7.
_MAY_BE_A_STD = (
    "without a stored configuration this may be the standard deviation, which Keras up to 1.0.5 (on"
    " Theano up to 1.0.6) kept and divided by"
)


# The selected layers of one checkpoint, each with its inference.
Dump = tuple[CheckpointReport, list[tuple[BNLayer, Inference]]]


def inference(layer: BNLayer) -> Inference:
    """Return scale and shift of a layer whose values have been read.

    A missing gamma counts as 1, a missing beta as 0. A channel with a variance below -epsilon gets
    NaN, as at inference. Both are None where a statistic is missing or the members differ in their
    number of channels.
    """
    epsilon = layer.usual_epsilon if layer.epsilon is None else layer.epsilon
    assumed = layer.epsilon is None
    with np.errstate(all="ignore"):
        arrays = {role: values.array.astype(np.float64) for role, values in layer.values.items()}
    channels = {array.size for array in arrays.values()}
    if "moving_mean" not in arrays or "moving_variance" not in arrays or len(channels) > 1:
        return Inference(epsilon, assumed, None, None)
    gamma = arrays["gamma"] + layer.gamma_offset if "gamma" in arrays else 1.0
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(arrays["moving_variance"] + epsilon)
        shift = arrays.get("beta", 0.0) - arrays["moving_mean"] * scale
    caution = _MAY_BE_A_STD if layer.family == "keras-1" and layer.keras is None else None
    return Inference(epsilon, assumed, scale, shift, caution)


def columns(layer: BNLayer, result: Inference) -> dict[str, NDArray[Any] | None]:
    """Return the members, scale and shift of a layer by name; None for a missing one."""
    shown: dict[str, NDArray[Any] | None] = {}
    for role in ROLES:
        shown[role] = layer.values[role].array if role in layer.values else None
    return shown | {"scale": result.scale, "shift": result.shift}
