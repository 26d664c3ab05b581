"""Tests image_dataset: every kind of source gives the processor's values in order, or is refused at once."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from conftest import DATA, ROOT, absent
from image_files import HALF, PROCESSOR, collect, encoded, make_folders, pixels, write_records
from keras_bit import BitImageProcessor, HyperRule, image_dataset, versions
from keras_bit.data import folders as folders_module
from keras_bit.data import source, streams
from keras_bit.data.walk import LeftOut

RULE = HyperRule(100, 32)
ARRAYS = [pixels(index, 20 + index, 30) for index in range(7)]
LABELS = [0, 1, 2, 0, 1, 2, 1]


def dataset(source, **options):
    return image_dataset(source, **{"processor": PROCESSOR, "batch_size": 3, **options})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    directory = tmp_path_factory.mktemp("folders")
    return directory, make_folders(directory, {"cat": 4, "dog": 3, "Ant": 2})


def test_a_directory_gives_what_the_processor_gives_in_the_order_of_keras(folders):
    directory, files = folders
    data = dataset(directory)
    images, labels = collect(data)
    np.testing.assert_array_equal(images, PROCESSOR(files))
    reference = keras.utils.image_dataset_from_directory(directory, shuffle=False, verbose=False)
    assert list(map(str, files)) == reference.file_paths
    np.testing.assert_array_equal(labels, np.concatenate([labels for _, labels in reference.as_numpy_iterator()]))
    assert data.class_names == reference.class_names == ["Ant", "cat", "dog"]
    assert labels.dtype == np.int32
    assert len(data) == 3
    assert data.element_spec[0].shape.as_list() == [None, 24, 32, 3]


def test_a_directory_is_searched_at_any_depth_for_images_alone(tmp_path):
    inside = ["b/2.PNG", "b/deep/er/1.png", "b/.hidden.png", "b/.git/3.png", "b/notes.txt", "a/1.bmp", ".c/1.png"]
    for index, name in enumerate(inside):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(pixels(index), "BMP" if "bmp" in name else "PNG"))
    (tmp_path / "loose.png").write_bytes(encoded(pixels(9), "PNG"))
    with pytest.warns(UserWarning, match=r"Left out in '.*': 1 .txt, 3 hidden, 1 image next to the folders\."):
        data = dataset(tmp_path)
    images, labels = collect(data)
    assert data.class_names == ["a", "b"]
    assert labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(images, PROCESSOR([tmp_path / name for name in (inside[5], inside[0], inside[1])]))


def test_class_names_fix_the_order_of_folders_and_leave_the_others_out(folders):
    directory, files = folders
    data = dataset(str(directory), class_names=["dog", "Ant"])
    images, labels = collect(data)
    assert data.class_names == ["dog", "Ant"]
    assert labels.tolist() == [0] * 3 + [1] * 2
    np.testing.assert_array_equal(images, PROCESSOR(files[-3:] + files[:2]))


@pytest.mark.slow
def test_a_name_that_is_not_utf8_is_read(tmp_path):
    (tmp_path / "a").mkdir()
    path = os.fsencode(tmp_path / "a") + b"/caf\xe9.png"
    with open(path, "wb") as file:
        file.write(encoded(ARRAYS[0], "PNG"))
    with pytest.warns(UserWarning, match="has only one class, 'a'. Add a folder"):
        images, _ = collect(dataset(tmp_path))
    np.testing.assert_array_equal(images, PROCESSOR(ARRAYS[0]))


def paths_and_numbers(folder):
    paths = [folder / f"{index}.png" for index in range(len(ARRAYS))]
    for path, array in zip(paths, ARRAYS, strict=True):
        path.write_bytes(encoded(array, "PNG"))
    return paths, LABELS


def hugging_face_datasets():
    if importlib.util.find_spec("datasets") is None:
        absent("datasets is not installed: pip install -e '.[datasets]'")
    return importlib.import_module("datasets")


def hugging_face(folder, kind):
    datasets = hugging_face_datasets()
    paths, _ = paths_and_numbers(folder)
    values = {
        "images": [Image.fromarray(array) for array in ARRAYS],
        "image files": list(map(str, paths)),
        "paths": list(map(str, paths)),
        "bytes": [encoded(array, "PNG") + bytes(3) for array in ARRAYS],  # zeros at the end are kept, and harmless
    }[kind]
    feature = {"images": datasets.Image(), "image files": datasets.Image(), "bytes": datasets.Value("binary")}
    features = datasets.Features(
        {"image": feature.get(kind, datasets.Value("string")), "label": datasets.ClassLabel(names=["x", "y", "z"])}
    )
    return datasets.Dataset.from_dict({"image": values, "label": LABELS}, features=features)


def tensorflow_datasets(folder):
    if importlib.util.find_spec("tensorflow_datasets") is None:
        absent("tensorflow-datasets is not installed: pip install -e '.[tensorflow-datasets]'")
    import tensorflow_datasets as tfds

    class Photographs(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = "photographs"
        pkg_dir_path = folder  # where its metadata would be

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["x", "y", "z"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index, (array, label) in enumerate(zip(ARRAYS, LABELS, strict=True)):
                yield index, {"image": array, "label": label}

    builder = Photographs(data_dir=str(folder), file_format="tfrecord")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return builder


def records(folder):
    contents = [encoded(array, "PNG") for array in ARRAYS]
    write_records(folder / "b-00001-of-00002", contents[4:], LABELS[4:])
    write_records(folder / "a-00000-of-00002", contents[:4], LABELS[:4])
    return str(folder / "*-of-00002")


def stream_of_bytes(folder):
    contents = [encoded(array, "PNG") for array in ARRAYS]
    return tf.data.Dataset.from_tensor_slices((contents, LABELS))


def stream_of_pixels(folder):
    spec = {"photo": tf.TensorSpec([None, None, 3], tf.uint8), "kind": tf.TensorSpec([], tf.int64)}
    rows = [{"photo": array, "kind": label} for array, label in zip(ARRAYS, LABELS, strict=True)]
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=spec)


# What makes the source, options, the class names.
SOURCES = {
    "paths and numbers": (paths_and_numbers, {}, ["0", "1", "2"]),
    "paths and names": (
        lambda folder: (list(map(str, paths_and_numbers(folder)[0])), np.array(["x", "y", "z"])[LABELS]),
        {},
        ["x", "y", "z"],
    ),
    "arrays of many sizes": (lambda folder: (ARRAYS, np.array(LABELS)), {"class_names": list("xyz")}, ["x", "y", "z"]),
    "tf.data of bytes": (stream_of_bytes, {}, None),
    "tf.data of pixels": (
        stream_of_pixels,
        {"image_column": "photo", "label_column": "kind", "class_names": list("xyz")},
        ["x", "y", "z"],
    ),
    "TFRecords": (records, {"class_names": list("xyz")}, ["x", "y", "z"]),
    **{
        f"Hugging Face, {kind}": (lambda folder, kind=kind: hugging_face(folder, kind), {}, ["x", "y", "z"])
        for kind in ("images", "image files", "paths", "bytes")
    },
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.slow
def test_every_source_gives_the_processors_values_and_its_own_labels(kind, tmp_path):
    make, options, names = SOURCES[kind]
    data = dataset(make(tmp_path), **options)
    images, labels = collect(data)
    expected = np.concatenate([PROCESSOR(array, input_data_format="channels_last") for array in ARRAYS])
    np.testing.assert_array_equal(images, expected)
    assert labels.tolist() == LABELS
    assert data.class_names == names


@pytest.mark.parametrize("kind", ["arrays of many sizes", "TFRecords", "tf.data of pixels"])
@pytest.mark.slow
def test_training_gives_every_image_once_in_an_order_of_its_own(kind, tmp_path):
    make, options, _ = SOURCES[kind]
    # A row of the image's own number, to tell them apart after the augmentation.
    data = dataset(make(tmp_path), training=True, rule=RULE, seed=1, **options)
    epochs = [collect(data)[1].tolist() for _ in range(3)]
    assert all(sorted(labels) == sorted(LABELS) for labels in epochs)
    assert any(labels != LABELS for labels in epochs)
    assert len({tuple(labels) for labels in epochs}) > 1


def test_tensorflow_datasets_are_read_undecoded(tmp_path):
    builder = tensorflow_datasets(tmp_path)
    data = dataset(builder, split="train")
    images, labels = collect(data)
    assert data.class_names == ["x", "y", "z"]
    expected = [PROCESSOR(array, input_data_format="channels_last")[0] for array in ARRAYS]
    for image, label in zip(images, labels, strict=True):  # in its shuffled order
        [place] = [index for index, other in enumerate(expected) if np.array_equal(image, other)]
        assert LABELS[place] == label
    renamed = dataset(builder, split="train", class_names=["z", "y", "x"])
    assert (2 - collect(renamed)[1]).tolist() == labels.tolist()
    assert (
        collect(dataset(builder.as_dataset(split="train"), class_names=["x", "y", "z"]))[1].tolist() == labels.tolist()
    )
    with pytest.raises(ValueError, match="`split` must be one of 'train', got None"):
        dataset(builder)


def test_hugging_face_splits_orders_and_columns(tmp_path):
    rows = hugging_face(tmp_path, "images")
    import datasets

    shuffled = rows.shuffle(seed=1).rename_columns({"image": "img", "label": "fine"})
    data = dataset(
        datasets.DatasetDict(test=shuffled),
        split="test",
        image_column="img",
        label_column="fine",
        class_names=["z", "y", "x"],
    )
    images, labels = collect(data)
    assert labels.tolist() == [2 - label for label in shuffled["fine"]]
    expected = np.concatenate(
        [PROCESSOR(np.asarray(row["img"]), input_data_format="channels_last") for row in shuffled]
    )
    np.testing.assert_array_equal(images, expected)
    with pytest.raises(ValueError, match=r"`source` has no column 'image' and no 'label' among 'img', 'fine'. Pass"):
        dataset(shuffled)
    with pytest.raises(ValueError, match="`split` must be one of 'test', got 'train'"):
        dataset(datasets.DatasetDict(test=shuffled), split="train")
    with pytest.raises(
        ValueError, match="`class_names` must be names that `source` has, got 'w'; it has 'x', 'y', 'z'"
    ):
        dataset(rows, class_names=["x", "w"])
    with pytest.raises(ValueError, match=r"Labels must be one of 'x', 'y'.*got z for image 2, z for image 5 \(2 of 7"):
        dataset(rows, class_names=["x", "y"])


@pytest.mark.slow
def test_one_array_of_equal_images_gray_or_with_alpha(tmp_path):
    generator = np.random.default_rng(0)
    for channels in (1, 3, 4):
        arrays = generator.integers(0, 256, (5, 20, 30, channels), dtype=np.uint8)
        images, labels = collect(dataset((arrays, np.eye(5)[:, :4])))
        np.testing.assert_array_equal(images, PROCESSOR(arrays, input_data_format="channels_last"))
        np.testing.assert_array_equal(labels, np.eye(5, dtype=np.float32)[:, :4])
        training = collect(dataset((arrays, [0, 1, 2, 3, 4]), training=True, rule=RULE))[0]
        assert training.shape == (5, 128, 128, 3)
    mixed = [generator.integers(0, 256, (9, 9, channels), dtype=np.uint8) for channels in (1, 3, 4)]
    images, _ = collect(dataset((mixed, [0, 0, 1])))
    expected = np.concatenate([PROCESSOR(array, input_data_format="channels_last") for array in mixed])
    np.testing.assert_array_equal(images, expected)
    raw = BitImageProcessor(do_resize=False, do_center_crop=False)
    arrays = generator.integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    assert dataset((arrays, [0] * 5), processor=raw).element_spec[0].shape.as_list() == [None, 20, 30, 3]


TRAINING = {"training": True, "rule": HyperRule(30_000, 32), "class_names": list("abcdefg")}


@pytest.mark.parametrize("random_resized_crop", [False, True])
@pytest.mark.slow
def test_a_seed_decides_everything_and_every_epoch_is_new(random_resized_crop):
    options = {**TRAINING, "random_resized_crop": random_resized_crop}
    runs = []
    for calls in (1, 5):
        data = dataset((ARRAYS, range(7)), seed=3, num_parallel_calls=calls, **options)
        runs.append([collect(data) for _ in range(2)])
    for epoch, expected in zip(*runs, strict=True):
        np.testing.assert_array_equal(epoch[0], expected[0])
        np.testing.assert_array_equal(epoch[1], expected[1])
    assert not np.array_equal(runs[0][0][0], runs[0][1][0])
    other = collect(dataset((ARRAYS, range(7)), seed=4, **options))
    assert not np.array_equal(runs[0][0][0], other[0])
    unseeded = [collect(dataset((ARRAYS, range(7)), **options))[0] for _ in range(2)]
    assert not np.array_equal(*unseeded)


@pytest.mark.slow
def test_the_whole_order_is_shuffled_without_reading_a_image():
    # The files do not exist: the error names the first one of the shuffled order.
    names = [f"/nowhere/{index}.jpg" for index in range(5000)]
    first = set()
    data = dataset((names, [0] * 5000), training=True, rule=RULE, seed=0, num_parallel_calls=1)
    for _ in range(5):  # epochs, each in another order
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"/nowhere/\d+.jpg cannot be read") as error:
            next(iter(data))
        first.add(int(str(error.value).split("/nowhere/")[1].split(".jpg")[0]))
    assert len(first) == 5
    assert max(first) > 1000


AGES = np.array([20, 35.5, 61, 8, 44, 90, 33], np.float32)


@pytest.mark.parametrize("labels", [AGES, AGES.tolist(), AGES[:, None], np.stack([AGES, -AGES], axis=1)])
def test_floats_are_numbers_to_be_predicted(labels):
    data = dataset((ARRAYS, labels))
    np.testing.assert_array_equal(collect(data)[1], np.asarray(labels, np.float32))
    assert data.class_names is None
    assert data.element_spec[1].dtype == tf.float32


def test_floats_of_a_stream_are_targets_unless_not_finite():
    contents = [encoded(array, "PNG") for array in ARRAYS]
    stream = tf.data.Dataset.from_tensor_slices((contents, AGES))
    np.testing.assert_array_equal(collect(dataset(stream))[1], AGES)
    wrong = AGES.copy()
    wrong[2] = np.nan
    data = dataset((ARRAYS, wrong), on_error="skip")
    with pytest.warns(UserWarning, match="1 of 7 images were left out"):
        np.testing.assert_array_equal(collect(data)[1], np.delete(AGES, 2))
    assert data.skipped == ["source[0][2] has the label nan, which is not a finite number."]


@pytest.mark.slow
def test_mixup_mixes_numbers_as_it_mixes_classes():
    training = {"training": True, "rule": HyperRule(30_000, 32), "seed": 5, "batch_size": 7}
    mixed = collect(dataset((ARRAYS, AGES), **training))[1]
    rows = collect(dataset((ARRAYS, list("abcdefg")), **training))[1]
    np.testing.assert_allclose(mixed, rows @ AGES, rtol=1e-6)  # sums of two products in float32
    with pytest.raises(ValueError, match=r"`label_mode` must be None for labels that are numbers"):
        dataset((ARRAYS, AGES), label_mode="categorical")


def test_lists_of_names_are_rows_of_several_classes():
    data = dataset((ARRAYS[:3], [["odd"], ["odd", "large"], []]))
    assert data.class_names == ["large", "odd"]
    assert collect(data)[1].tolist() == [[0, 1], [1, 1], [0, 0]]
    data = dataset((ARRAYS[:2], [{"odd"}, ("large",)]), class_names=["odd", "small", "large"])
    assert collect(data)[1].tolist() == [[1, 0, 0], [0, 0, 1]]


def test_a_number_of_classes_has_to_be_known_for_mixup(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"`class_names` must be given for MixUp, CutMix and label_mode=.categorical., which need one-hot",
    ):
        dataset(stream_of_bytes(tmp_path), training=True, rule=TRAINING["rule"])


SHORT = BitImageProcessor(do_center_crop=False, **HALF)
BYTES = tf.data.Dataset.from_tensor_slices(([b"x"], [0]))
# Source, options, what the error says.
REFUSED = {
    "another source": (5, {}, "`source` must be a directory with a folder per class, a CSV file, a pair"),
    "no such directory": (
        "./nowhere",
        {},
        "`source` must be an existing directory, a CSV file or TFRecord files, got './nowhere'",
    ),
    "no such records": ("x-*.tfrecord", {}, "`source` names TFRecord files that do not exist: 'x-*.tfrecord'"),
    "lengths": ((ARRAYS, [0, 1]), {}, "a label for each image, got 7 images and 2 labels"),
    "no images": (([], []), {}, "must hold at least one image, got none"),
    "paths and arrays": ((["a.png", ARRAYS[0]], [0, 1]), {}, "only paths or only uint8 arrays, got ndarray and str"),
    "bytes": (([b"x"], [0]), {}, "only paths or only uint8 arrays, got bytes. Pass encoded images as bytes"),
    "a string as images": ((5, [0]), {}, "`source[0]` must be a list of paths or of uint8 arrays"),
    "float images": ((np.zeros((2, 4, 4, 3)), [0, 1]), {}, "`source[0][0]` must be uint8 (height, width, channels)"),
    "flat images": ((np.zeros((2, 4), np.uint8), [0, 1]), {}, "got uint8 (4,). Scale"),
    "two channels": (([np.zeros((4, 4, 2), np.uint8)], [0]), {}, "with 1, 3 or 4 channels, got uint8 (4, 4, 2)"),
    "float labels with names": ((ARRAYS, [0.5] * 7), {"class_names": ["a"]}, "which are numbers to predict and"),
    "nan": ((ARRAYS, [20.0] * 6 + [float("nan")]), {}, "Labels must be finite numbers, got nan for image 6 (1 of 7)"),
    "mixed labels": ((ARRAYS[:2], ["a", 1]), {}, "or floats for regression, got int and str."),
    "a label that is none": ((ARRAYS[:2], [1, None]), {}, "for regression, got NoneType and int."),
    "a column of labels": (
        (ARRAYS, np.array(LABELS)[:, None]),
        {},
        "Labels must be of the shape (count,), got a column, int64 (7, 1). Squeeze it: `numpy.squeeze(labels, axis=1)`",
    ),
    "a column of names": ((ARRAYS[:2], np.array([["a"], ["b"]])), {}, "got a column, <U1 (2, 1). Squeeze it"),
    "an unknown name among several": (
        (ARRAYS[:2], [["a"], ["a", "b"]]),
        {"class_names": ["a", "c"]},
        "Labels must be of `class_names` ('a', 'c'), got ['a', 'b'] for image 1",
    ),
    "no names at all": ((ARRAYS[:2], [[], []]), {}, "Labels must name at least one class"),
    "a row outside": (
        (ARRAYS, [[0.0, 7.0]] + [[0.0, 1.0]] * 6),
        {},
        "Labels must be rows of numbers in [0, 1], got [0. 7.]",
    ),
    "rows a little outside": ((ARRAYS, [[0.0, 1.005]] * 7), {}, "Labels must be rows of numbers in [0, 1], got [0."),
    "nan in rows": ((ARRAYS, [[0.0, float("nan")]] * 7), {}, "Labels must be rows of numbers in [0, 1], got [ 0. nan]"),
    "ragged rows": ((ARRAYS, [[0], [0, 1]] * 3 + [[0]]), {}, "got list of int, of different lengths"),
    "a name and lists": ((ARRAYS, ["a", ["a", "b"]] * 3 + [None]), {}, "got NoneType and list of str and str"),
    "no label": ((ARRAYS, [None] * 7), {}, "Labels must be whole numbers, strings, lists of strings, rows"),
    "truth": ((ARRAYS, [True] * 7), {}, "Labels must be whole numbers, strings, lists of strings, rows"),
    "a negative label": (
        (ARRAYS, [0] * 6 + [-1]),
        {},
        "Labels must be in [0, 1000000), got -1 for",
    ),
    "a label without end": (
        (ARRAYS, [0] * 6 + [2**31 - 1]),
        {},
        "Labels must be in [0, 1000000), got 2147483647 for image 6 (1 of 7)",
    ),
    "outside the names": (
        (ARRAYS, LABELS),
        {"class_names": ["a", "b"]},
        "Labels must be in [0, 2), as there are class names, got 2 for image 2, 2 for image 5 (2 of 7)",
    ),
    "an unknown name": ((ARRAYS, list("abcabcd")), {"class_names": list("abc")}, "got d for image 6 (1 of 7)"),
    "names for rows": ((ARRAYS, np.eye(7)), {"class_names": ["a"]}, "a name for each of the 7 numbers in a row of"),
    "one string of names": (
        (ARRAYS, LABELS),
        {"class_names": "cat"},
        "`class_names` must be a list of different strings",
    ),
    "names twice": ((ARRAYS, LABELS), {"class_names": ["a", "a"]}, "`class_names` must be a list of different strings"),
    "a split": ((ARRAYS, LABELS), {"split": "train"}, "`split` is for sources with several splits, got 'train' for"),
    "a column in a stream": (
        BYTES.map(lambda i, k: (i, k[None])),
        {},
        "a list of one, int32 (1,). Squeeze it in a `map`",
    ),
    "two channels in a stream": (
        tf.data.Dataset.from_tensor_slices((np.zeros((1, 4, 4, 2), np.uint8), [0])),
        {},
        "`source` must give images of 1, 3 or 4 channels, got uint8 (4, 4, 2)",
    ),
    "an empty stream": (BYTES.take(0), {}, "`source` must hold at least one image, got an empty data set"),
    "batched": (BYTES.batch(2), {}, "one image at a time, encoded (a scalar string) or uint8"),
    "images alone": (BYTES.map(lambda image, label: image), {}, "must give (bytes, label), or dictionaries"),
    "names in a stream": (
        BYTES.map(lambda image, label: (image, "a")),
        {},
        "labels that are whole numbers, floats, or",
    ),
    "names for floats": (BYTES.map(lambda i, k: (i, 0.5)), {"class_names": ["a"]}, "`class_names` must be None for"),
    "no column": (BYTES.map(lambda i, k: {"image": i, "x": k}), {}, "`source` has no 'label' among 'image', 'x'"),
    "batch_size": ((ARRAYS, LABELS), {"batch_size": 0}, ("`batch_size`", "at least 1", "0")),
    "max_pixels": ((ARRAYS, LABELS), {"max_pixels": 1.5}, ("`max_pixels`", "whole number", "1.5")),
    "max_pixels of pixels": (
        (ARRAYS, LABELS),
        {"max_pixels": 99},
        "`max_pixels` is for encoded images, got 99 for a",
    ),
    "an evaluation's random crop": (
        (ARRAYS, LABELS),
        {"random_resized_crop": True},
        "`random_resized_crop` is for training, got True with training=False",
    ),
    "seed": ((ARRAYS, LABELS), {"seed": "x"}, "`seed` must be a whole number or None, got 'x'"),
    "a long seed": (
        (ARRAYS, LABELS),
        {"seed": 2**63},
        "`seed` must be between -2**63 and 2**63, got 9223",
    ),
    "long max_pixels": ((ARRAYS, LABELS), {"max_pixels": 2**63}, "`max_pixels` must be below 2**63, got 9223"),
    "on_error": ((ARRAYS, LABELS), {"on_error": "stop"}, "`on_error` must be one of 'raise', 'skip', got 'stop'"),
    "no rule": ((ARRAYS, LABELS), {"training": True}, "Pass keras_bit.HyperRule(num_examples, image_size)"),
    "another rule": ((ARRAYS, LABELS), {"rule": 5}, "`rule` must be a keras_bit.HyperRule, got int"),
    "processor": ((ARRAYS, LABELS), {"processor": "x"}, "`processor` must be a BitImageProcessor, got str"),
    "gray": ((ARRAYS, LABELS), {"processor": BitImageProcessor(do_convert_rgb=False)}, "must have do_convert_rgb=True"),
    "many sizes": ((ARRAYS, LABELS), {"processor": SHORT}, "`processor` must make images of one size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_refused_before_an_image_is_read(case):
    source, options, message = REFUSED[case]
    expected = FileNotFoundError if case.startswith("no such") else ValueError
    with pytest.raises(expected) as error:
        dataset(source, **options)
    for fact in [message] if isinstance(message, str) else message:
        assert fact in str(error.value)


def test_a_long_scan_shows_how_far_it_is(tmp_path, monkeypatch, capsys):
    make_folders(tmp_path, {"a": 40, "b": 1})
    seconds, shown, scandir = [0.0], [], os.scandir

    @contextlib.contextmanager
    def slow(folder):
        def entries():
            for entry in scandir(folder):
                seconds[0] += 1  # of a clock that is not the machine's
                yield entry
                shown.append(capsys.readouterr().err)

        yield entries()

    with monkeypatch.context() as patch:
        patch.setattr("tqdm.std.time", lambda: seconds[0])
        patch.setattr(folders_module.os, "scandir", slow)
        paths, labels = folders_module.scan(tmp_path, ["a", "b"], LeftOut())
    assert labels.tolist() == [0] * 40 + [1]
    assert paths[:40] == [os.fsencode(tmp_path / "a" / f"{index:03d}.jpg") for index in range(40)]
    bars = [index for index, text in enumerate(shown) if f"scan {tmp_path}: " in text]
    assert bars[0] < 10  # of the one folder that is long


def test_folders_are_searched_in_keras_order_without_link_circles(tmp_path):
    for name in ("c/b/1.png", "c/b-x/1.png", "c/b.png", "c/a/2.png", "c/a/10.png", "c/a/1/z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(ARRAYS[0], "PNG"))
    (tmp_path / "c" / "circle").symlink_to(tmp_path / "c")
    left_out = LeftOut()
    paths, _ = folders_module.scan(tmp_path, ["c"], left_out)
    assert left_out.links == ["c/circle"]
    found = list(map(os.fsdecode, paths))
    if versions.is_older(keras.__version__, "3.13"):
        (tmp_path / "c" / "circle").unlink()  # 3.8 follows it
    reference = keras.utils.image_dataset_from_directory(tmp_path, shuffle=False, verbose=False)
    assert found == reference.file_paths


@pytest.mark.slow
def test_a_path_with_brackets_is_not_read_as_a_pattern(tmp_path):
    (tmp_path / "data [1]").mkdir()
    path = write_records(tmp_path / "data [1]" / "a*.tfrecord", [encoded(ARRAYS[0], "PNG")], [5])
    assert collect(dataset(path))[1].tolist() == [5]
    assert collect(dataset([path, path]))[1].tolist() == [5, 5]


@pytest.mark.parametrize("kind", ["paths", "bytes", "images"])
def test_rows_without_a_image_are_named(tmp_path, kind):
    rows = hugging_face(tmp_path, kind)
    table = rows.add_item({"image": None, "label": 0})
    data = dataset(table, on_error="skip")
    with pytest.warns(UserWarning, match="1 of 8 images were left out"):
        assert collect(data)[1].tolist() == LABELS
    missing = "which has no path, cannot be read: there is no such file. Check the path and its permissions."
    problem = missing if kind == "paths" else "is empty. Replace or remove it."
    assert [line.replace("`,", "`") for line in data.skipped] == [f"row 7 of `source` {problem}"]


@pytest.mark.parametrize("kind", ["numbers", "names", "classes", "rows"])
def test_rows_without_a_label_are_named_or_left_out(tmp_path, kind):
    rows = hugging_face(tmp_path, "bytes")
    import datasets

    values, feature = {
        "numbers": ([2, None, 0, 1, 2, None, 0], datasets.Value("int64")),
        "names": (["z", None, "x", "y", "z", None, "x"], datasets.Value("string")),
        "classes": ([2, None, 0, 1, 2, None, 0], datasets.ClassLabel(names=["x", "y", "z"])),
        "rows": ([[0.0, 1.0], None, [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], None, [1.0, 0.0]], None),
    }[kind]
    feature = feature or datasets.Sequence(datasets.Value("float32"))
    table = rows.remove_columns("label").add_column("label", values, feature=feature)
    data = dataset(table, on_error="skip")
    with pytest.warns(UserWarning, match="2 of 7 images were left out"):
        images, labels = collect(data)
    there = [index for index, value in enumerate(values) if value is not None]
    arrays = [PROCESSOR(ARRAYS[index], input_data_format="channels_last")[0] for index in there]
    np.testing.assert_array_equal(images, arrays)
    numbers = {"z": 2, "y": 1, "x": 0}
    expected = [numbers.get(values[index], values[index]) if kind == "names" else values[index] for index in there]
    assert labels.tolist() == expected
    assert data.skipped == [f"row {row} of `source` has no label." for row in (1, 5)]
    with pytest.raises(ValueError, match=r"must have a label in every row, got none in row 1, row 5 \(2 of 7\). Fill"):
        dataset(table)
    none = rows.remove_columns("label").add_column("label", [None] * 7, feature=feature)
    with pytest.raises(ValueError, match=r"got none in row 0, row 1, .*row 4 and 2 more \(7 of 7\)"):
        dataset(none, on_error="skip")


@pytest.mark.parametrize(
    ("labels", "kept"),
    [([0, 2**31 - 1, 1, -1, 1, 0, 0], [0, 1, 1, 0, 0]), ([[0.5, 2.0], *([[0.0, 1.0]] * 6)], [[0.0, 1.0]] * 6)],
    ids=["numbers", "rows"],
)
@pytest.mark.slow
def test_labels_outside_of_the_classes_are_left_out(labels, kept):
    data = dataset((ARRAYS, labels), on_error="skip")
    with pytest.warns(UserWarning, match="were left out"):
        found = [label for _, batch in data for label in batch.numpy().tolist()]
    assert found == kept
    assert len(data.class_names) == 2


def test_a_hugging_face_row_is_named_with_its_file(tmp_path):
    datasets = hugging_face_datasets()
    empty = tmp_path / "empty.jpg"
    empty.touch()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"image": [str(empty)], "label": [0]}, features=features)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"row 0 of `source`, {empty}, is empty\."):
        list(dataset(rows))
    with pytest.raises(ValueError, match="must be a Hugging Face data set that is not streamed"):
        dataset(rows.to_iterable_dataset())


def test_folders_that_do_not_name_classes_are_reported(tmp_path):
    with pytest.raises(ValueError, match=r"'.*' must hold a folder per class, but has none. Put the images into"):
        dataset(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"No folder in '.*' holds an image \(.jpg, .png, .tif"):
        dataset(tmp_path)
    (tmp_path / "b" / "1.png").write_bytes(encoded(ARRAYS[0], "PNG"))
    with pytest.warns(UserWarning, match="hold no image, but remain classes: a"):
        data = dataset(tmp_path, class_names=["a", "b"])
    assert data.class_names == ["a", "b"]
    assert collect(data)[1].tolist() == [1]
    with pytest.raises(
        ValueError, match=r"`class_names` must name folders in '.*'. It has no folder for 'c'; its folders are 'a', 'b'"
    ):
        dataset(tmp_path, class_names=["a", "c"])


@pytest.mark.parametrize(("drop_remainder", "expected"), [(False, [3, 3, 1]), (True, [3, 3])])
def test_the_last_batch_is_kept_or_left_out_and_the_length_is_known(drop_remainder, expected):
    data = dataset((ARRAYS, LABELS), drop_remainder=drop_remainder)
    assert [len(images) for images, _ in data] == expected
    assert len(data) == int(data.cardinality()) == len(expected)


def test_images_of_several_sizes_come_one_at_a_time():
    sizes = [images.shape for images, _ in dataset((ARRAYS, LABELS), processor=SHORT, batch_size=1)]
    assert sizes == [(1, *SHORT(array, input_data_format="channels_last").shape[1:]) for array in ARRAYS]


def test_import_keras_bit_does_not_import_tensorflows_half():
    heavy = ("keras_bit.data.pipeline", "keras_bit.data.sources", "datasets", "tensorflow_datasets")
    code = f"import sys, keras_bit; print([name for name in sys.modules if name in {heavy}])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.data
@pytest.mark.slow
def test_eighty_photographs_are_equal_to_the_array_path_in_every_value(photos):
    processor = BitImageProcessor(size=256, crop_size=224, **HALF)
    images, labels = collect(dataset((photos, range(len(photos))), processor=processor, batch_size=16))
    np.testing.assert_array_equal(images, processor(photos))
    assert labels.tolist() == list(range(len(photos)))


MEMORY = """
import resource, sys, keras_bit
rule = keras_bit.HyperRule(60_000, 32)
data = keras_bit.image_dataset(
    sys.argv[1], processor=keras_bit.BitImageProcessor(), batch_size=32, training=True, rule=rule, seed=0,
)
sizes, count = [], 0
for step, (images, labels) in enumerate(data):
    count += len(images)
    if step % int(sys.argv[2]) == int(sys.argv[2]) - 1:
        pages = int(open("/proc/self/statm").read().split()[1])
        sizes.append(pages * resource.getpagesize() >> 20)
print(count, *sizes)
"""


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("files", [10_000, pytest.param(60_000, marks=pytest.mark.release)])
def test_memory_stays_flat_over_many_files(tmp_path, files):
    if not os.path.exists("/proc/self/statm"):
        absent("the resident memory is read from /proc, which is Linux'")
    with tarfile.open(DATA / "cifar10.tar.xz") as tar:
        wanted = [member for member in tar if files == 60_000 or member.name.startswith("test")]
        tar.extractall(tmp_path, wanted, filter="data")
    test = tmp_path / "test"
    if files == 60_000:  # both halves under one root: a class per folder of either
        for folder in (tmp_path / "train").iterdir():
            folder.rename(test / f"train {folder.name}")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(test), str(files // 240)],  # every 1,312 or 8,000 files
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, *sizes = map(int, done.stdout.split())
    print(f"{count:,} files; resident memory in MiB at seven times: {sizes}")
    assert count == files
    assert max(sizes[1:]) - sizes[0] < 150  # MiB; 10,000 decoded images of 128x128 would be 1,900


def batches_of(source, count, **options):
    options = {"training": True, "rule": RULE, "seed": 3, "repeat": True, "batch_size": 4} | options
    return list(dataset(source, **options).take(count).as_numpy_iterator())


@pytest.fixture(scope="module")
def three_kinds(folders, tmp_path_factory):
    directory, files = folders
    contents, labels = [file.read_bytes() for file in files], [0, 0, 1, 1, 1, 1, 2, 2, 2]
    directory = tmp_path_factory.mktemp("records")
    return {
        "paths": (files, labels),
        "stream": tf.data.Dataset.from_tensor_slices((contents, labels)),
        "records": [
            write_records(directory / "a.tfrecord", contents[:5], labels[:5]),
            write_records(directory / "b.tfrecord", contents[5:], labels[5:]),
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["paths", "stream", "records"])
def test_an_endless_data_set_starts_at_any_step_and_splits_in_parts(three_kinds, kind):
    """Nine images in batches of four: batches go over the ends of epochs."""
    source = three_kinds[kind]
    whole = batches_of(source, 9)
    tf.random.set_seed(0)  # of the process: it has no part in this
    assert all(images.shape == (4, 128, 128, 3) for images, _ in whole)
    for first, later in zip(whole[5:], batches_of(source, 4, initial_step=5), strict=True):
        np.testing.assert_array_equal(first[0], later[0])
        np.testing.assert_array_equal(first[1], later[1])
    parts = [batches_of(source, 9, shard=(index, 2)) for index in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        for place in range(2):
            np.testing.assert_array_equal(batch[place], np.concatenate([share[place] for share in shares]))
    labels = np.concatenate([labels for _, labels in whole]).reshape(4, 9)
    assert [sorted(epoch) for epoch in labels.tolist()] == 4 * [[0, 0, 1, 1, 1, 1, 2, 2, 2]]  # each image, every epoch
    assert len(set(map(tuple, labels.tolist()))) > 1  # in another order
    again = batches_of(source, 1, seed=4)[0]
    assert not np.array_equal(whole[0][0], again[0])


@pytest.fixture
def process_seeds():
    """Sets the process's seed to several, one after the other, and in the end to none."""

    def each():
        for seed in (None, 12345):
            tf.random.set_seed(seed)
            yield

    yield each()
    tf.random.set_seed(None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["paths", "stream", "records"])
def test_the_seed_of_the_process_has_no_part_in_an_epoch(three_kinds, kind, process_seeds):
    options = {"training": True, "rule": RULE, "batch_size": 4}
    runs, unseeded = [], []
    for _ in process_seeds:
        data = dataset(three_kinds[kind], seed=3, **options)
        runs.append([collect(data) for _ in range(2)])
        tf.random.set_seed(12345)
        unseeded.append(collect(dataset(three_kinds[kind], **options)))
    for epoch, expected in zip(*runs, strict=True):
        np.testing.assert_array_equal(epoch[0], expected[0])
        np.testing.assert_array_equal(epoch[1], expected[1])
    # The augmentation differs in every epoch, and without a seed in every data set.
    assert len({images.tobytes() for images, _ in [*runs[0], *unseeded]}) == 2 + 2


def test_the_order_is_that_of_tensorflows_own_shuffle(process_seeds):
    data = tf.data.Dataset.range(50)
    for _ in process_seeds:
        found = source.shuffle(data, 20, 7)
        random = source.random_numbers(7).take(5)
        epochs = [[int(one) for one in epoch] for epoch in (found, found, random, random)]
        tf.random.set_seed(source.PROCESS_SEED)  # the process's seed, as if none was set
        own = data.shuffle(20, seed=7)
        random = tf.data.Dataset.random(7, rerandomize_each_iteration=True).take(5)
        assert epochs == [[int(one) for one in epoch] for epoch in (own, own, random, random)]
        assert epochs[0] != epochs[1]
        assert epochs[2] != epochs[3]


@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_stream_is_shuffled_in_windows(size):
    elements = tf.data.Dataset.range(40).map(lambda one: (one, [one]))
    orders = []
    for seed in ([1, 0], [1, 0], [1, 1]):
        found = streams.shuffled_in_windows(elements, tf.constant(seed, tf.int64), size)
        orders.append([int(one) for one, row in found.as_numpy_iterator() if row[0] == one])
    assert orders[0] == orders[1]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert max(abs(place - one) for place, one in enumerate(orders[0])) < max(size // 2, 1)
    assert (orders[0] != orders[2]) == (size > 3)
    assert (orders[0] != sorted(orders[0])) == (size > 3)


def test_a_stream_that_has_another_order_each_time_is_read_once():
    elements = tf.data.Dataset.range(40).shuffle(40)
    for number in range(5):
        found = streams.shuffled_in_windows(elements, tf.constant([0, number], tf.int64), 20)
        assert sorted(map(int, found)) == list(range(40))


def test_an_endless_data_set_says_that_it_is():
    data = dataset((ARRAYS, LABELS), training=True, rule=RULE, repeat=True)
    assert int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    assert data.element_spec[0].shape.as_list() == [3, 128, 128, 3]


@pytest.mark.parametrize(
    ("mode", "dtype", "rank"), [(None, tf.int32, 1), ("int", tf.int32, 1), ("categorical", tf.float32, 2)]
)
@pytest.mark.slow
def test_labels_are_numbers_or_rows_as_asked_for(mode, dtype, rank):
    data = dataset((ARRAYS, LABELS), label_mode=mode, batch_size=1)
    assert (data.element_spec[1].dtype, data.element_spec[1].shape.rank) == (dtype, rank)
    labels = np.concatenate([labels for _, labels in data.as_numpy_iterator()])
    np.testing.assert_array_equal(labels if rank == 1 else labels.argmax(1), LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeat": True}, "`repeat` must be False for evaluation and with on_error='skip'"),
        ({"repeat": True, "training": True, "on_error": "skip"}, "got True with training=True and on_error='skip'"),
        ({"initial_step": 2}, r"`initial_step` and `shard` are for repeat=True, got initial_step=2, shard=\(0, 1\)."),
        ({"initial_step": -1}, "`initial_step` must be a whole number of at least 0, got -1."),
        ({"shard": (2, 2)}, r"`shard` must be \(index, count\) with 0 <= index < count, got \(2, 2\)."),
        (
            {"shard": (0, 2), "repeat": True, "training": True},
            "`batch_size` must be a multiple of the 2 parts of `shard`, got 3.",
        ),
        (
            {"label_mode": "binary"},
            "`label_mode` must be one of None, 'int', 'categorical', 'numbers', 'unlabeled', got",
        ),
        (
            {"label_mode": "int", "training": True, "rule": HyperRule(20_000, 32)},
            "`label_mode` must be None or 'categorical' for MixUp, which mixes labels, got 'int'.",
        ),
    ],
)
def test_impossible_ways_of_repeating_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dataset((ARRAYS, LABELS), **{"rule": RULE, **options})
