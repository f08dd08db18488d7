"""Readers of file formats: one module per container, from bytes to a `Checkpoint`."""
