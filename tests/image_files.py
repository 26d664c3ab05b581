"""Makes image files for tests of data sets; no two images are equal."""

import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_bit import BitImageProcessor

HALF = {"resample": 2, "image_mean": 0.5, "image_std": 0.5}
PROCESSOR = BitImageProcessor(size={"height": 24, "width": 32}, do_center_crop=False, **HALF)


def pixels(seed, height=40, width=50):
    """Returns a gradient with noise, so that JPEG files differ and are small."""
    generator = np.random.default_rng(seed)
    slope = np.add.outer(np.linspace(0, 90, height), np.linspace(0, 90, width))[..., None]
    return (slope + generator.integers(0, 70, (height, width, 3)) + generator.integers(0, 6, 3)).astype(np.uint8)


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def make_folders(directory: Path, counts: dict[str, int]) -> list[Path]:
    """Writes a folder for each class with that number of images; returns the files in the order of an evaluation."""
    files = []
    for label, (name, count) in enumerate(sorted(counts.items())):
        (directory / name).mkdir(parents=True)
        for index in range(count):
            files.append(directory / name / f"{index:03d}.jpg")
            files[-1].write_bytes(encoded(pixels(1000 * label + index, 30 + index, 50)))
    return files


def collect(data):
    """Returns all images and labels of one epoch."""
    batches = list(data.as_numpy_iterator())
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def write_records(path, contents, labels, **names):
    image, label = names.get("image", "image/encoded"), names.get("label", "image/class/label")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content, number in zip(contents, labels, strict=True):
            features = {
                image: tf.train.Feature(bytes_list=tf.train.BytesList(value=[content])),
                label: tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return str(path)
