"""Compares the page's JavaScript in node with Pillow and the processor: integers and float32 must be equal."""

import io
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from browser import needs_node
from conftest import ROOT
from image_files import encoded
from keras_bit import BitConfig, BitImageProcessor
from keras_bit.evaluation import activation_map
from keras_bit.exporters.web import site
from keras_bit.images import inputs
from keras_bit.network.positions import of_last_map
from resizes import FILTERS, NAMES, SIZES, noise
from tagged_files import AS_STORED, block, elsewhere, jpeg, png, webp

PAGE = ROOT / "keras_bit" / "exporters" / "web" / "page"


@pytest.fixture
def in_node(tmp_path):
    """Gives cases, of which values of bytes are written to files, to the page's modules; their outputs as bytes."""
    node = needs_node()

    def run(cases):
        shutil.copytree(PAGE, tmp_path / "page")
        (tmp_path / "page" / "package.json").write_text('{"type": "module"}')  # or node takes .js for CommonJS
        described = []
        for number, case in enumerate(cases):
            for name, value in case.items():
                if isinstance(value, bytes):
                    (tmp_path / f"{number}.{name}").write_bytes(value)
            described.append(
                {name: f"{number}.{name}" if isinstance(value, bytes) else value for name, value in case.items()}
            )
        (tmp_path / "cases.json").write_text(json.dumps(described))
        program = ROOT / "tests" / "web_steps.mjs"
        done = subprocess.run([node, program, tmp_path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [(tmp_path / f"{number}.out").read_bytes() for number in range(len(cases))]

    return run


def case(pixels, processor, **others):
    height, width, _ = pixels.shape
    described = site.described(processor) | others
    return {"kind": "preprocess", "pixels": pixels.tobytes(), "height": height, "width": width, "processor": described}


def assert_equal(output, expected, what):
    np.testing.assert_array_equal(np.frombuffer(output, np.float32), expected.reshape(-1), err_msg=str(what))


@pytest.mark.parametrize("resample", FILTERS, ids=NAMES)
def test_every_value_of_a_resize_is_pillows(in_node, resample):
    rng = np.random.default_rng(int(resample))
    images = {name: (noise(rng, *size), resized) for name, (size, resized) in SIZES.items()}
    for _ in range(40):
        size, resized = rng.integers(1, 200, 2), rng.integers(1, 200, 2)
        images[f"{size} to {resized}"] = noise(rng, *size), tuple(map(int, resized))
    options = {"resample": resample, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
    cases = [case(pixels, BitImageProcessor(size=resized, **options)) for pixels, resized in images.values()]
    for output, (name, (pixels, (height, width))) in zip(in_node(cases), images.items(), strict=True):
        expected = np.asarray(Image.fromarray(pixels).resize((width, height), resample), np.float32)
        assert_equal(output, expected, name)


PROCESSORS = {
    "google/bit-50": {"size": 448, "crop_size": 448, "resample": 2, "image_mean": 0.5, "image_std": 0.5},
    "transformers' defaults": {},
    "a crop of an odd rest": {"size": 61, "crop_size": 50},
    "a crop larger than the image": {"size": 40, "crop_size": {"height": 51, "width": 96}},
    "a crop that is not square": {"size": 64, "crop_size": {"height": 40, "width": 64}, "resample": 1},
    "squashed": {"size": {"height": 50, "width": 70}, "do_center_crop": False, "resample": 2},
    "no resize": {"do_resize": False, "crop_size": 37},
    "no resize, and larger": {"do_resize": False, "crop_size": 333},
    "no rescale": {"size": 48, "crop_size": 48, "do_rescale": False, "image_mean": 127.5, "image_std": 127.5},
    "no normalization": {"size": 48, "crop_size": 48, "do_normalize": False},
    "neither": {"size": 48, "crop_size": 48, "do_rescale": False, "do_normalize": False},
    "another factor": {"size": 48, "crop_size": 48, "rescale_factor": 1 / 127.5, "image_mean": 1, "image_std": 1},
    "an odd factor": {"size": 48, "crop_size": 48, "rescale_factor": 0.00391, "image_std": (0.1, 0.3, 1e-3)},
}


def test_every_value_of_every_step_is_the_processors(in_node):
    rng = np.random.default_rng(0)
    sizes = [(48, 48), (1, 90), (90, 1), (300, 217), (216, 301), (768, 100), (37, 37), *rng.integers(1, 400, (12, 2))]
    chosen = [
        (name, noise(rng, *size), BitImageProcessor(**options))
        for name, options in PROCESSORS.items()
        for size in sizes
    ]
    outputs = in_node([case(pixels, processor) for _, pixels, processor in chosen])
    for output, (name, pixels, processor) in zip(outputs, chosen, strict=True):
        assert_equal(output, processor(Image.fromarray(pixels)), (name, pixels.shape))


def one_side_after_the_other(pixels, height, width, vertical_first):
    """Resizes one side after the other, in one pass of Pillow each. It is the oracle for the order."""
    image = Image.fromarray(pixels)
    between = (image.width, height) if vertical_first else (width, image.height)
    return np.asarray(image.resize(between, 3).resize((width, height), 3), np.float32)


def test_the_order_of_the_directions_is_that_of_the_pillow_that_was_there(in_node):
    rng = np.random.default_rng(0)
    sizes = {"flat": (40, 90), "high": (90, 40), "very high": (707, 7)}
    first = {"never": (), "very high": ("very high",), "where it saves": ("high", "very high")}
    resized = (23, 23)
    options = {"size": resized, "resample": 3, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
    chosen = [(order, shape, noise(rng, *size)) for order in first for shape, size in sizes.items()]
    cases = [case(pixels, BitImageProcessor(**options), vertical_first=order) for order, _, pixels in chosen]
    for output, (order, shape, pixels) in zip(in_node(cases), chosen, strict=True):
        expected = one_side_after_the_other(pixels, *resized, shape in first[order])
        assert_equal(output, expected, (order, shape))
        other = one_side_after_the_other(pixels, *resized, shape not in first[order])
        assert (other != expected).any()


IMAGE = Image.fromarray(noise(np.random.default_rng(3), 24, 33))
TAGGED = {
    **{f"JPEG {tag}": (jpeg(block(tag), image=IMAGE), tag) for tag in range(1, 9)},
    **{f"PNG {tag}": (png(block(tag), image=IMAGE), tag) for tag in (1, 3, 6)},
    **{f"WebP {tag}": (webp(block(tag), image=IMAGE), tag) for tag in (1, 3, 6)},
    "little-endian": (jpeg(block(8, "<"), image=IMAGE), 8),
    "without a tag": (encoded(IMAGE, "JPEG"), 1),
    "of 0": (jpeg(block(0), image=IMAGE), 1),
    "of 9": (jpeg(block(9), image=IMAGE), 1),
    "of several values": (jpeg(elsewhere(3, b"\0\6\0\6"), image=IMAGE), 1),
}
# What no browser reads as an image, or as another one.
DAMAGED = {"cut off": jpeg(block(6)[:12], image=IMAGE)[:40], "no image": b"P6 1 1 255 abc", "two bytes": b"\xff\xd8"}


def test_the_orientation_tag_is_read_and_taken_out(in_node):
    """Compares with Pillow, which must find no tag and the same pixels in the rest."""
    outputs = in_node([{"kind": "takenOut", "file": contents} for contents, _ in TAGGED.values()])
    for output, (name, (contents, tag)) in zip(outputs, TAGGED.items(), strict=True):
        assert output[0] == tag, name
        left = inputs.read(name, output[1:], "upright")
        np.testing.assert_array_equal(np.asarray(left), np.asarray(inputs.read(name, contents, "ignore")), name)
        upright = inputs.read(name, contents, "upright")
        assert upright.size == (left.size[::-1] if tag > 4 else left.size), name


def test_a_damaged_file_is_left_to_the_browser_as_it_is(in_node):
    outputs = in_node([{"kind": "takenOut", "file": contents} for contents in DAMAGED.values()])
    assert [(output[0], output[1:]) for output in outputs] == [(1, contents) for contents in DAMAGED.values()]


def test_pixels_are_turned_as_pillow_turns_them(in_node):
    pixels = np.asarray(IMAGE)
    sides = {"width": IMAGE.width, "height": IMAGE.height}
    cases = [{"kind": "turned", "pixels": pixels.tobytes(), "orientation": tag, **sides} for tag in range(1, 9)]
    for tag, output in enumerate(in_node(cases), start=1):
        expected = IMAGE if tag == 1 else IMAGE.transpose(inputs.TURNS[tag])
        assert output == expected.tobytes(), tag
        assert tag == 1 or expected.transpose(AS_STORED[tag]).tobytes() == IMAGE.tobytes()


@pytest.mark.parametrize("padding", [None, "SAME"])
@pytest.mark.parametrize(("positions", "side"), [((2, 3), (64, 96)), ((1, 1), (32, 32)), ((14, 14), (448, 448))])
def test_a_map_lies_where_python_draws_it(in_node, padding, positions, side):
    config = BitConfig(global_padding=padding)
    heat = np.random.default_rng(0).normal(size=positions).astype(np.float32)
    drawn = (45, 61)
    stride, first = of_last_map(config)
    shape = dict(zip(("height", "width"), positions, strict=True))
    one = {
        "kind": "interpolated",
        "map": heat.tobytes(),
        **shape,
        "drawn": dict(zip(("height", "width"), drawn, strict=True)),
        "input": dict(zip(("height", "width"), side, strict=True)),
        "geometry": {"stride": stride, "first": first},
    }
    rows, columns = ((np.arange(count) + 0.5) * size / count - 0.5 for count, size in zip(drawn, side, strict=True))
    expected = activation_map.interpolated(heat, rows, columns, config)
    (output,) = in_node([one])
    # float32, where numpy computes in float64
    np.testing.assert_allclose(np.frombuffer(output, np.float32).reshape(drawn), expected, rtol=0, atol=1e-6)


def test_the_images_of_these_tests_are_read():
    assert Image.open(io.BytesIO(TAGGED["WebP 6"][0])).getexif()[0x0112] == 6
