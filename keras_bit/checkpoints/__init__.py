"""From a checkpoint to a model and back: names and axes, files, all tensors or none."""
