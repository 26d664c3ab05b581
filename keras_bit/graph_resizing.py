"""Pillow's resize as a TensorFlow graph: the same whole numbers in every value, for one picture of any size.

Pillow resizes each direction by itself. An output pixel is a weighted sum of the input pixels around it; the weights
are fixed-point numbers of 22 fractional bits, and what comes out of either pass is rounded to uint8. All of these sums
are less than 2**53 units of 2**-22, so float64 holds them exactly, in whatever order a matrix product adds.

Imports TensorFlow, and is imported by functions only.

Checked against Pillow 12.3 and 13.0, `src/libImaging/Resample.c` and `Geometry.c`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import PIL
import tensorflow as tf
from PIL import Image

FRACTIONAL_BITS = 22  # Pillow's PRECISION_BITS: 32 less 8 for the pixel and 2 for sums beyond its range

# Neighbouring outputs read nearly the same inputs: those of a block are one small matrix product over the inputs that
# any of them reads.
BLOCK = 8

# From this version on, some pictures are resized vertically first.
PILLOW_WITH_VERTICAL_FIRST = 13


class Window(NamedTuple):
    """A rectangle of pixels; whole numbers or int32 scalars."""

    top: Any
    left: Any
    height: Any
    width: Any

    def cut(self, pixels: Any) -> Any:
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def _divide(x: Any, y: Any) -> Any:
    """`x / y`, rounded once.

    TensorFlow's graph optimizer turns a division by a constant into a product with its reciprocal, which is an ulp off
    for some and moves a tap of the box filter. It leaves this operation alone; `y` is never 0.
    """
    return tf.math.divide_no_nan(tf.cast(x, tf.float64), tf.cast(y, tf.float64))


def _box(x: Any) -> Any:
    return tf.cast((x > -0.5) & (x <= 0.5), tf.float64)


def _bilinear(x: Any) -> Any:
    return tf.maximum(1.0 - tf.abs(x), 0.0)


def _bicubic(x: Any) -> Any:
    x = tf.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return tf.where(x < 1, near, tf.where(x < 2, far, tf.zeros_like(x)))


def _hamming(x: Any) -> Any:
    x = tf.abs(x)
    # C's 0.54f and 0.46f: float32, or one value in some millions differs
    window = float(np.float32(0.54)) + float(np.float32(0.46)) * tf.cos(x * math.pi)
    return tf.where(x < 1, _sinc(x) * window, tf.zeros_like(x))


def _lanczos(x: Any) -> Any:
    return tf.where((x >= -3) & (x < 3), _sinc(x) * _sinc(_divide(x, 3)), tf.zeros_like(x))


def _sinc(x: Any) -> Any:
    angle = x * math.pi
    zero = x == 0
    return tf.where(zero, tf.ones_like(x), tf.sin(angle) / tf.where(zero, tf.ones_like(x), angle))


# Filter, its support in output pixels, and whether some of its weights are negative: then sums leave [0, 255].
_CONVOLUTIONS: dict[Image.Resampling, tuple[Callable[[Any], Any], float, bool]] = {
    Image.Resampling.BOX: (_box, 0.5, False),
    Image.Resampling.BILINEAR: (_bilinear, 1.0, False),
    Image.Resampling.HAMMING: (_hamming, 1.0, False),
    Image.Resampling.BICUBIC: (_bicubic, 2.0, True),
    Image.Resampling.LANCZOS: (_lanczos, 3.0, True),
}


class _Blocks(NamedTuple):
    """The weights of one direction: `kernels` (blocks, BLOCK, taps) float64, read at `positions` (blocks, taps)."""

    kernels: Any
    positions: Any
    count: Any
    overshoots: bool

    def moved(self, offset: Any) -> "_Blocks":
        return self._replace(positions=self.positions - offset)

    def apply(self, rows: Any) -> Any:
        """`(size, columns)` to `(count, columns)`, float32 whole numbers in [0, 255]."""
        columns = tf.shape(rows)[1]
        sums = tf.matmul(self.kernels, tf.cast(tf.gather(rows, self.positions), tf.float64))
        sums = tf.reshape(sums, [-1, columns])[: self.count]
        rounded = tf.cast(tf.floor(sums + 0.5), tf.float32)
        return tf.clip_by_value(rounded, 0.0, 255.0) if self.overshoots else rounded


class _Nearest(NamedTuple):
    """The one input pixel of each output pixel; those outside the picture are black, as rounding gives Pillow a few."""

    positions: Any
    inside: Any

    def moved(self, offset: Any) -> "_Nearest":
        return self._replace(positions=self.positions - offset)

    def apply(self, rows: Any) -> Any:
        return tf.gather(rows, self.positions) * tf.cast(self.inside, tf.float32)[:, tf.newaxis]


def _direction(resample: Image.Resampling, size: Any, resized: Any, first: Any, count: Any) -> _Blocks | _Nearest:
    """How `size` pixels become `resized`, of which only `count` from `first` on are wanted."""
    if resample == Image.Resampling.NEAREST:
        step = _divide(size, resized)
        # Pillow adds up the steps one by one, and so does a cumulative sum.
        steps = tf.concat([[step * 0.5], tf.repeat(step, first + count - 1)], axis=0)
        positions = tf.cast(tf.cumsum(steps)[first:], tf.int32)
        return _Nearest(tf.minimum(positions, size - 1), positions < size)

    weight, radius, overshoots = _CONVOLUTIONS[resample]
    scale = _divide(size, resized)
    stretch = tf.maximum(scale, 1.0)
    support = radius * stretch
    blocks = -(-count // BLOCK)
    outputs = first + tf.minimum(tf.range(blocks * BLOCK), count - 1)
    centre = (tf.cast(outputs, tf.float64) + 0.5) * scale
    start = tf.maximum(tf.cast(centre - support + 0.5, tf.int32), 0)
    stop = tf.minimum(tf.cast(centre + support + 0.5, tf.int32), size)

    block_start = tf.reshape(start, [blocks, BLOCK])[:, 0]
    taps = tf.reduce_max(tf.reshape(stop, [blocks, BLOCK])[:, -1] - block_start)
    positions = block_start[:, tf.newaxis] + tf.range(taps)
    read = tf.repeat(positions, BLOCK, axis=0)
    weights = weight((tf.cast(read, tf.float64) - centre[:, tf.newaxis] + 0.5) * (1.0 / stretch))
    weights = tf.where((read >= start[:, tf.newaxis]) & (read < stop[:, tf.newaxis]), weights, tf.zeros_like(weights))
    # One after the other, as Pillow adds them: `reduce_sum` goes another way, and its last bit can differ.
    total = tf.cumsum(weights, axis=1)[:, -1:]
    weights = tf.where(total != 0, weights / total, weights)
    half = tf.where(weights < 0, tf.constant(-0.5, tf.float64), tf.constant(0.5, tf.float64))
    fixed = tf.cast(tf.cast(weights * 2.0**FRACTIONAL_BITS + half, tf.int32), tf.float64) * 2.0**-FRACTIONAL_BITS
    kernels = tf.reshape(fixed, [blocks, BLOCK, taps])
    return _Blocks(kernels, tf.minimum(positions, size - 1), count, overshoots)


class Resize:
    """`Image.resize((width, height), resample)` of a picture of `size`, of which only `window` is wanted.

    Made before the picture is decoded: `source` is the part of it that the window needs.

    Args:
        size: (height, width) of the picture.
        resized: (height, width) that it is resized to.
        resample: one of Pillow's filters 0 to 5.
        window: the part of the resized picture to compute; inside it, and not empty.

    All numbers may be Python's or int32 scalars.
    """

    def __init__(self, size: tuple[Any, Any], resized: tuple[Any, Any], resample: int, window: Window) -> None:
        resample = Image.Resampling(resample)
        height, width = size
        rows = _direction(resample, height, resized[0], window.top, window.height)
        columns = _direction(resample, width, resized[1], window.left, window.width)
        top, left = tf.reduce_min(rows.positions), tf.reduce_min(columns.positions)
        self.source = Window(
            top, left, tf.reduce_max(rows.positions) + 1 - top, tf.reduce_max(columns.positions) + 1 - left
        )
        self._rows, self._columns = rows.moved(top), columns.moved(left)
        self._window = window
        saved_rows, saved_columns = height - resized[0], width - resized[1]
        self._vertical_first = tf.logical_and(saved_rows > 0, saved_rows > 2 * saved_columns)

    def apply(self, pixels: Any) -> Any:
        """The window of the resized picture.

        Args:
            pixels: uint8 `(height, width, channels)`, the picture's `source`.

        Returns:
            float32 `(window.height, window.width, channels)`, whole numbers in [0, 255].
        """
        pixels = tf.cast(pixels, tf.float32)
        if int(PIL.__version__.split(".")[0]) < PILLOW_WITH_VERTICAL_FIRST:
            resized = self._vertically(self._horizontally(pixels))
        else:
            resized = tf.cond(
                self._vertical_first,
                lambda: self._horizontally(self._vertically(pixels)),
                lambda: self._vertically(self._horizontally(pixels)),
            )
        known = [size if isinstance(size, int) else None for size in self._window[2:]]
        return tf.ensure_shape(resized, [*known, pixels.shape[-1]])

    def _vertically(self, pixels: Any) -> Any:
        height, width, channels = tf.unstack(tf.shape(pixels))
        rows = self._rows.apply(tf.reshape(pixels, [height, width * channels]))
        return tf.reshape(rows, [-1, width, channels])

    def _horizontally(self, pixels: Any) -> Any:
        height, width, channels = tf.unstack(tf.shape(pixels))
        columns = tf.reshape(tf.transpose(pixels, [1, 0, 2]), [width, height * channels])
        return tf.transpose(tf.reshape(self._columns.apply(columns), [-1, height, channels]), [1, 0, 2])
