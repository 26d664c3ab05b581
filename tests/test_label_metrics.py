"""Tests metrics of several labels and of numbers, by hand and against scikit-learn, and `evaluate` with them."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from PIL import Image

from conftest import absent, needs_matplotlib
from image_files import PROCESSOR
from keras_bit import BitConfig
from keras_bit.evaluation import evaluate, label_metrics, write

SMALL = {"embedding_size": 16, "hidden_sizes": (32,), "depths": (1,), "num_groups": 4}
NAMES = {0: "cat", 1: "dog", 2: "fox"}
SEVERAL = BitConfig(**SMALL, id2label=NAMES, problem_type="multi_label_classification")
NUMBERS = BitConfig(**SMALL, id2label={0: "age", 1: "height"}, problem_type="regression")
PROBABILITIES = np.array([[0.9, 0.6, 0.1], [0.4, 0.7, 0.2], [0.8, 0.2, 0.3], [0.3, 0.6, 0.2]], np.float32)
ROWS = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
PREDICTED = np.array([[10, 1.5], [20, 1.6], [33, 1.9]], np.float32)
TRUE = np.array([[11, 1.5], [20, 1.7], [30, 1.8]])


class Scripted:
    """A model that answers as written: an image's first value says which answer."""

    def __init__(self, outputs, config, activation):
        self.config, self.outputs = config, np.asarray(outputs, np.float32)
        self.layers = [keras.layers.Dense(config.num_labels, activation=activation, name="predictions")]

    def predict_on_batch(self, images):
        return self.outputs[images[:, 0, 0, 0].astype(int)]


def batches(labels, size=3):
    for start in range(0, len(labels), size):
        numbers = range(start, min(start + size, len(labels)))
        images = np.array([np.full((24, 32, 3), number, np.float32) for number in numbers])
        yield images, labels[start : start + size]


def needs_sklearn():
    if importlib.util.find_spec("sklearn") is None:
        absent("scikit-learn not installed: pip install -e '.[examine]'")


def test_average_precision_by_hand():
    # From the most probable on: right, wrong, right; of two that are right.
    scores, labels = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    assert label_metrics.average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    # One threshold for both: half of what is found is right, whichever comes first.
    assert label_metrics.average_precision(np.array([0.5, 0.5]), np.array([False, True])) == 0.5
    assert label_metrics.average_precision(scores, np.zeros(3, bool)) is None


@pytest.mark.parametrize("seed", range(3))
def test_several_labels_as_scikit_learn_measures_them(seed):
    """Compares float64 sums of the same numbers, which differ only in their order."""
    needs_sklearn()
    from sklearn import metrics as oracle

    generator = np.random.default_rng(seed)
    labels = generator.random((200, 5)) < np.array([0.5, 0.2, 0.05, 0.9, 0.0])
    # Of two digits, so that many are equal.
    scores = np.round(np.clip(labels * 0.3 + generator.random((200, 5)) * 0.7, 0.01, 0.99), 2)
    found = label_metrics.label_scores(scores, labels)
    for place in range(4):
        expected = oracle.average_precision_score(labels[:, place], scores[:, place])
        assert found[place].average_precision == pytest.approx(expected, rel=1e-12)
        assert found[place].f1 == pytest.approx(oracle.f1_score(labels[:, place], scores[:, place] >= 0.5), rel=1e-12)
    assert found[4].average_precision is None
    micro = oracle.f1_score(labels, scores >= 0.5, average="micro")
    assert label_metrics.micro_f1(found) == pytest.approx(micro, rel=1e-12)
    report = evaluate(Scripted(scores, FIVE, "sigmoid"), batches(labels.astype(np.float32)), progress=False).report
    occurring = [0, 1, 2, 3]
    # The model answers in float32: 6e-8 of each probability.
    assert report["mean_average_precision"] == pytest.approx(
        oracle.average_precision_score(labels[:, occurring], scores[:, occurring], average="macro"), rel=1e-6
    )
    assert report["macro_f1"] == pytest.approx(
        oracle.f1_score(labels, scores >= 0.5, average="macro", labels=occurring, zero_division=0), rel=1e-6
    )
    assert report["exact_match"] == pytest.approx(oracle.accuracy_score(labels, scores >= 0.5))
    columns = [oracle.log_loss(labels[:, place], scores[:, place], labels=[False, True]) for place in range(5)]
    assert report["log_loss"] == pytest.approx(np.mean(columns), rel=1e-6)


FIVE = BitConfig(**SMALL, num_labels=5, problem_type="multi_label_classification")


@pytest.mark.parametrize("outputs", [1, 3])
def test_numbers_as_scikit_learn_measures_them(outputs):
    needs_sklearn()
    from sklearn import metrics as oracle

    generator = np.random.default_rng(0)
    true = generator.normal(size=(50, outputs)) * [100.0, 1.0, 0.01][:outputs] + 3
    predicted = (true + generator.normal(size=true.shape) * true.std(axis=0)).astype(np.float32)
    model = Scripted(predicted, BitConfig(**SMALL, num_labels=outputs, problem_type="regression"), None)
    report = evaluate(model, batches(true if outputs > 1 else true[:, 0]), progress=False).report
    assert report["mean_absolute_error"] == pytest.approx(oracle.mean_absolute_error(true, predicted))
    assert report["root_mean_squared_error"] == pytest.approx(oracle.root_mean_squared_error(true, predicted))
    assert report["r2"] == pytest.approx(oracle.r2_score(true, predicted))
    for place, row in enumerate(report["per_output"]):
        assert row["r2"] == pytest.approx(oracle.r2_score(true[:, place], predicted[:, place]))


def test_numbers_that_are_all_the_same_have_no_r2():
    assert label_metrics.number_score(np.array([1.0, 2.0]), np.array([1.0, 1.0])) == (
        0.5,
        pytest.approx(0.5**0.5),
        None,
    )


@pytest.mark.parametrize("logits", [False, True])
def test_several_labels_by_hand(logits):
    outputs = np.log(PROBABILITIES / (1 - PROBABILITIES)) if logits else PROBABILITIES
    found = evaluate(Scripted(outputs, SEVERAL, None if logits else "sigmoid"), batches(ROWS), names=list("abcd"))
    np.testing.assert_allclose(found.probabilities, PROBABILITIES, atol=1e-6)
    report = found.report
    assert json.loads(json.dumps(report)) == report
    assert (report["images"], report["classes"], report["classes_that_occur"]) == (4, 3, 2)
    assert (report["exact_match"], report["label_accuracy"]) == (0.75, pytest.approx(10 / 12))
    # cat: 2 of 3 found, none wrong; dog: 2 of 2 found, one wrong.
    assert report["micro_f1"] == pytest.approx(8 / 10)
    assert report["macro_f1"] == pytest.approx((4 / 5 + 4 / 5) / 2)
    assert report["per_class"][2] == {
        "class": "fox",
        "examples": 0,
        "predicted": 0,
        "right": 0,
        "precision": None,
        "recall": None,
        "f1": None,
        "average_precision": None,
    }
    # Right in the whole: a, c and d.
    assert [(row["name"], row["true"], row["predicted"]) for row in report["worst"]] == [("b", ["cat"], ["dog"])]
    assert report["worst"][0]["log_loss"] == pytest.approx(-np.log([0.4, 0.3, 0.8]).mean(), rel=1e-5)
    assert found.worst[0].image[0, 0, 0] == 1


def test_the_metrics_of_numbers_equal_those_computed_by_hand():
    found = evaluate(Scripted(PREDICTED, NUMBERS, None), batches(TRUE), names=list("abc"))
    report = found.report
    assert json.loads(json.dumps(report)) == report
    assert (report["images"], report["outputs"]) == (3, 2)
    assert [row["output"] for row in report["per_output"]] == ["age", "height"]
    assert report["per_output"][0]["mean_absolute_error"] == pytest.approx(4 / 3)
    assert report["per_output"][0]["root_mean_squared_error"] == pytest.approx((10 / 3) ** 0.5)
    assert report["mean_absolute_error"] == pytest.approx((4 / 3 + 0.2 / 3) / 2)
    assert report["worst"][0] == {"name": "c", "output": "age", "true": 30.0, "predicted": 33.0}
    assert [row["name"] for row in report["worst"]] == ["c", "a", "b"]


def test_the_reports_are_written_to_files(tmp_path):
    several = evaluate(Scripted(PROBABILITIES, SEVERAL, "sigmoid"), batches(ROWS))
    numbers = evaluate(Scripted(PREDICTED, NUMBERS, None), batches(TRUE))
    right = evaluate(Scripted(ROWS, SEVERAL, "sigmoid"), batches(ROWS))
    assert right.worst == ()
    needs_matplotlib()
    for found, chart in ((several, "average_precision"), (numbers, "predictions"), (right, "average_precision")):
        files = write(found, tmp_path, processor=PROCESSOR)
        assert [file.name for file in files] == ["report.json", "worst.png", f"{chart}.png"]
        assert json.loads(files[0].read_text()) == found.report
        for file in files[1:]:
            with Image.open(file) as image:
                assert image.width > 100
