"""Models by name: `BiT50`, any `BitConfig`, any checkpoint."""

import dataclasses
import numbers
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_bit.checkpoints import loading as weight_files
from keras_bit.network import model as network
from keras_bit.network import transforms
from keras_bit.network.config import ARCHITECTURES, BitConfig, weights_of
from keras_bit.network.model import BiTModel

_SHARED_ARGUMENTS = """
        include_top: whether the model ends in the head `predictions`; otherwise in the feature map after the final
            norm and activation, `(batch, height / 32, width / 32, channels)`, or in what `pooling` makes of it.
        input_tensor: a Keras tensor to use as input.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: BiT pools globally, so any size from 32 px
            works, with the head as well. Other channels than the checkpoint's adapt its first kernel, with a warning.
        pooling: for `include_top=False`: `None`, `"avg"` or `"max"`, the last two giving `(batch, channels)`.
        classes: number of classes; `None` takes the checkpoint's, or `config.num_labels` without one. Another number
            than the checkpoint's gives a new head of zeros and a warning. Ignored for `include_top=False`.
        classifier_activation: `"auto"` is softmax, or sigmoid where `problem_type` is `multi_label_classification`, or
            nothing for a regression; `None` gives logits.
        name: the model's name.
        revision, cache_dir, token, local_files_only: of a Hub id, as in `huggingface_hub.hf_hub_download`.
        config: a `BitConfig` that replaces the checkpoint's own; also for weights that have none.

    Returns:
        A functional model with the attribute `config`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, as `BitImageProcessor` makes it: [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint does not fit, is damaged, or is no BiT; all
            tensors that do not fit are listed, and no model is returned.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitForImageClassification` with the same weights.
"""


def BiT(  # noqa: N802 - keras.applications' way
    config: BitConfig,
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Any = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "auto",
    name: str = "bit",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> BiTModel:
    if config is None:
        raise ValueError(
            "`config` must be a BitConfig, got None. A checkpoint's own architecture is read by "
            "`from_pretrained(source)`."
        )
    graph = _graph(input_tensor, input_shape, pooling, classifier_activation, name)
    if weights is not None:
        hub = _hub(revision, cache_dir, token, local_files_only)
        return _pretrained(weights, config, None, include_top=include_top, classes=classes, graph=graph, hub=hub)
    return _random(config, include_top=include_top, classes=classes, graph=graph)


BiT.__doc__ = f"""A BiT of any `BitConfig`, with random weights unless `weights` names some.

    Args:
        config: the architecture.
        weights: `None` (random), a Hub id, a local directory or a local file.{_SHARED_ARGUMENTS}"""


def from_pretrained(
    source: str | Path,
    include_top: bool = True,
    input_tensor: Any = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "auto",
    name: str = "bit",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    config: BitConfig | None = None,
    fused: bool = False,
) -> BiTModel:
    return _pretrained(
        source,
        config,
        None,
        fused=fused,
        include_top=include_top,
        classes=classes,
        graph=_graph(input_tensor, input_shape, pooling, classifier_activation, name),
        hub=_hub(revision, cache_dir, token, local_files_only),
    )


from_pretrained.__doc__ = f"""A model with the architecture and the weights of a checkpoint.

    Args:
        source: a Hub id (`"google/bit-50"`), a local directory, or a local file. Read are transformers' layout
            (`config.json` with `model.safetensors`, its sharded form, or `pytorch_model.bin` where torch is installed),
            timm's (`config.json` with `pretrained_cfg`), Google's `.npz`, and of a model of this package its `.keras`
            file and the `.weights.h5` that Keras' `save_weights` writes. A `config.json` beside a `.npz` or
            `.weights.h5` is read; the published architectures are also known by the shapes of their tensors.
        fused: whether the model is the one that `keras_bit.fuse` makes, for inference: no call of it, and no batch of
            `predict`, standardizes kernels again, and no second copy of the network is made on the way. It cannot be
            saved by `save_pretrained`.{_SHARED_ARGUMENTS}"""


def _application(title: str) -> Callable[..., BiTModel]:
    """One row of the published architectures as a function in keras.applications' manner."""
    row = next(architecture for architecture in ARCHITECTURES if architecture.title == title)
    architecture = row.config

    def application(
        include_top: bool = True,
        weights: str | Path | None = row.weights,
        input_tensor: Any = None,
        input_shape: tuple[int | None, ...] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: str | None = "auto",
        name: str = title.lower(),
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        config: BitConfig | None = None,
    ) -> BiTModel:
        graph = _graph(input_tensor, input_shape, pooling, classifier_activation, name)
        if weights is None:
            if config is None:  # as in keras.applications, images of any channels
                channels = _channels_asked(architecture, graph) or architecture.num_channels
                config = dataclasses.replace(architecture, num_channels=channels)
            return _random(config, include_top=include_top, classes=classes, graph=graph)
        hub = _hub(revision, cache_dir, token, local_files_only)
        named = (title, architecture)
        return _pretrained(weights, config, named, include_top=include_top, classes=classes, graph=graph, hub=hub)

    application.__name__ = application.__qualname__ = title
    application.__doc__ = f"""BiT-R{row.layers}: ResNet version 2 with group norm and weight standardization.

    {architecture.depths} blocks in its stages, {row.width_factor} times the width of a ResNet-50.

    Args:
        weights: `None` (random), a Hub id, a local directory or a local file.{_SHARED_ARGUMENTS}"""
    return application


BiT50 = _application("BiT50")
BiT50x3 = _application("BiT50x3")
BiT101 = _application("BiT101")
BiT101x3 = _application("BiT101x3")
BiT152x2 = _application("BiT152x2")
BiT152x4 = _application("BiT152x4")


def BiTBackbone(  # noqa: N802 - keras.applications' way
    weights: str | Path | None = "google/bit-50",
    *,
    config: BitConfig | None = None,
    out_features: Sequence[str] | None = None,
    out_indices: Sequence[int] | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    input_tensor: Any = None,
    name: str = "bit_backbone",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> BiTModel:
    """The feature maps of a BiT, stage by stage, for a network that needs more than one answer per image.

    `stem` is the map after the stem's max pool, `stage1` ... are the sums that leave a stage, before the final norm.
    Of the network only what these maps need is built, and only its tensors are read: a checkpoint may have or lack the
    stages after them, the final norm and the head. A tensor that is no part of the whole network is an error.

    Args:
        weights: `None` (random), a Hub id, a local directory or a local file, in every layout that `from_pretrained`
            reads. What transformers' `BitBackbone` and `BitModel` save is among them.
        config: a `BitConfig` that replaces the checkpoint's own; for `weights=None` it defaults to BiT-50's.
        out_features: names of the stages to return, each once and in the network's order, of `config.stage_names`:
            `"stem"`, `"stage1"` ... Without it and `out_indices` the configuration's own, or the last stage.
        out_indices: the same by number: 0 is the stem, 1 is `stage1`, -1 the last stage. Where both are given they
            must name the same stages.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: any size from 32 px. Other channels than
            the checkpoint's adapt its first kernel, with a warning.
        input_tensor: a Keras tensor to use as input.
        name: the model's name.
        revision, cache_dir, token, local_files_only: of a Hub id, as in `huggingface_hub.hf_hub_download`.

    Returns:
        A functional model whose output is a dict from stage name to map: `(batch, height / 4, width / 4, channels)`
        for `stem` and `stage1`, half of it for every further stage while `output_stride` allows, rounded up. It has the
        attribute `config`, whose `out_features` and `out_indices` are those of the model. Its input `pixel_values` is
        float32 `(batch, height, width, channels)`, [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint does not fit, is damaged, or is no BiT; all
            tensors that do not fit are listed, and no model is returned.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitBackbone` with the same weights.
    """
    _check_config(config)
    graph = {"input_tensor": input_tensor, "input_shape": input_shape, "name": name}
    asked = {"out_features": out_features, "out_indices": out_indices}
    if weights is None:
        return network.build_backbone(_with_outputs(config or BitConfig(), **asked), **graph)
    hub = {"revision": revision, "cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
    return _pretrained_backbone(weights, config, asked=asked, graph=graph, hub=hub)


def _random(config: BitConfig, *, include_top: bool, classes: int | None, graph: dict[str, Any]) -> BiTModel:
    _check_config(config)
    if include_top and classes is not None:
        config = config.with_num_labels(_checked_classes(classes))
    return network.build(config, include_top=include_top, **graph)


def _pretrained(
    source: str | Path,
    config: BitConfig | None,
    named: tuple[str, BitConfig] | None,
    *,
    fused: bool = False,
    include_top: bool,
    classes: int | None,
    graph: dict[str, Any],
    hub: dict[str, Any],
) -> BiTModel:
    _check_config(config)
    own = None
    if config is None:
        # Before the weights: those of another model are not worth downloading.
        own = weight_files.find_config(source, **hub)
        _refuse_other_architecture(source, own, named)
    checkpoint = weight_files.open_checkpoint(source, **hub)
    if config is None:
        _refuse_other_architecture(source, checkpoint.config, named)
        # Weights without a config.json are what the application's name says, or what their shapes tell.
        config = own or checkpoint.config or (named[1] if named else weight_files.infer_config(checkpoint))
        config = config or BitConfig.from_pretrained(source, **hub)  # says what is missing
    config, checkpoint = _fit_channels(config, checkpoint, graph)
    new_head = False
    if include_top:
        config, new_head = _fit_head(config, checkpoint, classes)
    weight_files.refuse_larger(config, checkpoint)
    head = include_top and not new_head
    values = weight_files.read(checkpoint, (one for one in weights_of(config) if head or one.layer != "predictions"))
    return network.build(config, include_top=include_top, values=values, fused=fused, **graph)


def _check_config(config: BitConfig | None) -> None:
    if config is not None and not isinstance(config, BitConfig):
        raise ValueError(f"`config` must be a BitConfig, got {type(config).__name__}: {config!r}.")


def _refuse_other_architecture(
    source: str | Path, config: BitConfig | None, named: tuple[str, BitConfig] | None
) -> None:
    if config is None or named is None:
        return
    title, architecture = named
    for field in ("depths", "hidden_sizes", "embedding_size", "width_factor", "layer_type"):
        expected, got = getattr(architecture, field), getattr(config, field)
        if got != expected:
            raise ValueError(
                f"`weights` {str(source)!r} is no {title}: its {field} is {got}, expected {expected}. Use "
                "`from_pretrained(source)`, which takes the architecture from the checkpoint."
            )


def _fit_channels(
    config: BitConfig, checkpoint: weight_files.Checkpoint, graph: dict[str, Any]
) -> tuple[BitConfig, weight_files.Checkpoint]:
    """Configuration and checkpoint for the images that the caller has, where those have other channels."""
    channels = _channels_asked(config, graph)
    if channels is None:
        return config, checkpoint
    warnings.warn(
        f"The checkpoint {checkpoint.source!r} is for images of {config.num_channels} channels; its first kernel was "
        f"adapted to {channels}, which should be trained.",
        stacklevel=4,
    )
    config = dataclasses.replace(config, num_channels=channels)
    return config, weight_files.with_input_channels(checkpoint, channels)


def _channels_asked(config: BitConfig, graph: dict[str, Any]) -> int | None:
    """The channels of the caller's images, where they differ from the configuration's and can be had."""
    shape = graph["input_shape"] or tuple(getattr(graph["input_tensor"], "shape", ()))[1:]
    channels = shape[-1] if isinstance(shape, Sequence) and len(shape) == 3 else None
    if type(channels) is not int or channels < 1 or config.num_channels in (channels, shape[0]):
        return None  # they are the same, or impossible, or stand first, which `build` refuses
    too_small = any(type(size) is int and size < network.MIN_SIZE for size in shape[:2])
    return None if too_small else channels


def _fit_head(config: BitConfig, checkpoint: weight_files.Checkpoint, classes: int | None) -> tuple[BitConfig, bool]:
    """The configuration with the right number of classes, and whether the head is a new one."""
    in_file = checkpoint.head_classes
    if classes is not None and _checked_classes(classes) != in_file:
        held = "no head" if in_file is None else f"a head of {in_file} classes"
        warnings.warn(
            f"The checkpoint {checkpoint.source!r} has {held}; `classes={classes}` gives the model a new head of "
            "zeros, which has to be trained.",
            stacklevel=4,
        )
        return config.with_num_labels(_checked_classes(classes)), True
    if in_file is not None and in_file != config.num_labels:
        if config.has_named_labels:
            raise ValueError(
                f"The checkpoint {checkpoint.source!r} contradicts itself: its head has {in_file} classes and its "
                f"`id2label` names {config.num_labels}. Mend its config.json, pass `config`, or take a new head by "
                "`classes=`."
            )
        return config.with_num_labels(in_file), False
    return config, False


def _checked_classes(classes: int) -> int:
    if isinstance(classes, bool) or not isinstance(classes, numbers.Integral) or classes < 1:
        raise ValueError(f"`classes` must be a positive whole number, got {classes!r}.")
    return int(classes)


def _graph(
    input_tensor: Any,
    input_shape: tuple[int | None, ...] | None,
    pooling: str | None,
    classifier_activation: str | None,
    name: str,
) -> dict[str, Any]:
    """The arguments that describe the graph, as `model.build` names them."""
    return {
        "input_tensor": input_tensor,
        "input_shape": input_shape,
        "pooling": pooling,
        "classifier_activation": classifier_activation,
        "name": name,
    }


def _hub(
    revision: str | None, cache_dir: str | Path | None, token: str | bool | None, local_files_only: bool
) -> dict[str, Any]:
    """The arguments that say how a Hub id is fetched, as `hub.find_file` names them."""
    return {"revision": revision, "cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}


def _pretrained_backbone(
    source: str | Path, config: BitConfig | None, *, asked: dict[str, Any], graph: dict[str, Any], hub: dict[str, Any]
) -> BiTModel:
    config = config or weight_files.find_config(source, **hub)
    if config is not None:
        # Before the weights: a misspelt stage is not worth a download.
        config = _with_outputs(config, **asked)
    checkpoint = weight_files.open_checkpoint(source, **hub)
    if config is None:
        config = checkpoint.config or weight_files.infer_config(checkpoint)
        config = config or BitConfig.from_pretrained(source, **hub)  # says what is missing
        config = _with_outputs(config, **asked)
    config, checkpoint = _fit_channels(config, checkpoint, graph)
    weight_files.refuse_larger(_as_built(config), checkpoint)
    built = config.stage_names[: config.stage_names.index(config.out_features[-1]) + 1]
    weights = {weight: transforms.stage_of(weight.layer) in built for weight in weights_of(config)}
    # The rest of the network may be there; what is no part of it is refused.
    values = weight_files.read(
        checkpoint, [one for one in weights if weights[one]], ignored=[one for one in weights if not weights[one]]
    )
    return network.build_backbone(config, values=values, **graph)


def _with_outputs(
    config: BitConfig, out_features: Sequence[str] | None, out_indices: Sequence[int] | None
) -> BitConfig:
    """`config` with the stages that are asked for, else its own, else the last, as names and as indices."""
    if out_features is None and out_indices is None:
        out_features, out_indices = config.out_features, config.out_indices
    names = config.stage_names
    try:
        asked = dataclasses.replace(config, out_features=out_features, out_indices=out_indices)
        if () in (asked.out_features, asked.out_indices):
            empty = "out_features" if asked.out_features == () else "out_indices"
            raise ValueError(f"`{empty}` must name at least one stage, got none.")
    except ValueError as error:
        numbered = ", ".join(f"{index} {name!r}" for index, name in enumerate(names))
        raise ValueError(f"{error} The stages of this network are {numbered}.") from error
    if asked.out_features is not None:
        chosen = [names.index(feature) for feature in asked.out_features]
    else:
        chosen = [index % len(names) for index in asked.out_indices or (-1,)]
    return dataclasses.replace(config, out_features=[names[index] for index in chosen], out_indices=chosen)


def _as_built(config: BitConfig) -> BitConfig:
    """`config` without the stages after the last of its `out_features`; there is none without any stage."""
    stages = max(1, config.stage_names.index(config.out_features[-1]))
    depths, sizes = config.depths[:stages], config.hidden_sizes[:stages]
    return dataclasses.replace(config, depths=depths, hidden_sizes=sizes, out_features=None, out_indices=None)
