"""Readers: one module per container, from bytes to a `Checkpoint`."""
