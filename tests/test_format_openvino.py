"""Tests OpenVINO files that preprocess: their pixels against Pillow's, and their outputs against the model's."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import keras_bit
from command_line import run as run_command
from conftest import absent
from image_files import make_folders
from keras_bit import BiT, BitConfig, BitImageProcessor
from keras_bit.exporters import openvino_images
from keras_bit.exporters.openvino_package import core
from store import SMALLEST, TRAINED, smallest

CLIP = {"image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}
HALVES = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
GRAY = {"image_mean": (127.5,) * 3, "image_std": (127.5,) * 3}
# Of every sum of weights in float32 the last bits, which decide how some halves are rounded, in each direction.
LEVELS = 2
# As the other OpenVINO files: other engines' convolutions add up in another order. Of the largest output.
TOLERANCE = 1e-5
SIZES = ((45, 60), (200, 31), (33, 33), (1, 70))  # px
# Of a processor, of the export, and of the images.
CASES = {
    "shortest edge, bicubic": ({"size": 40, "crop_size": 32, "resample": 3} | CLIP, {}, SIZES),
    "shortest edge, bilinear": ({"size": 40, "crop_size": (33, 40), "resample": 2} | HALVES, {}, SIZES),
    "a crop beyond the image": ({"size": 40, "crop_size": (64, 45), "resample": 2} | CLIP, {}, SIZES),
    "a crop without a resize": ({"do_resize": False, "crop_size": 50} | CLIP, {}, SIZES),
    "exact size": ({"size": (50, 33), "do_center_crop": False, "resample": 2} | HALVES, {}, SIZES),
    "exact size and a crop": ({"size": (50, 41), "crop_size": (40, 48), "resample": 3} | HALVES, {}, SIZES),
    "a size that varies": ({"size": 40, "do_center_crop": False, "resample": 2} | HALVES, {}, SIZES[:3]),
    "nothing but numbers": ({"do_resize": False, "do_center_crop": False} | CLIP, {}, SIZES[:1]),
    "fixed": ({"size": 40, "crop_size": 36} | CLIP, {"image_size": (45, 60), "batch_size": 2}, SIZES[:1]),
    "fixed height": ({"size": 40, "crop_size": 36} | CLIP, {"image_size": (45, None)}, SIZES[:1]),
    "not rescaled": ({"size": 40, "crop_size": 36, "do_rescale": False} | GRAY, {}, SIZES),
    "not normalized": ({"size": 40, "crop_size": 36, "do_normalize": False}, {}, SIZES),
    "float16": ({"size": 40, "crop_size": 36} | CLIP, {"quantize": "float16"}, SIZES),
}
QUICK = ("shortest edge, bicubic", "a crop beyond the image")
CASE_ROWS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]


def needs(*packages):
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        absent(f"{', '.join(missing)} not installed: pip install -e '.[onnx,openvino,own-models]'")


def exported(folder, model=None, options=None, **processor):
    needs("onnx", "openvino")
    processor = BitImageProcessor(**processor)
    options = {"processor": processor, "include_preprocessing": True} | (options or {})
    return keras_bit.export(model or bit(), folder / "bit.xml", "openvino", **options)


def bit():
    """Builds a model of random weights, with no group norm at its default."""
    model = BiT(BitConfig(**SMALLEST), classifier_activation=None)
    rng = np.random.default_rng(1)
    model.set_weights([values + 0.2 * rng.standard_normal(values.shape) for values in model.get_weights()])
    return model


def opened(path):
    """Returns a function from images to the pixels that the network gets, and to the file's own output."""

    model = core().read_model(path)
    model.add_outputs("pixel_values")
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images):
        named = {output.any_name: np.array(values) for output, values in compiled({"images": images}).items()}
        pixels = named.pop("pixel_values")
        (scores,) = named.values()
        return pixels, scores

    return run


def photograph_like(count, size, seed=0):
    """Returns uint8 images with similar neighboring pixels and some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(one).resize(size[::-1], Image.Resampling.BICUBIC)) for one in coarse])
    return np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8)


def by_pillow(image, options):
    """Prepares an image with Pillow by the rule of transformers' processor, and returns gray levels."""
    pillow = Image.fromarray(image)
    size = options.get("size", 224)
    if options.get("do_resize", True):
        width, height = pillow.size
        if isinstance(size, int):
            short = min(width, height)
            size = (size * height // short, size * width // short)
        pillow = pillow.resize(size[::-1], options.get("resample", 3))
    if options.get("do_center_crop", True):
        crop = options["crop_size"]
        height, width = (crop, crop) if isinstance(crop, int) else crop
        left, top = (pillow.width - width) // 2, (pillow.height - height) // 2
        pillow = pillow.crop((left, top, left + width, top + height))
    return np.asarray(pillow, np.float64)


def in_levels(pixels, options):
    """Converts normalized values to gray levels again."""
    pixels = np.asarray(pixels, np.float64)
    if options.get("do_normalize", True):
        pixels = pixels * options["image_std"] + options["image_mean"]
    return pixels * 255 if options.get("do_rescale", True) else pixels


@pytest.mark.parametrize("case", CASE_ROWS)
def test_the_pixels_are_pillows_and_the_outputs_the_models_for_these(tmp_path, case):
    options, of_export, sizes = CASES[case]
    model = bit()
    run = opened(exported(tmp_path, model, of_export, **options).path)
    # Constants in 16 bits have 11 of a fraction; else the way to gray levels and back rounds a few times.
    exactness, tolerance = (0.25, 1e-2) if "quantize" in of_export else (1e-3, TOLERANCE)
    for size in sizes:
        images = photograph_like(2, size)
        pixels, scores = run(images)
        expected = np.stack([by_pillow(image, options) for image in images])
        assert pixels.shape == expected.shape
        difference = np.abs(in_levels(pixels, options) - expected)
        assert difference.max() <= LEVELS + exactness
        # A row that is enlarged is off in all of its copies; measured 0.077.
        assert (difference > exactness).mean() < 0.1
        wanted = keras.ops.convert_to_numpy(model(pixels, training=False))
        np.testing.assert_allclose(scores, wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.slow
def test_images_of_sixty_random_sizes_have_pillows_sizes_and_pixels(tmp_path):
    options = {"size": 37, "do_center_crop": False, "resample": 3} | HALVES
    run = opened(exported(tmp_path, **options).path)
    rng = np.random.default_rng(0)
    for size in rng.integers(1, 400, (60, 2)):
        size = np.maximum(size, size.max() // 20)  # thinner ones become very long
        images = rng.integers(0, 256, (1, *size, 3), dtype=np.uint8)
        pixels, _ = run(images)
        expected = by_pillow(images[0], options)
        assert pixels[0].shape == expected.shape, size
        assert np.abs(in_levels(pixels[0], options) - expected).max() <= LEVELS + 1e-3, size


@pytest.mark.data
@pytest.mark.slow
def test_photographs_have_pillows_pixels(tmp_path, photos):
    options = {"size": 448, "crop_size": 448, "resample": 2} | HALVES  # BiT's own
    run = opened(exported(tmp_path, **options).path)
    for photo in photos[::8]:
        image = np.asarray(Image.open(photo).convert("RGB"))
        difference = np.abs(in_levels(run(image[None])[0][0], options) - by_pillow(image, options))
        assert difference.max() <= 1 + 1e-3, photo.name
        assert (difference > 0.5).mean() < 0.02, photo.name


def test_the_file_says_what_it_takes_and_names_the_classes(tmp_path):
    needs("onnx", "openvino")
    import openvino

    labels = ["red fox", "cat", "", "dog", "owl"]
    exported(tmp_path, smallest(), {"labels": labels}, size=40, crop_size=36)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bit.bin", "bit.xml"]
    read = core().read_model(tmp_path / "bit.xml")
    (images,), (scores,) = read.inputs, read.outputs
    assert (images.names, scores.names) == ({"images"}, {"probabilities"})
    assert (images.element_type.to_string(), images.partial_shape.to_string()) == ("u8", "[?,?,?,3]")
    assert openvino.layout_helpers.get_layout(images).to_string() == "[N,H,W,C]"
    assert read.get_rt_info(["model_info", "labels"]).value == "red_fox cat _ dog owl"


@pytest.mark.slow
def test_int8_is_calibrated_on_what_the_network_gets(tmp_path):
    needs("onnxruntime")
    model, processor = bit(), {"size": 50, "crop_size": 48} | HALVES
    data = BitImageProcessor(**processor)(list(photograph_like(8, (90, 70))))
    options = {"quantize": "int8", "representative_data": [data], "image_size": (90, 70)}
    pixels, scores = opened(exported(tmp_path, model, options, **processor).path)(photograph_like(2, (90, 70), 1))
    wanted = keras.ops.convert_to_numpy(model(pixels, training=False))
    np.testing.assert_allclose(scores, wanted, atol=0.2 * np.abs(wanted).max())  # as of other files in 8 bits
    with pytest.raises(ValueError, match=r"size of the export, 48x48 px, got 90x70"):
        exported(
            tmp_path / "other",
            model,
            options | {"representative_data": [np.zeros((1, 90, 70, 3), "float32")]},
            **processor,
        )


@pytest.mark.slow
def test_a_model_that_takes_uint8_gets_what_is_resized(tmp_path):
    needs("scipy")
    inputs = keras.Input((36, 36, 3), dtype="uint8")
    model = keras.Model(inputs, bit()(keras.layers.Rescaling(1 / 127.5, -1)(inputs)))
    processor = {"size": 40, "crop_size": 36, "do_rescale": False, "do_normalize": False}
    pixels, scores = opened(exported(tmp_path, model, **processor).path)(photograph_like(2, (50, 90)))
    assert pixels.dtype == np.uint8
    expected = np.stack([by_pillow(image, processor) for image in photograph_like(2, (50, 90))])
    assert np.abs(pixels - expected).max() <= LEVELS
    wanted = keras.ops.convert_to_numpy(model(pixels, training=False))
    np.testing.assert_allclose(scores, wanted, atol=TOLERANCE * np.abs(wanted).max())


def fixed():
    return BiT(BitConfig(**SMALLEST), input_shape=(64, 64, 3))


def gray():
    return BiT(BitConfig(**SMALLEST | {"num_channels": 1}))


@pytest.mark.parametrize(
    ("model", "processor", "options", "message"),
    [
        (smallest, None, {}, r"`processor` must be given for `include_preprocessing=True`, got None"),
        (smallest, {"resample": 1}, {}, r"`resample` 2 \(bilinear\) or 3 \(bicubic\) .*, got 1"),
        (gray, {"do_normalize": False}, {}, "a model of 1 channels, got True: the images are RGB"),
        (fixed, {"crop_size": 48}, {}, "64x64 px of the model's input .*, got 48x48 px"),
        (fixed, {"do_center_crop": False}, {}, "64x64 px of the model's input .*, got any size"),
        (smallest, {}, {"format": "onnx"}, r"must be False for the format 'onnx', got True: only an 'openvino' file"),
        (smallest, {}, {"include_preprocessing": "yes"}, "must be True or False, got 'yes'"),
        (smallest, {}, {"image_size": 8}, "`image_size` must be .* at least 32"),
    ],
)
def test_steps_that_cannot_be_in_the_file_are_refused_in_one_sentence(tmp_path, model, processor, options, message):
    needs("onnx", "openvino")
    processor = None if processor is None else BitImageProcessor(**processor)
    options = {"format": "openvino", "include_preprocessing": True, "processor": processor} | options
    with pytest.raises(ValueError, match=message):
        keras_bit.export(model(), tmp_path / "bit.xml", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("constant", "value", "crop", "message"),
    [
        (
            "MODES",
            {3: "bilinear_pillow"},
            True,
            r"gives other pixels .* by up to .* gray levels, more than the 2 al",
        ),
        ("SIDES", (2, 1), False, r"makes pixels of shape \(2, 180, 200, 3\) .* the processor makes \(2, 200, 180, 3\)"),
    ],
)
def test_steps_that_give_other_pixels_leave_no_file(tmp_path, monkeypatch, constant, value, crop, message):
    monkeypatch.setattr(openvino_images, constant, value)
    with pytest.raises(ArithmeticError, match=message):
        exported(tmp_path, smallest(), size=(200, 180), do_center_crop=crop, crop_size=90, resample=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_writes_a_file_that_takes_images(capsys, tmp_path):
    needs("onnx", "onnxruntime", "openvino")
    make_folders(tmp_path / "images", {"a": 2, "b": 3})
    arguments = ("--weights", TRAINED, "--out", tmp_path / "bit.xml", "--format", "openvino")
    options = ("--include-preprocessing", "--image-size", "96x128", "--quantize", "int8")
    data = ("--representative-data", tmp_path / "images")
    code, out, err = run_command(capsys, "export", *arguments, *options, *data)
    assert code == 0, err
    assert "openvino, int8" in out
    pixels, scores = opened(tmp_path / "bit.xml")(photograph_like(1, (96, 128)))
    assert (pixels.shape, scores.shape) == ((1, 64, 64, 3), (1, 10))
    code, _, err = run_command(capsys, "export", *arguments, *options[:1], "--pixels-only", "--overwrite")
    assert (code, "--pixels-only" in err, "--include-preprocessing" in err) == (2, True, True)


INTERRUPTED = """
import os, signal
import numpy as np
from keras_bit.exporters.openvino_package import core, import_openvino
openvino = import_openvino()
from openvino import opset13

def compiled():
    taken = opset13.parameter([1, 3], np.float32)
    return core().compile_model(openvino.Model([opset13.relu(taken)], [taken]), "CPU")

first, second = compiled(), compiled()
del first
del second
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_ctrl_c_after_two_models_ends_a_program_and_does_not_crash_it():
    """Checks a crash that a `Core` for each model causes: the process dies of SIGSEGV."""
    needs("openvino")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
