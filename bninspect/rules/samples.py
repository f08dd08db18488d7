"""Code that fixes what a rule finds: printed on the pages, and run by the tests as it stands here.

Each sample is a text, since what is printed must be what is run. Names that a sample does not
define are those of the training it is put into: `images` and `labels` (what is fed), `x` (the
activations before the layer), `optimizer`, `step`, `session`, `model`, `dataset`, `path`.
`tests/rules/test_samples.py` trains with each sample and with the mistake that it corrects.
"""

TF1_UPDATES = """\
x = tf.layers.batch_normalization(x, training=True)
loss = tf.losses.mean_squared_error(labels, tf.layers.dense(x, 1))
# Only now, with all layers built: before, the collection is an empty list.
update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
with tf.control_dependencies(update_ops):
    train_op = optimizer.minimize(loss, global_step=step)"""

TF1_MODE = """\
is_training = tf.placeholder(tf.bool)  # no default, so no run forgets it
x = tf.layers.batch_normalization(x, training=is_training)
loss = tf.losses.mean_squared_error(labels, tf.layers.dense(x, 1))
with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    train_op = optimizer.minimize(loss, global_step=step)
session.run(tf.global_variables_initializer())
for batch, targets in batches:
    fed = {images: batch, labels: targets, is_training: True}
    session.run(train_op, fed)"""

TF1_KERAS = """\
keras.backend.set_learning_phase(1)  # before the layers are built
inputs = keras.Input(tensor=images)
x = keras.layers.BatchNormalization()(inputs)
model = keras.Model(inputs, keras.layers.Dense(1)(x))
loss = tf.losses.mean_squared_error(labels, model.output)
with tf.control_dependencies(model.updates):  # not in UPDATE_OPS
    train_op = optimizer.minimize(loss, global_step=step)"""

TF1_HAND_WRITTEN = """\
mean, variance = tf.nn.moments(x, axes=[0])
m = 0.9  # the momentum
update_mean = moving_mean.assign(m * moving_mean + (1 - m) * mean)
update_variance = moving_variance.assign(
    m * moving_variance + (1 - m) * variance)
x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 0.001)
loss = tf.losses.mean_squared_error(labels, tf.layers.dense(x, 1))
with tf.control_dependencies([update_mean, update_variance]):  # both
    train_op = optimizer.minimize(loss, global_step=step)"""

TF1_REESTIMATE = """\
# Only the update ops, no train op: the weights stay as they are.
for batch, _ in batches:
    session.run(update_ops, {images: batch, is_training: True})
saver.save(session, path, global_step=step)"""

TF1_PRETRAINED = """\
x = tf.layers.batch_normalization(
    x, training=False, trainable=False, name="bn")
# Before the initializer is run, which then fills in these values.
tf.train.init_from_checkpoint(pretrained, {"bn/": "bn/"})"""

TF1_MOMENTUM = """\
x = tf.layers.batch_normalization(x, momentum=0.9, training=True)"""

TF1_SAVER = """\
saver = tf.train.Saver()  # all variables, not the trainable ones alone"""

TF1_SAVER_CHOICE = """\
saver = tf.train.Saver(tf.trainable_variables() + [
    v for v in tf.global_variables() if "/moving_" in v.op.name])"""

SLIM_UPDATES = """\
with slim.arg_scope([slim.batch_norm], is_training=True):
    x = slim.fully_connected(x, 8, normalizer_fn=slim.batch_norm)
    x = slim.fully_connected(x, 1, activation_fn=None)
loss = tf.losses.mean_squared_error(labels, x)
train_op = slim.learning.create_train_op(loss, optimizer)  # runs UPDATE_OPS"""

SLIM_DECAY = """\
x = slim.batch_norm(x, decay=0.9, is_training=True)"""

SLIM_SAVER = """\
saver = tf.train.Saver(slim.get_model_variables())  # with the statistics"""

KERAS_FIT = """\
x = keras.layers.BatchNormalization()(x)  # no training=: fit sets it
model = keras.Model(inputs, keras.layers.Dense(1)(x))
model.compile(optimizer, "mse")
model.fit(images, labels, epochs=25)
model.save(path)"""

KERAS_LOOP = """\
for batch, targets in dataset:
    with tf.GradientTape() as tape:
        predicted = model(batch, training=True)  # the default is False here
        loss = tf.reduce_mean(tf.square(targets - predicted))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))"""

KERAS_STATELESS = """\
def loss_and_state(trainable, state, batch, targets):
    predicted, state = model.stateless_call(
        trainable, state, batch, training=True)
    return keras.ops.mean(keras.ops.square(targets - predicted)), state

gradient = jax.value_and_grad(loss_and_state, has_aux=True)
trainable = [v.value for v in model.trainable_variables]
state = [v.value for v in model.non_trainable_variables]
slots = [v.value for v in optimizer.variables]
for batch, targets in dataset:
    # `state` comes back with new averages: keep it for the next step
    (loss, state), grads = gradient(trainable, state, batch, targets)
    trainable, slots = optimizer.stateless_apply(slots, grads, trainable)

# and put it into the model before saving
for v, value in zip(model.trainable_variables, trainable):
    v.assign(value)
for v, value in zip(model.non_trainable_variables, state):
    v.assign(value)
for v, value in zip(optimizer.variables, slots):
    v.assign(value)"""

KERAS_REESTIMATE = """\
# Training mode without an optimizer: the averages move, the weights do not.
for batch, _ in dataset.repeat().take(500):  # 500 are for momentum 0.99
    model(batch, training=True)
model.save(path)"""

KERAS_PRETRAINED = """\
model.load_weights(pretrained)  # the statistics, too
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.trainable = False  # gamma, beta and both statistics
model.compile(optimizer, "mse")  # after freezing: compile takes note of it"""

KERAS_MOMENTUM = """\
x = keras.layers.BatchNormalization(momentum=0.9)(x)"""

KERAS_SAVE = """\
model.save(path)  # or model.save_weights: both store the statistics"""

KERAS_SET_WEIGHTS = """\
layer.set_weights([gamma, beta, moving_mean, moving_variance])"""

KERAS_MIXED = """\
# Before the model is built: bfloat16 activations, float32 variables.
keras.mixed_precision.set_global_policy("mixed_bfloat16")"""
