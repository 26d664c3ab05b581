"""Compares both ways to rescale and normalize uint8 images with float64 arithmetic in transformers' order."""

import numpy as np
import pytest

from keras_bit.images import steps

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def _oracle(image, factor, mean_and_std):
    """transformers 5.23 `image_transforms.rescale` and `normalize`: a float64 product, then float32."""
    if factor is not None:
        image = (image.astype(np.float64) * factor).astype(np.float32)
    if mean_and_std is not None:
        image = image.astype(np.float32)
        mean, std = (np.array(values, np.float32) for values in mean_and_std)
        image = (image - mean) / std
    return image.astype(np.float32)


@pytest.mark.parametrize(
    ("factor", "mean_and_std", "exact"),
    [
        (1 / 255, HALF, True),
        (1 / 255, CLIP, True),
        (1 / 255, IMAGENET, True),
        (1 / 127.5, ((1.0,) * 3, (1.0,) * 3), True),
        (1 / 255, None, True),
        (None, HALF, True),
        (None, None, True),
        (1 / 254.3, HALF, False),  # for which the float32 steps would differ, so that the table is taken
        (0.0, HALF, False),
    ],
    ids=str,
)
def test_every_pixel_value_becomes_what_transformers_makes_of_it(factor, mean_and_std, exact):
    values = np.arange(256, dtype=np.uint8)
    image = np.stack([values, np.roll(values, 1), np.roll(values, 7)], axis=-1).reshape(16, 16, 3)
    expected = _oracle(image, factor, mean_and_std)
    out = np.empty((2, 16, 16, 3), np.float32)
    for result in (
        steps.rescale_and_normalize(image, factor, mean_and_std),
        steps.rescale_and_normalize(image, factor, mean_and_std, out[1]),
        out[1],
    ):
        np.testing.assert_array_equal(result, expected)
    assert steps._float32_is_exact(3, factor, mean_and_std) is exact
