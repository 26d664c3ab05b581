"""Makes images that all look different, for the tests of an audit."""

import numpy as np
from PIL import Image


def scene(seed: int, size: int = 48) -> np.ndarray:
    """Returns blurred patches of random colors, uint8 `(size, size, 3)`."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC))
