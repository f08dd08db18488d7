"""Readers of Keras files: .h5, .weights.h5, sharded weights, .keras."""
