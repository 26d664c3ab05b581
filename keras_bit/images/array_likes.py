"""Other libraries' tensors as numpy arrays, and their columns as sequences; none of them is imported."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Floats that numpy knows only through ml_dtypes: JAX' and TensorFlow's tensors give them.
SHORT_FLOATS = ("bfloat16", "float8_", "float6_", "float4_")


def as_array(name: str, tensor: Any) -> np.ndarray:
    """The numbers of an array or of a tensor of any framework.

    Floats that numpy lacks, as bfloat16, become float32, which holds each of them exactly. Of a tensor that requires a
    gradient or is on a device only the numbers are taken.

    Raises:
        TypeError: it holds no numbers, or cannot be made an array; the message names it.
    """
    if hasattr(tensor, "detach") and hasattr(tensor, "is_floating_point"):  # of PyTorch
        tensor = tensor.detach().cpu()
        if any(short in str(tensor.dtype) for short in SHORT_FLOATS):
            tensor = tensor.float()
    try:
        array = np.asarray(tensor)
    except MemoryError:
        raise
    except Exception as error:  # a framework may raise anything
        why = str(error) or type(error).__name__
        raise TypeError(f"{name} cannot be made a numpy array, {type(tensor).__name__} says: {why}") from error
    if array.dtype.name.startswith(SHORT_FLOATS):
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of numbers. Received: dtype {array.dtype}")
    return array


def sequence_of(values: Any) -> Sequence[Any] | None:
    """The elements of a list, or of what other libraries have for one; `None` if `values` is one thing.

    That is any sequence, as the `Column` of a Hugging Face data set; and an array in one dimension of strings or other
    objects, of numpy or, as the `Series` of pandas, of what numpy makes one of. Bytes, strings and arrays of numbers
    are one thing.
    """
    if isinstance(values, list | tuple):
        return values
    if isinstance(values, str | bytes | bytearray | memoryview):
        return None
    if hasattr(values, "__array__"):
        if getattr(values, "ndim", 1) != 1 or hasattr(values, "detach"):  # PyTorch has numbers alone
            return None
        try:
            array = np.asarray(values)
        except Exception:  # whoever reads it says what is wrong
            return None
        return list(array) if array.ndim == 1 and array.dtype.kind in "OUT" else None
    return values if isinstance(values, Sequence) else None
