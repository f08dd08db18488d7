"""For Keras models: a callback that watches their BN layers, and a cure for stuck statistics.

    >>> from bninspect.keras import BatchNormGuard, recalibrate
    >>> model.fit(dataset, callbacks=[BatchNormGuard()])
    >>> recalibrate(model, dataset)
    <Recalibration the model: 2 BN layers re-estimated from 2048 samples>

Keras calls a callback by the names of its methods, whatever its class. So no Keras is imported
here, and the model may be of any: Keras 3 on each of its backends, tf_keras, or tf.keras. The rules
are those of `bninspect check`.

Layers are found as in files, by their variables: whatever keeps moving_mean and moving_variance,
at any depth. Only those layers' variables are read, and only when the guard compares them.
"""

from bninspect.errors import RecalibrationRefused
from bninspect.guard.callback import BatchNormGuard
from bninspect.guard.layer_guard import GUARD_RULES, Action, BatchNormWarning
from bninspect.recalibrate.live import recalibrate

__all__ = [
    "GUARD_RULES",
    "Action",
    "BatchNormGuard",
    "BatchNormWarning",
    "RecalibrationRefused",
    "recalibrate",
]
