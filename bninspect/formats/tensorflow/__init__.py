"""Readers of TensorFlow files: V1, V2, object-based checkpoints, SavedModels, graphs."""

# The key of the object graph in a V2 checkpoint: OBJECT_GRAPH_PROTO_KEY of
# tensorflow/python/trackable/base.py.
OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
