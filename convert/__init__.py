"""A tool of the repository, which is not installed: converts a PyTorch checkpoint to Keras and checks the numbers."""
