"""The augmentation of BiT's recipe in a TensorFlow graph: resize, random crop, random flip.

Imports TensorFlow, so only functions import this module.

Source: google-research/big_transfer, `bit_pytorch/train.py`.
"""

from typing import Any

import tensorflow as tf

from keras_bit.data import geometry
from keras_bit.images import graph_decoding
from keras_bit.images.graph_preprocessing import checked_header, checked_pixels, rescale_and_normalize
from keras_bit.images.graph_resizing import Resize, Window
from keras_bit.images.processor import BitImageProcessor
from keras_bit.recipes.hyperrule import HyperRule

np = tf.experimental.numpy


def uniform_numbers(seed: Any, count: int) -> Any:
    """Returns an image's random numbers: float64 `(count,)` in [0, 1), the same for the same seed, int64 `(2,)`."""
    return tf.random.stateless_uniform([count], seed, dtype=tf.float64)


def augment(
    image: Any,
    uniform: Any,
    processor: BitImageProcessor,
    rule: HyperRule,
    random_resized_crop: bool,
    max_pixels: int | None,
    name: Any = "The image",
) -> Any:
    """Augments one training image.

    Args:
        image: the bytes of a file as a scalar string, or uint8 `(height, width, channels)` in [0, 255].
        uniform: float64 `(geometry.numbers_needed(random_resized_crop),)` in [0, 1), the random numbers.
        processor: gives the filter, and the steps after the resize.
        rule: gives `resize_size` and `crop_size`, in pixels.
        random_resized_crop: whether a random part of random size and shape is resized to the crop size, instead.
        max_pixels: the most pixels of an encoded image; `None` is Pillow's limit.
        name: the image's name in errors.

    Returns:
        float32 `(crop_size, crop_size, 3)`.
    """
    if image.dtype == tf.string:
        header = checked_header(image, max_pixels, processor.orientation, name)
        height, width = header.height, header.width
    else:
        header = None
        image = checked_pixels(image, convert_rgb=True)
        height, width = tf.unstack(tf.shape(image)[:2])

    def read(window: Window) -> Any:
        return window.cut(image) if header is None else graph_decoding.decode(image, header, window)

    crop = rule.crop_size
    if random_resized_crop:
        part = geometry.random_part(height, width, uniform, np)
        resize = Resize((part.height, part.width), (crop, crop), processor.resample, Window(0, 0, crop, crop))
        inner = resize.source
        pixels = read(Window(part.top + inner.top, part.left + inner.left, inner.height, inner.width))
    else:
        top, left = geometry.random_place(rule.resize_size - crop, uniform, np)
        window = Window(top, left, crop, crop)
        resize = Resize((height, width), (rule.resize_size, rule.resize_size), processor.resample, window)
        pixels = read(resize.source)
    if pixels.shape[-1] != 3:
        pixels = tf.gather(pixels, tf.minimum([0, 1, 2], tf.shape(pixels)[-1] - 1), axis=-1)  # no alpha
    pixels = tf.ensure_shape(resize.apply(pixels), [crop, crop, 3])
    pixels = tf.cond(geometry.is_flipped(uniform), lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return rescale_and_normalize(pixels, processor)
