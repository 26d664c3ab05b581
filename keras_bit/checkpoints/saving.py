"""Writes a model to a directory in transformers', timm's or Google's layout."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_bit import wording
from keras_bit.checkpoints import npz_file, safetensors_file, timm_config
from keras_bit.checkpoints.layouts import GOOGLE, TIMM, TRANSFORMERS, TRANSFORMERS_BASE, Layout
from keras_bit.files import writing
from keras_bit.images.options import PROCESSOR_CONFIG_NAME
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network import config_files, outline
from keras_bit.network.config import PUBLISHED, BitConfig
from keras_bit.network.layers import StdConv2D
from keras_bit.network.model import BiTModel, head_activation, layers_in_front
from keras_bit.network.plain_weights import plain_weights, quantized_layers
from keras_bit.network.weights import weights_of

if TYPE_CHECKING:
    import huggingface_hub

WEIGHTS_NAME = "model.safetensors"
NPZ_NAME = "model.npz"
CARD_NAME = "README.md"  # as the Hub calls it
# For each `layout`: the table of names with a head, the one without a head, and the name of the file of weights.
WRITTEN = {
    "transformers": (TRANSFORMERS, TRANSFORMERS_BASE, WEIGHTS_NAME),
    "timm": (TIMM, TIMM, WEIGHTS_NAME),
    "npz": (GOOGLE, GOOGLE, NPZ_NAME),
}
DTYPES = ("float16", "bfloat16", "float32", "float64")  # types that safetensors, transformers and our loader all read

TRANSFORMERS_ACTIVATIONS = ("relu", "gelu", "gelu_new")  # of those that a BitConfig may have

# Other files of weights in transformers' layout. A reader that prefers them would get another network than ours.
OTHER_WEIGHTS = ("model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SHARDS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")


def save_pretrained(
    model: keras.Model,
    directory: str | Path,
    processor: BitImageProcessor | None = None,
    *,
    layout: str = "transformers",
    model_card: "huggingface_hub.ModelCard | str | None" = None,
) -> None:
    """Writes a model in transformers', timm's or Google's layout, which `keras_bit.from_pretrained` reads too.

    The files are `config.json`, `model.safetensors` and, for a `processor`, `preprocessor_config.json`. They are
    written to a temporary directory and then renamed, the weights last. No reader ever sees half a file, and an error
    leaves the directory as it was. Between the renames a reader may pair the new `config.json` with the old weights.
    Other files stay, including an older `preprocessor_config.json` if no `processor` is given.

    Every tensor keeps its variable's dtype. `from_pretrained` compares a checksum of each tensor, which is stored in
    the file's metadata. LoRA weights are added to their kernels. `num_labels`, `id2label` and `problem_type` come from
    `model.config`. The head's activation and frozen layers are not stored. A model without a head is written as
    transformers' `BitModel`, which its `BitBackbone` reads too; read it with `include_top=False` or `BiTBackbone`. A
    pre-activation `BiTBackbone` has no final norm, so an untrained one is written for it. A `width_factor` is written
    as the resulting widths, because transformers' factor widens the stages only. There is a warning for networks that
    only keras_bit reads correctly: those with the activation `selu`, which transformers lacks, and pre-activation
    networks with an `output_stride` below 32, whose dilation transformers ignores.

    `layout="timm"` is for `timm.create_model("local-dir:DIRECTORY", pretrained=True)`, and supports the six published
    architectures, with any number of classes and channels. `config.json` also holds the preprocessing, with a warning
    if timm cannot express it. `layout="npz"` writes `model.npz` instead of `model.safetensors`, with the names of
    Google's files, which big_transfer, big_vision and timm read. It supports pre-activation networks, stores bfloat16
    as float32, has no checksums, and warns if Google's code would build another network from the weights.

    Args:
        model: a model of keras_bit, before or after training, that is not fused. Your own head
            (`type(model)(model.input, head)`, `clone_model`) must be a Dense layer with the name `predictions`.
        directory: the directory for the files, which is created if needed; `~` is the home directory.
        processor: how images become the model's input.
        layout: `"transformers"`, `"timm"` or `"npz"`.
        model_card: the text of `README.md`, such as `keras_bit.model_card` writes; `None` writes none and leaves an
            existing one.

    Raises:
        TypeError: `directory` is not a path, or `model_card` is not a card or a text.
        ValueError: `model` is not a whole network of keras_bit, is fused or quantized, has layers that differ from what
            its `config` describes, has a head with another activation than its `problem_type` means, or holds NaN or
            infinity; `layout` is unknown, or cannot hold the model; `processor` is not a `BitImageProcessor`. Nothing
            is written.
        FileExistsError: `directory` holds weights under other names (`pytorch_model.bin`, shards with their index,
            `model.npz` next to `model.safetensors`), which would contradict the new `config.json`, or, with a
            `processor`, a `processor_config.json`, which transformers prefers. They are never deleted, because they may
            be the only copy.
        NotADirectoryError: `directory` is a file.
        OSError: it cannot be written: no permission, a full disk, a quota. `directory` does not change.

    Checked against transformers 5.23 `BitForImageClassification.from_pretrained` and `BitModel.from_pretrained`, timm
    1.0.31 `create_model` and `ResNetV2.load_pretrained`, big_transfer `bit_pytorch/models.py` and big_vision
    `models/bit_paper.py`.
    """
    weights_name = check_layout(layout)
    check_processor(processor)
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"`directory` must be a path, got {type(directory).__name__}: {directory!r}.")
    if not isinstance(model_card, str | None) and not hasattr(model_card, "content"):  # its class takes long to import
        raise TypeError(
            f"`model_card` must be a text or a huggingface_hub.ModelCard, got {type(model_card).__name__}. "
            "`keras_bit.model_card` writes one."
        )
    directory = Path(directory).expanduser()
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"`directory` must be a directory, or a new name for one. {directory} is a file.")
    refuse_contradictions(directory, processor, weights_name)
    writing.check_writable(directory / weights_name)
    config, tensors = content(model, layout, processor)
    writing.check_room(directory / weights_name, sum(tensor.nbytes for tensor in tensors.values()))
    warn_where_others_differ(model.config, layout, processor)
    with writing.staged(directory) as staging:
        write_files(staging, config, tensors, processor, weights_name)
        if model_card is not None:
            (staging / CARD_NAME).write_text(str(model_card), encoding="utf-8")
        writing.take_places(staging, directory, last=weights_name)


def check_layout(layout: str) -> str:
    """Returns the name of the file of weights in a layout.

    Raises:
        ValueError: `layout` is not one of `WRITTEN`.
    """
    if not isinstance(layout, str) or layout not in WRITTEN:
        raise ValueError(f"`layout` must be one of {', '.join(map(repr, WRITTEN))}, got {layout!r}.")
    return WRITTEN[layout][2]


def other_layouts(weights_name: str) -> tuple[str, ...]:
    """Returns the names of files of weights in other layouts, which would contradict this one."""
    return tuple({name for *_, name in WRITTEN.values()} - {weights_name})


def check_processor(processor: BitImageProcessor | None) -> None:
    if processor is not None and not isinstance(processor, BitImageProcessor):
        raise ValueError(
            f"`processor` must be a keras_bit.BitImageProcessor, got {type(processor).__name__}. Load another "
            "library's processor with `BitImageProcessor.from_pretrained`."
        )


def refuse_contradictions(
    directory: Path, processor: BitImageProcessor | None, weights_name: str = WEIGHTS_NAME
) -> None:
    names = (*OTHER_WEIGHTS, *other_layouts(weights_name), *((PROCESSOR_CONFIG_NAME,) if processor else ()))
    if found := [name for name in names if os.path.lexists(directory / name)]:
        raise FileExistsError(
            f"`directory` {str(directory)!r} holds files of another checkpoint, which would contradict or shadow the "
            f"new ones: {', '.join(found)}. Move them away, or choose another directory. Nothing was written."
        )


def content(
    model: keras.Model, layout: str = "transformers", processor: BitImageProcessor | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the dictionary of `config.json`, and the named tensors.

    Raises:
        ValueError: `model` is not the network that its `config` describes, is fused or quantized, or holds NaN or
            infinity, or `layout` cannot hold it.
    """
    config = own_config(model)
    if reason := _why_not(config, layout):
        raise ValueError(f"`layout` {layout!r} cannot hold `model`: {reason}. Use `layout='transformers'`.")
    head = any(layer.name == "predictions" for layer in model.layers)
    lacks_norm = _lacks_final_norm(model, config, head)
    _refuse_changed_layers(model)
    if head:
        _refuse_other_activation(model, config)
    whole, base, _ = WRITTEN[layout]
    named = whole if head else base
    tensors = _tensors(model, named)
    if lacks_norm:
        tensors |= _initial_norm(named, config.stage_widths[-1], next(iter(tensors.values())).dtype)
    if layout == "timm":
        return timm_config.values(config, head, processor), tensors
    return _config_values(config, head, tensors), tensors


def _refuse_other_activation(model: keras.Model, config: BitConfig) -> None:
    """Refuses a head whose activation would be lost: a loaded head has the activation of its `problem_type`."""
    activation = model.get_layer("predictions").activation
    expected = head_activation(config) or "linear"
    if activation in (keras.activations.linear, keras.activations.get(expected)):
        return
    shown = getattr(activation, "__name__", activation)
    labels = "`model.config = dataclasses.replace(model.config, problem_type='multi_label_classification')`, "
    raise ValueError(
        f"The head of `model` ends in {shown!r}, which a checkpoint cannot hold: it would be loaded with {expected!r}, "
        f"because of its `problem_type` {config.problem_type!r}. Choose "
        f"{labels if shown == 'sigmoid' and config.num_labels > 1 else ''}`classifier_activation=None` or a linear "
        "head, or save the model as a `.keras` file."
    )


def _why_not(config: BitConfig, layout: str) -> str | None:
    """Returns why a layout cannot hold a network; `None` if it can."""
    if layout == "timm" and timm_config.architecture(config) is None:
        published = ", ".join(PUBLISHED)
        return f"timm knows networks by name only, and its BiTs are {published}, of which none has these sizes"
    if layout == "npz" and config.layer_type != "preactivation":
        return "Google's files hold pre-activation networks, but this one has `layer_type='bottleneck'`"
    return None


def own_config(model: keras.Model) -> BitConfig:
    """Returns the configuration of a keras_bit model; refuses other models, and layers before BiT."""
    config = getattr(model, "config", None)
    if not isinstance(config, BitConfig) or not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a model that keras_bit built, got {type(model).__name__} without its `config`. For a new "
            "head load it with `classes=`. Save a model with your own layers around BiT with `model.save`."
        )
    if in_front := layers_in_front(model):
        raise ValueError(
            f"`model` has layers before BiT ({', '.join(in_front)}), which this format cannot hold. Save it with "
            "`model.save`."
        )
    return config


def _lacks_final_norm(model: keras.Model, config: BitConfig, head: bool) -> bool:
    """Returns whether the model ends before the final norm, as a backbone does. Refuses missing and fused layers."""
    layers = {layer.name: layer for layer in model.layers}
    # The names of all layers with weights.
    expected = dict.fromkeys(weight.layer for weight in weights_of(config) if head or weight.layer != "predictions")
    convolutions = [layers[name] for name in expected if "conv" in name and name in layers]
    fused = [layer for layer in convolutions if not isinstance(layer, StdConv2D)]
    if fused:
        raise ValueError(
            f"`model` is fused: {len(fused)} of its convolutions are not StdConv2D ({fused[0].name} is a "
            f"{type(fused[0]).__name__}), but this format needs the kernels before standardization, which are lost. "
            "Save before fusing."
        )
    missing = [name for name in expected if name not in layers]
    if missing and missing != ["norm"]:
        raise ValueError(
            f"`model` is not the whole network of its `config`: it lacks the layers {wording.some(missing)}. Save the "
            "model that keras_bit returned. A `BiTBackbone` must have its last stage among its outputs."
        )
    return bool(missing)


def _refuse_changed_layers(model: BiTModel) -> None:
    """Refuses changed layers: the files hold only the configuration and the weights, so the changes would be lost."""
    if quantized := quantized_layers(model):
        raise ValueError(
            f"`model` is quantized: {wording.some(quantized)}. This format needs the weights before quantization, "
            "which are lost. Save it before `quantize`, or with `model.save`. Nothing was written."
        )
    if changed := outline.differences(model):
        raise ValueError(
            "`model` has other layers than its `config` describes, and the differences would be lost: "
            f"{wording.some(changed, separator='; ')}. Save it with `model.save`. Your own head can be saved here if "
            "it is one Dense layer with the name 'predictions'. Nothing was written."
        )


def _tensors(model: keras.Model, layout: Layout) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    damaged = []
    for layer in model.layers:
        for variable, weight in plain_weights(layer).items():
            address = f"{layer.name}/{variable}"
            name = layout.tensor_name(layer.name, variable)
            values = keras.ops.convert_to_numpy(weight)
            if values.dtype.name not in DTYPES:
                damaged.append(f"{address} holds {values.dtype.name}, expected one of {', '.join(DTYPES)}")
            elif not np.isfinite(values).all():
                damaged.append(f"{address} holds NaN or infinity")
            else:
                tensors[name] = np.ascontiguousarray(layout.to_file(name, values))
    if damaged:
        listed = wording.some(damaged, separator="; ")
        raise ValueError(
            f"`model` has weights that cannot be saved: {listed}. Nothing was written. "
            "Correct these weights, or load an earlier state of the model."
        )
    return tensors


def _initial_norm(layout: Layout, channels: int, dtype: np.dtype) -> dict[str, np.ndarray]:
    """Returns an untrained final norm for a pre-activation backbone, because transformers' always has one."""
    values = {"gamma": np.ones(channels, dtype), "beta": np.zeros(channels, dtype)}
    return {layout.tensor_name("norm", variable): value for variable, value in values.items()}


def _config_values(config: BitConfig, head: bool, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    values = config.to_dict()
    if config.width_factor != 1:
        # The network is described by explicit widths, because transformers' factor widens the stages only.
        values |= {"width_factor": 1, "embedding_size": config.stem_width, "hidden_sizes": list(config.stage_widths)}
    # transformers gives the head the last width, which is the wrong one if there are more widths than stages.
    values["hidden_sizes"] = values["hidden_sizes"][: len(config.depths)]
    if not head:
        values["architectures"] = ["BitModel"]
    dtypes = {tensor.dtype.name for tensor in tensors.values()}
    if len(dtypes) == 1:
        values["dtype"] = dtypes.pop()
    return values


def _what_transformers_does_otherwise(config: BitConfig) -> str | None:
    if config.hidden_act not in TRANSFORMERS_ACTIVATIONS:
        return f"transformers has no activation {config.hidden_act!r}"
    if config.layer_type == "preactivation" and config.output_stride < 32:
        return f"transformers ignores the dilation of `output_stride` {config.output_stride} and gives other numbers"
    return None


def _what_google_does_otherwise(config: BitConfig) -> str | None:
    """Returns what readers of Google's files, which hold only weights, do differently with this network."""
    google = BitConfig()
    names = ("hidden_act", "global_padding", "embedding_dynamic_padding", "output_stride", "num_groups")
    other = [f"{name}={getattr(config, name)!r}" for name in names if getattr(config, name) != getattr(google, name)]
    return f"Google's code builds a network without {', '.join(other)} from these weights" if other else None


def what_others_do_otherwise(config: BitConfig, layout: str) -> str | None:
    """Returns what other readers of a layout do differently with this network; `None` if they do the same."""
    if layout == "transformers":
        return _what_transformers_does_otherwise(config)
    return _what_google_does_otherwise(config) if layout == "npz" else None


def warn_where_others_differ(
    config: BitConfig, layout: str = "transformers", processor: BitImageProcessor | None = None
) -> None:
    if difference := what_others_do_otherwise(config, layout):
        warnings.warn(f"{difference}. Load these files with `keras_bit.from_pretrained` only.", stacklevel=3)
    if layout == "timm" and processor and timm_config.image_options(processor, config.num_channels) is None:
        warnings.warn(
            "timm cannot express the steps of `processor`, so it will prepare images differently. "
            "preprocessor_config.json describes them.",
            stacklevel=3,
        )


def write_files(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, np.ndarray],
    processor: BitImageProcessor | None,
    weights_name: str = WEIGHTS_NAME,
) -> None:
    if processor is not None:
        processor.save_pretrained(folder)
    config_files.write(config, folder)
    if weights_name == NPZ_NAME:
        npz_file.write(tensors, folder / weights_name)
    else:
        # transformers 5 writes this too; version 4 refuses a file without it.
        safetensors_file.write(tensors, folder / weights_name, {"format": "pt"})
