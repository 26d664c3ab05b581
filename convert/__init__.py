"""A tool of the repository, not installed: brings a PyTorch checkpoint over to Keras and proves it."""
