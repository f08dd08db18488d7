"""The callback that watches the BN layers of a Keras model in training."""
