"""Other libraries' tensors as numpy arrays, and their columns as sequences; none of them is imported."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Floats that numpy knows only through ml_dtypes; tensors of JAX and TensorFlow may have them.
SHORT_FLOATS = ("bfloat16", "float8_", "float6_", "float4_")


def as_array(name: str, tensor: Any) -> np.ndarray:
    """Returns the numbers of an array or of any framework's tensor.

    Floats that numpy lacks, such as bfloat16, become float32, which holds them exactly. Tensors that require a gradient
    or are on a device are copied to plain numbers.

    Raises:
        TypeError: it holds no numbers, or cannot be converted to an array.
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
        why = str(error).rstrip(".") or type(error).__name__
        raise TypeError(
            f"{name} cannot be converted to a numpy array. {type(tensor).__name__} says: {why}. Pass an array of "
            "numbers."
        ) from error
    if array.dtype.name.startswith(SHORT_FLOATS):
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of numbers, got the dtype {array.dtype}. Convert its values.")
    return array


def sequence_of(values: Any) -> Sequence[Any] | None:
    """Returns the elements of a list or of another library's sequence; `None` if `values` is a single value.

    Sequences are, for example, a list, a Hugging Face `Column`, a pandas `Series`, and a one-dimensional numpy array of
    strings or other objects. Bytes, strings and arrays of numbers are single values.
    """
    if isinstance(values, list | tuple):
        return values
    if isinstance(values, str | bytes | bytearray | memoryview):
        return None
    if hasattr(values, "__array__"):
        if getattr(values, "ndim", 1) != 1 or hasattr(values, "detach"):  # PyTorch tensors hold numbers only
            return None
        try:
            array = np.asarray(values)
        except Exception:  # the caller reports what is wrong
            return None
        return list(array) if array.ndim == 1 and array.dtype.kind in "OUT" else None
    return values if isinstance(values, Sequence) else None
