"""Warns if a model gets images that were not preprocessed."""

import warnings
from typing import Any

import numpy as np

# Normalized values are below 3 for every mean and deviation in use; photographs have brighter pixels than this.
LARGEST_NORMALIZED = 10


class RawPixelsWarning(UserWarning):
    """Issued if a model that expects preprocessed images gets pixels in [0, 255]."""


def are_raw(images: Any) -> bool:
    """Returns whether a numpy batch has pixels in [0, 255], by its first image; `False` for tensors and in a graph."""
    if not isinstance(images, np.ndarray) or images.ndim != 4 or not images.size or images.dtype.kind not in "iuf":
        return False
    first = images[0]
    return bool(first.min() >= 0 and first.max() > LARGEST_NORMALIZED)


def warn(images: np.ndarray, above: int = 0) -> None:
    """Warns, and says what the network expects.

    The warning points to the line that called the model's method; `above` is the number of further calls in between.
    """
    warnings.warn(
        f"The first image has values up to {images[0].max():g}: these are pixels in [0, 255], and the model expects "
        "preprocessed images, [-1, 1] for BiT's published checkpoints. `keras_bit.preprocess_input(images)` scales "
        "them; the checkpoint's `BitImageProcessor` also resizes and crops; `keras_bit.BiTClassifier(model, "
        "processor)` does all of this. The warning is given once per model.",
        RawPixelsWarning,
        stacklevel=4 + above,
    )
