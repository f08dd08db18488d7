"""Trainings that `BatchNormGuard` watches, healthy and broken, for whatever Keras is given.

As a program it runs all of one Keras (`keras` on $KERAS_BACKEND, or `tf_keras`) in a process of its
own, where that Keras is the only one, and prints what the guard did as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings

import numpy as np

from bninspect.keras import BatchNormGuard, BatchNormWarning

BATCHES = 8
SIZE = 16
AFTER = 3


def data(seed=7):
    generator = np.random.default_rng(seed)
    x = generator.normal(1.0, 2.0, (BATCHES * SIZE, 4)).astype("float32")
    return x, (x[:, :1] * x[:, 1:2]).astype("float32")


class Trainings:
    """One method a training, each with a new guard; `watch` says what that did."""

    def __init__(self, keras):
        self.keras = keras
        self.layers = keras.layers
        keras.utils.set_random_seed(7)

    def net(self, kind=None, **bn):
        """Dense and BN, at the top and in an inner model and a wrapper."""
        layers = self.layers
        x = self.keras.Input((4,))
        inner_x = self.keras.Input((4,))
        h = layers.BatchNormalization(name="bn", **bn)(layers.Dense(4)(inner_x))
        inner = self.keras.Model(inner_x, h, name="inner")
        h = layers.Dense(4)(x)
        h = layers.BatchNormalization(name="top", **bn)(h)
        h = inner(h)
        h = layers.Reshape((2, 2))(h)
        h = layers.TimeDistributed(layers.BatchNormalization(name="bn", **bn), name="each")(h)
        out = layers.Dense(1)(layers.Flatten()(h))
        return (kind or self.keras.Model)(x, out)

    def watch(
        self, model, *, epochs=2, batch_size=SIZE, before=(), xy=None, validate=False, **options
    ):
        guard = BatchNormGuard(after_batches=AFTER, **options)
        if getattr(model, "optimizer", None) is None:
            model.compile("adam", "mse")
        x, y = xy or data()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = model.fit(
                x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                validation_data=(x, y) if validate else None,
                shuffle=False,
                callbacks=[*before, guard],
                verbose=0,
            )
        return self.told(guard, caught, epochs=len(history.epoch))

    def told(self, guard, caught, **more):
        return {
            "warnings": [str(w.message) for w in caught if w.category is BatchNormWarning],
            "findings": [[f.layer, f.rule.code, f.severity, f.cause] for f in guard.findings],
            **more,
        }

    def inference_mode(self):
        """A kind of model that forgets that it is trained.

        Keras 2 tells the layers of a model of its training itself, whatever `call` says.
        """
        if self.keras.__version__.startswith("2."):
            return self.own_train_step()

        class Forgetful(self.keras.Model):
            def call(self, inputs, training=None, mask=None):  # noqa: ARG002
                return super().call(inputs, training=False, mask=mask)

        return Forgetful

    def own_train_step(self):
        """A kind of model that is trained by a loop on TensorFlow, in inference mode."""
        import tensorflow as tf

        class Forgetful(self.keras.Model):
            def train_step(self, batch):
                x, y = batch
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((self(x, training=False) - y) ** 2)
                weights = self.trainable_variables
                slopes = tape.gradient(loss, weights)
                self.optimizer.apply_gradients(zip(slopes, weights, strict=True))
                return {"loss": loss}

        return Forgetful

    # Healthy: the guard has nothing to say.

    def healthy(self):
        return self.watch(self.net(), epochs=3, validate=True)

    def healthy_float16_policy(self):
        self.keras.mixed_precision.set_global_policy("mixed_float16")
        try:
            return self.watch(self.net())
        finally:
            self.keras.mixed_precision.set_global_policy("float32")

    def healthy_without_gamma_and_beta(self):
        return self.watch(self.net(center=False, scale=False))

    def healthy_zero_gammas(self):
        return self.watch(self.net(gamma_initializer="zeros"))

    def healthy_two_fits(self):
        model = self.net()
        self.watch(model, epochs=1)
        return self.watch(model)

    def frozen_backbone(self):
        """Trained, then frozen with what it learnt, below a head that is trained."""
        backbone = self.net()
        self.watch(backbone)
        backbone.trainable = False
        head = self.layers.BatchNormalization(name="head")(backbone.layers[-3].output)
        out = self.layers.Dense(1)(self.layers.Flatten()(head))
        return self.watch(self.keras.Model(backbone.input, out))

    def frozen_and_new(self):
        model = self.net()
        for layer in model.layers[:-1]:
            layer.trainable = False
        return self.watch(model)

    def not_called(self):
        """A layer that is built, and no part of what is trained; one without gamma and beta."""
        layers = self.layers

        class Spare(self.keras.Model):
            def __init__(self):
                super().__init__()
                self.used = layers.BatchNormalization(name="used")
                self.spare = layers.BatchNormalization(name="spare")
                self.spare.build((None, 4))
                self.out = layers.Dense(1)

            def call(self, inputs, training=None):
                return self.out(self.used(inputs, training=training))

        return self.watch(Spare())

    def come_to_rest(self):
        """The same batch again and again: the averages are its statistics, and stay that."""
        x = self.keras.Input((4,))
        h = self.layers.BatchNormalization(name="input", momentum=0.5)(x)
        model = self.keras.Model(x, self.layers.Dense(1)(h))
        return self.watch(model, epochs=35, batch_size=BATCHES * SIZE)

    def fine_tuned_in_inference_mode(self):
        """Keras 2 keeps to a training=False of the definition: gamma and beta alone are tuned."""
        backbone = self.net()
        self.watch(backbone)
        x = self.keras.Input((4,))
        return self.watch(self.keras.Model(x, backbone(x, training=False)))

    # Broken: the guard has to warn.

    def inference_from_the_start(self):
        return self.watch(self.net(self.inference_mode()))

    def inference_from_the_start_stopped(self):
        return self.watch(self.net(self.inference_mode()), epochs=3, action="stop")

    def inference_without_gamma_and_beta(self):
        return self.watch(self.net(self.inference_mode(), center=False, scale=False))

    def inference_ignored(self):
        return self.watch(self.net(self.inference_mode()), ignore="BN101,BN107")

    def inference_after_a_training(self):
        trained = self.net()
        self.watch(trained)
        model = self.net(self.inference_mode())
        model.set_weights(trained.get_weights())
        return self.watch(model)

    def momentum_of_one(self):
        return self.watch(self.net(momentum=1.0))

    def reset(self):
        """Something sets one layer's averages back to where they started."""
        model = self.net()

        class Reset(self.keras.callbacks.Callback):
            def on_train_batch_begin(self, *_, **__):
                top = self.model.get_layer("top")
                top.moving_mean.assign(np.zeros(4, "float32"))
                top.moving_variance.assign(np.ones(4, "float32"))

            on_epoch_end = on_train_batch_begin

        return self.watch(model, before=[Reset()])

    def stopped_in_the_middle(self):
        """After two epochs the loop goes on with a model of the same layers in inference mode."""
        trained = self.net()
        forgetful = self.inference_mode()(trained.inputs, trained.outputs)
        for model in (trained, forgetful):
            model.compile("adam", "mse")
        guard = BatchNormGuard(after_batches=AFTER)
        guard.set_model(trained)
        x, y = data()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            guard.on_train_begin()
            for epoch in range(4):
                guard.on_epoch_begin(epoch)
                for batch in range(BATCHES):
                    guard.on_train_batch_begin(batch)
                    part = slice(batch * SIZE, (batch + 1) * SIZE)
                    (trained if epoch < 2 else forgetful).train_on_batch(x[part], y[part])
                guard.on_epoch_end(epoch)
        return self.told(guard, caught)

    def diverged(self):
        x, y = data()
        x[-1, 0] = np.nan
        return self.watch(self.net(), epochs=3, xy=(x, y), action="stop")

    def half_precision(self):
        return self.watch(self.net(dtype="float16", momentum=0.991), action="stop")

    def training_false_in_the_definition(self):
        """Of a new layer: only Keras 2 keeps to it."""
        x = self.keras.Input((4,))
        h = self.layers.BatchNormalization(name="bn")(self.layers.Dense(3)(x), training=False)
        return self.watch(self.keras.Model(x, self.layers.Dense(1)(h)))

    def training_false_inside(self):
        """The same in a model within a model of the user's own."""
        x = self.keras.Input((4,))
        h = self.layers.BatchNormalization(name="bn")(self.layers.Dense(3)(x), training=False)
        return self.watch(self._own_model(self.keras.Model(x, h, name="inner"))())

    def frozen_with_other_weights(self):
        """gamma and beta were loaded, the statistics were not, and then all was frozen."""
        model = self.net()
        top = model.get_layer("top")
        top.gamma.assign([0.5, 1.5, 2.0, 0.7])
        top.trainable = False
        return self.watch(model)

    def _own_model(self, layer, *, call=None):
        """A kind of model of the user's own, whose `call` gets the model and its inputs."""
        head = self.layers.Dense(1)

        class Own(self.keras.Model):
            def __init__(self):
                super().__init__(name="own")
                self.inside, self.head = layer, head

        def passing(self, inputs, training=None):
            return self.head(self.inside(inputs, training=training))

        Own.call = call or passing
        return Own

    def _bn(self):
        return self.layers.BatchNormalization(name="bn")

    def call_without_training(self):
        def call(self, inputs):
            return self.head(self.inside(inputs))

        return self.watch(self._own_model(self._bn(), call=call)())

    def call_with_other_arguments(self):
        def call(self, inputs, **_):
            return self.head(self.inside(inputs))

        return self.watch(self._own_model(self._bn(), call=call)())

    def call_in_training_mode(self):
        """Without the parameter, but it is not needed."""

        def call(self, inputs):
            return self.head(self.inside(inputs, training=True))

        return self.watch(self._own_model(self._bn(), call=call)())

    def call_that_passes_nothing_on(self):
        def call(self, inputs, training=None):
            return self.head(self.inside(inputs))

        return self.watch(self._own_model(self._bn(), call=call)())

    def call_that_passes_false_on(self):
        def call(self, inputs, training=None):
            return self.head(self.inside(inputs, training=False))

        return self.watch(self._own_model(self._bn(), call=call)())

    # Loops of one's own, by the framework below.

    def own_step(self):
        return self.watch(self.net(self.own_train_step()))

    def own_loop_with_a_callback_list(self):
        """A loop that runs callbacks as `fit` does, and parts of the model by itself."""
        import tensorflow as tf

        def call(self, inputs):
            return self.head(self.inside(inputs))

        x, y = data()
        model = self._own_model(self._bn(), call=call)()
        model(x)
        guard = BatchNormGuard(after_batches=AFTER)
        callbacks = self.keras.callbacks.CallbackList([guard], model=model, epochs=1, steps=BATCHES)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            callbacks.on_train_begin()
            callbacks.on_epoch_begin(0)
            for batch in range(BATCHES):
                callbacks.on_train_batch_begin(batch)
                part = slice(batch * SIZE, (batch + 1) * SIZE)
                with tf.GradientTape() as tape:
                    predicted = model.head(model.inside(x[part], training=False))
                    loss = tf.reduce_mean((predicted - y[part]) ** 2)
                weights = model.trainable_variables
                for weight, slope in zip(weights, tape.gradient(loss, weights), strict=True):
                    weight.assign(weight - 1e-4 * slope)
                callbacks.on_train_batch_end(batch)
            callbacks.on_epoch_end(0)
        return self.told(guard, caught)

    def _stateless(self, *, keep):
        import jax

        model = self.net()
        guard = BatchNormGuard(after_batches=AFTER)
        guard.set_model(model)

        def loss(trained, others, x, y):
            predicted, others = model.stateless_call(trained, others, x, training=True)
            return ((predicted - y) ** 2).mean(), others

        gradient = jax.value_and_grad(loss, has_aux=True)
        x, y = data()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            guard.on_train_begin()
            for epoch in range(2):
                guard.on_epoch_begin(epoch)
                for batch in range(BATCHES):
                    guard.on_train_batch_begin(batch)
                    trained = [v.value for v in model.trainable_variables]
                    others = [v.value for v in model.non_trainable_variables]
                    part = slice(batch * SIZE, (batch + 1) * SIZE)
                    (_, others), slopes = gradient(trained, others, x[part], y[part])
                    for variable, slope in zip(model.trainable_variables, slopes, strict=True):
                        variable.assign(variable.value - 0.01 * slope)
                    if keep:
                        for variable, value in zip(
                            model.non_trainable_variables, others, strict=True
                        ):
                            variable.assign(value)
                guard.on_epoch_end(epoch)
        return self.told(guard, caught)

    def stateless_kept(self):
        return self._stateless(keep=True)

    def stateless_dropped(self):
        return self._stateless(keep=False)


EVERYWHERE = [
    name
    for name in vars(Trainings)
    if not name.startswith(("_", "own_", "stateless_"))
    and name not in ("net", "watch", "told", "inference_mode", "own_train_step")
]
TENSORFLOW = [*EVERYWHERE, "own_step", "own_loop_with_a_callback_list"]
JAX = [*EVERYWHERE, "stateless_kept", "stateless_dropped"]


def run(keras, names):
    return {name: getattr(Trainings(keras), name)() for name in names}


if __name__ == "__main__":
    _, called, *chosen = sys.argv
    sys.stdout.write(json.dumps(run(importlib.import_module(called), chosen)) + "\n")
