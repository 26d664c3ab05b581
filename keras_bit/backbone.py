"""The network without its end: feature maps for detection and segmentation, and which part of a model is trained."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_bit.applications import check_config, fit_channels
from keras_bit.checkpoints import loading as weight_files
from keras_bit.network import model as network
from keras_bit.network.config import BitConfig, weights_of
from keras_bit.network.model import BiTModel, PixelValues

EVERYTHING = "all"  # of `freeze`: all but the head


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
    """The feature maps of a BiT, stage by stage, for a network that needs more than one answer per picture.

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
    check_config(config)
    graph = {"input_tensor": input_tensor, "input_shape": input_shape, "name": name}
    asked = {"out_features": out_features, "out_indices": out_indices}
    if weights is None:
        return network.build_backbone(_with_outputs(config or BitConfig(), **asked), **graph)
    hub = {"revision": revision, "cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
    return _pretrained(weights, config, asked=asked, graph=graph, hub=hub)


def freeze(model: BiTModel, up_to: str | None = None) -> tuple[str, ...]:
    """Keeps the beginning of a network as it is in training, and lets the rest of it learn.

    The last call counts: what follows `up_to` becomes trainable, whatever it was before. Layers of your own in front of
    the network (`input_tensor`) are left alone. Compile the model afterwards. There are no statistics to keep still,
    for a group norm has none.

    Args:
        model: a model that keras_bit built.
        up_to: the last stage that is frozen: `"stem"`, `"stage1"` ... as far as the model has them; `"all"`, as
            `None`, is everything but the head `predictions`. The final norm is frozen by `"all"` only.

    Returns:
        The names of the frozen layers that have weights, in the network's order.

    Raises:
        ValueError: `up_to` is no stage of the model, or the model is none of keras_bit's.

    Checked against Keras 3.15 `Layer.trainable`.
    """
    if not isinstance(model, BiTModel):
        raise ValueError(
            f"`model` must be one that keras_bit built, got {type(model).__name__}. Where it is a part of yours, "
            "freeze that part."
        )
    stage_of = {layer: _stage_of(layer.name) for layer in _network_layers(model)}
    present = [stage for stage in model.config.stage_names if stage in stage_of.values()]
    if up_to not in (None, EVERYTHING, *present):
        allowed = ", ".join(map(repr, (*present, EVERYTHING)))
        raise ValueError(f"`up_to` must be None or one of {allowed} for this model, got {up_to!r}.")
    if not model.trainable:
        # Else no layer of it is trained, whatever the layer says. It sets every layer, the caller's own ones too, whose
        # own state before that is not known any more: they stay as they are.
        in_front = {layer: layer.trainable for layer in model.layers if layer not in stage_of}
        model.trainable = True
        for layer, trainable in in_front.items():
            layer.trainable = trainable
    everything = up_to in (None, EVERYTHING)
    frozen = () if everything else present[: present.index(up_to) + 1]
    for layer, stage in stage_of.items():
        layer.trainable = layer.name == "predictions" if everything else stage not in frozen
    return tuple(layer.name for layer in stage_of if layer.weights and not layer.trainable)


def _pretrained(
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
    config, checkpoint = fit_channels(config, checkpoint, graph)
    weight_files.refuse_larger(_as_built(config), checkpoint)
    built = config.stage_names[: config.stage_names.index(config.out_features[-1]) + 1]
    weights = {weight: _stage_of(weight.layer) in built for weight in weights_of(config)}
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


def _network_layers(model: BiTModel) -> Iterator[Any]:
    """The layers of BiT itself, without those that an `input_tensor` brought."""
    return itertools.dropwhile(lambda layer: not isinstance(layer, PixelValues), model.layers)


def _stage_of(layer_name: str) -> str | None:
    """The stage that a layer's name is an address in; `None` for what is before or after all of them."""
    match = re.match(r"(stem|stage\d+)_", layer_name)
    return match and match.group(1)
