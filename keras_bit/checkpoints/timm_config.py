"""The `config.json` of timm's layout, for timm's `create_model("local-dir:...")`."""

from typing import Any

from keras_bit.images.processor import BitImageProcessor
from keras_bit.network.architectures import ARCHITECTURES
from keras_bit.network.config import PUBLISHED, BitConfig
from keras_bit.network.config_files import TIMM_ACTIVATIONS


def architecture(config: BitConfig) -> str | None:
    """Returns timm's name of the network; `None` if it is not a published one."""
    for row in ARCHITECTURES:
        published = PUBLISHED[row.title]
        if all(
            getattr(published, name) == getattr(config, name)
            for name in (
                "depths",
                "stem_width",
                "stage_widths",
                "layer_type",
                "global_padding",
                "num_groups",
                "embedding_dynamic_padding",
            )
        ):
            return f"resnetv2_{row.layers}_bit"
    return None


def values(config: BitConfig, head: bool, processor: BitImageProcessor | None) -> dict[str, Any]:
    """Returns the dictionary of `config.json`, for a network with an `architecture`.

    Checked against timm 1.0.31 `models/_hub.py`.
    """
    classes = config.num_labels if head else 0
    activations = {ours: theirs for theirs, ours in TIMM_ACTIVATIONS.items()}
    # Each row has timm's name of an argument, its value, and its default, with which it is left out.
    arguments = (
        ("in_chans", config.num_channels, 3),
        ("output_stride", config.output_stride, 32),
        ("drop_path_rate", config.drop_path_rate, 0.0),
        ("act_layer", activations[config.hidden_act], "relu"),
    )
    result: dict[str, Any] = {
        "architecture": architecture(config),
        "num_classes": classes,
        "num_features": config.stage_widths[-1],
        "global_pool": "avg",
        "model_args": {name: value for name, value, default in arguments if value != default},
        "pretrained_cfg": {
            "num_classes": classes,
            "first_conv": "stem.conv",
            "classifier": "head.fc",
            "custom_load": False,  # the file has timm's own names, so timm needs no special loader
            **(image_options(processor, config.num_channels) or {}),
        },
    }
    if head and config.has_named_labels:
        result["label_names"] = list(config.id2label.values())
    if config.problem_type is not None:
        result["problem_type"] = config.problem_type  # for keras_bit and transformers; timm has no such key
    return result


def image_options(processor: BitImageProcessor | None, channels: int) -> dict[str, Any] | None:
    """Returns the preprocessing as timm's options; `None` if it is unknown, or timm cannot express it."""
    if processor is None:
        return None
    exact = not processor.do_center_crop and set(processor.size) == {"height", "width"}
    size = processor.size if exact else processor.crop_size
    options: dict[str, Any] = {
        "input_size": [channels, size["height"], size["width"]],
        "interpolation": processor.resample.name.lower(),
        "crop_mode": "squash" if exact else "center",
        "mean": _listed(processor.image_mean),
        "std": _listed(processor.image_std),
    }
    edge = processor.size.get("shortest_edge", size["height"])
    # The second value always gives the exact edge. The first one has fewer digits, but may be rounded down below it.
    for crop_pct in (size["height"] / edge, size["height"] / (edge + 0.5)):
        found = options | {"crop_pct": 1.0 if exact else crop_pct}
        try:
            timms = BitImageProcessor.from_timm(found).to_dict()
        except ValueError:  # a crop that is not square
            return None
        if exact:
            timms["crop_size"] = processor.to_dict()["crop_size"]  # this option is not used, so it may differ
        if timms == processor.to_dict():
            return found
    return None


def _listed(numbers: Any) -> Any:
    return list(numbers) if isinstance(numbers, tuple | list) else numbers
