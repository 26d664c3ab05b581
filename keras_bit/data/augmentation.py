"""What BiT's recipe does to training images: resize, random crop, random flip, MixUp. A seed decides all of it.

Imports TensorFlow, and is imported by functions only.

Source: google-research/big_transfer, `bit_pytorch/train.py`.
"""

from typing import Any

import tensorflow as tf

from keras_bit.hyperrule import HyperRule
from keras_bit.images import graph_decoding
from keras_bit.images.graph_preprocessing import checked_header, checked_pixels, rescale_and_normalize
from keras_bit.images.graph_resizing import Resize, Window
from keras_bit.images.processor import BitImageProcessor

# Of the inception crop. google-research/big_vision, `pp/ops_image.py`; torchvision's RandomResizedCrop starts at 0.08.
AREAS = (0.05, 1.0)  # of the image
ASPECT_RATIOS = (3 / 4, 4 / 3)  # width by height


def augment(
    image: Any,
    seed: Any,
    processor: BitImageProcessor,
    rule: HyperRule,
    random_resized_crop: bool,
    max_pixels: int | None,
) -> Any:
    """One training image.

    Args:
        image: the bytes of a file as a scalar string, or uint8 `(height, width, channels)` in [0, 255].
        seed: int64 `(2,)`, which decides everything that is random here.
        processor: gives the filter, and the steps after the resize.
        rule: gives `resize_size` and `crop_size`, in pixels.
        random_resized_crop: whether a random part of random size and shape is resized to the crop size, instead.
        max_pixels: the most pixels that an encoded image may have; `None` is Pillow's limit.

    Returns:
        float32 `(crop_size, crop_size, 3)`.
    """
    if image.dtype == tf.string:
        header = checked_header(image, max_pixels, processor.orientation)
        height, width = header.height, header.width
    else:
        header = None
        image = checked_pixels(image, convert_rgb=True)
        height, width = tf.unstack(tf.shape(image)[:2])

    def read(window: Window) -> Any:
        return window.cut(image) if header is None else graph_decoding.decode(image, header, window)

    place_seed, flip_seed = tf.unstack(tf.random.split(seed))
    crop = rule.crop_size
    if random_resized_crop:
        part = random_part(height, width, place_seed)
        resize = Resize((part.height, part.width), (crop, crop), processor.resample, Window(0, 0, crop, crop))
        inner = resize.source
        pixels = read(Window(part.top + inner.top, part.left + inner.left, inner.height, inner.width))
    else:
        top, left = random_place(rule.resize_size - crop, place_seed)
        window = Window(top, left, crop, crop)
        resize = Resize((height, width), (rule.resize_size, rule.resize_size), processor.resample, window)
        pixels = read(resize.source)
    if pixels.shape[-1] != 3:
        pixels = tf.gather(pixels, tf.minimum([0, 1, 2], tf.shape(pixels)[-1] - 1), axis=-1)  # gray thrice; no alpha
    pixels = tf.ensure_shape(resize.apply(pixels), [crop, crop, 3])
    flip = tf.random.stateless_uniform([], flip_seed) < 0.5
    pixels = tf.cond(flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return rescale_and_normalize(pixels, processor)


def random_place(room: int, seed: Any) -> tuple[Any, ...]:
    """The first row and column of a crop that leaves `room` pixels; all places are equally probable."""
    return tuple(tf.unstack(tf.random.stateless_uniform([2], seed, 0, room + 1, tf.int32)))


def random_part(height: Any, width: Any, seed: Any) -> Window:
    """A rectangle of 5 % to all of the image's area that is 3/4 to 4/3 times as wide as high; all, if none fits."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.stack([height, width, 3]),
        tf.zeros([1, 0, 4]),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT_RATIOS,
        area_range=AREAS,
        use_image_if_no_bounding_boxes=True,
    )
    return Window(begin[0], begin[1], size[0], size[1])


def mix_up(images: Any, labels: Any, seed: Any, alpha: float) -> tuple[Any, Any]:
    """Lays another image of the batch over each: `weight * x + (1 - weight) * x[order]`, and the same for the labels.

    One weight from the beta distribution (alpha, alpha) for the whole batch, and one random order, as in Google's code.
    Keras' `MixUp` draws a weight per image, and from a generator whose state depends on which batch came first.

    Args:
        images: float32 `(batch, height, width, 3)`.
        labels: float32 `(batch, classes)`.
        seed: int64 `(2,)`.
        alpha: above 0.
    """
    weight_seed, order_seed = tf.unstack(tf.random.split(seed))
    weight = beta(weight_seed, alpha)
    order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(images)[0]), order_seed)

    def mixed(values: Any) -> Any:
        return weight * values + (1 - weight) * tf.gather(values, order)

    return mixed(images), mixed(labels)


def beta(seed: Any, alpha: float) -> Any:
    """A float32 in [0, 1] from the beta distribution (alpha, alpha), as the share of one of two gamma variates."""
    # In float32 one gamma variate in some thousands is 0 where alpha is 0.1.
    first, second = (
        tf.random.stateless_gamma([], part, tf.constant(alpha, tf.float64), dtype=tf.float64)
        for part in tf.unstack(tf.random.split(seed))
    )
    return tf.cast(first / (first + second), tf.float32)
