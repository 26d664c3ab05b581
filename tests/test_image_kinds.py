"""Tests what each path does with each kind of image file, as the README's table says, and the limits of decoding."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_bit
from image_files import collect, encoded, pixels
from keras_bit import BitImageProcessor, image_dataset
from keras_bit.data import readable
from keras_bit.images import graph_containers, graph_decoding, jpeg_scans
from store import TRAINED, served

RAW = BitImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False)
SMALL = BitImageProcessor(size=24, crop_size=20)
PHOTO = Image.fromarray(pixels(0, 61, 97))
ALPHA = PHOTO.copy()
ALPHA.putalpha(Image.fromarray(pixels(1, 61, 97)[..., 0]))
FRAMES = [Image.fromarray(pixels(seed, 61, 97)) for seed in range(3)]
DEEP = Image.fromarray(pixels(2, 61, 97)[..., 0].astype(np.uint16) * 257)


def animated(kind, **options):
    return encoded(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], duration=50, **options)


def png_chunk(name, data, checksum=None):
    crc = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


def deep_png():
    """Returns a PNG of three colors of 16 bits, which Pillow does not write."""
    rows = np.random.default_rng(0).integers(0, 2**16, (7, 5, 3)).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 7, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")


SAME = "the same"
# What the host path reads, and what the graph says: `SAME` values, or the words of its refusal.
READ = {
    "alpha, PNG": (encoded(ALPHA, "PNG"), SAME),
    "16 bits per color, PNG": (deep_png(), SAME),
    "palette, PNG": (encoded(PHOTO.quantize(16), "PNG"), SAME),
    "palette, GIF": (encoded(PHOTO.quantize(16), "GIF"), SAME),
    "palette, BMP": (encoded(PHOTO.quantize(16), "BMP"), "is a BMP with a palette"),
    "CMYK, JPEG": (encoded(PHOTO.convert("CMYK"), "JPEG"), "is a JPEG of four colors"),
    "animated, GIF": (animated("GIF"), SAME),
    "animated, PNG": (animated("PNG"), SAME),
    "animated, WebP": (animated("WEBP"), "is an animated WebP file"),
    "transparent, GIF": (encoded(PHOTO.quantize(16), "GIF", transparency=3), "is a GIF with transparency"),
    "TIFF": (encoded(PHOTO, "TIFF"), "is not a JPEG, PNG, GIF, BMP or WebP file"),
}
if graph_decoding.DECODES_WEBP:
    READ["alpha, WebP"] = (encoded(ALPHA, "WEBP", lossless=True, exact=True), SAME)


@pytest.fixture(scope="module")
def run():
    return tf.function(RAW.tf_preprocess, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize("name", READ)
def test_the_graph_gives_the_host_paths_values_or_says_why_not(name, run):
    contents, answer = READ[name]
    expected = RAW(contents)[0]
    np.testing.assert_array_equal(expected, Image.open(io.BytesIO(contents)).convert("RGB"))
    if answer == SAME:
        np.testing.assert_array_equal(run(contents), expected)
        return
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        run(contents)
    assert answer in caught.value.message
    assert "`processor(path)`" in caught.value.message


BOMB = zlib.compress(bytes(2_000_000))  # Pillow unpacks a mebibyte
# Chunks that a decoder may pass over, each in the way of Pillow.
EXTRAS = {
    "a profile that unpacks to more": png_chunk(b"iCCP", b"sRGB\0\0" + BOMB),
    "a text that unpacks to more": png_chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "a wrong checksum": png_chunk(b"tEXt", b"Comment\0hello", checksum=1),
    "a damaged resolution": png_chunk(b"pHYs", b"\0"),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", EXTRAS)
def test_both_engines_read_a_png_with_other_chunks_around_its_pixels(name, behind, run, tmp_path):
    plain = encoded(PHOTO, "PNG")
    place = plain.rindex(b"IEND") - 4 if behind else 33
    contents = plain[:place] + EXTRAS[name] + plain[place:]
    np.testing.assert_array_equal(RAW(contents)[0], PHOTO)
    np.testing.assert_array_equal(run(contents), PHOTO)
    (tmp_path / "extra.png").write_bytes(contents)
    for whole in (False, True):
        assert readable.problem("x", str(tmp_path / "extra.png"), whole) == ""
        assert readable.problem("x", io.BytesIO(contents), whole) == ""
    with pytest.raises(ValueError, match=r"cut off|truncated|damaged|not an image"):
        RAW(contents[: len(plain) // 2])


def test_data_sets_of_either_engine_give_the_processors_values(tmp_path):
    for engine, kinds in (("host", READ), ("graph", {name for name, (_, answer) in READ.items() if answer == SAME})):
        paths = [tmp_path / str(number) for number in range(len(kinds))]
        for path, name in zip(paths, kinds, strict=True):
            path.write_bytes(READ[name][0])
        data = image_dataset((paths, [0] * len(paths)), processor=SMALL, batch_size=4, engine=engine)
        np.testing.assert_array_equal(collect(data)[0], SMALL(paths))


@pytest.mark.slow
def test_a_served_model_answers_as_the_processor_and_the_model(finished):
    served_bytes = tf.saved_model.load(str(served(finished).path)).signatures["serve_bytes"]
    contents = [contents for contents, answer in READ.values() if answer == SAME]
    found = served_bytes(image_bytes=tf.constant(contents))["probabilities"]
    expected = keras_bit.from_pretrained(TRAINED)(BitImageProcessor.from_pretrained(TRAINED)(contents))
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32's order of operations, in another graph


def test_gray_of_16_bits_is_refused_by_both(run):
    contents = encoded(DEEP, "PNG")
    with pytest.raises(ValueError, match="more than 8 bits per channel"):
        RAW(contents)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is a gray PNG of 16 bits"):
        run(contents)


def with_scans(count, **options):
    """Returns a progressive JPEG whose last scan is repeated many times."""
    contents = encoded(PHOTO, "JPEG", progressive=True, **options)
    start = contents.rindex(b"\xff\xda")
    extra = count - contents.count(b"\xff\xda")
    return contents[:-2] + contents[start:-2] * extra + b"\xff\xd9"


def sequential(scans):
    """Makes a JPEG of one color with that number of scans, each of which is the whole image."""
    contents = encoded(PHOTO.convert("L"), "JPEG")
    start = contents.rindex(b"\xff\xda")
    return contents[:-2] + contents[start:-2] * (scans - 1) + b"\xff\xd9"


SCANS = {
    "baseline": (encoded(PHOTO, "JPEG"), 1),
    "gray": (encoded(PHOTO.convert("L"), "JPEG"), 1),
    "progressive": (encoded(PHOTO, "JPEG", progressive=True), 10),
    "progressive, gray": (encoded(PHOTO.convert("L"), "JPEG", progressive=True), 6),
    "progressive, another in its tags": (
        encoded(PHOTO, "JPEG", progressive=True, exif=b"Exif\0\0" + encoded(PHOTO.resize((9, 9)), "JPEG")),
        10,
    ),
    "progressive, another behind its end": (encoded(PHOTO, "JPEG", progressive=True) + with_scans(40), 10),
    "progressive, many": (with_scans(300), 300),
    # Its decoder takes the first, which has all colors, for the whole.
    "sequential, the image twice": (sequential(2), 1),
}


@pytest.mark.parametrize("name", SCANS)
def test_the_scans_of_a_jpeg_are_counted(name):
    contents, expected = SCANS[name]
    assert jpeg_scans.count_scans(contents, 1000) == expected
    assert jpeg_scans.count_scans(memoryview(contents), 1000) == expected
    segments = graph_containers.jpeg_segments(tf.constant(contents))
    assert bool(segments.several) == (expected > 1)
    if expected > 1:
        scans = graph_containers.read_scans(tf.constant(contents), segments.first_scan, 1000)
        assert (int(scans.count), bool(scans.incomplete)) == (expected, False)
        assert int(graph_containers.read_scans(tf.constant(contents), segments.first_scan, 4).count) == 5


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_progressive_jpeg_that_lacks_scans_is_refused_by_the_graph(run, mode):
    contents = encoded(PHOTO.convert(mode), "JPEG", progressive=True)
    starts = [place for place in range(len(contents)) if contents[place : place + 2] == b"\xff\xda"]
    np.testing.assert_array_equal(run(contents), RAW(contents)[0])
    for start in starts[1:]:
        cut = contents[:start] + b"\xff\xd9"
        assert RAW(cut).shape == (1, 61, 97, 3)  # Pillow makes up what is missing
        with pytest.raises(tf.errors.InvalidArgumentError, match="is an incomplete JPEG: scans are missing"):
            run(cut)


def test_a_jpeg_of_too_many_scans_is_refused_by_both_before_it_is_decoded(monkeypatch):
    # 61 * 97 = 5,917 px; twice the number are allowed, and 20 scans of these.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5917)
    run = tf.function(RAW.tf_preprocess, input_signature=[tf.TensorSpec([], tf.string)])
    good, bad = with_scans(40), with_scans(41)
    np.testing.assert_array_equal(run(good), RAW(good)[0])
    words = "is a JPEG of more than 40 scans, each of which goes through all of its"
    with pytest.raises(ValueError, match=words):
        RAW(bad)
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        run(bad)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert RAW(bad).shape == (1, 61, 97, 3)


def test_no_image_has_more_scans_than_the_most():
    assert jpeg_scans.most_scans(1, 178_956_970) == jpeg_scans.MOST
    assert jpeg_scans.most_scans(178_956_970, 178_956_970) == jpeg_scans.SCANS
    assert jpeg_scans.most_scans(12_000_000, 178_956_970) == 298
    assert jpeg_scans.most_scans(10**12, 178_956_970) == 1


@pytest.mark.parametrize("comment", [b"", b"x" * 600])
def test_frames_behind_the_first_are_not_decoded(comment):
    contents = animated("GIF", comment=comment)
    first = graph_containers.gif_first_frame(tf.constant(contents)).numpy()
    assert len(first) < len(contents) / 2
    image = Image.open(io.BytesIO(first))
    assert getattr(image, "n_frames", 1) == 1
    np.testing.assert_array_equal(image.convert("RGB"), Image.open(io.BytesIO(contents)).convert("RGB"))
    for length in (*range(1, 60, 7), len(first) - 2):
        cut = contents[:length]
        assert graph_containers.gif_first_frame(tf.constant(cut)).numpy() == cut
