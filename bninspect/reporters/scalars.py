"""Statistics of layers as named numbers, for the logs of a training (W&B, TensorBoard)."""

from __future__ import annotations

from collections.abc import Iterable

from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS


def scalars(layers: Iterable[BNLayer]) -> dict[str, float]:
    """Return the numbers of the statistics of some layers by name, as a logger of scalars takes.

    For each layer and statistic these are `LAYER/moving_mean/min`, `/max`, `/mean` (over the
    channels) and `/at_initial`: the number of channels that equal the initial value, left out where
    none is known. They are what JSON calls so. A number is NaN where a value is not finite.

    `layers` are those of a guard (`guard.layers`) or of a `CheckpointReport`; the whole values, for
    a histogram, are `layer.values[role].array`.
    """
    numbers: dict[str, float] = {}
    for layer in layers:
        for role in STATISTICS:
            values = layer.values.get(role)
            if values is None:
                continue
            name = f"{layer.name}/{role}"
            numbers[f"{name}/min"] = values.minimum
            numbers[f"{name}/max"] = values.maximum
            numbers[f"{name}/mean"] = values.mean
            if values.at_initial is not None:
                numbers[f"{name}/at_initial"] = float(values.at_initial)
    return numbers
