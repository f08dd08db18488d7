"""A test of all statistics of a checkpoint at once: whether any rule may find something.

Nearly all layers of nearly all checkpoints are far from every rule. A dozen operations on arrays
prove that for all layers of a checkpoint. The test is stricter than the rules: what it does not
accept is judged layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bninspect.evidence.keras_slots import may_have_slots
from bninspect.evidence.optimizer_slots import NEAR_MEAN, NEAR_VARIANCE, stores_slots
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.layer import BNLayer
from bninspect.model.layer_views import Architecture, Member
from bninspect.model.roles import AFFINE, STATISTICS
from bninspect.rules.averages import USUAL_MOMENTUM
from bninspect.rules.channels import COLLAPSED_VARIANCE
from bninspect.rules.cold import COLD_SHARE, HIGHEST_MOMENTUM, SLOW_MOMENTUM
from bninspect.rules.numeric import EXPLODING_VARIANCE

# What the statistics of the layers start from here: other families are judged layer by layer.
_MEAN, _VARIANCE = 0.0, 1.0


class PlainValues(NamedTuple):
    """The test for the layers of one layout.

    It takes the values of the members of an architecture. `channels` counts the channels of all
    layers, `starts` are the first of each; `variance_initials` is what any variance may have
    started from. `momenta` are those that layers store; with `has_momenta` all do. `has_slots` says
    that optimizer slots are stored, and none of a statistic, or that values tell nothing of
    optimizers.
    """

    architecture: Architecture
    channels: int
    starts: NDArray[np.intp]
    variance_initials: tuple[float, ...]
    momenta: tuple[float, ...]
    has_momenta: bool
    has_slots: bool

    def accepts(
        self,
        values: NDArray[Any],
        step: int | None,
        momentum: float | None,
        has_graph: Callable[[], bool],
    ) -> bool:
        """Return whether no rule finds anything in these values, of shape (n,), for sure.

        `momentum` is the user's. `has_graph` tells whether a graph lies beside the checkpoint.
        """
        means, variances = values[: self.channels], values[self.channels : 2 * self.channels]
        # As Python's floats: numpy would round the limits to float32 before it compares.
        least, largest = float(variances.min()), float(variances.max())
        if not (np.isfinite(values).all() and means.all()):
            return False
        if not COLLAPSED_VARIANCE < least <= largest <= EXPLODING_VARIANCE:
            return False
        if any((variances == initial).any() for initial in self.variance_initials):
            return False
        if not self._are_warm(least, step, momentum, has_graph):
            return False
        lowest = np.minimum.reduceat(variances, self.starts)
        highest = np.maximum.reduceat(variances, self.starts)
        if ((lowest == highest) & (highest < _VARIANCE)).any():
            return False
        return self.has_slots or not self._are_near_start(means, lowest, highest)

    def _are_warm(
        self, least: float, step: int | None, momentum: float | None, has_graph: Callable[[], bool]
    ) -> bool:
        """Return whether BN106 finds nothing where `least` is the smallest variance."""
        if not all(_is_forgotten(stored, step) for stored in self.momenta):
            return False
        if self.has_momenta:
            return True
        if momentum is not None:
            return _is_forgotten(momentum, step)
        return least <= COLD_SHARE * _VARIANCE or _is_warm(step, has_graph)

    def has_zero_variances(self, values: NDArray[Any]) -> bool:
        """Return whether all variances of a layer are 0."""
        variances = np.abs(values[self.channels : 2 * self.channels])
        return bool((np.maximum.reduceat(variances, self.starts) == 0).any())

    def _are_near_start(
        self,
        means: NDArray[Any],
        lowest: NDArray[Any],
        highest: NDArray[Any],
    ) -> bool:
        """Return whether most layers look as if nothing but an optimizer moved them."""
        far = np.maximum.reduceat(np.abs(means), self.starts)
        near = (far <= NEAR_MEAN) & (lowest >= _VARIANCE / NEAR_VARIANCE)
        return int((near & (highest <= _VARIANCE * NEAR_VARIANCE)).sum()) * 2 > self.starts.size


def _is_warm(step: int | None, has_graph: Callable[[], bool]) -> bool:
    """Return whether no momentum in use leaves averages cold after so many steps (BN106).

    Below that the momentum of a graph may tell.
    """
    if not step:
        return True
    if USUAL_MOMENTUM**step > COLD_SHARE:
        return False
    return HIGHEST_MOMENTUM**step <= COLD_SHARE or not has_graph()


def _is_forgotten(momentum: float, step: int | None) -> bool:
    """Return whether BN106 finds and notes nothing with a known momentum."""
    if step is None:
        return not SLOW_MOMENTUM <= momentum < 1.0
    return not step or not 0.0 < momentum < 1.0 or momentum**step <= COLD_SHARE


def plain_values(checkpoint: Checkpoint, layers: Sequence[BNLayer]) -> PlainValues | None:
    """Return the test for the layers of a checkpoint; None where only the rules can judge them.

    They must be vectors of float32 with both statistics, which start at 0 and 1.
    """
    variables = checkpoint.variables
    if not layers or not all(map(_is_usual, layers)):
        return None
    owners = tuple(f"{layer.variables[role].name}/" for layer in layers for role in STATISTICS)
    if any(name.startswith(owners) for name in variables):
        return None
    if checkpoint.optimizer and may_have_slots(checkpoint, layers):
        return None
    counts = [layer.channels or 0 for layer in layers]
    members: list[Member] = []
    start = 0
    for role in (*STATISTICS, *AFFINE):
        for number, layer in enumerate(layers):
            if role in layer.variables:
                initial = next(iter(layer.initial.get(role, ())), None)
                name = layer.variables[role].name
                members.append(Member(name, role, number, start, counts[number], initial))
                start += counts[number]
    return PlainValues(
        architecture=Architecture(layers, members),
        channels=sum(counts),
        starts=np.cumsum([0, *counts[:-1]]),
        variance_initials=tuple({v for layer in layers for v in layer.initial["moving_variance"]}),
        momenta=tuple({layer.momentum for layer in layers if layer.momentum is not None}),
        has_momenta=all(layer.momentum is not None for layer in layers),
        has_slots=stores_slots(variables) or checkpoint.named_by != "graph",
    )


def _is_usual(layer: BNLayer) -> bool:
    """Return whether nothing about a layer but its values can be a finding."""
    stored = layer.variables
    if not all(role in stored for role in STATISTICS):
        return False
    if layer.helpers or layer.shadows:
        return False
    shapes = {variable.shape for variable in stored.values()}
    types = {variable.dtype for variable in stored.values()}
    if any(len(layer.initial.get(role, ())) > 1 for role in AFFINE):
        return False
    initial = [layer.initial.get(role) or (None,) for role in STATISTICS]
    starts_as_usual = initial[0] == (_MEAN,) and initial[1][0] == _VARIANCE
    is_vector = len(shapes) == 1 and len(min(shapes)) == 1 and min(shapes)[0] > 0
    return is_vector and types == {"float32"} and starts_as_usual
