"""The names and axes of tensors in checkpoints: one table per layout, from Keras' names to the file's.

This module needs no files, no network and no framework.
"""

import dataclasses
import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """A table of names, and the axis order of the tensors.

    Args:
        title: its name in messages.
        marker: the beginning of at least one tensor's name in this layout, and of no tensor's name in another layout.
        rules: pairs of a regular expression for a whole layer name and the tensor's name without its last part. Every
            layer with weights matches exactly one expression. The tensor's name may contain the expression's groups.
            `{stage}` and `{block}` count from 0, although Keras' stages count from 1. `{group}` and `{unit}` are
            Google's words for stage and block, and count from 1. `{letter}` is Google's form of `index`, which counts
            from 1. Other groups are inserted unchanged.
        variables: Keras' variable name to the last part of the tensor's name.
        pytorch_axes: whether convolutions are (out, in, height, width) and linear layers (out, in).
        convolutional_head: whether the head is a 1x1 convolution in the file.
        spread_norms: whether the vectors of norms are (1, 1, 1, channels) in the file.
        prefix: the beginning of all names; other names belong to a network around this one.
        preferred: the prefixes of parameters, if a file has several; the others belong to an optimizer's state.
    """

    title: str
    marker: str
    rules: tuple[tuple[str, str], ...]
    variables: tuple[tuple[str, str], ...]
    pytorch_axes: bool
    convolutional_head: bool = False
    spread_norms: bool = False
    prefix: str = ""
    preferred: tuple[str, ...] = ()

    def under(self, prefix: str) -> "Layout":
        """Returns the same layout for a network inside another, whose names all begin with `prefix`."""
        if not prefix:
            return self
        return dataclasses.replace(self, prefix=prefix, title=f"{self.title} under {prefix!r}")

    def tensor_name(self, layer_name: str, variable_name: str) -> str:
        for pattern, template in self.rules:
            match = re.fullmatch(pattern, layer_name)
            if match:
                name = template.format(**_counted(match.groupdict()))
                return f"{self.prefix}{name}{dict(self.variables)[variable_name]}"
        raise KeyError(f"no rule of {self.title} names the layer {layer_name!r}")

    def is_head(self, tensor_name: str) -> bool:
        return tensor_name in (self.tensor_name("predictions", "kernel"), self.tensor_name("predictions", "bias"))

    def file_shape(self, tensor_name: str, keras_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape that a variable of `keras_shape` has in the file."""
        shape = tuple(keras_shape)
        if len(shape) == 2 and self.convolutional_head and self.is_head(tensor_name):
            shape = (1, 1, *shape)
        if len(shape) == 1 and self._is_spread(tensor_name):
            shape = (1, 1, 1, *shape)
        return tuple(shape[axis] for axis in _TO_PYTORCH[len(shape)]) if self.pytorch_axes else shape

    def to_keras(self, tensor_name: str, tensor: Any, transpose: Callable[..., Any] = np.transpose) -> Any:
        """Converts a tensor of the file to Keras' axis order and rank; `transpose` is the tensor's own library's."""
        if self.pytorch_axes:
            tensor = transpose(tensor, _TO_KERAS[tensor.ndim])
        if tensor.ndim == 4 and self._is_spread(tensor_name):
            return tensor[0, 0, 0]
        return tensor[0, 0] if tensor.ndim == 4 and self.is_head(tensor_name) else tensor

    def to_file(self, tensor_name: str, array: np.ndarray) -> np.ndarray:
        """Converts a variable's values to the file's axis order and rank: the exact inverse of `to_keras`."""
        if array.ndim == 2 and self.convolutional_head and self.is_head(tensor_name):
            array = array[np.newaxis, np.newaxis]
        if array.ndim == 1 and self._is_spread(tensor_name):
            array = array[np.newaxis, np.newaxis, np.newaxis]
        return array.transpose(_TO_PYTORCH[array.ndim]) if self.pytorch_axes else array

    def _is_spread(self, tensor_name: str) -> bool:
        names = dict(self.variables)
        is_norms = tensor_name.rpartition("/")[2] in (names["gamma"], names["beta"])
        return self.spread_norms and is_norms and not self.is_head(tensor_name)


def _counted(groups: dict[str, str]) -> dict[str, str]:
    """Returns the groups of a layer's name, with the counts of every layout."""
    counted = dict(groups)
    if "stage" in groups:
        counted |= {"stage": str(int(groups["stage"]) - 1), "group": groups["stage"]}
        counted["unit"] = f"{int(groups['block']) + 1:02d}"
    if "index" in groups:
        counted["letter"] = "abc"[int(groups["index"]) - 1]
    return counted


def adapt_channels(kernel: np.ndarray, channels: int, axis: int) -> np.ndarray:
    """Adapts a first kernel to images with `channels` channels, along `axis`.

    One channel gets the sum of all, so that a gray image gives the same result as in RGB. Several channels repeat the
    old ones, scaled by `channels before / channels`, so that their sum keeps its size. Checked against timm 1.0.31
    `adapt_input_conv`.
    """
    values = kernel.astype(np.promote_types(kernel.dtype, np.float32), copy=False)
    before = kernel.shape[axis]
    if channels == 1:
        adapted = values.sum(axis=axis, keepdims=True)
    else:
        adapted = values.take(np.arange(channels) % before, axis=axis) * np.float32(before / channels)
    return adapted.astype(kernel.dtype)


# PyTorch's order of Keras' axes by rank: vectors, linear layers (in, out), convolutions (height, width, in, out).
_TO_PYTORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_TO_KERAS = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}

_BLOCK = r"stage(?P<stage>\d+)_block(?P<block>\d+)"
_PYTORCH_VARIABLES = (("kernel", "weight"), ("gamma", "weight"), ("beta", "bias"), ("bias", "bias"))
_KERAS_VARIABLES = tuple((name, name) for name in ("kernel", "gamma", "beta", "bias"))

TRANSFORMERS = Layout(
    title="transformers layout",
    marker="bit.",
    rules=(
        (r"stem_conv", "bit.embedder.convolution."),
        (r"stem_norm", "bit.embedder.norm."),
        (_BLOCK + r"_(?P<part>(?:conv|norm)\d)", "bit.encoder.stages.{stage}.layers.{block}.{part}."),
        (_BLOCK + r"_shortcut_(?P<part>conv|norm)", "bit.encoder.stages.{stage}.layers.{block}.downsample.{part}."),
        (r"norm", "bit.norm."),
        (r"predictions", "classifier.1."),
    ),
    variables=_PYTORCH_VARIABLES,
    pytorch_axes=True,
)

# The layout of a `BitModel` that was saved by itself: its names lack the first part, and it has no head.
TRANSFORMERS_BASE = dataclasses.replace(
    TRANSFORMERS,
    title="transformers layout of a BitModel",
    marker="encoder.",
    rules=tuple((pattern, template.removeprefix("bit.")) for pattern, template in TRANSFORMERS.rules),
)

TIMM = Layout(
    title="timm layout",
    marker="stages.",
    rules=(
        (r"stem_(?P<part>conv|norm)", "stem.{part}."),
        (_BLOCK + r"_(?P<part>(?:conv|norm)\d)", "stages.{stage}.blocks.{block}.{part}."),
        (_BLOCK + r"_shortcut_(?P<part>conv|norm)", "stages.{stage}.blocks.{block}.downsample.{part}."),
        (r"norm", "norm."),
        (r"predictions", "head.fc."),
    ),
    variables=_PYTORCH_VARIABLES,
    pytorch_axes=True,
    convolutional_head=True,
)

# The layout of Google's .npz files, for pre-activation networks: pre-trained ones, those fine-tuned on ImageNet and on
# the 19 tasks of VTAB-1k, and distilled ones. The readers remove what TensorFlow added to some of the names.
GOOGLE = Layout(
    title="Google's .npz layout",
    marker="resnet/",
    rules=(
        (r"stem_conv", "resnet/root_block/standardized_conv2d/"),
        (_BLOCK + r"_conv(?P<index>\d)", "resnet/block{group}/unit{unit}/{letter}/standardized_conv2d/"),
        (_BLOCK + r"_norm(?P<index>\d)", "resnet/block{group}/unit{unit}/{letter}/group_norm/"),
        (_BLOCK + r"_shortcut_conv", "resnet/block{group}/unit{unit}/a/proj/standardized_conv2d/"),
        (r"norm", "resnet/group_norm/"),
        (r"predictions", "resnet/head/conv2d/"),
    ),
    variables=_KERAS_VARIABLES,
    pytorch_axes=False,
    convolutional_head=True,
)

# The layout of Google's TensorFlow 2 classes, which have the same names except for the head, which is linear.
GOOGLE_TENSORFLOW_2 = dataclasses.replace(
    GOOGLE,
    title="Google's TensorFlow 2 layout",
    marker="resnet/head/dense/",
    rules=(*GOOGLE.rules[:-1], (r"predictions", "resnet/head/dense/")),
    convolutional_head=False,
)

# The layout of Google's later code in JAX, whose `models/bit_paper.py` reads the .npz files above too. A file of a
# training run also holds the optimizer's state, under other names that contain those of the network.
BIG_VISION = Layout(
    title="big_vision's .npz layout",
    marker="norm-pre-head/",
    rules=(
        (r"stem_conv", "root_block/conv_root/"),
        (_BLOCK + r"_conv(?P<index>\d)", "block{group}/unit{unit}/conv{index}/"),
        (_BLOCK + r"_norm(?P<index>\d)", "block{group}/unit{unit}/gn{index}/"),
        (_BLOCK + r"_shortcut_conv", "block{group}/unit{unit}/conv_proj/"),
        (r"norm", "norm-pre-head/"),
        (r"predictions", "head/"),
    ),
    variables=(("kernel", "kernel"), ("gamma", "scale"), ("beta", "bias"), ("bias", "bias")),
    pytorch_axes=False,
    spread_norms=True,
    preferred=("params/", "opt/target/"),
)


def plain_google_name(tensor_name: str) -> str:
    """Removes what TensorFlow adds to a name of Google's layout: its scope, its operations' numbers and `:0`.

    `bit/resnet/root_block/standardized_conv2d_7/kernel:0` becomes `resnet/root_block/standardized_conv2d/kernel`. Some
    of Google's own files have numbers; files made from the variables of a TF Hub module have a scope and `:0`. Other
    names are returned unchanged. Checked against big_vision `models/bit_paper.py`, which undoes the numbers of
    convolutions.
    """
    _, scope, rest = f"/{tensor_name}".rpartition("/resnet/")
    if not scope:
        return tensor_name
    return re.sub(r"(standardized_conv2d|group_norm|conv2d)_\d+(?=/)", r"\1", f"resnet/{rest.removesuffix(':0')}")


# The names in a file tell its layout. If several layouts fit, the first one counts.
FILE_LAYOUTS = (TRANSFORMERS, TRANSFORMERS_BASE, TIMM, GOOGLE_TENSORFLOW_2, GOOGLE, BIG_VISION)


def recognized(names: Collection[str]) -> list[Layout]:
    """Returns the layouts that these tensors' names fit: several if they hold several networks, none if none fits.

    A network inside another is found by the name of its first kernel. Its names share a prefix, such as transformers'
    `timm_model.` or `vit.embeddings.patch_embeddings.backbone.`, or `module.` of PyTorch's wrappers.
    """
    for layout in FILE_LAYOUTS:
        stem = layout.tensor_name("stem_conv", "kernel")
        prefixes = [name.removesuffix(stem) for name in names if name.endswith(stem)]
        prefixes = [
            prefix
            for prefix in prefixes
            if prefix[-1:] in ("", ".", "/") and any(name.startswith(prefix + layout.marker) for name in names)
        ]
        if alone := [prefix for prefix in ("", *layout.preferred) if prefix in prefixes]:
            prefixes = alone[:1]
        if prefixes:
            return [layout.under(prefix) for prefix in prefixes]
    # No first kernel was found, which reading will report. The markers show the layout.
    return [layout for layout in FILE_LAYOUTS if any(name.startswith(layout.marker) for name in names)][:1]


# The layout of Keras' own files, whose names need no translation.
KERAS = Layout(
    title="Keras layout",
    marker="",
    rules=((r"(?P<layer>.+)", "{layer}/"),),
    variables=_KERAS_VARIABLES,
    pytorch_axes=False,
)

# The classes of layers with weights as Keras' `.weights.h5` names them, and their variables in its order.
_SAVED_VARIABLES = {"std_conv2d": ("kernel",), "group_normalization": ("gamma", "beta"), "dense": ("kernel", "bias")}
_LAYER_NAME = r"checked_pixel_values|(?:stem|stage\d+_block\d+)_\w+|norm|avg_pool|max_pool|predictions"


def is_part_of_bit(layer_name: str, group: str) -> bool:
    """Returns whether a layer in a `.weights.h5` is BiT's own; `group`, such as `std_conv2d_7`, is its place there.

    The file lists every layer, even without weights. An input may have any name, because it may be the user's.
    """
    return re.fullmatch(r"input_layer(_\d+)?", group) is not None or re.fullmatch(_LAYER_NAME, layer_name) is not None


def saved_tensor_name(layer_name: str, group: str, index: str) -> str | None:
    """Returns Keras' name of the variable at `layers/{group}/vars/{index}` of a `.weights.h5`; `None` if BiT has none.

    A group is named by its layer's class and counted within it. The layer's name is stored there too, as an attribute.
    The class is compared as well, because a fused network has a `conv2d` under the same name as a `std_conv2d`. Checked
    against Keras 3.15 `saving_lib`.
    """
    variables = _SAVED_VARIABLES.get(re.sub(r"_\d+$", "", group))
    if variables is None or not is_part_of_bit(layer_name, group):
        return None
    # A layer's further variables keep their numbers as names. Reading refuses them with all other misfits.
    known = index.isdecimal() and int(index) < len(variables)
    return KERAS.tensor_name(layer_name, variables[int(index)]) if known else f"{layer_name}/{index}"
