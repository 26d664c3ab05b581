"""Metrics from probabilities and labels. Uses numpy only.

`probabilities` are floats `(count, classes)` in [0, 1], a row per example; `labels` whole numbers `(count,)` in [0,
classes). Among equal probabilities the class with the lowest index comes first, as in `keras_bit.decode_predictions`.
NaN is always an error.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_bit.counts import check_whole

BINS = 15  # of confidence; Guo et al. 2017
CHUNK = 1024  # examples at a time, so that no second array as large as the probabilities is made
SUM_TOLERANCE = 1e-2  # allowed error of a row's sum; float16 softmax of 21,843 classes is off by 2e-3
# A probability of 0, as from float32 softmax below e^-87, counts as this in the log loss.
SMALLEST = float(np.finfo(np.float32).tiny)
Z95 = 1.959963984540054  # the normal distribution's quantile of 0.975


@dataclasses.dataclass(frozen=True)
class Bin:
    """The examples whose confidence is in `(lower, upper]`; both means are `None` if the bin is empty."""

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


class Calibration(NamedTuple):
    """`error` is the expected calibration error, in [0, 1]."""

    error: float
    bins: tuple[Bin, ...]


class ClassScore(NamedTuple):
    """The metrics of one class; 0 / 0 is `None`: `recall` without examples, `precision` without predictions."""

    examples: int
    predicted: int
    right: int
    precision: float | None
    recall: float | None
    f1: float | None


def check(probabilities: np.ndarray, labels: np.ndarray) -> None:
    """Checks arguments against the description at the top of this module.

    Raises:
        ValueError: a shape, a type or a value is wrong, or the arrays are empty.
    """
    if probabilities.ndim != 2 or probabilities.dtype.kind != "f" or not probabilities.shape[1]:
        raise ValueError(
            "`probabilities` must be floats (count, classes), got "
            f"{probabilities.dtype} of shape {probabilities.shape}."
        )
    count, classes = probabilities.shape
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be whole numbers of shape ({count},), one for each row of `probabilities`, got "
            f"{labels.dtype} of shape {labels.shape}."
        )
    if not count:
        raise ValueError("`probabilities` must have at least one row, got none.")
    if (outside := np.flatnonzero((labels < 0) | (labels >= classes))).size:
        raise ValueError(
            f"`labels` must be in [0, {classes}), got {labels[outside[0]]} for example {outside[0]} "
            f"({outside.size:,} of {count:,} are outside)."
        )
    for start, rows in _chunks(probabilities):
        sums = rows.sum(axis=1, dtype=np.float64)
        # Written so that NaN fails too.
        right = (rows.min(axis=1) >= 0) & (np.abs(sums - 1) <= SUM_TOLERANCE)
        if not right.all():
            first = int(np.flatnonzero(~right)[0])
            what = "NaN" if np.isnan(rows[first]).any() else f"a row from {rows[first].min():.4g}, of sum "
            what += "" if what == "NaN" else f"{sums[first]:.4g}"
            raise ValueError(
                f"`probabilities` must be numbers of at least 0 with a sum of 1 in every row, got {what} for example "
                f"{start + first}. Apply a softmax to logits; for NaN, check the weights and the input."
            )


def predictions(probabilities: np.ndarray) -> np.ndarray:
    """Returns the most probable class of each example, int64 `(count,)`."""
    return probabilities.argmax(axis=1)


def ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns how many classes rank above the label, int64 `(count,)`: 0 for a right answer."""
    check(probabilities, labels)
    index = np.arange(probabilities.shape[1])
    found = np.empty(len(labels), np.int64)
    for start, rows in _chunks(probabilities):
        label = labels[start : start + CHUNK, None]
        own = np.take_along_axis(rows, label, axis=1)
        found[start : start + CHUNK] = ((rows > own) | ((rows == own) & (index < label))).sum(axis=1)
    return found


def top_k(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Returns the share of examples whose label is among the `k` most probable classes, at most all classes."""
    check_whole("k", k)
    return float((ranks(probabilities, labels) < k).mean())


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean of `-log(probability of the label)`, in nats; a probability of 0 counts as 1.2e-38."""
    check(probabilities, labels)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    return float(-np.log(np.clip(own, SMALLEST, 1)).mean())


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns int64 `(classes, classes)`: the examples of the row's class that were predicted as the column's.

    Raises:
        ValueError: `labels` or `predicted` are not whole numbers in [0, classes), or differ in length.
    """
    for name, values in (("labels", labels), ("predicted", predicted)):
        wrong = values.ndim != 1 or values.dtype.kind not in "iu"
        if wrong or (values.size and not 0 <= values.min() <= values.max() < classes):
            got = f"{values.dtype} of shape {values.shape}" if wrong else f"from {values.min()} to {values.max()}"
            raise ValueError(f"`{name}` must be whole numbers (count,) in [0, {classes}), got {got}.")
    if len(labels) != len(predicted):
        raise ValueError(f"`predicted` must have the length of `labels`, {len(labels):,}, got {len(predicted):,}.")
    flat = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: np.ndarray) -> tuple[ClassScore, ...]:
    """Returns precision, recall and F1 of every class, from a `confusion_matrix`.

    `precision = right / predicted`, `recall = right / examples`, `f1 = 2 * right / (examples + predicted)`.
    """
    columns = zip(matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist(), np.diag(matrix).tolist(), strict=True)
    return tuple(
        ClassScore(
            examples,
            predicted,
            right,
            precision=_ratio(right, predicted),
            recall=_ratio(right, examples),
            f1=_ratio(2 * right, examples + predicted),
        )
        for examples, predicted, right in columns
    )


def calibration(confidences: np.ndarray, right: np.ndarray, bins: int = BINS) -> Calibration:
    """Measures the difference between the model's confidence and the share of right answers.

    `error = sum over bins of count / total * |accuracy - confidence|`, where both are means of the bin's examples.

    Args:
        confidences: floats `(count,)`, the largest probability of each example.
        right: booleans `(count,)`, whether that answer is right.
        bins: number of bins of equal width; bin `i` holds confidences in `(i / bins, (i + 1) / bins]`, the first one 0
            too.

    Raises:
        ValueError: a confidence is NaN or outside of [0, 1]; the shapes differ; the arrays are empty.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3; the bins' edges as in their code
    (gpleiss/temperature_scaling), unlike torchmetrics' `[i / bins, (i + 1) / bins)`.
    """
    confidences = np.asarray(confidences, np.float64)
    right = np.asarray(right, bool)
    if confidences.ndim != 1 or right.shape != confidences.shape or not confidences.size:
        raise ValueError(
            "`confidences` and `right` must have one shape (count,), at least one, got "
            f"{confidences.shape} and {right.shape}."
        )
    if not ((confidences >= 0) & (confidences <= 1 + SUM_TOLERANCE)).all():
        raise ValueError(f"`confidences` must be in [0, 1], got {confidences.min()} to {confidences.max()}.")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    confidence = np.bincount(place, confidences, bins)
    accuracy = np.bincount(place, right, bins)
    found = tuple(
        Bin(
            float(edges[index]),
            float(edges[index + 1]),
            int(count),
            _ratio(confidence[index], count),
            _ratio(accuracy[index], count),
        )
        for index, count in enumerate(counts)
    )
    return Calibration(float(np.abs(accuracy - confidence).sum() / len(place)), found)


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of the share `right / count` (Wilson 1927, no continuity correction)."""
    if not 0 <= right <= count or not count:
        raise ValueError(f"`right` must be in [0, count] and `count` at least 1, got {right} and {count}.")
    share, weight = right / count, Z95**2 / count
    center = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    return max(center - half, 0.0), min(center + half, 1.0)


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _chunks(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), CHUNK):
        yield start, rows[start : start + CHUNK]
