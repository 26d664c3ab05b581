"""Tests how a directory or record files become training data: which images, which classes, which messages."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from image_files import make_folders, write_records
from keras_bit.data import splits

COUNTS = {"ant": 5, "bee": 10, "cat": 1}


def opened(data, **options):
    return splits.open_splits(data, **{"validation_share": 0.2, "seed": 0, **options})


def counts(part, classes=3):
    return None if part is None else np.bincount(part.labels, minlength=classes).tolist()


def png(side, value=0):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side + 8), (value, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def folders(tmp_path):
    make_folders(tmp_path / "data", COUNTS)
    return tmp_path / "data"


@pytest.fixture
def records(tmp_path):
    labels = [label for label, count in enumerate(COUNTS.values()) for _ in range(count)]
    (tmp_path / "records").mkdir()
    write_records(tmp_path / "records" / "a.tfrecord", [png(40, n) for n in range(8)], labels[:8])
    write_records(tmp_path / "records" / "b.tfrecord", [png(40, n) for n in range(8, 16)], labels[8:])
    return tmp_path / "records"


@pytest.fixture(params=["folders", "records"])
def data(request):
    return request.getfixturevalue(request.param)


# share: in training and in validation
@pytest.mark.parametrize(
    ("share", "train", "validation"),
    [(0.2, [4, 8, 1], [1, 2, 0]), (0.01, [4, 9, 1], [1, 1, 0]), (0.99, [1, 1, 1], [4, 9, 0]), (0, [5, 10, 1], None)],
)
def test_a_share_of_each_class_is_for_validation_and_never_all_of_it(data, share, train, validation):
    found = opened(data, validation_share=share)
    assert (counts(found.train), counts(found.validation)) == (train, validation)
    together = [*found.train.names, *(found.validation.names if found.validation else [])]
    assert len(set(together)) == len(together) == 16
    assert any("only one training image of" in note for note in found.notes)


def test_the_seed_decides_which(data):
    first, again, other = opened(data), opened(data), opened(data, seed=1)
    assert first.validation.names == again.validation.names != other.validation.names
    assert first.train.digest == again.train.digest != other.train.digest


@pytest.mark.parametrize("few", [1, 3])
def test_some_examples_of_each_class(data, few):
    found = opened(data, examples_per_class=few)
    assert counts(found.train) == [min(few, 4), min(few, 8), 1]
    assert counts(found.validation) == [1, 2, 0]
    fewer = [note for note in found.notes if note.startswith("There are fewer than 3 images of ")]
    assert len(fewer) == (few == 3)


def test_a_part_as_a_source_has_its_images_and_labels(records):
    found = opened(records).train
    images = list(found.everything.as_numpy_iterator())
    assert [label for _, label in images] == found.labels.tolist()
    assert [content for content, _ in images] == [file.read() for file in found.files(np.arange(len(found)))]
    every = opened(records, validation_share=0).train
    place = every.names.index(found.names[5])
    assert images[5][0] == png(40, place)


def test_folders_named_train_and_val_are_the_division(tmp_path):
    for part, of in (("train", COUNTS), ("val", {"bee": 2, "cat": 2}), ("test", {"ant": 1})):
        make_folders(tmp_path / part, of)
    found = opened(tmp_path)
    assert found.class_names == ("ant", "bee", "cat")
    assert [counts(part) for part in (found.train, found.validation, found.test)] == [[5, 10, 1], [0, 2, 2], [1, 0, 0]]


def test_a_test_set_validates_if_no_other_part_does(tmp_path):
    make_folders(tmp_path / "train", COUNTS), make_folders(tmp_path / "test", COUNTS)
    found = opened(tmp_path)
    assert found.validation is found.test
    assert counts(found.train) == [5, 10, 1]


def test_record_files_are_divided_by_their_names(tmp_path):
    for name, labels in (("train-00000-of-00002", [0, 1]), ("train-00001-of-00002", [2]), ("my_val.tfrecord", [1])):
        write_records(tmp_path / name, [png(40)] * len(labels), labels)
    found = opened(tmp_path, class_names=["x", "y", "z"])
    assert found.class_names == ("x", "y", "z")
    assert (counts(found.train), counts(found.validation)) == ([1, 1, 1], [0, 1, 0])
    found = opened(tmp_path / "train-*-of-00002", validation_share=0)
    assert (found.class_names, counts(found.train), found.validation) == (("0", "1", "2"), [1, 1, 1], None)


def test_messages_name_the_part_of_record_files_and_skipped_files(tmp_path):
    for name in ("pets-trainset.tfrecord", "pets-testset.tfrecord"):
        write_records(tmp_path / name, [png(40)] * 2, [0, 1])
    for name in ("labels.txt", "old.zip", ".hidden", "dogs/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = opened(tmp_path)
    assert (counts(found.train, 2), counts(found.test, 2)) == ([1, 1], [1, 1])
    assert list(found.notes[:4]) == [
        "train: 1 TFRecord file, pets-trainset.tfrecord",
        "test: 1 TFRecord file, pets-testset.tfrecord",
        f"Left out in {str(tmp_path)!r}: 1 .txt, 1 hidden, not unpacked: old.zip.",
        f"Left out: the folder dogs in {str(tmp_path)!r}.",
    ]


def test_the_typical_size_is_the_median(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    for number, side in enumerate((30, 40, 300)):
        (tmp_path / "a" / f"{number}.png").write_bytes(png(side))
    (tmp_path / "b" / "broken.png").write_bytes(b"no image")
    assert opened(tmp_path, validation_share=0).train.typical_size() == (48, 40)


def empty(tmp_path):
    make_folders(tmp_path / "train", {"a": 2, "b": 1}), make_folders(tmp_path / "val", {"a": 1, "c": 1})
    return tmp_path


REFUSED = {
    "no such": (
        lambda path: path / "none",
        FileNotFoundError,
        "`data` must be an existing directory, CSV file or TFRecord files",
    ),
    "one class": (
        lambda path: make_folders(path, {"a": 3}) and path,
        ValueError,
        "has only one class, 'a'",
    ),
    "another class": (empty, ValueError, r"has folders that '.*train' lacks: c\."),
    "no labels": (
        lambda path: write_records(path / "a.tfrecord", [png(40)], [1], label="other"),
        ValueError,
        r"a.tfrecord has no 'image/class/label' that is one int64, at the record 0 or up to 255 further on.",
    ),
    "negative": (
        lambda path: write_records(path / "a.tfrecord", [png(40)] * 2, [1, -7]),
        ValueError,
        "Labels in TFRecord files must count from 0, got -1.",
    ),
    "nothing": (
        lambda path: write_records(path / "a.tfrecord", [], []),
        ValueError,
        r"No record was found in .*a.tfr",
    ),
    "no train": (
        lambda path: make_folders(path / "val", {"a": 3, "b": 2}) and path,
        ValueError,
        "has the folder val, but no folder 'train' with training images.",
    ),
    "no train, but a test": (
        lambda path: (make_folders(path / "val", {"a": 3}), make_folders(path / "test", {"a": 3})) and path,
        ValueError,
        "has the folder test, val, but no folder 'train'",
    ),
    "test alone": (
        lambda path: write_records(path / "test.tfrecord", [png(40)] * 2, [0, 1]),
        ValueError,
        "has test images, but no training images.",
    ),
}


@pytest.mark.filterwarnings("ignore::keras_bit.data.folders.OneClass")
@pytest.mark.parametrize("case", REFUSED)
def test_data_that_cannot_be_trained_on_are_refused(tmp_path, case):
    prepare, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        opened(prepare(tmp_path))


def test_names_for_records_must_be_enough(records):
    with pytest.raises(ValueError, match=r"`class_names` must name all 3 classes in .*, got 2 names."):
        opened(records, class_names=["a", "b"])


@pytest.mark.parametrize("names", [None, ["background", "x", "y"]])
def test_labels_that_begin_at_1_are_said_to(tmp_path, names):
    write_records(tmp_path / "a.tfrecord", [png(40)] * 4, [1, 2, 1, 2])
    found = opened(tmp_path, class_names=names, validation_share=0)
    assert found.class_names == (tuple(names) if names else ("0", "1", "2"))
    assert counts(found.train) == [0, 2, 2]
    (note,) = found.notes
    assert note.startswith(
        f"The labels begin at 1, not at 0. The model gets an output for {found.class_names[0]} although"
    )
    with pytest.raises(ValueError, match=r"got 2 names. The labels begin at 1: renumber them from 0, or name the"):
        opened(tmp_path, class_names=["x", "y"])


def test_a_class_may_be_called_as_a_part_is(tmp_path):
    make_folders(tmp_path / "val" / "deeper", {"a": 2}), make_folders(tmp_path / "other", {"b": 2})
    assert opened(tmp_path).class_names == ("other", "val")


def test_a_damaged_record_file_is_named(records):
    file = records / "a.tfrecord"
    contents = bytearray(file.read_bytes())
    contents[40] ^= 255
    file.write_bytes(contents)
    with pytest.raises(ValueError, match=r"a.tfrecord is damaged, at the record 0 or up to 255 further on."):
        opened(records)
    assert isinstance(next(iter(tf.data.TFRecordDataset(str(records / "b.tfrecord")))), tf.Tensor)
