"""Images that nobody preprocessed, noticed where a model is given them."""

import warnings
from typing import Any

import numpy as np

# Normalized values are below 3 for every mean and deviation in use, and a photograph has brighter pixels than this.
LARGEST_NORMALIZED = 10


class RawPixelsWarning(UserWarning):
    """A model that expects preprocessed images was given pixels in [0, 255]."""


def are_raw(images: Any) -> bool:
    """Whether a batch in numpy has pixels in [0, 255], by its first image; never for tensors or in a graph."""
    if not isinstance(images, np.ndarray) or images.ndim != 4 or not images.size or images.dtype.kind not in "iuf":
        return False
    first = images[0]
    return bool(first.min() >= 0 and first.max() > LARGEST_NORMALIZED)


def warn(images: np.ndarray, above: int = 0) -> None:
    """Says what the network expects; `stacklevel` is the line that calls a method of the model, or one `above` it."""
    warnings.warn(
        f"The first image has values up to {images[0].max():g}: these are pixels in [0, 255], and the model expects "
        "preprocessed images, [-1, 1] for BiT's published checkpoints. `keras_bit.preprocess_input(images)` scales "
        "them; the checkpoint's `BitImageProcessor` also resizes and crops; `keras_bit.BiTClassifier(model, "
        "processor)` does all of it by itself. This is said once for each model.",
        RawPixelsWarning,
        stacklevel=4 + above,
    )
