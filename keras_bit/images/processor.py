"""From images to the float32 batch that BiT expects, with the values of transformers' Pillow image processor."""

import dataclasses
import importlib
import json
import math
import numbers
import operator
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from keras_bit import files, hub
from keras_bit.images import inputs
from keras_bit.images.inputs import DATA_FORMATS, Picture

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB in [0, 1]; transformers' OPENAI_CLIP_MEAN
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)  # of RGB in [0, 1]; transformers' OPENAI_CLIP_STD

CONFIG_NAME = "preprocessor_config.json"
TIMM_CONFIG_NAME = "config.json"  # timm: what the image should be like stands under "pretrained_cfg"
PROCESSOR_CONFIG_NAME = "processor_config.json"  # transformers 5: nests the dictionary under "image_processor"

# What google/bit-50 has in its preprocessor_config.json.
BIT_50: dict[str, Any] = {"size": 448, "crop_size": 448, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
FILTERS = tuple(Image.Resampling(number) for number in range(6))  # what every Pillow has; 13 has two more
TENSOR_PACKAGES = {"tf": "tensorflow", "pt": "torch", "jax": "jax"}


@dataclasses.dataclass(frozen=True)
class BitImageProcessor:
    """Resizes, crops, rescales and normalizes images as transformers' BiT processor does with Pillow, bit for bit.

    In this order, each step where its `do_` option is on:

    1. convert: `image.convert("RGB")`; an alpha channel is dropped, never composited.
    2. resize: Pillow's resize of the uint8 image. `{"shortest_edge": s}` makes the short side `s` and the long side
       `int(s * long / short)`; `{"height": h, "width": w}` makes exactly that.
    3. center crop: to `crop_size`; starts at `(size - crop) // 2`; what a smaller image lacks is filled with zeros
       (which the next steps rescale and normalize too).
    4. rescale: `float32(float64(x) * rescale_factor)`.
    5. normalize: `(x - image_mean) / image_std` in float32.

    >>> processor = BitImageProcessor(size=448, crop_size=448, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    >>> processor(Image.new("RGB", (640, 480), "white")).shape
    (1, 448, 448, 3)

    Orientation tags (EXIF) are ignored: `PIL.ImageOps.exif_transpose` turns an image upright. Of a file with several
    frames, the first counts.

    Gray images of more than 8 bits (Pillow's modes `I`, `I;16` and `F`) are refused, because Pillow would not scale
    them to 8 bits, it would make everything above 255 white. Color files of 16 bits are read: Pillow's decoder keeps
    the upper byte.

    With `do_convert_rgb=False` an image keeps the channels that `numpy.asarray` sees: gray has 1, and so has a palette
    image (the indices, not the colors) and a 1-bit one (0 and 1); LA has 2; RGBA and CMYK have 4, and a resize
    weights the first three by the fourth, as Pillow does for alpha. `image_mean` and `image_std` then need as many
    values, or one number for all.

    Args:
        do_resize: Whether to resize.
        size: `{"shortest_edge": pixels}` or `{"height": pixels, "width": pixels}`; an int means the shortest edge, a
            pair (height, width). Default `{"shortest_edge": 224}`.
        resample: Pillow's filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.
        do_center_crop: Whether to crop.
        crop_size: `{"height": pixels, "width": pixels}`; an int means a square. Default 224 by 224.
        do_rescale: Whether to multiply by `rescale_factor`.
        rescale_factor: A finite number; the default takes `[0, 255]` to `[0, 1]`.
        do_normalize: Whether to subtract `image_mean` and divide by `image_std`.
        image_mean: One number per channel, or one for all. Default CLIP's.
        image_std: One number above 0 per channel, or one for all. Default CLIP's.
        do_convert_rgb: Whether to make every image RGB.

    Raises:
        ValueError: An option has an impossible value.
        TypeError: An option has the wrong type.

    Source: transformers 5.23, `models/bit/image_processing_pil_bit.py`, and version 4 for what happens to alpha.
    """

    do_resize: bool = True
    size: Mapping[str, int] | Sequence[int] | int | None = None
    resample: Image.Resampling | int = Image.Resampling.BICUBIC
    do_center_crop: bool = True
    crop_size: Mapping[str, int] | Sequence[int] | int | None = None
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Sequence[float] | float | None = None
    image_std: Sequence[float] | float | None = None
    do_convert_rgb: bool = True

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("do_") and not isinstance(value, bool):
                raise TypeError(f"`{field.name}` must be True or False. Received: {value!r}")
        normal = {
            "size": _size({"shortest_edge": 224} if self.size is None else self.size),
            "crop_size": _crop_size(224 if self.crop_size is None else self.crop_size),
            "resample": _resample(self.resample),
            "rescale_factor": _finite("rescale_factor", self.rescale_factor),
            "image_mean": _per_channel("image_mean", CLIP_MEAN if self.image_mean is None else self.image_mean),
            "image_std": _per_channel("image_std", CLIP_STD if self.image_std is None else self.image_std),
        }
        # Smaller ones are 0 in TensorFlow, and what they divide is infinite elsewhere.
        if np.any(np.float32(normal["image_std"]) < np.finfo(np.float32).tiny):
            raise ValueError(
                "`image_std` must be above 0 in float32, because it is divided by, and at least 1.2e-38; use "
                f"`do_normalize=False` to leave the step out. Received: {self.image_std!r}"
            )
        for name, value in normal.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen
        if self.do_normalize and self.do_convert_rgb:
            self._check_channels(3, "an RGB image")

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        *,
        data_format: str = "channels_last",
        input_data_format: str | None = None,
        return_tensors: str | None = None,
        **overrides: Any,
    ) -> Any:
        """Returns one float32 batch of `(batch, height, width, channels)`.

        Arrays are uint8 `[0, 255]`, or another number type. To be resized they must be 8-bit images still: whole
        numbers in `[0, 255]` are taken as they are; others must lie in `[0, 1]` and are scaled to uint8 (by
        truncation), resized and scaled back. An array of nothing but 0.0 and 1.0 counts as whole numbers. `do_rescale`
        does not know about any of this: turn it off for arrays in `[0, 1]`.

        With `do_convert_rgb` arrays may have 1, 3 or 4 channels: gray is repeated, alpha is dropped.

        Args:
            images: One image or a list of them, each a PIL image, an array of `(height, width, channels)` or
                `(channels, height, width)`, a batch of such arrays in 4 dimensions, an encoded file's bytes, or a path.
            data_format: Order of the result: `"channels_last"`, or `"channels_first"` for
                `(batch, channels, height, width)`.
            input_data_format: Order of the arrays. `None` takes the axis that has 1, 3 or 4 entries, and the first
                axis, with a warning, where the first and the last have.
            return_tensors: `None` or `"np"` for numpy, `"tf"`, `"pt"` or `"jax"` for that framework's tensor.
            **overrides: Any option of the processor, for this call; `None` means the processor's own.

        Raises:
            ValueError: An image can't be read or doesn't fit the options, or the results differ in size.
            TypeError: Something in `images` is no image, or an override is no option.
            FileNotFoundError: There is no file at a path; IsADirectoryError: there is a directory.
            PIL.Image.DecompressionBombError: An image has more pixels than Pillow's limit allows.
            ImportError: The package for `return_tensors` is not installed.
        """
        processor = self._replaced(overrides)
        _check_choice("data_format", data_format, DATA_FORMATS)
        _check_choice("input_data_format", input_data_format, (None, *DATA_FORMATS))
        _check_choice("return_tensors", return_tensors, (None, "np", *TENSOR_PACKAGES))

        results: dict[str, np.ndarray] = {}
        for name, array in inputs.arrays(images, input_data_format, processor.do_convert_rgb):
            results[name] = processor._process(name, array)
        if not results:
            raise ValueError("`images` is empty; expected at least one image.")
        batch = _stack(results)
        if data_format == "channels_first":
            batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        return _to_framework(batch, return_tensors)

    def tf_preprocess(self, image: Any) -> Any:
        """The same for one image in a TensorFlow graph, as `dataset.map(processor.tf_preprocess)`, bit for bit.

        JPEG (not CMYK), PNG (not gray of 16 bits), GIF (first frame, without transparency), BMP (24 or 32 bits) and
        WebP (not animated) are decoded as Pillow does; of a JPEG only the part that the crop keeps. What TensorFlow's
        decoders would give other values for is refused, and `processor(path)` takes most of it, as it takes a PNG with
        a wrong checksum. As there, orientation tags are ignored and alpha is dropped. An image of more than
        `2 * PIL.Image.MAX_IMAGE_PIXELS`, by the value when the graph is made, is refused as Pillow does.

        Damaged files are the exception. Where something in a JPEG, GIF or BMP was altered, TensorFlow may decode what
        Pillow refuses (2 of 24 photographs with 200 random bytes in the middle), and the other way round, as a PNG with
        a wrong checksum or without its end; of a JPEG what lies behind the crop is not looked at. Of a progressive JPEG
        that was damaged, or cut short and given an end marker again, the two decoders make up what is missing in their
        own ways.

        Pillow 13 resizes some images in another order than 12; the graph takes that of the Pillow that is installed
        when it is made.

        Args:
            image: The bytes of a file, a scalar string; or uint8 `(height, width, channels)` in [0, 255] with 1, 3 or
                4 channels.

        Returns:
            float32 `(height, width, 3)`; the sizes are known where the options fix them.

        Raises:
            TypeError, ValueError: `image` has another type or shape, or `do_convert_rgb=False` with encoded images,
                or with other than 1 or 3 channels.
            tf.errors.InvalidArgumentError: The image is damaged, too large or refused, when the graph runs.

        Checked against `processor(image)`, and so against Pillow 13.0, on photographs and random sizes from 1x1.
        """
        from keras_bit.images import graph_preprocessing

        return graph_preprocessing.preprocess(image, self)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """The (height, width) in pixels of every result; `None` where it depends on the image."""
        fixed = self.crop_size if self.do_center_crop else self.size if self.do_resize else {}
        return (fixed["height"], fixed["width"]) if "height" in fixed else None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> Self:
        """Reads the processor of a checkpoint.

        That is its `preprocessor_config.json`, else its `processor_config.json`, else, in timm's layout, the
        `pretrained_cfg` in its `config.json`.

        Keys that are no option of this class are ignored, and `null` means the default.

        Args:
            source: A Hub id, or a local directory or a file in it.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Where downloads are kept. `None` is huggingface_hub's own cache.
            token: For private repositories.
            local_files_only: Whether to use only what was downloaded before.
            **overrides: Options that replace the file's.

        Raises:
            FileNotFoundError: `source` has none of them.
            ValueError: The file is not a processor's configuration, or holds an impossible value.
        """
        where = {"revision": revision, "cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
        path = hub.find_file(source, (CONFIG_NAME, PROCESSOR_CONFIG_NAME), hub.HubOptions(**where))
        if path is None:
            # Asked for by itself: with the others it would be taken first where the model's own reading cached it.
            path = hub.find_file(source, (TIMM_CONFIG_NAME,), hub.HubOptions(**where))
            config = {} if path is None else hub.read_json(path)
            if "pretrained_cfg" not in config:
                raise FileNotFoundError(
                    f"{str(source)!r} has no {CONFIG_NAME} and no {PROCESSOR_CONFIG_NAME}. Build the processor with "
                    "`BitImageProcessor(...)`, and write it beside the weights with `save_pretrained`."
                )
            try:
                return cls.from_timm(config["pretrained_cfg"])._replaced(overrides)
            except (TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"{path}: `pretrained_cfg` describes no processor: {error}") from error
        config = hub.read_json(path)
        if path.name == PROCESSOR_CONFIG_NAME:
            config = config.get("image_processor")
            if not isinstance(config, dict):
                raise ValueError(f"{path} has no object under the key 'image_processor'.")
        try:
            processor = cls(**{name: config[name] for name in _option_names() if config.get(name) is not None})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        return processor._replaced(overrides)

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any]) -> Self:
        """The processor of a checkpoint in timm's layout: its evaluation transform, with Pillow.

        The short edge becomes `floor(input size / crop_pct)`, and the input size is cropped from its middle;
        `crop_mode="squash"` resizes to the input size at once. Where an odd number of pixels is cut, timm crops by
        rounding and this class, as transformers, by flooring.

        Args:
            pretrained_cfg: `input_size` (channels, height, width), `crop_pct`, `crop_mode`, `interpolation`, `mean` and
                `std`, as in timm's `config.json`; missing ones mean timm's defaults.

        Raises:
            ValueError: an input size that is not square, or a mode or interpolation that has no counterpart here.

        Checked against timm 1.0.31 `data/transforms_factory.py`.
        """
        _, height, width = pretrained_cfg.get("input_size") or (3, 224, 224)
        interpolation = pretrained_cfg.get("interpolation", "bicubic")
        filters = {resample.name.lower(): resample for resample in FILTERS}
        if interpolation not in filters:
            raise ValueError(f"`interpolation` must be one of {', '.join(filters)}. Received: {interpolation!r}")
        options = {
            "crop_size": {"height": height, "width": width},
            "resample": filters[interpolation],
            "image_mean": pretrained_cfg.get("mean", (0.485, 0.456, 0.406)),
            "image_std": pretrained_cfg.get("std", (0.229, 0.224, 0.225)),
        }
        crop_mode = pretrained_cfg.get("crop_mode", "center")
        if crop_mode == "squash" and pretrained_cfg.get("crop_pct", 0.875) == 1:
            return cls(size=options["crop_size"], do_center_crop=False, **options)
        if crop_mode != "center" or height != width:
            raise ValueError(
                "`crop_mode` must be 'center' with a square `input_size`, or 'squash' with a `crop_pct` of 1. "
                f"Received: crop_mode={crop_mode!r}, input_size={(height, width)}"
            )
        return cls(size=math.floor(height / pretrained_cfg.get("crop_pct", 0.875)), **options)

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes `preprocessor_config.json`, which transformers' `AutoImageProcessor` reads too, into `directory`.

        Args:
            directory: Is made where it does not exist. A file of that name in it is replaced, in one step.

        Raises:
            NotADirectoryError: `directory` is a file.
        """
        directory = Path(directory)
        if directory.exists() and not directory.is_dir():
            raise NotADirectoryError(f"`directory` must be a directory, or a new name for one. {directory} is a file.")
        directory.mkdir(parents=True, exist_ok=True)
        with files.replacing(directory / CONFIG_NAME) as beside:
            beside.write_text(json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as JSON values, under transformers' names, with the `image_processor_type`."""
        options = {name: getattr(self, name) for name in _option_names()}
        options["resample"] = int(options["resample"])
        for name, value in options.items():
            if isinstance(value, dict):
                options[name] = dict(value)
            elif isinstance(value, tuple):
                options[name] = list(value)
        return {"image_processor_type": "BitImageProcessor", **options}

    def _replaced(self, overrides: Mapping[str, Any]) -> Self:
        unknown = sorted(set(overrides) - set(_option_names()))
        if unknown:
            raise TypeError(
                f"Unknown options: {', '.join(f'`{name}`' for name in unknown)}. Expected: {', '.join(_option_names())}"
            )
        given = {name: value for name, value in overrides.items() if value is not None}
        return dataclasses.replace(self, **given) if given else self

    def _process(self, name: str, image: np.ndarray) -> np.ndarray:
        """Takes one `(height, width, channels)` array of any number type through the steps, to float32."""
        if self.do_normalize:
            self._check_channels(image.shape[-1], name)
        if self.do_rescale and image.dtype.kind == "f" and image.min() >= 0 and 0 < image.max() <= 1:
            # transformers 4 warns too: the result is one nearly uniform color
            warnings.warn(
                f"{name} is in [0, 1] already, and `do_rescale` multiplies it by {self.rescale_factor:.4g} again. "
                "Pass `do_rescale=False`.",
                stacklevel=3,
            )
        if self.do_resize:
            image = _resize(name, image, resized_shape(*image.shape[:2], self.size), self.resample)
        if self.do_center_crop:
            image = center_crop(image, self.crop_size["height"], self.crop_size["width"])
        if image.dtype == np.uint8:
            return self._look_up(image)
        return self._rescale_and_normalize(image)

    def _rescale_and_normalize(self, image: np.ndarray) -> np.ndarray:
        if self.do_rescale:
            image = (image.astype(np.float64) * self.rescale_factor).astype(np.float32)
        if self.do_normalize:
            if image.dtype.kind != "f":
                image = image.astype(np.float32)
            # a float16 or float64 array that was not rescaled is normalized in its own type, as in transformers
            image = (image - np.array(self.image_mean, image.dtype)) / np.array(self.image_std, image.dtype)
        return image.astype(np.float32, copy=False)

    def _look_up(self, image: np.ndarray) -> np.ndarray:
        """The same for uint8, four times as fast: its 256 values are computed once per channel."""
        channels = image.shape[-1]
        values = np.arange(256, dtype=np.uint8)
        table = self._rescale_and_normalize(np.stack([values] * channels, axis=-1))
        result = np.empty(image.shape, np.float32)
        for channel in range(channels):
            result[..., channel] = np.take(table[:, channel], image[..., channel])
        return result

    def _check_channels(self, channels: int, name: str) -> None:
        for option in ("image_mean", "image_std"):
            values = getattr(self, option)
            if isinstance(values, tuple) and len(values) != channels:
                raise ValueError(
                    f"`{option}` has {len(values)} values, but {name} has {channels} channels. Give one value per "
                    "channel, or a single number."
                )


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Scales pixels from `[0, 255]` to `[-1, 1]`: `x / 127.5 - 1`.

    Args:
        x: A numpy array or a tensor of Keras' backend, of any shape, with values in `[0, 255]`. It is not modified.
        data_format: `"channels_last"`, `"channels_first"` or `None`, as in `keras.applications`; it changes nothing.

    Returns:
        The same kind of array: float32 for integers, else of the type of `x`.

    Raises:
        ValueError: `data_format` is something else.
        TypeError: `x` is neither array nor tensor.

    Source: Keras 3.15, `applications/imagenet_utils.py`, mode "tf", which writes its result into a numpy argument.
    """
    _check_choice("data_format", data_format, (None, *DATA_FORMATS))
    if not hasattr(x, "dtype"):
        raise TypeError(f"`x` must be a numpy array or a tensor. Received: {type(x).__name__}")
    if isinstance(x, (np.ndarray, np.generic)):
        if x.dtype.kind in "biu":
            x = x.astype(np.float32)
    else:
        import keras

        if not keras.backend.is_float_dtype(x.dtype):
            x = keras.ops.cast(x, "float32")
    return x / 127.5 - 1.0


def resized_shape(height: int, width: int, size: Mapping[str, int]) -> tuple[int, int]:
    """Returns the height and width that an image is resized to, by transformers' rule for `size`."""
    if "shortest_edge" not in size:
        return size["height"], size["width"]
    short = size["shortest_edge"]
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def center_crop(image: np.ndarray, crop_height: int, crop_width: int) -> np.ndarray:
    """Cuts `(crop_height, crop_width, channels)` out of the middle; what the image lacks is zero."""
    height, width, channels = image.shape
    top, left = (height - crop_height) // 2, (width - crop_width) // 2  # negative where zeros are added
    cut = image[max(top, 0) :, max(left, 0) :][:crop_height, :crop_width]
    if cut.shape == (crop_height, crop_width, channels):
        return cut
    result = np.zeros((crop_height, crop_width, channels), image.dtype)
    result[max(-top, 0) :, max(-left, 0) :][: cut.shape[0], : cut.shape[1]] = cut
    return result


def _resize(name: str, image: np.ndarray, shape: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """Pillow resizes uint8 only, so arrays of fractions go there and back, with transformers' truncation."""
    # Pillow's own limit for a file that it decodes. A long, thin image of few bytes gets past it, and its short edge
    # enlarged makes it enormous.
    if Image.MAX_IMAGE_PIXELS is not None and math.prod(shape) > 2 * Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"{name} of {image.shape[0]}x{image.shape[1]} px would be resized to {shape[0]}x{shape[1]}, more than "
            f"{2 * Image.MAX_IMAGE_PIXELS:,} pixels. Crop it first, or raise `PIL.Image.MAX_IMAGE_PIXELS`."
        )
    fractions = image.dtype != np.uint8 and not _is_whole(image)
    low, high = (0, 1) if fractions else (0, 255)
    if image.min() < low or image.max() > high:
        raise ValueError(
            f"{name} can't be resized: it must hold whole numbers in [0, 255] or fractions in [0, 1]. "
            f"Received: {'fractions' if fractions else 'whole numbers'} in [{image.min()}, {image.max()}]. Scale it, "
            "or pass `do_resize=False`."
        )
    if fractions:
        image = (image.astype(np.float64) * 255).astype(np.float32)
    image = image.astype(np.uint8, copy=False)
    # a trailing axis of 1 is no gray image to Pillow
    pillow = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(pillow.resize((shape[1], shape[0]), resample)).reshape(*shape, image.shape[-1])
    if fractions:
        return (resized.astype(np.float64) * (1 / 255)).astype(np.float32)
    return resized


def _is_whole(image: np.ndarray) -> bool:
    """Whether transformers takes the values for whole numbers: all are within `numpy.allclose`'s tolerance."""
    return image.dtype.kind in "biu" or np.allclose(image, np.trunc(image).astype(np.float64))


def _stack(results: Mapping[str, np.ndarray]) -> np.ndarray:
    first_name, first = next(iter(results.items()))
    for name, result in results.items():
        if result.shape != first.shape:
            raise ValueError(
                f"The results must have one shape (height, width, channels) to make a batch. {first_name} has "
                f"{first.shape}, {name} has {result.shape}. Turn on `do_center_crop`, or give `size` a height and a "
                "width, or pass the images one at a time."
            )
    return np.stack(list(results.values()))


def _to_framework(batch: np.ndarray, return_tensors: str | None) -> Any:
    if return_tensors not in TENSOR_PACKAGES:
        return batch
    package = TENSOR_PACKAGES[return_tensors]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"`return_tensors={return_tensors!r}` needs {package}: pip install {package}") from error
    if return_tensors == "tf":
        return module.convert_to_tensor(batch)
    if return_tensors == "pt":
        return module.from_numpy(batch)
    return module.numpy.asarray(batch)


def _option_names() -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(BitImageProcessor))


def _check_choice(name: str, value: Any, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}. Received: {value!r}")


def _size(value: Any) -> dict[str, int]:
    if isinstance(value, numbers.Integral):
        value = {"shortest_edge": value}
    return _pixels("size", value, ({"shortest_edge"}, {"height", "width"}))


def _crop_size(value: Any) -> dict[str, int]:
    if isinstance(value, numbers.Integral):
        value = {"height": value, "width": value}
    return _pixels("crop_size", value, ({"height", "width"},))


def _pixels(name: str, value: Any, allowed: tuple[set[str], ...]) -> dict[str, int]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = dict(zip(("height", "width"), value, strict=True))
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a dictionary, an int or a pair (height, width). Received: {value!r}")
    if set(value) not in allowed:
        keys = " or ".join(" and ".join(map(repr, sorted(keys))) for keys in allowed)
        raise ValueError(f"`{name}` must have the keys {keys}. Received: {value!r}")
    for key, pixels in value.items():
        if not isinstance(pixels, numbers.Integral) or isinstance(pixels, bool):
            raise TypeError(f"`{name}` must hold whole numbers of pixels. Received: {key}={pixels!r}")
        if pixels < 1:
            raise ValueError(f"`{name}` must be at least 1 pixel. Received: {key}={pixels}")
    return {key: operator.index(pixels) for key, pixels in sorted(value.items())}


def _resample(value: Any) -> Image.Resampling:
    try:
        if not isinstance(value, bool) and Image.Resampling(value) in FILTERS:
            return Image.Resampling(value)
    except ValueError:
        pass
    filters = ", ".join(f"{number.value} ({number.name.lower()})" for number in FILTERS)
    raise ValueError(f"`resample` must be one of Pillow's filters: {filters}. Received: {value!r}")


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number. Received: {value!r}")
    if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
        raise ValueError(f"`{name}` must be finite in float32. Received: {value!r}")
    return float(value)


def _per_channel(name: str, value: Any) -> tuple[float, ...] | float:
    if isinstance(value, numbers.Real):
        return _finite(name, value)
    if isinstance(value, (list, tuple, np.ndarray)) and 1 <= len(value) <= 4:
        return tuple(_finite(name, number) for number in value)
    raise ValueError(f"`{name}` must be a number, or a list of one per channel. Received: {value!r}")
