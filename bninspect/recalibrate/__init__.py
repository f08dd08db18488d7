"""Re-estimating BN statistics from samples, and writing them to a copy of the model."""
