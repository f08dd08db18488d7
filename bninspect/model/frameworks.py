"""The frameworks of layers, as pages and findings name them."""

from __future__ import annotations

# The frameworks that a page can be asked for, and what they are called in a sentence.
FRAMEWORKS = {
    "tf1-layers": "tf.layers in TensorFlow 1",
    "slim": "slim",
    "tf1-hand-written": "averages written by hand in TensorFlow 1",
    "tf1-keras": "Keras in a session of TensorFlow 1",
    "keras-1": "Keras 1",
    "keras-2": "Keras 2",
    "keras-3": "Keras 3",
    "jax": "Keras 3 on JAX",
    "pytorch": "PyTorch",
    "flax": "Flax",
}
