"""What the files say about training: progress, and the stored Keras configuration."""
