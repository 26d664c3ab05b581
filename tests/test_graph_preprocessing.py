"""Tests that the processor's graph equals its array side, which test_processor.py compares with transformers."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from conftest import ROOT, absent
from keras_bit import BitImageProcessor
from keras_bit.images import graph_decoding, graph_preprocessing
from keras_bit.images.graph_resizing import Window

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
PROCESSORS = {
    "transformers' default": BitImageProcessor(),
    "google/bit-50": BitImageProcessor(size=448, crop_size=448, resample=2, **HALF),
    "short edge beyond the crop": BitImageProcessor(size=64, crop_size=56, resample=2, **HALF),
    "short edge below the crop": BitImageProcessor(size=40, crop_size=(56, 72), resample=3),
    "fixed size, no crop": BitImageProcessor(size=(48, 31), do_center_crop=False, resample=1),
    "fixed size, crop beyond": BitImageProcessor(size=(48, 31), crop_size=(41, 44), resample=4),
    "Hamming": BitImageProcessor(size=(48, 31), do_center_crop=False, resample=5),
    "nearest": BitImageProcessor(size=50, crop_size=50, resample=0),
    "no resize": BitImageProcessor(do_resize=False, crop_size=(60, 81)),
    "no resize, no crop": BitImageProcessor(do_resize=False, do_center_crop=False),
    "no rescale": BitImageProcessor(size=40, crop_size=40, do_rescale=False),
    "no normalization": BitImageProcessor(size=40, crop_size=40, do_normalize=False),
    "pixels as they are": BitImageProcessor(size=40, crop_size=40, do_rescale=False, do_normalize=False),
    "odd numbers": BitImageProcessor(
        size=40, crop_size=40, rescale_factor=0.0123, image_mean=[0.1, 0.7, 1.3], image_std=[0.3, 1.7, 0.01]
    ),
}
SIZES = [(1, 1), (1, 90), (90, 1), (64, 64), (60, 81), (61, 80), (59, 82), (43, 200), (211, 45)]
rng = np.random.default_rng(0)


def pixels_of(height, width, channels=3):
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image, kind, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def in_graph(processor, *, tensor=False):
    spec = tf.TensorSpec([None, None, None], tf.uint8) if tensor else tf.TensorSpec([], tf.string)
    return tf.function(processor.tf_preprocess, input_signature=[spec])


# One for each step and form of resizing.
QUICK = {
    "transformers' default",
    "google/bit-50",
    "fixed size, no crop",
    "no resize",
    "odd numbers",
    "pixels as they are",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PROCESSORS]
)
@pytest.mark.slow
def test_every_option_gives_the_array_halfs_values(name):
    processor = PROCESSORS[name]
    from_bytes, from_pixels = in_graph(processor), in_graph(processor, tensor=True)
    for size in SIZES:
        pixels = pixels_of(*size)
        [expected] = processor(pixels, input_data_format="channels_last")
        for found in (from_bytes(encoded(pixels, "PNG")), from_pixels(pixels)):
            assert found.dtype == tf.float32
            np.testing.assert_array_equal(found, expected, err_msg=f"{name}, {size}")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("google/bit-50", (448, 448, 3)),
        ("fixed size, no crop", (48, 31, 3)),
        ("short edge below the crop", (56, 72, 3)),
        ("no resize, no crop", (None, None, 3)),
    ],
)
def test_the_shape_is_known_where_the_options_fix_it(name, shape):
    element = tf.data.Dataset.from_tensors(b"").map(PROCESSORS[name].tf_preprocess).element_spec
    assert tuple(element.shape) == shape


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_tensor_of_one_channel_is_repeated_and_alpha_is_dropped(channels):
    processor = PROCESSORS["short edge beyond the crop"]
    pixels = pixels_of(70, 90, channels)
    expected = processor(pixels, input_data_format="channels_last")[0]
    np.testing.assert_array_equal(in_graph(processor, tensor=True)(pixels), expected)
    np.testing.assert_array_equal(processor.tf_preprocess(pixels), expected)  # channels known when traced


@pytest.mark.parametrize("channels", [1, 3])
def test_without_conversion_the_channels_stay(channels):
    processor = BitImageProcessor(size=40, crop_size=40, do_convert_rgb=False, image_mean=0.4, image_std=0.2)
    pixels = pixels_of(70, 90, channels)
    expected = processor(pixels, input_data_format="channels_last")[0]
    np.testing.assert_array_equal(processor.tf_preprocess(pixels), expected)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    "processor",
    [
        PROCESSORS["google/bit-50"],
        PROCESSORS["transformers' default"],
        BitImageProcessor(size=256, crop_size=224, resample=2, **HALF),
    ],
    ids=["448", "224", "224 of 256"],
)
def test_every_photograph_has_the_array_halfs_values(processor, photos):
    run = in_graph(processor)
    assert len(photos) >= 80
    for path in photos:
        np.testing.assert_array_equal(run(path.read_bytes()), processor(path)[0], err_msg=path.name)


# Formats


def png(depth, color, channels):
    """Returns a PNG of noise in any of the format's depths. Pillow's writer does not have all of them."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width, height = 16, 5
    rows = b"".join(b"\0" + rng.bytes(width * channels * depth // 8) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def top_down_bmp():
    """Returns a BMP whose first row is the top one, so that its height is negative."""
    width, height = 8, 5
    pixels = rng.bytes(width * height * 3)
    header = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + header + pixels


def animated(kind):
    frames = [Image.fromarray(pixels_of(40, 30)) for _ in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


PHOTO = Image.fromarray(pixels_of(9, 13)).resize((97, 61), Image.Resampling.BICUBIC)  # soft, as photographs are
PALETTE = PHOTO.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
ALPHA = Image.fromarray(pixels_of(61, 97, 4), "RGBA")
DECODED = {
    **{
        f"JPEG, subsampling {sub}, {kind}": encoded(PHOTO, "JPEG", subsampling=sub, progressive=kind == "progressive")
        for sub in (0, 1, 2)
        for kind in ("baseline", "progressive")
    },
    "JPEG, noise": encoded(pixels_of(61, 97), "JPEG", quality=50),
    "JPEG, gray": encoded(PHOTO.convert("L"), "JPEG"),
    "JPEG of RGB": encoded(PHOTO, "JPEG", keep_rgb=True),
    "JPEG of one pixel": encoded(pixels_of(1, 1), "JPEG"),
    "JPEG, turned by its tag": encoded(
        PHOTO, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "JPEG, something behind its end": encoded(PHOTO, "JPEG") + b"behind",
    "PNG": encoded(PHOTO, "PNG"),
    "PNG, something behind its end": encoded(PHOTO, "PNG") + b"behind",
    "PNG, palette": encoded(PALETTE, "PNG"),
    "PNG, palette with transparency": encoded(PALETTE, "PNG", transparency=3),
    "PNG, two bits of palette": encoded(PHOTO.quantize(4), "PNG"),
    "PNG, alpha": encoded(ALPHA, "PNG"),
    "PNG, gray and alpha": encoded(ALPHA.convert("LA"), "PNG"),
    "PNG, one bit": png(1, 0, 1),
    "PNG, two bits of gray": png(2, 0, 1),
    "PNG, four bits of gray": png(4, 0, 1),
    "PNG, 16 bits of color": png(16, 2, 3),
    "PNG, 16 bits of gray and alpha": png(16, 4, 2),
    "PNG, 16 bits of color and alpha": png(16, 6, 4),
    "PNG, one transparent color": encoded(PHOTO, "PNG", transparency=(0, 0, 0)),
    "GIF": encoded(PHOTO, "GIF"),
    "GIF, gray, interlaced": encoded(PHOTO.convert("L"), "GIF", interlace=1),
    "GIF with a comment": encoded(PHOTO, "GIF", comment=b"x" * 600),
    "GIF, animated": animated("GIF"),
    "BMP": encoded(PHOTO, "BMP"),
    "BMP, 32 bits": encoded(ALPHA, "BMP"),
    "BMP, top down": top_down_bmp(),
    "BMP, something behind its end": encoded(PHOTO, "BMP") + b"behind",
    "BMP, top down, something behind its end": top_down_bmp() + b"\0",
}
WEBP = {
    "WebP": encoded(PHOTO, "WEBP"),
    "WebP, lossless": encoded(PHOTO, "WEBP", lossless=True),
    "WebP, alpha": encoded(ALPHA, "WEBP"),
    "WebP, lossless, alpha": encoded(ALPHA, "WEBP", lossless=True, exact=True),
}
if graph_decoding.DECODES_WEBP:
    DECODED |= WEBP
TWO_STEPS = [PROCESSORS["no resize, no crop"], PROCESSORS["short edge beyond the crop"]]


@pytest.fixture(scope="module")
def graphs():
    return [(processor, in_graph(processor)) for processor in TWO_STEPS]


@pytest.mark.parametrize("name", DECODED)
def test_every_format_is_decoded_as_by_pillow(name, graphs):
    for processor, run in graphs:
        np.testing.assert_array_equal(run(DECODED[name]), processor(DECODED[name])[0])


@pytest.mark.parametrize("name", [name for name in DECODED if name.startswith("JPEG")])
def test_any_window_of_a_jpeg_is_that_of_the_whole(name):
    contents = DECODED[name]
    header = graph_decoding.read_header(contents, None, "ignore")
    whole = graph_decoding.decode(contents, header).numpy()
    local = np.random.default_rng(1)
    for _ in range(12):
        top, left = local.integers(header.height), local.integers(header.width)
        rows, columns = local.integers(1, header.height - top + 1), local.integers(1, header.width - left + 1)
        window = Window(*map(int, (top, left, rows, columns)))
        np.testing.assert_array_equal(graph_decoding.decode(contents, header, window), window.cut(whole), str(window))


@pytest.mark.data
@pytest.mark.slow
def test_any_window_of_a_photograph_is_that_of_the_whole(photos):
    local = np.random.default_rng(2)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)] + [tf.TensorSpec([], tf.int32)] * 4)
    def part(contents, top, left, rows, columns):
        header = graph_decoding.read_header(contents, None, "ignore")
        return graph_decoding.decode(contents, header, Window(top, left, rows, columns))

    for path in photos:
        whole = np.asarray(Image.open(path).convert("RGB"))
        for _ in range(8):
            top, left = local.integers(whole.shape[0]), local.integers(whole.shape[1])
            rows, columns = local.integers(1, whole.shape[0] - top + 1), local.integers(1, whole.shape[1] - left + 1)
            window = Window(top, left, rows, columns)
            np.testing.assert_array_equal(part(path.read_bytes(), *window), window.cut(whole), f"{path.name} {window}")


TRANSPARENT = encoded(PALETTE, "GIF", transparency=3)
# A GIF of 5x5 px whose first frame is 3x3 px.
PARTIAL = b"GIF89a\x05\0\x05\0\x80\0\0\0\0\0\xff\xff\xff,\x01\0\x01\0\x03\0\x03\0\0\x02\x03\x84\x7f\x05\0;"
REFUSED = {
    "nothing": (b"", "is empty."),
    "text": (
        b"This is no image.",
        "is not a JPEG, PNG, GIF, BMP or WebP file. Read other images outside of the graph with `processor(path)`.",
    ),
    "TIFF": (encoded(PHOTO, "TIFF"), "is not a JPEG"),
    "CMYK": (encoded(PHOTO.convert("CMYK"), "JPEG"), "is a JPEG of four colors (CMYK)"),
    "gray of 16 bits": (png(16, 0, 1), "is a gray PNG of 16 bits"),
    "GIF, transparent": (TRANSPARENT, "is a GIF with transparency"),
    "GIF, partial": (PARTIAL, "is a GIF whose first frame does not cover it"),
    "GIF, cut": (TRANSPARENT[:20], "is a damaged GIF."),
    "PNG, no end": (DECODED["PNG"][:-12], graph_decoding.CUT_PNG),
    "PNG, no palette": (png(8, 3, 1), "is a damaged PNG: its palette is missing."),
    "BMP, palette": (encoded(PALETTE, "BMP"), "is a BMP with a palette or a compression"),
    "BMP, one bit": (encoded(PHOTO.convert("1"), "BMP"), "is a BMP with a palette or a compression"),
    "WebP, animated": (animated("WEBP"), "is an animated WebP file"),
    "WebP, cut": (WEBP["WebP"][:12], "is a damaged WebP file."),
}
if not graph_decoding.DECODES_WEBP:
    REFUSED |= {
        name: (contents, f"is a WebP file, which TensorFlow {tf.__version__}") for name, contents in WEBP.items()
    }


READ_BY_THE_ARRAY_HALF = (
    "CMYK",
    "PNG, no end",
    "TIFF",
    "GIF, transparent",
    "GIF, partial",
    "BMP, palette",
    "WebP, animated",
)


@pytest.mark.parametrize("name", REFUSED)
def test_images_that_would_get_other_values_are_refused_with_the_reason(name, graphs):
    contents, reason = REFUSED[name]
    for _, run in graphs:
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            run(contents)
        assert f"The image {reason}" in caught.value.message
        assert "`processor(path)`" in caught.value.message or not name.startswith(READ_BY_THE_ARRAY_HALF)


@pytest.mark.parametrize("name", READ_BY_THE_ARRAY_HALF)
def test_the_processor_reads_the_images_that_the_graph_refers_to_it(name):
    assert PROCESSORS["no resize, no crop"](REFUSED[name][0]).shape[-1] == 3


def test_webp_is_refused_by_a_tensorflow_without_its_decoder(monkeypatch):
    monkeypatch.setattr(graph_decoding, "DECODES_WEBP", False)
    for name, contents in WEBP.items():
        *_, problem = graph_decoding._others.python_function(tf.constant(contents))
        assert problem.numpy().decode() == (
            f"is a WebP file, which TensorFlow {tf.__version__} does not decode; 2.20 and newer do. Read it outside of "
            "the graph with `processor(path)`."
        ), name


DAMAGED = {
    "JPEG, half": DECODED["JPEG, noise"][: len(DECODED["JPEG, noise"]) // 2],
    "JPEG, all but its last rows": DECODED["JPEG, noise"][:-300],
    "JPEG, header only": DECODED["JPEG, noise"][:30],
    "PNG, half": DECODED["PNG"][: len(DECODED["PNG"]) // 2],
    "GIF, half": DECODED["GIF"][: len(DECODED["GIF"]) // 2],
    "BMP, half": DECODED["BMP"][: len(DECODED["BMP"]) // 2],
    "WebP, half": WEBP["WebP"][: len(WEBP["WebP"]) // 2],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_outside_of_the_crop_is_an_error_too(name, graphs):
    kind, _, _ = name.partition(",")
    words = {"JPEG": "Invalid JPEG data", "PNG": "a truncated PNG"}.get(kind, f"(?i){kind}")
    for _, run in graphs:
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            run(DAMAGED[name])


@pytest.mark.slow
def test_images_beyond_pillows_limit_are_refused_before_they_are_decoded(monkeypatch):
    processor = PROCESSORS["no resize, no crop"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2958)  # the limit is twice that: 61 * 97 = 5917
    for name in ("JPEG, noise", "PNG", "GIF", "BMP", *DECODED.keys() & WEBP.keys()):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"has 61x97 pixels .* more than the limit of 5,916 in"
        ):
            in_graph(processor)(DECODED[name])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2959)
    assert in_graph(processor)(DECODED["PNG"]).shape == (61, 97, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert in_graph(processor)(DECODED["PNG"]).shape == (61, 97, 3)


def test_the_graph_refuses_a_thin_image_that_would_become_enormous():
    processor = BitImageProcessor()
    pixels = np.zeros((1, 20_000, 3), np.uint8)
    with pytest.raises(ValueError, match="would be resized to 224x4480000, more than"):
        processor(pixels, input_data_format="channels_last")
    with pytest.raises(tf.errors.InvalidArgumentError, match="would be resized to more than 178,956,970 pixels"):
        processor.tf_preprocess(pixels)


ARGUMENTS = {
    "a float tensor": (tf.zeros([4, 4, 3]), {}, TypeError, "`image` must be the bytes of a file .* got float32"),
    "a batch": (tf.zeros([2, 4, 4, 3], tf.uint8), {}, ValueError, r"shape \(height, width, channels\).*tf.map_fn"),
    "several files": (tf.constant([b"a", b"b"]), {}, ValueError, r"one image, a scalar string, got .*\(2,\)"),
    "two channels": (tf.zeros([4, 4, 2], tf.uint8), {}, ValueError, "1, 3 or 4 channels to become RGB, got 2"),
    "no rows": (tf.zeros([0, 5, 3], tf.uint8), {}, ValueError, r"must have pixels, got the shape \(0, 5, 3\)"),
    "no columns": (tf.zeros([5, 0, 3], tf.uint8), {}, ValueError, r"must have pixels, got the shape \(5, 0, 3\)"),
    "alpha kept": (tf.zeros([4, 4, 4], tf.uint8), {"do_convert_rgb": False}, ValueError, "1 or 3 channels.*got 4"),
    "bytes kept": (b"", {"do_convert_rgb": False}, ValueError, "`do_convert_rgb` must be True for encoded images"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_tensors_that_are_not_images_are_refused_when_the_graph_is_made(name):
    image, options, error, message = ARGUMENTS[name]
    with pytest.raises(error, match=message):
        BitImageProcessor(image_mean=0.5, image_std=0.5, **options).tf_preprocess(image)


def test_two_channels_that_show_only_when_the_graph_runs_are_refused_there():
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have 1, 3 or 4 channels to become RGB, got"):
        in_graph(BitImageProcessor(), tensor=True)(np.zeros((4, 4, 2), np.uint8))


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0, 1)])
def test_no_pixels_that_show_only_when_the_graph_runs_are_refused_there(shape):
    with pytest.raises(tf.errors.InvalidArgumentError, match="`image` must have pixels, got the shape"):
        in_graph(BitImageProcessor(), tensor=True)(np.zeros(shape, np.uint8))


def test_a_saved_model_holds_the_preprocessing(tmp_path):
    processor = PROCESSORS["short edge beyond the crop"]
    module = tf.Module()
    module.preprocess = in_graph(processor)
    tf.saved_model.save(module, str(tmp_path))
    again = tf.saved_model.load(str(tmp_path)).preprocess
    for name in ("JPEG, noise", "PNG, palette", *DECODED.keys() & {"WebP, alpha"}):
        np.testing.assert_array_equal(again(DECODED[name]), processor(DECODED[name])[0])


MEMORY = """
import sys, tensorflow as tf, keras_bit

def most():
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) >> 10

processor = keras_bit.BitImageProcessor()
run = tf.function(processor.tf_preprocess, input_signature=[tf.TensorSpec([], tf.string)])
small, large = (open(path, "rb").read() for path in sys.argv[1:])
run(small)
before = most()
run(large)
print(most() - before)
"""


@pytest.mark.slow
def test_a_large_image_takes_little_more_memory_than_its_pixels(tmp_path):
    if not os.path.exists("/proc/self/status"):
        absent("the resident memory is read from /proc, which is Linux'")
    paths = [tmp_path / "small.jpg", tmp_path / "large.jpg"]
    for path, size in zip(paths, ((300, 200), (6000, 4000)), strict=True):
        PHOTO.resize(size).save(path)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *map(str, paths)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # MiB: 69 are the pixels; all of them as float64 would be 550, and read by several blocks 690.
    assert int(done.stdout) < 69 + 200


def last_steps(processor):
    return tf.function(lambda pixels: graph_preprocessing.rescale_and_normalize(pixels, processor))


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_last_steps_have_the_array_halfs_values_for_every_byte(name):
    values = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    only = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_last"}
    np.testing.assert_array_equal(last_steps(PROCESSORS[name])(values), PROCESSORS[name](values, **only)[0])
