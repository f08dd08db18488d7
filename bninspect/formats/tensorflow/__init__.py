"""Readers of TensorFlow files: V1, V2, object-based checkpoints, SavedModels, graphs."""
