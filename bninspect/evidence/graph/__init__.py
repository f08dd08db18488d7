"""Evidence in a stored graph: which updates a training step runs."""
