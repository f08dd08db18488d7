"""Fixes where the bias before a layer proves in which mode training ran it."""

from __future__ import annotations

from bninspect.model.layer import BNLayer
from bninspect.rules.keras_versions import may_train_in_session

_HOW_TO_REESTIMATE = "`bninspect rule BN101` says how"
_TRAIN_AGAIN = (
    "Then train again. Do not re-estimate the averages: these weights were trained with the initial"
    " ones, so inference computes what training did, but nothing is normalized."
)
_TRAIN_ON = "Then train on. Nothing to fix if the layer is meant to keep these statistics."


def train_in_batch_mode(layer: BNLayer, checks: str | None = None) -> str:
    """Return what to do where training ran in inference mode.

    `checks` says what to look at first, where a graph shows what chooses the mode.
    """
    if layer.family in ("keras", "keras-1"):
        how = (
            "Train with training=True: `model(x, training=True)` in a loop or `train_step` of your"
            " own, `stateless_call(..., training=True)` with JAX, and a `call` of your own that"
            " takes `training` and passes it on"
        )
    else:
        first = "" if checks is None else f" (first {checks})"
        how = (
            f"Train in training mode{first}: feed or set the mode True, or build the layers with"
            " training=True, and run the update ops with every training step"
        )
    return f"{how}. {_TRAIN_AGAIN}"


def let_call_take_training(layer: BNLayer, class_name: str) -> str:
    """Return what to do where the `call` of a model of Keras 3 has no parameter `training`."""
    then = _TRAIN_AGAIN if layer.all_initial else _TRAIN_ON
    return (
        f"Give the `call` of {class_name} the parameter, `def call(self, x, training=None)`, and"
        " pass it on to the layers that it calls. In a loop of your own call `model(x,"
        f" training=True)`. {then}"
    )


def keep_the_updates(layer: BNLayer) -> str:
    """Return what to do where training used batch statistics and no graph shows the updates."""
    how = ""
    if layer.keras_version.startswith("3"):
        how = ": a stateless loop (JAX) has to keep the non-trainable variables"
    elif may_train_in_session(layer.keras_version):
        how = ": in a TF1 session run `model.updates` with the train op"
    return (
        "Training used batch statistics, so the weights are good and only the averages are missing:"
        f" re-estimate them on training data ({_HOW_TO_REESTIMATE}), or train again and keep the"
        f" updates{how}; save the model that was trained, with all its weights."
    )
