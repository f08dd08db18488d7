"""BN of a frozen graph that has no statistics left to check: folded, or frozen in training mode.

Only what the graph proves is named. A tool that folded constants left the operations of
tf.nn.batch_normalization; one that folded a kernel into the weights before it left a sum in its
place (see `folded_names`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bninspect.batchnorm.folded_names import KERNEL, SUM, folded_layer, layer_of_offset
from bninspect.evidence.graph import operations as ops
from bninspect.evidence.structure.bn_structures import Site, find_sites
from bninspect.evidence.structure.dataflow import Dataflow, Value
from bninspect.evidence.structure.normalizations import OLD_KERNEL, is_fused_convolution
from bninspect.model.checkpoint import UncheckedGroup

_ADDS = ops.BIAS_ADDS | {"Sub"}
_FUSED_ADDS = {"_FusedConv2D", "_FusedDepthwiseConv2dNative", "_FusedMatMul", "FusedConv2D"}
_WEIGHTED = ops.PRODUCTS | {"Conv2D", "Conv1D", "Conv3D", "DepthwiseConv2dNative", "MatMul"}
_SCOPE = re.compile(r"(?:/?batchnorm(?:_\d+)?)?/[^/]*$")
_FOLDED = (
    "folded into other constants when the graph was optimized, so there are no statistics left to"
    " check; check the checkpoint that the graph was frozen from"
)
_BY_BATCH = (
    "the graph normalizes by the moments of each batch, as in training, and has no statistics;"
    " freeze it again, built for inference (training=False)"
)
COMPUTED = "its moving_mean and moving_variance are not both constants, but computed in the graph"


def groups_without_statistics(dataflow: Dataflow) -> Iterator[UncheckedGroup]:
    """Yield the BN of a frozen graph that has no statistics, with the constants that are left."""
    graph = dataflow.graph
    for node, operation in enumerate(graph.operations):
        if is_fused_convolution(dataflow, node):
            continue  # it takes the statistics
        if operation in _ADDS or operation in _FUSED_ADDS:
            name = folded_name(dataflow, node)
            if name is not None:
                yield UncheckedGroup(name, _constants(dataflow, node), _FOLDED, nameable=False)
    for site in find_sites(dataflow):
        reason = _reason(dataflow, site)
        if reason is not None:
            affine = [site.gamma, site.beta]
            nodes = [part for found in affine if found for part in found.parts]
            names = tuple(graph.names[node] for node in nodes)
            name = graph.names[site.normalization.node]
            yield UncheckedGroup(_SCOPE.sub("", name) or name, names, reason, nameable=False)


def folded_name(dataflow: Dataflow, node: int) -> str | None:
    """Return the name of the BN layer that became a sum with a constant, None if none did."""
    graph = dataflow.graph
    constants, others = _split(dataflow, node)
    if not constants:
        return None
    for constant in constants:
        if (layer := layer_of_offset(graph.names[constant])) is not None:
            return layer
    name = graph.names[node]
    if (layer := folded_layer(name, KERNEL)) is not None:
        return layer
    layer = folded_layer(name, SUM)
    if layer is None or len(others) != 1:
        return None
    product = f"{name.removesuffix('add_1')}mul_1"
    is_folded = graph.names[others[0].node] == product and _has_weights(dataflow, others[0])
    return layer if is_folded else None


def _split(dataflow: Dataflow, node: int) -> tuple[list[int], list[Value]]:
    """Return the constants that an operation takes, and its other operands."""
    origins = [dataflow.origin(operand) for operand in dataflow.operands(Value(node))]
    constants = [origin.node for origin in origins if dataflow.variable(origin)]
    return constants, [origin for origin in origins if not dataflow.variable(origin)]


def _has_weights(dataflow: Dataflow, product: Value) -> bool:
    constants, _ = _split(dataflow, product.node)
    return bool(constants) and dataflow.operation(product) in _WEIGHTED


def _constants(dataflow: Dataflow, node: int) -> tuple[str, ...]:
    constants, _ = _split(dataflow, node)
    return tuple(dataflow.graph.names[constant] for constant in constants)


def _reason(dataflow: Dataflow, site: Site) -> str | None:
    """Return why a site is BN without constants as statistics; None if it has both, or is no BN."""
    if site.means and site.variances:
        return None
    if site.normalization.fused:
        is_by_batch = dataflow.graph.attribute(site.normalization.node, "is_training") is not False
        is_inference = _is_for_inference(dataflow, site.normalization.node)
        if is_inference or not is_by_batch:
            return COMPUTED
        return None if _is_layer_norm(dataflow, site) else _BY_BATCH
    if site.means or site.variances or (site.gamma is None and site.beta is None):
        return None
    is_by_batch = any(is_over_batch(dataflow, value) for value in site.batch_means)
    return _BY_BATCH if is_by_batch else None


def _is_for_inference(dataflow: Dataflow, kernel: int) -> bool:
    """Return whether a kernel never normalizes by the moments of a batch."""
    is_old = dataflow.graph.operations[kernel] == OLD_KERNEL
    return is_old or is_fused_convolution(dataflow, kernel)


def _is_layer_norm(dataflow: Dataflow, site: Site) -> bool:
    """Return whether a kernel normalizes each sample by itself, as LayerNormalization of Keras 2.

    There the samples are the kernel's channels. Their number is not known before the graph runs, so
    the graph fills a vector of that length with 1 for gamma
    (keras/src/layers/normalization/layer_normalization.py).
    """
    gamma = site.normalization.gamma
    return gamma is not None and dataflow.operation(dataflow.origin(gamma)) == "Fill"


def is_over_batch(dataflow: Dataflow, mean: Value) -> bool:
    """Return whether a mean is taken over the samples of a batch, for certain."""
    if dataflow.operation(mean) != "Mean":
        return False
    operands: Sequence[Value] = dataflow.operands(mean)
    axes = dataflow.graph.constant(operands[1].node) if len(operands) == 2 else None
    return axes is not None and 0 in axes.elements
