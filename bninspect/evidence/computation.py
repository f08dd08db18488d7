"""How training computes a BN layer, gathered from what graph, configuration and bias say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bninspect.errors import Incomplete
from bninspect.model.computation import Before, Computation, Mode
from bninspect.model.graph import GraphEvidence
from bninspect.model.layer import BNLayer, ModeProof


def find_computations(
    path: str,
    layers: Sequence[BNLayer],
    computed: Mapping[str, BNLayer],
    graph: Callable[[BNLayer], GraphEvidence | None],
    mode: Callable[[BNLayer], ModeProof | None],
) -> dict[str, Computation]:
    """Return the computation of each layer in training, by its name; of layers with evidence only.

    `path` is the file with the configuration, if one is stored. `computed` has the layers as the
    graph computes them. Raises a `ReadProblem` if a bias cannot be read.
    """
    computations = {}
    for layer in layers:
        if layer.onnx is not None:
            computations[layer.name] = Computation(
                "onnx",
                path,
                is_training=(layer.onnx.in_training,),
                momentum=layer.momentum,
                epsilon=layer.epsilon,
            )
            continue
        evidence = graph(layer)
        by_file = (
            _by_configuration(layer, path)
            if evidence is None or not evidence.statistics
            else _by_graph(evidence, computed.get(layer.name))
        )
        if by_file is not None:
            computations[layer.name] = by_file._replace(proof=_proof(layer, mode))
    return computations


def _proof(layer: BNLayer, mode: Callable[[BNLayer], ModeProof | None]) -> ModeProof | None:
    """Return the proof of a layer's mode, None where the values are missing."""
    try:
        return mode(layer)
    except Incomplete:
        return None


def _by_graph(graph: GraphEvidence, computed: BNLayer | None) -> Computation:
    """Return what a graph says of a layer; `computed` is the layer as the graph computes it."""
    momentum = graph.momentum
    if momentum is None and computed is not None:
        momentum = computed.momentum
    operation, bias = graph.input_from, graph.bias_before
    before = None
    if operation is not None or bias is not None:
        name, kind = (None, None) if operation is None else operation
        before = Before(name, kind, bias)
    return Computation(
        "graph",
        graph.path,
        before=before,
        mode=_mode(graph, computed),
        is_training=tuple(sorted(graph.modes)) or None,
        training_ops=graph.training_ops,
        updates=graph.updates,
        all_updates=graph.complete,
        in_update_ops=_in_update_ops(graph),
        others_depend=graph.stored if graph.updates else None,
        conditions=graph.conditions,
        momentum=momentum,
        epsilon=None if computed is None else computed.epsilon,
    )


def _in_update_ops(graph: GraphEvidence) -> bool | None:
    if not graph.updates or graph.collected is None:
        return None
    return all(update.collected for update in graph.updates)


def _mode(graph: GraphEvidence, computed: BNLayer | None) -> Mode | None:
    """Return the mode of training by the graph; None without a training op, or if it is open."""
    if not graph.training_ops:
        return None
    if graph.in_inference_mode:
        return "inference"
    if graph.chosen or len(graph.modes) > 1:
        return "chosen"
    # Outside of fused kernels: training computes the layer, and never reads the statistics.
    is_by_batch = computed is not None and graph.computes_affine and not graph.reads
    return "batch" if graph.modes == {True} or is_by_batch else None


def _by_configuration(layer: BNLayer, path: str) -> Computation | None:
    """Return what the stored configuration of a Keras model says of a layer, None without one."""
    keras = layer.keras
    if keras is None:
        return None
    before = keras.before
    return Computation(
        "configuration",
        path,
        before=None if before is None else Before(*before, keras.bias_before),
        mode="inference" if keras.inference_only else None,
        momentum=layer.momentum,
        epsilon=layer.epsilon,
        training_false=keras.called_in_inference,
        trainable=keras.trainable,
        calls=keras.calls,
    )
