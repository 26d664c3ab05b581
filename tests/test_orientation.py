"""Orientation tags: every path of the package turns an encoded image upright as `PIL.ImageOps.exif_transpose` does."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import keras_bit
from conftest import absent
from image_files import collect, encoded, pixels
from keras_bit import BitImageProcessor, HyperRule, image_dataset
from keras_bit.images import inputs
from store import TRAINED, served

pytestmark = [
    # Pillow warns of a damaged block, and reads the image all the same.
    pytest.mark.filterwarnings("ignore:.*(EXIF|Truncated|Tag|Metadata)"),
]

RAW = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
SMALL = {"size": 24, "crop_size": (20, 14), "image_mean": 0.5, "image_std": 0.5}
SHORT, LONG, ASCII, BYTE = 3, 4, 2, 1
TAG = 0x0112
PHOTO = Image.fromarray(pixels(0, 61, 97))


def entry(order, tag, kind, count, value):
    """Twelve bytes of a directory; `value` is a number of `kind`, or the four bytes."""
    if not isinstance(value, bytes):
        value = struct.pack(order + {BYTE: "B", SHORT: "H", LONG: "I"}[kind], value).ljust(4, b"\0")
    return struct.pack(order + "HHI", tag, kind, count) + value


def block(orientation, order=">", before=(), kind=SHORT):
    """A TIFF header and a directory with the tag, `before` it other entries."""
    entries = [*before, entry(order, TAG, kind, 1, orientation)]
    head = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


def segment(marker, payload):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg(*blocks, image=PHOTO, others=b"", **options):
    """A JPEG with `others` and then Exif segments behind its first marker."""
    contents = encoded(image, "JPEG", quality=90, **options)
    return contents[:2] + others + b"".join(segment(0xE1, b"Exif\0\0" + one) for one in blocks) + contents[2:]


def png(exif, image=PHOTO, behind=False, name=b"eXIf"):
    """A PNG with the block in front of its pixels, or behind them."""
    contents = encoded(image, "PNG")
    chunk = struct.pack(">I", len(exif)) + name + exif + struct.pack(">I", zlib.crc32(name + exif))
    place = contents.index(b"IEND") - 4 if behind else 33
    return contents[:place] + chunk + contents[place:]


def webp(exif, image=PHOTO, **options):
    return encoded(image, "WEBP", exif=exif, **options)


def tiff(orientation, **options):
    return encoded(PHOTO, "TIFF", tiffinfo={TAG: orientation}, **options)


PADDING = segment(0xE2, bytes(60_000)) + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
TAGGED = {
    "JPEG, big endian": lambda tag: jpeg(block(tag)),
    "JPEG, little endian": lambda tag: jpeg(block(tag, "<")),
    "JPEG, behind 60,000 bytes": lambda tag: jpeg(block(tag), others=PADDING * 2),
    "JPEG, other tags first": lambda tag: jpeg(
        block(tag, before=[entry(">", 0x10F, ASCII, 4, b"abc\0"), entry(">", 0x110, 7, 3, b"abcd")])
    ),
    "JPEG, a long number": lambda tag: jpeg(block(tag, kind=LONG)),
    "JPEG, two blocks": lambda tag: jpeg(block(tag), block(9 - tag)),
    "JPEG, progressive": lambda tag: jpeg(block(tag), progressive=True),
    "JPEG, gray": lambda tag: jpeg(block(tag, "<"), image=PHOTO.convert("L")),
    "PNG": lambda tag: png(block(tag)),
    "PNG, little endian, behind the pixels": lambda tag: png(block(tag, "<"), behind=True),
    "PNG, palette": lambda tag: png(block(tag), image=PHOTO.quantize(16)),
    "WebP": lambda tag: webp(block(tag)),
    "WebP, lossless, alpha, prefix": lambda tag: encoded(
        PHOTO.convert("RGBA"), "WEBP", lossless=True, exif=b"Exif\0\0" + block(tag, "<")
    ),
}
XMP = '<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/>'
HOST_TAGGED = {
    "TIFF": tiff,
    "TIFF, compressed": lambda tag: tiff(tag, compression="tiff_lzw"),
    "JPEG, XMP": lambda tag: jpeg(others=segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP.format(tag).encode())),
    "PNG, raw profile": lambda tag: png(
        b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(block(tag)):8}\n{block(tag).hex()}\n".encode()),
        name=b"zTXt",
    ),
}


def turned(contents):
    """The oracle."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(contents))).convert("RGB"))


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("name", [*TAGGED, *HOST_TAGGED])
def test_paths_and_bytes_are_turned_as_by_pillow(name, tag, tmp_path):
    contents = (TAGGED | HOST_TAGGED)[name](tag)
    path = tmp_path / "image"
    path.write_bytes(contents)
    expected = turned(contents)
    assert expected.shape == ((97, 61, 3) if tag > 4 else (61, 97, 3))
    if tag > 1:
        assert not np.array_equal(expected, turned((TAGGED | HOST_TAGGED)[name](1)))
    for source in (contents, path, str(path), memoryview(contents)):
        np.testing.assert_array_equal(BitImageProcessor(**RAW)(source)[0], expected)
    opened = inputs.read("it", path, "upright")
    np.testing.assert_array_equal(opened.convert("RGB"), expected)
    small = BitImageProcessor(**SMALL)
    np.testing.assert_array_equal(small(path), small(Image.fromarray(expected)))


@pytest.mark.parametrize("name", [*TAGGED, *HOST_TAGGED])
def test_what_is_not_encoded_is_taken_as_it_is_and_so_is_what_is_encoded_where_tags_are_ignored(name):
    contents = (TAGGED | HOST_TAGGED)[name](6)
    image = Image.open(io.BytesIO(contents))
    expected = np.asarray(image.convert("RGB"))[None]
    np.testing.assert_array_equal(BitImageProcessor(**RAW)(image), expected)
    np.testing.assert_array_equal(BitImageProcessor(**RAW)(contents, orientation="ignore"), expected)
    np.testing.assert_array_equal(BitImageProcessor(**RAW, orientation="ignore")(contents), expected)
    if not name.startswith("TIFF"):  # which Pillow turns when it opens it
        assert expected.shape == (1, 61, 97, 3)


def with_tag(**changes):
    fields = {"order": ">", "tag": TAG, "kind": SHORT, "count": 1, "value": 6} | changes
    one = entry(*fields.values())
    return b"MM\0*\0\0\0\x08\0\x01" + one + bytes(4)


FAR = entry(">", 0x10F, ASCII, 8, struct.pack(">I", 0xFFFFFF))  # its text would lie beyond the end
DAMAGED = {
    "orientation 0": with_tag(value=0),
    "orientation 9": with_tag(value=9),
    "orientation 65535": with_tag(value=0xFFFF),
    "a text": with_tag(kind=ASCII, value=b"6\0\0\0", count=2),
    "a byte": with_tag(kind=BYTE, value=6),
    "an unknown type": with_tag(kind=99, value=b"\0\6\0\0"),
    "no values": with_tag(count=0),
    "values beyond the end": with_tag(count=60_000),
    "a directory beyond the end": b"MM\0*\0\0\xff\xff" + block(6)[8:],
    "a directory at the greatest offset": b"MM\0*\xff\xff\xff\xff" + block(6)[8:],
    "a directory in its own header": b"MM\0*\0\0\0\0" + block(6)[8:],
    "a text beyond the end before it": block(6, before=[FAR]),
    "more entries than there are": b"MM\0*\0\0\0\x08\xff\xff" + entry(">", 0x10F, ASCII, 4, b"abc\0"),
    "cut in the entry": block(6)[:18],
    "cut in the header": block(6)[:6],
    "no header": b"",
    "another header": b"XX\0*" + block(6)[4:],
    "one byte": b"M",
    "text": b"This is no block of tags, but it is as long as one.",
}
# Damaged too, and the tag in it can be read: what `exif_transpose` cannot write again does not matter.
READABLE = {
    "two values": with_tag(count=2, value=b"\0\6\0\7"),
    "cut behind the entry": block(6)[:22],
    "a loop": block(6)[:-4] + b"\0\0\0\x08",
    "twice": block(3, before=[entry(">", TAG, SHORT, 1, 6)]),
    "a text for a number": block(6, before=[entry(">", 0x100, ASCII, 4, b"abc\0")]),
    "a text beyond the end behind it": b"MM\0*\0\0\0\x08\0\x02" + block(6)[10:22] + FAR + bytes(4),
}
BLOCKS = {name: (contents, False) for name, contents in DAMAGED.items()}
BLOCKS |= {name: (contents, True) for name, contents in READABLE.items()}
FILES = {"JPEG": jpeg, "PNG": png, "WebP": webp}


def expected_of(contents, is_turned):
    image = Image.open(io.BytesIO(contents)).convert("RGB")
    return np.asarray(image.transpose(Image.Transpose.ROTATE_270) if is_turned else image)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", BLOCKS)
def test_a_damaged_block_is_never_an_error(name, kind):
    exif, is_turned = BLOCKS[name]
    contents = FILES[kind](exif)
    found = BitImageProcessor(**RAW)(contents)[0]
    np.testing.assert_array_equal(found, expected_of(contents, is_turned))
    try:
        expected = turned(contents)
    except Exception:
        return  # what is never an error here is one there
    np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def in_graph():
    """By the name of the options: one graph for all images, as in a data set."""
    return {
        name: tf.function(BitImageProcessor(**options).tf_preprocess, input_signature=[tf.TensorSpec([], tf.string)])
        for name, options in {"raw": RAW, "small": SMALL, "ignore": RAW | {"orientation": "ignore"}}.items()
    }


@pytest.mark.parametrize("name", TAGGED)
def test_the_graph_turns_as_pillow_does(name, in_graph):
    for tag in range(1, 9):
        contents = TAGGED[name](tag)
        expected = turned(contents)
        np.testing.assert_array_equal(in_graph["raw"](contents), expected, f"{tag}")
        # A part of it: what the crop needs.
        np.testing.assert_array_equal(in_graph["small"](contents), BitImageProcessor(**SMALL)(contents)[0], f"{tag}")
        stored = Image.open(io.BytesIO(contents)).convert("RGB")
        np.testing.assert_array_equal(in_graph["ignore"](contents), stored, f"{tag}")


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", BLOCKS)
def test_a_damaged_block_means_the_same_in_the_graph(name, kind, in_graph):
    exif, is_turned = BLOCKS[name]
    contents = FILES[kind](exif)
    np.testing.assert_array_equal(in_graph["raw"](contents), expected_of(contents, is_turned))


def test_a_data_set_turns_what_it_reads_and_leaves_what_it_is_given(tmp_path):
    processor = BitImageProcessor(**SMALL)
    files = []
    for tag in range(1, 9):
        for kind in ("JPEG, little endian", "PNG"):
            files.append(tmp_path / f"{tag}.{kind[:3].lower().replace('jpe', 'jpg')}")
            files[-1].write_bytes(TAGGED[kind](tag))
    labels = [0] * len(files)
    found, _ = collect(image_dataset((files, labels), processor=processor, batch_size=len(files)))
    np.testing.assert_array_equal(found, processor(files))
    stored = BitImageProcessor(**SMALL, orientation="ignore")
    found, _ = collect(image_dataset((files, labels), processor=stored, batch_size=len(files)))
    np.testing.assert_array_equal(found, stored(files))
    assert np.array_equal(found[0], found[6]), "tags 1 and 4 of one image"
    pixels_of = [np.asarray(Image.open(file)) for file in files[::2]]
    found, _ = collect(image_dataset((pixels_of, labels[::2]), processor=processor, batch_size=8))
    np.testing.assert_array_equal(found, processor(pixels_of))


@pytest.mark.slow
def test_training_images_are_turned_before_they_are_cropped(tmp_path):
    rule = HyperRule(100, 32)
    turned_file, upright = tmp_path / "turned.png", tmp_path / "upright.png"
    turned_file.write_bytes(TAGGED["PNG"](6))
    Image.fromarray(turned(TAGGED["PNG"](6))).save(upright)
    options = {"processor": BitImageProcessor(), "batch_size": 4, "training": True, "rule": rule, "seed": 3}
    both = [collect(image_dataset(([file] * 4, [0] * 4), **options))[0] for file in (turned_file, upright)]
    np.testing.assert_array_equal(*both)


@pytest.mark.slow
def test_a_served_model_turns_what_it_is_sent(finished):
    model = tf.saved_model.load(str(served(finished).path)).signatures["serve_bytes"]
    processor = BitImageProcessor.from_pretrained(TRAINED)
    network = keras_bit.from_pretrained(TRAINED)
    for kind in TAGGED:
        contents = [TAGGED[kind](tag) for tag in range(1, 9)]
        found = model(image_bytes=tf.constant(contents))["probabilities"]
        # float32's order of operations, in another graph
        np.testing.assert_allclose(found, network.predict(processor(contents), verbose=0), atol=1e-5)


def test_load_image_of_transformers_gives_the_same():
    try:
        from transformers.image_utils import load_image
    except ImportError:
        absent("transformers is not installed")
    import base64

    for name, make in (TAGGED | HOST_TAGGED).items():
        for tag in range(1, 9):
            contents = make(tag)
            expected = np.asarray(load_image(base64.b64encode(contents).decode()))
            np.testing.assert_array_equal(BitImageProcessor(**RAW)(contents)[0], expected, f"{name}, {tag}")


def test_the_option_is_saved_and_a_file_without_it_means_upright(tmp_path):
    BitImageProcessor(orientation="ignore").save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    values = json.loads(path.read_text())
    assert values["orientation"] == "ignore"
    assert BitImageProcessor.from_pretrained(tmp_path).orientation == "ignore"
    assert BitImageProcessor.from_pretrained(tmp_path, orientation="upright") == BitImageProcessor()
    del values["orientation"]
    path.write_text(json.dumps(values))
    assert BitImageProcessor.from_pretrained(tmp_path).orientation == "upright"
    path.write_text(json.dumps(values | {"orientation": "sideways"}))
    with pytest.raises(
        ValueError, match=r"preprocessor_config\.json.*`orientation` must be one of 'upright', 'ignore'"
    ):
        BitImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", ["Upright", None, 1, True])
def test_another_orientation_is_refused(value):
    with pytest.raises(ValueError, match="`orientation` must be one of 'upright', 'ignore'"):
        BitImageProcessor(orientation=value)
    with pytest.raises(TypeError):
        BitImageProcessor(*[True] * 11, "upright")
