"""Tests the few-shot probes against scikit-learn and formulas, and `keras-bit probe` as a user runs it."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

import keras_bit
from command_line import TINY, copy_of_tiny, run, tiny_processor
from conftest import absent, needs_matplotlib
from image_files import make_folders
from keras_bit.data import splits
from keras_bit.examining import features, probing
from keras_bit.examining.features import Features


@pytest.fixture(autouse=True)
def needs_scikit_learn():
    if importlib.util.find_spec("sklearn") is None:
        absent("scikit-learn is not installed: pip install 'keras_bit[examine]'")


def made(count, seed=0, classes=4, width=24, distance=1.0):
    """Returns classes around random centers."""
    generator = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(0, distance, (classes, width))
    labels = generator.permutation(np.arange(count) % classes).astype(np.int32)
    values = (centers[labels] + generator.normal(0, 1, (count, width))).astype(np.float32)
    return Features(values, labels, tuple(map(str, range(count))))


@pytest.mark.parametrize("count", [12, 400], ids=["fewer images than features", "more"])
def test_ridge_is_the_closed_form_of_the_paper_s_code(count):
    """The oracle is the formula in google-research/big_vision `fewshot_lsr.py`, (X'X + l2 I)^-1 X'Y, in float64.

    Its own two functions gave the same accuracies for 13 of 13 draws, but for one image of 2,000 in one of them.
    """
    train, test = made(count), made(300, seed=1)
    mean, deviation = train.values.mean(axis=0), train.values.std(axis=0) + 1e-5

    def whitened(values):
        return np.pad(((values - mean) / deviation).astype(np.float64), ((0, 0), (0, 1)), constant_values=100.0)

    x, targets = whitened(train.values), 2.0 * np.eye(4)[train.labels] - 1.0
    weights = np.linalg.solve(x.T @ x + 1024.0 * np.eye(x.shape[1]), x.T @ targets)
    expected = (whitened(test.values) @ weights).argmax(axis=1)
    found = probing.ridge(train.values, train.labels, test.values, 4)
    assert (found == expected).mean() > 0.99  # float32 rounding may decide between two equal classes
    assert (found == test.labels).mean() > 0.8


def test_nearest_neighbors_are_those_by_the_cosine():
    train, test = made(200), made(50, seed=1)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (train.values, test.values)]
    distance = 1 - unit[1] @ unit[0].T
    nearest = np.argsort(distance, axis=1)[:, : probing.NEIGHBORS]
    votes = np.zeros((len(test.labels), 4))
    for row, places in enumerate(nearest):
        np.add.at(votes[row], train.labels[places], 1 / distance[row, places])
    found = probing.nearest_neighbors(train.values, train.labels, test.values, 4)
    np.testing.assert_array_equal(found, votes.argmax(axis=1))


def test_each_seed_draws_the_same_number_of_images_of_each_class():
    labels = made(400).labels
    draws = [probing._some(labels, 5, seed) for seed in range(3)]
    for places in draws:
        assert np.bincount(labels[places]).tolist() == [5] * 4
    assert len({tuple(places) for places in draws}) == 3
    np.testing.assert_array_equal(probing._some(labels, 5, 1), draws[1])


def test_results_are_a_row_for_each_method_and_count():
    calls = []
    results = probing.probe(made(80), made(60, seed=1), shots=(5, 1, 20, 50), seeds=2, advance=lambda: calls.append(1))
    # The classes have 20 images each: 20 and 50 would be all of them.
    assert [(one.method, one.shots) for one in results] == [
        (method, shots) for shots in (1, 5, None) for method in ("ridge", "k-NN")
    ]
    assert [len(one.accuracies) for one in results] == [2, 2, 2, 2, 1, 1]
    assert len(calls) == probing.runs(made(80).labels, (5, 1, 20, 50), 2) == 10
    few, _, _, _, every, _ = results
    assert few.mean < every.mean
    assert few.spread == pytest.approx(np.std(few.accuracies, ddof=1))
    assert every.spread == 0


def test_a_class_with_fewer_images_gives_all_that_it_has():
    data = made(80)
    chosen = np.flatnonzero((data.labels != 3) | (np.cumsum(data.labels == 3) <= 2))
    small = Features(data.values[chosen], data.labels[chosen], tuple(map(str, chosen)))
    assert np.bincount(small.labels[probing._some(small.labels, 5, 0)]).tolist() == [5, 5, 5, 2]
    assert probing.probe(small, made(60, seed=1), shots=(5,), seeds=1)[0].mean > 0.25


@pytest.mark.parametrize(("arguments", "name"), [({"shots": (0,)}, "shots"), ({"seeds": 0}, "seeds")])
def test_counts_are_at_least_one(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least 1, got 0"):
        probing.probe(made(8), made(8), **arguments)


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe") / "animals"
    make_folders(folder, {"cat": 7, "dog": 6})
    return folder


def test_features_are_those_of_the_pooled_model(animals):
    model = keras_bit.from_pretrained(TINY, include_top=False, pooling="avg", fused=True)
    part = splits.open_splits(animals, validation_share=0, seed=0).train
    found = features.features_of(model, part, processor=tiny_processor(), batch_size=4)
    assert found.labels.tolist() == [0] * 7 + [1] * 6
    assert list(found.names) == list(part.names)
    expected = model.predict(np.concatenate([tiny_processor()(name) for name in part.names]), verbose=0)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-4)  # batches of other sizes


def test_tfrecord_files_are_refused():
    part = splits.Part(np.zeros(1, np.int32), ["row 0"], lambda *_: None, lambda *_: [], in_files=False)
    with pytest.raises(ValueError, match="must be files in a folder per class, got TFRecord files"):
        features.features_of(None, part, processor=tiny_processor(), batch_size=4)


def probe(capsys, *arguments):
    return run(capsys, "probe", *arguments, "--weights", TINY, "--shots", "1,2", "--seeds", "2")


def test_the_command_prints_a_table_and_writes_what_it_printed(capsys, animals, tmp_path):
    needs_matplotlib()
    out_directory = tmp_path / "probed"
    code, out, _ = probe(capsys, animals, "--out", out_directory)
    assert code == 0
    assert all(word in out for word in ("ridge", "k-NN", "±", "all", "guessing for 50.0%"))
    report = json.loads((out_directory / "probe.json").read_text())
    assert (report["classes"], report["train_images"], report["test_images"]) == (["cat", "dog"], 11, 2)
    assert [(row["method"], row["shots"]) for row in report["results"]] == [
        (method, shots) for shots in (1, 2, None) for method in ("ridge", "k-NN")
    ]
    with Image.open(out_directory / "probe.png") as image:
        assert image.format == "PNG"
    code, out, _ = probe(capsys, animals, "--json")
    assert json.loads(out)["results"] == report["results"]


def test_folders_of_its_own_are_tested_with(capsys, tmp_path):
    make_folders(tmp_path / "train", {"cat": 3, "dog": 3})
    make_folders(tmp_path / "test", {"cat": 2, "dog": 4})
    code, out, _ = probe(capsys, tmp_path, "--json")
    report = json.loads(out)
    assert (code, report["train_images"], report["test_images"]) == (0, 6, 6)


def test_images_that_cannot_be_read_end_it_or_are_listed(capsys, tmp_path):
    files = make_folders(tmp_path / "animals", {"cat": 4, "dog": 4})
    files[1].write_bytes(b"not an image")
    code, _, err = probe(capsys, tmp_path / "animals")
    assert code == 1
    assert all(word in err for word in (files[1].name, "--on-error skip"))
    code, out, err = probe(capsys, tmp_path / "animals", "--on-error", "skip", "--json")
    assert code == 1
    assert [str(files[1]) in line for line in json.loads(out)["skipped"]] == [True]
    assert files[1].name in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--validation-share", "0"], 1, ["no test images", "--validation-share"]),
        (["--shots", "1,x"], 2, ["--shots", "1,5,10", "1,x"]),
        (["--seeds", "0"], 2, ["--seeds"]),
    ],
)
def test_wrong_arguments_are_refused(capsys, animals, arguments, code, words):
    found, _, err = run(capsys, "probe", animals, "--weights", TINY, *arguments)
    assert found == code
    assert all(word in err for word in words), err


def test_an_unwritable_directory_is_reported_before_anything_is_read(capsys, animals, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    code, _, err = probe(capsys, animals, "--out", tmp_path / "file")
    assert code == 1
    assert str(tmp_path / "file") in err


def test_a_checkpoint_without_a_processor_is_prepared_as_bit(capsys, animals, tmp_path):
    copy = copy_of_tiny(tmp_path / "bare")
    code, _, err = run(capsys, "probe", animals, "--weights", copy, "--shots", "1", "--batch-size", "2")
    assert code == 0
    assert "no preprocessor_config.json" in err
