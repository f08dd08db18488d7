"""TensorFlow.js models: `model.json` and the shards of its weights."""
