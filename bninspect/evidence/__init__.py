"""Evidence of training: steps, slots, changes, the stored Keras configuration and graph."""
