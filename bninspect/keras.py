"""A callback that watches the BN layers of a Keras model while it trains.

    >>> from bninspect.keras import BatchNormGuard
    >>> model.fit(dataset, callbacks=[BatchNormGuard()])

Keras calls a callback by the names of its methods, whatever its class. So no Keras is imported
here, and the model may be of any: Keras 3 on each of its backends, tf_keras, or tf.keras. The rules
are those of `bninspect check`.

Layers are found as in files, by their variables: whatever keeps moving_mean and moving_variance,
at any depth. Only those layers' variables are read, and only when the guard compares them.
"""

from bninspect.guard.callback import GUARD_RULES, Action, BatchNormGuard, BatchNormWarning

__all__ = ["GUARD_RULES", "Action", "BatchNormGuard", "BatchNormWarning"]
