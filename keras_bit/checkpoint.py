"""How a checkpoint names and lays out its tensors: one table per layout, from Keras' names to the file's.

Pure tables and functions: no files, no network, no framework.
"""

import dataclasses
import re

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """A naming table, and the axis order of what it names.

    Args:
        title: what messages call it.
        rules: pairs of a regular expression for a whole layer name and the tensor's name without its last part; every
            layer with weights matches exactly one. `{0}`, `{1}` ... are the expression's groups, with stages counted
            from 0 as checkpoints do.
        variables: Keras' variable name to the last part of the tensor's name.
        pytorch_axes: whether convolutions are (out, in, height, width) and linear layers (out, in).
    """

    title: str
    rules: tuple[tuple[str, str], ...]
    variables: tuple[tuple[str, str], ...]
    pytorch_axes: bool

    def tensor_name(self, layer_name: str, variable_name: str) -> str:
        for pattern, template in self.rules:
            match = re.fullmatch(pattern, layer_name)
            if match:
                groups = match.groupdict()
                if "stage" in groups:
                    groups["stage"] = str(int(groups["stage"]) - 1)
                return f"{template.format(**groups)}{dict(self.variables)[variable_name]}"
        raise KeyError(f"no rule of the {self.title} names the layer {layer_name!r}")

    def is_head(self, tensor_name: str) -> bool:
        return tensor_name in (self.tensor_name("predictions", "kernel"), self.tensor_name("predictions", "bias"))

    def file_shape(self, keras_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in the file of a variable of `keras_shape`."""
        if not self.pytorch_axes:
            return tuple(keras_shape)
        return tuple(keras_shape[axis] for axis in _TO_PYTORCH[len(keras_shape)])

    def to_keras(self, tensor: np.ndarray) -> np.ndarray:
        """A tensor of the file in Keras' axis order."""
        return tensor.transpose(_TO_KERAS[tensor.ndim]) if self.pytorch_axes else tensor


# By rank: vectors, linear layers (in, out), convolutions (height, width, in, out).
_TO_PYTORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_TO_KERAS = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}

TRANSFORMERS = Layout(
    title="transformers layout",
    rules=(
        (r"stem_conv", "bit.embedder.convolution."),
        (r"stem_norm", "bit.embedder.norm."),
        (
            r"stage(?P<stage>\d+)_block(?P<block>\d+)_(?P<part>(?:conv|norm)\d)",
            "bit.encoder.stages.{stage}.layers.{block}.{part}.",
        ),
        (
            r"stage(?P<stage>\d+)_block(?P<block>\d+)_shortcut_(?P<part>conv|norm)",
            "bit.encoder.stages.{stage}.layers.{block}.downsample.{part}.",
        ),
        (r"norm", "bit.norm."),
        (r"predictions", "classifier.1."),
    ),
    variables=(("kernel", "weight"), ("gamma", "weight"), ("beta", "bias"), ("bias", "bias")),
    pytorch_axes=True,
)

# `BitModel` saved by itself: the names start one level lower, and there is no head.
TRANSFORMERS_BASE = dataclasses.replace(
    TRANSFORMERS,
    title="transformers layout of a BitModel",
    rules=tuple((pattern, template.removeprefix("bit.")) for pattern, template in TRANSFORMERS.rules),
)

# A Keras model's own names: nothing to translate.
KERAS = Layout(
    title="Keras layout",
    rules=((r"(?P<layer>.+)", "{layer}/"),),
    variables=tuple((name, name) for name in ("kernel", "gamma", "beta", "bias")),
    pytorch_axes=False,
)
