"""`BitImageProcessor` in a TensorFlow graph, for `tf.data` and exported models: the array path's values, bit for bit.

Imports TensorFlow, so only functions import this module.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_bit.images import graph_decoding
from keras_bit.images.graph_resizing import Resize, Window
from keras_bit.images.steps import PerChannel

if TYPE_CHECKING:
    from keras_bit.images.processor import BitImageProcessor  # which imports this module

CHANNELS = 3


def preprocess(
    image: Any, processor: "BitImageProcessor", max_pixels: int | None = None, name: Any = "The image"
) -> Any:
    """Takes one image through the steps of `processor`; see `BitImageProcessor.tf_preprocess`.

    Args:
        image: the bytes of a file as a scalar string, or uint8 `(height, width, channels)` in [0, 255].
        processor: a `BitImageProcessor`.
        max_pixels: the most pixels of an encoded image; `None` is Pillow's limit.
        name: the name of an encoded image in errors; a string or a scalar tensor.
    """
    image = tf.convert_to_tensor(image)
    if image.dtype == tf.string:
        size, read = _encoded(image, processor, max_pixels, name)
    elif image.dtype == tf.uint8:
        pixels = _with_channels(checked_pixels(image, processor.do_convert_rgb), processor.do_convert_rgb)
        size, read = tuple(tf.unstack(tf.shape(pixels)[:2])), lambda window: window.cut(pixels)
    else:
        raise TypeError(
            "`image` must be the bytes of a file (a string tensor) or a uint8 tensor (height, width, channels), got "
            f"{image.dtype.name}. Call `processor(images)` for arrays of other types."
        )

    target = _resized_shape(size, processor.size) if processor.do_resize else size
    window, padding = _crop(target, processor)
    if processor.do_resize:
        resize = Resize(size, target, processor.resample, window)
        with tf.control_dependencies([_check_not_enormous(target, name)]):
            pixels = resize.apply(read(resize.source))
    else:
        pixels = read(window)
    if padding is not None:
        pixels = tf.pad(pixels, [*padding, [0, 0]])
    if processor.do_center_crop:
        crop = processor.crop_size
        pixels = tf.ensure_shape(pixels, [crop["height"], crop["width"], pixels.shape[-1]])
    return rescale_and_normalize(pixels, processor)


def _encoded(
    contents: Any, processor: "BitImageProcessor", max_pixels: int | None, name: Any
) -> tuple[tuple[Any, Any], Callable[[Window], Any]]:
    """Returns the size of an encoded image, and a function that decodes a part of it."""
    if contents.shape.rank != 0:
        raise ValueError(
            f"`image` must be one image, a scalar string, got a string tensor of the shape {contents.shape}. Use "
            "`tf.map_fn` or a dataset's `map` for batches."
        )
    if not processor.do_convert_rgb:
        raise ValueError(
            "`do_convert_rgb` must be True for encoded images in a graph, which are decoded as RGB, got False. "
            "Decode them yourself and pass the uint8 tensor, or use `processor(images)`."
        )
    header = checked_header(contents, max_pixels, processor.orientation, name)
    return (header.height, header.width), lambda window: graph_decoding.decode(contents, header, window)


def checked_header(
    contents: Any, max_pixels: int | None, orientation: str, name: Any = "The image"
) -> graph_decoding.Header:
    """Reads the header of an encoded image, and checks that it can be decoded here.

    Raises:
        tf.errors.InvalidArgumentError: it cannot be decoded, or has more than `max_pixels`.
    """
    header = graph_decoding.read_header(contents, pixel_limit(max_pixels), orientation)
    with tf.control_dependencies([_check(header.problem == "", tf.strings.join([name, " ", header.problem]))]):
        return graph_decoding.Header(*map(tf.identity, header))


def pixel_limit(max_pixels: int | None) -> int | None:
    """Returns the most pixels of an image: `max_pixels`, or Pillow's limit, which is twice `MAX_IMAGE_PIXELS`."""
    if max_pixels is None and Image.MAX_IMAGE_PIXELS is not None:
        return 2 * Image.MAX_IMAGE_PIXELS
    return max_pixels


def rescale_and_normalize(pixels: Any, processor: "BitImageProcessor") -> Any:
    """Applies the last two steps of `processor`, in the order and precision of the array path (`steps`).

    Args:
        pixels: `(height, width, channels)`, whole numbers in [0, 255] of any type.
        processor: a `BitImageProcessor`.

    Returns:
        float32 `(height, width, channels)`.
    """
    shape = tf.shape(pixels)
    # The operations work on lines of values, because broadcasting one pixel of three numbers is six times slower.
    lines = tf.reshape(pixels, [shape[0], shape[1] * shape[2]])
    if processor.do_rescale:
        lines = tf.cast(tf.cast(lines, tf.float64) * processor.rescale_factor, tf.float32)
    lines = tf.cast(lines, tf.float32)
    if processor.do_normalize:
        mean, std = (_per_value(values, shape[1]) for values in (processor.image_mean, processor.image_std))
        lines = (lines - mean) / std
    return tf.ensure_shape(tf.reshape(lines, shape), pixels.shape)


def _per_value(values: PerChannel, width: Any) -> Any:
    """Returns a number for each value in a line of pixels, or one for all."""
    alike = not isinstance(values, tuple) or len(set(values)) == 1
    one = np.float32(values[0] if isinstance(values, tuple) else values) if alike else np.array(values, np.float32)
    # TensorFlow's graph optimizer turns a division by a constant into a product with its reciprocal. For some values
    # the result differs in the last bit. So the constant is hidden from it; `divide_no_nan` would be ten times slower.
    unknown = tf.raw_ops.PlaceholderWithDefault(input=tf.constant(one), shape=one.shape)
    return unknown if alike else tf.tile(unknown, [width])


def checked_pixels(image: Any, convert_rgb: bool) -> Any:
    """Checks that uint8 `(height, width, channels)` has pixels, and channels that the processor's first step accepts.

    Raises:
        ValueError: it has other channels, no pixels or not 3 dimensions, as far as known when the graph is made.
        tf.errors.InvalidArgumentError: when the graph runs, it has other channels or no pixels.
    """
    if image.shape.rank != 3:
        raise ValueError(
            "`image` must have the shape (height, width, channels), or be a scalar string, got the shape "
            f"{image.shape}. Use `tf.map_fn` or a dataset's `map` for batches."
        )
    channels = image.shape[-1]
    # With `do_convert_rgb=False` Pillow's resize weights the colors by alpha, which this graph does not do.
    if not convert_rgb and channels not in (1, 3):
        raise ValueError(
            "`image` must have 1 or 3 channels, known when the graph is made, with `do_convert_rgb=False`, got "
            f"{channels}. Call `processor(images)` for others."
        )
    if channels not in (None, 1, 3, 4):
        raise ValueError(f"`image` must have 1, 3 or 4 channels to become RGB, got {channels}.")
    if 0 in image.shape:
        raise ValueError(f"`image` must have pixels, got the shape {image.shape}.")
    checks = []
    if None in image.shape:
        checks.append(_check(tf.size(image) > 0, "`image` must have pixels, got the shape", tf.shape(image)))
    if channels is None:
        message = "`image` must have 1, 3 or 4 channels to become RGB, got"
        checks.append(_check(tf.reduce_any(tf.shape(image)[-1] == [1, 3, 4]), message, tf.shape(image)[-1]))
    with tf.control_dependencies(checks):
        return tf.identity(image)


def _with_channels(image: Any, convert_rgb: bool) -> Any:
    """Applies the processor's first step to uint8 pixels."""
    if not convert_rgb:
        return image
    channels = image.shape[-1]
    if channels is None:
        is_gray = tf.shape(image)[-1] == 1
        image = tf.cond(is_gray, lambda: tf.repeat(image, CHANNELS, axis=-1), lambda: image[..., :CHANNELS])
        return tf.ensure_shape(image, [None, None, CHANNELS])
    return tf.repeat(image, CHANNELS, axis=-1) if channels == 1 else image[..., :CHANNELS]


def _resized_shape(size: tuple[Any, Any], target: Mapping[str, int]) -> tuple[Any, Any]:
    """Returns the height and width that an image is resized to: `steps.resized_shape` for tensors."""
    if "shortest_edge" not in target:
        return target["height"], target["width"]
    height, width = (tf.cast(side, tf.float64) for side in size)
    short = target["shortest_edge"]
    long = tf.cast(short * tf.maximum(height, width) / tf.minimum(height, width), tf.int32)
    upright = width <= height
    return tf.where(upright, long, short), tf.where(upright, short, long)


def _crop(size: tuple[Any, Any], processor: "BitImageProcessor") -> tuple[Window, list[list[Any]] | None]:
    """Returns the part of an image of `size` that the center crop keeps, and the zeros around it, if any."""
    if not processor.do_center_crop:
        return Window(0, 0, *size), None
    crop = (processor.crop_size["height"], processor.crop_size["width"])
    top, left = ((side - wanted) // 2 for side, wanted in zip(size, crop, strict=True))
    smallest = processor.size.get("shortest_edge") if processor.do_resize else 0
    sides = (smallest, smallest) if smallest is not None else size
    if all(isinstance(side, int) and side >= wanted for side, wanted in zip(sides, crop, strict=True)):
        return Window(top, left, *crop), None
    starts = [tf.convert_to_tensor(start) for start in (top, left)]
    height, width = (tf.minimum(side, wanted) for side, wanted in zip(size, crop, strict=True))
    before = [tf.maximum(-start, 0) for start in starts]
    padding = [
        [first, wanted - count - first] for first, wanted, count in zip(before, crop, (height, width), strict=True)
    ]
    top, left = (tf.maximum(start, 0) for start in starts)
    return Window(top, left, height, width), padding


def becomes_enormous(size: tuple[Any, Any], processor: "BitImageProcessor") -> Any:
    """Returns whether `preprocess` refuses a size (height, width), because it would be resized to too many pixels."""
    if not processor.do_resize:
        return tf.constant(False)
    return _is_enormous(_resized_shape(size, processor.size))


def _is_enormous(size: tuple[Any, Any]) -> Any:
    """Returns whether a resized image has more pixels than the array path allows (`steps.check_not_enormous`)."""
    limit = pixel_limit(None)
    if limit is None:
        return tf.constant(False)
    return tf.cast(size[0], tf.int64) * tf.cast(size[1], tf.int64) > limit


def _check_not_enormous(size: tuple[Any, Any], name: Any) -> Any:
    limit = pixel_limit(None)
    if limit is None:
        return tf.no_op()
    message = tf.strings.join([name, f" would be resized to more than {limit:,} pixels, by (height, width)"])
    return _check(~_is_enormous(size), message, *size)


def _check(condition: Any, *message: Any) -> Any:
    # `tf.debugging.Assert` would wrap it in a conditional, which costs more than the check.
    check = tf.raw_ops.Assert(condition=condition, data=message)
    return tf.no_op() if check is None else check  # eager execution has no operations
