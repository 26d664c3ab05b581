"""Converts a `config.json` in transformers' or timm's layout to arguments of `BitConfig`, and back."""

import json
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_bit.files import writing
from keras_bit.network.architectures import ARCHITECTURES

CONFIG_NAME = "config.json"

TIMM_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_new", "selu": "selu"}  # to `hidden_act`
# Keys of `model_args` in timm's layout: those that a configuration takes over, those that change no prediction, and
# those that must have BiT's value.
TIMM_ARGUMENTS = ("in_chans", "num_classes", "output_stride", "drop_path_rate", "act_layer")
TIMM_NAMES = {"num_channels": "in_chans", "num_labels": "num_classes"}  # arguments that have other names in timm
TIMM_WITHOUT_EFFECT = ("drop_rate", "img_size", "zero_init_last", "pretrained", "features_only")
TIMM_FIXED = {"global_pool": "avg", "preact": True, "avg_down": False, "stem_type": "fixed"}

# The BiT inside transformers' other models, by model type, if their file leaves out its description.
_HYBRID_BACKBONE = {
    "model_type": "bit",
    "layer_type": "bottleneck",
    "depths": [3, 4, 9],
    "global_padding": "same",
    "embedding_dynamic_padding": True,
}
HYBRID_BACKBONES = {
    "vit-hybrid": _HYBRID_BACKBONE | {"out_features": ["stage3"]},
    "dpt": _HYBRID_BACKBONE | {"out_features": ["stage1", "stage2", "stage3"]},
}


def is_timms(values: Mapping[str, Any]) -> bool:
    """Returns whether a dictionary is timm's, or the one that transformers' TimmWrapper makes of timm's."""
    return "architecture" in values and values.get("model_type") in (None, "timm_wrapper")


def is_kerass(values: Mapping[str, Any]) -> bool:
    """Returns whether a dictionary is Keras' own description of a model's layers."""
    return "class_name" in values and isinstance(values.get("config"), Mapping)


def from_keras(values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the `BitConfig` dictionary in Keras' description of a keras_bit model; `None` if it holds none.

    If the head was replaced, its classes have no names.
    """
    found, units = None, None
    waiting: list[Any] = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            config = value.get("config")
            if isinstance(config, Mapping):
                # `.h5` files name the class with its package.
                if found is None and str(value.get("class_name")).rpartition(">")[2] == "PixelValues":
                    found = config.get("config")
                if config.get("name") == "predictions" and isinstance(config.get("units"), int):
                    units = config["units"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    if not isinstance(found, Mapping):
        return None
    labels = found.get("id2label")
    if units is None or units == (len(labels) if isinstance(labels, Mapping) else found.get("num_labels")):
        return found
    named = ("id2label", "label2id", "num_labels")
    return {**{name: value for name, value in found.items() if name not in named}, "num_labels": units}


def of_bit(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the dictionary of the BiT: transformers' dictionary itself, or its backbone's if BiT is the backbone.

    Checked against transformers 4.57 `models/deprecated/vit_hybrid` and 5.24 `models/dpt/configuration_dpt.py`.
    """
    kind = values.get("model_type")
    hybrid = kind == "vit-hybrid" or (kind == "dpt" and values.get("is_hybrid") is True)
    backbone = values.get("backbone_config")
    if hybrid and backbone is None:
        return HYBRID_BACKBONES[str(kind)]
    if not isinstance(backbone, Mapping) or (kind == "bit"):
        return values
    return {"model_type": "bit", **backbone} if hybrid else backbone


def from_transformers(values: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Returns the `known` arguments. Without `id2label` and `num_labels` there are 2 labels, as in transformers."""
    arguments = {name: value for name, value in values.items() if name in known}
    if arguments.get("id2label") is None and arguments.get("num_labels") is None:
        arguments["num_labels"] = 2
    return arguments


def from_timm(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts `architecture`, `num_classes`, `model_args` and the labels to arguments.

    Raises:
        ValueError: `architecture` is not one of timm's BiTs, `model_args` describe a network that is not a BiT, or a
            value has another type than timm writes.
    """
    known = {f"resnetv2_{architecture.layers}_bit": architecture for architecture in ARCHITECTURES}
    # Before version 0.9 the name included the weights: resnetv2_50x1_bitm_in21k, ..._bit_distilled.
    name = re.sub(
        r"_bit(m|m_in21k|_distilled|_teacher|_teacher_384)$", "_bit", str(values["architecture"]).split(".")[0]
    )
    if name not in known:
        got = reprlib.repr(values["architecture"])
        raise ValueError(f"`architecture` must be one of {', '.join(known)}, got {got}.")
    pretrained = _object("pretrained_cfg", values.get("pretrained_cfg"))
    arguments = _object("model_args", values.get("model_args"))
    _refuse_unknown_timm_arguments(arguments)
    labels = _names("label_names", values.get("label_names") or pretrained.get("label_names"))
    descriptions = _object(
        "label_descriptions", values.get("label_descriptions") or pretrained.get("label_descriptions")
    )
    classes = _classes(values.get("num_classes", pretrained.get("num_classes", 1000)))
    if labels and classes not in (None, len(labels)):
        raise ValueError(
            f"`label_names` has {len(labels)} names, and `num_classes` is {reprlib.repr(classes)}. Make them equal."
        )
    return {
        "depths": known[name].depths,
        "width_factor": known[name].width_factor,
        "num_channels": arguments.get("in_chans", 3),
        "output_stride": arguments.get("output_stride", 32),
        "drop_path_rate": arguments.get("drop_path_rate", 0.0),
        "hidden_act": TIMM_ACTIVATIONS[arguments.get("act_layer") or "relu"],
        "num_labels": classes,
        "problem_type": values.get("problem_type"),  # only in files of transformers' TimmWrapper
        "id2label": {index: descriptions.get(label, label) for index, label in enumerate(labels)} if labels else None,
    }


def in_timms_words(error: ValueError) -> ValueError:
    """Returns the same error with the argument names of timm's file."""
    text = str(error)
    for ours, timms in TIMM_NAMES.items():
        text = text.replace(f"`{ours}`", f"`{timms}`")
    return ValueError(text)


def to_transformers(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the dictionary that transformers reads as the same configuration, without arguments that are `None`."""
    values: dict[str, Any] = {"model_type": "bit", "architectures": ["BitForImageClassification"]}
    for name, value in arguments.items():
        if isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = {str(key) if name == "id2label" else key: item for key, item in value.items()}
        if value is not None:
            values[name] = value
    return values


def write(values: Mapping[str, Any], directory: str | Path) -> None:
    """Writes `config.json` into `directory`, which is created if needed. A reader never sees half of the file."""
    path = Path(directory) / CONFIG_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing.replacing(path) as beside:
        beside.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _object(name: str, value: Any) -> Mapping[str, Any]:
    """Returns a JSON object of timm's file; `null` and other empty values mean an empty one."""
    if value and not isinstance(value, Mapping):
        raise ValueError(f"`{name}` must be an object, got {reprlib.repr(value)}.")
    return value or {}


def _names(name: str, value: Any) -> Sequence[str]:
    if value and not (isinstance(value, list | tuple) and all(isinstance(label, str) for label in value)):
        raise ValueError(f"`{name}` must be a list of names, got {reprlib.repr(value)}.")
    return value or ()


def _classes(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"`num_classes` must be a whole number of at least 0, got {reprlib.repr(value)}.")
    return value


def _refuse_unknown_timm_arguments(arguments: Mapping[str, Any]) -> None:
    activation = arguments.get("act_layer") or "relu"
    if not isinstance(activation, str) or activation not in TIMM_ACTIVATIONS:
        raise ValueError(f"`act_layer` must be one of {', '.join(TIMM_ACTIVATIONS)}, got {reprlib.repr(activation)}.")
    for name, value in arguments.items():
        if name in TIMM_FIXED and value == TIMM_FIXED[name]:
            continue
        if name not in (*TIMM_ARGUMENTS, *TIMM_WITHOUT_EFFECT):
            allowed = f"{TIMM_FIXED[name]!r}, as in BiT" if name in TIMM_FIXED else "left out"
            raise ValueError(
                f"`model_args` describes a network that is not a BiT: `{name}` must be {allowed}, got "
                f"{reprlib.repr(value)}. Supported arguments are {', '.join(TIMM_ARGUMENTS)}."
            )
