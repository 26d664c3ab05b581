"""Compares metrics with tables worked out by hand, with formulas written out here, and with scikit-learn."""

import importlib.util
import itertools

import numpy as np
import pytest

from conftest import absent
from keras_bit.evaluation import metrics

# Four examples of three classes. Right: the first and the last. In the third the label is the last of a tie.
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.4, 0.2, 0.4], [0.0, 0.25, 0.75]], np.float32)
LABELS = np.array([0, 2, 2, 2])


def random_case(count, classes, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * 2
    labels = np.where(generator.random(count) < 0.5, logits.argmax(1), generator.integers(0, classes, count))
    probabilities = np.exp(logits)
    return (probabilities / probabilities.sum(1, keepdims=True)).astype(dtype), labels


def test_the_rank_counts_classes_before_the_label_and_ties_by_index():
    assert metrics.ranks(PROBABILITIES, LABELS).tolist() == [0, 2, 1, 0]
    assert metrics.ranks(np.full((3, 3), 1 / 3), np.arange(3)).tolist() == [0, 1, 2]
    assert metrics.predictions(PROBABILITIES).tolist() == [0, 0, 0, 2]


@pytest.mark.parametrize(("k", "expected"), [(1, 0.5), (2, 0.75), (3, 1.0), (5, 1.0)])
def test_top_k_of_more_than_all_classes_is_of_all(k, expected):
    assert metrics.top_k(PROBABILITIES, LABELS, k) == expected


@pytest.mark.parametrize("k", [0, -1, 1.0, True, "5"])
def test_k_must_be_a_positive_whole_number(k):
    with pytest.raises(ValueError, match="`k` must be a whole number of at least 1, got"):
        metrics.top_k(PROBABILITIES, LABELS, k)


def test_log_loss_is_a_mean_and_finite_for_a_probability_of_0():
    assert metrics.log_loss(PROBABILITIES, LABELS) == pytest.approx(-np.log(0.7 * 0.2 * 0.4 * 0.75) / 4, rel=1e-6)
    assert metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(87.336, abs=1e-3)
    assert metrics.log_loss(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_rows_of_the_confusion_matrix_are_the_true_classes():
    matrix = metrics.confusion_matrix(LABELS, metrics.predictions(PROBABILITIES), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [2, 0, 1]]
    # examples, predicted, right, precision, recall, F1
    assert metrics.per_class(matrix) == (
        (1, 3, 1, 1 / 3, 1.0, 0.5),
        (0, 0, 0, None, None, None),
        (3, 1, 1, 1.0, 1 / 3, 0.5),
    )
    assert metrics.per_class(np.array([[0, 2], [0, 0]])) == ((2, 0, 0, None, 0.0, 0.0), (0, 2, 0, 0.0, None, 0.0))


def test_the_calibration_error_equals_one_computed_by_hand():
    # Bins of a fifth: (0.6, 0.8] has 0.7 and 0.8, half of it right; (0.8, 1] has 0.9 and 1.0, all of it.
    found = metrics.calibration(np.array([0.7, 0.8, 0.9, 1.0]), np.array([True, False, True, True]), bins=5)
    assert found.error == pytest.approx((abs(0.5 - 0.75) * 2 + abs(1 - 0.95) * 2) / 4)
    assert [part.count for part in found.bins] == [0, 0, 0, 2, 2]
    assert found.bins[0] == metrics.Bin(0.0, 0.2, 0, None, None)
    assert found.bins[3] == metrics.Bin(pytest.approx(0.6), 0.8, 2, 0.75, 0.5)
    assert found.bins[4] == metrics.Bin(0.8, 1.0, 2, 0.95, 1.0)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    edges = np.linspace(0, 1, metrics.BINS + 1)
    found = metrics.calibration(edges, np.ones(len(edges), bool))
    assert [part.count for part in found.bins] == [2] + [1] * (metrics.BINS - 1)  # 0 and 1/15 are in the first
    assert [(part.lower, part.upper) for part in found.bins] == list(itertools.pairwise(edges))


@pytest.mark.parametrize(("count", "classes"), [(1, 2), (40, 2), (2500, 10), (3000, 37)])
def test_calibration_error_is_the_formula_of_the_paper(count, classes):
    probabilities, labels = random_case(count, classes)
    confidences, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, 16)
    error = 0.0
    for lower, upper in itertools.pairwise(edges):
        inside = (confidences > lower) & (confidences <= upper)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidences[inside].mean(dtype=np.float64))
    assert metrics.calibration(confidences, right).error == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize(
    ("right", "count", "expected"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_intervals_are_the_published_ones(right, count, expected):
    assert metrics.wilson_interval(right, count) == pytest.approx(expected, abs=5e-5)
    lower, upper = metrics.wilson_interval(count - right, count)
    assert (1 - upper, 1 - lower) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("count", "classes"), [(300, 2), (metrics.CHUNK + 1, 10), (700, 1000)])
def test_scikit_learn_says_the_same(count, classes, dtype):
    if importlib.util.find_spec("sklearn") is None:
        absent("scikit-learn is not installed: pip install scikit-learn")
    from sklearn import metrics as theirs

    probabilities, labels = random_case(count, classes, dtype=dtype)
    predicted = metrics.predictions(probabilities)
    assert metrics.top_k(probabilities, labels, 1) == theirs.accuracy_score(labels, predicted)
    if classes > 2 and dtype != np.float16:  # their order of ties is another
        expected = theirs.top_k_accuracy_score(labels, probabilities, k=5, labels=range(classes))
        assert metrics.top_k(probabilities, labels, 5) == pytest.approx(expected, abs=1e-12)
    matrix = metrics.confusion_matrix(labels, predicted, classes)
    np.testing.assert_array_equal(matrix, theirs.confusion_matrix(labels, predicted, labels=range(classes)))
    expected = theirs.precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=np.nan)
    ours = [(score.precision, score.recall, score.f1, score.examples) for score in metrics.per_class(matrix)]
    np.testing.assert_allclose(np.array(ours, float).T, np.array(expected, float), rtol=1e-12)
    if dtype == np.float64:
        loss = theirs.log_loss(labels, probabilities, labels=range(classes))
        assert metrics.log_loss(probabilities, labels) == pytest.approx(loss, rel=1e-9)


def with_value(value):
    probabilities = PROBABILITIES.copy()
    probabilities[2, 1] = value
    return probabilities


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (with_value(np.nan), LABELS, "a sum of 1 in every row, got NaN for example 2. Apply a softmax"),
        (with_value(-0.2), LABELS, "got a row from -0.2, of sum 0.6 for example 2"),
        (with_value(np.inf), LABELS, "of sum inf for example 2"),
        (PROBABILITIES * 2, LABELS, "got a row from 0.2, of sum 2 for example 0"),
        (PROBABILITIES[0], LABELS, r"`probabilities` must be floats \(count, classes\), got float32 of shape \(3,\)"),
        (PROBABILITIES.astype(int), LABELS, "must be floats .* got int64"),
        (PROBABILITIES, LABELS[:3], r"`labels` must be whole numbers of shape \(4,\), .* got int64 of shape \(3,\)"),
        (PROBABILITIES, LABELS * 1.0, "`labels` must be whole numbers .* got float64"),
        (PROBABILITIES, LABELS + 1, r"`labels` must be in \[0, 3\), got 3 for example 1 \(3 of 4 are outside\)"),
        (PROBABILITIES, LABELS - 1, r"`labels` must be in \[0, 3\), got -1 for example 0"),
        (PROBABILITIES[:0], LABELS[:0], "`probabilities` must have at least one row, got none"),
    ],
)
def test_wrong_probabilities_and_labels_raise_an_error(probabilities, labels, message):
    for metric in (metrics.ranks, metrics.log_loss):
        with pytest.raises(ValueError, match=message):
            metric(probabilities, labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.confusion_matrix(LABELS, LABELS[:2], 3),
            "`predicted` must have the length of `labels`, 4, got 2",
        ),
        (lambda: metrics.confusion_matrix(LABELS, LABELS, 2), r"`labels` must be .* in \[0, 2\), got from 0 to 2"),
        (lambda: metrics.confusion_matrix(LABELS, LABELS * 1.0, 3), "`predicted` must be .* got float64 of shape"),
        (lambda: metrics.calibration([0.5, np.nan], [True, True]), r"`confidences` must be in \[0, 1\], got nan"),
        (lambda: metrics.calibration([], []), r"at least one, got \(0,\) and \(0,\)"),
        (lambda: metrics.calibration([0.5], [True, False]), r"one shape \(count,\)"),
        (lambda: metrics.wilson_interval(3, 2), "`right` must be in .* got 3 and 2"),
        (lambda: metrics.wilson_interval(0, 0), "`count` at least 1, got 0 and 0"),
    ],
)
def test_wrong_arguments_of_a_metric_raise_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
