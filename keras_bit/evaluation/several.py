"""Evaluates a model for several labels per image."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_bit.evaluation import asking, label_metrics, metrics

if TYPE_CHECKING:
    from keras_bit.network.model import BiTModel


class LabelMistake(NamedTuple):
    """An image with some wrong labels."""

    name: str
    image: np.ndarray  # float32 (height, width, channels), the model's input
    true: tuple[str, ...]
    predicted: tuple[str, ...]
    log_loss: float  # the mean over its labels


@dataclasses.dataclass(frozen=True)
class SeveralEvaluation:
    """The result of `evaluate` for a model with several labels per image.

    Args:
        probabilities: float32 `(count, classes)`.
        labels: booleans `(count, classes)`.
        class_names: the names of the columns.
        worst: the images with wrong answers, the largest log loss first.
        report: the metrics for JSON. See `evaluate`.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    worst: tuple[LabelMistake, ...]
    report: dict[str, Any]


def evaluate_several(
    model: "BiTModel",
    batches: Iterable[tuple[Any, Any]],
    *,
    logits: bool,
    class_names: tuple[str, ...],
    names: Sequence[str] | None,
    progress: bool,
) -> SeveralEvaluation:
    """Runs the model on every image. See `evaluating.evaluate`.

    Args:
        logits: whether the model gives logits instead of probabilities.
        class_names: the names of the model's outputs.
    """
    classes = len(class_names)

    def checked(labels: np.ndarray, count: int) -> np.ndarray:
        if labels.shape != (count, classes) or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"`batches` must give rows of 0 and 1, {(count, classes)}, got {labels.dtype} of shape {labels.shape}."
                " Shares, as MixUp makes them, are neither right nor wrong. Evaluate without MixUp."
            )
        return labels.astype(bool)

    def scored(outputs: np.ndarray) -> np.ndarray:
        return _sigmoid(outputs) if logits else outputs

    def wrongness(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        wrong = ((scores >= label_metrics.THRESHOLD) != labels).any(axis=1)
        return np.where(wrong, label_metrics.log_losses(scores, labels), np.nan)

    probabilities, labels, worst = asking.ask(
        model, batches, names, progress=progress, checked=checked, scored=scored, wrongness=wrongness
    )

    def named(row: np.ndarray) -> tuple[str, ...]:
        return tuple(class_names[place] for place in np.flatnonzero(row))

    mistakes = tuple(
        LabelMistake(
            asking.name_of(index, names),
            image,
            named(labels[index]),
            named(probabilities[index] >= label_metrics.THRESHOLD),
            loss,
        )
        for loss, index, image in worst.worst_first()
    )
    report = _report(probabilities, labels, class_names, mistakes)
    return SeveralEvaluation(probabilities, labels, class_names, mistakes, report)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # With tanh, which never overflows.
    return (0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))).astype(np.float32)


def _report(
    probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], mistakes: Sequence[LabelMistake]
) -> dict[str, Any]:
    scores = label_metrics.label_scores(probabilities, labels)
    occurring = [score for score in scores if score.examples]
    said = probabilities >= label_metrics.THRESHOLD
    # Compares probabilities with the share of images that have the label, over all labels together.
    calibration = metrics.calibration(probabilities.ravel(), labels.ravel())
    return {
        "problem_type": asking.SEVERAL,
        "images": len(labels),
        "classes": len(class_names),
        "classes_that_occur": len(occurring),
        "mean_average_precision": _mean([score.average_precision for score in occurring]),
        "micro_f1": label_metrics.micro_f1(scores),
        "macro_f1": _mean([score.f1 for score in occurring]),
        "exact_match": float((said == labels).all(axis=1).mean()),
        "label_accuracy": float((said == labels).mean()),
        "log_loss": float(label_metrics.log_losses(probabilities, labels).mean()),
        "calibration": {
            "expected_calibration_error": calibration.error,
            "mean_confidence": float(probabilities.mean(dtype=np.float64)),
            "bins": [dataclasses.asdict(part) for part in calibration.bins],
        },
        "per_class": [{"class": name, **score._asdict()} for name, score in zip(class_names, scores, strict=True)],
        "worst": [
            {
                "name": mistake.name,
                "true": list(mistake.true),
                "predicted": list(mistake.predicted),
                "log_loss": mistake.log_loss,
            }
            for mistake in mistakes
        ],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
