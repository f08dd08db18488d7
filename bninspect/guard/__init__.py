"""Guards that watch the BN layers of a model in training: Keras, TF1, JAX."""
