"""Normalizations in a graph: operations that compute gamma * (x - mean) / sqrt(variance) + beta.

They are the fused kernels (FusedBatchNorm, V2, V3, those of optimized graphs), and the arithmetic
around a square root:

- `(x - mean) * rsqrt(variance + epsilon) * gamma + beta`, with the factors in any order,
- `x * inverse + (beta - mean * inverse)` with `inverse = rsqrt(variance + epsilon) * gamma`, which
  is tf.nn.batch_normalization (tensorflow/python/ops/nn_impl.py),
- both with `/ sqrt(variance + epsilon)` or `** 0.5`.

Layer, group and instance normalization are found too; what makes a normalization BN is decided in
`bn_structures`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bninspect.evidence.graph import operations as ops
from bninspect.evidence.structure.dataflow import Dataflow, Value

_SUMS = ops.SUMS | {"BiasAdd", "BiasAddV1"}
_QUOTIENTS = {"RealDiv", "Div", "DivNoNan"}
_INVERSES = {"Reciprocal", "Inv"}
_NEGATIONS = {"Neg"}
_LOWER_BOUNDS = {"Maximum"}
_LARGEST_EPSILON = 0.5
_DEPTH = 4  # operations between the square root and the last factor
_MOST_NODES = 64  # consumers that are looked at from one square root

_X, _SCALE, _OFFSET, _MEAN, _VARIANCE = 0, 1, 2, 3, 4  # inputs of the fused kernels
# The kernel of TensorFlow before 1.0, for inference alone, and its inputs (nn_ops.cc).
OLD_KERNEL = "BatchNormWithGlobalNormalization"
_OLD_MEAN, _OLD_VARIANCE, _OLD_OFFSET, _OLD_SCALE = 1, 2, 3, 4
# The kernel that a convolution and its BN became in an optimized graph, for inference alone, and
# its inputs (tensorflow/core/grappler/optimizers/remapper.cc). Other fusions have fewer inputs.
_FUSED_CONVOLUTION = "_FusedConv2D"
_FUSED_SCALE, _FUSED_OFFSET, _FUSED_MEAN, _FUSED_VARIANCE = 2, 3, 4, 5
_BATCH_MEAN, _BATCH_VARIANCE = 1, 2  # outputs


class Use(NamedTuple):
    """An input of an operation: the node that takes a value, and at which place."""

    node: int
    place: int


class Normalization(NamedTuple):
    """One normalization, as its function is called through one path of calls.

    `mean` and `variance` are the values that it takes, `gamma` and `beta` None if it has none.
    `epsilon` is None if it is no constant under the root. `fused` says that a fused kernel computes
    it; then the kernel computes the moments of the batch unless `is_training` is False.
    `minus_scaled_mean` says that it is x * factor + (-mean * factor), with an epsilon under the
    root. `takes_x`, `takes_mean` and `takes_variance` say where its operations take the layer's
    input and the statistics, before any copy.
    """

    node: int
    mean: tuple[Value, ...]
    variance: tuple[Value, ...]
    gamma: Value | None
    beta: Value | None
    epsilon: float | None
    takes_x: Use
    takes_mean: Use
    takes_variance: Use
    fused: bool = False
    is_training: bool = False
    minus_scaled_mean: bool = False


def find_normalizations(dataflow: Dataflow) -> Iterator[Normalization]:
    """Yield the normalizations of a graph, for each path of calls to them."""
    for node, operation in enumerate(dataflow.graph.operations):
        if operation in ops.FUSED_BATCH_NORMS:
            for calls in dataflow.contexts(node):
                yield _fused(dataflow, Value(node, 0, calls))
        elif operation == OLD_KERNEL:
            for calls in dataflow.contexts(node):
                yield _fused_before_1(dataflow, Value(node, 0, calls))
        elif is_fused_convolution(dataflow, node):
            for calls in dataflow.contexts(node):
                yield _fused_convolution(dataflow, Value(node, 0, calls))
        elif operation in ("Rsqrt", "Sqrt", "Pow"):
            for calls in dataflow.contexts(node):
                yield from _Arithmetic(dataflow, Value(node, 0, calls)).normalizations()


def _fused(dataflow: Dataflow, kernel: Value) -> Normalization:
    operands = dict(enumerate(dataflow.operands(kernel)))
    # Left out where it has its default, true (SavedModels strip defaults).
    is_training = dataflow.graph.attribute(kernel.node, "is_training") is not False
    epsilon = dataflow.graph.attribute(kernel.node, "epsilon")
    given = [(operands[index],) if index in operands else () for index in (_MEAN, _VARIANCE)]
    if is_training:
        # Kernels that average by themselves take the old averages, others empty constants.
        given = [
            (kernel._replace(output=output), *values)
            for output, values in zip((_BATCH_MEAN, _BATCH_VARIANCE), given, strict=True)
        ]
    mean, variance = given
    return Normalization(
        kernel.node,
        mean,
        variance,
        operands.get(_SCALE),
        operands.get(_OFFSET),
        _rounded(epsilon) if isinstance(epsilon, float) else None,
        takes_x=Use(kernel.node, _X),
        takes_mean=Use(kernel.node, _MEAN),
        takes_variance=Use(kernel.node, _VARIANCE),
        fused=True,
        is_training=is_training,
    )


def _fused_before_1(dataflow: Dataflow, kernel: Value) -> Normalization:
    is_scaled = dataflow.graph.attribute(kernel.node, "scale_after_normalization") is True
    found = _with_operands(
        dataflow, kernel, _OLD_MEAN, _OLD_VARIANCE, _OLD_SCALE, _OLD_OFFSET, "variance_epsilon"
    )
    return found if is_scaled else found._replace(gamma=None)


def is_fused_convolution(dataflow: Dataflow, node: int) -> bool:
    """Return whether a node is a convolution together with its BN."""
    graph = dataflow.graph
    return graph.operations[node] == _FUSED_CONVOLUTION and len(graph.inputs[node]) == 6


def _fused_convolution(dataflow: Dataflow, kernel: Value) -> Normalization:
    return _with_operands(
        dataflow, kernel, _FUSED_MEAN, _FUSED_VARIANCE, _FUSED_SCALE, _FUSED_OFFSET, "epsilon"
    )


def _with_operands(
    dataflow: Dataflow,
    kernel: Value,
    mean: int,
    variance: int,
    scale: int,
    offset: int,
    epsilon_name: str,
) -> Normalization:
    """Return what a kernel computes that never trains, by the places of its operands."""
    operands = dict(enumerate(dataflow.operands(kernel)))
    epsilon = dataflow.graph.attribute(kernel.node, epsilon_name)
    means, variances = (
        (operands[place],) if place in operands else () for place in (mean, variance)
    )
    return Normalization(
        kernel.node,
        means,
        variances,
        operands.get(scale),
        operands.get(offset),
        _rounded(epsilon) if isinstance(epsilon, float) else None,
        takes_x=Use(kernel.node, _X),
        takes_mean=Use(kernel.node, mean),
        takes_variance=Use(kernel.node, variance),
        fused=True,
    )


def _rounded(number: float) -> float:
    """Return a float32 with the digits that it was written with."""
    return float(f"{number:.7g}")


class _Factor(NamedTuple):
    """A value that is 1 / sqrt(variance + epsilon), times gamma if that is known.

    `divides` says that it is the square root itself, by which others are divided.
    """

    value: Value
    gamma: Value | None = None
    divides: bool = False
    depth: int = 0


class _Operands(NamedTuple):
    """The operands of a normalization, without x and the variance."""

    mean: Value
    gamma: Value | None
    beta: Value | None
    takes_x: Use
    takes_mean: Use
    minus_scaled_mean: bool = False


class _Product(NamedTuple):
    """A product of the factor and `other`, which the node takes at `place`."""

    value: Value
    other: Value
    place: int

    @property
    def takes_other(self) -> Use:
        return Use(self.value.node, self.place)


class _Arithmetic:
    """The search for a normalization around one square root."""

    def __init__(self, dataflow: Dataflow, root: Value) -> None:
        self._dataflow = dataflow
        self._root = root
        self._left = _MOST_NODES

    def normalizations(self) -> Iterator[Normalization]:
        """Yield the normalization whose standard deviation the root is, if there is one."""
        start = self._first_factor()
        operands = self._dataflow.operands(self._root)
        if start is None or not operands:
            return
        variance, epsilon, takes_variance = self._split_epsilon(operands[0])
        operands_of_root = self._search(start)
        if operands_of_root is not None:
            yield Normalization(
                self._root.node,
                (operands_of_root.mean,),
                (variance,),
                operands_of_root.gamma,
                operands_of_root.beta,
                epsilon,
                operands_of_root.takes_x,
                operands_of_root.takes_mean,
                takes_variance,
                minus_scaled_mean=operands_of_root.minus_scaled_mean and epsilon is not None,
            )

    def _first_factor(self) -> _Factor | None:
        operation = self._dataflow.operation(self._root)
        if operation != "Pow":
            return _Factor(self._root, divides=operation == "Sqrt")
        operands = self._dataflow.operands(self._root)
        exponent = self._constant(operands[1]) if len(operands) == 2 else None
        if exponent in (0.5, -0.5):
            return _Factor(self._root, divides=exponent == 0.5)
        return None

    def _split_epsilon(self, radicand: Value) -> tuple[Value, float | None, Use]:
        """Return the variance, the constant that is added to it or bounds it, and where."""
        origin = self._dataflow.origin(radicand)
        if self._dataflow.operation(origin) in _SUMS | _LOWER_BOUNDS:
            operands = self._dataflow.operands(origin)
            for index in (0, 1) if len(operands) == 2 else ():
                constant = self._constant(operands[1 - index])
                if constant is not None and 0.0 < constant < _LARGEST_EPSILON:
                    is_sum = self._dataflow.operation(origin) in _SUMS
                    epsilon = _rounded(constant) if is_sum else None
                    return operands[index], epsilon, Use(origin.node, index)
        return radicand, None, Use(self._root.node, 0)

    def _constant(self, value: Value) -> float | None:
        constant = self._dataflow.graph.attribute(self._dataflow.origin(value).node, "value")
        return None if constant is None or isinstance(constant, tuple) else float(constant)

    def _search(self, factor: _Factor) -> _Operands | None:
        """Return the operands of the normalization that multiplies by the factor, or None."""
        products, later = [], []
        for consumer, index in self._consumers(factor.value):
            operation = self._dataflow.operation(consumer)
            operands = self._dataflow.operands(consumer)
            if operation in _INVERSES and factor.divides:
                later.append(factor._replace(value=consumer, divides=False))
            elif operation in _SUMS and factor.divides and self._adds_constant(operands, index):
                later.append(factor._replace(value=consumer))  # epsilon outside of the root
            elif self._is_product(operation, index, factor) and len(operands) == 2:
                products.append(_Product(consumer, operands[1 - index], 1 - index))
        result = self._shifted(products, factor.gamma) or self._centered(products, factor.gamma)
        if result is not None:
            return result
        for product in products if factor.depth < _DEPTH else ():
            gamma = factor.gamma if self._constant(product.other) == 1.0 else product.other
            later.append(_Factor(product.value, gamma, depth=factor.depth + 1))
        return next(
            (result for next_factor in later if (result := self._search(next_factor)) is not None),
            None,
        )

    def _is_product(self, operation: str, index: int, factor: _Factor) -> bool:
        """Return whether an operation multiplies by the factor."""
        if factor.divides:
            return operation in _QUOTIENTS and index == 1
        return operation in ops.PRODUCTS

    def _adds_constant(self, operands: list[Value], index: int) -> bool:
        return len(operands) == 2 and self._constant(operands[1 - index]) is not None

    def _shifted(self, products: Sequence[_Product], gamma: Value | None) -> _Operands | None:
        """Return the operands of x * factor + (beta - mean * factor), of two products."""
        for product in products:
            others = {item.value: item for item in products if item.value != product.value}
            for shift, mean, beta in self._shifts(product.value, product.other):
                takes_mean = product.takes_other if mean == product.other else None
                if takes_mean is None:  # minus the mean, without beta
                    takes_mean = Use(self._dataflow.origin(product.other).node, 0)
                if beta is not None and self._dataflow.origin(beta) in others:
                    takes_x = others[self._dataflow.origin(beta)].takes_other
                    # x * factor - mean * factor
                    return _Operands(mean, *self._affine(shift, gamma), takes_x, takes_mean)
                for consumer, index in self._consumers(shift):
                    operands = self._dataflow.operands(consumer)
                    if self._dataflow.operation(consumer) not in _SUMS or len(operands) != 2:
                        continue
                    scaled = others.get(self._dataflow.origin(operands[1 - index]))
                    if scaled is not None:
                        return _Operands(
                            mean, gamma, beta, scaled.takes_other, takes_mean, beta is None
                        )
        return None

    def _shifts(self, product: Value, other: Value) -> Iterator[tuple[Value, Value, Value | None]]:
        """Yield (beta - mean * factor, mean, beta) if `product` is mean * factor, or minus that."""
        negated = self._negated(self._dataflow.origin(other))
        if negated is not None:  # tf.nn.batch_normalization, no offset
            yield from self._with_beta(product, negated)
        for consumer, index in self._consumers(product):
            operation = self._dataflow.operation(consumer)
            if operation in _NEGATIONS:
                yield from self._with_beta(consumer, other)
            elif operation in ops.DIFFERENCES and index == 1:
                beta = self._dataflow.operands(consumer)[0]
                yield consumer, other, None if self._constant(beta) == 0.0 else beta

    def _with_beta(
        self, negative: Value, mean: Value
    ) -> Iterator[tuple[Value, Value, Value | None]]:
        """Yield -mean * factor, and its sums with beta."""
        yield negative, mean, None
        for consumer, index in self._consumers(negative):
            operands = self._dataflow.operands(consumer)
            if self._dataflow.operation(consumer) in _SUMS and len(operands) == 2:
                yield consumer, mean, operands[1 - index]

    def _centered(self, products: Sequence[_Product], gamma: Value | None) -> _Operands | None:
        """Return the operands of (x - mean) * factor."""
        for product in products:
            origin = self._dataflow.origin(product.other)
            scale = gamma
            if self._dataflow.operation(origin) in ops.PRODUCTS:  # gamma * (x - mean) / deviation
                factors = self._dataflow.operands(origin)
                differences = [
                    operand for operand in factors if self._subtraction(operand) is not None
                ]
                if len(factors) == 2 and len(differences) == 1:
                    origin = differences[0]
                    scale = factors[1 - factors.index(origin)]
            subtraction = self._subtraction(origin)
            if subtraction is not None:
                mean, takes_x, takes_mean = subtraction
                return _Operands(mean, *self._affine(product.value, scale), takes_x, takes_mean)
        return None

    def _subtraction(self, difference: Value) -> tuple[Value, Use, Use] | None:
        """Return b of a - b or a + (-b), and where a and b are taken; None for other operations."""
        origin = self._dataflow.origin(difference)
        operands = self._dataflow.operands(origin)
        operation = self._dataflow.operation(origin)
        if operation in ops.DIFFERENCES and len(operands) == 2:
            return operands[1], Use(origin.node, 0), Use(origin.node, 1)
        for index in range(len(operands)) if operation in _SUMS else ():
            negative = self._dataflow.origin(operands[index])
            mean = self._negated(negative)
            if mean is not None:
                return mean, Use(origin.node, 1 - index), Use(negative.node, 0)
        return None

    def _negated(self, negative: Value) -> Value | None:
        """Return the operand of a negation; None for other operations, or without an operand."""
        if self._dataflow.operation(negative) not in _NEGATIONS:
            return None
        return next(iter(self._dataflow.operands(negative)), None)

    def _affine(self, normalized: Value, gamma: Value | None) -> tuple[Value | None, Value | None]:
        """Return the gamma that multiplies (x - mean) / deviation, and the beta added to that."""
        for _ in range(_DEPTH):
            for consumer, index in self._consumers(normalized):
                operation = self._dataflow.operation(consumer)
                operands = self._dataflow.operands(consumer)
                other = operands[1 - index] if len(operands) == 2 else None
                if other is not None and operation in _SUMS and self._is_parameter(other):
                    return gamma, other
                if other is not None and operation in ops.PRODUCTS and self._is_parameter(other):
                    gamma, normalized = other, consumer
                    break
            else:
                break
        return gamma, None

    def _is_parameter(self, value: Value) -> bool:
        """Return whether a value is a variable, or computed of one and constants."""
        sources = self._dataflow.sources(value, ops.SUMS | ops.PRODUCTS | ops.DIFFERENCES)
        variables = {parts for source in sources if (parts := self._dataflow.variable(source))}
        not_constant = [
            source
            for source in sources
            if not self._dataflow.variable(source) and self._dataflow.operation(source) != "Const"
        ]
        return len(variables) == 1 and not not_constant

    def _consumers(self, value: Value) -> Iterator[tuple[Value, int]]:
        for consumer in self._dataflow.consumers(value):
            self._left -= 1
            if self._left < 0:
                return
            yield consumer
