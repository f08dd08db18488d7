"""Facts on the training of models by the stored version of Keras."""

from __future__ import annotations

import re


def may_train_in_session(version: str) -> bool:
    """Return whether a version may be one that trains in sessions of TensorFlow 1.

    All of Keras 1, Keras 2 up to 2.3, and tf.keras up to 2.2.4-tf do; 2.3.0-tf came with TensorFlow
    2.2 (tensorflow/python/keras/__init__.py of each version).
    """
    return bool(re.match(r"(1|2\.[0-2])(\D|$)|2\.3(\D|$)(?!.*-tf)", version))


def trains_in_session(version: str) -> bool:
    """Return whether a version surely trains in sessions: TensorFlow 2.0 has 2.2.4-tf, too."""
    return may_train_in_session(version) and version != "2.2.4-tf"
