"""For JAX and Flax trainings: a guard of their BN layers, and a comparison of two states.

    >>> from bninspect.flax import BatchNormGuard, check_updated
    >>> guard = BatchNormGuard()
    >>> for step, batch in enumerate(batches):
    ...     state = train_step(state, batch)
    ...     guard.check(state, step)

    >>> report = check_updated(old_state, train_step(old_state, batch))
    >>> assert report.ok, bninspect.explain(report)

A state is whatever holds the arrays: linen's variables, a TrainState, a state of NNX. No JAX is
imported here; arrays are read as NumPy's. The rules are those of `bninspect check`.
"""

from bninspect.guard.layer_guard import GUARD_RULES, Action, BatchNormWarning
from bninspect.guard.state_guard import BatchNormGuard, check_updated

__all__ = ["GUARD_RULES", "Action", "BatchNormGuard", "BatchNormWarning", "check_updated"]
