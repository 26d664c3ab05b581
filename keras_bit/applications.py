"""Builds models: `BiT50` and its siblings, any `BitConfig`, any checkpoint, and backbones.

The signatures of the six applications are written out although they differ in two defaults only, because editors, type
checkers and `help` read them from the source.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_bit.checkpoints import building, loading
from keras_bit.hub import published
from keras_bit.hub.finding import HubOptions, shown
from keras_bit.network import model as network
from keras_bit.network.config import PUBLISHED, BitConfig
from keras_bit.network.model import BiTModel, Ends

# The fields that distinguish the published architectures.
_ARCHITECTURE = ("depths", "hidden_sizes", "embedding_size", "width_factor", "layer_type")
# The arguments of `loading.find` that models and the backbone have.
_ARGUMENTS = ("config", "include_top", "classes")
_BACKBONE_ARGUMENTS = ("config",)


def BiT50(  # noqa: N802 - keras.applications' way
    include_top: bool = True,
    weights: str | Path | None = "google/bit-50",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Any], Any] | None = "auto",
    name: str = "bit50",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    config: BitConfig | None = None,
) -> BiTModel:
    """Builds BiT-R50x1, a ResNet version 2 with group normalization and weight standardization.

    (3, 4, 6, 3) blocks in its stages, the width of a ResNet-50.

    Args:
        include_top: whether the model ends in the head `predictions`, `(batch, classes)`; otherwise it ends in the
            feature map after the final norm and activation, `(batch, height / 32, width / 32, channels)`, which
            `pooling` reduces.
        weights: `None` (random); `"imagenet"` or `"imagenet21k"`, this architecture's published checkpoint for
            ImageNet-1k (the default) or ImageNet-21k; or any source that `from_pretrained` takes.
        input_tensor: a symbolic Keras tensor to use as input.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: any size from 32 px, with the head too.
        pooling: the reduction of the feature map for `include_top=False`: `None` for none, or `"avg"` or `"max"`, which
            give `(batch, channels)`.
        classes: number of classes; `None` takes the checkpoint's, or 1000 without one. Another number than the
            checkpoint's gives a new head of zeros and a warning.
        classifier_activation: `"auto"` is what the checkpoint's `problem_type` needs: softmax, sigmoid or nothing.
            `None` gives logits.
        name: the model's name.
        revision: branch, tag or full commit hash of a Hub id.
        cache_dir: the directory for downloads; `None` takes the cache of huggingface_hub.
        token: a token for the Hub; `None` takes the one that `hf auth login` stored.
        local_files_only: whether to use only files that were downloaded before.
        config: a `BitConfig` that replaces the checkpoint's own, or this architecture for `weights=None`.

    Returns:
        A functional model with the attribute `config`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, as `BitImageProcessor` makes it: [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint is damaged, is of another architecture, or does
            not fit.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitForImageClassification` with the same weights.
    """
    ends = Ends(include_top, input_tensor, input_shape, pooling, classifier_activation, name)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    if weights is None:
        return _random(_for_channels(PUBLISHED["BiT50"], ends) if config is None else config, ends, classes)
    return _pretrained(weights, ends, hub, config=config, classes=classes, title="BiT50")


def BiT50x3(  # noqa: N802 - keras.applications' way
    include_top: bool = True,
    weights: str | Path | None = "timm/resnetv2_50x3_bit.goog_in21k_ft_in1k",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Any], Any] | None = "auto",
    name: str = "bit50x3",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    config: BitConfig | None = None,
) -> BiTModel:
    """Builds BiT-R50x3, a ResNet version 2 with group normalization and weight standardization.

    (3, 4, 6, 3) blocks in its stages, 3 times the width of a ResNet-50.

    Args:
        include_top: whether the model ends in the head `predictions`, `(batch, classes)`; otherwise it ends in the
            feature map after the final norm and activation, `(batch, height / 32, width / 32, channels)`, which
            `pooling` reduces.
        weights: `None` (random); `"imagenet"` or `"imagenet21k"`, this architecture's published checkpoint for
            ImageNet-1k (the default) or ImageNet-21k; or any source that `from_pretrained` takes.
        input_tensor: a symbolic Keras tensor to use as input.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: any size from 32 px, with the head too.
        pooling: the reduction of the feature map for `include_top=False`: `None` for none, or `"avg"` or `"max"`, which
            give `(batch, channels)`.
        classes: number of classes; `None` takes the checkpoint's, or 1000 without one. Another number than the
            checkpoint's gives a new head of zeros and a warning.
        classifier_activation: `"auto"` is what the checkpoint's `problem_type` needs: softmax, sigmoid or nothing.
            `None` gives logits.
        name: the model's name.
        revision: branch, tag or full commit hash of a Hub id.
        cache_dir: the directory for downloads; `None` takes the cache of huggingface_hub.
        token: a token for the Hub; `None` takes the one that `hf auth login` stored.
        local_files_only: whether to use only files that were downloaded before.
        config: a `BitConfig` that replaces the checkpoint's own, or this architecture for `weights=None`.

    Returns:
        A functional model with the attribute `config`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, as `BitImageProcessor` makes it: [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint is damaged, is of another architecture, or does
            not fit.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitForImageClassification` with the same weights.
    """
    ends = Ends(include_top, input_tensor, input_shape, pooling, classifier_activation, name)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    if weights is None:
        return _random(_for_channels(PUBLISHED["BiT50x3"], ends) if config is None else config, ends, classes)
    return _pretrained(weights, ends, hub, config=config, classes=classes, title="BiT50x3")


def BiT101(  # noqa: N802 - keras.applications' way
    include_top: bool = True,
    weights: str | Path | None = "timm/resnetv2_101x1_bit.goog_in21k_ft_in1k",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Any], Any] | None = "auto",
    name: str = "bit101",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    config: BitConfig | None = None,
) -> BiTModel:
    """Builds BiT-R101x1, a ResNet version 2 with group normalization and weight standardization.

    (3, 4, 23, 3) blocks in its stages, the width of a ResNet-50.

    Args:
        include_top: whether the model ends in the head `predictions`, `(batch, classes)`; otherwise it ends in the
            feature map after the final norm and activation, `(batch, height / 32, width / 32, channels)`, which
            `pooling` reduces.
        weights: `None` (random); `"imagenet"` or `"imagenet21k"`, this architecture's published checkpoint for
            ImageNet-1k (the default) or ImageNet-21k; or any source that `from_pretrained` takes.
        input_tensor: a symbolic Keras tensor to use as input.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: any size from 32 px, with the head too.
        pooling: the reduction of the feature map for `include_top=False`: `None` for none, or `"avg"` or `"max"`, which
            give `(batch, channels)`.
        classes: number of classes; `None` takes the checkpoint's, or 1000 without one. Another number than the
            checkpoint's gives a new head of zeros and a warning.
        classifier_activation: `"auto"` is what the checkpoint's `problem_type` needs: softmax, sigmoid or nothing.
            `None` gives logits.
        name: the model's name.
        revision: branch, tag or full commit hash of a Hub id.
        cache_dir: the directory for downloads; `None` takes the cache of huggingface_hub.
        token: a token for the Hub; `None` takes the one that `hf auth login` stored.
        local_files_only: whether to use only files that were downloaded before.
        config: a `BitConfig` that replaces the checkpoint's own, or this architecture for `weights=None`.

    Returns:
        A functional model with the attribute `config`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, as `BitImageProcessor` makes it: [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint is damaged, is of another architecture, or does
            not fit.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitForImageClassification` with the same weights.
    """
    ends = Ends(include_top, input_tensor, input_shape, pooling, classifier_activation, name)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    if weights is None:
        return _random(_for_channels(PUBLISHED["BiT101"], ends) if config is None else config, ends, classes)
    return _pretrained(weights, ends, hub, config=config, classes=classes, title="BiT101")


def BiT101x3(  # noqa: N802 - keras.applications' way
    include_top: bool = True,
    weights: str | Path | None = "timm/resnetv2_101x3_bit.goog_in21k_ft_in1k",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Any], Any] | None = "auto",
    name: str = "bit101x3",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    config: BitConfig | None = None,
) -> BiTModel:
    """Builds BiT-R101x3, a ResNet version 2 with group normalization and weight standardization.

    (3, 4, 23, 3) blocks in its stages, 3 times the width of a ResNet-50.

    Args:
        include_top: whether the model ends in the head `predictions`, `(batch, classes)`; otherwise it ends in the
            feature map after the final norm and activation, `(batch, height / 32, width / 32, channels)`, which
            `pooling` reduces.
        weights: `None` (random); `"imagenet"` or `"imagenet21k"`, this architecture's published checkpoint for
            ImageNet-1k (the default) or ImageNet-21k; or any source that `from_pretrained` takes.
        input_tensor: a symbolic Keras tensor to use as input.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: any size from 32 px, with the head too.
        pooling: the reduction of the feature map for `include_top=False`: `None` for none, or `"avg"` or `"max"`, which
            give `(batch, channels)`.
        classes: number of classes; `None` takes the checkpoint's, or 1000 without one. Another number than the
            checkpoint's gives a new head of zeros and a warning.
        classifier_activation: `"auto"` is what the checkpoint's `problem_type` needs: softmax, sigmoid or nothing.
            `None` gives logits.
        name: the model's name.
        revision: branch, tag or full commit hash of a Hub id.
        cache_dir: the directory for downloads; `None` takes the cache of huggingface_hub.
        token: a token for the Hub; `None` takes the one that `hf auth login` stored.
        local_files_only: whether to use only files that were downloaded before.
        config: a `BitConfig` that replaces the checkpoint's own, or this architecture for `weights=None`.

    Returns:
        A functional model with the attribute `config`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, as `BitImageProcessor` makes it: [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint is damaged, is of another architecture, or does
            not fit.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitForImageClassification` with the same weights.
    """
    ends = Ends(include_top, input_tensor, input_shape, pooling, classifier_activation, name)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    if weights is None:
        return _random(_for_channels(PUBLISHED["BiT101x3"], ends) if config is None else config, ends, classes)
    return _pretrained(weights, ends, hub, config=config, classes=classes, title="BiT101x3")


def BiT152x2(  # noqa: N802 - keras.applications' way
    include_top: bool = True,
    weights: str | Path | None = "timm/resnetv2_152x2_bit.goog_in21k_ft_in1k",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Any], Any] | None = "auto",
    name: str = "bit152x2",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    config: BitConfig | None = None,
) -> BiTModel:
    """Builds BiT-R152x2, a ResNet version 2 with group normalization and weight standardization.

    (3, 8, 36, 3) blocks in its stages, 2 times the width of a ResNet-50.

    Args:
        include_top: whether the model ends in the head `predictions`, `(batch, classes)`; otherwise it ends in the
            feature map after the final norm and activation, `(batch, height / 32, width / 32, channels)`, which
            `pooling` reduces.
        weights: `None` (random); `"imagenet"` or `"imagenet21k"`, this architecture's published checkpoint for
            ImageNet-1k (the default) or ImageNet-21k; or any source that `from_pretrained` takes.
        input_tensor: a symbolic Keras tensor to use as input.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: any size from 32 px, with the head too.
        pooling: the reduction of the feature map for `include_top=False`: `None` for none, or `"avg"` or `"max"`, which
            give `(batch, channels)`.
        classes: number of classes; `None` takes the checkpoint's, or 1000 without one. Another number than the
            checkpoint's gives a new head of zeros and a warning.
        classifier_activation: `"auto"` is what the checkpoint's `problem_type` needs: softmax, sigmoid or nothing.
            `None` gives logits.
        name: the model's name.
        revision: branch, tag or full commit hash of a Hub id.
        cache_dir: the directory for downloads; `None` takes the cache of huggingface_hub.
        token: a token for the Hub; `None` takes the one that `hf auth login` stored.
        local_files_only: whether to use only files that were downloaded before.
        config: a `BitConfig` that replaces the checkpoint's own, or this architecture for `weights=None`.

    Returns:
        A functional model with the attribute `config`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, as `BitImageProcessor` makes it: [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint is damaged, is of another architecture, or does
            not fit.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitForImageClassification` with the same weights.
    """
    ends = Ends(include_top, input_tensor, input_shape, pooling, classifier_activation, name)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    if weights is None:
        return _random(_for_channels(PUBLISHED["BiT152x2"], ends) if config is None else config, ends, classes)
    return _pretrained(weights, ends, hub, config=config, classes=classes, title="BiT152x2")


def BiT152x4(  # noqa: N802 - keras.applications' way
    include_top: bool = True,
    weights: str | Path | None = "timm/resnetv2_152x4_bit.goog_in21k_ft_in1k",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Any], Any] | None = "auto",
    name: str = "bit152x4",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    config: BitConfig | None = None,
) -> BiTModel:
    """Builds BiT-R152x4, a ResNet version 2 with group normalization and weight standardization.

    (3, 8, 36, 3) blocks in its stages, 4 times the width of a ResNet-50.

    Args:
        include_top: whether the model ends in the head `predictions`, `(batch, classes)`; otherwise it ends in the
            feature map after the final norm and activation, `(batch, height / 32, width / 32, channels)`, which
            `pooling` reduces.
        weights: `None` (random); `"imagenet"` or `"imagenet21k"`, this architecture's published checkpoint for
            ImageNet-1k (the default) or ImageNet-21k; or any source that `from_pretrained` takes.
        input_tensor: a symbolic Keras tensor to use as input.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: any size from 32 px, with the head too.
        pooling: the reduction of the feature map for `include_top=False`: `None` for none, or `"avg"` or `"max"`, which
            give `(batch, channels)`.
        classes: number of classes; `None` takes the checkpoint's, or 1000 without one. Another number than the
            checkpoint's gives a new head of zeros and a warning.
        classifier_activation: `"auto"` is what the checkpoint's `problem_type` needs: softmax, sigmoid or nothing.
            `None` gives logits.
        name: the model's name.
        revision: branch, tag or full commit hash of a Hub id.
        cache_dir: the directory for downloads; `None` takes the cache of huggingface_hub.
        token: a token for the Hub; `None` takes the one that `hf auth login` stored.
        local_files_only: whether to use only files that were downloaded before.
        config: a `BitConfig` that replaces the checkpoint's own, or this architecture for `weights=None`.

    Returns:
        A functional model with the attribute `config`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, as `BitImageProcessor` makes it: [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint is damaged, is of another architecture, or does
            not fit.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitForImageClassification` with the same weights.
    """
    ends = Ends(include_top, input_tensor, input_shape, pooling, classifier_activation, name)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    if weights is None:
        return _random(_for_channels(PUBLISHED["BiT152x4"], ends) if config is None else config, ends, classes)
    return _pretrained(weights, ends, hub, config=config, classes=classes, title="BiT152x4")


def BiT(  # noqa: N802 - keras.applications' way
    config: BitConfig,
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Any], Any] | None = "auto",
    name: str = "bit",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> BiTModel:
    """Builds a BiT of any `BitConfig`, with random weights unless `weights` names some.

    Args:
        config: the architecture; a checkpoint's own is not read.
        include_top: whether the model ends in the head `predictions`, `(batch, classes)`; otherwise it ends in the
            feature map after the final norm and activation, `(batch, height / 32, width / 32, channels)`, which
            `pooling` reduces.
        weights: `None` (random); `"imagenet"` or `"imagenet21k"`, the published checkpoint of `config`'s architecture;
            or any source that `from_pretrained` takes.
        input_tensor: a symbolic Keras tensor to use as input.
        input_shape: `(height, width, channels)`, default `(None, None, config.num_channels)`: any size from 32 px,
            also with the head. Other channels than the checkpoint's adapt its first kernel, with a warning.
        pooling: the reduction of the feature map for `include_top=False`: `None` for none, or `"avg"` or `"max"`, which
            give `(batch, channels)`.
        classes: number of classes; `None` takes the checkpoint's, or `config.num_labels` without one. Another number
            than the checkpoint's gives a new head of zeros and a warning.
        classifier_activation: `"auto"` is what `config.problem_type` needs: softmax, sigmoid or nothing. `None` gives
            logits.
        name: the model's name.
        revision: branch, tag or full commit hash of a Hub id.
        cache_dir: the directory for downloads; `None` takes the cache of huggingface_hub.
        token: a token for the Hub; `None` takes the one that `hf auth login` stored.
        local_files_only: whether to use only files that were downloaded before.

    Returns:
        A functional model with the attribute `config`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, as `BitImageProcessor` makes it: [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint is damaged or does not fit.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitForImageClassification` with the same weights.
    """
    if config is None:
        raise ValueError(
            "`config` must be a BitConfig, got None. To use a checkpoint's own architecture, call "
            "`from_pretrained(source)`."
        )
    ends = Ends(include_top, input_tensor, input_shape, pooling, classifier_activation, name)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    if weights is None:
        return _random(config, ends, classes)
    weights = published.of_architecture(weights, _title_of(config))
    return _pretrained(weights, ends, hub, config=config, classes=classes)


def from_pretrained(
    source: str | Path,
    include_top: bool = True,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Any], Any] | None = "auto",
    name: str = "bit",
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    config: BitConfig | None = None,
    fused: bool = False,
) -> BiTModel:
    """Loads a model with the architecture and the weights of a checkpoint.

    Args:
        source: a Hub id (`"google/bit-50"`, also as `"hf://google/bit-50"` or `"hf-hub:google/bit-50"`), a local
            directory, a local file, a name of `list_checkpoints` (timm's `"resnetv2_50x1_bit.goog_in21k"`, Google's
            `"BiT-M-R50x1"`), or the `https://` address of a file or of a page of the Hub. It may have transformers'
            layout (`config.json` with `model.safetensors`, its sharded form, or `pytorch_model.bin` if torch is
            installed), timm's (`config.json` with `pretrained_cfg`), Google's `.npz`, or be a keras_bit model saved as
            `.keras`, `.h5` or `.weights.h5`. A `.npz` or `.weights.h5` of another than the published architectures
            needs a `config.json` in the same folder. Layers that were frozen in `model.save` are frozen again. The page
            "Load and save checkpoints" of the documentation lists more: PyTorch's `.pth`, networks inside others,
            big_vision's and TensorFlow's files.
        include_top: whether the model ends in the head `predictions`, `(batch, classes)`; otherwise it ends in the
            feature map after the final norm and activation, `(batch, height / 32, width / 32, channels)`, which
            `pooling` reduces.
        input_tensor: a symbolic Keras tensor to use as input.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: BiT pools globally, so any size from 32 px
            works, also with the head. For other channels than the checkpoint's, the first kernel is adapted, with a
            warning.
        pooling: the reduction of the feature map for `include_top=False`: `None` for none, or `"avg"` or `"max"`, which
            give `(batch, channels)`.
        classes: number of classes; `None` takes the checkpoint's. Another number gives a new head of zeros and a
            warning. Ignored for `include_top=False`.
        classifier_activation: `"auto"` is softmax, or sigmoid if `problem_type` is `multi_label_classification`, or
            nothing for a regression; for a file of `model.save` it is the saved head's activation. `None` gives logits.
            It may also be a function, or Keras' name of one.
        name: the model's name.
        revision: branch, tag or full commit hash of a Hub id.
        cache_dir: the directory for downloads; `None` takes the cache of huggingface_hub.
        token: a token for the Hub; `None` takes the one that `hf auth login` stored.
        local_files_only: whether to use only files that were downloaded before.
        config: a `BitConfig` that replaces the checkpoint's own; also for weights that have none.
        fused: whether to fuse the model for inference, as `keras_bit.fuse` does, but without a second copy in memory:
            calls and `predict` then do not standardize kernels. `save_pretrained` cannot save a fused model.

    Returns:
        A functional model with the attribute `config`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, as `BitImageProcessor` makes it: [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint does not fit, is damaged, or is not a BiT; the
            message lists all tensors that do not fit, and no model is returned. A `.keras` file whose layers differ
            from its `config` is refused too.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitForImageClassification` with the same weights.
    """
    ends = Ends(include_top, input_tensor, input_shape, pooling, classifier_activation, name)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    return _pretrained(source, ends, hub, config=config, classes=classes, fused=fused)


def BiTBackbone(  # noqa: N802 - keras.applications' way
    weights: str | Path | None = "google/bit-50",
    *,
    config: BitConfig | None = None,
    out_features: Sequence[str] | None = None,
    out_indices: Sequence[int] | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    name: str = "bit_backbone",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> BiTModel:
    """Builds a model that returns the feature maps of a BiT, stage by stage, for detection and segmentation.

    `stem` is the map after the stem's max pool; `stage1` ... are the outputs of the stages, before the final norm. Only
    the part of the network for these maps is built and loaded, so a checkpoint may lack later stages, the final norm
    and the head. A tensor that is not part of the whole network is an error.

    Args:
        weights: `None` (random); `"imagenet"` or `"imagenet21k"`, the published checkpoint of `config`'s architecture,
            by default BiT-50's; or any source that `from_pretrained` takes, including those saved by transformers'
            `BitBackbone` and `BitModel`.
        config: a `BitConfig` that replaces the checkpoint's own; for `weights=None` it defaults to BiT-50's.
        out_features: names of the stages to return, each once and in the network's order, of `config.stage_names`:
            `"stem"`, `"stage1"` ... By default the configuration's own, or the last stage.
        out_indices: the numbers of these stages: 0 is the stem, 1 is `stage1`, -1 the last stage. If both are given
            they must name the same stages.
        input_shape: `(height, width, channels)`, default `(None, None, 3)`: any size from 32 px. Other channels than
            the checkpoint's adapt its first kernel, with a warning.
        input_tensor: a symbolic Keras tensor to use as input.
        name: the model's name.
        revision: branch, tag or full commit hash of a Hub id.
        cache_dir: the directory for downloads; `None` takes the cache of huggingface_hub.
        token: a token for the Hub; `None` takes the one that `hf auth login` stored.
        local_files_only: whether to use only files that were downloaded before.

    Returns:
        A functional model whose output is a dict from stage name to map: `(batch, height / 4, width / 4, channels)` for
        `stem` and `stage1`, and half of that for each further stage, as far as `output_stride` allows, rounded up. It
        has the attribute `config` with its `out_features` and `out_indices`. Its input `pixel_values` is float32
        `(batch, height, width, channels)`, [-1, 1] for BiT's published checkpoints.

    Raises:
        ValueError: an argument is out of its range, or the checkpoint does not fit, is damaged, or is not a BiT; all
            tensors that do not fit are listed, and no model is returned.
        OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
        ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

    Checked against transformers 5.23 `BitBackbone` with the same weights.
    """
    _check_config(config)
    ends = Ends(input_tensor=input_tensor, input_shape=input_shape, name=name)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    if weights is None:
        config = building.with_outputs(config or BitConfig(), out_features, out_indices)
        return network.build_backbone(config, config.out_features, ends)
    weights = published.of_architecture(weights, "BiT50" if config is None else _title_of(config))
    return _pretrained_backbone(weights, ends, hub, config, out_features, out_indices)


def _random(config: BitConfig, ends: Ends, classes: int | None) -> BiTModel:
    _check_config(config)
    if ends.include_top and classes is not None:
        config = config.with_num_labels(building.checked_classes(classes))
    return network.build(config, ends)


def _pretrained(
    source: str | Path,
    ends: Ends,
    hub: HubOptions,
    *,
    config: BitConfig | None,
    classes: int | None,
    title: str | None = None,
    fused: bool = False,
) -> BiTModel:
    """Loads the model of `source`; without a `config`, it must have the architecture `title`."""
    _check_config(config)
    if title is not None:
        source = published.of_architecture(source, title)
    expected = None if title is None or config is not None else PUBLISHED[title]
    found = loading.find(source, hub, config, _ARGUMENTS)
    # Before the weights, so that those of another network are not downloaded.
    _refuse_other_architecture(source, found.config, expected, title)
    checkpoint = found.open(default=expected)
    _refuse_other_architecture(source, checkpoint.config, expected, title)
    return building.build_model(checkpoint, ends, classes=classes, fused=fused)


def _pretrained_backbone(
    source: str | Path,
    ends: Ends,
    hub: HubOptions,
    config: BitConfig | None,
    out_features: Sequence[str] | None,
    out_indices: Sequence[int] | None,
) -> BiTModel:
    found = loading.find(source, hub, config, _BACKBONE_ARGUMENTS)
    if found.config is not None:
        # Before the weights, so that a misspelled stage costs no download.
        building.with_outputs(found.config, out_features, out_indices)
    checkpoint = found.open()
    config = building.with_outputs(checkpoint.known_config(), out_features, out_indices)
    return building.build_backbone(checkpoint, config, ends)


def _check_config(config: BitConfig | None) -> None:
    if config is not None and not isinstance(config, BitConfig):
        raise ValueError(f"`config` must be a BitConfig, got {type(config).__name__}: {config!r}.")


def _refuse_other_architecture(
    source: str | Path, config: BitConfig | None, expected: BitConfig | None, title: str | None
) -> None:
    if config is None or expected is None:
        return
    for field in _ARCHITECTURE:
        if getattr(config, field) != getattr(expected, field):
            raise ValueError(
                f"`weights` {shown(source)!r} is not a {title}: its `{field}` must be {getattr(expected, field)}, got "
                f"{getattr(config, field)}. Use `from_pretrained(source)`, which takes the architecture from the "
                "checkpoint."
            )


def _title_of(config: BitConfig) -> str | None:
    """Returns the name of a configuration's published architecture; `None` if it has none."""
    _check_config(config)
    for title, one in PUBLISHED.items():
        if all(getattr(config, field) == getattr(one, field) for field in _ARCHITECTURE):
            return title
    return None


def _for_channels(config: BitConfig, ends: Ends) -> BitConfig:
    """As in keras.applications, random weights may have any number of channels."""
    return dataclasses.replace(config, num_channels=building.channels_asked(config, ends) or config.num_channels)
