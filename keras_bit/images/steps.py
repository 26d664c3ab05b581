"""The steps of the processor on one `(height, width, channels)` array: resize, crop, rescale, normalize."""

import functools
import math
from collections.abc import Mapping

import numpy as np
from PIL import Image

PerChannel = tuple[float, ...] | float  # one number for each channel, or one for all


def resized_shape(height: int, width: int, size: Mapping[str, int]) -> tuple[int, int]:
    """Returns the height and width that an image is resized to, by transformers' rule for `size`."""
    if "shortest_edge" not in size:
        return size["height"], size["width"]
    short = size["shortest_edge"]
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def resize(name: str, image: np.ndarray, shape: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """Resizes an array with Pillow.

    Pillow resizes only uint8 here, so fractions are converted to uint8 and back, with transformers' truncation.
    """
    check_not_enormous(name, image.shape[:2], shape)
    fractions = image.dtype != np.uint8 and not _is_whole(image)
    low, high = (0, 1) if fractions else (0, 255)
    if image.min() < low or image.max() > high:
        raise ValueError(
            f"{name} can't be resized: it must hold whole numbers in [0, 255] or fractions in [0, 1], got "
            f"{'fractions' if fractions else 'whole numbers'} in [{image.min()}, {image.max()}]. Scale it, or pass "
            "`do_resize=False`."
        )
    if fractions:
        image = (image.astype(np.float64) * 255).astype(np.float32)
    image = image.astype(np.uint8, copy=False)
    # Pillow does not accept a trailing axis of 1 as a gray image
    pillow = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(pillow.resize((shape[1], shape[0]), resample)).reshape(*shape, image.shape[-1])
    if fractions:
        return (resized.astype(np.float64) * (1 / 255)).astype(np.float32)
    return resized


def check_not_enormous(name: str, size: tuple[int, int], shape: tuple[int, int]) -> None:
    """Refuses an image of this (height, width) that would be resized to more pixels than Pillow decodes.

    A long, thin image of few bytes is within the limit for files, but becomes enormous if its short edge is enlarged.
    """
    if Image.MAX_IMAGE_PIXELS is not None and math.prod(shape) > 2 * Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"{name} of {size[0]}x{size[1]} px would be resized to {shape[0]}x{shape[1]}, more than "
            f"{2 * Image.MAX_IMAGE_PIXELS:,} pixels. Crop it first, or raise `PIL.Image.MAX_IMAGE_PIXELS`."
        )


def center_crop(image: np.ndarray, crop_height: int, crop_width: int) -> np.ndarray:
    """Cuts `(crop_height, crop_width, channels)` out of the center; a smaller image is padded with zeros."""
    height, width, channels = image.shape
    top, left = (height - crop_height) // 2, (width - crop_width) // 2  # negative where zeros are added
    cut = image[max(top, 0) :, max(left, 0) :][:crop_height, :crop_width]
    if cut.shape == (crop_height, crop_width, channels):
        return cut
    result = np.zeros((crop_height, crop_width, channels), image.dtype)
    result[max(-top, 0) :, max(-left, 0) :][: cut.shape[0], : cut.shape[1]] = cut
    return result


def rescale_and_normalize(
    image: np.ndarray,
    rescale_factor: float | None,
    mean_and_std: tuple[PerChannel, PerChannel] | None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Multiplies by the factor, subtracts the mean, divides by the deviation, to float32; `None` skips a step.

    `out` is a float32 array of a uint8 image's shape to write to.
    """
    if image.dtype != np.uint8:
        return _rescale_and_normalize(image, rescale_factor, mean_and_std)
    result = np.empty(image.shape, np.float32) if out is None else out
    if _float32_is_exact(image.shape[-1], rescale_factor, mean_and_std):
        return _by_float32(image, rescale_factor, mean_and_std, result)
    # The 256 values of a uint8 are computed once per channel.
    table = value_table(image.shape[-1], rescale_factor, mean_and_std)
    # No index is out of range; the mode "raise" would write to a copy first.
    if table.ndim == 1:
        return np.take(table, image, out=result, mode="clip")
    for channel in range(image.shape[-1]):
        result[..., channel] = np.take(table[:, channel], image[..., channel])
    return result


def _by_float32(
    image: np.ndarray,
    rescale_factor: float | None,
    mean_and_std: tuple[PerChannel, PerChannel] | None,
    out: np.ndarray,
) -> np.ndarray:
    """Rescales and normalizes in float32, in place. This is faster than a table, but not exact for every factor."""
    height, width, channels = image.shape
    # numpy is fast for long rows of numbers and slow for rows of three.
    pixels, result = image.reshape(height, width * channels), out.reshape(height, width * channels)
    if rescale_factor is None:
        result[...] = pixels
    else:
        # A product with the factor would round differently from float64, in which transformers computes it.
        np.divide(pixels, np.float32(1 / rescale_factor), out=result, dtype=np.float32)
    if mean_and_std is not None:
        mean, std = (_row(values, width, channels) for values in mean_and_std)
        np.subtract(result, mean, out=result)
        np.divide(result, std, out=result)
    return out


def _row(values: PerChannel, width: int, channels: int) -> np.ndarray:
    row = np.broadcast_to(np.array(values, np.float32), channels)
    return row[:1] if (row == row[0]).all() else np.tile(row, width)


@functools.lru_cache(maxsize=16)
def _float32_is_exact(
    channels: int, rescale_factor: float | None, mean_and_std: tuple[PerChannel, PerChannel] | None
) -> bool:
    """Returns whether `_by_float32` gives every value of the table; it does for the factors 1/255 and 1/127.5."""
    if not channels or rescale_factor == 0:
        return False
    table = value_table(channels, rescale_factor, mean_and_std)
    values = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], channels, axis=-1)
    with np.errstate(all="ignore"):
        computed = _by_float32(values, rescale_factor, mean_and_std, np.empty(values.shape, np.float32))
    return bool((computed[:, 0] == table.reshape(256, -1)).all())


@functools.lru_cache(maxsize=16)
def value_table(
    channels: int, rescale_factor: float | None, mean_and_std: tuple[PerChannel, PerChannel] | None
) -> np.ndarray:
    """Returns the results for the values 0 to 255, float32 `(256, channels)`, or `(256,)` if all channels are equal."""
    values = np.stack([np.arange(256, dtype=np.uint8)] * channels, axis=-1)
    table = _rescale_and_normalize(values, rescale_factor, mean_and_std)
    return np.ascontiguousarray(table[:, 0]) if (table == table[:, :1]).all() else table


def _rescale_and_normalize(
    image: np.ndarray, rescale_factor: float | None, mean_and_std: tuple[PerChannel, PerChannel] | None
) -> np.ndarray:
    if rescale_factor is not None:
        image = (image.astype(np.float64) * rescale_factor).astype(np.float32)
    if mean_and_std is not None:
        if image.dtype.kind != "f":
            image = image.astype(np.float32)
        # a float16 or float64 array that was not rescaled is normalized in its own type, as in transformers
        mean, std = (np.array(values, image.dtype) for values in mean_and_std)
        image = (image - mean) / std
    return image.astype(np.float32, copy=False)


def _is_whole(image: np.ndarray) -> bool:
    """Returns whether transformers takes the values for whole numbers: all are within `numpy.allclose`'s tolerance."""
    return image.dtype.kind in "biu" or np.allclose(image, np.trunc(image).astype(np.float64))
