"""From paths to checkpoints: which files belong together, in which order, which are new."""
