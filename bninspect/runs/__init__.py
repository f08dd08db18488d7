"""Runs over checkpoints: one by one, in parallel, on a cluster, resumed, watched."""
