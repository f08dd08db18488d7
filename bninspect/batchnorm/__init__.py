"""BN layers: naming families, finding layers by name, measuring their values, inference."""
