"""Fuzzes image files: in the processor, in its graph, and in the SavedModel signature `serve_bytes`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from fuzz import mending
from fuzz.checkpoints import SMALLEST
from fuzz.kinds import Kind, damaged
from image_files import encoded, pixels
from keras_bit import BiT, BitImageProcessor
from keras_bit.exporters.signatures import Served

PROCESSOR = BitImageProcessor(size=(32, 32), do_center_crop=False, resample=2)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    exif[0x010F] = "a camera"
    return exif


def _frames(kind: str) -> bytes:
    first, second = (Image.fromarray(pixels(seed)) for seed in (0, 1))
    return encoded(first, kind, save_all=True, append_images=[second])


def _palette() -> Image.Image:
    return Image.fromarray(pixels(2)).quantize(16)


IMAGES: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(pixels(0)),
    "progressive jpeg": lambda: encoded(pixels(0), progressive=True),
    "jpeg with Exif": lambda: encoded(pixels(0), exif=_exif()),
    "png": lambda: encoded(pixels(0), "PNG"),
    "png chunks": lambda: encoded(_palette(), "PNG", transparency=3),
    "png with Exif": lambda: encoded(pixels(0), "PNG", exif=_exif()),
    "gif": lambda: _frames("GIF"),
    "bmp": lambda: encoded(pixels(0), "BMP"),
    "palette bmp": lambda: encoded(_palette(), "BMP"),
    "webp": lambda: encoded(pixels(0), "WEBP", exif=_exif()),
    "lossless webp": lambda: encoded(pixels(0), "WEBP", lossless=True),
    "animated webp": lambda: _frames("WEBP"),
}


def _array(path: Path) -> Any:
    return PROCESSOR(path)


@functools.cache
def _graph_half() -> Callable[[Any], Any]:
    return tf.function(PROCESSOR.tf_preprocess, input_signature=[tf.TensorSpec([], tf.string)])


def _graph(path: Path) -> Any:
    return _graph_half()(path.read_bytes()).numpy()


@functools.cache
def _served() -> Any:
    model = BiT(SMALLEST, input_shape=(32, 32, 3))
    head = model.get_layer("predictions")
    network = keras.Model(model.input, {"features": head.input, "logits": head.output})
    served = Served(network, True, keras.activations.softmax, PROCESSOR, ("a", "b"), (None, 32, 32), None)
    return served, served.signatures["serve_bytes"]


def _bytes(path: Path) -> Any:
    whole = encoded(pixels(3))
    found = _served()[1](tf.constant([whole, path.read_bytes()]))
    return np.round(found["probabilities"].numpy(), 4)


# The function that reads an image, the documented exceptions, and what an error must name (`None`: the file).
PATHS: dict[str, tuple[Callable[[Path], Any], tuple[type[Exception], ...], tuple[str, ...] | None]] = {
    "array": (_array, (ValueError, OSError), None),
    "graph": (_graph, (tf.errors.InvalidArgumentError,), ("",)),  # the graph only knows the bytes
    "bytes": (_bytes, (tf.errors.InvalidArgumentError,), ("the image at index 1",)),
}


def image(path: str, name: str) -> Callable[[Path], Kind]:
    def kind(folder: Path) -> Kind:
        whole = IMAGES[name]()
        mend = mending.png if name.startswith("png ") else bytes
        read, errors, names = PATHS[path]
        return Kind(folder / "image", whole, damaged(whole, mend), read, errors, names)

    return kind


# TensorFlow's decoders refuse these, whatever they contain.
ARRAY_ALONE = ("palette bmp", "animated webp")
KINDS = {
    f"{name}, {path}": image(path, name)
    for path in PATHS
    for name in IMAGES
    if path == "array" or name not in ARRAY_ALONE
}
