"""How to fix it, once for all rules: one sentence by family, and code by framework.

The sentence is for the report, where the family is known; the code is for a rule's page.
"""

from __future__ import annotations

from collections.abc import Mapping

from bninspect.model import BNLayer

# The weights may be good, and only the averages missing: see `Without training again` below.
_AGAIN = "again, or only re-estimate the averages (`bninspect rule BN101` says when)."

_TF1 = (
    "Run the update ops with every training step: when all layers are built, build the train op"
    " under `tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS))`, call the layers"
    f" with training=True while training, and train {_AGAIN}"
)
_KERAS = (
    "Train the layer in training mode: `model.fit`, or `model(x, training=True)` in a loop of your"
    " own; in a TF1 session run `model.updates` with the train op; in a Keras 3 stateless loop keep"
    f" the non-trainable variables that are returned. Then train {_AGAIN}"
)
_UPDATES: Mapping[str, str] = {
    "tf.layers": _TF1,
    "custom-scope": (
        f"{_TF1} If the layer is hand-written, run the assign ops of its averages in that place."
    ),
    "slim": (
        "Build the train op with `slim.learning.create_train_op(total_loss, optimizer)` instead of"
        f" `optimizer.minimize`, set is_training=True while training, and train {_AGAIN}"
    ),
    "keras": _KERAS,
    "keras-1": (
        "Use mode=0 and train with `model.fit`; with mode 1 or 2 the averages are never used nor"
        " updated, so evaluate in batches as large as in training."
    ),
    "moments-ema": (
        "Run `ema.apply([batch_mean, batch_variance])` with every training step: use what"
        " `tf.cond(is_training, …)` returns, so that the apply op is part of the training graph,"
        f" and feed the phase placeholder True while training; then train {_AGAIN}"
    ),
    "sonnet-2": (
        "Call the module with is_training=True in every training step (in eager mode or inside the"
        f" same tf.function, so that its averages are assigned); then train {_AGAIN}"
    ),
    "darkflow": (
        "Feed the layers' is_training placeholder True while training (darkflow's own train loop"
        f" does); then train {_AGAIN}"
    ),
    "sonnet-1": (
        "Connect the module with is_training=True while training and run"
        f" `tf.get_collection(tf.GraphKeys.UPDATE_OPS)` with the train op; then train {_AGAIN}"
    ),
    "tflearn": (
        "Call `tflearn.is_training(True, session=session)` before a training loop of your own"
        f" (DNN.fit does it); then train {_AGAIN}"
    ),
    "tensorpack": (
        "Build the training tower with is_training=True and keep the RunUpdateOps callback, which"
        f" runs the update ops; then train {_AGAIN}"
    ),
}
_HAND_WRITTEN = (
    "Run the assign ops of the moving averages with every training step, for example under"
    " `tf.control_dependencies([update_mean, update_variance])` around the train op; then train"
    f" {_AGAIN}"
)


def run_the_updates(layer: BNLayer) -> str:
    """What to do where the statistics were not updated."""
    if layer.momentum == 1.0:
        return (
            "With momentum 1 an update changes nothing: give the layer a momentum of 0.9 to 0.99,"
            f" and train {_AGAIN}"
        )
    return _UPDATES.get(layer.family, _HAND_WRITTEN)


def run_collected_updates(layer: BNLayer) -> str:
    """What to do where UPDATE_OPS has the updates, so that they are a framework's."""
    return _TF1 if layer.family == "custom-scope" else run_the_updates(layer)


SWITCHED_OFF = (
    "By the graph a training step runs the update ops. Look for what switched them off: a training"
    " placeholder that was fed False or left at its default, a branch that was not taken, or that"
    f" another graph than this one was trained. Then train {_AGAIN}"
)


def run_uncollected_updates(layer: BNLayer) -> str:
    """What to do where the graph has update ops that are in no collection.

    Keras layers keep theirs to themselves (`Layer.updates`), hand-written ones where they were
    made; slim, Sonnet and tf.layers put them into UPDATE_OPS unless told otherwise.
    """
    if layer.family in ("tf.layers", "custom-scope", "keras"):
        return (
            "tf.get_collection(UPDATE_OPS) does not hold these update ops. If these are Keras"
            " layers in a TF1 loop, run theirs with every training step:"
            " `session.run([train_op, model.updates])`, or build the train op under"
            " `tf.control_dependencies(model.updates)`. If the layer is hand-written, do so with"
            " its assign ops. A layer with trainable=False leaves them out too. Then train"
            f" {_AGAIN}"
        )
    return run_the_updates(layer)


def train_in_training_mode(*, frozen: bool = False) -> str:
    """What to do where the graph that was trained has a layer in inference mode."""
    if frozen:
        return (
            "A frozen layer with initial statistics normalises nothing. Restore pretrained weights"
            " into it before training, or make it trainable and call it with training=True."
        )
    return (
        "Build the training graph with training=True (tf.layers; its default is False) or"
        f" is_training=True (slim), run the update ops with every training step, and train {_AGAIN}"
        " As it is, training and inference agree, but the layer is no more than a scale and a"
        " shift."
    )


UPDATE_CODE: Mapping[str, str] = {
    "TF1 layers": """\
x = tf.layers.batch_normalization(x, training=is_training)
...
update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
with tf.control_dependencies(update_ops):
    train_op = optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())""",
    "slim": """\
with slim.arg_scope([slim.batch_norm], is_training=is_training):
    ...
train_op = slim.learning.create_train_op(total_loss, optimizer)""",
    "Keras": """\
model.fit(dataset)

# in a TF1 session with a loop of your own
session.run([train_op, model.updates], feed_dict)
# or once, when the graph is built
with tf.control_dependencies(model.updates):
    train_op = optimizer.minimize(loss)""",
    "Custom loops": """\
# Keras on TensorFlow
with tf.GradientTape() as tape:
    loss = loss_fn(y, model(x, training=True))

# Keras 3, stateless (JAX): keep what is returned
y_pred, non_trainable = model.stateless_call(trainable, non_trainable, x, training=True)

# hand-written averages in TF1
with tf.control_dependencies([update_mean, update_variance]):
    train_op = optimizer.minimize(loss)""",
    "Without training again": """\
# Compare the accuracy on the same batches with training=True and with training=False.
# Good only with True: the weights are good, the averages are missing. Re-estimate them by forward
# passes in training mode over the training data, without an optimizer, and save:
for x, _ in dataset.repeat(epochs):  # some 500 batches for a momentum of 0.99
    model(x, training=True)
# in a TF1 session
for batch in batches:
    session.run(update_ops, feed_dict={images: batch, is_training: True})
# Good with False, too: the layer was trained in inference mode. Predictions are consistent with the
# training; it never normalised anything, but nothing is broken.""",
}

SAVER_CODE: Mapping[str, str] = {
    "TF1 layers": """\
saver = tf.train.Saver()  # every variable
# or, if it must be a choice
saver = tf.train.Saver(tf.trainable_variables() + [
    v for v in tf.global_variables() if "moving_" in v.op.name])""",
    "slim": """\
saver = tf.train.Saver(slim.get_model_variables())  # includes moving_mean and moving_variance""",
    "Keras": """\
model.save("model.keras")  # or model.save_weights: both store the statistics""",
    "Custom loops": """\
saver = tf.train.Saver(var_list={**trained_variables, **moving_averages})""",
}
