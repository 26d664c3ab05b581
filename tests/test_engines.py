"""Tests both engines of `image_dataset`: the same batches for the same seed, and what only one of them can do."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from conftest import ROOT
from image_files import HALF, PROCESSOR, collect, encoded, make_folders, pixels, write_records
from keras_bit import BitImageProcessor, HyperRule, image_dataset

ARRAYS = [pixels(index, 20 + 7 * index, 30) for index in range(7)]
LABELS = [0, 1, 2, 0, 1, 2, 1]
RULE = HyperRule(100, 32)
MIXED = HyperRule(20_000, 32)


def files(folder):
    paths = [folder / f"{index}.jpg" for index in range(len(ARRAYS))]
    for path, array in zip(paths, ARRAYS, strict=True):
        path.write_bytes(encoded(array))
    return paths, LABELS


def stream(folder):
    return tf.data.Dataset.from_tensor_slices(([encoded(array) for array in ARRAYS], LABELS))


def stream_of_pixels(folder):
    spec = (tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.int64))
    return tf.data.Dataset.from_generator(lambda: zip(ARRAYS, LABELS, strict=True), output_signature=spec)


def records(folder):
    return write_records(folder / "a.tfrecord", [encoded(array) for array in ARRAYS], LABELS)


SOURCES = {
    "files": files,
    "arrays": lambda folder: (ARRAYS, LABELS),
    "stream": stream,
    "stream of pixels": stream_of_pixels,
    "records": records,
}
NAMES = {"class_names": list("xyz")}
WAYS = {
    "evaluation": {},
    "training": {"training": True, "rule": RULE, **NAMES},
    "random resized crop": {"training": True, "rule": RULE, "random_resized_crop": True, **NAMES},
    "MixUp, endless": {"training": True, "rule": MIXED, "repeat": True, "initial_step": 2, **NAMES},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", SOURCES)
def test_both_engines_give_the_same_batches(tmp_path, kind, way):
    source = SOURCES[kind](tmp_path)
    found = []
    for engine in ("host", "graph"):
        data = image_dataset(source, processor=PROCESSOR, batch_size=3, seed=5, engine=engine, **WAYS[way])
        found.append(list(data.take(4).as_numpy_iterator()))
    assert len(found[0]) == len(found[1]) > 2
    for host, graph in zip(*found, strict=True):
        np.testing.assert_array_equal(host[0], graph[0])
        np.testing.assert_array_equal(host[1], graph[1])
        assert host[1].dtype == graph[1].dtype


@pytest.mark.slow
def test_the_host_reads_what_pillow_reads(tmp_path):
    array = pixels(3)
    image = Image.fromarray(array)
    frames = {"save_all": True, "append_images": [Image.fromarray(pixels(4))]}
    kinds = {
        "a.tif": image,
        "b.jpg": image.convert("CMYK"),
        "c.webp": (image, frames),
        "d.gif": (image, {"transparency": 0}),
        "e.png": image.convert("LA"),
        "f.bmp": image.convert("P"),
        "g.ppm": image,
    }
    for name, kind in kinds.items():
        one, options = kind if isinstance(kind, tuple) else (kind, {})
        one.save(tmp_path / name, **options)
    paths = [tmp_path / name for name in kinds]
    images, _ = collect(image_dataset((paths, [0] * len(paths)), processor=PROCESSOR, batch_size=3))
    np.testing.assert_array_equal(images, PROCESSOR(paths))


@pytest.mark.slow
def test_the_graph_names_a_file_that_it_cannot_read(tmp_path):
    paths, labels = files(tmp_path)
    paths[4].write_bytes(b"not an image")
    data = image_dataset((paths, labels), processor=PROCESSOR, batch_size=2, engine="graph")
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{paths[4]} is not a JPEG, PNG, GIF, BMP or WebP file"):
        collect(data)
    Image.new("CMYK", (30, 40)).save(paths[4])
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{paths[4]} is a JPEG of four colors"):
        collect(data)
    data = image_dataset((paths, [*labels[:6], 9]), processor=PROCESSOR, batch_size=7, engine="graph")
    paths[4].write_bytes(encoded(ARRAYS[4]))
    collect(data)
    named = tf.data.Dataset.from_tensor_slices(([encoded(ARRAYS[0])] * 2, [0, 9]))
    data = image_dataset(named, processor=PROCESSOR, batch_size=1, engine="graph", class_names=["a", "b"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="element 1 of `source` has the label 9, which is not one"):
        collect(data)


REFUSED = {
    "another": ({"engine": "gpu"}, "`engine` must be one of 'auto', 'host', 'graph', got 'gpu'"),
    "skip": ({"engine": "graph", "on_error": "skip"}, "`engine` must be 'host' or 'auto' with on_error='skip', got"),
    "limit": ({"engine": "host", "max_pixels": 10**9}, "`max_pixels` must be at most 178,956,970, got 1,000,000,000"),
    "limit and skip": ({"on_error": "skip", "max_pixels": 10**9}, "Pillow refuses more. Raise PIL.Image.MAX_IMAGE"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_tasks_for_an_engine_are_refused_before_an_image_is_read(case):
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        image_dataset((["a.jpg"], [0]), processor=PROCESSOR, batch_size=1, **options)


@pytest.mark.slow
def test_more_pixels_than_pillow_takes_are_read_by_the_graph(tmp_path, monkeypatch):
    paths, labels = files(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    data = image_dataset((paths, labels), processor=PROCESSOR, batch_size=7, max_pixels=10_000)
    images, _ = collect(data)
    monkeypatch.undo()
    np.testing.assert_array_equal(images, PROCESSOR(paths))


@pytest.mark.slow
def test_the_length_survives_map_cache_prefetch_and_take():
    data = image_dataset((ARRAYS, LABELS), processor=PROCESSOR, batch_size=3)
    for changed, expected in (
        (data.map(lambda images, labels: (images, labels)), 3),
        (data.cache(), 3),
        (data.prefetch(1), 3),
        (data.take(2), 2),
        (data.skip(1).enumerate(), 2),
    ):
        assert len(changed) == expected == sum(1 for _ in changed)


CHECKPOINT = """
import sys
import tensorflow as tf
import keras_bit
processor = keras_bit.BitImageProcessor(size=(24, 32), do_center_crop=False)
rule = keras_bit.HyperRule(100, 32)
data = keras_bit.image_dataset(
    sys.argv[1], processor=processor, batch_size=2, engine=sys.argv[2], training=True, rule=rule, seed=1,
)
iterator = iter(data)
first = [next(iterator) for _ in range(2)]
path = tf.train.Checkpoint(iterator=iterator).save(sys.argv[3] + "/state")
expected = next(iterator)[0].numpy()
again = iter(data)
tf.train.Checkpoint(iterator=again).restore(path)
print("same" if (next(again)[0].numpy() == expected).all() else "other")
"""


@pytest.mark.slow
def test_an_iterator_is_checkpointed_with_the_graph_alone(tmp_path):
    make_folders(tmp_path / "data", {"a": 4, "b": 4})
    said = {}
    for engine in ("graph", "host"):
        done = subprocess.run(
            [sys.executable, "-c", CHECKPOINT, str(tmp_path / "data"), engine, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        said[engine] = (done.returncode, done.stdout.strip(), done.stderr)
    assert said["graph"][:2] == (0, "same"), said["graph"][2][-2000:]
    assert said["host"][0] != 0
    assert "FailedPreconditionError" in said["host"][2]


SAVED = """
import sys
import numpy as np
import tensorflow as tf
with open(sys.argv[1], "rb") as file:
    variant = tf.raw_ops.DatasetFromGraph(graph_def=file.read())
spec = tf.TensorSpec([None, 24, 32, 3]), tf.TensorSpec([None], tf.int32)
images = [images for images, _ in tf.data.experimental.from_variant(variant, spec).as_numpy_iterator()]
np.save(sys.argv[2], np.concatenate(images))
"""


@pytest.mark.slow
def test_only_the_graph_engine_is_saved_but_elements_of_both(tmp_path):
    make_folders(tmp_path / "data", {"a": 4, "b": 3})
    options = {"processor": PROCESSOR, "batch_size": 3}
    graph, host = (image_dataset(tmp_path / "data", **options, engine=engine) for engine in ("graph", "host"))
    expected, _ = collect(host)

    def saved(data):
        # 2: what lies outside of the graph, as functions of Python, is an error.
        return tf.raw_ops.DatasetToGraphV2(input_dataset=data._variant_tensor, external_state_policy=2).numpy()

    (tmp_path / "file").write_bytes(saved(graph))
    subprocess.run([sys.executable, "-c", SAVED, tmp_path / "file", tmp_path / "found.npy"], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected)
    with pytest.raises(tf.errors.FailedPreconditionError, match="PyFunc is stateful"):
        saved(host)
    for name, data in (("graph", graph), ("host", host)):
        data.save(str(tmp_path / name / "elements"))
        np.testing.assert_array_equal(collect(tf.data.Dataset.load(str(tmp_path / name / "elements")))[0], expected)


def test_a_processor_that_ignores_the_orientation_reads_as_stored(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(0, 20, 40)).save(path, exif=exif)
    for orientation in ("upright", "ignore"):
        processor = BitImageProcessor(size=(24, 32), do_center_crop=False, orientation=orientation, **HALF)
        images, _ = collect(image_dataset(([path], [0]), processor=processor, batch_size=1))
        np.testing.assert_array_equal(images, processor(path))
