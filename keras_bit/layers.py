"""The layers that BiT needs and Keras lacks."""

from keras_bit.network.layers import Conv2D, GroupNormalization, StdConv2D

__all__ = ["Conv2D", "GroupNormalization", "StdConv2D"]
