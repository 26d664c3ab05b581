"""Tests `keras-bit evaluate` as a user runs it: tables, report, images, class maps, and wrong data."""

import json

import keras
import pytest
import tensorflow as tf
from PIL import Image

from command_line import TINY, copy_of_tiny, open_tiny_once, tiny, tiny_processor
from command_line import run as run_command
from conftest import needs_matplotlib
from image_files import encoded, make_folders, pixels
from keras_bit import BiT, BitConfig, BitImageProcessor, save_pretrained
from keras_bit.drawing import charts
from keras_bit.evaluation import class_map
from keras_bit.images import processor

SMALL = {"embedding_size": 16, "hidden_sizes": (32,), "depths": (1,), "num_groups": 4}


@pytest.fixture(autouse=True)
def once(monkeypatch):
    open_tiny_once(monkeypatch)


def run(capsys, *arguments, weights=TINY):
    return run_command(capsys, "evaluate", *arguments, "--weights", weights)


@pytest.fixture
def animals(tmp_path):
    make_folders(tmp_path / "animals", {"cat": 5, "dog": 4, "frog": 3})
    return tmp_path / "animals"


def answers(files):
    model, processor = tiny(), tiny_processor()
    return [model.config.id2label[int(keras.ops.argmax(model(processor(str(file)))[0]))] for file in files]


def test_the_report_is_what_the_model_says_of_every_file(capsys, animals):
    code, out, err = run(capsys, animals, "--json", "--batch-size", "5")
    assert (code, err) == (0, "")
    report = json.loads(out)
    files = sorted(animals.glob("*/*.jpg"))
    said = answers(files)
    right = [label == file.parent.name for label, file in zip(said, files, strict=True)]
    assert (report["images"], report["classes"], report["classes_that_occur"]) == (12, 10, 3)
    assert report["right"] == sum(right)
    assert report["top_k"] == 5
    assert sum(row["count"] for row in report["confusions"]) == 12 - sum(right)
    wrong = {f"{file.parent.name}/{file.name}": label for label, file in zip(said, files, strict=True)}
    assert {row["name"]: row["predicted"] for row in report["worst"]}.items() <= wrong.items()
    assert len(report["worst"]) == 12 - sum(right)


def test_the_command_prints_tables_and_writes_files(capsys, animals, tmp_path):
    needs_matplotlib()
    out_directory = tmp_path / "report"
    code, out, err = run(capsys, animals, "--out", out_directory)
    assert (code, err) == (0, "")
    report = json.loads((out_directory / "report.json").read_text())
    low, high = report["top_1_interval"]
    for words in (
        "12 ",
        "10 of the model, 3 of the data",
        f"{report['top_1_accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%})",
        f"{report['calibration']['expected_calibration_error']:.2%}",
        "most often confused with",
        "per class",
    ):
        assert words in out
    names = ["report.json", "worst.png", "confusion.png", "calibration.png"]
    assert out.splitlines()[-4:] == [str(out_directory / name) for name in names]
    assert sorted(path.name for path in out_directory.iterdir()) == sorted(names)
    for name in names[1:]:
        with Image.open(out_directory / name) as image:
            assert image.format == "PNG"


@pytest.mark.slow
def test_without_matplotlib_it_says_at_the_start_what_is_left_out(capsys, animals, tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "available", lambda: False)
    code, _, err = run(capsys, animals, "--out", tmp_path / "report", "--json")
    assert code == 0
    first, *files = err.splitlines()
    assert all(fact in first for fact in ("matplotlib", "confusion.png", "calibration.png", "keras_bit[plots]"))
    assert files == [str(tmp_path / "report" / name) for name in ("report.json", "worst.png")]
    assert run(capsys, animals, "--json")[2] == ""  # nothing is written, so nothing is missing


def test_empty_and_foreign_folders_are_left_out_with_a_message(capsys, animals):
    (animals / "notes").mkdir(), (animals / "__MACOSX").mkdir(), (animals / "fox.zip").touch()
    (animals / "loose.jpg").write_bytes(encoded(pixels(0)))
    code, out, err = run(capsys, animals, "--json")
    assert (code, json.loads(out)["images"]) == (0, 12)
    left_out = "__MACOSX, 1 image next to the folders, not unpacked: fox.zip, without an image: notes"
    assert err == f"keras-bit evaluate: Left out in {str(animals)!r}: {left_out}.\n"


def test_parts_inside_of_the_classes_are_not_mixed(capsys, animals, tmp_path):
    make_folders(animals / "horse", {"train": 2, "test": 1})
    code, out, err = run(capsys, animals)
    assert (code, out) == (1, "")
    assert "has the parts of a data set (test, train) inside its classes (horse). Make a folder for each part" in err
    assert "name them in a --class-map" in err
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"horse": "horse"}))
    code, out, _ = run(capsys, animals, "--class-map", file, "--json")
    assert (code, json.loads(out)["images"]) == (0, 15)


def test_a_class_map_from_its_template_to_the_report(capsys, animals, tmp_path):
    (animals / "cat").rename(animals / "kitty")
    (animals / "frog").rename(animals / "Frog")
    (animals / "unsorted").mkdir()
    code, out, err = run(capsys, animals)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "'Frog' matches no label (closest: 'frog'); 'kitty' matches no label" in err
    assert "--write-class-map" in err

    file = tmp_path / "map.json"
    code, out, _ = run(capsys, animals, "--write-class-map", file)
    assert (code, out) == (
        0,
        f"{file}: 4 folders; complete the 2 entries that begin with '?', with {class_map.ALLOWED}\n",
    )
    said = json.loads(file.read_text())
    assert (said["dog"], said["Frog"], said["kitty"][:2]) == ("dog", "frog", "? ")
    assert run(capsys, animals, "--class-map", file)[0] == 1
    code, _, err = run(capsys, animals, "--write-class-map", file)
    assert code == 1
    assert f"--write-class-map: {str(file)!r} exists" in err

    file.write_text(json.dumps({**said, "kitty": ["cat", "deer", "horse"], "unsorted": None}))
    code, out, err = run(capsys, animals, "--class-map", file, "--json")
    assert (code, err) == (0, "keras-bit evaluate: folders left out by the class map: unsorted\n")
    report = json.loads(out)
    kitty = next(row for row in report["per_class"] if row["class"] == "kitty")
    assert kitty["right"] == sum(label in ("cat", "deer", "horse") for label in answers((animals / "kitty").glob("*")))


def test_a_folder_without_images_is_reported_and_does_not_become_a_class(capsys, animals):
    (animals / "ship").mkdir()
    code, out, err = run(capsys, animals, "--json")
    assert (code, err) == (0, f"keras-bit evaluate: Left out in {str(animals)!r}: without an image: ship.\n")
    assert [row["class"] for row in json.loads(out)["per_class"]] == ["cat", "dog", "frog"]


def test_one_class_is_evaluated_too(capsys, tmp_path):
    make_folders(tmp_path / "cats", {"cat": 2})
    code, out, _ = run(capsys, tmp_path / "cats")
    assert code == 0
    assert "10 of the model, 1 of the data" in out


@pytest.mark.slow
def test_images_that_cannot_be_read_end_it_or_are_left_out(capsys, animals):
    broken = animals / "cat" / "001.jpg"
    broken.write_bytes(b"no image")
    code, out, err = run(capsys, animals)
    assert (code, out) == (1, "")
    assert err.startswith(f"keras-bit evaluate: {broken} is ")
    assert "--on-error skip" in err
    assert "on_error" not in err
    code, out, err = run(capsys, animals, "--on-error", "skip", "--json")
    assert code == 1
    assert json.loads(out)["images"] == 11
    assert err.count("\n") == 1
    assert err.startswith(f"keras-bit evaluate: {broken} is ")


def write_records(path, labels):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index, label in enumerate(labels):
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(encoded(pixels(index)))
            example.features.feature["image/class/label"].int64_list.value.append(label)
            writer.write(example.SerializeToString())


@pytest.mark.slow
def test_records_have_the_numbers_of_the_models_classes(capsys, tmp_path):
    file = tmp_path / "a.tfrecord"
    write_records(file, [3, 3, 9])
    code, out, _ = run(capsys, file, "--json")
    assert code == 0
    assert [(row["class"], row["examples"]) for row in json.loads(out)["per_class"]] == [("cat", 2), ("truck", 1)]
    write_records(file, [3, 10])
    code, _, err = run(capsys, file)
    assert code == 1
    assert "record 1 of " in err
    assert "the label 10" in err
    assert "10 classes" in err
    code, _, err = run(capsys, file, "--class-map", "map.json")
    assert code == 2
    assert f"--class-map is for the folders of a directory, got {str(file)!r}" in err


@pytest.mark.slow
def test_of_a_directory_of_records_those_to_test_with_are_taken(capsys, tmp_path):
    def images(*expected):
        code, out, err = run(capsys, tmp_path, "--json")
        assert code == 0
        assert ("by their names: " in err) == bool(expected), err
        assert all(word in err for word in expected)
        return json.loads(out)["images"]

    write_records(tmp_path / "a.tfrecord", [3, 3, 9])
    write_records(tmp_path / "train.tfrecord", [1])
    assert images() == 4
    write_records(tmp_path / "x-val.tfrecord", [2, 2])
    assert images("1 of 3 TFRecord files", "x-val.tfrecord") == 2
    write_records(tmp_path / "test-00000-of-00001", [5])
    assert images("1 of 4 TFRecord files", "test-00000-of-00001") == 1


@pytest.mark.slow
def test_a_checkpoint_without_a_processor_gets_bits_own_with_a_note(capsys, animals, tmp_path):
    bits_own = BitImageProcessor(**processor.BIT_50)
    copies = [copy_of_tiny(tmp_path / "without"), copy_of_tiny(tmp_path / "with", processor=bits_own)]
    (_, out, err), (code, expected, nothing) = (run(capsys, animals, "--json", weights=copy) for copy in copies)
    assert (code, nothing) == (0, "")
    assert all(fact in err for fact in ("no preprocessor_config.json", "google/bit-50", "448x448 px"))
    assert json.loads(out) == json.loads(expected)


@pytest.mark.slow
def test_of_many_classes_the_worst_are_printed_or_all(capsys, tmp_path):
    config = BitConfig(**SMALL, id2label={index: f"kind {index:02d}" for index in range(30)})
    processor = BitImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    save_pretrained(BiT(config), tmp_path / "model", processor=processor)
    make_folders(tmp_path / "data", {f"kind {index:02d}": 1 for index in range(25)})
    code, out, _ = run(capsys, tmp_path / "data", weights=tmp_path / "model")
    assert code == 0
    assert "the 10 classes with the lowest recall, of 25 (--per-class: all)" in out
    _, table = out.split("the 10 classes")
    assert sum(line.startswith("│ kind") for line in table.splitlines()) == 10
    _, out, _ = run(capsys, tmp_path / "data", "--per-class", weights=tmp_path / "model")
    _, table = out.split("per class")
    assert sum(line.startswith("│ kind") for line in table.splitlines()) == 25


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_folders_are_refused_for_a_model_that_does_not_tell_classes_apart(capsys, animals, tmp_path, problem_type):
    config = BitConfig(**SMALL, id2label={0: "cat", 1: "dog", 2: "frog"}, problem_type=problem_type)
    save_pretrained(BiT(config), tmp_path / "model", processor=BitImageProcessor())
    code, out, err = run(capsys, animals, weights=tmp_path / "model")
    assert (code, out) == (1, "")
    assert f"The model is for {problem_type}, but {str(animals)!r} has one class for each image." in err
    assert "Pass a CSV file" in err


def test_without_data_or_a_place_it_is_one_line_and_exit_code_1(capsys, animals, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "no-images" / "cat").mkdir(parents=True)
    for arguments, facts in (
        (("nowhere",), ("`source`", "'nowhere'")),
        ((tmp_path / "empty",), ("folder", "empty")),
        ((tmp_path / "no-images",), ("image", ".jpg, .png")),
        ((animals, "--out", tmp_path / "file"), ("--out", "file")),
        ((animals, "--class-map", "no.json"), ("'no.json'", "does not exist")),
        ((animals, "--class-map", tmp_path), ("cannot be read",)),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith("keras-bit evaluate: ")
        assert all(fact in line for fact in facts), line
