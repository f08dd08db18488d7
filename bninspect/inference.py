"""What inference makes of a layer's members: one scale and one shift a channel."""

from __future__ import annotations

import numpy as np

from bninspect.model import BNLayer, Inference


def inference(layer: BNLayer) -> Inference:
    """Scale and shift of a layer whose values have been read.

    A missing gamma is 1, a missing beta 0. A channel whose variance lies below -epsilon gets NaN,
    as it would at inference. None for both where a statistic is missing or the members disagree
    on the number of channels.
    """
    epsilon = layer.usual_epsilon if layer.epsilon is None else layer.epsilon
    assumed = layer.epsilon is None
    arrays = {role: values.array.astype(np.float64) for role, values in layer.values.items()}
    channels = {array.size for array in arrays.values()}
    if "moving_mean" not in arrays or "moving_variance" not in arrays or len(channels) > 1:
        return Inference(epsilon, assumed, None, None)
    gamma = arrays["gamma"] + layer.gamma_offset if "gamma" in arrays else 1.0
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(arrays["moving_variance"] + epsilon)
        shift = arrays.get("beta", 0.0) - arrays["moving_mean"] * scale
    return Inference(epsilon, assumed, scale, shift)
