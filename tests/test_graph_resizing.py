"""Compares Pillow's resize in a graph with Pillow itself. The pixels are integers, so they must be equal."""

import functools

import numpy as np
import PIL
import pytest
import tensorflow as tf
from PIL import Image

from keras_bit import versions
from keras_bit.images import graph_resizing
from keras_bit.images.graph_resizing import Resize, Window
from resizes import FILTERS, NAMES, SIZES, noise


@functools.cache
def compiled(resample):
    """Compiles the resize as `tf.data` does, because eager operations would not show what the optimizer rewrites."""
    scalars = [tf.TensorSpec([], tf.int32)] * 6

    @tf.function(input_signature=[tf.TensorSpec([None, None, None], tf.uint8), *scalars])
    def run(pixels, height, width, top, left, rows, columns):
        size = tuple(tf.unstack(tf.shape(pixels)[:2]))
        resize = Resize(size, (height, width), resample, Window(top, left, rows, columns))
        return resize.apply(resize.source.cut(pixels))

    return run


def with_pillow(pixels, height, width, resample):
    return np.asarray(Image.fromarray(pixels).resize((width, height), resample))


def assert_equal(pixels, height, width, resample, window=None):
    window = window or Window(0, 0, height, width)
    found = compiled(resample)(pixels, height, width, *window).numpy()
    expected = window.cut(with_pillow(pixels, height, width, resample))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected, err_msg=f"{pixels.shape} to {(height, width)}, {window}")


@pytest.mark.parametrize("resample", FILTERS, ids=NAMES)
@pytest.mark.parametrize(("size", "resized"), SIZES.values(), ids=SIZES)
def test_every_value_is_pillows(size, resized, resample):
    assert_equal(noise(np.random.default_rng(0), *size), *resized, resample)


@pytest.mark.parametrize("resample", FILTERS, ids=NAMES)
def test_every_value_of_any_window_of_any_size_is_pillows(resample):
    rng = np.random.default_rng(int(resample))
    for case in range(60):
        height, width = rng.integers(1, 400 if case % 3 else 12, 2)
        to_height, to_width = rng.integers(1, 300 if case % 2 else 12, 2)
        top, left = rng.integers(to_height), rng.integers(to_width)
        window = Window(top, left, rng.integers(1, to_height - top + 1), rng.integers(1, to_width - left + 1))
        assert_equal(noise(rng, height, width), int(to_height), int(to_width), resample, window)


@pytest.mark.parametrize("resample", FILTERS, ids=NAMES)
def test_one_channel_is_resized_as_well(resample):
    pixels = noise(np.random.default_rng(1), 30, 47, 1)
    found = compiled(resample)(pixels, 19, 60, 0, 0, 19, 60).numpy()
    np.testing.assert_array_equal(found[..., 0], with_pillow(pixels[..., 0], 19, 60, resample))


@pytest.mark.slow
def test_static_sizes_give_equal_values_and_a_static_shape():
    # Constants are where the optimizer rewrites most: an ulp moves a tap of the box filter.
    rng = np.random.default_rng(2)
    for resample in FILTERS:

        @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
        def run(pixels, resample=resample):
            resize = Resize(tuple(tf.unstack(tf.shape(pixels)[:2])), (224, 224), resample, Window(0, 0, 224, 224))
            return resize.apply(resize.source.cut(pixels))

        assert run.get_concrete_function().structured_outputs.shape == (224, 224, 3)
        for _ in range(12):
            pixels = noise(rng, *rng.integers(1, 700, 2))
            np.testing.assert_array_equal(run(pixels), with_pillow(pixels, 224, 224, resample), err_msg=resample.name)


# Numbers per strip: of single lines, of some that do not divide the side, of all lines but one.
STRIPS = (1, 2_000, 7_000, 100_000)
LARGE = {
    "squashed": ((90, 131), (24, 31)),
    "vertically first since Pillow 13": ((170, 61), (24, 40)),
    "vertically first in every Pillow": ((401, 3), (24, 5)),
    "enlarged": ((31, 24), (90, 131)),
    "higher and narrower": ((31, 131), (90, 24)),
    "a few columns": ((90, 131), (90, 5)),
}


@pytest.mark.parametrize("resample", FILTERS, ids=NAMES)
@pytest.mark.parametrize(("size", "resized"), LARGE.values(), ids=LARGE)
@pytest.mark.slow
def test_large_images_are_read_in_strips_and_every_value_is_pillows(size, resized, resample, monkeypatch):
    rng = np.random.default_rng(5)
    top, left = rng.integers(resized[0]), rng.integers(resized[1])
    part = Window(top, left, rng.integers(1, resized[0] - top + 1), rng.integers(1, resized[1] - left + 1))
    seen, in_strips = [], graph_resizing._in_strips
    monkeypatch.setattr(graph_resizing, "_in_strips", lambda *passed: seen.append(1) or in_strips(*passed))
    for numbers, channels in zip(STRIPS, (3, 3, 1, 3), strict=True):
        monkeypatch.setattr(graph_resizing, "STRIP", numbers)
        pixels = noise(rng, *size, channels)
        expected = with_pillow(pixels[..., 0] if channels == 1 else pixels, *resized, resample)
        for window in (Window(0, 0, *resized), part):
            resize = Resize(size, resized, resample, window)
            found = resize.apply(tf.constant(resize.source.cut(pixels)))
            np.testing.assert_array_equal(found, window.cut(expected).reshape(found.shape), str((numbers, window)))
    assert len(seen) >= 3


def test_a_photograph_from_a_camera_is_large_and_equal():
    assert 3000 * 2000 * 3 > graph_resizing.STRIP > 375 * 375 * 3
    for size in ((3000, 2000), (2000, 3000)):
        assert_equal(noise(np.random.default_rng(6), *size), 224, 224, Image.Resampling.BICUBIC)


@pytest.mark.slow
def test_a_large_photograph_has_72_taps_for_a_pixel_and_is_equal():
    pixels = noise(np.random.default_rng(7), 4000, 6000)
    assert_equal(pixels, 224, 336, Image.Resampling.BICUBIC, Window(0, 56, 224, 224))


HORIZONTAL, VERTICAL = "horizontally first", "vertically first"
ORDERS = [  # size, resized, with Pillow 12.3, with 13.0; at the limits of either rule
    ((400, 200), (128, 128), HORIZONTAL, VERTICAL),
    ((272, 200), (128, 128), HORIZONTAL, HORIZONTAL),  # loses 144 rows and 72 columns
    ((273, 200), (128, 128), HORIZONTAL, VERTICAL),
    ((40, 90), (39, 95), HORIZONTAL, VERTICAL),
    ((40, 90), (40, 95), HORIZONTAL, HORIZONTAL),
    ((200, 2), (196, 4), HORIZONTAL, VERTICAL),
    ((201, 2), (196, 4), VERTICAL, VERTICAL),
    ((201, 2), (205, 40), HORIZONTAL, HORIZONTAL),
]


@pytest.mark.parametrize(("size", "resized", "before", "since"), ORDERS)
def test_the_order_of_the_directions_is_that_of_the_installed_pillow(size, resized, before, since, monkeypatch):
    pixels = noise(np.random.default_rng(0), *size)
    bicubic = Image.Resampling.BICUBIC
    either = {
        HORIZONTAL: with_pillow(with_pillow(pixels, size[0], resized[1], bicubic), *resized, bicubic),
        VERTICAL: with_pillow(with_pillow(pixels, resized[0], size[1], bicubic), *resized, bicubic),
    }
    assert resized[0] == size[0] or (either[HORIZONTAL] != either[VERTICAL]).any()
    rules = {"11.0.0": HORIZONTAL, "12.1.1": HORIZONTAL, "12.2.0": before, "12.3.0": before, "13.0.0": since}
    installed = next(rules[version] for version in reversed(rules) if not versions.is_older(PIL.__version__, version))
    np.testing.assert_array_equal(with_pillow(pixels, *resized, bicubic), either[installed])
    for version, expected in rules.items():
        monkeypatch.setattr(PIL, "__version__", version)
        resize = Resize(size, resized, bicubic, Window(0, 0, *resized))
        np.testing.assert_array_equal(resize.apply(resize.source.cut(pixels)), either[expected], version)


@pytest.mark.parametrize("resample", FILTERS, ids=NAMES)
def test_only_the_source_is_read_and_all_of_it(resample):
    size, resized, window = (90, 120), (45, 60), Window(11, 20, 16, 24)
    source = Resize(size, resized, resample, window).source
    pixels = noise(np.random.default_rng(3), *size)
    expected = window.cut(with_pillow(pixels, *resized, resample))
    elsewhere = np.zeros_like(pixels)
    source.cut(elsewhere)[...] = source.cut(pixels)
    np.testing.assert_array_equal(window.cut(with_pillow(elsewhere, *resized, resample)), expected)
    radius = {0: 0, 1: 3, 2: 1, 3: 2, 4: 0.5, 5: 1}[resample]
    # twice the window, and the support of the filter on both sides
    assert window.height * 2 - 1 <= int(source.height) <= (window.height + 2 * radius) * 2
    assert window.width * 2 - 1 <= int(source.width) <= (window.width + 2 * radius) * 2
