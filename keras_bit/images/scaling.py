"""`preprocess_input`, as in `keras.applications`: scales pixels to [-1, 1]."""

import sys
from typing import Any

import numpy as np

from keras_bit.images.inputs import DATA_FORMATS
from keras_bit.images.options import check_choice


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Scales pixels from `[0, 255]` to `[-1, 1]`: `x / 127.5 - 1`.

    Args:
        x: A numpy array or a tensor of any framework (`tf.data` yields TensorFlow's under every backend), of any shape,
            with values in `[0, 255]`. It is not modified.
        data_format: `"channels_last"`, `"channels_first"` or `None`, as in `keras.applications`; it has no effect.

    Returns:
        The same kind of array: float32 for integers, else of the type of `x`.

    Raises:
        ValueError: `data_format` is something else.
        TypeError: `x` is neither array nor tensor.

    Source: Keras 3.15, `applications/imagenet_utils.py`, mode "tf", which writes its result into a numpy argument.
    """
    check_choice("data_format", data_format, (None, *DATA_FORMATS))
    if not hasattr(x, "dtype"):
        raise TypeError(f"`x` must be a numpy array or a tensor, got {type(x).__name__}. Pass `numpy.asarray(x)`.")
    return _as_float(x) / 127.5 - 1.0


def _as_float(x: Any) -> Any:
    """Returns `x` itself if it holds floats, else as float32.

    Each tensor is converted by its own library, because `tf.data` yields TensorFlow's tensors under every backend.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and tensorflow.is_tensor(x):
        return x if x.dtype.is_floating else tensorflow.cast(x, tensorflow.float32)
    if hasattr(x, "astype"):  # of numpy or JAX
        return x.astype(np.float32) if x.dtype.kind in "biu" else x
    if hasattr(x, "is_floating_point"):  # of PyTorch
        return x if x.is_floating_point() else x.float()
    import keras

    return x if keras.backend.is_float_dtype(x.dtype) else keras.ops.cast(x, "float32")
