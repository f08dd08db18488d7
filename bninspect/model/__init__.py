"""Immutable data types of checkpoints, layers, graphs, rules and reports. No I/O."""
