"""Tests fine-tuning and evaluating with CSV files: several labels, numbers, classes; and a temperature."""

import json

import numpy as np
import pytest

from command_line import run as run_command
from image_files import encoded, pixels
from keras_bit import BiT, BitConfig, BitImageProcessor, TableOptions, from_pretrained, image_dataset
from keras_bit.data.walk import DirectoryWarning
from keras_bit.evaluation import evaluate
from keras_bit.training import planning, run, run_directory, units
from keras_bit.training.distribution import Workers
from tiny_bit import random_tensors, write_checkpoint

NUMBERS = [1000 + 250.5 * (number % 3) for number in range(12)]
RECIPE = {"batch_size": 4, "steps": 1, "image_size": (64, 64), "seed": 1, "validation_share": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Writes a checkpoint, twelve images, and a table with a column of each kind."""
    folder = tmp_path_factory.mktemp("tables")
    tensors = {name: values * (0.1 if values.ndim > 1 else 1) for name, values in random_tensors().items()}
    write_checkpoint(folder / "checkpoint", tensors)
    BitImageProcessor(size=(32, 32), resample=2, image_mean=0.5, image_std=0.5).save_pretrained(folder / "checkpoint")
    rows = ["path,tags,price,label"]
    for number in range(12):
        (folder / f"{number}.jpg").write_bytes(encoded(pixels(number, 32, 32)))
        tags = ";".join(name for name, has in (("odd", number % 2), ("third", number % 3 == 0)) if has)
        rows.append(f"{number}.jpg,{tags},{NUMBERS[number]},{'ab'[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def train(folder, out, column, **changed):
    options = planning.Options(
        data=str(folder / "labels.csv"),
        weights=str(folder / "checkpoint"),
        label_columns=[column],
        **{**RECIPE, **changed},
    )
    with run_directory.writable(out, options.data):
        plan = planning.plan(options, Workers())
        said = list(plan.notes)
        run.run(plan, out, workers=Workers(), say=said.append)
    return said


@pytest.fixture(scope="module")
def several(folder):
    """Returns a run with several labels, and what it printed."""
    return folder / "several", train(folder, folder / "several", "tags", calibrate=True)


@pytest.fixture(scope="module")
def numbers(folder):
    return folder / "numbers", train(folder, folder / "numbers", "price")


@pytest.mark.slow
def test_several_labels_are_trained_and_measured_and_get_a_temperature(several, folder):
    out, said = several
    assert "The model gets a new head of zeros for 2 labels." in said
    model = from_pretrained(out)
    assert (model.config.problem_type, model.config.id2label) == (
        "multi_label_classification",
        {0: "odd", 1: "third"},
    )
    assert model.get_layer("predictions").activation.__name__ == "sigmoid"
    report = json.loads((out / "report.json").read_text())
    scaling = report["temperature_scaling"]
    # The validation images are the ones that are reported on: the report is of the model that has the temperature.
    assert report["log_loss"] == pytest.approx(scaling["after"]["log_loss"], rel=1e-4)
    assert scaling["after"]["log_loss"] <= scaling["before"]["log_loss"]
    assert any(line.startswith(f"temperature {scaling['temperature']:.4f}: calibration error") for line in said)
    kernel = np.asarray(model.get_layer("predictions").kernel)
    again = train(folder, out, "tags", calibrate=True)
    assert "Continuing after step 1 of 1." in again
    # From the trained weights, not from the head that was divided.
    np.testing.assert_allclose(np.asarray(from_pretrained(out).get_layer("predictions").kernel), kernel, rtol=1e-5)
    train(folder, out, "tags")
    plain = np.asarray(from_pretrained(out).get_layer("predictions").kernel)
    np.testing.assert_allclose(plain / scaling["temperature"], kernel, rtol=1e-5)


@pytest.mark.slow
def test_numbers_are_trained_standardized_and_saved_in_their_units(numbers, folder):
    out, said = numbers
    assert "The model gets a new head of zeros for 1 number." in said
    assert any(("the unit of each number is its standard deviation" in line and "(price: " in line) for line in said)
    model = from_pretrained(out)
    assert (model.config.problem_type, model.config.id2label) == ("regression", {0: "price"})
    processor = BitImageProcessor.from_pretrained(out)
    table = TableOptions(label_columns=["price"])
    with pytest.warns(DirectoryWarning, match="Left out: the columns 'tags', 'label'"):
        data = image_dataset(str(folder / "labels.csv"), processor=processor, batch_size=4, table=table)
    assert data.class_names is None
    np.testing.assert_allclose(np.concatenate([labels for _, labels in data]), NUMBERS)
    found = evaluate(model, data)
    # After one small step the mean of the training images is what it predicts.
    assert np.abs(found.predicted - np.mean(NUMBERS)).max() < 150
    assert found.report["mean_absolute_error"] == pytest.approx(np.abs(found.predicted[:, 0] - NUMBERS).mean())
    report = json.loads((out / "report.json").read_text())
    assert report["mean_absolute_error"] > 50  # in the table's unit, where the log has about 1


def test_a_head_in_other_units_and_back():
    model = BiT(BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(1,), num_groups=4, num_labels=1))
    head = model.get_layer("predictions")
    head.kernel.assign(np.linspace(-1, 1, 32, dtype="float32")[:, None])
    before = [np.array(weight) for weight in head.weights]
    found = units.units_of(np.array(NUMBERS))
    np.testing.assert_allclose(found.of(np.array(NUMBERS)).std(), 1, rtol=1e-6)
    found.enter(model)
    features = np.random.default_rng(0).normal(size=(5, 32)).astype("float32")
    inside = features @ np.array(head.kernel) + np.array(head.bias)
    # float32, around a mean of six deviations.
    np.testing.assert_allclose(inside, found.of(features @ before[0] + before[1]), rtol=1e-4, atol=1e-4)
    found.leave(model)
    for weight, value in zip(head.weights, before, strict=True):
        np.testing.assert_allclose(np.array(weight), value, atol=1e-3)


@pytest.mark.slow
def test_the_commands_measure_and_show_them(several, numbers, folder, capsys):
    arguments = ("evaluate", folder / "labels.csv", "--json")
    code, out, _ = run_command(capsys, *arguments, "--weights", several[0], "--label-columns", "tags")
    report = json.loads(out)
    assert (code, report["problem_type"], report["images"]) == (0, "multi_label_classification", 12)
    assert [row["class"] for row in report["per_class"]] == ["odd", "third"]
    code, out, _ = run_command(capsys, *arguments, "--weights", numbers[0], "--label-columns", "price")
    assert (code, json.loads(out)["per_output"][0]["output"]) == (0, "price")
    code, out, _ = run_command(capsys, "classify", folder / "0.jpg", "--weights", numbers[0], "--json")
    (row,) = json.loads(out)[0]["predictions"]
    assert (code, row["label"]) == (0, "price")
    assert 800 < row["score"] < 1700
    code, out, err = run_command(capsys, *arguments, "--weights", several[0], "--label-columns", "label")
    assert (code, out) == (1, "")
    assert "'label'" in err
    assert "'a' in line 2" in err


def test_models_that_cannot_be_calibrated_are_refused_before_anything_is_computed(folder, tmp_path):
    for changed, message in (
        ({"column": "price"}, "`calibrate` is for probabilities, but this model will predict numbers"),
        ({"column": "tags", "validation_share": 0.0}, "`calibrate` needs validation images, but the data set has none"),
    ):
        with pytest.raises(ValueError, match=message):
            train(folder, tmp_path / "out", calibrate=True, **changed)
    assert not (tmp_path / "out").exists()


def test_table_options_need_a_table_and_few_examples_one_label(folder, tmp_path):
    options = planning.Options(data=str(tmp_path), weights="", label_columns=["a"])
    with pytest.raises(ValueError, match=r"`label_columns`.* are for a CSV file"):
        planning.plan(options, Workers())
    with pytest.raises(ValueError, match="`examples_per_class` is for one class per image, got 2 for multi_label"):
        train(folder, tmp_path / "out", "tags", examples_per_class=2)
