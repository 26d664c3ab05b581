"""From an open checkpoint to a model: the channels of its images, its head, its stages."""

import dataclasses
import warnings
from collections.abc import Sequence

from keras_bit.checkpoints import loading
from keras_bit.checkpoints.loading import Checkpoint
from keras_bit.counts import check_whole
from keras_bit.network import model as network
from keras_bit.network import transforms
from keras_bit.network.config import BitConfig
from keras_bit.network.model import BiTModel, Ends
from keras_bit.network.weights import weights_of


class NewHead(UserWarning):
    """The model that was asked for has another number of classes than the checkpoint: its head is of zeros."""


def build_model(checkpoint: Checkpoint, ends: Ends, *, classes: int | None = None, fused: bool = False) -> BiTModel:
    """The model that a checkpoint holds; the other arguments are those of `keras_bit.from_pretrained`.

    Args:
        checkpoint: opened, by `loading.find(source, options).open()`.
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
    return network.build(config, ends, values, fused)


def build_backbone(checkpoint: Checkpoint, config: BitConfig, ends: Ends) -> BiTModel:
    """The stages of a checkpoint that `config`, which `with_outputs` gave, names in its `out_features`."""
    config, checkpoint = _fit_channels(config, checkpoint, ends)
    out_features = config.out_features or ()
    last = config.stage_names.index(out_features[-1])
    loading.refuse_larger(_first_stages(config, last), checkpoint)
    built = config.stage_names[: last + 1]
    weights = {weight: transforms.stage_of(weight.layer) in built for weight in weights_of(config)}
    # The rest of the network may be there; what it does not have is refused.
    values = loading.read(
        checkpoint, [one for one in weights if weights[one]], ignored=[one for one in weights if not weights[one]]
    )
    return network.build_backbone(config, out_features, ends, values)


def with_outputs(config: BitConfig, out_features: Sequence[str] | None, out_indices: Sequence[int] | None) -> BitConfig:
    """`config` with the stages that are asked for, else its own, else the last, as names and as indices."""
    if out_features is None and out_indices is None:
        out_features, out_indices = config.out_features, config.out_indices
    names = config.stage_names
    try:
        # Lists, too, are checked and made tuples by the configuration.
        asked = dataclasses.replace(config, out_features=out_features, out_indices=out_indices)  # type: ignore[arg-type]
        if () in (asked.out_features, asked.out_indices):
            empty = "out_features" if asked.out_features == () else "out_indices"
            raise ValueError(f"`{empty}` must name at least one stage, got none.")
    except ValueError as error:
        numbered = ", ".join(f"{index} {name!r}" for index, name in enumerate(names))
        raise ValueError(f"{error} The stages of this network are {numbered}.") from error
    if asked.out_features is not None:
        chosen = tuple(names.index(feature) for feature in asked.out_features)
    else:
        chosen = tuple(index % len(names) for index in asked.out_indices or (-1,))
    return dataclasses.replace(config, out_features=tuple(names[index] for index in chosen), out_indices=chosen)


def channels_asked(config: BitConfig, ends: Ends) -> int | None:
    """The channels of the caller's images, if they differ from the configuration's and can be had."""
    shape = ends.input_shape or tuple(getattr(ends.input_tensor, "shape", ()))[1:]
    channels = shape[-1] if isinstance(shape, Sequence) and len(shape) == 3 else None
    if type(channels) is not int or channels < 1 or config.num_channels in (channels, shape[0]):
        return None  # they are the same, or impossible, or stand first, which `build` refuses
    too_small = any(type(size) is int and size < network.MIN_SIZE for size in shape[:2])
    return None if too_small else channels


def checked_classes(classes: int) -> int:
    check_whole("classes", classes)
    return int(classes)


def _fit_channels(config: BitConfig, checkpoint: Checkpoint, ends: Ends) -> tuple[BitConfig, Checkpoint]:
    """Configuration and checkpoint for the caller's images, which may have other channels."""
    channels = channels_asked(config, ends)
    if channels is None:
        return config, checkpoint
    warnings.warn(
        f"The checkpoint {checkpoint.source!r} is for images of {config.num_channels} channels; its first kernel was "
        f"adapted to {channels}, which should be trained.",
        stacklevel=5,  # the caller of BiT50, from_pretrained ...
    )
    config = dataclasses.replace(config, num_channels=channels)
    return config, loading.with_input_channels(checkpoint, channels)


def _fit_head(config: BitConfig, checkpoint: Checkpoint, classes: int | None) -> tuple[BitConfig, bool]:
    """The configuration with the right number of classes, and whether the head is a new one."""
    in_file = checkpoint.head_classes
    if classes is not None and checked_classes(classes) != in_file:
        held = "no head" if in_file is None else f"a head of {in_file} classes"
        warnings.warn(
            f"The checkpoint {checkpoint.source!r} has {held}; `classes={classes}` gives the model a new head of "
            "zeros, which has to be trained.",
            NewHead,
            stacklevel=5,
        )
        return config.with_num_labels(checked_classes(classes)), True
    if in_file is not None and in_file != config.num_labels:
        if config.has_named_labels:
            raise ValueError(
                f"The checkpoint {checkpoint.source!r} contradicts itself: its head has {in_file} classes and its "
                f"`id2label` names {config.num_labels}. Mend its config.json, pass `config`, or take a new head by "
                "`classes=`."
            )
        return config.with_num_labels(in_file), False
    return config, False


def _first_stages(config: BitConfig, last: int) -> BitConfig:
    """`config` without the stages after number `last`; there is none without any stage."""
    stages = max(1, last)
    depths, sizes = config.depths[:stages], config.hidden_sizes[:stages]
    return dataclasses.replace(config, depths=depths, hidden_sizes=sizes, out_features=None, out_indices=None)
