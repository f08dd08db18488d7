"""The framework of a layer, as `bninspect rule CODE --for` takes it."""

from __future__ import annotations

from bninspect.model.layer import BNLayer
from bninspect.model.rule import Rule, RuleContext
from bninspect.rules.keras_versions import may_train_in_session, trains_in_session
from bninspect.rules.pages import page_of

_OF_TENSORFLOW_1 = {
    "tf.layers": "tf1-layers",
    "slim": "slim",
    "hand-written": "tf1-hand-written",
    "moments-ema": "tf1-hand-written",
}
_OWN_FAMILY = ("flax", "pytorch")
# Families whose names Keras or a script may have given, too: a graph shows it by its collections.
_COLLECTING = ("tf.layers", "custom-scope")


def framework_for(rule: Rule, layer: BNLayer, context: RuleContext) -> str | None:
    """Return the framework of a layer if the page of the rule has a fix for it alone, else None."""
    framework = framework_of(layer, context)
    return framework if framework and page_of(rule).has_fix_for(framework) else None


def framework_of(layer: BNLayer, context: RuleContext) -> str | None:
    """Return the framework that a layer was made in, one of `FRAMEWORKS`; None if not known."""
    if layer.family in ("keras", "keras-1"):
        return _version_of_keras(layer)
    if layer.family in _OWN_FAMILY:
        return layer.family
    if layer.onnx is None and not (context.of_graph or context.frozen):
        return None
    graph = context.graph(layer)
    if graph is None:
        return _OF_TENSORFLOW_1.get(layer.family)
    has_updates = bool(graph.updates) and graph.collected is not None
    if layer.family in _COLLECTING and (has_updates or layer.family not in _OF_TENSORFLOW_1):
        # Updates that are in no collection are those of Keras, or written by hand.
        return "tf1-layers" if graph.collected else None
    return _OF_TENSORFLOW_1.get(layer.family)


def _version_of_keras(layer: BNLayer) -> str | None:
    """Return the Keras of a layer: 1, 2 within or without sessions, or 3 with its backend.

    None for a version that may train in either way.
    """
    version = layer.keras_version
    if not version:
        return "keras-1" if layer.family == "keras-1" else None
    if version.startswith("3"):
        on_jax = layer.keras_model is not None and layer.keras_model.backend == "jax"
        return "jax" if on_jax else "keras-3"
    if version.startswith("2") and may_train_in_session(version):
        return "tf1-keras" if trains_in_session(version) else None
    return f"keras-{version[0]}" if version[0] in "12" else None
