"""The loss of `BitForImageClassification`, by `problem_type`, as in transformers."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.network.config import BitConfig

IGNORED = -100  # a label that is ignored; `torch.nn.functional.cross_entropy`'s `ignore_index`
WHOLE = ("int32", "int64")  # torch's `int` and `long`: labels that are classes
ONE, SEVERAL, NUMBERS = "single_label_classification", "multi_label_classification", "regression"


def loss_of(logits: Any, labels: Any, config: BitConfig) -> Any:
    """Returns the mean loss of a batch, a scalar.

    * `"regression"`: the mean of `(logits - labels) ** 2`; with one label per image `labels` may be `(batch,)`.
    * `"single_label_classification"`: the mean cross entropy of the images whose label is not -100.
    * `"multi_label_classification"`: the mean over all labels of the binary cross entropy of `sigmoid(logits)`.

    Args:
        logits: `(batch, num_labels)`.
        labels: `(batch,)` classes of int32 or int64 in [0, num_labels); or `(batch, num_labels)` numbers, in [0, 1] for
            several labels at once. In a tensor, a class outside of its range makes the loss NaN.
        config: the configuration, whose `problem_type` counts. If it has none, `problem_type_of` decides.

    Raises:
        ValueError: the labels' shape or dtype does not fit, or a class in an array or a list is out of range.

    Checked against transformers 5.24 `loss/loss_utils.py` `ForSequenceClassificationLoss`, with torch's gradients.
    """
    on_host = None if ops.is_tensor(labels) else np.asarray(labels)
    labels = ops.convert_to_tensor(labels)
    dtype = keras.backend.standardize_dtype(labels.dtype)
    kind = config.problem_type or problem_type_of(config.num_labels, dtype)
    if kind == ONE:
        _check_classes(on_host, dtype, config.num_labels)
        flat = ops.reshape(labels, (-1,))
        _check_shape(flat, tuple(logits.shape[:1]), kind, dtype, given=tuple(labels.shape))
        return _cross_entropy(logits, flat, config.num_labels)
    if kind == NUMBERS and config.num_labels == 1:
        logits, labels = ops.reshape(logits, (-1,)), ops.reshape(labels, (-1,))
    _check_shape(labels, tuple(logits.shape), kind, dtype)
    labels = ops.cast(labels, logits.dtype)
    if kind == NUMBERS:
        return ops.mean(ops.square(logits - labels))
    return ops.mean(ops.binary_crossentropy(labels, logits, from_logits=True))


def problem_type_of(num_labels: int, dtype: str) -> str:
    """Returns the problem type that transformers assumes without `problem_type`."""
    if num_labels == 1:
        return NUMBERS
    return ONE if num_labels > 1 and dtype in WHOLE else SEVERAL


def _cross_entropy(logits: Any, labels: Any, num_labels: int) -> Any:
    counted = labels != IGNORED
    inside = (labels >= 0) & (labels < num_labels)
    # For a class out of range some backends raise, and others give NaN or 0. Here the loss is always NaN.
    one_hot = ops.one_hot(ops.where(inside, labels, 0), num_labels, dtype=logits.dtype)
    losses = -ops.sum(one_hot * ops.log_softmax(logits, axis=-1), axis=-1)
    losses = ops.where(inside, losses, ops.cast(float("nan"), losses.dtype))
    losses = ops.where(counted, losses, ops.zeros_like(losses))
    return ops.sum(losses) / ops.sum(ops.cast(counted, losses.dtype))


def _check_classes(labels: np.ndarray | None, dtype: str, num_labels: int) -> None:
    if not dtype.startswith(("int", "uint")):
        raise ValueError(f"`labels` must be whole numbers for {ONE}, one class per image, got {dtype}.")
    if labels is None:
        return
    wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= num_labels))]
    if wrong.size:
        raise ValueError(
            f"`labels` must be classes of the model, 0 to {num_labels - 1}, or {IGNORED} for an ignored image, got "
            f"{wrong.flat[0]}."
        )


def _check_shape(
    labels: Any, expected: tuple[int | None, ...], kind: str, dtype: str, given: tuple[int | None, ...] | None = None
) -> None:
    """Refuses labels of another shape than `expected`; `given` is their shape before flattening."""
    found = tuple(labels.shape)
    known = len(found) == len(expected) and all(
        size == wanted or not isinstance(size, int) or not isinstance(wanted, int)  # a graph may not know them
        for size, wanted in zip(found, expected, strict=True)
    )
    if known:
        return
    advice = ""
    if kind == SEVERAL:
        advice = f" Make classes int32 or int64, or pass `problem_type={ONE!r}`."
    elif kind == ONE and given is not None and len(given) > 1:
        advice = f" Make rows of numbers floats, or pass `problem_type={SEVERAL!r}`."
    raise ValueError(
        f"`labels` must have the shape {expected} for {kind}, got {dtype} {found if given is None else given}.{advice}"
    )
