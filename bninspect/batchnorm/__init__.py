"""What a BN layer is: naming families, finding layers, measuring them, their inference."""
