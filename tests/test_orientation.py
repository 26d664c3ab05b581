"""Tests that every path turns an encoded image upright by its orientation tag, like `PIL.ImageOps.exif_transpose`."""

import functools
import io
import json
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import keras_bit
from conftest import absent
from image_files import collect, pixels
from keras_bit import BitImageProcessor, HyperRule, image_dataset
from keras_bit.images import inputs
from store import TRAINED, served
from tagged_files import (
    ASCII,
    BYTE,
    HOST_TAGGED,
    SHORT,
    TAG,
    TAGGED,
    block,
    directory,
    elsewhere,
    entry,
    jpeg,
    png,
    webp,
)

pytestmark = [
    # Pillow warns of a damaged block, and reads the image all the same.
    pytest.mark.filterwarnings("ignore:.*(EXIF|Truncated|Tag|Metadata)"),
]

RAW = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
SMALL = {"size": 24, "crop_size": (20, 14), "image_mean": 0.5, "image_std": 0.5}
PHOTO = Image.fromarray(pixels(0, 61, 97))
MADE = TAGGED | HOST_TAGGED
FILES = {"JPEG": functools.partial(jpeg, image=PHOTO), "PNG": functools.partial(png, image=PHOTO)}
FILES["WebP"] = functools.partial(webp, image=PHOTO)


def turned(contents):
    """Turns the image with Pillow, which is the oracle."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(contents))).convert("RGB"))


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("name", MADE)
def test_paths_and_bytes_are_turned_as_by_pillow(name, tag, tmp_path):
    contents = MADE[name](PHOTO, tag)
    path = tmp_path / "image"
    path.write_bytes(contents)
    expected = turned(contents)
    assert expected.shape == ((97, 61, 3) if tag > 4 else (61, 97, 3))
    if tag > 1:
        assert not np.array_equal(expected, turned(MADE[name](PHOTO, 1)))
    for source in (contents, path, str(path), memoryview(contents)):
        np.testing.assert_array_equal(BitImageProcessor(**RAW)(source)[0], expected)
    opened = inputs.read("it", path, "upright")
    np.testing.assert_array_equal(opened.convert("RGB"), expected)
    small = BitImageProcessor(**SMALL)
    np.testing.assert_array_equal(small(path), small(Image.fromarray(expected)))


@pytest.mark.parametrize("name", MADE)
def test_decoded_images_and_images_with_ignored_tags_are_not_turned(name):
    contents = MADE[name](PHOTO, 6)
    image = Image.open(io.BytesIO(contents))
    expected = np.asarray(image.convert("RGB"))[None]
    np.testing.assert_array_equal(BitImageProcessor(**RAW)(image), expected)
    np.testing.assert_array_equal(BitImageProcessor(**RAW)(contents, orientation="ignore"), expected)
    np.testing.assert_array_equal(BitImageProcessor(**RAW, orientation="ignore")(contents), expected)
    if not name.startswith("TIFF"):  # which Pillow turns when it opens it
        assert expected.shape == (1, 61, 97, 3)


def with_tag(**changes):
    fields = {"order": ">", "tag": TAG, "kind": SHORT, "count": 1, "value": 6} | changes
    return directory(entry(*fields.values()))


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
# Numbers of other types than the standard's, type and format: to Pillow 6.0 and 12/2 are 6.
TYPES = {
    "a signed byte": (6, "b", (6,), (-6,)),
    "a signed number": (8, "h", (6,), (-6,)),
    "a long signed number": (9, "i", (6,), (-6,)),
    "the place of a directory": (13, "I", (6,), (2**31 + 6,)),
    "a number of eight bytes": (16, "Q", (6,), (2**63 + 6,)),
    "a float": (11, "f", (6.0,), (6.5,)),
    "a float that is no number": (11, "f", (6.0,), (float("nan"),)),
    "a double": (12, "d", (6.0,), (6.0000001,)),
    "a fraction": (5, "II", (12, 2), (13, 2)),
    "a fraction of nothing": (5, "II", (6, 1), (6, 0)),
    "no fraction": (5, "II", (6, 1), (0, 0)),
    "a signed fraction": (10, "ii", (-12, -2), (-12, 2)),
}
for name, (kind, number_format, six, another) in TYPES.items():
    for order, values, blocks, suffix in (("<", six, READABLE, ""), (">", another, DAMAGED, ", not 6")):
        packed = struct.pack(order + number_format, *values)
        if len(packed) > 4:
            blocks[name + suffix] = elsewhere(kind, packed, order)
        else:
            blocks[name + suffix] = directory(entry(order, TAG, kind, 1, packed.ljust(4, b"\0")), order=order)
BLOCKS = {name: (contents, False) for name, contents in DAMAGED.items()}
BLOCKS |= {name: (contents, True) for name, contents in READABLE.items()}


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
    """Returns one graph for all images, as in a data set, by the name of the options."""
    return {
        name: tf.function(BitImageProcessor(**options).tf_preprocess, input_signature=[tf.TensorSpec([], tf.string)])
        for name, options in {"raw": RAW, "small": SMALL, "ignore": RAW | {"orientation": "ignore"}}.items()
    }


@pytest.mark.parametrize("name", TAGGED)
def test_the_graph_turns_as_pillow_does(name, in_graph):
    for tag in range(1, 9):
        contents = TAGGED[name](PHOTO, tag)
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


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("count", range(4))
def test_as_many_prefixes_are_overlooked_as_by_pillow(kind, count, in_graph):
    contents = FILES[kind](b"Exif\0\0" * count + block(6))
    np.testing.assert_array_equal(in_graph["raw"](contents), BitImageProcessor(**RAW)(contents)[0])


def test_a_data_set_turns_what_it_reads_and_leaves_what_it_is_given(tmp_path):
    processor = BitImageProcessor(**SMALL)
    files = []
    for tag in range(1, 9):
        for kind in ("JPEG, little endian", "PNG"):
            files.append(tmp_path / f"{tag}.{kind[:3].lower().replace('jpe', 'jpg')}")
            files[-1].write_bytes(TAGGED[kind](PHOTO, tag))
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
    turned_file.write_bytes(TAGGED["PNG"](PHOTO, 6))
    Image.fromarray(turned(TAGGED["PNG"](PHOTO, 6))).save(upright)
    options = {"processor": BitImageProcessor(), "batch_size": 4, "training": True, "rule": rule, "seed": 3}
    both = [collect(image_dataset(([file] * 4, [0] * 4), **options))[0] for file in (turned_file, upright)]
    np.testing.assert_array_equal(*both)


@pytest.mark.slow
def test_a_served_model_turns_what_it_is_sent(finished):
    model = tf.saved_model.load(str(served(finished).path)).signatures["serve_bytes"]
    processor = BitImageProcessor.from_pretrained(TRAINED)
    network = keras_bit.from_pretrained(TRAINED)
    for kind in TAGGED:
        contents = [TAGGED[kind](PHOTO, tag) for tag in range(1, 9)]
        found = model(image_bytes=tf.constant(contents))["probabilities"]
        # float32's order of operations, in another graph
        np.testing.assert_allclose(found, network.predict(processor(contents), verbose=0), atol=1e-5)


def test_load_image_of_transformers_gives_the_same():
    try:
        from transformers.image_utils import load_image
    except ImportError:
        absent("transformers is not installed")
    import base64

    for name, make in MADE.items():
        for tag in range(1, 9):
            contents = make(PHOTO, tag)
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
