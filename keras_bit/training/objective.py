"""The loss and the metrics of fine-tuning, and the conversion of labels for them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bit.network.model import BiTModel
from keras_bit.network.problem_types import NUMBER, ONE, SEVERAL
from keras_bit.network.weights import HEAD
from keras_bit.training import feeding
from keras_bit.training.feeding import Labels
from keras_bit.training.units import Units, UnitsMeanAbsoluteError
from keras_bit.wording import some

TOP_5 = "top_5_accuracy"
ACTIVATIONS = {ONE: "softmax", SEVERAL: "sigmoid", NUMBER: None}  # of the head; each can also be trained on logits


_TWO_CLASSES = (
    "For two classes, use two outputs, `classes=2`. To predict a number, use `problem_type='regression'` and a head "
    "without activation."
)


class Objective(NamedTuple):
    """A loss and metrics."""

    problem_type: str
    loss: keras.losses.Loss
    metrics: list[keras.metrics.Metric]
    one_hot: bool  # whether labels are rows with a number per class, one-hot or mixed
    units: Units | None = None  # of numbers to predict, in training


def objective(model: BiTModel, labels: Sequence[Labels], label_smoothing: float = 0.0) -> Objective:
    """Returns loss and metrics for a model and its labels.

    Args:
        label_smoothing: the share of a label that is spread over all classes; it makes labels rows.

    Raises:
        ValueError: the head, the problem type and the labels do not fit.
    """
    kind, count = problem_type(model), model.config.num_labels
    logits = _gives_logits(model, kind)
    for label in labels:
        _check_labels(label, kind, count, whole=model.config.problem_type == NUMBER)
    if kind == NUMBER:
        return Objective(kind, keras.losses.MeanSquaredError(), [keras.metrics.MeanAbsoluteError()], one_hot=False)
    if kind == SEVERAL:
        return _of_several_at_once(count, logits, label_smoothing)
    one_hot = label_smoothing > 0 or any(len(label.shape) == 2 for label in labels)
    is_ranked = _is_ranked(count, model.get_layer(HEAD).compute_dtype)
    return _of_one_of_several(logits, is_ranked, one_hot, label_smoothing)


def in_units(found: Objective, units: Units | None) -> Objective:
    """Returns an objective for numbers in the units of the training; `None` leaves them as they are."""
    if units is None:
        return found
    return found._replace(metrics=[UnitsMeanAbsoluteError(units.deviation.tolist())], units=units)


def metric_names(kind: str, classes: int, compute_dtype: str) -> list[str]:
    """Returns the names of the metrics for a problem type, for every form of labels.

    Args:
        classes: the number of classes or outputs.
        compute_dtype: the type in which the head computes.
    """
    ranked = [TOP_5] if _is_ranked(classes, compute_dtype) else []
    names = {ONE: ["accuracy", *ranked], SEVERAL: ["binary_accuracy", "auc"], NUMBER: ["mean_absolute_error"]}
    return names[kind]


def _is_ranked(classes: int, compute_dtype: str) -> bool:
    return classes > 5 and compute_dtype != "float64"  # for which TensorFlow has no top-k


def problem_type(model: BiTModel) -> str:
    """Returns the model's problem type, or the one that transformers would assume."""
    return model.config.problem_type or (NUMBER if model.config.num_labels == 1 else ONE)


def with_labels(data: Any, labels: Labels, classes: int, found: Objective) -> Any:
    """Converts a data set's labels for the loss; an invalid label raises.

    Args:
        data: a `tf.data.Dataset` or a `keras.utils.PyDataset`.
        labels: the kind of its labels.
        classes: the number of classes of the model.
        found: the form that the loss takes.
    """
    if found.problem_type == NUMBER:
        return _with_numbers(data, labels, found.units)
    several = found.problem_type == SEVERAL
    if not several and not (labels.is_integer and len(labels.shape) == 1):
        return data
    # An invalid label must raise here, because some losses give NaN for it, and others the loss of another class.
    if several:
        message = "Labels of several classes must be rows of numbers in [0, 1], got:"
    else:
        message = f"Labels must be classes of the model, [0, {classes}), got:"

    def in_graph(images: Any, labels: Any, *weights: Any) -> tuple[Any, ...]:
        import tensorflow as tf

        rows = tf.cast(labels, tf.float32)
        wrong = ~((rows >= 0) & (rows <= 1)) if several else (labels < 0) | (labels >= classes)
        inside = tf.debugging.Assert(~tf.reduce_any(wrong), [message, labels[wrong]])
        with tf.control_dependencies([inside]):
            return images, tf.one_hot(labels, classes) if found.one_hot else tf.identity(labels), *weights

    def in_numpy(images: Any, labels: Any, *weights: Any) -> tuple[Any, ...]:
        labels = np.asarray(labels)
        wrong = ~((labels >= 0) & (labels <= 1)) if several else (labels < 0) | (labels >= classes)
        if wrong.any():
            raise ValueError(f"{message} {some(labels[wrong].tolist())}")
        return images, np.eye(classes, dtype=np.float32)[labels] if found.one_hot else labels, *weights

    return feeding.mapped(data, in_graph, in_numpy)


def _with_numbers(data: Any, labels: Labels, units: Units | None) -> Any:
    """Converts numbers to predict to floats in the units of the training."""
    if units is None and labels.is_float:
        return data

    def in_graph(images: Any, labels: Any, *weights: Any) -> tuple[Any, ...]:
        import tensorflow as tf

        return images, tf.cast(labels, tf.float32) if units is None else units.of(labels), *weights

    def in_numpy(images: Any, labels: Any, *weights: Any) -> tuple[Any, ...]:
        labels = np.asarray(labels)
        return images, labels.astype(np.float32) if units is None else units.of(labels), *weights

    return feeding.mapped(data, in_graph, in_numpy)


def _of_several_at_once(count: int, logits: bool, smoothing: float) -> Objective:
    # The metric cannot take logits; a logit of 0 is a probability of one half.
    metrics = [
        keras.metrics.BinaryAccuracy("binary_accuracy", threshold=0.0 if logits else 0.5),
        keras.metrics.AUC(curve="PR", name="auc", multi_label=True, num_labels=count, from_logits=logits),
    ]
    loss = keras.losses.BinaryCrossentropy(from_logits=logits, label_smoothing=smoothing)
    return Objective(SEVERAL, loss, metrics, one_hot=False)


def _of_one_of_several(logits: bool, ranked: bool, one_hot: bool, smoothing: float) -> Objective:
    if one_hot:
        loss = keras.losses.CategoricalCrossentropy(from_logits=logits, label_smoothing=smoothing)
        accuracy, top = keras.metrics.CategoricalAccuracy, keras.metrics.TopKCategoricalAccuracy
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
        accuracy, top = keras.metrics.SparseCategoricalAccuracy, keras.metrics.SparseTopKCategoricalAccuracy
    metrics = [accuracy("accuracy"), *([top(5, TOP_5)] if ranked else [])]
    return Objective(ONE, loss, metrics, one_hot)


def _gives_logits(model: BiTModel, kind: str) -> bool:
    head = model.get_layer(HEAD)
    activation = None if head.activation is keras.activations.linear else head.activation.__name__
    if activation not in (ACTIVATIONS[kind], None):
        advice = "Pass classifier_activation='auto' or None, or another `problem_type`."
        if model.config.num_labels == 1:
            advice = _TWO_CLASSES
        raise ValueError(
            f"`model` must have a head that gives {ACTIVATIONS[kind] or 'plain numbers'} or logits for {kind}, got "
            f"{activation}. {advice}"
        )
    return activation is None


def _check_labels(label: Labels, kind: str, count: int, whole: bool) -> None:
    """Refuses labels that do not fit the problem type and the outputs.

    Args:
        whole: whether whole numbers may be meant for regression. For a model with one output and no problem type they
            could also be two classes.
    """
    is_row = len(label.shape) == 2
    width = label.shape[-1] if is_row else None
    fits = {
        ONE: is_row or label.is_integer,
        SEVERAL: is_row,
        NUMBER: (whole or label.is_float) and (is_row or count == 1),
    }
    if len(label.shape) in (1, 2) and fits[kind] and width in (None, count):
        return
    wanted = {
        ONE: f"whole numbers (batch,) or rows (batch, {count})",
        SEVERAL: f"rows of 0 and 1 (batch, {count})",
        NUMBER: "floats " + ("(batch,)" if count == 1 else f"(batch, {count})"),
    }
    advice = "Load the model with `classes=` for another number of classes."
    if count == 1 and not label.is_float:
        advice = _TWO_CLASSES
    raise ValueError(
        f"Labels must be {wanted[kind]}, for {kind} with {count} outputs, got {label.dtype} {label.shape}. {advice}"
    )
