"""For TF1 trainings: a guard of their BN layers, as a SessionRunHook or in a loop.

    >>> from bninspect.tf1 import BatchNormGuard
    >>> with tf.train.MonitoredTrainingSession(hooks=[BatchNormGuard()]) as session:
    ...     while not session.should_stop():
    ...         session.run(train_op)

    >>> guard = BatchNormGuard()
    >>> for step in range(steps):
    ...     session.run(train_op)
    ...     guard.check(session, step)

Importing this module imports TensorFlow, whose `tf.compat.v1` it is for: sessions of TensorFlow
2.12 or later on the versions of Python that bninspect runs on. The rules are those of `bninspect
check`.
"""

from bninspect.guard.layer_guard import GUARD_RULES, Action, BatchNormWarning
from bninspect.guard.session_guard import BatchNormGuard

__all__ = ["GUARD_RULES", "Action", "BatchNormGuard", "BatchNormWarning"]
