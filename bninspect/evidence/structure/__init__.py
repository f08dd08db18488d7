"""BN layers by what a stored graph computes, whatever its variables are called."""
