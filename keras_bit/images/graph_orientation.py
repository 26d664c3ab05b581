"""Reads the orientation tag of an encoded image in a TensorFlow graph, and turns the image.

Imports TensorFlow, so only functions import this module.

Checked against Pillow 13.0, `ImageOps.exif_transpose`, and `TiffImagePlugin.py` for damaged tags.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.images.graph_resizing import Window

TAG = 0x0112
PREFIX = b"Exif\0\0"
# The first four bytes of TIFF's header, in either byte order. Pillow also reads a magic number in the other order.
HEADERS = (b"MM\0*", b"MM*\0", b"II*\0", b"II\0*")
ENTRY = 12  # bytes: tag, type, count, and a value or its place
UNITS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)  # bytes of a value, by its type; 0 for an unknown type
ORIENTATIONS = np.arange(1, 9)
# The stored forms of the orientations: types, bytes of a value, and the eight values as whole numbers. Pillow does not
# read type 1 (bytes) as a number, but it accepts 6.0 and 12/2 like 6.
_STORED = (
    ((6,), 1, ORIENTATIONS),
    ((3, 8), 2, ORIENTATIONS),
    ((4, 9, 13), 4, ORIENTATIONS),
    ((16,), 8, ORIENTATIONS),
    ((11,), 4, ORIENTATIONS.astype(np.float32).view(np.int32)),
    ((12,), 8, ORIENTATIONS.astype(np.float64).view(np.int64)),
)
_FRACTION, _SIGNED_FRACTION = 5, 10  # the types of two whole numbers of 4 bytes

# By the tag, 0 (which is not valid) to 8: whether rows are reversed, whether columns are reversed, and whether rows and
# columns are then swapped.
_TURNS = (
    (False, False, False),
    (False, False, False),
    (False, True, False),
    (True, True, False),
    (True, False, False),
    (False, False, True),
    (True, False, True),
    (True, True, True),
    (False, True, True),
)


def orientation(tags: Any) -> Any:
    """Returns the orientation in a block of tags, an int32 scalar: 1 to 8; 1 for an invalid or damaged one.

    Args:
        tags: a string scalar, the block, with Exif's own prefix or without it.
    """
    for _ in range(2):  # Pillow removes at most two
        begins = tf.strings.substr(tags, 0, len(PREFIX)) == PREFIX
        start = tf.where(begins, len(PREFIX), 0)
        tags = tf.strings.substr(tags, start, tf.strings.length(tags) - start)
    size = tf.cast(tf.strings.length(tags), tf.int64)
    # Adds an empty directory, so that every read is inside a block of any length.
    data = tf.cast(tf.io.decode_raw(tf.strings.join([tags, "\0" * (8 + 2 + ENTRY)]), tf.uint8), tf.int64)
    is_header = (size >= 8) & tf.reduce_any(tf.strings.substr(tags, 0, 4) == tf.constant(HEADERS))
    is_big = tf.strings.substr(tags, 0, 1) == b"M"

    def numbers(values: Any, count: int) -> Any:
        """Reads the unsigned numbers in the last axis, of `count` bytes."""
        little = [256**place for place in range(count)]
        return tf.reduce_sum(values * tf.where(is_big, tf.constant(little[::-1], tf.int64), little), axis=-1)

    directory = numbers(data[4:8], 4)
    is_header &= directory + 2 <= size
    directory = tf.where(is_header, directory, size)
    # The last entry may be truncated, and then does not count.
    count = tf.minimum(numbers(data[directory : directory + 2], 2), tf.maximum(size - directory - 2, 0) // ENTRY)
    first = directory + 2
    entries = tf.reshape(data[first : first + count * ENTRY], [-1, ENTRY])
    kinds = numbers(entries[:, 2:4], 2)
    units = tf.gather(tf.constant(UNITS, tf.int64), tf.where(kinds < len(UNITS), kinds, 0))
    sizes = units * numbers(entries[:, 4:8], 4)
    names, order = numbers(entries[:, 0:2], 2), tf.range(count)
    _, same = tf.unique(names)
    earliest = tf.math.unsorted_segment_min(tf.where(sizes > 0, order, count), same, tf.size(same))
    sizes = tf.where(order > tf.gather(earliest, same), tf.zeros_like(sizes), sizes)  # only a tag's first entry counts
    elsewhere = sizes > 4
    places = tf.where(elsewhere, numbers(entries[:, 8:12], 4), first + order * ENTRY + 8)
    # Pillow skips impossible entries, and stops at one that goes past the block's end.
    skipped = elsewhere & (tf.cumsum(tf.where(elsewhere, sizes, 0)) > size)
    beyond = elsewhere & ~skipped & (places + sizes > size)
    read = (sizes > 0) & ~skipped & (tf.cumsum(tf.cast(beyond, tf.int32)) == 0)
    wanted = tf.where(read & (names == TAG))[:1, 0]

    def value(index: Any) -> Any:
        place, kind = places[index], kinds[index]
        equal = tf.zeros([len(ORIENTATIONS)], tf.bool)
        for types, count, stored in _STORED:
            is_type = tf.reduce_any(kind == tf.constant(types, tf.int64))
            equal |= is_type & (numbers(data[place : place + count], count) == tf.constant(stored, tf.int64))
        is_signed = kind == _SIGNED_FRACTION
        above, below = (numbers(data[start : start + 4], 4) for start in (place, place + 4))
        above, below = (tf.where(is_signed & (part >= 2**31), part - 2**32, part) for part in (above, below))
        is_fraction = (is_signed | (kind == _FRACTION)) & (below != 0)
        equal |= is_fraction & (above == below * tf.constant(ORIENTATIONS, tf.int64))
        return tf.where(tf.reduce_any(equal), 1 + tf.argmax(tf.cast(equal, tf.int32), output_type=tf.int32), 1)

    return tf.cond(tf.size(wanted) > 0, lambda: value(wanted[0]), lambda: 1)


def is_swapped(orientation: Any) -> Any:
    """Returns whether the stored rows are the columns of the upright image."""
    return orientation > 4


def stored_window(window: Window, height: Any, width: Any, orientation: Any) -> Window:
    """Returns the place in the stored image of a window of the upright image, whose size is `height` and `width`."""
    rows, columns, swapped = tf.unstack(tf.gather(tf.constant(_TURNS), orientation))
    top, left, high, wide = (
        tf.where(swapped, one, other)
        for one, other in zip(
            (window.left, window.top, window.width, window.height),
            (window.top, window.left, window.height, window.width),
            strict=True,
        )
    )
    height, width = tf.where(swapped, width, height), tf.where(swapped, height, width)
    top = tf.where(rows, height - top - high, top)
    left = tf.where(columns, width - left - wide, left)
    return Window(top, left, high, wide)


def turned(pixels: Any, orientation: Any) -> Any:
    """Turns stored pixels `(height, width, channels)`, or a window of them, upright."""
    rows, columns, swapped = tf.unstack(tf.gather(tf.constant(_TURNS), orientation))
    pixels = tf.reverse(pixels, tf.boolean_mask([0, 1], tf.stack([rows, columns])))
    return tf.cond(swapped, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
