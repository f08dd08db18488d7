"""Fixes for what values, configuration and step show. Those for a stored graph are elsewhere.

Each is a text of a finding. The fixes by family of the layer are in `fixes.py`.
"""

from __future__ import annotations

from bninspect.model.layer import BNLayer
from bninspect.rules.fixes import run_the_updates, trained_in_javascript

_REESTIMATE = "re-estimate them on training data (`bninspect rule BN101` says how)"
_FREEZE_FOR_INFERENCE = (
    "Build the graph for inference (training=False in tf.layers and Keras, is_training=False in"
    " slim), restore the checkpoint into it, and freeze that."
)


def copy_or_update(layer: BNLayer, why: str) -> str:
    """Return what to do where gamma and beta moved, perhaps in another training.

    `why` is the beginning of a sentence: what speaks for that.
    """
    return (
        f"{why}: if gamma and beta were copied or loaded (a target network, a teacher, converted"
        " weights), copy or load moving_mean and moving_variance from the same source; they are"
        f" among the model's weights, not among the trainable ones. Else: {run_the_updates(layer)}"
    )


def load_with_the_weights() -> str:
    """Return what to do where gamma and beta were loaded, and the statistics were not."""
    return (
        "Load moving_mean and moving_variance from where gamma and beta came from: they are among"
        " the variables of the model, not among the trainable ones. If they are at their initial"
        f" values there too, {_REESTIMATE}."
    )


def load_again() -> str:
    """Return what to do where a statistic holds zeros that no update left."""
    return (
        "These zeros are no averages. Load the statistics again together with the weights, and see"
        " what wrote this file (weights set to zeros, a conversion, a restore by name)."
        f" If they are lost, {_REESTIMATE}."
    )


def unfreeze_or_load(layer: BNLayer) -> str:
    """Return what to do where gamma and beta stand still with the statistics."""
    return (
        "Training did not reach this layer: it was frozen, was not part of the network that was"
        " trained, or its weights were not loaded. Load pretrained weights into it, the statistics"
        " included, or make it trainable and a part of the loss. If gamma and beta are meant to"
        f" stay: {run_the_updates(layer)}"
    )


def load_or_unfreeze() -> str:
    """Return what to do where a layer was frozen while it had its initial statistics."""
    return (
        "A frozen layer keeps the statistics it has, and these are the initial ones. Load those"
        " that belong to its gamma and beta before you freeze it, or set trainable=True, compile"
        " again and train on."
    )


def freeze_for_inference() -> str:
    """Return what to do where a frozen graph has no statistics, as one built for training."""
    return _FREEZE_FOR_INFERENCE


def at_the_source(fix: str) -> str:
    """Return a fix for what a frozen graph was made from: it cannot be trained itself."""
    if fix == _FREEZE_FOR_INFERENCE:
        return fix  # nothing is wrong with the checkpoint
    return f"Fix the checkpoint that this graph was frozen from, and freeze that again. {fix}"


def convert_again(fix: str, layer: BNLayer) -> str:
    """Return a fix for what a model was converted from, unless TensorFlow.js trained it."""
    return fix if trained_in_javascript(layer) else f"{fix} Then convert the model again."


def export_again(fix: str) -> str:
    """Return a fix for the model that an ONNX model was exported from."""
    return f"{fix} Then export the model again."


def kept_or_update(layer: BNLayer) -> str:
    """Return what to do where statistics other than the initial ones stood still."""
    mode = "in evaluation mode" if layer.family == "pytorch" else "with training=False"
    if trained_in_javascript(layer):
        mode = "with {training: false}"
    return (
        "Nothing to fix if the layer was meant to keep its statistics, as in fine-tuning"
        f" {mode}: the files do not tell. Else: {run_the_updates(layer)}"
    )
