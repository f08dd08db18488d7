"""BN layers of a checkpoint as views of one array; objects are made when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from bninspect.model.checkpoint import Variable
from bninspect.model.layer import BNLayer, Values
from bninspect.model.roles import STATISTICS, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Reads the values of a variable by its name.
Load = Callable[[str], "NDArray[Any]"]


class Member(NamedTuple):
    """A member of the layer with number `layer`: where its values begin among those of all.

    `initial` is what they started from, None where that is random or unknown.
    """

    name: str
    role: Role
    layer: int
    start: int
    size: int
    initial: float | None


class Architecture:
    """The BN layers that many checkpoints have in common, without values.

    `members` are their members in the order of the values: the means of all layers, all variances,
    gamma and beta. Every layer has both statistics.
    """

    def __init__(self, layers: Sequence[BNLayer], members: Sequence[Member]) -> None:
        """Prepare what is the same for all values."""
        self.layers, self.members = tuple(layers), tuple(members)
        sizes = [member.size for member in members]
        initial = [math.nan if member.initial is None else member.initial for member in members]
        self.starts = np.array([member.start for member in members])
        self.initials: NDArray[np.float64] = np.repeat(initial, sizes)
        self.statistics = tuple(member for member in members if member.role in STATISTICS)
        self.divisors: NDArray[np.float64] = np.repeat(sizes, sizes).astype("f8")
        self.exact_ranges = np.array([_exact_range(member.size) for member in self.statistics])

    def layers_with(
        self, values: Sequence[Values], load: Load | None = None
    ) -> tuple[BNLayer, ...]:
        """Return the layers with the values of each member; `load` reads them again by name."""
        of_layers: list[dict[Role, Values]] = [{} for _ in self.layers]
        for member, its_values in zip(self.members, values, strict=True):
            of_layers[member.layer][member.role] = its_values
        return tuple(
            layer.with_fields(
                values={role: its_values[role] for role in layer.variables},
                variables=layer.variables if load is None else _loaded(layer.variables, load),
            )
            for layer, its_values in zip(self.layers, of_layers, strict=True)
        )


def _exact_range(size: int) -> float:
    """Return up to which ratio of largest to smallest magnitude a sum of quotients is exact.

    The quotients are those of numbers of float32, which have 24 bits, none of them 0, by their
    number `size`. If that is a power of 2, they have no more bits, and all sums of them have at
    most 53 bits, those of float64, up to this ratio.
    """
    bits = size.bit_length() - 1
    return 2.0 ** (28 - bits) if size == 1 << bits and bits <= 28 else 0.0


def _loaded(variables: Mapping[Role, Variable], load: Load) -> dict[Role, Variable]:
    return {
        role: variable._replace(load=partial(load, variable.name))
        for role, variable in variables.items()
    }


class LayerViews(Sequence[BNLayer]):
    """The layers of an architecture with the values of one checkpoint, of shape (n,) and finite.

    No statistic is at its initial value in any channel.
    """

    def __init__(
        self, architecture: Architecture, values: NDArray[np.float32], load: Load | None = None
    ) -> None:
        """Take the values of all members, one after the other; `load` reads them again by name."""
        self.architecture, self._values, self._load = architecture, values, load
        self._made: tuple[BNLayer, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a pickle holds: values, and the architecture, which many of it share."""
        return LayerViews, (self.architecture, self._values)

    def __len__(self) -> int:
        return len(self.architecture.layers)

    @overload
    def __getitem__(self, index: int) -> BNLayer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[BNLayer, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        self._made = self._made or self._make()
        return self._made[index]

    def statistics(self) -> list[float]:
        """Return minimum, maximum and mean of each moving_mean and moving_variance, by layer.

        They are the numbers of `Values`.
        """
        members = self.architecture.statistics
        end = members[-1].start + members[-1].size
        values = self._values[:end]
        starts = self.architecture.starts[: len(members)]
        lowest = np.minimum.reduceat(values, starts).tolist()
        highest = np.maximum.reduceat(values, starts).tolist()
        means = self._means(values, starts)
        numbers = list(zip(lowest, highest, means, strict=True))
        count = len(self)  # all means come before all variances
        return [
            number
            for mean, variance in zip(numbers[:count], numbers[count:], strict=True)
            for number in (*mean, *variance)
        ]

    def _means(self, values: NDArray[np.float32], starts: NDArray[np.intp]) -> list[float]:
        """Return the mean of each statistic: the sum, rounded once, of what each channel adds."""
        quotients = values.astype("f8") / self.architecture.divisors[: values.size]
        means: list[float] = np.add.reduceat(quotients, starts).tolist()
        magnitudes = np.abs(values)
        smallest = np.minimum.reduceat(magnitudes, starts).astype("f8")
        is_exact = np.maximum.reduceat(magnitudes, starts) <= (
            smallest * self.architecture.exact_ranges
        )
        for number in np.flatnonzero(~is_exact).tolist():
            start = starts[number]
            size = self.architecture.statistics[number].size
            means[number] = math.fsum(quotients[start : start + size].tolist())
        return means

    def _make(self) -> tuple[BNLayer, ...]:
        values, starts = self._values, self.architecture.starts
        lowest = np.minimum.reduceat(values, starts).tolist()
        highest = np.maximum.reduceat(values, starts).tolist()
        is_initial = values == self.architecture.initials
        at_initial = np.add.reduceat(is_initial, starts, dtype=np.intp).tolist()
        return self.architecture.layers_with(
            [
                Values(
                    values[member.start : member.start + member.size],
                    member.size,
                    low,
                    high,
                    member.initial,
                    None if member.initial is None else count,
                )
                for member, low, high, count in zip(
                    self.architecture.members, lowest, highest, at_initial, strict=True
                )
            ],
            self._load,
        )

    def __repr__(self) -> str:
        return repr(tuple(self))
