"""transformers' classes of BiT, called as there and answering as there, over the graph and the layers of `BiT`."""
