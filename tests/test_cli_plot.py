"""Tests `keras-bit plot` as a user runs it: the same sheet for the same seed, and wrong data."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import TINY, run
from image_files import encoded, make_folders, pixels


def plot(capsys, *arguments):
    return run(capsys, "plot", *arguments)


@pytest.fixture
def folders(tmp_path) -> Path:
    make_folders(tmp_path / "data", {"cat": 5, "dog": 4})
    return tmp_path / "data"


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("--num-examples", "20000"), marks=pytest.mark.slow),
        pytest.param(("--random-resized-crop",), marks=pytest.mark.slow),
        ("--evaluation", "--weights", str(TINY)),
    ],
)
@pytest.mark.slow
def test_a_batch_is_drawn_and_the_same_one_for_the_same_seed(capsys, folders, options):
    sheets = []
    for name in ("1.png", "2.png"):
        out = folders.parent / name
        code, printed, _ = plot(capsys, folders, "--out", out, "--seed", "3", "--batch-size", "6", *options)
        assert code == 0
        with Image.open(out) as image:
            assert image.format == "PNG"
            assert printed == f"{out}: 6 images, {image.width}x{image.height} px\n"
            sheets.append(np.asarray(image))
    np.testing.assert_array_equal(*sheets)
    assert sorted(path.name for path in folders.parent.iterdir()) == ["1.png", "2.png", "data"]


@pytest.mark.slow
def test_broken_images_are_named_and_the_others_drawn(capsys, folders):
    broken = folders / "cat" / "000.jpg"
    broken.write_bytes(b"no image")
    out = folders.parent / "sheet.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a line each, and not a second time
        code, printed, err = plot(capsys, folders, "--out", out, "--seed", "0")
    assert code == 1
    assert "8 images" in printed
    assert err.startswith(f"keras-bit plot: {broken} is ")
    assert out.exists()


@pytest.mark.parametrize(("data", "out", "named"), [("nowhere", "sheet.png", "'nowhere'"), (".", "no/x.png", "--out")])
def test_without_data_or_a_place_it_is_one_line_and_exit_code_1(capsys, data, out, named):
    code, printed, err = plot(capsys, data, "--out", out)
    assert (code, printed) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("keras-bit plot: ")
    assert named in line


def records(path: Path, labels: list) -> str:
    """Writes a TFRecord file of images with these labels, whole numbers or floats."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, label in enumerate(labels):
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(encoded(pixels(number)))
            stored = example.features.feature["image/class/label"]
            (stored.float_list if isinstance(label, float) else stored.int64_list).value.append(label)
            writer.write(example.SerializeToString())
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("in_a_file", [False, True])
def test_records_are_mixed_up_with_class_names(capsys, tmp_path, in_a_file):
    data, names = records(tmp_path / "a.tfrecord", [0, 1, 1]), "cat, dog"
    if in_a_file:
        (tmp_path / "names.txt").write_text("cat\ndog\n\n")
        names = str(tmp_path / "names.txt")
    out = tmp_path / "sheet.png"
    options = ("--num-examples", "20000", "--out", out)
    code, printed, err = plot(capsys, data, "--class-names", names, *options)
    assert (code, err) == (0, "")
    assert printed.startswith(f"{out}: 3 images")
    code, _, err = plot(capsys, data, *options)
    assert code == 1
    assert "--class-names" in err
    assert "MixUp" in err


@pytest.mark.parametrize("options", [(), ("--evaluation",)])
def test_the_named_folders_of_a_directory_are_taken_and_one_is_enough(capsys, folders, options):
    out = folders.parent / "sheet.png"
    with warnings.catch_warnings(action="error", category=UserWarning):
        code, printed, err = plot(capsys, folders, "--class-names", "dog", "--out", out, *options)
    assert (code, err) == (0, "")
    assert "4 images" in printed


def test_the_number_of_records_must_be_given(capsys, tmp_path):
    data = records(tmp_path / "a.tfrecord", [0])
    code, _, err = plot(capsys, data, "--out", tmp_path / "sheet.png")
    assert code == 2
    assert "--num-examples" in err


def test_a_missing_processor_is_bits_own_but_a_missing_checkpoint_fails(capsys, folders):
    (folders.parent / "bare").mkdir()
    out = folders.parent / "sheet.png"
    arguments = (folders, "--out", out, "--evaluation", "--batch-size", "1", "--weights")
    code, _, err = plot(capsys, *arguments, folders.parent / "bare")
    assert code == 0
    assert all(fact in err for fact in ("no preprocessor_config.json", "google/bit-50", "448x448 px"))
    out.unlink()
    code, _, err = plot(capsys, *arguments, folders.parent / "nowhere")
    assert code == 1
    assert str(folders.parent / "nowhere") in err
    assert not out.exists()


def no_image(tmp_path: Path) -> str:
    for name in ("cät", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.jpg").write_bytes(b"")
    return str(tmp_path / "data")


# What makes the data, options, what the line says.
FAILING = {
    "no image": (no_image, ("--num-examples", "2", "--image-size", "9x9"), "2 of 2 images"),
    "no image in the first place": (no_image, (), "cät/1.jpg is empty."),
    "float labels": (lambda folder: records(folder / "a.tfrecord", [0.5]), ("--num-examples", "1"), "1 float"),
    "no record": (lambda folder: records(folder / "a.tfrecord", []), ("--num-examples", "1"), "no record"),
    "a random crop of an evaluation": (
        lambda folder: records(folder / "a.tfrecord", [0]),
        ("--evaluation", "--random-resized-crop"),
        "--random-resized-crop",
    ),
}


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.slow
def test_every_error_during_the_run_gives_one_line_and_exit_code_1(capsys, caplog, tmp_path, case):
    make, options, fact = FAILING[case]
    code, printed, err = plot(capsys, make(tmp_path), "--out", tmp_path / "sheet.png", *options)
    assert (code, printed) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("keras-bit plot: ")
    assert fact in line
    assert "AutoGraph" not in caplog.text
    assert not any(noise in line for noise in ("Traceback", "{{", "assertion failed", "Op:"))
    assert not (tmp_path / "sheet.png").exists()
