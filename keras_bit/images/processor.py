"""From images to the float32 batch that BiT expects, with the values of transformers' Pillow image processor."""

import dataclasses
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from keras_bit import packages
from keras_bit.files import writing
from keras_bit.hub.finding import HubOptions
from keras_bit.images import batches, fixed, inputs, options, pillow_steps, steps
from keras_bit.images.batch_feature import BatchFeature
from keras_bit.images.batches import TENSOR_PACKAGES, Results
from keras_bit.images.inputs import DATA_FORMATS, GRAY, ORIENTATIONS, AnyImage
from keras_bit.images.options import CONFIG_NAME, TIMM_CONFIG_NAME
from keras_bit.images.steps import PerChannel

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB in [0, 1]; transformers' OPENAI_CLIP_MEAN
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)  # of RGB in [0, 1]; transformers' OPENAI_CLIP_STD

# What google/bit-50 has in its preprocessor_config.json.
BIT_50: dict[str, Any] = {
    "size": 448,
    "crop_size": 448,
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


@dataclasses.dataclass(frozen=True, init=False)
class BitImageProcessor:
    """Resizes, crops, rescales and normalizes images as transformers' BiT processor does with Pillow, bit for bit.

    These steps run in this order, each if its `do_` option is on:

    1. convert: `image.convert("RGB")`; an alpha channel is dropped, never composited.
    2. resize: Pillow's resize of the uint8 image. `{"shortest_edge": s}` makes the short side `s` and the long side
       `int(s * long / short)`; `{"height": h, "width": w}` makes exactly that.
    3. center crop: to `crop_size`; starts at `(size - crop) // 2`; a smaller image is padded with zeros (which the next
       steps rescale and normalize too).
    4. rescale: `float32(float64(x) * rescale_factor)`.
    5. normalize: `(x - image_mean) / image_std` in float32.

    Examples:
        >>> processor = BitImageProcessor(size=448, crop_size=448, resample=2, image_mean=0.5, image_std=0.5)
        >>> processor(Image.new("RGB", (640, 480), "white")).shape
        (1, 448, 448, 3)

    Encoded images (paths and bytes) are first turned upright by their orientation tag, as `PIL.ImageOps.exif_transpose`
    does: by Exif, else by XMP. A damaged tag, or one that is not 1 to 8, is ignored. PIL images and arrays are taken as
    they are. If a file has several frames, the first is used.

    Gray images of more than 8 bits (Pillow's modes `I`, `I;16` and `F`) are refused, because Pillow would make every
    value above 255 white instead of scaling to 8 bits. Color files of 16 bits are read: Pillow's decoder keeps the
    upper byte.

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
        orientation: `"upright"` turns encoded images upright; `"ignore"` leaves them as `PIL.Image.open` returns them
            (which turns TIFF files upright by itself).

    Raises:
        ValueError: An option has an impossible value.
        TypeError: An option has the wrong type.

    Source: transformers 5.23, `models/bit/image_processing_pil_bit.py`, and version 4 for what happens to alpha;
    `load_image` in `image_utils.py` for the orientation.
    """

    do_resize: bool
    size: Mapping[str, int]
    resample: Image.Resampling
    do_center_crop: bool
    crop_size: Mapping[str, int]
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: PerChannel
    image_std: PerChannel
    do_convert_rgb: bool
    orientation: str

    # Written out because it accepts more types than the fields hold.
    def __init__(
        self,
        do_resize: bool = True,
        size: Mapping[str, int] | Sequence[int] | int | None = None,
        resample: Image.Resampling | int = Image.Resampling.BICUBIC,
        do_center_crop: bool = True,
        crop_size: Mapping[str, int] | Sequence[int] | int | None = None,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: Sequence[float] | float | None = None,
        image_std: Sequence[float] | float | None = None,
        do_convert_rgb: bool = True,
        *,
        orientation: str = "upright",
    ) -> None:
        options.check_choice("orientation", orientation, ORIENTATIONS)
        kept = {
            "do_resize": options.switch("do_resize", do_resize),
            "do_center_crop": options.switch("do_center_crop", do_center_crop),
            "do_rescale": options.switch("do_rescale", do_rescale),
            "do_normalize": options.switch("do_normalize", do_normalize),
            "do_convert_rgb": options.switch("do_convert_rgb", do_convert_rgb),
            "size": fixed.Fixed("size", options.size({"shortest_edge": 224} if size is None else size)),
            "crop_size": fixed.Fixed("crop_size", options.crop_size(224 if crop_size is None else crop_size)),
            "resample": options.resample(resample),
            "rescale_factor": options.finite("rescale_factor", rescale_factor),
            "image_mean": options.per_channel("image_mean", CLIP_MEAN if image_mean is None else image_mean),
            "image_std": options.deviation(CLIP_STD if image_std is None else image_std),
            "orientation": orientation,
        }
        for name, value in kept.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen
        if do_normalize and do_convert_rgb:
            self._check_channels(3, "an RGB image")

    def __call__(
        self,
        images: AnyImage | Sequence[AnyImage],
        *,
        data_format: str | None = "channels_last",
        input_data_format: str | None = None,
        return_tensors: str | None = None,
        **overrides: Any,
    ) -> Any:
        """Returns one float32 batch of `(batch, height, width, channels)`, or a dictionary with it.

        Arrays are uint8 `[0, 255]`, or another number type. Resizing needs 8-bit values: whole numbers in `[0, 255]`
        are used directly; fractions must lie in `[0, 1]` and are scaled to uint8 (by truncation), resized and scaled
        back. An array of only 0.0 and 1.0 counts as whole numbers. `do_rescale` is applied in any case, so turn it off
        for arrays in `[0, 1]`.

        With `do_convert_rgb` arrays may have 1, 3 or 4 channels: gray is repeated, alpha is dropped.

        Args:
            images: One image or a sequence of them, such as a list or a column of a table (`datasets`, pandas). Each
                is a PIL image, an array or tensor of `(height, width, channels)`, `(channels, height, width)` or
                `(height, width)`, a batch of such arrays in 4 dimensions, an encoded file's bytes, or a path.
            data_format: Order of the result: `"channels_last"`, or `"channels_first"` for `(batch, channels, height,
                width)`, or `None` for the order of the given arrays (`"channels_last"` for other images).
            input_data_format: Order of the arrays. `None` takes the axis that has 1, 3 or 4 entries. If both the first
                and the last have, it takes the first and warns. `"none"` is `(height, width)`, or `(batch, height,
                width)`. Capitals and transformers' `ChannelDimension` are accepted too.
            return_tensors: `None` gives the numpy array itself. `"np"`, `"tf"`, `"pt"` and `"jax"` give a
                `BatchFeature`, a dictionary with the key `pixel_values`, for `model(**inputs)`, `model(inputs)`,
                `predict(inputs)` and `fit(inputs, y)`.
            **overrides: Any option of the processor, for this call; `None` means the processor's own.

        Raises:
            ValueError: An image can't be read or doesn't fit the options, is a JPEG with so many scans that decoding
                would take minutes, or the results differ in size.
            TypeError: Something in `images` is not an image, or an override is not an option.
            FileNotFoundError: A path does not exist.
            IsADirectoryError: A path is a directory.
            PIL.Image.DecompressionBombError: An image has more pixels than Pillow's limit allows.
            ImportError: The package for `return_tensors` is not installed.
        """
        found = self._several(images, data_format, input_data_format, return_tensors, overrides)
        if found.return_tensors is None:
            return found.stacked()
        return BatchFeature(pixel_values=batches.to_framework(found.stacked(), found.return_tensors))

    def preprocess(
        self,
        images: AnyImage | Sequence[AnyImage],
        *,
        data_format: str | None = "channels_last",
        input_data_format: str | None = None,
        return_tensors: str | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Does the same as a call, under transformers' name, but always returns a `BatchFeature`.

        Args:
            images: One image or a sequence of them, as in a call of the processor.
            data_format: Order of the result: `"channels_last"`, `"channels_first"`, or `None` for the order of the
                given arrays.
            input_data_format: Order of the given arrays: `"channels_last"`, `"channels_first"` or `"none"` (without
                channels). `None` finds the axis of the channels by its size.
            return_tensors: `"np"`, `"tf"`, `"pt"` or `"jax"` make `pixel_values` one batch. With `None` it is a list of
                float32 arrays, one for each image, which may differ in size.
            **overrides: Any option of the processor, for this call; `None` means the processor's own.

        Raises:
            TypeError, ValueError: As a call of the processor. Without `return_tensors`, results may differ in size.

        Checked against transformers 5.23 `BitImageProcessorPil.preprocess`.
        """
        found = self._several(images, data_format, input_data_format, return_tensors, overrides)
        if found.return_tensors is None:
            return BatchFeature(pixel_values=found.listed())
        return BatchFeature(pixel_values=batches.to_framework(found.stacked(), found.return_tensors))

    def _several(
        self,
        images: AnyImage | Sequence[AnyImage],
        data_format: str | None,
        input_data_format: str | None,
        return_tensors: str | None,
        overrides: Mapping[str, Any],
    ) -> Results:
        processor = self._replaced(overrides)
        data_format = options.choice("data_format", data_format, (None, *DATA_FORMATS))
        input_data_format = options.choice("input_data_format", input_data_format, (None, *DATA_FORMATS, GRAY))
        return_tensors = options.choice("return_tensors", return_tensors, (None, "np", *TENSOR_PACKAGES))
        results, orders = {}, []
        for name, image, order in processor._each(images, input_data_format):
            results[name] = image
            orders.append(order if data_format is None else data_format)
        if not results:
            raise ValueError("`images` must have at least one image, got none.")
        return Results(results, orders, return_tensors)

    def each(
        self, images: AnyImage | Sequence[AnyImage], input_data_format: str | None = None
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Reads images one at a time, on demand: any number of them, of any sizes.

        Args:
            images: One image or a sequence of them: PIL images, arrays, encoded files' bytes or paths, as in a call.
            input_data_format: Order of the arrays: `"channels_last"`, `"channels_first"` or `"none"`. `None` finds the
                axis of the channels by its size.

        Yields:
            The image's name in errors, such as ``"`images[3]` (cat.jpg)"``, and float32 `(height, width, channels)`.

        Raises:
            TypeError, ValueError: As a call of the processor, when the image is read.
        """
        for name, image, _ in self._each(images, input_data_format):
            yield name, image

    def _each(
        self, images: AnyImage | Sequence[AnyImage], input_data_format: str | None
    ) -> Iterator[tuple[str, np.ndarray, str]]:
        for name, image, order in inputs.each(images, input_data_format, self.do_convert_rgb, self.orientation):
            yield name, self._process(name, image), order

    def tf_preprocess(self, image: Any) -> Any:
        """Processes one image in a TensorFlow graph, bit for bit as a call: `dataset.map(processor.tf_preprocess)`.

        JPEG (not CMYK), PNG (not gray of 16 bits), GIF (first frame, without transparency), BMP (24 or 32 bits) and
        WebP (not animated) are decoded to Pillow's values; only the part of a JPEG that the crop keeps is decoded.
        Images for which TensorFlow's decoders would give other values are refused; `processor(path)` reads most of
        them. Alpha is dropped, and images are turned upright by Exif only: XMP and PNG's `Raw profile type exif` are
        not read. An image of more than `2 * PIL.Image.MAX_IMAGE_PIXELS` (read when the graph is made) or a JPEG of too
        many scans is refused, as in `processor(path)`.

        Damaged files are the exception. TensorFlow may decode a damaged JPEG, GIF or BMP that Pillow refuses, and
        Pillow may read one that TensorFlow refuses, such as a PNG with a wrong checksum. Damage behind the crop of a
        JPEG is not noticed. The two decoders fill in missing parts of a damaged progressive JPEG differently.

        Pillow 13 resizes some images in another order than 12; the graph follows the Pillow that is installed when it
        is made.

        Args:
            image: The bytes of a file, a scalar string; or uint8 `(height, width, channels)` in [0, 255] with 1, 3 or
                4 channels.

        Returns:
            float32 `(height, width, 3)`; the sizes are known if the options fix them.

        Raises:
            TypeError, ValueError: `image` has another type or shape, or `do_convert_rgb=False` with encoded images,
                or with other than 1 or 3 channels.
            tf.errors.InvalidArgumentError: The image is damaged, too large or refused, when the graph runs.

        Checked against `processor(image)`, and so against Pillow 13.0, on photographs and random sizes from 1x1.
        """
        packages.require_tensorflow("`tf_preprocess`, which makes a graph of TensorFlow's operations,")
        from keras_bit.images import graph_preprocessing

        return graph_preprocessing.preprocess(image, self)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """The (height, width) in pixels of every result; `None` if it depends on the image."""
        if self.do_center_crop:
            return self.crop_size["height"], self.crop_size["width"]
        if self.do_resize and "height" in self.size:
            return self.size["height"], self.size["width"]
        return None

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

        It is in `preprocessor_config.json`, else in `processor_config.json`, else, in timm's layout, in the
        `pretrained_cfg` of `config.json`. A file of `BiTClassifier.save` contains its own.

        Keys that are not options of this class are ignored, and `null` means the default.

        Args:
            source: As for `keras_bit.from_pretrained`: a Hub id, a local directory or a file in it, a published name, a
                web address.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Where downloads are kept. `None` is huggingface_hub's own cache.
            token: A token for private repositories. `None` takes the one that `hf auth login` stored.
            local_files_only: Whether to use only what was downloaded before.
            **overrides: Options that replace the file's.

        Raises:
            FileNotFoundError: `source` has none of these files.
            ValueError: The file is not a processor's configuration, or holds an impossible value.
        """
        path, values = options.find(source, HubOptions(revision, cache_dir, token, local_files_only))
        try:
            if path.name == TIMM_CONFIG_NAME and "image_processor_type" not in values:  # which Keras' directory has
                processor = cls.from_timm(values)
            else:
                processor = cls(**{name: values[name] for name in _option_names() if values.get(name) is not None})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} does not describe a processor: {error}") from error
        return processor._replaced(overrides)

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any]) -> Self:
        """Makes the processor of a checkpoint in timm's layout: timm's evaluation transform, with Pillow.

        The short edge becomes `floor(input size / crop_pct)`, and the input size is cropped from its middle;
        `crop_mode="squash"` resizes to the input size directly. If an odd number of pixels is cut, timm rounds the
        crop's position, and this class rounds it down, as transformers does.

        Args:
            pretrained_cfg: `input_size` (channels, height, width), `crop_pct`, `crop_mode`, `interpolation`, `mean` and
                `std`, as in timm's `config.json`; missing ones mean timm's defaults.

        Raises:
            ValueError: an input size that is not square, or a mode or interpolation that has no counterpart here.

        Checked against timm 1.0.31 `data/transforms_factory.py`.
        """
        return cls(**options.from_timm(pretrained_cfg))

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes `preprocessor_config.json`, which transformers' `AutoImageProcessor` reads too, into `directory`.

        Args:
            directory: The directory for the file, which is created if needed. An existing file of that name is replaced
                in one step.

        Raises:
            NotADirectoryError: `directory` is a file.
        """
        directory = Path(directory)
        if directory.exists() and not directory.is_dir():
            raise NotADirectoryError(f"`directory` must be a directory, or a new name for one. {directory} is a file.")
        directory.mkdir(parents=True, exist_ok=True)
        with writing.replacing(directory / CONFIG_NAME) as beside:
            beside.write_text(json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as JSON values, under transformers' names, with the `image_processor_type`."""
        values = {name: getattr(self, name) for name in _option_names()}
        values["resample"] = int(self.resample)
        for name, value in values.items():
            if isinstance(value, dict):
                values[name] = dict(value)
            elif isinstance(value, tuple):
                values[name] = list(value)
        return {"image_processor_type": "BitImageProcessor", **values}

    def _replaced(self, overrides: Mapping[str, Any]) -> Self:
        unknown = sorted(set(overrides) - set(_option_names()))
        if unknown:
            raise TypeError(
                f"Unknown options: {', '.join(f'`{name}`' for name in unknown)}. Expected: {', '.join(_option_names())}"
            )
        given = {name: value for name, value in overrides.items() if value is not None}
        return dataclasses.replace(self, **given) if given else self

    def _process(self, name: str, image: np.ndarray | Image.Image) -> np.ndarray:
        """Applies the steps to an RGB image or a `(height, width, channels)` array of any number type."""
        if isinstance(image, Image.Image):
            return pillow_steps.preprocess(name, image, self)
        if self.do_normalize:
            self._check_channels(image.shape[-1], name)
        if self.do_rescale and image.dtype.kind == "f" and image.min() >= 0 and 0 < image.max() <= 1:
            # transformers 4 warns too: the result is one nearly uniform color
            warnings.warn(
                f"{name} is already in [0, 1], and `do_rescale` multiplies it by {self.rescale_factor:.4g} again. "
                "Pass `do_rescale=False`.",
                stacklevel=3,
            )
        if self.do_resize:
            shape = steps.resized_shape(image.shape[0], image.shape[1], self.size)
            image = steps.resize(name, image, shape, self.resample)
        if self.do_center_crop:
            image = steps.center_crop(image, self.crop_size["height"], self.crop_size["width"])
        return steps.rescale_and_normalize(
            image,
            self.rescale_factor if self.do_rescale else None,
            (self.image_mean, self.image_std) if self.do_normalize else None,
        )

    def _check_channels(self, channels: int, name: str) -> None:
        for option in ("image_mean", "image_std"):
            values = getattr(self, option)
            if isinstance(values, tuple) and len(values) != channels:
                raise ValueError(
                    f"`{option}` has {len(values)} values, but {name} has {channels} channels. Give one value per "
                    "channel, or a single number."
                )


def _refuse_change(processor: BitImageProcessor, option: str, *_: Any) -> None:
    fixed.refuse(option)


# A frozen dataclass refuses too, without saying what to do.
BitImageProcessor.__setattr__ = BitImageProcessor.__delattr__ = _refuse_change  # type: ignore[assignment, method-assign]


def processor_of(source: str | Path, hub: HubOptions) -> tuple[BitImageProcessor, bool]:
    """Returns a checkpoint's processor, or that of `google/bit-50` if it has none, and whether it is its own.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
    """
    try:
        return BitImageProcessor.from_pretrained(source, **hub.arguments), True
    except options.NoProcessorError:
        return BitImageProcessor(**BIT_50), False


def _option_names() -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(BitImageProcessor))
