"""How to fix it, once for all rules: one sentence by family, and a page's fixes by framework.

The sentence is for the report, where the family is known. The pages' code is in `pages/fixes/`.
"""

from __future__ import annotations

from collections.abc import Mapping

from bninspect.model.checkpoint import JAVASCRIPT
from bninspect.model.layer import BNLayer
from bninspect.rules.keras_versions import may_train_in_session

# The weights may be good, and only the averages missing: see `Without training again` below.
AGAIN = "again, or only re-estimate the averages (`bninspect rule BN101` says when)."

# Of weights that were trained with the stored averages.
TRAINED_AS_STORED = (
    "Do not re-estimate the averages: the weights were trained with them as they are. Training and"
    " inference agree, but the layer is no more than a scale and a shift."
)

_TF1 = (
    "Run the update ops with every training step: when all layers are built, build the train op"
    " under `tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS))`, call the layers"
    f" with training=True while training, and train {AGAIN}"
)
_KERAS = (
    "Train the layer in training mode: `model(x, training=True)` in a loop or `train_step` of your"
    " own, no training=False in a `call`"
)
_FIT = " (`model.fit` does the rest)"
# Measured, see `live_causes.py`.
_FIT_OF_KERAS_3 = (
    ". In Keras 3 `model.fit` uses that mode only if the `call` of a model of your own, where it"
    " has one, takes a parameter `training` and passes it on: `def call(self, x, training=None)`"
)
_KERAS_3 = "; a stateless loop (JAX) keeps the non-trainable variables that are returned"
_IN_JAVASCRIPT = (
    "Train the layer in training mode: `model.fit` of TensorFlow.js does; in a loop of your own"
    " call `model.apply(x, {training: true})`."
)
_KERAS_IN_SESSION = "; in a TF1 session run `model.updates` with the train op"
_UPDATES: Mapping[str, str] = {
    "tf.layers": _TF1,
    "custom-scope": (
        f"{_TF1} If the layer is hand-written, run the assign ops of its averages in that place."
    ),
    "compare_gan": (
        "Nothing to fix in a checkpoint of the training. Before evaluating or exporting, set"
        " update_accus to 1, run the network on many batches, and set it back to 0."
    ),
    "slim": (
        "Build the train op with `slim.learning.create_train_op(total_loss, optimizer)` instead of"
        f" `optimizer.minimize`, set is_training=True while training, and train {AGAIN}"
    ),
    "moments-ema": (
        "Run `ema.apply([batch_mean, batch_variance])` with every training step: use what"
        " `tf.cond(is_training, …)` returns, so that the apply op is part of the training graph,"
        f" and feed the phase placeholder True while training; then train {AGAIN}"
    ),
    "sonnet-2": (
        "Call the module with is_training=True in every training step (in eager mode or inside the"
        f" same tf.function, so that its averages are assigned); then train {AGAIN}"
    ),
    "flax": (
        "Call the model in training mode (linen: use_running_average=False and"
        " `apply(…, mutable=['batch_stats'])`, NNX: `model.train()`), and in linen put the"
        " batch_stats that `apply` returns into the train state with every step; then train"
        f" {AGAIN}"
    ),
    "haiku": (
        "Call `apply` with is_training=True in every training step, and give the state that it"
        f" returns to the next step and to the checkpoint; then train {AGAIN}"
    ),
    "darkflow": (
        "Feed the layers' is_training placeholder True while training (darkflow's own train loop"
        f" does); then train {AGAIN}"
    ),
    "sonnet-1": (
        "Connect the module with is_training=True while training and run"
        f" `tf.get_collection(tf.GraphKeys.UPDATE_OPS)` with the train op; then train {AGAIN}"
    ),
    "tflearn": (
        "Call `tflearn.is_training(True, session=session)` before a training loop of your own"
        f" (DNN.fit does it); then train {AGAIN}"
    ),
    "pytorch": (
        "Train the module in training mode: call `model.train()` before each epoch, since"
        " `model.eval()` stays in force until then; leave track_running_stats=True and a momentum"
        " above 0. Then train again, or re-estimate the averages of the trained model by"
        " `torch.optim.swa_utils.update_bn(loader, model)`."
    ),
    "onnx": (
        "Let each training step run the layer in training mode and update its averages. Then train"
        " again, or re-estimate the averages of the trained model."
    ),
    "tensorpack": (
        "Build the training tower with is_training=True and keep the RunUpdateOps callback, which"
        f" runs the update ops; then train {AGAIN}"
    ),
}
# Families whose fix above is about the mode alone.
_WITH_MODES = {"tflearn", "darkflow"}
_HAND_WRITTEN = (
    "Run the assign ops of the moving averages with every training step, for example under"
    " `tf.control_dependencies([update_mean, update_variance])` around the train op; then train"
    f" {AGAIN}"
)


def run_the_updates(layer: BNLayer) -> str:
    """Return what to do where the statistics were not updated."""
    if layer.family in ("keras", "keras-1") or layer.is_of_function:
        return _run_the_updates_of_keras(layer)
    is_own_module = layer.onnx is not None and layer.onnx.is_arithmetic
    return _UPDATES.get("onnx" if is_own_module else layer.family, _HAND_WRITTEN)


def _run_the_updates_of_keras(layer: BNLayer) -> str:
    """Return what to do in the Keras that wrote the file.

    Names of Keras 1 in a file of a later Keras are those of a layer of the user's own.
    """
    version = layer.keras_version
    if trained_in_javascript(layer):
        return f"{_IN_JAVASCRIPT} Then train {AGAIN}"
    if layer.family == "keras-1" and not version.startswith(("2", "3")):
        return (
            "Use mode=0 and train with `model.fit`; with mode 1 or 2 the averages are never used"
            " nor updated, so evaluate in batches as large as in training."
        )
    if version.startswith("3"):
        more = _fit_of_keras_3(layer)
    elif version.startswith("2") and may_train_in_session(version):
        more = _FIT + _KERAS_IN_SESSION
    elif version.startswith(("1", "2")):
        more = _FIT
    else:
        more = _FIT_OF_KERAS_3
    return f"{_KERAS}{more}. Then train {AGAIN}"


def trained_in_javascript(layer: BNLayer) -> bool:
    """Return whether TensorFlow.js saved the model itself, so that no converter did."""
    return layer.keras_model is not None and layer.keras_model.backend == JAVASCRIPT


def _fit_of_keras_3(layer: BNLayer) -> str:
    """Return what else matters in Keras 3, less what the file says does not concern this model."""
    model = layer.keras_model
    has_loop_of_jax = model is None or model.backend in (None, "jax")
    has_own_call = model is None or model.has_own_class
    return (_KERAS_3 if has_loop_of_jax else "") + (_FIT_OF_KERAS_3 if has_own_call else _FIT)


def switch_on(layer: BNLayer) -> str | None:
    """Return how the layer's framework sets the training mode, where it has a way of its own."""
    return _UPDATES[layer.family] if layer.family in _WITH_MODES else None


def lower_the_momentum() -> str:
    """Return what to do where the momentum is 1."""
    return (
        "With momentum 1 an update changes nothing: give the layer a momentum of 0.9 to 0.99, and"
        f" train {AGAIN}"
    )


def run_collected_updates(layer: BNLayer) -> str:
    """Return the fix where UPDATE_OPS has the updates, so that they are a framework's."""
    return _TF1 if layer.family == "custom-scope" else run_the_updates(layer)


def run_uncollected_updates(layer: BNLayer) -> str:
    """Return the fix where the graph has update ops that are in no collection.

    Keras layers keep theirs to themselves (`Layer.updates`), hand-written ones where they were
    made; slim, Sonnet and tf.layers put them into UPDATE_OPS unless told otherwise.
    """
    if layer.family in ("tf.layers", "custom-scope", "keras"):
        return (
            "tf.get_collection(UPDATE_OPS) does not hold these update ops. If these are Keras"
            " layers in a TF1 loop, run theirs with every training step:"
            " `session.run([train_op, model.updates])`, or build the train op under"
            " `tf.control_dependencies(model.updates)`; the model must be built on what the loop"
            " feeds, as with `keras.Input(tensor=images)`. If the layer is hand-written, do so with"
            " its assign ops. A layer with trainable=False leaves them out too. Then train"
            f" {AGAIN}"
        )
    return run_the_updates(layer)


def train_in_training_mode(*, frozen: bool = False) -> str:
    """Return the fix where the graph that was trained has a layer in inference mode."""
    if frozen:
        return (
            "A frozen layer with initial statistics normalises nothing. Restore pretrained weights"
            " into it before training, or make it trainable and call it with training=True."
        )
    return (
        "Build the training graph with training=True (tf.layers; its default is False) or"
        " is_training=True (slim), run the update ops with every training step, and train again."
        f" {TRAINED_AS_STORED}"
    )
