"""Finds out whether a user or Keras calls a model."""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import keras


def is_by_keras() -> bool:
    """Returns whether Keras or keras_bit calls the model for its tensors, not a user for transformers' output.

    Keras calls a model in its steps, in exports, and as a layer of another model. The call itself does not show this,
    so the module of the calling function decides. (`collections.namedtuple` finds its caller in the same way.)
    TensorFlow's code in between is skipped, because it traces graphs.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_in_between(frame.f_globals.get("__name__") or ""):
        frame = frame.f_back
    return frame is not None and (frame.f_globals.get("__name__") or "").split(".")[0] in ("keras", "keras_bit")


def _is_in_between(module: str) -> bool:
    return module.split(".")[0] == "tensorflow" or module.startswith("keras_bit.transformers_shape.")


def is_symbolic(pixel_values: Any) -> bool:
    """Returns whether a layer is being connected to others, not computed."""
    return isinstance(pixel_values, keras.KerasTensor) or (
        isinstance(pixel_values, list | tuple | Mapping)
        and any(isinstance(value, keras.KerasTensor) for value in _values(pixel_values))
    )


def _values(structure: Any) -> Any:
    return structure.values() if isinstance(structure, Mapping) else structure
