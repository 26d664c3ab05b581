"""Converts a PyTorch checkpoint to Keras and checks the numbers. A tool of the repository, which is not installed."""
