"""Temperature scaling: makes a trained model's probabilities match how often it is right.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), section 4.2.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bit.evaluation import asking, label_metrics, metrics
from keras_bit.network.model import BiTModel
from keras_bit.network.plain_weights import quantization_of

CHUNK = 1024  # examples at a time, so that no second array as large as the logits is made
STEPS = 100  # at most; Newton's method takes about eight
PRECISION = 1e-10  # relative, of the temperature
LARGEST = 2.0**20  # the largest temperature; its inverse is the smallest one


class NotCalibratedWarning(UserWarning):
    """Issued if a data set has no best temperature, so that the model does not change."""


class Quality(NamedTuple):
    """The quality of probabilities: the expected calibration error in [0, 1], and the log loss in nats."""

    expected_calibration_error: float
    log_loss: float


@dataclasses.dataclass(frozen=True)
class TemperatureScaling:
    """The result of `calibrate`.

    Args:
        temperature: the divisor of the head's kernel and bias; 1 if they did not change.
        examples: number of images that it was fitted to.
        before, after: the quality of these images' probabilities before and after.
    """

    temperature: float
    examples: int
    before: Quality
    after: Quality

    def to_dict(self) -> dict[str, Any]:
        """Returns it as a dictionary for JSON."""
        return {
            "temperature": self.temperature,
            "examples": self.examples,
            "before": self.before._asdict(),
            "after": self.after._asdict(),
        }


def calibrate(model: BiTModel, data: Iterable[tuple[Any, Any]], *, progress: bool = True) -> TemperatureScaling:
    """Divides the head of a model by the temperature `T` that makes a data set's labels most probable.

    `T` minimizes the mean of `-log softmax(logits / T)[label]` or, for several labels, of the binary cross-entropy of
    `sigmoid(logits / T)`. The kernel and the bias of the layer `predictions` are divided by it, so every file and
    export of the model includes it. The predicted classes stay the same, because logits keep their order and their
    signs.

    Use images that were not trained on, such as the validation images. Only one number is fitted, so some hundred
    images are enough, and the errors `after` are representative of other images.

    Args:
        model: a model of keras_bit with its head, of any activation; it is changed. Calibrate before `fuse` if you want
            to save it. For a `BiTClassifier` pass `classifier.model`.
        data: preprocessed images `(batch, height, width, channels)` and labels, as from `image_dataset` for evaluation:
            whole numbers `(batch,)` or one-hot rows for one class per image, rows of 0 and 1 for several. It is read
            once.
        progress: whether to show a progress bar if it takes longer than two seconds.

    Returns:
        The temperature, and the expected calibration error (15 bins, as in `evaluate`) and the log loss before and
        after. If no temperature is best, because all answers are right or none is better than chance, it warns
        (`NotCalibratedWarning`) and does not change the model; the temperature is then 1.

    Raises:
        ValueError: the model predicts numbers, or its head is missing, quantized or has LoRA; the data has no images,
            no labels or labels that do not fit the model.

    Checked against torch's LBFGS, with which Guo's code (gpleiss/temperature_scaling) minimizes, and scipy's
    `minimize_scalar`.
    """
    kind = _check(model)
    logits, labels = _logits(model, data, kind, progress)
    try:
        temperature = fit_temperature(logits, labels)
    except NoTemperatureError as error:
        warnings.warn(f"The temperature stays 1: {error}", NotCalibratedWarning, stacklevel=2)
        temperature = 1.0
    before = _quality(logits, labels, 1.0)
    after = before if temperature == 1 else _quality(logits, labels, temperature)
    if temperature != 1:
        head = model.get_layer("predictions")
        for variable in head.weights:
            variable.assign(keras.ops.convert_to_numpy(variable).astype(np.float64) / temperature)
    return TemperatureScaling(temperature, len(logits), before, after)


class NoTemperatureError(ValueError):
    """No temperature is best for a data set; the message says why."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature that minimizes the log loss.

    With `b = 1 / T` the loss is convex in `b`. Newton's method finds the root of its derivative; a step out of the
    bounds is replaced by halving them.

    Args:
        logits: floats `(count, classes)`.
        labels: whole numbers `(count,)` for one class, or booleans `(count, classes)` for several.

    Raises:
        NoTemperatureError: the loss has no minimum at a finite temperature above 0.
    """
    slope = _several_slope if labels.ndim == 2 else _one_slope

    def at(inverse: float) -> tuple[float, float]:
        found = [slope(part, own, inverse) for part, own in _chunks(logits, labels)]
        return sum(first for first, _ in found) / len(logits), sum(second for _, second in found) / len(logits)

    if at(0.0)[0] >= 0:
        raise NoTemperatureError(
            f"the answers to {len(logits):,} images are not better than chance. "
            "Train the model longer, or check the labels."
        )
    low, high = 0.0, 1.0
    while at(high)[0] <= 0:
        low, high = high, 2 * high
        if high > LARGEST:
            raise NoTemperatureError(
                f"all answers to {len(logits):,} images are right, so the loss has no minimum. Use more images, or "
                "images that were not trained on."
            )
    inverse = high
    for _ in range(STEPS):
        first, second = at(inverse)
        low, high = (inverse, high) if first < 0 else (low, inverse)
        step = inverse - first / second if second > 0 else math.nan
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= PRECISION * inverse:
            break
        inverse = following
    if following < 1 / LARGEST:
        raise NoTemperatureError(
            f"the answers to {len(logits):,} images are not better than chance. "
            "Train the model longer, or check the labels."
        )
    return 1 / following


Slope = Callable[[np.ndarray, np.ndarray, float], tuple[float, float]]


def _one_slope(logits: np.ndarray, labels: np.ndarray, inverse: float) -> tuple[float, float]:
    """Returns the sums of the first and second derivative of `-log softmax(inverse * logits)[label]`."""
    scaled = inverse * (logits - logits.max(axis=1, keepdims=True))
    shares = np.exp(scaled)
    shares /= shares.sum(axis=1, keepdims=True)
    mean = (shares * logits).sum(axis=1)
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return float((mean - own).sum()), float((shares * (logits - mean[:, None]) ** 2).sum())


def _several_slope(logits: np.ndarray, labels: np.ndarray, inverse: float) -> tuple[float, float]:
    """Returns the sums of the first and second derivative of the binary cross-entropy of `sigmoid(inverse * logits)`.

    The cross-entropy of an image is the mean over its classes.
    """
    shares = _sigmoid(inverse * logits)
    first, second = logits * (shares - labels), logits**2 * shares * (1 - shares)
    return float(first.mean(axis=1).sum()), float(second.mean(axis=1).sum())


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * values)


def _chunks(logits: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(logits), CHUNK):
        yield logits[start : start + CHUNK].astype(np.float64), labels[start : start + CHUNK]


def _quality(logits: np.ndarray, labels: np.ndarray, temperature: float) -> Quality:
    """Returns the quality of the probabilities at a temperature, measured as `evaluate` does."""
    if labels.ndim == 2:
        probabilities = _sigmoid(logits.astype(np.float64) / temperature)
        error = metrics.calibration(probabilities.ravel(), labels.ravel()).error
        return Quality(error, float(label_metrics.log_losses(probabilities, labels).mean()))
    probabilities = np.empty_like(logits)
    for start, (part, _) in enumerate(_chunks(logits, labels)):
        scaled = np.exp((part - part.max(axis=1, keepdims=True)) / temperature)
        probabilities[start * CHUNK : start * CHUNK + len(part)] = scaled / scaled.sum(axis=1, keepdims=True)
    right = metrics.predictions(probabilities) == labels
    error = metrics.calibration(probabilities.max(axis=1), right).error
    return Quality(error, metrics.log_loss(probabilities, labels))


def _check(model: BiTModel) -> str:
    """Refuses a model that cannot be calibrated. Returns its problem type."""
    if not isinstance(model, BiTModel):
        raise ValueError(
            f"`model` must be a model of keras_bit, as from `keras_bit.from_pretrained`, got {type(model).__name__}. "
            "For a `BiTClassifier` pass `classifier.model`."
        )
    kind = asking.head_of(model).problem_type
    if kind == asking.NUMBER:
        raise ValueError("`model` must give probabilities, got one that predicts numbers (regression).")
    head = model.get_layer("predictions")
    if [id(output) for output in model.outputs] != [id(head.output)]:
        raise ValueError(
            "`model` must end in its head `predictions`, got one with layers after it. Pass the model without them."
        )
    if quantization_of(head):
        raise ValueError(
            f"`model` must have a head of floats, got a quantized one ({quantization_of(head)}). Calibrate it before "
            "`quantize`."
        )
    if getattr(head, "lora_enabled", False):
        raise ValueError(
            "`model` must have a head without LoRA, got one with it. Save and load the model, which merges LoRA, then "
            "calibrate."
        )
    return kind


def _logits(
    model: BiTModel, data: Iterable[tuple[Any, Any]], kind: str, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 logits of all images (computed from the features, for all digits), and their labels."""
    head = model.get_layer("predictions")
    features_of = keras.Model(model.input, head.input)
    kernel = keras.ops.convert_to_numpy(head.kernel).astype(np.float64)
    bias = 0.0 if head.bias is None else keras.ops.convert_to_numpy(head.bias).astype(np.float64)
    found, all_labels = [], []
    for images, given in asking.shown(_pairs(data), progress, "calibrate"):
        all_labels.append(_labels(asking.to_numpy(given), len(images), kernel.shape[1], kind))
        if keras.backend.backend() == "jax":
            # `predict_on_batch` would take the variables' arrays away from the model that shares them.
            features = features_of.predict(images, batch_size=len(images), verbose=0)
        else:
            features = features_of.predict_on_batch(images)
        found.append((np.asarray(features, np.float64) @ kernel + bias).astype(np.float32))
    if not found:
        raise ValueError("`data` must give at least one image, got none.")
    logits = np.concatenate(found)
    if (wrong := np.flatnonzero(~np.isfinite(logits).all(axis=1))).size:
        raise ValueError(f"`model` gives NaN or infinity for the image {wrong[0]}. Check its weights.")
    return logits, np.concatenate(all_labels)


def _pairs(data: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    for element in data:
        if not isinstance(element, tuple | list) or len(element) < 2:
            raise ValueError("`data` must give images and labels, got only images.")
        yield element[0], element[1]


def _labels(labels: np.ndarray, count: int, classes: int, kind: str) -> np.ndarray:
    """Returns whole numbers `(count,)`, or booleans `(count, classes)` for several labels."""
    rows = labels.shape == (count, classes) and bool(np.isin(labels, (0, 1)).all())
    if kind == asking.SEVERAL and rows:
        return labels.astype(bool)
    if kind == asking.ONE:
        if rows and (labels.sum(axis=1) == 1).all():
            return labels.argmax(axis=1)
        inside = labels.shape == (count,) and labels.dtype.kind in "iu" and ((labels >= 0) & (labels < classes)).all()
        if inside:
            return labels.astype(np.int64)
    wanted = (
        f"whole numbers (batch,) in [0, {classes})" if kind == asking.ONE else f"rows of 0 and 1 (batch, {classes})"
    )
    raise ValueError(f"`data` must give labels that are {wanted}, got {labels.dtype} of shape {labels.shape}.")
