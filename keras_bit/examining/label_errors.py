"""Finds labels that are probably wrong, by the probability that a classifier gives to labels of unseen images.

The classifier is a ridge regression in closed form over the features; a softmax regression turns its answers into
probabilities. It ranks wrong labels as well as a logistic regression over the features, but much faster.
"""

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np

from keras_bit import packages

FOLDS = 5
L2 = 2.0**12  # regularization of the ridge regression; the best ranking on CIFAR-10 among 2^8 to 2^14 begins here
BIAS = 100.0  # the constant feature; it is large, so that the bias is hardly regularized
SMALLEST_DEVIATION = 1e-5
# On CIFAR-10 nearly all labels below this are wrong; see docs/explanation/fidelity.md.
ALMOST_CERTAIN = 0.01  # quality below which an image is excluded by default
CALIBRATED = 20_000  # images that the softmax regression learns from, at most
ROWS = 4096  # of float64 features at a time


@dataclasses.dataclass(frozen=True)
class LabelQuality:
    """A classifier's judgment of labels.

    Args:
        quality: float64 `(images,)`, the probability of the image's own label in [0, 1], lower is worse; NaN if it
            cannot be judged, because the class has no other image to learn from.
        suggested: int64 `(images,)`, the most probable class; the label itself if it cannot be judged.
        wrong: int64, the places of the labels that are probably wrong, the worst first.
    """

    quality: np.ndarray
    suggested: np.ndarray
    wrong: np.ndarray


def label_quality(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> LabelQuality:
    """Judges labels by confident learning: cleanlab on probabilities from a cross-validation.

    Args:
        features: float32 `(images, width)`.
        labels: int32 `(images,)`.
        groups: int64 `(images,)`; images of one group look the same, and are judged by a classifier that has seen none
            of them.
        seed: the seed of the division into folds.
        advance: a function that is called with the number of images that were learned from since its last call.

    Raises:
        ImportError: cleanlab or scikit-learn is not installed.

    Source: Northcutt, Jiang, Chuang, "Confident Learning", 2021; cleanlab 2.9 `filter.py` (`low_self_confidence`).
    """
    with packages.needing("audit", "An audit"):
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    present, classes = np.unique(labels, return_inverse=True)
    quality = np.full(len(labels), np.nan)
    suggested = labels.astype(np.int64)
    folds = folds_of(classes, groups, seed)
    scores, known = out_of_fold(features, classes, folds, advance)
    judged = np.flatnonzero(known)
    if len(np.unique(classes[judged])) < 2:
        return LabelQuality(quality, suggested, np.zeros(0, np.int64))
    # cleanlab gets only classes with an image that can be judged.
    among, own = np.unique(classes[judged], return_inverse=True)
    probable = probabilities(scores[np.ix_(judged, among)], own, seed)
    quality[judged] = get_label_quality_scores(own, probable, method="self_confidence")
    suggested[judged] = present[among[probable.argmax(axis=1)]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a warning about small classes
        # The filter of cleanlab that finds most planted errors among the fewest images.
        found = find_label_issues(
            own, probable, filter_by="low_self_confidence", return_indices_ranked_by="self_confidence", n_jobs=1
        )
    found = found[suggested[judged[found]] != labels[judged[found]]]
    return LabelQuality(quality, suggested, judged[found])


def folds_of(classes: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Returns the number of each image's fold: a group is in one fold, and each class is spread over all."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    generator = np.random.default_rng(seed)
    fold = np.zeros(len(first), np.int64)
    dealt = 0
    for label in range(classes.max() + 1):
        chosen = generator.permutation(np.flatnonzero(classes[first] == label))
        fold[chosen] = (dealt + np.arange(len(chosen))) % FOLDS
        dealt += len(chosen)
    return fold[group]


def out_of_fold(
    features: np.ndarray,
    classes: np.ndarray,
    folds: np.ndarray,
    advance: Callable[[int], object] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of a ridge regression, whose targets are -1 and 1; the one for a fold learns from the others.

    Args:
        features: float32 `(images, width)`.
        classes: int64 `(images,)`, from 0 on.
        folds: int64 `(images,)`, the number of each image's fold.
        advance: a function that is called with the number of images that were learned from since its last call.

    Returns:
        Float64 `(images, classes)`, and whether each image's class was among the learned ones.
    """
    count = int(classes.max()) + 1
    mean, deviation = features.mean(axis=0), features.std(axis=0) + SMALLEST_DEVIATION

    def prepared(places: np.ndarray) -> np.ndarray:
        values = (features[places].astype(np.float64) - mean) / deviation
        return np.pad(values, ((0, 0), (0, 1)), constant_values=BIAS)

    targets = 2.0 * np.eye(count) - 1.0
    width = features.shape[1] + 1
    grams, answers = np.zeros((FOLDS, width, width)), np.zeros((FOLDS, width, count))
    for fold in range(FOLDS):
        for places in _slices(np.flatnonzero(folds == fold)):
            rows = prepared(places)
            grams[fold] += rows.T @ rows
            answers[fold] += rows.T @ targets[classes[places]]
            advance(len(places))
    scores, known = np.zeros((len(features), count)), np.zeros(len(features), bool)
    for fold in range(FOLDS):
        inside = np.flatnonzero(folds == fold)
        others = np.delete(np.arange(FOLDS), fold)
        # Summed, not subtracted from the total, because differences of large sums lose digits.
        gram = grams[others].sum(axis=0) + L2 * np.eye(width)
        weights = np.linalg.solve(gram, answers[others].sum(axis=0))
        for places in _slices(inside):
            scores[places] = prepared(places) @ weights
        known[inside] = np.isin(classes[inside], np.unique(classes[folds != fold]))
    return scores, known


def probabilities(scores: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
    """Converts answers to probabilities with a softmax regression: float64 `(images, classes)`, rows whose sum is 1."""
    from sklearn.linear_model import LogisticRegression

    scaled = scores / max(float(scores.std()), SMALLEST_DEVIATION)
    chosen = np.random.default_rng(seed).permutation(len(scores))[:CALIBRATED]
    # Each class at least once, because a class that is not learned would have no column.
    chosen = np.union1d(chosen, np.unique(classes, return_index=True)[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning that it has not converged, which is harmless for a calibration
        return LogisticRegression(max_iter=200).fit(scaled[chosen], classes[chosen]).predict_proba(scaled)


def _slices(places: np.ndarray) -> list[np.ndarray]:
    return [places[start : start + ROWS] for start in range(0, len(places), ROWS)]
