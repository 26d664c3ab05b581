"""Stacks the processor's results into one batch of the chosen framework."""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_bit import packages

TENSOR_PACKAGES = {"tf": "tensorflow", "pt": "torch", "jax": "jax"}


@dataclasses.dataclass(frozen=True)
class Results:
    """The processor's results for some images.

    Args:
        images: the name of an image in errors, to float32 `(height, width, channels)`.
        orders: the data format of each result.
        return_tensors: the framework of the result; `None` for none.
    """

    images: Mapping[str, np.ndarray]
    orders: Sequence[str]
    return_tensors: str | None

    def listed(self) -> list[np.ndarray]:
        """Returns the images in the chosen order of axes."""
        return [_in_order(image, order) for image, order in zip(self.images.values(), self.orders, strict=True)]

    def stacked(self) -> np.ndarray:
        """Returns the images as one batch.

        Raises:
            ValueError: they differ in size or in order of axes.
        """
        first_name, first = next(iter(self.images.items()))
        for name, result in self.images.items():
            if result.shape != first.shape:
                raise ValueError(
                    f"The results must have the same shape (height, width, channels) to form a batch. {first_name} has "
                    f"{first.shape}, {name} has {result.shape}. Turn on `do_center_crop`, or give `size` a height and "
                    "a width, or pass the images one at a time, or call `processor.preprocess(images)`, which returns "
                    "a list."
                )
        if len(set(self.orders)) > 1:
            raise ValueError(
                "`data_format=None` keeps the order of axes of each image, but `images` has some with channels first "
                "and some with channels last, which cannot form one batch. Pass 'channels_last' or 'channels_first'."
            )
        return _in_order(np.stack(list(self.images.values())), self.orders[0])


def _in_order(images: np.ndarray, order: str) -> np.ndarray:
    """Moves the channels of an image or a batch to the position that `order` names."""
    return np.ascontiguousarray(np.moveaxis(images, -1, -3)) if order == "channels_first" else images


def to_framework(batch: np.ndarray, return_tensors: str | None) -> Any:
    if return_tensors not in TENSOR_PACKAGES:
        return batch
    package = TENSOR_PACKAGES[return_tensors]
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is installed, but lacks another package
            raise
        purpose = f"`return_tensors={return_tensors!r}`"
        # keras_bit has no extra for it.
        raise packages.MissingPackageError(
            packages.not_installed(package, f"`pip install {package}`", purpose)
        ) from error
    if return_tensors == "tf":
        return module.convert_to_tensor(batch)
    if return_tensors == "pt":
        return module.from_numpy(batch)
    return module.numpy.asarray(batch)
