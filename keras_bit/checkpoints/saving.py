"""From a model to a directory with transformers' files."""

import os
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit import files
from keras_bit.checkpoints import safetensors_file
from keras_bit.checkpoints.layouts import TRANSFORMERS, TRANSFORMERS_BASE, Layout
from keras_bit.images.options import PROCESSOR_CONFIG_NAME
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network import config_files, outline
from keras_bit.network.config import BitConfig
from keras_bit.network.layers import StdConv2D
from keras_bit.network.model import BiTModel, layers_in_front
from keras_bit.network.weights import weights_of

WEIGHTS_NAME = "model.safetensors"
DTYPES = ("float16", "bfloat16", "float32", "float64")  # what safetensors, transformers and our own loader all read

TRANSFORMERS_ACTIVATIONS = ("relu", "gelu", "gelu_new")  # of those that a BitConfig may have

# Other weights of transformers' layout: what reads them first, or is told to, gets another network than ours.
OTHER_WEIGHTS = ("model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SHARDS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")


def save_pretrained(model: keras.Model, directory: str | Path, processor: BitImageProcessor | None = None) -> None:
    """Writes a model in transformers' layout, which `keras_bit.from_pretrained` and transformers read.

    The files are `config.json`, `model.safetensors` and, for a `processor`, `preprocessor_config.json`. All of them are
    written aside, then renamed into place, the weights last: no reader ever sees half a file, and after an error the
    directory holds what it held before. Between the renames a reader may pair the new `config.json` with the old
    weights. Files of other names are left, an older `preprocessor_config.json` too if no `processor` is given.

    Every tensor keeps the dtype of its variable, and a checksum of its name and bytes is stored in the file's metadata,
    which `from_pretrained` compares. `num_labels`, `id2label` and `problem_type` are those of
    `model.config`; the head's activation is not stored, as transformers returns logits. A model without a head is
    written as transformers' `BitModel`, which its `BitBackbone` reads too; read it with `include_top=False` or
    `BiTBackbone`. A pre-activation `BiTBackbone` has no final norm: one that changes only means and spreads is written
    for it. A `width_factor` is written out as the widths that it makes, because transformers' own widens the stages
    only. Two kinds of networks are written with a warning because only keras_bit reads them as they are: those with
    the activation `selu`, which transformers lacks, and pre-activation networks with an `output_stride` below 32, whose
    dilation transformers leaves out.

    Args:
        model: what any function of keras_bit returned, before or after training; not a fused one.
        directory: is made if it does not exist; `~` is the home directory.
        processor: how images become the model's input.

    Raises:
        ValueError: `model` is not a whole network of keras_bit, is fused, has layers that differ from what its `config`
            describes, or holds NaN or infinity; `processor` is no `BitImageProcessor`. Nothing is written.
        FileExistsError: `directory` holds weights of transformers' layout under other names (`pytorch_model.bin`,
            shards with their index), which would contradict the new `config.json`, or, with a `processor`, a
            `processor_config.json`, which transformers reads in its place. They may be the only copy, so they are
            never deleted.
        NotADirectoryError: `directory` is a file.

    Checked against transformers 5.23 `BitForImageClassification.from_pretrained` and `BitModel.from_pretrained`.
    """
    check_processor(processor)
    directory = Path(directory).expanduser()
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"`directory` must be a directory, or a new name for one. {directory} is a file.")
    refuse_contradictions(directory, processor)
    config, tensors = content(model)
    warn_where_transformers_differs(model.config)
    with files.staged(directory) as staging:
        write_files(staging, config, tensors, processor)
        files.take_places(staging, directory, last=WEIGHTS_NAME)


def check_processor(processor: BitImageProcessor | None) -> None:
    if processor is not None and not isinstance(processor, BitImageProcessor):
        raise ValueError(
            f"`processor` must be a keras_bit.BitImageProcessor, got {type(processor).__name__}. "
            "`BitImageProcessor.from_pretrained` reads the files of others."
        )


def refuse_contradictions(directory: Path, processor: BitImageProcessor | None) -> None:
    names = (*OTHER_WEIGHTS, *((PROCESSOR_CONFIG_NAME,) if processor else ()))
    if found := [name for name in names if os.path.lexists(directory / name)]:
        raise FileExistsError(
            f"`directory` {str(directory)!r} holds files of another checkpoint, which would contradict or shadow the "
            f"new ones: {', '.join(found)}. Move them away, or choose another directory. Nothing was written."
        )


def content(model: keras.Model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The dictionary of `config.json`, and the named tensors.

    Raises:
        ValueError: `model` is not the network that its `config` describes, is fused, or holds NaN or infinity.
    """
    config = _own_config(model)
    head = any(layer.name == "predictions" for layer in model.layers)
    lacks_norm = _lacks_final_norm(model, config, head)
    layout = TRANSFORMERS if head else TRANSFORMERS_BASE
    tensors = _tensors(model, layout)
    _refuse_changed_layers(model)
    if lacks_norm:
        tensors |= _initial_norm(layout, config.stage_widths[-1], next(iter(tensors.values())).dtype)
    return _config_values(config, head, tensors), tensors


def _own_config(model: keras.Model) -> BitConfig:
    """The configuration of a model that keras_bit built, and that has no other layers before BiT."""
    config = getattr(model, "config", None)
    if not isinstance(config, BitConfig) or not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a model that keras_bit built, got {type(model).__name__} without its `config`. For a "
            "new head use `classes=`; a model with layers of your own around BiT is saved by `model.save`."
        )
    if in_front := layers_in_front(model):
        raise ValueError(
            f"`model` has layers before BiT ({', '.join(in_front)}), which this format cannot hold. Save it with "
            "`model.save`."
        )
    return config


def _lacks_final_norm(model: keras.Model, config: BitConfig, head: bool) -> bool:
    """Whether the model ends before the final norm, as a backbone does; it must have all other layers, not fused."""
    layers = {layer.name: layer for layer in model.layers}
    # The names of the layers that hold all of the network's weights.
    expected = dict.fromkeys(weight.layer for weight in weights_of(config) if head or weight.layer != "predictions")
    convolutions = [layers[name] for name in expected if "conv" in name and name in layers]
    fused = [layer for layer in convolutions if not isinstance(layer, StdConv2D)]
    if fused:
        raise ValueError(
            f"`model` is fused: {len(fused)} of its convolutions are not StdConv2D ({fused[0].name} is a "
            f"{type(fused[0]).__name__}), and the kernels before standardization, which this format holds, "
            "are gone. Save before fusing."
        )
    missing = [name for name in expected if name not in layers]
    if missing and missing != ["norm"]:
        raise ValueError(
            f"`model` is not the whole network of its `config`: it lacks the layers {files.some(missing)}. Save the "
            "model that keras_bit returned; a `BiTBackbone` needs its last stage among its outputs."
        )
    return bool(missing)


def _refuse_changed_layers(model: BiTModel) -> None:
    """The files hold the configuration and the weights: whoever reads them builds the layers that it describes."""
    if changed := outline.differences(model):
        raise ValueError(
            "`model` has other layers than its `config` describes, and the differences would be lost: "
            f"{files.some(changed, separator='; ')}. Save it with `model.save`. Nothing was written."
        )


def _tensors(model: keras.Model, layout: Layout) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    unknown, damaged = [], []
    for layer in model.layers:
        for variable in layer.weights:
            address = f"{layer.name}/{variable.name}"
            try:
                name = layout.tensor_name(layer.name, variable.name)
            except KeyError:
                unknown.append(address)
                continue
            values = keras.ops.convert_to_numpy(variable)
            if values.dtype.name not in DTYPES:
                damaged.append(f"{address} holds {values.dtype.name}, expected one of {', '.join(DTYPES)}")
            elif not np.isfinite(values).all():
                damaged.append(f"{address} holds NaN or infinity")
            else:
                tensors[name] = np.ascontiguousarray(layout.to_file(name, values))
    if unknown:
        raise ValueError(
            f"`model` has weights that the {layout.title} has no names for: {files.some(unknown)}. Save it with "
            "`model.save`."
        )
    if damaged:
        listed = files.some(damaged, separator="; ")
        raise ValueError(f"`model` has weights that cannot be saved: {listed}. Nothing was written.")
    return tensors


def _initial_norm(layout: Layout, channels: int, dtype: np.dtype) -> dict[str, np.ndarray]:
    """A pre-activation backbone ends before the final norm, which transformers has in every one: as it starts there."""
    values = {"gamma": np.ones(channels, dtype), "beta": np.zeros(channels, dtype)}
    return {layout.tensor_name("norm", variable): value for variable, value in values.items()}


def _config_values(config: BitConfig, head: bool, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    values = config.to_dict()
    if config.width_factor != 1:
        # The same network with its widths written out: transformers' factor widens the stages only.
        values |= {"width_factor": 1, "embedding_size": config.stem_width, "hidden_sizes": list(config.stage_widths)}
    # transformers gives the head the last of them, which a configuration with more of them than stages does not mean.
    values["hidden_sizes"] = values["hidden_sizes"][: len(config.depths)]
    if not head:
        values["architectures"] = ["BitModel"]
    dtypes = {tensor.dtype.name for tensor in tensors.values()}
    if len(dtypes) == 1:
        values["dtype"] = dtypes.pop()
    return values


def what_transformers_does_otherwise(config: BitConfig) -> str | None:
    """What transformers does otherwise with this network; `None` if it does the same."""
    if config.hidden_act not in TRANSFORMERS_ACTIVATIONS:
        return f"transformers has no activation {config.hidden_act!r}"
    if config.layer_type == "preactivation" and config.output_stride != 32:
        return f"transformers leaves out the dilation of `output_stride` {config.output_stride} and gives other numbers"
    return None


def warn_where_transformers_differs(config: BitConfig) -> None:
    if difference := what_transformers_does_otherwise(config):
        warnings.warn(f"{difference}: these files are for `keras_bit.from_pretrained`.", stacklevel=3)


def write_files(
    folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], processor: BitImageProcessor | None
) -> None:
    if processor is not None:
        processor.save_pretrained(folder)
    config_files.write(config, folder)
    # transformers 5 writes this as well; version 4 refuses a file without it.
    safetensors_file.write(tensors, folder / WEIGHTS_NAME, {"format": "pt"})
