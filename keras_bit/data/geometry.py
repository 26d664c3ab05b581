"""Computes crops of training images from uniform random numbers, in numpy or in a TensorFlow graph.

Both compute in float64 with operations whose rounding IEEE 754 fixes, so both cut at the same pixel. The caller passes
`numpy` or `tf.experimental.numpy`, which has the same functions.
"""

from typing import Any, NamedTuple

# Of the inception crop. google-research/big_vision, `pp/ops_image.py`; torchvision's RandomResizedCrop starts at 0.08.
AREAS = (0.05, 1.0)  # of the image
ASPECT_RATIOS = (3 / 4, 4 / 3)  # width by height
ATTEMPTS = 10  # attempts; the first one fits, unless the image is very long or very small
# The places in a row of random numbers. An attempt has two: its aspect ratio and its height.
FLIP, TOP, LEFT, FIRST_ATTEMPT = range(4)


class Part(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: Any
    left: Any
    height: Any
    width: Any


def numbers_needed(random_resized_crop: bool) -> int:
    """Returns how many uniform random numbers in [0, 1) an image needs."""
    return FIRST_ATTEMPT + 2 * ATTEMPTS * random_resized_crop


def is_flipped(uniform: Any) -> Any:
    return uniform[FLIP] < 0.5


def random_place(room: int, uniform: Any, np: Any) -> tuple[Any, Any]:
    """Returns the first row and column of a crop that leaves `room` pixels; all places are equally probable."""
    return _whole(uniform[TOP] * (room + 1), np), _whole(uniform[LEFT] * (room + 1), np)


def random_part(height: Any, width: Any, uniform: Any, np: Any) -> Part:
    """Returns a rectangle of 5 % to 100 % of the area, 3/4 to 4/3 times as wide as high; the whole image if none fits.

    The aspect ratio is uniform, and so is the height among those that keep the area in its limits, as in TensorFlow's
    `sample_distorted_bounding_box`.

    Args:
        height, width: the size of the image, whole numbers.
        uniform: float64 `(numbers_needed(True),)` in [0, 1).
        np: `numpy` or `tf.experimental.numpy`.
    """
    image_height, image_width = np.asarray(height, np.float64), np.asarray(width, np.float64)
    area = image_height * image_width
    least, most = AREAS[0] * area, AREAS[1] * area
    attempts = uniform[FIRST_ATTEMPT:]
    ratios = ASPECT_RATIOS[0] + attempts[:ATTEMPTS] * (ASPECT_RATIOS[1] - ASPECT_RATIOS[0])
    lowest = np.maximum(np.floor(np.sqrt(least / ratios) + 0.5), 1.0)
    highest = np.floor(np.sqrt(most / ratios) + 0.5)
    # Half a pixel more, because the width is rounded.
    highest = np.minimum(np.minimum(highest, np.floor((image_width + 0.49) / ratios)), image_height)
    heights = lowest + np.floor(attempts[ATTEMPTS:] * np.maximum(highest - lowest + 1.0, 0.0))
    widths = np.floor(heights * ratios + 0.5)
    areas = heights * widths
    fits = (areas >= least) & (areas <= most) & (heights <= highest) & (widths >= 1.0) & (widths <= image_width)
    first = np.argmax(fits)
    found = fits[first]
    part_height = np.where(found, heights[first], image_height)
    part_width = np.where(found, widths[first], image_width)
    top = uniform[TOP] * (image_height - part_height + 1.0)
    left = uniform[LEFT] * (image_width - part_width + 1.0)
    return Part(_whole(top, np), _whole(left, np), _whole(part_height, np), _whole(part_width, np))


def _whole(value: Any, np: Any) -> Any:
    return np.asarray(np.floor(value), np.int32)
