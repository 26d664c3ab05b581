"""Examines a data set by a network's features, without training the network."""
