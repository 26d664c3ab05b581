"""Filters, sizes and images of the resizes that tests compare with Pillow's."""

import numpy as np
from PIL import Image

FILTERS = [Image.Resampling(number) for number in range(6)]
NAMES = [resample.name.lower() for resample in FILTERS]

# (height, width) of the image and of the result
SIZES = {
    "one pixel": ((1, 1), (1, 1)),
    "one pixel, enlarged": ((1, 1), (37, 5)),
    "to one pixel": ((61, 43), (1, 1)),
    "one row": ((1, 501), (24, 224)),
    "one column": ((501, 1), (224, 24)),
    "the same size": ((40, 56), (40, 56)),
    "one side the same": ((40, 56), (40, 31)),
    "half": ((96, 128), (48, 64)),  # taps end exactly between two pixels
    "a third": ((96, 129), (32, 43)),
    "double": ((48, 64), (96, 128)),
    "two thirds": ((96, 129), (64, 86)),
    "many taps": ((1500, 1201), (7, 9)),
    "short edge": ((375, 500), (224, 298)),
    "squashed high": ((400, 200), (128, 128)),  # vertically first since Pillow 13
    "squashed wide": ((200, 400), (128, 128)),
    "wider and lower": ((300, 40), (64, 90)),
}


def noise(rng, height, width, channels=3):
    """Returns noise. Half of it is black and white only, because there sums go furthest beyond [0, 255]."""
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return np.where(rng.random() < 0.5, pixels, (pixels > 127) * np.uint8(255))
