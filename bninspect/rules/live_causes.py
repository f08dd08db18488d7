"""Causes that a live Keras model proves, and what else it shows of why nothing was updated.

Measured with Keras 3.0.0 to 3.15.1: `train_step` (keras/src/backend/*/trainer.py) passes
training=True only to a `call` that has this parameter, by name (`**kwargs` does not count). Without
it all BN layers inside run in inference mode, unless the `call` passes them training=True itself.
With TensorFlow the layers inside then know the mode of the call around them. With JAX (3.10.0 to
3.15.1) they do not, since `fit` runs `call` itself and not the model: it has to pass the mode on to
the layers that it calls, which do the rest. Keras 2 updates all layers whatever `call` takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE
from bninspect.model.rule import RuleContext
from bninspect.rules.causes import Proof
from bninspect.rules.mode_fixes import let_call_take_training
from bninspect.rules.situation_fixes import load_or_unfreeze
from bninspect.wording import listed

if TYPE_CHECKING:
    from bninspect.model.live import LiveModel

FROZEN = "layer-frozen"
CALL_WITHOUT_TRAINING = "call-without-training"


def frozen_in_training(layer: BNLayer, context: RuleContext) -> Proof | None:
    """Return the proof that `fit` trained with the layer frozen; None otherwise.

    A loop of the user's own, as that of a GAN, may freeze it only while it is read; and what was
    frozen after `compile` is trained on: then gamma and beta moved.
    """
    model = context.live_model
    if model is None or not model.is_trained_by_keras:
        return None
    if not (_is_of_keras(layer) and layer.trainable is False) or layer.since is None:
        return None
    if any(layer.since.changes[role].moved for role in AFFINE if role in layer.since.changes):
        return None
    return Proof(FROZEN, ("the layer has trainable=False",), load_or_unfreeze())


def call_without_training(layer: BNLayer, context: RuleContext) -> Proof | None:
    """Return the proof that `fit` of Keras 3 never ran the layer in training mode; None otherwise.

    In a loop of the user's own, which may call parts of the model by themselves, it proves nothing
    and is to be mended all the same: then the proof has no cause, but the fix.
    """
    model = context.live_model
    if model is None or not _takes_no_training(layer, model) or not _is_of_keras(layer):
        return None
    fix = let_call_take_training(layer, model.class_name)
    if not model.is_trained_by_keras:
        return Proof(fix=fix)
    fact = (
        f"the `call` of {model.class_name} has no parameter `training`, and Keras"
        f" {layer.keras_version} fits such a model in inference mode"
    )
    return Proof(CALL_WITHOUT_TRAINING, (fact,), fix)


def facts_of_live_model(layer: BNLayer, context: RuleContext) -> Iterator[str]:
    """Yield what the live model shows that may be why nothing was updated, and proves nothing."""
    model = context.live_model
    if model is None:
        return
    if _takes_no_training(layer, model):
        yield (
            f"the `call` of {model.class_name} has no parameter `training`: Keras's own `fit` would"
            " run it in inference mode"
        )
    elif model.has_own_call:
        yield f"the `call` of {model.class_name} is its own: {_what_a_call_may_do(layer, model)}"
    if model.own_methods:
        methods = listed([f"`{name}`" for name in model.own_methods])
        yield (
            f"{model.class_name} has its own {methods}: it may call the layer without"
            " training=True, or drop its updates"
        )


def _what_a_call_may_do(layer: BNLayer, model: LiveModel) -> str:
    if layer.keras_version.startswith("3") and model.backend == "jax":
        return "with JAX it has to pass `training` on to each layer that it calls"
    return "it may pass training=False to the layer"


def _is_of_keras(layer: BNLayer) -> bool:
    """Return whether the layer is one of Keras's: what others do with the mode is not known."""
    return layer.keras is not None and layer.keras.built_in


def _takes_no_training(layer: BNLayer, model: LiveModel) -> bool:
    return layer.keras_version.startswith("3") and model.takes_training is False
