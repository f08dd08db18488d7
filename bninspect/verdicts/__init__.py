"""Which findings count: comparison, own severities, suppressions, the baseline."""
