"""Safe access to HDF5 files: bounded reads of groups, attributes and datasets."""
