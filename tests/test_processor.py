"""Compares the image processor with Pillow and plain arithmetic, and (live) with transformers', value by value."""

import copy
import dataclasses
import doctest
import io
import json
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_bit.hub.finding import HubOptions
from keras_bit.images import processor
from keras_bit.images.processor import BitImageProcessor, processor_of
from keras_bit.images.scaling import preprocess_input
from keras_bit.images.steps import center_crop, resized_shape
from loopback_hub import make_cache

BIT_50 = {
    "size": {"shortest_edge": 448},
    "crop_size": {"height": 448, "width": 448},
    "resample": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
SMALL = {"size": {"shortest_edge": 12}, "crop_size": {"height": 10, "width": 8}}
RAW = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def new_image(height=15, width=22, mode="RGB", seed=0):
    """Returns noise in any mode. Palettes and alpha are random too."""
    if mode == "P":
        image = Image.fromarray(noise(height, width, seed=seed), "L").convert("P")
        image.putpalette(noise(768, seed=seed + 1).tobytes())
        return image
    if mode == "1":
        return Image.fromarray(noise(height, width, seed=seed) > 127)
    channels = len(Image.new(mode, (1, 1)).getbands())
    data = noise(height, width, channels, seed=seed)
    return Image.frombytes(mode, (width, height), data.tobytes())


def encoded(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def oracle(image, size, resample, crop_size, factor, mean, std):
    """Resizes and crops with Pillow, which fills with black outside, and computes each of the 256 values on its own."""
    image = image.convert("RGB")
    if "shortest_edge" in size:
        edge, short = size["shortest_edge"], min(image.size)
        target = tuple(edge if side == short else int(edge * side / short) for side in image.size)
    else:
        target = (size["width"], size["height"])
    image = image.resize(target, resample)
    left = (image.width - crop_size["width"]) // 2
    top = (image.height - crop_size["height"]) // 2
    image = image.crop((left, top, left + crop_size["width"], top + crop_size["height"]))
    pixels = np.asarray(image)
    result = np.zeros(pixels.shape, np.float32)
    for channel in range(3):
        for value in range(256):
            rescaled = np.float32(value * factor)
            normal = (rescaled - np.float32(mean[channel])) / np.float32(std[channel])
            result[..., channel][pixels[..., channel] == value] = normal
    return result


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("size", [{"shortest_edge": 20}, {"height": 17, "width": 33}])
@pytest.mark.parametrize("crop_size", [{"height": 16, "width": 16}, {"height": 9, "width": 40}])
def test_every_filter_size_and_crop_agrees_with_the_oracle_on_random_sizes(resample, size, crop_size):
    generator = np.random.default_rng(resample)
    mean, std = generator.uniform(0.2, 0.8, 3), generator.uniform(0.1, 0.5, 3)
    factor = 1 / generator.integers(100, 300)
    processor = BitImageProcessor(
        size=size,
        resample=resample,
        crop_size=crop_size,
        rescale_factor=factor,
        image_mean=mean,
        image_std=std,
    )
    images = [new_image(*generator.integers(1, 60, 2), seed=index) for index in range(6)]
    expected = np.stack([oracle(image, size, resample, crop_size, factor, mean, std) for image in images])
    actual = processor(images)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("settings", "edge", "resample", "mean", "std"),
    [({}, 224, 3, processor.CLIP_MEAN, processor.CLIP_STD), (BIT_50, 448, 2, [0.5] * 3, [0.5] * 3)],
    ids=["defaults", "bit-50"],
)
def test_the_defaults_and_bit_50_settings_agree_with_the_oracle(settings, edge, resample, mean, std):
    image = new_image(61, 83)
    square = {"height": edge, "width": edge}
    expected = oracle(image, {"shortest_edge": edge}, resample, square, 1 / 255, mean, std)
    np.testing.assert_array_equal(BitImageProcessor(**settings)(image), expected[None])


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((480, 640), {"shortest_edge": 448}, (448, 597)),
        ((640, 480), {"shortest_edge": 448}, (597, 448)),
        ((500, 500), {"shortest_edge": 224}, (224, 224)),
        ((5, 400), {"shortest_edge": 7}, (7, 560)),
        ((3, 7), {"shortest_edge": 10}, (10, 23)),
        ((1, 1), {"shortest_edge": 224}, (224, 224)),
        ((480, 640), {"height": 100, "width": 30}, (100, 30)),
    ],
)
def test_the_size_rule_truncates_the_long_side(shape, size, expected):
    assert resized_shape(*shape, size) == expected


@pytest.mark.parametrize(
    ("length", "crop", "expected"),
    [
        (5, 2, [2, 3]),
        (4, 2, [2, 3]),
        (4, 3, [1, 2, 3]),
        (5, 5, [1, 2, 3, 4, 5]),
        (2, 4, [0, 1, 2, 0]),
        (2, 5, [0, 0, 1, 2, 0]),
        (1, 4, [0, 0, 1, 0]),
    ],
)
def test_crop_offsets_round_down_and_padding_puts_more_first(length, crop, expected):
    line = np.arange(1, length + 1, dtype=np.uint8)
    assert center_crop(line.reshape(-1, 1, 1), crop, 1).ravel().tolist() == expected
    assert center_crop(line.reshape(1, -1, 1), 1, crop).ravel().tolist() == expected


def test_an_image_too_narrow_and_too_high_is_padded_and_cropped_at_once():
    image = np.arange(1, 6, dtype=np.uint8).reshape(5, 1, 1)
    assert center_crop(image, 2, 4)[..., 0].tolist() == [[0, 0, 2, 0], [0, 0, 3, 0]]


def test_padding_is_normalized_like_black():
    result = BitImageProcessor(**SMALL, do_resize=False)(Image.new("RGB", (2, 2), "white"))
    black = -np.float32(processor.CLIP_MEAN) / np.float32(processor.CLIP_STD)
    np.testing.assert_array_equal(result[0, 0, 0], black)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "1", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_what_pillow_converts_to_rgb(mode):
    image = new_image(mode=mode)
    processor = BitImageProcessor(**SMALL)
    np.testing.assert_array_equal(processor(image), processor(image.convert("RGB")))


def test_alpha_is_dropped_and_not_composited():
    image = Image.new("RGBA", (6, 5), (10, 20, 30, 0))
    array = np.asarray(image)
    for source in (image, encoded(image), array, array.transpose(2, 0, 1)):
        np.testing.assert_array_equal(BitImageProcessor(**RAW)(source), np.full((1, 5, 6, 3), (10, 20, 30)))


def test_a_palette_with_transparency_is_converted_without_pillows_advice():
    image = new_image(mode="P")
    data = encoded(image, transparency=bytes(range(200)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = BitImageProcessor(**RAW)(data)
    np.testing.assert_array_equal(result[0], image.convert("RGB"))


def test_only_the_first_frame_of_a_file_counts():
    first, second = Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 255)
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert not BitImageProcessor(**RAW)(data).any()


def test_every_kind_of_input_gives_the_same_batch(tmp_path):
    image = new_image()
    array = np.asarray(image)
    path = tmp_path / "image.png"
    path.write_bytes(encoded(image))
    processor = BitImageProcessor(**SMALL)
    expected = processor(image)
    assert expected.shape == (1, 10, 8, 3)
    inputs = {
        "a path": path,
        "a path as text": str(path),
        "bytes": path.read_bytes(),
        "a bytearray": bytearray(path.read_bytes()),
        "a lazily opened file": Image.open(path),
        "an array": array,
        "an array of other integers": array.astype(np.int64),
        "an array of whole floats": array.astype(np.float32),
        "channels first": array.transpose(2, 0, 1),
        "a batch": array[None],
        "a batch with channels first": array.transpose(2, 0, 1)[None],
        "a list": [image],
        "a tuple": (array,),
        "a list of batches": [array[None]],
    }
    for name, value in inputs.items():
        np.testing.assert_array_equal(processor(value), expected, err_msg=name)
    many = processor([image, path, array.transpose(2, 0, 1), np.stack([array, array])])
    np.testing.assert_array_equal(many, np.repeat(expected, 5, axis=0))


def test_the_given_arrays_are_not_modified():
    array = noise(15, 22, 3).astype(np.float32)
    before = array.copy()
    for settings in (SMALL, RAW):
        BitImageProcessor(**settings)(array)
        np.testing.assert_array_equal(array, before)


def test_data_format_orders_the_result():
    processor = BitImageProcessor(**SMALL)
    first, last = processor(new_image(), data_format="channels_first"), processor(new_image())
    assert first.shape == (1, 3, 10, 8)
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


def test_input_data_format_decides_where_the_shape_does_not():
    processor = BitImageProcessor(**RAW)
    array = noise(3, 5, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(processor(array, input_data_format="channels_last")[0], array)
        np.testing.assert_array_equal(processor(array, input_data_format="channels_first")[0], array.transpose(1, 2, 0))
    with pytest.warns(UserWarning, match=r"shape \(3, 5, 3\), whose channels may be first or last"):
        np.testing.assert_array_equal(processor(array)[0], array.transpose(1, 2, 0))


def test_gray_arrays_are_repeated_to_rgb():
    gray = noise(6, 7, 1)
    np.testing.assert_array_equal(BitImageProcessor(**RAW)(gray)[0], np.concatenate([gray] * 3, axis=-1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fractions_are_resized_as_truncated_uint8_and_scaled_back(dtype):
    fractions = np.random.default_rng(0).uniform(0, 1, (15, 22, 3)).astype(dtype)
    bytes_ = (fractions.astype(np.float64) * 255).astype(np.float32).astype(np.uint8)
    only_resize = {**RAW, "do_resize": True, "size": {"height": 9, "width": 11}}
    expected = np.asarray(Image.fromarray(bytes_).resize((11, 9), 3)) / 255
    np.testing.assert_array_equal(BitImageProcessor(**only_resize)(fractions)[0], expected.astype(np.float32))


def test_an_array_of_zeros_and_ones_counts_as_whole_numbers():
    ones = np.ones((8, 8, 3), np.float32)
    only_resize = {**RAW, "do_resize": True, "size": {"height": 4, "width": 4}}
    assert (BitImageProcessor(**only_resize)(ones) == 1).all()


def test_rescaling_fractions_again_is_warned_of():
    fractions = np.full((8, 8, 3), 0.5, np.float32)
    with pytest.warns(
        UserWarning, match=r"`images` is already in \[0, 1\], and `do_rescale` multiplies it by 0.003922"
    ):
        BitImageProcessor(**SMALL)(fractions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BitImageProcessor(**SMALL)(fractions, do_rescale=False)
        BitImageProcessor(**SMALL)(fractions * 0)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("L", 1), ("P", 1), ("1", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("CMYK", 4)],
)
def test_without_conversion_images_keep_the_channels_that_numpy_sees(mode, channels):
    image = new_image(mode=mode)
    processor = BitImageProcessor(**RAW, do_convert_rgb=False)
    result = processor(image)
    np.testing.assert_array_equal(result[0], np.asarray(image).reshape(15, 22, channels))
    numbers = {"do_rescale": True, "do_normalize": True, "image_mean": 0.25, "image_std": 0.5}
    expected = ((result.astype(np.float64) / 255).astype(np.float32) - np.float32(0.25)) / np.float32(0.5)
    # a quotient by 255 and a product with 1 / 255 differ by at most one unit in the last place before the subtraction
    np.testing.assert_allclose(processor(image, **numbers), expected, rtol=0, atol=2.4e-7)


def test_overrides_hold_for_one_call_and_none_means_the_processors_own():
    processor = BitImageProcessor(**SMALL)
    before = processor.to_dict()
    image = new_image()
    assert processor(image, crop_size=5).shape == (1, 5, 5, 3)
    assert processor(image, do_center_crop=False, size=(6, 7)).shape == (1, 6, 7, 3)
    np.testing.assert_array_equal(processor(image, size=None, image_mean=None), processor(image))
    assert processor.to_dict() == before
    rows = {
        "do_resize": False,
        "size": {"shortest_edge": 30},
        "resample": 0,
        "do_center_crop": False,
        "crop_size": {"height": 4, "width": 4},
        "do_rescale": False,
        "rescale_factor": 0.5,
        "do_normalize": False,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.1, 0.2, 0.3],
    }
    for name, value in rows.items():
        overridden = processor(image, **{name: value})
        np.testing.assert_array_equal(overridden, BitImageProcessor(**{**SMALL, name: value})(image), err_msg=name)
        assert not np.array_equal(overridden, processor(image)), name


@pytest.mark.parametrize(
    ("given", "attribute", "expected"),
    [
        ({}, "size", {"shortest_edge": 224}),
        ({}, "crop_size", {"height": 224, "width": 224}),
        ({}, "resample", Image.Resampling.BICUBIC),
        ({}, "rescale_factor", 1 / 255),
        ({}, "image_mean", (0.48145466, 0.4578275, 0.40821073)),
        ({}, "image_std", (0.26862954, 0.26130258, 0.27577711)),
        ({}, "do_convert_rgb", True),
        ({"size": 256}, "size", {"shortest_edge": 256}),
        ({"size": np.int64(256)}, "size", {"shortest_edge": 256}),
        ({"size": [128, 64]}, "size", {"height": 128, "width": 64}),
        ({"crop_size": 128}, "crop_size", {"height": 128, "width": 128}),
        ({"resample": 0}, "resample", Image.Resampling.NEAREST),
        ({"image_mean": np.array([0.5, 0.25, 0.125])}, "image_mean", (0.5, 0.25, 0.125)),
        ({"image_std": 1}, "image_std", 1.0),
    ],
)
def test_options_are_normalized(given, attribute, expected):
    assert getattr(BitImageProcessor(**given), attribute) == expected


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"do_resize": 1}, TypeError, "`do_resize` must be True or False, got 1."),
        ({"size": 0}, ValueError, "`size` must be at least 1 pixel, got shortest_edge=0"),
        ({"size": {"height": 5, "width": -1}}, ValueError, "`size` must be at least 1 pixel, got width=-1"),
        ({"size": {"shortest_edge": 2.5}}, TypeError, "`size` must hold whole numbers of pixels"),
        ({"size": True}, TypeError, "`size` must hold whole numbers of pixels"),
        ({"size": "big"}, TypeError, "`size` must be a dictionary, an int or a pair (height, width), got 'big'"),
        (
            {"size": {"shortest_edge": 224, "longest_edge": 300}},
            ValueError,
            "`size` must have the keys 'shortest_edge' or 'height' and 'width', got {'longest_edge'",
        ),
        ({"size": {"max_height": 5, "max_width": 5}}, ValueError, "`size` must have the keys 'shortest_edge' or"),
        ({"size": {"height": 5}}, ValueError, "`size` must have the keys 'shortest_edge' or 'height' and 'width'"),
        ({"crop_size": {"shortest_edge": 5}}, ValueError, "`crop_size` must have the keys 'height' and 'width', got"),
        ({"crop_size": 0}, ValueError, "`crop_size` must be at least 1 pixel, got height=0"),
        ({"resample": 6}, ValueError, "`resample` must be one of Pillow's filters: 0 (nearest), 1 (lanczos), 2 (bili"),
        ({"resample": "cubic"}, ValueError, "got 'cubic'"),
        ({"resample": True}, ValueError, "got True"),
        ({"rescale_factor": "1/255"}, TypeError, "`rescale_factor` must be a number, got '1/255'"),
        (
            {"rescale_factor": float("nan")},
            ValueError,
            "`rescale_factor` must be finite in float32, between -3.4e38 and 3.4e38, got nan",
        ),
        ({"image_mean": [0.5, 0.5]}, ValueError, "`image_mean` has 2 values, but an RGB image has 3 channels"),
        ({"image_std": [0.5] * 4}, ValueError, "`image_std` has 4 values, but an RGB image has 3 channels"),
        (
            {"image_mean": []},
            ValueError,
            "`image_mean` must be a number, or a list of one per channel, for 1 to 4 channels, got []",
        ),
        ({"image_mean": "half"}, ValueError, "`image_mean` must be a number, or a list of one per channel"),
        (
            {"image_mean": [0.5, 0.5, 1e39]},
            ValueError,
            "`image_mean` must be finite in float32, between -3.4e38 and 3.4e38, got 1e+39",
        ),
        ({"image_mean": [0.5, 0.5, None]}, TypeError, "`image_mean` must be a number, got None"),
        (
            {"image_std": [0.5, 0.0, 0.5]},
            ValueError,
            "at least 1.2e-38, because the pixels are divided by it, got [0.5",
        ),
        ({"image_std": [0.5, 1e-50, 0.5]}, ValueError, "`image_std` must be above 0 in float32"),
        ({"image_std": 1e-40}, ValueError, "got 1e-40. To skip the step, pass `do_normalize=False`"),
        ({"image_std": -1}, ValueError, "`image_std` must be above 0 in float32"),
        (
            {"image_std": [0.5, float("inf"), 0.5]},
            ValueError,
            "`image_std` must be finite in float32, between -3.4e38 and 3.4e38, got inf",
        ),
    ],
)
def test_impossible_options_are_refused_at_construction_and_as_overrides(options, error, text):
    with pytest.raises(error) as raised:
        BitImageProcessor(**options)
    assert text in str(raised.value)
    with pytest.raises(error) as raised:
        BitImageProcessor()(new_image(), **options)
    assert text in str(raised.value)


WIDE = BitImageProcessor(size=8, do_center_crop=False)


@pytest.mark.parametrize(
    ("images", "arguments", "error", "text"),
    [
        ([], {}, ValueError, "`images` must have at least one image, got none."),
        (np.zeros((0, 4, 4, 3)), {}, ValueError, "`images` is empty: its shape is (0, 4, 4, 3)."),
        (noise(4), {}, ValueError, "4 for a batch, or 2 for a gray image, got the shape (4,). Reshape it"),
        ([noise(1, 1, 4, 4, 3)], {}, ValueError, "`images[0]` must have 3 dimensions, or 4 for a batch"),
        (noise(8, 9, 5), {}, ValueError, "shape (8, 9, 5), in which neither the first nor the last axis has 1, 3 or 4"),
        (
            noise(2, 8, 9, 5),
            {},
            ValueError,
            "`images[0]` has the shape (8, 9, 5), in which neither the first nor the last axis",
        ),
        (
            noise(8, 9, 2),
            {"input_data_format": "channels_last"},
            ValueError,
            "`images` must have 1, 3 or 4 channels to become RGB, got 2. Check `input_data_format`",
        ),
        (
            noise(8, 9, 5),
            {"input_data_format": "channels_last", "do_convert_rgb": False, "do_normalize": False},
            ValueError,
            "`images` must have 1 to 4 channels, got 5. Check `input_data_format`",
        ),
        (
            [new_image(mode="L")],
            {"do_convert_rgb": False},
            ValueError,
            "`image_mean` has 3 values, but `images[0]` has 1 channels. Give one value per channel, or a single",
        ),
        (noise(8, 8, 3) * 1.5, {}, ValueError, "`images` can't be resized: it must hold whole numbers in [0, 255] or"),
        (noise(8, 8, 3).astype(int) + 256, {}, ValueError, "got whole numbers in [25"),
        (noise(8, 8, 3) - 300.0, {}, ValueError, "Scale it, or pass `do_resize=False`."),
        (np.full((8, 8, 3), np.nan), {}, ValueError, "`images` holds values that are not finite (NaN or infinity)."),
        (np.full((8, 8, 3), "a"), {}, TypeError, "`images` must be an array of numbers, got the dtype <U1"),
        (7, {}, TypeError, "`images` must be a PIL image, an array, an encoded file's bytes or a path, got int"),
        (
            [[new_image()]],
            {},
            TypeError,
            "`images[0]` must be a PIL image, an array, an encoded file's bytes or a path, got list. ",
        ),
        (b"no image", {}, ValueError, "`images` is not an image file that Pillow can read."),
        ([b""], {}, ValueError, "`images[0]` is empty."),
        (
            [new_image(), encoded(new_image(80, 80), "JPEG")[:3000]],
            {},
            ValueError,
            "`images[1]` is a damaged image file; Pillow says: image file is truncated",
        ),
        (
            [new_image(10, 20), new_image(20, 20)],
            {"do_center_crop": False},
            ValueError,
            "`images[0]` has (224, 448, 3), `images[1]` has (224, 224, 3). Turn on `do_center_crop`, or give `size` a",
        ),
        (new_image(), {"do_flip": True, "color": 1}, TypeError, "Unknown options: `color`, `do_flip`. Expected: do_re"),
        (
            new_image(),
            {"data_format": "NHWC"},
            ValueError,
            "`data_format` must be one of None, 'channels_last', 'channels_fi",
        ),
        (
            new_image(),
            {"input_data_format": "any"},
            ValueError,
            "`input_data_format` must be one of None, 'channels_la",
        ),
        (
            new_image(),
            {"return_tensors": "mlx"},
            ValueError,
            "`return_tensors` must be one of None, 'np', 'tf', 'pt', 'jax', got 'mlx'",
        ),
    ],
)
def test_unusable_images_and_arguments_are_refused(images, arguments, error, text):
    with pytest.raises(error) as raised:
        BitImageProcessor()(images, **arguments)
    assert text in str(raised.value)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
@pytest.mark.parametrize("convert", [True, False])
def test_images_of_more_than_8_bits_are_refused(mode, convert):
    with pytest.raises(ValueError, match=f"`images` has the mode '{mode}', more than 8 bits per channel. Pillow would"):
        BitImageProcessor(**RAW, do_convert_rgb=convert)(Image.new(mode, (4, 4)))


def test_the_advice_for_16_bit_images_keeps_white_white():
    image = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    assert image.mode == "I;16"
    with pytest.raises(ValueError, match="Scale it to 8 bits first") as raised:
        BitImageProcessor(**RAW)(encoded(image))
    advice = str(raised.value).split("`")[3]
    scaled = eval(advice, {"Image": Image, "numpy": np, "image": image})
    assert np.asarray(scaled).tolist() == [[0, 1, 255]]


def test_a_mode_without_conversion_to_rgb_is_refused():
    with pytest.raises(ValueError, match="`images` has the mode 'La', which Pillow can't convert to RGB"):
        BitImageProcessor(**RAW)(new_image(mode="LA").convert("La"))


def test_unreadable_files_are_named_and_pillows_error_is_chained(tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(encoded(new_image(80, 80), "JPEG")[:3000])
    broken = tmp_path / "broken.png"
    data = bytearray(encoded(new_image(80, 80)))
    data[60:70] = bytes(10)
    broken.write_bytes(data)
    rows = [
        (text, ValueError, "notes.jpg) is not an image file that Pillow can read."),
        (cut, ValueError, "cut.jpg) is a damaged image file; Pillow says: image file is truncated"),
        (broken, ValueError, "broken.png) is a damaged image file; Pillow says: "),
        (tmp_path / "absent.jpg", FileNotFoundError, "absent.jpg): there is no such file."),
    ]
    for path, error, message in rows:
        for value in (path, str(path)):
            with pytest.raises(error) as raised:
                WIDE([value])
            assert str(raised.value).startswith("`images[0]` (")
            assert message in str(raised.value)
            assert raised.value.__cause__ is not None
    with pytest.raises(IsADirectoryError, match=r"is a directory. Pass a list of its files."):
        WIDE(tmp_path)
    damaged = r"`images\[0\]` is a damaged image file; Pillow says: image file is trunc"
    with Image.open(cut) as opened, pytest.raises(ValueError, match=damaged):
        WIDE([opened])


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_a_damaged_file_is_read_or_refused_with_its_name(file_format):
    data = encoded(new_image(30, 40), file_format)
    generator = np.random.default_rng(0)
    messages = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on damaged metadata
        for _ in range(60):
            damaged = bytearray(data[: generator.integers(1, len(data) + 1)])
            for position in generator.integers(0, min(len(damaged), 200), 3):
                damaged[position] = generator.integers(256)
            try:
                BitImageProcessor(**SMALL)(damaged)
            except (ValueError, Image.DecompressionBombError) as error:
                messages.append(str(error))
    assert len(messages) > 20
    assert all(message.startswith("`images`") for message in messages)


def test_a_decompression_bomb_is_refused_in_pillows_words(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"`images`: Image size \(330 pixels\).*MAX_IMAGE_PIXELS") as e:
        WIDE(encoded(new_image()))
    assert isinstance(e.value.__cause__, Image.DecompressionBombError)


def test_return_tensors_gives_the_frameworks_tensor():
    processor = BitImageProcessor(**SMALL)
    expected = processor(new_image())
    array = processor(new_image(), return_tensors="np")["pixel_values"]
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, expected)
    tensorflow = pytest.importorskip("tensorflow")
    tensor = processor(new_image(), return_tensors="tf").pixel_values
    assert tensorflow.is_tensor(tensor)
    np.testing.assert_array_equal(tensor, expected)


def test_tensors_are_images_too():
    tensorflow = pytest.importorskip("tensorflow")
    array = noise(15, 22, 3)
    np.testing.assert_array_equal(WIDE(tensorflow.constant(array)), WIDE(array))


@pytest.mark.parametrize(("name", "package"), [("tf", "tensorflow"), ("pt", "torch"), ("jax", "jax")])
def test_a_missing_framework_is_named_with_the_install_command(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"`return_tensors='{name}'`.* {package},.*`pip install {package}`"):
        WIDE(new_image(), return_tensors=name)


def test_a_framework_that_lacks_another_package_is_not_reported_as_missing(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    (tmp_path / "jax.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_package'$"):
        WIDE(new_image(), return_tensors="jax")


PROCESSORS = {
    "defaults": {},
    "bit-50": BIT_50,
    "everything else": {
        "do_resize": False,
        "size": {"height": 3, "width": 4},
        "resample": 5,
        "do_center_crop": False,
        "crop_size": {"height": 5, "width": 6},
        "do_rescale": False,
        "rescale_factor": 0.1,
        "do_normalize": False,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": 0.7,
        "do_convert_rgb": False,
    },
}


@pytest.mark.parametrize("options", PROCESSORS.values(), ids=PROCESSORS)
def test_a_saved_processor_is_read_back_equal(options, tmp_path):
    processor = BitImageProcessor(**options)
    directory = tmp_path / "a" / "b"
    processor.save_pretrained(directory)
    assert [path.name for path in directory.iterdir()] == ["preprocessor_config.json"]
    written = json.loads((directory / "preprocessor_config.json").read_text())
    assert written == processor.to_dict()
    assert written["image_processor_type"] == "BitImageProcessor"
    assert BitImageProcessor.from_pretrained(directory) == processor
    assert BitImageProcessor.from_pretrained(str(directory), size=99) == BitImageProcessor(**{**options, "size": 99})
    text = repr(processor).replace("<Resampling.", "Image.Resampling.").replace(f": {processor.resample}>", "")
    assert eval(text) == processor


def test_different_processors_are_unequal_and_to_dict_shares_nothing():
    processor = BitImageProcessor()
    assert processor == BitImageProcessor(size=224)
    assert processor != BitImageProcessor(size=225)
    dictionary = processor.to_dict()
    dictionary["size"]["shortest_edge"] = 1
    dictionary["image_mean"][0] = 1
    assert processor == BitImageProcessor()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    BitImageProcessor().save_pretrained(tmp_path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(processor.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        BitImageProcessor(size=99).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["preprocessor_config.json"]
    assert BitImageProcessor.from_pretrained(tmp_path) == BitImageProcessor()


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        (
            "preprocessor_config.json",
            {"feature_extractor_type": "BitFeatureExtractor", "size": 256, "crop_size": 192, "resample": 2},
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 192, "width": 192}, "resample": 2},
        ),
        (
            "preprocessor_config.json",
            {"do_convert_rgb": None, "image_mean": None, "default_to_square": False, "do_pad": None},
            {},
        ),
        (
            "processor_config.json",
            {"processor_class": "X", "image_processor": {**BIT_50, "image_processor_type": "BitImageProcessor"}},
            BIT_50,
        ),
    ],
    ids=["old keys", "null and unknown keys", "nested"],
)
def test_configurations_of_other_versions_are_read(name, config, expected, tmp_path):
    (tmp_path / name).write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    assert BitImageProcessor.from_pretrained(tmp_path) == BitImageProcessor(**expected)
    assert BitImageProcessor.from_pretrained(tmp_path / "model.safetensors") == BitImageProcessor(**expected)


def test_unusable_configurations_are_refused_with_their_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no preprocessor_config.json and no processor_config.json. Build"):
        BitImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "X"}')
    with pytest.raises(ValueError, match=r"processor_config.json has no object under the key 'image_processor'"):
        BitImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": "big"}')
    with pytest.raises(
        ValueError,
        match=r"preprocessor_config.json does not describe a processor: `size` must be a dictionary, an int or a pair",
    ):
        BitImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(TypeError, match=r"Unknown options: `color`. Expected: do_resize, size"):
        BitImageProcessor.from_pretrained(tmp_path, color=1)
    with pytest.raises(
        NotADirectoryError, match=r"`directory` must be a directory.*preprocessor_config.json is a file"
    ):
        BitImageProcessor().save_pretrained(tmp_path / "preprocessor_config.json")


def test_bits_own_processor_replaces_only_a_missing_one(tmp_path):
    own, bits_own = BitImageProcessor(size=64), BitImageProcessor(**BIT_50)
    assert processor_of(tmp_path, HubOptions()) == (bits_own, False)
    own.save_pretrained(tmp_path)
    assert processor_of(tmp_path, HubOptions()) == (own, True)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        processor_of(tmp_path / "nowhere", HubOptions())
    # The repository may have one, which only the Hub knows.
    make_cache(tmp_path / "hub", "google/bit-50", {"config.json": b'{"model_type": "bit"}'})
    with pytest.raises(FileNotFoundError, match="google/bit-50"):
        processor_of("google/bit-50", HubOptions(cache_dir=tmp_path / "hub", local_files_only=True))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64, bool])
@pytest.mark.parametrize("data_format", [None, "channels_last", "channels_first"])
def test_preprocess_input_equals_keras_and_leaves_its_argument_alone(dtype, data_format):
    keras = pytest.importorskip("keras")
    x = noise(2, 4, 5, 3).astype(dtype)
    before = x.copy()
    result = preprocess_input(x, data_format)
    np.testing.assert_array_equal(x, before)
    expected = keras.applications.imagenet_utils.preprocess_input(before, data_format, mode="tf")
    assert result.dtype == expected.dtype == (dtype if np.issubdtype(dtype, np.floating) else np.float32)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float16"])
def test_preprocess_input_takes_tensors_and_symbolic_inputs(dtype):
    keras = pytest.importorskip("keras")
    x = noise(2, 4, 5, 3).astype(dtype)
    expected = preprocess_input(x)
    tensor = preprocess_input(keras.ops.convert_to_tensor(x))
    assert keras.backend.is_keras_tensor(tensor) is False
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(tensor), expected)
    inputs = keras.Input((None, None, 3), dtype=dtype)
    model = keras.Model(inputs, preprocess_input(inputs))
    assert model.output.dtype == expected.dtype.name
    np.testing.assert_array_equal(model(x), expected)  # `predict` compiles, and may multiply by the reciprocal


def test_preprocess_input_refuses_other_arguments():
    with pytest.raises(ValueError, match=r"`data_format` must be one of None, 'channels_last', 'channels_first', got"):
        preprocess_input(np.zeros((1, 2, 2, 3)), data_format="NHWC")
    with pytest.raises(TypeError, match=r"`x` must be a numpy array or a tensor, got list"):
        preprocess_input([1, 2, 3])


def test_the_docstrings_examples_run():
    result = doctest.testmod(processor)
    assert result.attempted > 0
    assert result.failed == 0


# --- live: transformers' own processor -------------------------------------------------------------------------------

SETTINGS = {"defaults": {}, "bit-50": BIT_50}


def reference(images, options, **arguments):
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    results = BitImageProcessorPil(**options)(images, **arguments)["pixel_values"]
    return np.stack(results).transpose(0, 2, 3, 1)


def compare(images, options, expected_images=None, **arguments):
    """Asserts equality in every value; returns their number."""
    actual = BitImageProcessor(**options)(images, **arguments)
    expected = reference(images if expected_images is None else expected_images, options, **arguments)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert np.array_equal(actual, expected), f"{np.count_nonzero(actual != expected)} of {actual.size} values differ"
    return actual.size


@pytest.mark.live
@pytest.mark.data
@pytest.mark.parametrize("settings", SETTINGS)
def test_photographs_equal_transformers(settings, photos):
    assert photos
    values = sum(compare(path, SETTINGS[settings], Image.open(path)) for path in photos)
    print(f"{values:,} values of {len(photos)} photographs are equal ({settings})")


@pytest.mark.live
@pytest.mark.parametrize("settings", SETTINGS)
def test_small_and_narrow_images_equal_transformers(settings):
    shapes = [(1, 1), (2, 3), (5, 400), (1, 300), (300, 1)]
    values = sum(compare(new_image(*shape), SETTINGS[settings]) for shape in shapes)
    print(f"{values:,} values of {len(shapes)} shapes are equal ({settings})")


@pytest.mark.live
def test_random_sizes_and_settings_equal_transformers():
    generator = np.random.default_rng(0)
    values = 0
    for index in range(60):
        size = generator.integers(1, 90, 4).tolist()
        options = {
            "size": {"shortest_edge": size[0]} if index % 2 else {"height": size[0], "width": size[1]},
            "crop_size": {"height": size[2], "width": size[3]},
            "resample": index % 6,
            "rescale_factor": generator.uniform(0.001, 0.01),
            "image_mean": generator.uniform(0, 1, 3).tolist(),
            "image_std": generator.uniform(0.1, 1, 3).tolist(),
        }
        values += compare(new_image(*generator.integers(1, 90, 2), seed=index), options)
    print(f"{values:,} values of 60 random sizes and settings are equal")


@pytest.mark.live
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "YCbCr", "LA", "PA", "RGBA"])
def test_modes_equal_transformers(mode, settings):
    image = new_image(61, 83, mode)
    # transformers 5 composites alpha on white, 4 drops it
    values = compare(image, SETTINGS[settings], image.convert("RGB") if "A" in mode else image)
    print(f"{values:,} values of mode {mode} are equal ({settings})")


@pytest.mark.live
@pytest.mark.parametrize("settings", SETTINGS)
def test_arrays_equal_transformers(settings):
    options = SETTINGS[settings]
    uint8 = noise(61, 83, 3)
    fractions = np.random.default_rng(0).uniform(0, 1, (61, 83, 3))
    arrays = {
        "uint8": uint8,
        "int32": uint8.astype(np.int32),
        "float32 in [0, 255]": uint8.astype(np.float32),
        "float64 in [0, 255]": uint8.astype(np.float64),
        "nearly whole": uint8.clip(1, 254) + 1e-6,
        "float32 in [0, 1]": fractions.astype(np.float32),
        "float64 in [0, 1]": fractions,
        "float16 in [0, 1]": fractions.astype(np.float16),
        "zeros and ones": fractions.round(),
        "bool": fractions > 0.5,
        "gray": uint8[..., :1],
        "gray fractions": fractions[..., :1],
    }
    values = 0
    for array in arrays.values():
        for extra in ({}, {"do_rescale": False}):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # fractions rescaled again
                values += compare(array, {**options, **extra})
                values += compare(array.transpose(2, 0, 1), {**options, **extra})
                values += compare(np.stack([array, array[::-1]]), {**options, **extra})
                values += compare([array, array[:, ::-1]], {**options, **extra}, input_data_format="channels_last")
    for shape in [(3, 20, 3), (1, 20, 3), (4, 20, 1), (20, 30, 3), (20, 3, 3)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ambiguous
            if shape[0] != 4:
                values += compare(noise(*shape), options)
            values += compare(noise(*shape), options, input_data_format="channels_last")
    print(f"{values:,} values of {len(arrays)} kinds of array are equal ({settings})")


@pytest.mark.live
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float32, np.float64])
def test_arrays_that_are_not_resized_equal_transformers(dtype):
    array = (np.random.default_rng(0).uniform(-2, 400, (30, 41, 3))).astype(dtype)
    values = 0
    for row in range(8):
        options = {
            "do_resize": False,
            "do_center_crop": bool(row & 1),
            "do_rescale": bool(row & 2),
            "do_normalize": bool(row & 4),
            "crop_size": {"height": 35, "width": 20},
        }
        # float16 and float64 results are cast: this batch is always float32
        actual = BitImageProcessor(**options)(array)
        expected = reference(array, options).astype(np.float32)
        np.testing.assert_array_equal(actual, expected)
        values += actual.size
    print(f"{values:,} values of {np.dtype(dtype)} are equal")


@pytest.mark.live
@pytest.mark.parametrize(
    "override",
    [
        {"do_resize": False},
        {"size": {"shortest_edge": 300}},
        {"size": {"height": 250, "width": 100}},
        {"size": 256},
        {"do_center_crop": False},
        {"crop_size": {"height": 301, "width": 77}},
        {"crop_size": 100},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"image_mean": [0.1, 0.2, 0.3]},
        {"image_std": [0.1, 0.2, 0.3]},
        {"image_mean": 0.3, "image_std": 0.7},
        {"do_convert_rgb": False},
        *({"resample": resample} for resample in range(6)),
    ],
    ids=str,
)
def test_overrides_equal_transformers(override):
    values = 0
    for options in SETTINGS.values():
        for shape in [(61, 83), (500, 375), (375, 500)]:
            image = new_image(*shape)
            actual = BitImageProcessor(**options)(image, **override)
            np.testing.assert_array_equal(actual, reference(image, options, **override))
            np.testing.assert_array_equal(actual, BitImageProcessor(**{**options, **override})(image))
            values += actual.size
    print(f"{values:,} values are equal with {override}")


@pytest.mark.live
@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_images_that_are_not_converted_equal_transformers(mode):
    values = 0
    for options in (
        {"do_normalize": False},
        {"image_mean": 0.3, "image_std": 0.7},
        {**BIT_50, "image_mean": 0.3, "image_std": 0.7, "resample": 1},
        {"do_resize": False, "image_mean": 0.3, "image_std": 0.7},
    ):
        values += compare(new_image(61, 83, mode), {**options, "do_convert_rgb": False})
    print(f"{values:,} values of mode {mode} are equal without conversion")


@pytest.mark.live
@pytest.mark.parametrize("options", PROCESSORS.values(), ids=PROCESSORS)
def test_saved_processors_are_read_by_transformers_and_the_other_way_round(options, tmp_path):
    from transformers import AutoImageProcessor
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    ours = BitImageProcessor(**options, orientation="ignore")  # a key of ours, and not its default
    ours.save_pretrained(tmp_path / "ours")
    for reader in (BitImageProcessorPil, AutoImageProcessor):
        theirs = reader.from_pretrained(tmp_path / "ours")
        assert type(theirs).__name__.startswith("BitImageProcessor")
        dictionary = json.loads(theirs.to_json_string())
        assert {name: dictionary[name] for name in ours.to_dict()} == ours.to_dict()
    theirs.save_pretrained(tmp_path / "theirs")
    assert BitImageProcessor.from_pretrained(tmp_path / "theirs") == ours


@pytest.mark.live
def test_torch_tensors_go_in_and_come_out():
    import torch

    processor = BitImageProcessor(**SMALL)
    array = noise(15, 22, 3)
    tensor = processor(torch.from_numpy(array), return_tensors="pt", data_format="channels_first").pixel_values
    assert isinstance(tensor, torch.Tensor)
    assert tuple(tensor.shape) == (1, 3, 10, 8)
    np.testing.assert_array_equal(tensor.numpy(), processor(array, data_format="channels_first"))


@pytest.mark.data
def test_the_photographs_are_read_from_paths_bytes_and_images_alike(photos):
    path: Path = photos[0]
    processor = BitImageProcessor()
    expected = processor(Image.open(path))
    np.testing.assert_array_equal(processor(path), expected)
    np.testing.assert_array_equal(processor(path.read_bytes()), expected)


# timm's layout


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"size": {"shortest_edge": 448}, "crop_size": {"height": 448, "width": 448}, "resample": 2}),
        ({"input_size": [3, 224, 224], "crop_pct": 0.875}, {"size": {"shortest_edge": 256}}),
        ({"interpolation": "bicubic"}, {"resample": 3}),
        ({"mean": [0.1, 0.2, 0.3]}, {"image_mean": (0.1, 0.2, 0.3)}),
        ({"crop_mode": "squash"}, {"size": {"height": 448, "width": 448}, "do_center_crop": False}),
    ],
)
def test_timms_pretrained_cfg_gives_the_processor(change, expected, tmp_path):
    pretrained_cfg = {
        "input_size": [3, 448, 448],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    } | change
    config = {"architecture": "resnetv2_50x1_bit", "pretrained_cfg": pretrained_cfg}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = BitImageProcessor.from_pretrained(tmp_path)
    for name, value in expected.items():
        got = getattr(found, name)
        assert (tuple(got) if isinstance(value, tuple) else got) == value
    assert found == BitImageProcessor.from_timm(pretrained_cfg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "random"}, "`interpolation` must be one of nearest, .*got 'random'"),
        ({"crop_mode": "border"}, "`crop_mode` must be 'center' .*got crop_mode='border'"),
        ({"input_size": [3, 224, 448]}, r".* with a square `input_size`, .*input_size=\(224, 448\)"),
    ],
)
def test_options_that_only_timm_has_are_refused(change, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": change}))
    with pytest.raises(ValueError, match=f"config.json does not describe a processor: {message}"):
        BitImageProcessor.from_pretrained(tmp_path)


def test_a_thin_image_whose_short_edge_would_make_it_enormous_is_refused():
    with pytest.raises(ValueError, match=r"of 1x65000 px would be resized to 448x29120000, more than [\d,]+ pixels"):
        BitImageProcessor(size=448)(Image.new("RGB", (65000, 1)))


CHANGES = {
    "an option is set": lambda processor: setattr(processor, "do_resize", False),
    "an option is deleted": lambda processor: delattr(processor, "do_resize"),
    "a size is set": lambda processor: processor.size.__setitem__("shortest_edge", 8),
    "a size is updated": lambda processor: processor.size.update(shortest_edge=8),
    "a size is removed": lambda processor: processor.size.pop("shortest_edge"),
    "a crop is set": lambda processor: processor.crop_size.__setitem__("height", 8),
    "a crop is merged": lambda processor: processor.crop_size.__ior__({"height": 8}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_a_processor_is_refused_with_what_to_do_instead(change):
    processor = BitImageProcessor(size=16, crop_size=16)
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"Pass `\w+=` in the call.*dataclasses\.replace"):
        change(processor)
    assert processor == BitImageProcessor(size=16, crop_size=16)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_processor_is_copied_and_pickled(copied):
    processor = BitImageProcessor(size=16, crop_size=16)
    assert copied(processor) == processor
    assert copied(processor.size) == processor.size == {"shortest_edge": 16}
    assert dataclasses.replace(processor, do_resize=False).do_resize is False
