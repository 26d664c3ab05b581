"""Tests what keras_bit does without TensorFlow, and the error where it needs it.

    KERAS_BACKEND=jax pytest tests/stacks/without_tensorflow.py

The name does not begin with `test_`, so that a normal run leaves it out. `make test-stack STACK=jax` runs it in an
environment without TensorFlow, and `tests/test_without_tensorflow.py` in a process that cannot import TensorFlow.
"""

import importlib.util
import json
import os
import pickle
import signal
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_bit
from keras_bit.cli.main import main

TINY = Path(__file__).resolve().parent.parent / "checkpoints" / "bit-tiny-cifar10"
CLASSES = ("airplane", "bird", "cat")
# Float32 sums in another order; probabilities are at most 1.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def model():
    return keras_bit.from_pretrained(TINY)


@pytest.fixture(scope="module")
def processor():
    return keras_bit.BitImageProcessor.from_pretrained(TINY)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Makes a folder for each class with six images, which are bright in another channel for each class."""
    directory = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for channel, name in enumerate(CLASSES):
        (directory / name).mkdir()
        for number in range(6):
            array = generator.integers(0, 90, (40, 50, 3), dtype=np.uint8)
            array[..., channel] += 150
            Image.fromarray(array).save(directory / name / f"{number}.png")
    return directory


def dataset(photos, processor, **options):
    return keras_bit.image_dataset(photos, processor=processor, batch_size=4, **options)


def paths(photos):
    return [photos / name / f"{number}.png" for name in CLASSES for number in range(6)]


def run(*arguments):
    return main(list(map(str, arguments)))


def test_tensorflow_is_not_there():
    assert importlib.util.find_spec("tensorflow") is None
    assert keras.backend.backend() != "tensorflow"


def test_it_loads_predicts_fuses_saves_and_loads_again(tmp_path, model, processor):
    pixel_values = processor([np.full((40, 50, 3), 90, np.uint8)])
    scores = model.predict(pixel_values, verbose=0)
    np.testing.assert_allclose(scores.sum(), 1, atol=1e-4)
    np.testing.assert_allclose(keras_bit.fuse(model).predict(pixel_values, verbose=0), scores, **CLOSE)
    keras_bit.save_pretrained(model, tmp_path / "saved", processor)
    model.save(tmp_path / "model.keras")
    for source in (tmp_path / "saved", tmp_path / "model.keras"):
        again = keras_bit.from_pretrained(source)
        np.testing.assert_allclose(again.predict(pixel_values, verbose=0), scores, **CLOSE)


def test_a_folder_is_read_as_the_processor_reads_it(photos, processor):
    data = dataset(photos, processor)
    assert isinstance(data, keras.utils.PyDataset)
    assert data.class_names == list(CLASSES)
    assert len(data) == 5
    images, labels = (np.concatenate(part) for part in zip(*data, strict=True))
    np.testing.assert_array_equal(images, processor(paths(photos)))
    assert labels.tolist() == [label for label in range(3) for _ in range(6)]


def test_a_seed_decides_and_every_epoch_is_new(photos, processor):
    options = {"training": True, "rule": keras_bit.HyperRule(20_000, 32), "seed": 3}
    runs = [dataset(photos, processor, **options) for _ in range(2)]
    epochs = [[list(data) for _ in range(2)] for data in runs]
    for first, second in zip(epochs[0], epochs[1], strict=True):
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
            assert one[0].shape[1:] == (128, 128, 3)
            np.testing.assert_allclose(one[1].sum(axis=1), 1, atol=1e-6)  # mixed
    assert not np.array_equal(epochs[0][0][0][0], epochs[0][1][0][0])


def test_an_endless_one_goes_on_at_any_step_and_in_parts(photos, processor):
    options = {"training": True, "rule": keras_bit.HyperRule(100, 32), "seed": 3, "repeat": True}
    whole = dataset(photos, processor, **options)
    assert whole.num_batches is None
    batches = [whole[number] for number in range(9)]
    later = dataset(photos, processor, initial_step=5, **options)
    parts = [dataset(photos, processor, shard=(index, 2), **options) for index in range(2)]
    for number in range(4):
        np.testing.assert_array_equal(batches[5 + number][0], later[number][0])
        for place in range(2):
            np.testing.assert_array_equal(
                batches[number][place], np.concatenate([part[number][place] for part in parts])
            )
    labels = np.concatenate([labels for _, labels in batches]).reshape(2, 18)
    assert [sorted(epoch) for epoch in labels.tolist()] == [sorted([0, 1, 2] * 6)] * 2


def test_an_image_that_cannot_be_read_is_named_or_left_out(tmp_path, processor):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        Image.new("RGB", (9, 9)).save(file)
    files[1].write_bytes(b"no image")
    source = ([*map(str, files)], [0, 1, 2])
    with pytest.raises(ValueError, match=rf"{files[1]} is not an image file that Pillow can read\. .* To leave such"):
        list(dataset(source, processor))
    for size, expected in ((1, [[0], [2]]), (2, [[0, 2]])):  # batches are full, none is empty
        with pytest.warns(UserWarning, match="1 of 3 images were left out"):
            data = keras_bit.image_dataset(source, processor=processor, batch_size=size, on_error="skip")
        assert len(data) == len(expected)
        assert [labels.tolist() for _, labels in data] == expected
    assert data.skipped == [
        f"{files[1]} is not an image file that Pillow can read. Convert it to JPEG or PNG, or remove it."
    ]


def test_a_forked_process_and_a_copy_read_on(photos, processor):
    data = dataset(photos, processor)
    expected = data[1][0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[1][0], expected)
    if not hasattr(os, "fork"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX has threads, and says what may come of it
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if np.array_equal(data[1][0], expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_fine_tune_takes_the_data_set(photos, processor):
    model = keras_bit.from_pretrained(TINY)
    model = keras_bit.BiT(model.config, classes=3)
    rule = keras_bit.HyperRule(18, 32, batch_size=6, steps=4)
    train = keras_bit.image_dataset(photos, processor=processor, batch_size=6, training=True, rule=rule, seed=0)
    validation = dataset(photos, processor, label_mode="categorical", recipe=keras_bit.Recipe(rule))
    history = keras_bit.fine_tune(model, train, validation, rule=rule, steps_per_epoch=2, verbose=0)
    assert len(history.history["loss"]) == 2
    assert np.isfinite(history.history["val_loss"]).all()


def test_the_commands_work_on_folders(tmp_path, photos, capsys):
    assert run("evaluate", photos, "--weights", TINY, "--out", tmp_path / "report") == 0
    assert json.loads((tmp_path / "report" / "report.json").read_text())["images"] == 18
    arguments = ("finetune", photos, "--weights", TINY, "--out", tmp_path / "out", "--steps", 4, "--batch-size", 6)
    assert run(*arguments, "--evaluate-every", 2) == 0, capsys.readouterr().err
    assert keras_bit.from_pretrained(tmp_path / "out").config.id2label == dict(enumerate(CLASSES))
    image = photos / "bird" / "0.png"
    assert run("classify", image, "--weights", tmp_path / "out") == 0
    assert run("explain", image, "--weights", tmp_path / "out", "--out", tmp_path / "map.png") == 0
    assert run("plot", photos, "--weights", TINY, "--out", tmp_path / "sheet.png") == 0
    assert run("info", "--weights", TINY) == 0
    if importlib.util.find_spec("pyarrow") is not None:
        assert run("embed", photos, "--weights", TINY, "--out", tmp_path / "embedded") == 0
        assert len(list((tmp_path / "embedded").glob("*.parquet"))) == 1


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_bit_is_exported_without_it(tmp_path, model, format):
    for package in {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}[format]:
        pytest.importorskip(package)
    report = keras_bit.export(model, tmp_path / f"bit.{'xml' if format == 'openvino' else format}", format)
    assert report.max_abs_diff <= report.limit


# The call, and the beginning of the message.
NEEDING = {
    "saved_model": "`format` 'saved_model' needs the package tensorflow, which is not installed. Install it with",
    "tflite": "`format` 'tflite' needs the package tensorflow",
    "graph": "engine='graph' needs the package tensorflow",
    "records": "Reading TFRecord files needs the package tensorflow",
    "tf_preprocess": "`tf_preprocess`, which makes a graph of TensorFlow's operations, needs the package tensorflow",
}


@pytest.mark.parametrize("case", NEEDING)
def test_functions_that_need_tensorflow_raise_an_error_that_says_so(tmp_path, model, processor, photos, case):
    calls = {
        "graph": lambda: dataset(photos, processor, engine="graph"),
        "records": lambda: dataset("train.tfrecord", processor),
        "tf_preprocess": lambda: processor.tf_preprocess(b""),
    }
    call = calls.get(case, lambda: keras_bit.export(model, tmp_path / "out", case))
    with pytest.raises(ImportError, match=NEEDING[case].replace("(", r"\(")):
        call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "source", [7, ([b"bytes"], [0]), ((b"bytes",), [0]), (7, [0]), (["/9j/4AAQSkZJRgABAQ" + "A" * 300], [0])]
)
def test_no_message_advises_what_is_not_there(processor, source):
    with pytest.raises(ValueError, match="`source") as caught:
        dataset(source, processor)
    assert "tf.data" not in str(caught.value)
    assert "TF" not in str(caught.value)


def test_training_on_arrays_is_refused_with_what_makes_a_data_set_of_them(model):
    rule = keras_bit.HyperRule(18, 32, batch_size=6, steps=4)
    with pytest.raises(ValueError, match=r"keras.utils.PyDataset of \(images, labels\)") as caught:
        keras_bit.fine_tune(model, np.zeros((6, 128, 128, 3), np.float32), rule=rule)
    assert "tf.data" not in str(caught.value)


def test_a_command_says_what_needs_tensorflow(tmp_path, capsys):
    assert run("export", "--weights", TINY, "--out", tmp_path / "served") == 1
    err = capsys.readouterr().err
    assert "needs the package tensorflow, which is not installed. Install it with `pip install tensorflow`" in err
    assert "Traceback" not in err
    (tmp_path / "a.tfrecord").write_bytes(b"")
    for arguments in (("finetune", "--out", tmp_path / "out"), ("evaluate",)):
        assert run(arguments[0], tmp_path / "a.tfrecord", "--weights", TINY, *arguments[1:]) == 1
        assert "Reading TFRecord files needs the package tensorflow" in capsys.readouterr().err


def test_tensorflow_was_not_imported():
    import sys

    assert sys.modules.get("tensorflow") is None
