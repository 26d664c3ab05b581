"""Checks and normalizes the processor's options, and reads them from transformers' and timm's files."""

import math
import numbers
import operator
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_bit.counts import is_whole
from keras_bit.files import keras_files
from keras_bit.hub import finding
from keras_bit.hub.finding import HubOptions
from keras_bit.images.steps import PerChannel

CONFIG_NAME = "preprocessor_config.json"
TIMM_CONFIG_NAME = "config.json"  # timm stores the image options under "pretrained_cfg"
PROCESSOR_CONFIG_NAME = "processor_config.json"  # transformers 5: nests the dictionary under "image_processor"

_KERAS_NAME = "model.keras"  # in a directory of weights, which may be a `BiTClassifier`'s
_TIMM_OPTIONS = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")

FILTERS = tuple(Image.Resampling(number) for number in range(6))  # filters of every Pillow; version 13 has two more


class NoProcessorError(FileNotFoundError):
    """The checkpoint exists, but has no processor."""


def find(source: str | Path, options: HubOptions) -> tuple[Path, dict[str, Any]]:
    """Finds the file that describes a checkpoint's processor, and the dictionary in it.

    Raises:
        NoProcessorError: `source` has none.
        FileNotFoundError: `source` does not exist, or it is not in the cache and `local_files_only` is set.
        ValueError: the file is not JSON, or lacks the dictionary.
    """
    if (inside := _in_classifier(source, finding.named_file(source), options)) is not None:
        return inside
    path = finding.find_file(source, (CONFIG_NAME, PROCESSOR_CONFIG_NAME), options)
    if path is None:
        # Requested separately: together with the others it would be preferred if loading the model had cached it.
        path = finding.find_file(source, (TIMM_CONFIG_NAME,), options)
    values = {} if path is None else finding.read_json(path)
    if path is not None and path.name == TIMM_CONFIG_NAME:
        processor = keras_files.processor_in(values)  # in the directory that Keras writes
        if processor is not None:
            return path, processor
    if path is None or (path.name == TIMM_CONFIG_NAME and not _says_how(values.get("pretrained_cfg"))):
        # A repository's would have to be downloaded first, and most have none.
        local = isinstance(finding.place_of(source), Path)
        if local and (inside := _in_classifier(source, _KERAS_NAME, options)) is not None:
            return inside
        raise NoProcessorError(
            f"{finding.shown(source)!r} has no {CONFIG_NAME} and no {PROCESSOR_CONFIG_NAME}. Build the processor with "
            "`BitImageProcessor(...)`, and write it into the folder of the weights with `save_pretrained`."
            f"{finding.remark(source)}"
        )
    if path.name == CONFIG_NAME:
        return path, values
    key = "pretrained_cfg" if path.name == TIMM_CONFIG_NAME else "image_processor"
    if not isinstance(values.get(key), dict):
        raise ValueError(
            f"{path} has no object under the key {key!r}. Write the processor again with `save_pretrained`."
        )
    return path, values[key]


def _in_classifier(source: str | Path, name: str | None, options: HubOptions) -> tuple[Path, dict[str, Any]] | None:
    """Returns this file and the processor in it; `None` if the file is not a saved `BiTClassifier`."""
    if name is None or not name.endswith(keras_files.SUFFIXES):
        return None
    path = finding.find_file(source, (name,), options)
    values = None if path is None else keras_files.described_in(path)
    processor = None if values is None else keras_files.processor_in(values)
    return None if path is None or processor is None else (path, processor)


def _says_how(pretrained_cfg: object) -> bool:
    """Returns whether it describes images; a checkpoint that was saved without a processor does not."""
    if not isinstance(pretrained_cfg, Mapping):
        return pretrained_cfg is not None
    return not pretrained_cfg.keys().isdisjoint(_TIMM_OPTIONS)


def from_timm(pretrained_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of timm's evaluation transform; see `BitImageProcessor.from_timm`."""
    input_size = pretrained_cfg.get("input_size") or (3, 224, 224)
    if not isinstance(input_size, list | tuple) or len(input_size) != 3 or not all(map(is_whole, input_size)):
        raise ValueError(
            "`input_size` must be three whole numbers, (channels, height, width), such as (3, 224, 224), got "
            f"{reprlib.repr(input_size)}."
        )
    _, height, width = input_size
    crop_size({"height": height, "width": width})  # checks them
    crop_pct = finite("crop_pct", pretrained_cfg.get("crop_pct", 0.875))
    if crop_pct <= 0:
        raise ValueError(f"`crop_pct` must be above 0, such as 0.875, got {reprlib.repr(crop_pct)}.")
    interpolation = pretrained_cfg.get("interpolation", "bicubic")
    filters = {resample.name.lower(): resample for resample in FILTERS}
    if not isinstance(interpolation, str) or interpolation not in filters:
        raise ValueError(f"`interpolation` must be one of {', '.join(filters)}, got {reprlib.repr(interpolation)}.")
    options: dict[str, Any] = {
        "crop_size": {"height": height, "width": width},
        "resample": filters[interpolation],
        "image_mean": pretrained_cfg.get("mean", (0.485, 0.456, 0.406)),
        "image_std": pretrained_cfg.get("std", (0.229, 0.224, 0.225)),
    }
    crop_mode = pretrained_cfg.get("crop_mode", "center")
    if crop_mode == "squash" and crop_pct == 1:
        return options | {"size": options["crop_size"], "do_center_crop": False}
    if crop_mode != "center" or height != width:
        raise ValueError(
            "`crop_mode` must be 'center' with a square `input_size`, or 'squash' with a `crop_pct` of 1, got "
            f"crop_mode={crop_mode!r}, input_size={(height, width)} and crop_pct={crop_pct}. For other steps, choose "
            "the options of `BitImageProcessor(...)` yourself."
        )
    return options | {"size": math.floor(min(height / crop_pct, 2**53))}


def switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {reprlib.repr(value)}.")
    return value


def check_choice(name: str, value: object, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise _not_one_of(name, value, allowed)


def choice(name: str, value: object, allowed: tuple[str | None, ...]) -> str | None:
    """Returns one of `allowed`; `value` may have any case or be an enumeration member of another library."""
    plain = getattr(value, "value", value)
    plain = plain.lower() if isinstance(plain, str) else plain
    for one in allowed:
        if plain == one:
            return one
    raise _not_one_of(name, value, allowed)


def _not_one_of(name: str, value: object, allowed: tuple[str | None, ...]) -> ValueError:
    return ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {reprlib.repr(value)}.")


def size(value: object) -> dict[str, int]:
    if isinstance(value, numbers.Integral):
        value = {"shortest_edge": value}
    return _pixels("size", value, ({"shortest_edge"}, {"height", "width"}))


def crop_size(value: object) -> dict[str, int]:
    if isinstance(value, numbers.Integral):
        value = {"height": value, "width": value}
    return _pixels("crop_size", value, ({"height", "width"},))


def resample(value: object) -> Image.Resampling:
    if isinstance(value, bool) or value not in FILTERS:
        filters = ", ".join(f"{number.value} ({number.name.lower()})" for number in FILTERS)
        raise ValueError(f"`resample` must be one of Pillow's filters: {filters}; got {reprlib.repr(value)}.")
    return FILTERS[FILTERS.index(value)]


def finite(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number, got {reprlib.repr(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or abs(number) > float(np.finfo(np.float32).max):
        raise ValueError(f"`{name}` must be finite in float32, between -3.4e38 and 3.4e38, got {reprlib.repr(value)}.")
    return number


def per_channel(name: str, value: object) -> PerChannel:
    if isinstance(value, numbers.Real):
        return finite(name, value)
    if isinstance(value, (list, tuple, np.ndarray)) and 1 <= len(value) <= 4:
        return tuple(finite(name, number) for number in value)
    raise ValueError(
        f"`{name}` must be a number, or a list of one per channel, for 1 to 4 channels, got {reprlib.repr(value)}."
    )


def deviation(value: object) -> PerChannel:
    """Checks a divisor like `per_channel`, and that it is above 0."""
    std = per_channel("image_std", value)
    # TensorFlow treats smaller numbers as 0; elsewhere the quotient is infinite.
    if np.any(np.asarray(std, np.float32) < np.finfo(np.float32).tiny):
        raise ValueError(
            "`image_std` must be above 0 in float32, at least 1.2e-38, because the pixels are divided by it, got "
            f"{reprlib.repr(value)}. To skip the step, pass `do_normalize=False`."
        )
    return std


def _pixels(name: str, value: object, allowed: tuple[set[str], ...]) -> dict[str, int]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = dict(zip(("height", "width"), value, strict=True))
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a dictionary, an int or a pair (height, width), got {reprlib.repr(value)}.")
    if set(value) not in allowed:
        keys = " or ".join(" and ".join(map(repr, sorted(keys))) for keys in allowed)
        raise ValueError(f"`{name}` must have the keys {keys}, got {reprlib.repr(value)}.")
    for key, pixels in value.items():
        if not is_whole(pixels):
            raise TypeError(f"`{name}` must hold whole numbers of pixels, got {key}={reprlib.repr(pixels)}.")
        if pixels < 1:
            raise ValueError(f"`{name}` must be at least 1 pixel, got {key}={reprlib.repr(pixels)}.")
    edges = [operator.index(pixels) for pixels in value.values()]
    if Image.MAX_IMAGE_PIXELS is not None and math.prod([*edges, *edges][:2]) > 2 * Image.MAX_IMAGE_PIXELS:
        # Larger images are not read either, and a file may hold any number.
        raise ValueError(
            f"`{name}` must be at most {2 * Image.MAX_IMAGE_PIXELS:,} pixels, the limit of Pillow, got "
            f"{reprlib.repr(value)}. Choose a smaller size, or raise `PIL.Image.MAX_IMAGE_PIXELS`, half of the limit."
        )
    return {key: operator.index(pixels) for key, pixels in sorted(value.items())}
