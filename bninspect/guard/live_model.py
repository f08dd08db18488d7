"""Facts on a live Keras model as a whole: its class, its backend, and how it is trained."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from bninspect.model.checkpoint import KerasModel
from bninspect.model.live import LiveModel

# What may replace how Keras trains a model (keras/src/trainers/trainer.py, backend/*/trainer.py).
_METHODS_OF_TRAINING = (
    "fit",
    "make_train_function",
    "train_step",
    "compute_loss_and_updates",
    "stateless_call",
    "__call__",
)
_FITS = ("fit", "fit_generator")  # the second one up to Keras 2.3
_KERAS_ROOTS = ("keras", "tf_keras")


def stored_facts(model: Any) -> KerasModel:
    """Return what a live model shows of itself that a file would store."""
    optimizer = getattr(model, "optimizer", None)
    return KerasModel(
        class_name=type(model).__name__,
        has_own_class=not is_of_keras(type(model)),
        is_compiled=optimizer is not None,
        optimizer=None if optimizer is None else type(optimizer).__name__,
        backend=_backend(model) or None,
    )


def live_model(model: Any, *, is_fitted: bool) -> LiveModel:
    """Return what a live model shows of how it is trained; `is_fitted` says that `fit` does it."""
    return LiveModel(
        class_name=type(model).__name__,
        has_own_call=not _is_method_of_keras(model, "call"),
        takes_training=_takes_training(model),
        own_methods=tuple(
            name for name in _METHODS_OF_TRAINING if not _is_method_of_keras(model, name)
        ),
        is_fitted=is_fitted,
        backend=_backend(model),
    )


def is_fitting(model: Any) -> bool:
    """Return whether a `fit` of Keras that trains this model is among the callers."""
    frame = inspect.currentframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        is_fit = frame.f_code.co_name in _FITS and module.partition(".")[0] in _KERAS_ROOTS
        if is_fit and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False


def keras_version(instance: Any) -> str:
    """Return the version of the Keras that a model or layer is made with; empty if unknown."""
    roots = (cls.__module__.partition(".")[0] for cls in type(instance).__mro__)
    root = next((root for root in roots if root in _KERAS_ROOTS), "")
    return str(getattr(sys.modules.get(root), "__version__", ""))


def is_of_keras(cls: type) -> bool:
    """Return whether a class is one of Keras's."""
    return cls.__module__.partition(".")[0] in _KERAS_ROOTS


def _is_method_of_keras(model: Any, name: str) -> bool:
    """Return whether a method is Keras's own, or there is none."""
    if name in vars(model):
        return False
    owner = next((one for one in type(model).__mro__ if name in vars(one)), None)
    return owner is None or is_of_keras(owner)


def _takes_training(model: Any) -> bool | None:
    """Return whether `call` has a parameter `training`, as Keras finds out."""
    try:
        return "training" in inspect.signature(model.call).parameters
    except (AttributeError, TypeError, ValueError):
        return None


def _backend(model: Any) -> str:
    """Return what the Keras of a model runs on; empty if that is not known."""
    if keras_version(model).startswith("2"):
        return "tensorflow"
    backend = getattr(sys.modules.get("keras"), "backend", None)
    return str(backend.backend()) if backend is not None else ""
