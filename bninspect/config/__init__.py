"""The configuration of a run: the configuration file and the options, merged once and frozen."""
