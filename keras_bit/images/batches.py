"""The processor's results as one batch, in the framework that is asked for."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_bit import packages

TENSOR_PACKAGES = {"tf": "tensorflow", "pt": "torch", "jax": "jax"}


def stack(results: Mapping[str, np.ndarray]) -> np.ndarray:
    first_name, first = next(iter(results.items()))
    for name, result in results.items():
        if result.shape != first.shape:
            raise ValueError(
                f"The results must have one shape (height, width, channels) to make a batch. {first_name} has "
                f"{first.shape}, {name} has {result.shape}. Turn on `do_center_crop`, or give `size` a height and a "
                "width, or pass the images one at a time."
            )
    return np.stack(list(results.values()))


def to_framework(batch: np.ndarray, return_tensors: str | None) -> Any:
    if return_tensors not in TENSOR_PACKAGES:
        return batch
    package = TENSOR_PACKAGES[return_tensors]
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is installed, and lacks another
            raise
        purpose = f"`return_tensors={return_tensors!r}`"
        # A framework, of which keras_bit has no extra.
        raise packages.MissingPackageError(
            packages.not_installed(package, f"`pip install {package}`", purpose)
        ) from error
    if return_tensors == "tf":
        return module.convert_to_tensor(batch)
    if return_tensors == "pt":
        return module.from_numpy(batch)
    return module.numpy.asarray(batch)
