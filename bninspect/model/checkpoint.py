"""Immutable data types of an opened checkpoint and its variables. No I/O but through `load`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

from bninspect.frozen import NamedTuple, frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bninspect.errors import ReadProblem
    from bninspect.model.graph import Graph
    from bninspect.model.layer import BNLayer


# The reader of the files: bninspect itself, or TensorFlow for a second opinion.
Engine = Literal["native", "tensorflow"]
ENGINES: tuple[Engine, ...] = ("native", "tensorflow")
# The types of half precision, to which converters and exports round what was trained in float32.
HALVES = ("float16", "bfloat16")


class Variable(NamedTuple):
    """One stored variable; its bytes are read only when asked for.

    `name` is the name as stored, `shape` the full shape (of a partitioned variable: of all slices
    together), `dtype` TensorFlow's name of the element type (`float32`, `bfloat16`, …). `unwritten`
    counts the elements that the file only reserves a place for (HDF5): they are read as a fill
    value, mostly 0. `quantized` is the type (`uint8`, `float16`) to which the values may have
    been rounded after the training, by a converter or an export; None if they were not.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], NDArray[Any]]
    unwritten: int = 0
    quantized: str | None = None

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    def read(self) -> NDArray[Any]:
        """Read the values, of shape `shape`; bfloat16 comes as float32, which holds it exactly.

        Raises a `ReadProblem` if the bytes are missing, cut short or fail their checksum.
        """
        return self.load()


# What TensorFlow.js calls its backend in the models that it saves.
JAVASCRIPT = "tensor_flow.js"


class PreviousLayer(NamedTuple):
    """The one layer whose output a layer takes, by its path in the model and its class."""

    name: str
    class_name: str


class KerasLayer(NamedTuple):
    """One layer in a stored Keras model configuration.

    `trainable` counts the models around the layer too: a layer in a frozen model is frozen.
    `built_in` says that its class is one of Keras's, not a subclass or one of the user's own.
    `called_in_inference` says that every stored call of the layer, or of a model around it, passes
    training=False. `inference_only` says that this also holds while training: it does in Keras 2.
    In Keras 3 the mode of the call of the whole model takes precedence, so that `fit` trains the
    layer and `model(x)` does not. `calls` counts the calls of the layer in one pass through the
    model (a shared layer: more than one).
    `always_updated` says that this version of Keras updates the averages of a layer that is not
    trainable, too. `before` is the layer before a BN layer, `bias_before` the stored name
    of the bias that is added right before it; each is None unless the configuration shows one.
    """

    class_name: str
    trainable: bool
    inference_only: bool
    config: Mapping[str, Any]
    calls: int = 1
    always_updated: bool = False
    before: PreviousLayer | None = None
    bias_before: str | None = None
    built_in: bool = False
    called_in_inference: bool = False

    @property
    def frozen(self) -> bool:
        """Return whether the layer is not trainable, so that nothing updates its averages."""
        return not self.trainable and not self.always_updated


class KerasModel(NamedTuple):
    """The whole model in a stored Keras model configuration.

    `has_own_class` says that its class is not one of Keras's: it may have a `call` and a
    `train_step` of its own; `registered_name` is the name that such a class is registered by
    (`package>Net`), None where none is stored. `is_compiled` says that it was compiled when it was
    saved: what was not compiled was probably not trained by its own `fit`, but a model that was
    loaded with compile=False and saved again looks the same. `optimizer` is the class of its
    optimizer, or the name that `compile` was given (`Adam`, `adam`); None where none is stored.
    How many steps that optimizer made is the step of the checkpoint. `backend` is what Keras ran on
    (`tensorflow`, `jax`, `torch`; `theano`); None where the file does not say: only `.h5` files do,
    and models of TensorFlow.js.
    """

    class_name: str
    has_own_class: bool
    is_compiled: bool
    registered_name: str | None = None
    optimizer: str | None = None
    backend: str | None = None


class UncheckedGroup(NamedTuple):
    """Variables that may be those of a BN layer and are not judged, and why.

    `variables` are their names as stored. `reason` is a clause that begins in lower case.
    `nameable` says that the user's own patterns can make a layer of them.
    """

    name: str
    variables: tuple[str, ...]
    reason: str
    nameable: bool = True


class Arithmetic(NamedTuple):
    """The arithmetic of a converted model, in which BN may be spelled out.

    `graph` has no operation that is BN by itself. `variables` are its constants by the names of
    their nodes, `family` is that of the layers, and `is_onnx` says that they are those of an ONNX
    model.
    """

    graph: Graph
    variables: Mapping[str, Variable]
    family: str
    is_onnx: bool = False


@frozen(eq=False)
class Checkpoint:
    """An opened checkpoint: its variables by stored name, and what else the file says.

    `path` is as typed, `resolved` what was opened. `variables` are the model's (and, where a
    format does not tell them apart, the optimizer's too); `optimizer` holds those that the file
    itself sets apart. `in_order` says that the variables come in the order of the network.
    `keras_layers` maps a layer's path in the model (`("outer", "bn1")`) to its configuration, or
    is None where no configuration is stored; so is `keras_model`. `keras_version` is that of the
    Keras which wrote the file, its first number at least; empty if unknown. `notes` are
    sentences about what was opened.

    `named_by` says who gave the variables their names: the graph (`net/bn/moving_mean`, whatever
    scopes a person chose), the layer object that owns them, or the tree of a train state. Where a
    file stores keys instead of names (`layer_with_weights-1/…`,
    `layers/batch_normalization/vars/2`), `known_names` maps each to the name that a person knows;
    `second_names` has another for those that have two, by the attribute and by the variable's own
    name. `name_at` gives the name of the object at a path of attributes, or None (the whole is None
    where there are no objects). `partial` names the layers of which more should be stored.
    `incomplete` is why the values cannot be read, if that was seen. `verified` says whether the
    checksums of the values that are read are verified; None where the format stores none.
    `roles_by_values` says that values decide which variables are which; that a mean of 1 with a
    variance of 0 are none does not count. `unchecked` are the groups of variables of which nothing
    proves whether, or how, they make a BN layer. `graphs` reads the graphs that are stored beside
    the variables; it raises a `ReadProblem`. `frozen` says that the variables are constants of the
    graph, which then decides what they are. `layers` are the BN layers where the file itself says
    which they are, as the nodes of an ONNX model do; None where names or a graph tell. `arithmetic`
    reads what else a converted model computes; it returns None where there is nothing to search,
    and raises a `ReadProblem` for what is too large.
    `converted_from` is what to check of BN that a converter folded ("the model that …"), empty for
    other files. `prefetch` fetches variables that will be read all at once (remote files only).

    A checkpoint keeps its files open: use it as a context manager, or call `close`.
    """

    path: str
    resolved: str
    format: str
    variables: Mapping[str, Variable]
    optimizer: Mapping[str, Variable] = field(default_factory=dict)
    in_order: bool = False
    named_by: Literal["graph", "object", "tree"] = "graph"
    known_names: Mapping[str, str] = field(default_factory=dict)
    second_names: Mapping[str, str] = field(default_factory=dict)
    name_at: Callable[[Sequence[str]], str | None] | None = None
    partial: frozenset[str] = frozenset()
    roles_by_values: bool = False
    unchecked: tuple[UncheckedGroup, ...] = ()
    incomplete: ReadProblem | None = None
    keras_layers: Mapping[tuple[str, ...], KerasLayer] | None = None
    keras_model: KerasModel | None = None
    keras_version: str = ""
    layers: Sequence[BNLayer] | None = None
    arithmetic: Callable[[], Arithmetic | None] = field(default=lambda: None, repr=False)
    converted_from: str = ""
    verified: bool | None = None
    notes: tuple[str, ...] = ()
    frozen: bool = False
    graphs: Callable[[], Sequence[Graph]] = field(default=tuple, repr=False)
    prefetch: Callable[[Iterable[Variable]], None] = field(default=lambda _: None, repr=False)
    close: Callable[[], None] = field(default=lambda: None, repr=False)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
