"""transformers' BiT classes, with its arguments and outputs, over the graph and the layers of `BiT`."""
