"""Pillow's resize as a TensorFlow graph, with the same integer in every value, for one image of any size.

Pillow resizes each direction by itself. An output pixel is a weighted sum of the input pixels around it; the weights
are fixed-point numbers of 22 fractional bits, and the output of either pass is rounded to uint8.

Every weight is split into a high part, of 15 fractional bits, and a low part, the 7 bits below. Both are rows of one
product in float32, which is faster than a product in float64 and moves half of the memory. float32 holds the sums of
both parts exactly, in any order of addition, because they are below 2**24 units:

* high parts: the absolute weights of a pixel have a sum of at most 1.58 (Lanczos, enlarging by 5/4), and not 2;
* low parts: there are at most `MOST_TAPS` of them, each at most 64 units times 255.

Wider filters, of images that shrink 170 times, are multiplied in float64.

Imports TensorFlow, so only functions import this module.

Checked against Pillow 11.0, 11.3, 12.3 and 13.0, `src/libImaging/Resample.c`, `Geometry.c` and `src/PIL/Image.py`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_bit.images import pass_order

FRACTIONAL_BITS = 22  # Pillow's PRECISION_BITS: 32 less 8 for the pixel and 2 for sums beyond its range
LOW_BITS = 7
MOST_TAPS = 2**24 // (255 * 2 ** (LOW_BITS - 1))  # 1,028

# Neighboring outputs read nearly the same inputs, so the outputs of a block are one small matrix product over all
# inputs that the block reads.
BLOCK = 8

# Numbers that a pass over a large image reads at a time: 2 MiB as float32, which fits a processor's cache. An image of
# ImageNet's usual size is read at once.
STRIP = 2**19


class Window(NamedTuple):
    """A rectangle of pixels; whole numbers or int32 scalars."""

    top: Any
    left: Any
    height: Any
    width: Any

    def cut(self, pixels: Any) -> Any:
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def _divide(x: Any, y: Any) -> Any:
    """Returns `x / y`, rounded once.

    TensorFlow's graph optimizer turns a division by a constant into a product with its reciprocal. For some values the
    result differs in the last bit, which moves a tap of the box filter. The optimizer does not change the operation
    that is used here. `y` is never 0.
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
    # Pillow's C code has 0.54f and 0.46f, in float32; with float64 one value in millions would differ.
    window = float(np.float32(0.54)) + float(np.float32(0.46)) * tf.cos(x * math.pi)
    return tf.where(x < 1, _sinc(x) * window, tf.zeros_like(x))


def _lanczos(x: Any) -> Any:
    return tf.where((x >= -3) & (x < 3), _sinc(x) * _sinc(_divide(x, 3)), tf.zeros_like(x))


def _sinc(x: Any) -> Any:
    angle = x * math.pi
    zero = x == 0
    return tf.where(zero, tf.ones_like(x), tf.sin(angle) / tf.where(zero, tf.ones_like(x), angle))


# The function of each filter, its support in output pixels, and whether it has negative weights, with which sums can
# leave [0, 255].
_CONVOLUTIONS: dict[Image.Resampling, tuple[Callable[[Any], Any], float, bool]] = {
    Image.Resampling.BOX: (_box, 0.5, False),
    Image.Resampling.BILINEAR: (_bilinear, 1.0, False),
    Image.Resampling.HAMMING: (_hamming, 1.0, False),
    Image.Resampling.BICUBIC: (_bicubic, 2.0, True),
    Image.Resampling.LANCZOS: (_lanczos, 3.0, True),
}


class _Blocks(NamedTuple):
    """The weights of one direction: `kernels` (blocks, 2 * BLOCK, taps) float32, read at `positions` (blocks, taps).

    The first half of a kernel's rows are the high parts in units of 1, the second the low parts in units of the least
    significant high bit.
    """

    kernels: Any
    positions: Any
    count: Any
    overshoots: bool

    def apply(self, rows: Any) -> Any:
        """Resizes `(size, columns)` to `(count, columns)`, float32 whole numbers in [0, 255]."""
        # This never runs on a GPU, whose float32 products may have 10 bits (TF32).
        with tf.device("/device:CPU:0"):
            read = tf.gather(rows, self.positions)
            narrow = tf.shape(self.positions)[1] <= MOST_TAPS
            rounded = tf.cond(narrow, lambda: self._in_parts(read), lambda: self._in_float64(read))
            rounded = tf.reshape(rounded, [-1, tf.shape(rows)[1]])[: self.count]
            if not self.overshoots:
                return rounded
            # One pass; `tf.clip_by_value` would take two.
            return tf.raw_ops.ClipByValue(t=rounded, clip_value_min=0.0, clip_value_max=255.0)

    def _in_parts(self, read: Any) -> Any:
        sums = tf.matmul(self.kernels, read)
        # The bits of the low parts below the high parts' last bit never change the rounding.
        low = tf.floor(sums[:, BLOCK:]) * 2.0 ** (LOW_BITS - FRACTIONAL_BITS)
        return tf.floor(sums[:, :BLOCK] + low + 0.5)

    def _in_float64(self, read: Any) -> Any:
        high, low = tf.split(tf.cast(self.kernels, tf.float64), 2, axis=1)
        kernels = high + low * 2.0 ** (LOW_BITS - FRACTIONAL_BITS)
        return tf.cast(tf.floor(tf.matmul(kernels, tf.cast(read, tf.float64)) + 0.5), tf.float32)


class _Nearest(NamedTuple):
    """The input pixel of each output pixel.

    Pixels outside of the image are black. In Pillow, rounding puts a few output pixels there.
    """

    positions: Any
    inside: Any

    def apply(self, rows: Any) -> Any:
        return tf.gather(rows, self.positions) * tf.cast(self.inside, tf.float32)[:, tf.newaxis]


class _Sides(NamedTuple):
    """The numbers of both directions of a resize.

    Each field is a vector of two numbers, for rows and for columns, because fewer operations are faster. `size` pixels
    become `resized` pixels, of which `count` pixels from number `first` on are wanted.
    """

    size: Any
    resized: Any
    first: Any
    count: Any

    def convolutions(self, resample: Image.Resampling) -> tuple[list[_Blocks], Any, Any]:
        """Returns the weights of each direction, the first pixel that each reads, and the last one plus one."""
        weight, radius, overshoots = _CONVOLUTIONS[resample]
        scale = _divide(self.size, self.resized)
        stretch = tf.maximum(scale, 1.0)
        support = (radius * stretch)[:, tf.newaxis]
        blocks = -(-tf.reduce_max(self.count) // BLOCK)
        outputs = self.first[:, tf.newaxis] + tf.minimum(tf.range(blocks * BLOCK), self.count[:, tf.newaxis] - 1)
        center = (tf.cast(outputs, tf.float64) + 0.5) * scale[:, tf.newaxis]
        start = tf.maximum(tf.cast(center - support + 0.5, tf.int32), 0)
        stop = tf.minimum(tf.cast(center + support + 0.5, tf.int32), self.size[:, tf.newaxis])

        block_start = start[:, ::BLOCK]
        taps = tf.reduce_max(stop[:, BLOCK - 1 :: BLOCK] - block_start, axis=1)
        positions = block_start[..., tf.newaxis] + tf.range(tf.reduce_max(taps))
        # The axes are direction, block, output pixel in the block, and tap.
        each_output = [2, blocks, BLOCK, 1]
        read = positions[:, :, tf.newaxis]
        distance = tf.cast(read, tf.float64) - tf.reshape(center, each_output) + 0.5
        weights = weight(distance * (1.0 / stretch)[:, tf.newaxis, tf.newaxis, tf.newaxis])
        inside = (read >= tf.reshape(start, each_output)) & (read < tf.reshape(stop, each_output))
        weights = tf.where(inside, weights, tf.zeros_like(weights))
        # The cumulative sum adds the weights one after the other, as Pillow does. `reduce_sum` adds them in another
        # order, so its last bit can differ.
        total = tf.cumsum(weights, axis=3)[..., -1:]
        units = _divide(weights, total) * 2.0**FRACTIONAL_BITS
        fixed = tf.cast(units + tf.sign(units) * 0.5, tf.int32)  # away from zero, because C's conversion truncates
        lows = tf.cast(fixed, tf.float64) * 2.0**-LOW_BITS
        high = tf.floor(lows + 0.5)
        parts = [high * 2.0 ** (LOW_BITS - FRACTIONAL_BITS), lows - high]
        kernels = tf.cast(tf.concat(parts, axis=2), tf.float32)

        first, last = start[:, 0], stop[:, -1]
        positions = tf.minimum(positions, last[:, tf.newaxis, tf.newaxis] - 1) - first[:, tf.newaxis, tf.newaxis]
        directions = [
            _Blocks(kernels[side, ..., : taps[side]], positions[side, :, : taps[side]], self.count[side], overshoots)
            for side in (0, 1)
        ]
        return directions, first, last

    def nearest(self) -> tuple[list[_Nearest], Any, Any]:
        """Returns what `convolutions` returns, for the filter that takes the nearest pixel."""
        directions, starts, stops = [], [], []
        for size, resized, first, count in zip(*map(tf.unstack, self), strict=True):
            step = _divide(size, resized)
            # Pillow adds up the steps one by one, and so does a cumulative sum.
            steps = tf.concat([[step * 0.5], tf.repeat(step, first + count - 1)], axis=0)
            positions = tf.cast(tf.cumsum(steps)[first:], tf.int32)
            inside, positions = positions < size, tf.minimum(positions, size - 1)
            directions.append(_Nearest(positions - positions[0], inside))
            starts.append(positions[0])
            stops.append(positions[-1] + 1)
        return directions, tf.stack(starts), tf.stack(stops)


class Resize:
    """Computes `Image.resize((width, height), resample)` for a window of the result only.

    It is made before the image is decoded. Its attribute `source` is the part of the image that the window needs.

    Args:
        size: (height, width) of the image.
        resized: (height, width) that it is resized to.
        resample: one of Pillow's filters 0 to 5.
        window: the part of the resized image to compute; inside it, and not empty.

    All numbers may be Python's or int32 scalars.
    """

    def __init__(self, size: tuple[Any, Any], resized: tuple[Any, Any], resample: int, window: Window) -> None:
        sides = _Sides(tf.stack(size), tf.stack(resized), tf.stack(window[:2]), tf.stack(window[2:]))
        directions: list[Any]  # of `_Blocks` or of `_Nearest`
        if resample == Image.Resampling.NEAREST:
            directions, first, last = sides.nearest()
        else:
            directions, first, last = sides.convolutions(Image.Resampling(resample))
        self._rows: _Blocks | _Nearest
        self._columns: _Blocks | _Nearest
        self._rows, self._columns = directions
        self.source = Window(*tf.unstack(first), *tf.unstack(last - first))
        self._window = window
        saved_rows, saved_columns = tf.unstack(sides.size - sides.resized)
        rule = pass_order.vertical_first()
        if rule == pass_order.NEVER:
            self._vertical_first = tf.constant(False)
        elif rule == pass_order.VERY_HIGH:
            self._vertical_first = (saved_rows > 0) & (sides.size[0] > 100 * sides.size[1])
        else:
            self._vertical_first = (saved_rows > 0) & (saved_rows > 2 * saved_columns)

    def apply(self, pixels: Any) -> Any:
        """Returns the window of the resized image.

        A large image takes some 100 MiB besides itself and the window, and a byte per value after the first direction.

        Args:
            pixels: uint8 `(height, width, channels)`, the image's `source`.

        Returns:
            float32 `(window.height, window.width, channels)`, whole numbers in [0, 255].
        """
        # The larger number of rows and of columns, of the source or of the window, bounds what a pass holds.
        sides = tf.maximum(tf.shape(pixels), tf.stack([*self._window[2:], 1]))
        large = tf.reduce_prod(tf.cast(sides, tf.float32)) > STRIP
        passes = (self._rows, self._columns, self._vertical_first)
        resized = tf.cond(large, lambda: _in_strips(pixels, *passes, STRIP), lambda: _at_once(pixels, *passes))
        known = [size if isinstance(size, int) else None for size in self._window[2:]]
        return tf.ensure_shape(resized, [*known, pixels.shape[-1]])


def _at_once(pixels: Any, rows: Any, columns: Any, vertical_first: Any) -> Any:
    return tf.cond(
        vertical_first,
        lambda: _horizontally(_vertically(pixels, rows), columns),
        lambda: _vertically(_horizontally(pixels, columns), rows),
    )


# This is a function that is not inlined, so that it is one node in the outer graph, which is optimized in every epoch.
@tf.function(autograph=False, reduce_retracing=True, experimental_attributes={"_noinline": True})
def _in_strips(pixels: Any, rows: Any, columns: Any, vertical_first: Any, most: int) -> Any:
    """Applies both passes in strips of at most `most` values, to bound memory."""

    def vertically(pixels: Any) -> Any:
        def turned(start: Any, length: Any) -> Any:
            return tf.transpose(_vertically(pixels[:, start : start + length], rows), [1, 0, 2])

        return tf.transpose(_joined(turned, tf.shape(pixels), rows, 1, most), [1, 0, 2])

    def horizontally(pixels: Any) -> Any:
        def strip(start: Any, length: Any) -> Any:
            return _horizontally(pixels[start : start + length], columns)

        return _joined(strip, tf.shape(pixels), columns, 0, most)

    resized = tf.cond(
        vertical_first, lambda: horizontally(vertically(pixels)), lambda: vertically(horizontally(pixels))
    )
    return tf.cast(resized, tf.float32)


def _joined(strip: Callable[[Any, Any], Any], shape: Any, direction: Any, across: int, most: int) -> Any:
    """Calls `strip(start, length)` for all strips of an image of `shape`, and joins the results as uint8."""
    size = shape[across]
    # The numbers that are read from a line of pixels in this direction. Several blocks read some of them again.
    line = tf.maximum(shape[1 - across], tf.size(direction.positions)) * shape[2]
    length = tf.maximum(most // line, 1)
    strips = tf.TensorArray(tf.uint8, -(-size // length), element_shape=[None, None, None], infer_shape=False)

    def add(number: Any, strips: Any) -> tuple[Any, Any]:
        return number + 1, strips.write(number, tf.cast(strip(number * length, length), tf.uint8))

    # One at a time, so that memory holds only one strip.
    _, strips = tf.while_loop(lambda number, strips: number * length < size, add, [0, strips], parallel_iterations=1)
    return strips.concat()


def _vertically(pixels: Any, direction: Any) -> Any:
    height, width, channels = tf.unstack(tf.shape(pixels))
    rows = tf.reshape(tf.cast(pixels, tf.float32), [height, width * channels])
    return tf.reshape(direction.apply(rows), [-1, width, channels])


def _horizontally(pixels: Any, direction: Any) -> Any:
    # float32 is transposed in less than half of the time that uint8 takes.
    height, width, channels = tf.unstack(tf.shape(pixels))
    columns = tf.reshape(tf.transpose(tf.cast(pixels, tf.float32), [1, 0, 2]), [width, height * channels])
    return tf.transpose(tf.reshape(direction.apply(columns), [-1, height, channels]), [1, 0, 2])
