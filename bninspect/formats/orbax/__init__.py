"""Orbax checkpoints: arrays of Zarr, in directories or in OCDBT databases, and their tree."""
