"""Facts on how a live Keras model is trained. No I/O."""

from __future__ import annotations

from bninspect.frozen import NamedTuple


class LiveModel(NamedTuple):
    """A Keras model in training, as its object shows it.

    `class_name` is its class. `has_own_call` says that its `call` is not one of Keras's;
    `takes_training` that this has a parameter `training`, None where it has no signature.
    `own_methods` are those of Keras's methods of training that are not Keras's own in this model
    (`train_step`). `is_fitted` says that `fit` runs the training, not a loop of the user's own.
    `backend` is what Keras runs on (`tensorflow`, `jax`); empty if that is not known.
    """

    class_name: str
    has_own_call: bool = False
    takes_training: bool | None = None
    own_methods: tuple[str, ...] = ()
    is_fitted: bool = False
    backend: str = ""

    @property
    def is_trained_by_keras(self) -> bool:
        """Return whether each step is one of Keras's own `fit`, whose steps are known."""
        return self.is_fitted and not self.own_methods
