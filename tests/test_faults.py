"""Tests images that cannot be read: an error names each with the reason, or they are left out, counted and listed."""

import os
import threading
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from image_files import HALF, PROCESSOR, collect, encoded, pixels
from keras_bit import BitImageProcessor, HyperRule, image_dataset
from keras_bit.images import pillow_steps

GOOD = encoded(pixels(0, 60, 80))
# What the file holds (None: the file does not exist), and the expected message.
BROKEN = {
    "cut.jpg": (GOOD[: len(GOOD) // 2], "is a damaged image file; Pillow says: image file is truncated"),
    "header.jpg": (GOOD[:100], "is a damaged image file; Pillow says: "),
    "empty.jpg": (b"", "is empty."),
    "text.jpg": (b"not a image", "is not an image file that Pillow can read."),
    "deep.png": (encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"), "has the mode 'I;16', more than 8 bits"),
    "cut.png": (encoded(pixels(0), "PNG")[:900], "is a damaged image file; Pillow says: image file is truncated"),
    "wrong.png": (encoded(pixels(0), "PNG").replace(b"IDAT", b"JUNK"), "is not an image file that Pillow can read."),
    "missing.jpg": (None, "cannot be read: there is no such file. Check the path and its permissions."),
}
NO_FILE = BROKEN["missing.jpg"][1]


def write(folder, name):
    if BROKEN[name][0] is not None:
        (folder / name).write_bytes(BROKEN[name][0])
    return folder / name


def good(folder, count=4):
    paths = [folder / f"good{index}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(encoded(pixels(index, 30, 20)))
    return paths


def dataset(paths, labels=None, **options):
    labels = [0] * len(paths) if labels is None else labels
    return image_dataset((paths, labels), **{"processor": PROCESSOR, "batch_size": 3, **options})


@pytest.mark.slow
def test_a_jpeg_cut_in_the_middle_of_a_marker_ends_nothing(tmp_path):
    # On 5 of these 24, TensorFlow's decoder runs forever if it tries to recover the image.
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8))
    whole = encoded(noise, "JPEG", progressive=True, quality=90)
    start = whole.index(b"\xff\xda") + 20
    ends = range(start, len(whole) - 2, max(1, (len(whole) - start + 20) // 24))
    paths = [tmp_path / f"{end}.jpg" for end in ends]
    for path, end in zip(paths, ends, strict=True):
        path.write_bytes(whole[:end] + b"\xff")
    data = dataset([*good(tmp_path, 1), *paths], on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reading = threading.Thread(target=lambda: list(data), daemon=True)
        reading.start()
        reading.join(60)
    assert not reading.is_alive()
    begin = "is a damaged image file; Pillow says: "
    assert [line.split(begin)[0] for line in data.skipped] == [f"{path} " for path in paths]


@pytest.mark.parametrize("name", ["cut.jpg", "missing.jpg"])  # the others below
def test_a_broken_file_is_an_error_that_names_it_and_says_why(tmp_path, name):
    paths = good(tmp_path)
    data = dataset([*paths[:3], write(tmp_path, name), paths[3]])
    iterator = iter(data)
    np.testing.assert_array_equal(next(iterator)[0], PROCESSOR(paths[:3]))
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        next(iterator)
    assert f"{tmp_path / name} {BROKEN[name][1]}" in str(error.value)
    assert ". To leave such images out, pass on_error=\\'skip\\'." in str(error.value)
    assert "Mend" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_broken_files_are_left_out_counted_and_listed(tmp_path, training):
    paths, bad = good(tmp_path), [write(tmp_path, name) for name in BROKEN]
    mixed = [*bad[:3], paths[0], *bad[3:5], paths[1], paths[2], *bad[5:], paths[3]]
    options = {"training": True, "rule": HyperRule(100, 32), "seed": 0} if training else {}
    data = dataset(mixed, range(len(mixed)), on_error="skip", **options)
    assert data.skipped == []
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=f"^{len(bad)} of {len(mixed)} images were left out; the data set's"
        ) as seen:
            images, labels = collect(data)
        assert len(seen) == 1
        assert sorted(labels) == [mixed.index(path) for path in paths]
        if not training:
            np.testing.assert_array_equal(images, PROCESSOR(paths))
        assert len(data.skipped) == len(bad)
        for name, (_, reason) in BROKEN.items():
            [line] = [line for line in data.skipped if line.startswith(f"{tmp_path / name} ")]
            assert line.startswith(f"{tmp_path / name} {reason}")
            assert line in str(seen[0].message)


@pytest.mark.slow
def test_broken_images_do_not_change_the_augmentation_of_others(tmp_path):
    paths = good(tmp_path, 5)
    options = {"training": True, "rule": HyperRule(100, 32), "seed": 7, "on_error": "skip"}
    whole = dict(zip(*collect(dataset(paths, range(5), **options))[::-1], strict=True))
    paths[2].write_bytes(b"")
    with pytest.warns(UserWarning, match="1 of 5 images were left out"):
        images, labels = collect(dataset(paths, range(5), **options))
    assert sorted(labels) == [0, 1, 3, 4]
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_array_equal(image, whole[label])


@pytest.mark.slow
def test_more_broken_files_than_batches_and_none_but_broken_ones(tmp_path):
    [path] = good(tmp_path, 1)
    empty = [write(tmp_path, "empty.jpg")] * 133
    with pytest.warns(UserWarning, match=f"{2 * len(empty)} of {2 * len(empty) + 1} images"):
        _, labels = collect(dataset([*empty, path, *empty], range(2 * len(empty) + 1), on_error="skip"))
    assert labels.tolist() == [len(empty)]
    data = dataset(empty[:5], on_error="skip")
    with pytest.raises(tf.errors.InvalidArgumentError, match="5 of 5 images were left out") as error:
        next(iter(data))
    assert f"lists them: {empty[0]} is empty." in str(error.value)
    assert "Traceback" not in str(error.value)


@pytest.mark.slow
def test_a_long_list_is_cut_in_the_warning_and_whole_on_the_data_set(tmp_path):
    paths = [tmp_path / f"{index}.jpg" for index in range(14)] + good(tmp_path, 1)
    data = dataset(paths, on_error="skip")
    with pytest.warns(UserWarning, match="and 4 more$"):
        collect(data)
    assert len(data.skipped) == 14


def test_whole_files_give_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = dataset(good(tmp_path), on_error="skip")
        assert len(collect(data)[0]) == 4
    assert data.skipped == []


@pytest.mark.slow
def test_every_epoch_has_its_warning_under_pythons_own_filter(tmp_path):
    data = dataset([tmp_path / "missing.jpg", *good(tmp_path, 1)], on_error="skip")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            collect(data)
    assert [str(warning.message).split(";")[0] for warning in seen] == ["1 of 2 images were left out"] * 3


@pytest.mark.slow
def test_a_name_that_is_not_utf8_is_reported(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"caf\ufffd\.jpg cannot be read"):
        collect(dataset([os.fsdecode(path)]))
    data = dataset([os.fsdecode(path), *good(tmp_path, 1)], on_error="skip")
    with pytest.warns(UserWarning, match="1 of 2 images"):
        collect(data)
    assert data.skipped == [f"{os.fsdecode(path)} {NO_FILE}"]


@pytest.mark.slow
def test_a_directory_among_the_paths_is_reported(tmp_path):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{tmp_path} cannot be read: it is a directory"):
        collect(dataset([tmp_path]))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.slow
def test_pixels_of_a_stream_in_a_wrong_shape_are_reported_with_the_reason(training):
    shapes = [(4, 5, 2), (4, 5, 5), (0, 5, 3), (5, 0, 3), (4, 5, 3), (4, 5, 1), (4, 5, 4)]
    spec = (tf.TensorSpec([None, None, None], tf.uint8), tf.TensorSpec([], tf.int32))
    images = [(np.zeros(shape, np.uint8), label) for label, shape in enumerate(shapes)]
    stream = tf.data.Dataset.from_generator(lambda: iter(images), output_signature=spec)
    options = {"training": True, "rule": HyperRule(100, 32)} if training else {}
    data = image_dataset(stream, processor=PROCESSOR, batch_size=1, on_error="skip", **options)
    with pytest.warns(UserWarning, match="4 of 7 images were left out"):
        assert sorted(collect(data)[1]) == [4, 5, 6]
    assert sorted(data.skipped) == [
        "element 0 of `source` has the shape (4, 5, 2): it must have 1, 3 or 4 channels.",
        "element 1 of `source` has the shape (4, 5, 5): it must have 1, 3 or 4 channels.",
        "element 2 of `source` has the shape (0, 5, 3): it has no pixels.",
        "element 3 of `source` has the shape (5, 0, 3): it has no pixels.",
    ]


@pytest.mark.slow
def test_label_rows_of_a_stream_are_numbers_from_0_to_1():
    rows = np.array([[0, 1], [0, 2], [np.nan, 0], [-0.5, 1], [0.5, 0.5]], np.float32)
    stream = tf.data.Dataset.from_tensor_slices(([GOOD] * 5, rows))
    data = image_dataset(stream, processor=PROCESSOR, batch_size=1, on_error="skip")
    with pytest.warns(UserWarning, match="3 of 5 images were left out"):
        np.testing.assert_array_equal(collect(data)[1], rows[[0, 4]])
    assert "element 1 of `source` has the label [0. 2.], which is not a row of numbers in [0, 1]." in data.skipped


@pytest.mark.slow
def test_a_label_below_zero_is_left_out_if_the_classes_are_unknown():
    stream = tf.data.Dataset.from_tensor_slices(([GOOD, GOOD], [7, -5]))
    data = image_dataset(stream, processor=PROCESSOR, batch_size=1, on_error="skip")
    with pytest.warns(UserWarning, match="1 of 2 images were left out"):
        assert collect(data)[1].tolist() == [7]
    assert data.skipped == ["element 1 of `source` has the label -5, but labels begin at 0."]


@pytest.mark.slow
def test_images_of_one_pixel_are_images(tmp_path):
    paths = [tmp_path / name for name in ("1.png", "1.jpg", "1.bmp", "1.webp")]
    for path in paths:
        Image.new("RGB", (1, 1), (10, 200, 30)).save(path)
    np.testing.assert_array_equal(collect(dataset(paths))[0], PROCESSOR(paths))
    for options in ({}, {"random_resized_crop": True}):
        images, _ = collect(dataset(paths, training=True, rule=HyperRule(100, 32), **options))
        assert images.shape == (4, 128, 128, 3)


@pytest.mark.slow
def test_the_limit_on_pixels_is_pillows_and_adjustable(tmp_path, monkeypatch):
    path = tmp_path / "enormous.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"enormous.png: Image size .400000000 pixels. exceeds limit of 178956970"
    ):
        collect(dataset([path]))
    small = good(tmp_path, 1)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"good0.jpg has 30x20 pixels .*, more than `max_pixels`, 599"
    ):
        collect(dataset(small, max_pixels=599))
    assert len(collect(dataset(small, max_pixels=600))[0]) == 1
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"exceeds limit of 500 pixels"):
        collect(dataset(small))


@pytest.mark.slow
def test_a_thin_image_that_would_become_enormous_is_reported(tmp_path):
    path = tmp_path / "thin.png"
    Image.new("L", (60_000, 1)).save(path)
    processor = BitImageProcessor(size=224, crop_size=224, **HALF)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"thin.png of 1x60000 px would be resized to 224x13440000"
    ):
        collect(dataset([path], processor=processor))
    arrays = [np.zeros((1, 60_000, 3), np.uint8)]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"source\[0\]\[0\] of 1x60000 px would be resized to"):
        collect(dataset(arrays, processor=processor))


@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    "reason", [MemoryError("no memory"), OSError(5, "Input/output error"), RuntimeError("a camera")]
)
def test_errors_not_caused_by_an_image_end_the_data_set(tmp_path, monkeypatch, on_error, reason):
    paths = good(tmp_path, 3)
    broken = [write(tmp_path, "empty.jpg")] if on_error == "skip" else []
    preprocess = pillow_steps.preprocess

    def failing(name, *arguments):
        if name == str(paths[2]):
            raise reason
        return preprocess(name, *arguments)

    monkeypatch.setattr(pillow_steps, "preprocess", failing)
    data = dataset([*broken, *paths, paths[0]], on_error=on_error, batch_size=2)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        collect(data)
    told = f"Reading {paths[2]} failed, but not because of the image: {type(reason).__name__}: "
    assert f"{told}{reason}." in str(error.value).replace("\\", "")
    memory = "Read fewer images at the same time to use less memory: num_parallel_calls=1."
    assert (memory in str(error.value)) == isinstance(reason, MemoryError)
    assert "on_error" not in str(error.value)
    assert data.skipped == [f"{path} is empty. Replace or remove it." for path in broken]


@pytest.mark.slow
def test_a_line_break_in_a_name_is_escaped(tmp_path):
    path = tmp_path / "a\nb\u2028\x1b[1m.jpg"
    path.write_bytes(b"")
    data = dataset([path, *good(tmp_path, 1)], on_error="skip")
    with pytest.warns(UserWarning, match="1 of 2 images") as seen:
        collect(data)
    assert data.skipped == [f"{tmp_path}/a\\nb\\u2028\\x1b[1m.jpg is empty. Replace or remove it."]
    assert len(str(seen[0].message).splitlines()) == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"/a\\+nb.*\.jpg is empty"):
        collect(dataset([path]))


@pytest.mark.slow
def test_labels_outside_of_the_classes_are_left_out_or_named(tmp_path):
    paths = good(tmp_path)
    data = dataset(paths, [0, 5, 1, -1], class_names=["a", "b"], on_error="skip")
    with pytest.warns(UserWarning, match="2 of 4 images"):
        _, labels = collect(data)
    assert labels.tolist() == [0, 1]
    assert f"{paths[1]} has the label 5, which is not one of the 2 classes, [0, 2)." in data.skipped
    data = dataset(paths, ["a", "b", "c", "a"], class_names=["b", "a"], on_error="skip")
    with pytest.warns(UserWarning, match="1 of 4 images"):
        _, labels = collect(data)
    assert labels.tolist() == [1, 0, 1]
    stream = tf.data.Dataset.from_tensor_slices(([GOOD, GOOD, b""], [0, 2, 1]))
    for options, message in (
        ({"class_names": ["a", "b"]}, "element 1 of `source` has the label 2, which is not one of the 2 classes"),
        ({}, "element 2 of `source` is empty."),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            collect(image_dataset(stream, processor=PROCESSOR, batch_size=1, **options))
        assert message in str(error.value)


def record(image=GOOD, label=0, **features):
    """Returns a serialized `tf.Example`. Values are one or a list of bytes, int or float; `None` means no feature."""
    example = tf.train.Example()
    for name, value in {"image/encoded": image, "image/class/label": label, **features}.items():
        values = value if isinstance(value, list) else [value]
        kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
        if value is not None:
            getattr(example.features.feature[name], kinds[type(values[0])]).value.extend(values)
    return example.SerializeToString()


def write_raw_records(path, records, compression=""):
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type=compression)) as writer:
        for one in records:
            writer.write(one)
    return str(path)


def write_records(path, contents):
    return write_raw_records(path, [record(content) for content in contents])


@pytest.mark.slow
def test_a_record_is_named_by_its_file_and_number(tmp_path):
    path = str(tmp_path / "train.tfrecord")
    write_records(path, [GOOD, b"", GOOD])
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        collect(image_dataset(path, processor=PROCESSOR, batch_size=1))
    assert f"record 1 of {path} is empty." in str(error.value)


EXPECTED = "a tf.Example with one bytes value in 'image/encoded' and one int64 value in 'image/class/label'"
# A record that does not fit, and what is said of it: in its turn, and where it is the first.
MISFITS = {
    "no label": (
        record(label=None),
        "1 bytes in 'image/encoded' and no 'image/class/label'",
        "'image/encoded' (1 bytes)",
    ),
    "a float label": (
        record(label=1.5),
        "1 bytes in 'image/encoded' and 1 float in 'image/class/label'",
        "'image/class/label' (1 float), 'image/encoded' (1 bytes)",
    ),
    "two labels": (
        record(label=[1, 2]),
        "1 bytes in 'image/encoded' and 2 int64 in 'image/class/label'",
        "'image/class/label' (2 int64), 'image/encoded' (1 bytes)",
    ),
    "another name": (
        record(image=None, photo=GOOD),
        "no 'image/encoded' and 1 int64 in 'image/class/label'",
        "'image/class/label' (1 int64), 'photo' (1 bytes)",
    ),
    "no feature": (record(None, None), "no 'image/encoded' and no 'image/class/label'", "no feature"),
    "no example": (b"\xff\xfe no example", "bytes that are not a tf.Example", "bytes that are not a tf.Example"),
}


@pytest.mark.slow
def test_records_that_do_not_fit_are_named_with_what_they_have(tmp_path):
    misfits = [misfit for misfit, _, _ in MISFITS.values()]
    path = write_raw_records(tmp_path / "a.tfrecord", [record(label=2), *misfits, record(label=1)])
    lines = [
        f"record {number} of {path} is not {EXPECTED}, it has {found}."
        for number, (_, found, _) in enumerate(MISFITS.values(), start=1)
    ]
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        collect(image_dataset(path, processor=PROCESSOR, batch_size=1))
    assert lines[0].replace("'", "\\'") in str(error.value)
    data = image_dataset(path, processor=PROCESSOR, batch_size=1, on_error="skip")
    with pytest.warns(UserWarning, match=f"{len(lines)} of {len(lines) + 2} images were left out"):
        assert collect(data)[1].tolist() == [2, 1]
    assert data.skipped == lines


@pytest.mark.parametrize("case", MISFITS)
def test_files_whose_first_record_does_not_fit_are_refused_at_once(tmp_path, case):
    misfit, _, features = MISFITS[case]
    first = write_raw_records(tmp_path / "b.tfrecord", [misfit])
    for on_error in ("raise", "skip"):
        with pytest.raises(ValueError, match="`source` must hold records that are") as error:
            image_dataset(first, processor=PROCESSOR, batch_size=1, on_error=on_error)
        assert f"that are {EXPECTED}, got {features} in record 0 of {first}. Pass `image_column`" in str(error.value)


@pytest.mark.slow
def test_a_first_record_that_does_not_fit_is_left_out_if_others_fit(tmp_path):
    path = write_raw_records(tmp_path / "a.tfrec", [b"no example", record(label=3)])
    data = image_dataset(path, processor=PROCESSOR, batch_size=1, on_error="skip")
    with pytest.warns(UserWarning, match="1 of 2 images were left out"):
        assert collect(data)[1].tolist() == [3]


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
@pytest.mark.slow
def test_compressed_records_are_read_together_with_others(tmp_path, compression):
    paths = [
        write_raw_records(tmp_path / name, [record(label=label)], kind)
        for label, (name, kind) in enumerate([("a.tfrec", ""), ("b.tfrecord.gz", compression), ("c.tfrecords", "")])
    ]
    assert collect(image_dataset(paths, processor=PROCESSOR, batch_size=2))[1].tolist() == [0, 1, 2]


@pytest.mark.slow
def test_a_record_whose_length_looks_like_a_compression_is_read(tmp_path):
    lengths = [length for length in range(0x9C78 - 100, 0x9C78) if len(record(bytes(length))) == 0x9C78]
    path = write_records(tmp_path / "a.tfrecord", [GOOD + bytes(lengths[0] - len(GOOD))])
    with open(path, "rb") as file:
        assert file.read(2) == b"x\x9c"
    assert len(collect(image_dataset(path, processor=PROCESSOR, batch_size=1))[0]) == 1


@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.slow
def test_files_without_a_record_are_refused_at_once(tmp_path, compression):
    empty = write_raw_records(tmp_path / "a.tfrecord", [], compression)
    with pytest.raises(ValueError, match=r"must hold at least one image, got no record in .*a\.tfrecord"):
        image_dataset(str(tmp_path / "*.tfrecord"), processor=PROCESSOR, batch_size=1)
    one = write_records(tmp_path / "b.tfrecord", [GOOD])
    assert len(collect(image_dataset([empty, one], processor=PROCESSOR, batch_size=1))[0]) == 1


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.slow
def test_an_empty_stream_raises_an_error(training):
    stream = tf.data.Dataset.from_tensor_slices(([GOOD], [0])).filter(lambda image, label: label > 0)
    options = {"training": True, "rule": HyperRule(100, 32)} if training else {}
    for on_error in ("raise", "skip"):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="element 0 of `source` does not exist: `source` is empty"
        ):
            list(image_dataset(stream, processor=PROCESSOR, batch_size=1, on_error=on_error, **options))


@pytest.mark.slow
def test_errors_of_the_source_itself_are_not_left_out_unseen(tmp_path):
    path = tmp_path / "train.tfrecord"
    write_records(path, [GOOD] * 5)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        collect(image_dataset(str(path), processor=PROCESSOR, batch_size=1))
    damaged = "cannot be read: the file is damaged or truncated there, and the records after it"
    assert f"record 4 of {path} {damaged}" in str(error.value)

    def images():
        yield from [(GOOD, 0)] * 3
        raise RuntimeError("a camera that is switched off")

    types = (tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32))
    stream = tf.data.Dataset.from_generator(images, output_signature=types)
    with pytest.raises(tf.errors.InvalidArgumentError, match="element 3 of `source` cannot be read: `source`"):
        collect(image_dataset(stream, processor=PROCESSOR, batch_size=1))
    skipping = image_dataset(stream, processor=PROCESSOR, batch_size=1, on_error="skip")
    with pytest.warns(UserWarning, match="1 of 4 images were left out"):
        assert len(collect(skipping)[0]) == 3


@pytest.mark.parametrize("bad", [[3], [0, 3, 4, 6, 9]])
@pytest.mark.slow
def test_only_the_elements_that_a_source_fails_to_give_are_left_out(bad):
    def fails(contents, label):
        with tf.control_dependencies([tf.debugging.assert_none_equal(label, tf.constant(bad))]):
            return tf.identity(contents), label

    stream = tf.data.Dataset.from_tensor_slices(([GOOD] * 10, list(range(10)))).map(fails)
    data = image_dataset(stream, processor=PROCESSOR, batch_size=4, on_error="skip")
    with pytest.warns(UserWarning, match=f"{len(bad)} of 10 images were left out"):
        labels = np.concatenate([labels for _, labels in data.as_numpy_iterator()])
    assert labels.tolist() == [label for label in range(10) if label not in bad]
    assert [line.split(" cannot")[0] for line in data.skipped] == [f"element {label} of `source`" for label in bad]


@pytest.mark.slow
def test_a_label_of_64_bits_does_not_become_a_class_by_its_lower_half():
    stream = tf.data.Dataset.from_tensor_slices(([GOOD] * 2, np.array([0, 2**32], np.int64)))
    data = image_dataset(stream, processor=PROCESSOR, batch_size=1, class_names=["a", "b"])
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="element 1 of `source` has the label 2147483647, which is"
    ):
        list(data)
