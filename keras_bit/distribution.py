"""Training on several devices or machines."""

from keras_bit.training.distribution import Workers, start

__all__ = ["Workers", "start"]
