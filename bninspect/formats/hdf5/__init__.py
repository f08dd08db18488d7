"""Safe access to HDF5 files, whatever they hold."""
