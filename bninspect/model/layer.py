"""Immutable data types of BN layers, their values and what is known of their training. No I/O.

A *checkpoint* holds *variables*. A *BN layer* is up to four of them, its *members* (gamma, beta,
moving_mean, moving_variance), with C channels each.

The small types, of which there are many objects, are named tuples: to declare and to make one takes
a third of the time of a frozen dataclass, which shows in a program that runs for milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bninspect.model.graph import Graph

from bninspect.frozen import NamedTuple, frozen
from bninspect.model.cached_property import cached_property
from bninspect.model.checkpoint import KerasLayer, KerasModel, Variable
from bninspect.model.roles import AFFINE, STATISTICS, Role

# The helper variables of averages without bias: TensorFlow's zero-debias, Sonnet 2's averages.
_DEBIAS_HELPERS = ("/biased", "/local_step", "/_hidden", "/hidden")


class Values(NamedTuple):
    """The values of one member, with the numbers that the rules use (see `measure`).

    `array` has shape (C,), `channels` is C. `minimum` and `maximum` are NaN if any value is, and
    for no channels. `initial` is the value that training started from, None if it is random or
    unknown; `at_initial` counts the channels that equal it (None if `initial` is). `is_exact` says
    that these are the numbers which training left; a quantization may have rounded them (see
    `batchnorm.measure.rounded`), and then a channel is at its initial value only if all are.
    """

    array: NDArray[Any]
    channels: int
    minimum: float
    maximum: float
    initial: float | None
    at_initial: int | None
    is_exact: bool = True

    @property
    def all_initial(self) -> bool:
        """Return whether every channel equals the initial value (False for no channels)."""
        return self.at_initial == self.channels > 0

    @property
    def constant(self) -> bool:
        """Return whether all channels hold one and the same number (False for no channels)."""
        return self.minimum == self.maximum

    @property
    def has_moved(self) -> bool:
        """Return whether a gamma or beta left its initial value by training or by loading.

        Channels that all hold one other number prove nothing: another constant initializer looks
        so, such as the zeros that some networks give the last gamma of a block.
        """
        if self.initial is None or self.all_initial:
            return False
        return not self.constant or (self.channels == 1 and self.minimum != 0.0)

    @property
    def not_finite(self) -> int:
        """Return the number of values that are NaN or infinite."""
        if -math.inf < self.minimum <= self.maximum < math.inf:
            return 0
        return self.channels - int((abs(self.array) < math.inf).sum())

    @property
    def mean(self) -> float:
        """Return the mean over the channels; NaN if any value is not finite, or for no channels."""
        if self.not_finite or not self.channels:
            return math.nan
        if self.minimum == self.maximum == 0.0:
            return 0.0
        # Divided first, since the sum of finite values need not be finite.
        return math.fsum((self.array.astype("f8") / self.channels).tolist())

    def equal_to(self, value: float) -> NDArray[Any]:
        """Return which channels equal `value`, as booleans of shape (C,)."""
        return equals(self.array, value)


def equals(array: NDArray[Any], value: float) -> NDArray[Any]:
    """Return where `array` equals `value`, as booleans of the array's shape.

    The comparison is one of numbers, without a tolerance: -0.0 equals 0. `value` is rounded to the
    type of the array first; a value that is too large for this type equals nothing.
    """
    import numpy as np

    element: Any = value
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            element = array.dtype.type(value)
        if not np.isfinite(element):
            return np.zeros(array.shape, bool)
    equal: NDArray[Any] = np.equal(array, element)
    return equal


class OptimizerSteps(NamedTuple):
    """The steps of an optimizer, as its variable `name` shows; a lower bound if not `exact`."""

    name: str
    steps: int
    exact: bool = True

    def __str__(self) -> str:
        least = "" if self.exact else "at least "
        return f"`{self.name}` shows {least}{self.steps} optimizer steps"


class TrainingEvidence(NamedTuple):
    """The evidence in the file that a layer was trained.

    `facts` are sentences that show training. `testable` says that something is stored that could
    have shown it; without that, the absence of facts proves nothing. `updates` is the layer's own
    count of the updates of its averages, None if it has none. `unmoved` are the members whose
    optimizer slots are stored and never moved, so that no optimizer changed them. `optimized` are
    the statistics whose optimizer slots moved. `is_trained_here` says that slots of gamma or beta
    moved: the optimizer of this checkpoint trained the layer, whatever was loaded before.
    """

    facts: tuple[str, ...] = ()
    testable: bool = False
    updates: int | None = None
    unmoved: tuple[Role, ...] = ()
    optimized: tuple[Role, ...] = ()
    is_trained_here: bool = False


class ModeProof(NamedTuple):
    """The mode that training ran a layer in, and the sentence that proves it."""

    mode: Literal["batch", "inference"]
    fact: str


class Change(NamedTuple):
    """The change of one member between two checkpoints.

    `moved` says whether any channel holds another number. `largest` is the largest change of a
    channel (`evidence.changes` states its unit): NaN if that is not finite, None if nothing is
    stored to measure it by.
    """

    moved: bool
    largest: float | None


class Movement(NamedTuple):
    """An interval between two checkpoints in which statistics moved: `from step 20 to step 40`.

    `graphs` reads the graphs beside the later one of both; it raises a `ReadProblem`.
    """

    when: str
    graphs: Callable[[], Sequence[Graph]]


class Since(NamedTuple):
    """The changes of a layer since an earlier checkpoint of its training.

    `earlier` is the name of that checkpoint in sentences. `changes` holds the members that both
    store with one type and number of channels. `facts` are sentences that show that the network was
    trained in between. `moved_before` is the last interval before `earlier` in which a statistic
    moved; None if that is not known.
    """

    earlier: str
    changes: Mapping[Role, Change]
    facts: tuple[str, ...] = ()
    moved_before: Movement | None = None


class OnnxNode(NamedTuple):
    """The node of an ONNX model that computes a layer.

    `in_training` says that it normalizes by the statistics of each batch, not by the stored ones.
    `momentum` is the attribute as it is, None without one; that of the layer only where it can be
    that of a training. `is_arithmetic` says that several nodes compute the layer, of which this is
    the root or is named after their scope.
    """

    name: str
    in_training: bool
    momentum: float | None = None
    is_arithmetic: bool = False


@frozen(eq=False)
class BNLayer:
    """A batch-normalization layer as found in one checkpoint.

    `variables` holds the stored members, `helpers` the layer's other variables (renorm,
    zero-debias, counters) by a short name. `shadows` holds the averages that
    tf.train.ExponentialMovingAverage keeps of the statistics. `graph_names` has the names of its
    variables in the graph beside the checkpoint, if it was found by the graph. `initial` has for
    each role the values that training may start from, the most usual first; empty if random or
    unknown.
    Inference multiplies by `gamma + gamma_offset`; `usual_epsilon` is the family's default.
    `momentum`, `epsilon` and `keras` are None if they are not stored; `keras_model` and
    `keras_version` are those of the checkpoint. `own_class` is the class of the layer where that is
    none of Keras's BN classes. `onnx` is the node of an ONNX model. `values`, `shadow_values` and
    `training` are filled when the variables have been read, `since` if there is an earlier
    checkpoint to compare with.
    `may_be_optimized` says that slots or values suggest that an optimizer writes the statistics.
    """

    name: str
    family: str
    variables: Mapping[Role, Variable]
    helpers: Mapping[str, Variable] = field(default_factory=dict)
    shadows: Mapping[Role, Variable] = field(default_factory=dict)
    graph_names: Mapping[Role, str] = field(default_factory=dict)
    initial: Mapping[Role, tuple[float, ...]] = field(default_factory=dict)
    gamma_offset: float = 0.0
    usual_epsilon: float = 1e-3
    momentum: float | None = None
    epsilon: float | None = None
    keras: KerasLayer | None = None
    keras_model: KerasModel | None = None
    keras_version: str = ""
    own_class: str | None = None
    onnx: OnnxNode | None = None
    values: Mapping[Role, Values] = field(default_factory=dict)
    shadow_values: Mapping[Role, Values] = field(default_factory=dict)
    training: TrainingEvidence = field(default=TrainingEvidence())
    since: Since | None = None
    may_be_optimized: bool = False

    @property
    def _first_stored(self) -> Variable | None:
        """Return a statistic, else gamma or beta; None if nothing is stored."""
        stored = (role for role in (*STATISTICS, *AFFINE) if role in self.variables)
        return self.variables[role] if (role := next(stored, None)) else None

    @cached_property
    def channels(self) -> int | None:
        """Return the number of channels C: that of the statistics, else of gamma or beta."""
        return None if self._first_stored is None else self._first_stored.size

    @cached_property
    def dtype(self) -> str | None:
        """Return the element type of the statistics, else of gamma or beta."""
        return None if self._first_stored is None else self._first_stored.dtype

    @cached_property  # every rule uses it
    def statistics(self) -> tuple[Values, Values] | None:
        """Return mean and variance, if both were read, have one size and known initial values."""
        mean, variance = self.values.get("moving_mean"), self.values.get("moving_variance")
        if mean is None or variance is None or not mean.channels == variance.channels > 0:
            return None
        if mean.initial is None or variance.initial is None:
            return None
        return mean, variance

    @cached_property
    def all_initial(self) -> bool:
        """Return whether both `statistics` equal their initial values in every channel."""
        return self.statistics is not None and all(values.all_initial for values in self.statistics)

    @property
    def is_finite(self) -> bool:
        """Return whether no member that was read holds NaN or infinity."""
        return not any(values.not_finite for values in self.values.values())

    @property
    def has_negative_variance(self) -> bool:
        """Return whether a moving_variance is below 0."""
        variance = self.values.get("moving_variance")
        return variance is not None and bool((variance.array < 0.0).any())

    @property
    def is_of_function(self) -> bool:
        """Return whether the statistics are constants of a frozen function of TensorFlow 2.

        convert_variables_to_constants_v2 calls a constant what the operation that reads the
        variable calls its input (tensorflow/python/framework/convert_to_constants.py), and the
        optimizers of a graph fold such an operation into a constant. Such functions are written
        with Keras, or as it is: no train op runs their updates.
        """
        stored = [self.variables[role].name for role in STATISTICS if role in self.variables]
        reads = [name.removesuffix("/resource").rpartition("/")[2] for name in stored]
        return bool(reads) and all(read.startswith("ReadVariableOp") for read in reads)

    @property
    def trainable(self) -> bool | None:
        """Return whether the stored Keras configuration says trainable; None without one."""
        return None if self.keras is None else self.keras.trainable

    def with_fields(self, **fields: Any) -> BNLayer:
        """Return the layer with other `fields`, at a tenth of the time of `dataclasses.replace`.

        The members must keep their sizes and types.
        """
        layer = object.__new__(BNLayer)
        layer.__dict__.update(self.__dict__, **fields)
        layer.__dict__.pop("statistics", None)
        layer.__dict__.pop("all_initial", None)
        return layer

    def __repr__(self) -> str:
        return f"<BNLayer {self.name}: {self.family}, {self.channels} channels, {self.dtype}>"

    @property
    def zero_debiased(self) -> bool:
        """Return whether the averages forget their initial value with the first update."""
        return any(name.endswith(_DEBIAS_HELPERS) for name in self.helpers)
