"""Tests images in all forms that users and other libraries have, and the errors for other forms.

The oracle is the same image in a plain form: an array, a list, a path.
"""

import base64
import collections
import io
import traceback
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from conftest import absent
from keras_bit import BitImageProcessor, image_dataset, preprocess_input
from keras_bit.wording import LONGEST_SHOWN, shortened

SMALL = BitImageProcessor(size=12, crop_size=10)
RAW = BitImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def optional(package):
    try:
        return __import__(package)
    except ImportError:
        absent(f"{package} is not installed: pip install {package}")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    found = []
    for index in range(3):
        found.append(str(folder / f"{index}.png"))
        Image.fromarray(noise(14 + index, 20, 3, seed=index)).save(found[-1])
    return found


def opened_and_closed(path):
    with Image.open(path) as image:
        return image


def loaded_and_closed(path):
    image = Image.open(path)
    image.load()
    image.close()
    return image


def of_a_closed_file(path):
    with open(path, "rb") as file:
        return Image.open(file)


def made_and_closed(path):
    image = Image.new("L", (20, 20))
    image.close()
    return image


@pytest.mark.parametrize("closed", [opened_and_closed, loaded_and_closed, of_a_closed_file, made_and_closed])
@pytest.mark.parametrize("processor", [SMALL, BitImageProcessor(do_convert_rgb=False, do_normalize=False)])
def test_a_closed_pil_image_is_said_to_be_closed(paths, closed, processor):
    with pytest.raises(ValueError, match=r"`images\[1\]` is a PIL image that was closed.*or pass the path"):
        processor([paths[0], closed(paths[1])])


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_an_image_that_was_read_before_its_file_was_closed_is_read(tmp_path, file_format):
    path = tmp_path / "image"
    Image.fromarray(noise(14, 20, 3)).save(path, file_format)
    with Image.open(path) as image:
        image.load()
    np.testing.assert_array_equal(SMALL(image), SMALL(path))


def texts():
    encoded = {}
    for file_format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(noise(150, 220, 3)).save(buffer, file_format)
        encoded[file_format] = base64.b64encode(buffer.getvalue()).decode()
    png = encoded["PNG"]
    return {
        **{f"base64 of a {name}": (text, "a base64 string") for name, text in encoded.items()},
        "the beginning of it": (png[:60], "a base64 string"),
        "in lines": ("\n".join(png[start : start + 76] for start in range(0, len(png), 76)), "a base64 string"),
        "for addresses": (base64.urlsafe_b64encode(base64.b64decode(png)).decode(), "a base64 string"),
        "a data URI": (f"data:image/png;base64,{png}", "a data URI"),
        "a data URI in capitals": (f"DATA:image/png;base64,{png}", "a data URI"),
    }


@pytest.mark.parametrize(("text", "described"), texts().values(), ids=texts())
def test_an_encoded_image_as_text_is_reported_and_not_printed(text, described):
    with pytest.raises(ValueError, match=rf"`images\[0\]`.* is {described}, not a path.*base64.b64decode") as raised:
        SMALL([text])
    shown = "".join(traceback.format_exception(raised.value))
    assert len(str(raised.value)) < 500
    assert text[:4] in str(raised.value)
    assert text[300:400] not in shown or len(text) < 300


def test_an_address_is_reported_as_an_address(paths):
    with pytest.raises(ValueError, match=r"`images\[1\]` \(https://example.org/cat.jpg\) is a web address, which is"):
        SMALL([paths[0], "https://example.org/cat.jpg"])


def test_base64_in_bytes_is_called_base64(paths):
    contents = Path(paths[0]).read_bytes()
    with pytest.raises(ValueError, match=r"`images` is not an image file that Pillow can read. It is a base64 string"):
        SMALL(base64.b64encode(contents))
    assert SMALL(contents).shape == (1, 10, 10, 3)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("x" * 150, FileNotFoundError),  # a name, and neither an image nor too long
        ("photos/" * 400 + "cat.jpg", FileNotFoundError),
        (".".join(["photo"] * 4000), OSError),  # too long a name
        ("nul\0byte.png", ValueError),
    ],
)
def test_a_path_that_cannot_be_read_is_named_and_shortened(path, error):
    with pytest.raises(error) as raised:
        SMALL([path])
    assert str(raised.value).startswith("`images[0]` (")
    assert shortened(path) in str(raised.value)
    assert "base64" not in str(raised.value)
    assert len("".join(traceback.format_exception(raised.value)).splitlines()[-1]) < LONGEST_SHOWN + 200


def test_a_long_name_keeps_its_ends():
    name = "begin" + "x" * 1000 + "end"
    assert len(shortened(name)) <= LONGEST_SHOWN
    assert shortened(name).startswith("begin")
    assert shortened(name).endswith("end")
    assert shortened("x" * LONGEST_SHOWN) == "x" * LONGEST_SHOWN


SEQUENCES = {
    "tuple": tuple,
    "deque": collections.deque,
    "UserList": collections.UserList,
    "object array": lambda values: np.array(values, object),
    "string array": np.array,
    "Series": lambda values: optional("pandas").Series(values, index=range(5, 5 + len(values))),
    "Column": lambda values: optional("datasets").Dataset.from_dict({"x": values})["x"],
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_every_sequence_of_paths_is_a_list_of_them(paths, kind):
    np.testing.assert_array_equal(SMALL(SEQUENCES[kind](paths)), SMALL(paths))
    with pytest.raises(FileNotFoundError, match=r"`images\[1\]` \(.*absent.png\)"):
        SMALL(SEQUENCES[kind]([paths[0], "absent.png"]))


@pytest.mark.parametrize("kind", [kind for kind in SEQUENCES if kind != "string array"])
def test_every_sequence_of_paths_and_of_labels_is_a_data_set(paths, kind):
    def read(images, labels):
        ((pixels, numbers),) = image_dataset((images, labels), processor=SMALL, batch_size=4)
        return np.asarray(pixels), np.asarray(numbers)

    for labels in ([0, 1, 0], ["cat", "dog", "cat"], [["cat"], ["cat", "dog"], []]):
        if kind == "object array" and isinstance(labels[0], list):
            made = np.empty(3, object)
            made[:] = labels
        else:
            made = SEQUENCES[kind](labels)
        expected, found = read(paths, labels), read(SEQUENCES[kind](paths), made)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_a_column_of_images_is_taken_like_a_list(paths):
    datasets = optional("datasets")
    data = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    np.testing.assert_array_equal(SMALL(data["image"]), SMALL(paths))
    with pytest.raises(ValueError, match=r"got PIL images.*image_dataset\(dataset\)"):
        image_dataset((data["image"], [0, 1, 0]), processor=SMALL, batch_size=2)


def test_objects_that_are_not_sequences_of_images_are_refused():
    for images in ({"a.png"}, {"image": "a.png"}, iter(["a.png"])):
        with pytest.raises(TypeError, match="`images` must be a PIL image"):
            SMALL(images)
    with pytest.raises(ValueError, match=r"`source\[0\]\[1\]` is a base64 string, not a path.*'iVBOR") as raised:
        image_dataset((["a.png", texts()["base64 of a PNG"][0]], [0, 1]), processor=SMALL, batch_size=2)
    assert len(str(raised.value)) < 500


def test_a_column_of_base64_texts_is_reported_and_shortened(paths):
    text = texts()["base64 of a PNG"][0]
    data = optional("datasets").Dataset.from_dict({"image": [paths[0], text], "label": [0, 1]})
    with pytest.raises(tf.errors.InvalidArgumentError, match="is a base64 string, not a path") as raised:
        list(image_dataset(data, processor=SMALL, batch_size=2))
    assert text[300:400] not in str(raised.value)


def test_a_long_path_without_a_dot_is_not_taken_for_base64(paths, tmp_path):
    folder = tmp_path.joinpath(*["photographs"] * 24)
    folder.mkdir(parents=True)
    path = folder / "cat"
    path.write_bytes(Path(paths[0]).read_bytes())
    data = image_dataset(([str(path)], [0]), processor=SMALL, batch_size=1)
    np.testing.assert_array_equal(next(iter(data))[0], SMALL(paths[0]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "uint8"])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_every_tensor_of_pytorch_is_read(dtype, requires_grad):
    torch = optional("torch")
    tensor = torch.from_numpy(noise(3, 14, 20)).to(getattr(torch, dtype))
    if dtype != "uint8":
        tensor.requires_grad_(requires_grad)
    expected = SMALL(tensor.detach().float().numpy())
    np.testing.assert_array_equal(SMALL(tensor), expected)
    np.testing.assert_array_equal(SMALL([tensor]), expected)
    np.testing.assert_array_equal(SMALL(tensor[None]), expected)


def test_bfloat16_of_every_framework_is_read():
    pixels = noise(14, 20, 3)
    np.testing.assert_array_equal(SMALL(tf.cast(pixels, tf.bfloat16)), SMALL(pixels.astype(np.float32)))
    jax = optional("jax")
    np.testing.assert_array_equal(SMALL(jax.numpy.asarray(pixels, "bfloat16")), SMALL(pixels.astype(np.float32)))


def test_an_object_that_cannot_become_an_array_is_named():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("is on another device")

    with pytest.raises(
        TypeError, match=r"`images\[1\]` cannot be converted to a numpy array. Broken says: is on another dev"
    ):
        SMALL([noise(5, 6, 3), Broken()])


@pytest.mark.parametrize("processor", [SMALL, BitImageProcessor(size=12, crop_size=10, do_resize=False), RAW])
def test_gray_arrays_need_no_channel_axis(processor):
    gray = noise(14, 20)
    expected = processor(gray[..., None])
    for given in (gray, [gray], Image.fromarray(gray)):
        np.testing.assert_array_equal(processor(given), expected)
    for order in (None, "channels_first", "channels_last", "none"):
        np.testing.assert_array_equal(processor(gray, input_data_format=order), expected)
    batch = noise(5, 14, 20)
    expected = processor(list(batch))
    np.testing.assert_array_equal(processor(batch, input_data_format="none"), expected)
    np.testing.assert_array_equal(processor([batch[:2], batch[2], batch[3:]], input_data_format="none"), expected)


def test_gray_images_stay_gray_without_conversion():
    processor = BitImageProcessor(size=12, crop_size=10, do_convert_rgb=False, image_mean=0.5, image_std=0.5)
    gray = noise(14, 20)
    assert processor(gray).shape == (1, 10, 10, 1)
    np.testing.assert_array_equal(processor(gray), processor(Image.fromarray(gray)))


@pytest.mark.parametrize(
    ("shape", "order", "text"),
    [
        ((4, 5, 6, 3), "none", r"must have 2 dimensions, \(height, width\), or 3 for a batch"),
        ((4,), None, "must have 3 dimensions, or 4 for a batch, or 2 for a gray image"),
        ((7, 8, 9), None, "`input_data_format='none'` for a batch of gray images"),
        ((0, 8), None, "is empty"),
    ],
)
def test_arrays_of_other_dimensions_are_refused(shape, order, text):
    with pytest.raises(ValueError, match=r"`images\[0\]` .*" + text):
        SMALL([np.zeros(shape, np.uint8)], input_data_format=order)


def test_gray_arrays_make_a_data_set():
    gray = noise(3, 14, 20)
    for images in (gray, list(gray)):
        ((pixels, _),) = image_dataset((images, [0, 1, 0]), processor=SMALL, batch_size=4)
        np.testing.assert_array_equal(pixels, SMALL(list(gray)))


def test_options_are_taken_in_any_case_and_as_transformers_enumerations():
    image = noise(14, 20, 3)
    for name in ("channels_first", "CHANNELS_FIRST", "Channels_First"):
        np.testing.assert_array_equal(SMALL(image, data_format=name), SMALL(image).transpose(0, 3, 1, 2))
    tensor = SMALL(image, return_tensors="TF").pixel_values
    assert tf.is_tensor(tensor)
    transformers = optional("transformers")
    image_utils = transformers.image_utils
    np.testing.assert_array_equal(
        SMALL(image.transpose(2, 0, 1), input_data_format=image_utils.ChannelDimension.FIRST), SMALL(image)
    )
    found = SMALL(image, return_tensors=transformers.TensorType.NUMPY, data_format=image_utils.ChannelDimension.LAST)
    np.testing.assert_array_equal(found.pixel_values, SMALL(image))


@pytest.mark.live
def test_gray_arrays_give_the_values_of_transformers():
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    gray = noise(14, 20)
    options = {"size": {"shortest_edge": 12}, "crop_size": {"height": 10, "width": 10}}
    theirs = BitImageProcessorPil(**options)(Image.fromarray(gray).convert("RGB"), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(BitImageProcessor(**options)(gray), theirs.transpose(0, 2, 3, 1))
    theirs = BitImageProcessorPil(**options, do_convert_rgb=False, image_mean=0.5, image_std=0.5)(
        Image.fromarray(gray), return_tensors="np"
    )["pixel_values"]
    ours = BitImageProcessor(**options, do_convert_rgb=False, image_mean=0.5, image_std=0.5)
    np.testing.assert_array_equal(ours(gray), theirs.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float16"])
def test_preprocess_input_scales_what_a_tf_data_map_gives(dtype):
    pixels = noise(4, 6, 5, 3).astype(dtype)
    data = tf.data.Dataset.from_tensor_slices(pixels).map(preprocess_input)
    expected = preprocess_input(pixels)
    for found, one in zip(data, expected, strict=True):
        assert found.dtype == one.dtype
        np.testing.assert_array_equal(found, one)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "bfloat16"])
def test_preprocess_input_takes_tensors_of_pytorch_and_jax(dtype):
    pixels = noise(6, 5, 3)
    torch, jax = optional("torch"), optional("jax")
    tensor = torch.from_numpy(pixels).to(getattr(torch, dtype))
    assert (preprocess_input(tensor) == tensor.to(torch.float32 if "int" in dtype else tensor.dtype) / 127.5 - 1).all()
    if keras.backend.backend() != "torch":
        array = jax.numpy.asarray(pixels, dtype)
        assert isinstance(preprocess_input(array), jax.Array)
        np.testing.assert_allclose(
            np.asarray(preprocess_input(array), np.float32),
            preprocess_input(pixels),
            atol=2**-7 if dtype == "bfloat16" else 2**-23,  # a unit in the last place: XLA multiplies by 1 / 127.5
        )
