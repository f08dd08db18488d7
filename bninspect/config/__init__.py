"""What a run is told to do: the configuration file and the options, merged once and frozen."""
