"""The processor's steps on a decoded RGB image of Pillow, which is converted to an array last.

Converting a whole photograph to an array takes longer than resizing it.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from keras_bit.images import steps

if TYPE_CHECKING:
    from keras_bit.images.processor import BitImageProcessor  # which imports this module


def preprocess(
    name: str, image: Image.Image, processor: "BitImageProcessor", out: np.ndarray | None = None
) -> np.ndarray:
    """Resizes, crops, rescales and normalizes.

    Args:
        name: the name of the image in errors.
        image: an image of the mode RGB.
        processor: the steps and their options.
        out: a float32 array of the result's shape to write to; `None` makes one.

    Returns:
        float32 `(height, width, 3)`.

    Raises:
        ValueError: the image would become enormous.
    """
    if processor.do_resize:
        height, width = steps.resized_shape(image.height, image.width, processor.size)
        steps.check_not_enormous(name, (image.height, image.width), (height, width))
        image = image.resize((width, height), processor.resample)
    if processor.do_center_crop:
        height, width = processor.crop_size["height"], processor.crop_size["width"]
        # Below 0 if the image is smaller; the missing part becomes zero.
        top, left = (image.height - height) // 2, (image.width - width) // 2
        image = image.crop((left, top, left + width, top + height))
    return rescale_and_normalize(image, processor, out)


def rescale_and_normalize(
    image: Image.Image, processor: "BitImageProcessor", out: np.ndarray | None = None
) -> np.ndarray:
    """Rescales and normalizes an RGB image without the other steps, to float32 `(height, width, 3)`."""
    return steps.rescale_and_normalize(
        np.asarray(image),
        processor.rescale_factor if processor.do_rescale else None,
        (processor.image_mean, processor.image_std) if processor.do_normalize else None,
        out,
    )
