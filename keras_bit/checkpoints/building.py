"""Builds a model from an open checkpoint: the channels of its images, its head, its stages."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

from keras_bit.checkpoints import loading
from keras_bit.checkpoints.layouts import adapt_channels
from keras_bit.checkpoints.lazy import LazyTensor
from keras_bit.checkpoints.loading import Checkpoint
from keras_bit.counts import check_whole
from keras_bit.network import model as network
from keras_bit.network import transforms
from keras_bit.network.config import BitConfig
from keras_bit.network.model import BiTModel, Ends
from keras_bit.network.weights import weights_of

# What to do about a head that contradicts its configuration, by the argument of the caller's function.
_OTHERWISE = {"config": "pass `config`", "classes": "pass `classes=` for a new head"}


class NewHead(UserWarning):
    """Issued if the model has another number of classes than the checkpoint, so that its head is new, with zeros."""


def build_model(checkpoint: Checkpoint, ends: Ends, *, classes: int | None = None, fused: bool = False) -> BiTModel:
    """Builds the model of a checkpoint.

    Args:
        checkpoint: an open checkpoint, from `loading.find(source, options).open()`.
        ends: the beginning and the end of the model.
        classes: the number of classes; another number than the checkpoint's gives a new head. `None` keeps its head.
        fused: whether the convolutions hold the standardized kernels, as after `fuse`.
    """
    config, checkpoint = _fit_channels(checkpoint.known_config(), checkpoint, ends)
    new_head = False
    if ends.include_top:
        config, new_head = _fit_head(config, checkpoint, classes)
    loading.refuse_larger(config, checkpoint)
    head = ends.include_top and not new_head
    if head and ends.classifier_activation == "auto":
        ends = dataclasses.replace(ends, classifier_activation=checkpoint.head_activation)
    values = loading.read(checkpoint, (one for one in weights_of(config) if head or one.layer != "predictions"))
    return _frozen(network.build(config, ends, values, fused), checkpoint, besides="predictions" if new_head else None)


def build_backbone(checkpoint: Checkpoint, config: BitConfig, ends: Ends) -> BiTModel:
    """Builds the stages of a checkpoint that `config` (from `with_outputs`) names in its `out_features`."""
    config, checkpoint = _fit_channels(config, checkpoint, ends)
    last = config.stage_names.index(config.out_features[-1])
    loading.refuse_larger(_first_stages(config, last), checkpoint)
    built = config.stage_names[: last + 1]
    weights = {weight: transforms.stage_of(weight.layer) in built for weight in weights_of(config)}
    # The checkpoint may hold the rest of the network; anything else is refused.
    values = loading.read(
        checkpoint, [one for one in weights if weights[one]], ignored=[one for one in weights if not weights[one]]
    )
    return _frozen(network.build_backbone(config, config.out_features, ends, values), checkpoint)


def _frozen(model: BiTModel, checkpoint: Checkpoint, besides: str | None = None) -> BiTModel:
    """Freezes the layers that are frozen in the checkpoint, except one of a given name."""
    for layer in model.layers:
        if layer.name in checkpoint.frozen and layer.name != besides:
            layer.trainable = False
    return model


def with_outputs(config: BitConfig, out_features: Sequence[str] | None, out_indices: Sequence[int] | None) -> BitConfig:
    """Returns `config` with the given stages (by default its own, or the last), as names and as indices."""
    names = config.stage_names
    try:
        if out_features is not None or out_indices is not None:
            # The configuration checks lists and converts them to tuples.
            given = {"out_features": out_features, "out_indices": out_indices}
            config = dataclasses.replace(config, **given)  # type: ignore[arg-type]
        if not config.out_indices:
            empty = "out_features" if out_indices is None else "out_indices"
            raise ValueError(f"`{empty}` must name at least one stage, got none.")
    except ValueError as error:
        numbered = ", ".join(f"{index} {name!r}" for index, name in enumerate(names))
        raise ValueError(f"{error} The stages of this network are {numbered}.") from error
    return dataclasses.replace(config, out_indices=tuple(index % len(names) for index in config.out_indices))


def channels_asked(config: BitConfig, ends: Ends) -> int | None:
    """Returns the channels of the caller's images, if they differ from the configuration's and are possible."""
    shape = ends.input_shape or tuple(getattr(ends.input_tensor, "shape", ()))[1:]
    channels = shape[-1] if isinstance(shape, Sequence) and len(shape) == 3 else None
    if type(channels) is not int or channels < 1 or config.num_channels in (channels, shape[0]):
        return None  # the channels are equal, or impossible, or the first axis; `build` refuses the last two
    too_small = any(type(size) is int and size < network.MIN_SIZE for size in shape[:2])
    return None if too_small else channels


def checked_classes(classes: int) -> int:
    check_whole("classes", classes)
    return int(classes)


def _fit_channels(config: BitConfig, checkpoint: Checkpoint, ends: Ends) -> tuple[BitConfig, Checkpoint]:
    """Adapts configuration and checkpoint to the channels of the caller's images."""
    channels = channels_asked(config, ends)
    if channels is None:
        return config, checkpoint
    warnings.warn(
        f"The checkpoint {checkpoint.source!r} is for images of {config.num_channels} channels; its first kernel was "
        f"adapted to {channels}. Train the model before you use it.",
        stacklevel=5,  # points to the caller of BiT50, from_pretrained and the like
    )
    config = dataclasses.replace(config, num_channels=channels)
    return config, _with_input_channels(checkpoint, channels)


def _with_input_channels(checkpoint: Checkpoint, channels: int) -> Checkpoint:
    """Returns the same checkpoint with its first kernel adapted to images of `channels` channels."""
    name = checkpoint.layout.tensor_name("stem_conv", "kernel")
    stem = checkpoint.tensors.get(name)
    axis = 1 if checkpoint.layout.pytorch_axes else 2
    if stem is None or len(stem.shape) != 4:
        return checkpoint  # `read` will report what is wrong with the kernel
    adapted = LazyTensor(
        tuple(channels if dimension == axis else size for dimension, size in enumerate(stem.shape)),
        lambda: adapt_channels(stem.read(), channels, axis),
        path=stem.path,
    )
    return dataclasses.replace(checkpoint, tensors={**checkpoint.tensors, name: adapted})


def _fit_head(config: BitConfig, checkpoint: Checkpoint, classes: int | None) -> tuple[BitConfig, bool]:
    """Returns the configuration with the right number of classes, and whether the head is new."""
    in_file = checkpoint.head_classes
    if classes is not None and checked_classes(classes) != in_file:
        held = "no head" if in_file is None else f"a head of {in_file} classes"
        warnings.warn(
            f"The checkpoint {checkpoint.source!r} has {held}; `classes={classes}` gives the model a new head of "
            "zeros, which must be trained.",
            NewHead,
            stacklevel=5,
        )
        return config.with_num_labels(checked_classes(classes)), True
    if in_file is not None and in_file != config.num_labels:
        if config.has_named_labels:
            others = [text for name, text in _OTHERWISE.items() if name in checkpoint.arguments]
            raise ValueError(
                f"The checkpoint {checkpoint.source!r} contradicts itself: its head has {in_file} classes but its "
                f"configuration names {config.num_labels}. Correct its config.json{', '.join(['', *others[:-1]])}"
                f"{''.join(f', or {text}' for text in others[-1:])}."
            )
        return config.with_num_labels(in_file), False
    return config, False


def _first_stages(config: BitConfig, last: int) -> BitConfig:
    """Returns `config` without the stages after number `last`; at least one stage stays."""
    stages = max(1, last)
    depths, sizes = config.depths[:stages], config.hidden_sizes[:stages]
    last_stage: dict[str, Any] = {"out_features": None, "out_indices": None}
    return dataclasses.replace(config, depths=depths, hidden_sizes=sizes, **last_stage)
