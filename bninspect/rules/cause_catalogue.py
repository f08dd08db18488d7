"""The catalogue of causes that the rules may give.

The reasoning is in `causes.py` and with the rules, the documentation in `pages/causes/`.
"""

from __future__ import annotations

from bninspect.model.rule import Cause

_TF1 = ("tf1-layers", "slim", "tf1-hand-written", "tf1-keras", "keras-1", "keras-2")
_KERAS_3 = ("keras-3", "jax")

CAUSES: tuple[Cause, ...] = (
    Cause(
        name="update-ops-not-run",
        summary="the graph has update ops, and no training op depends on them",
        rules=("BN101", "BN102", "BN103", "BN107"),
        frameworks=_TF1,
    ),
    Cause(
        name="built-with-training-false",
        summary="training ran with the layer in inference mode",
        rules=("BN101", "BN102", "BN103", "BN107"),
        frameworks=(*_TF1, *_KERAS_3),
    ),
    Cause(
        name="layer-frozen",
        summary="the layer is not trainable, so that its statistics stand still",
        rules=("BN101", "BN102", "BN103", "BN105", "BN107"),
        frameworks=(*_TF1, *_KERAS_3),
    ),
    Cause(
        name="too-few-updates",
        summary="the averages moved, but too few times to forget where they started",
        rules=("BN106",),
    ),
    Cause(
        name="saver-omitted-statistics",
        summary="the model has the statistics, and they were not saved",
        rules=("BN201", "BN202"),
    ),
    Cause(
        name="statistics-not-loaded",
        summary="gamma and beta were copied or loaded, the statistics were not",
        rules=("BN101", "BN107"),
    ),
    Cause(
        name="untrained",
        summary="the model was saved before its first training step",
        rules=("BN105",),
    ),
    Cause(
        name="trained-in-inference-mode",
        summary="training ran with the layer in inference mode, as the bias before it shows",
        rules=("BN101",),
    ),
    Cause(
        name="call-without-training",
        summary="the model's own `call` does not take `training`, so that Keras 3 never trains it",
        rules=("BN101", "BN107"),
        frameworks=_KERAS_3,
    ),
    Cause(
        name="momentum-one",
        summary="the momentum is 1, with which no update changes anything",
        rules=("BN101", "BN107"),
    ),
    Cause(
        name="batch-statistics-mode",
        summary="the layer's mode never uses nor updates its averages (Keras 1)",
        rules=("BN101", "BN107"),
        frameworks=("keras-1",),
    ),
    Cause(
        name="half-precision",
        summary="an update is smaller than the number type can hold",
        rules=("BN103",),
    ),
)
