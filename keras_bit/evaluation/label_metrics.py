"""Metrics for several labels per image and for numbers. Uses numpy only."""

from typing import NamedTuple

import numpy as np

SMALLEST = float(np.finfo(np.float32).tiny)  # a probability of 0 counts as this in the log loss
THRESHOLD = 0.5  # probability from which a label counts as predicted


class LabelScore(NamedTuple):
    """The metrics of one label; 0 / 0 is `None`."""

    examples: int
    predicted: int
    right: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None


class NumberScore(NamedTuple):
    """The errors of predictions; `r2` is `None` if all numbers are equal."""

    mean_absolute_error: float
    root_mean_squared_error: float
    r2: float | None


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Computes `sum over thresholds n of (recall_n - recall_(n-1)) * precision_n`; `None` if no image has the label.

    Images with the same score share a threshold, so that their order does not matter.

    Args:
        scores: floats `(count,)`.
        labels: booleans `(count,)`.

    Source: scikit-learn's `average_precision_score`, which does not interpolate, unlike PASCAL VOC's.
    """
    positives = int(labels.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of images with equal scores
    right = np.cumsum(labels[order])[ends]
    precision = right / (ends + 1)
    return float((np.diff(right, prepend=0) / positives * precision).sum())


def label_scores(probabilities: np.ndarray, labels: np.ndarray) -> tuple[LabelScore, ...]:
    """Returns the metrics of each label, predicted from a probability of `THRESHOLD` on.

    Args:
        probabilities: `(count, classes)` in [0, 1].
        labels: booleans `(count, classes)`.
    """
    said = probabilities >= THRESHOLD
    columns = zip(labels.sum(axis=0), said.sum(axis=0), (labels & said).sum(axis=0), strict=True)
    return tuple(
        LabelScore(
            int(examples),
            int(predicted),
            int(right),
            _ratio(right, predicted),
            _ratio(right, examples),
            _ratio(2 * right, examples + predicted),
            average_precision(probabilities[:, place], labels[:, place]),
        )
        for place, (examples, predicted, right) in enumerate(columns)
    )


def micro_f1(scores: tuple[LabelScore, ...]) -> float | None:
    """Returns F1 of all decisions together; `None` without labels and predictions."""
    right = sum(score.right for score in scores)
    return _ratio(2 * right, sum(score.examples + score.predicted for score in scores))


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the binary cross-entropy of each image, the mean over its labels, in nats, float64 `(count,)`.

    A float32 sigmoid is exactly 1 from a logit of 17 on. If that is wrong, it counts as 87 nats.
    """
    right = np.where(labels, probabilities, 1 - probabilities.astype(np.float64))
    return -np.log(np.clip(right, SMALLEST, 1)).mean(axis=1)


def number_score(predicted: np.ndarray, numbers: np.ndarray) -> NumberScore:
    """Computes `mean |p - y|`, `sqrt(mean (p - y)^2)` and `1 - sum (p - y)^2 / sum (y - mean y)^2`, of `(count,)`."""
    difference = predicted.astype(np.float64) - numbers.astype(np.float64)
    spread = float(((numbers - numbers.mean(dtype=np.float64)) ** 2).sum())
    squares = float((difference**2).sum())
    return NumberScore(
        float(np.abs(difference).mean()),
        float(np.sqrt(squares / len(difference))),
        1 - squares / spread if spread else None,
    )


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
