"""Evaluates a model that predicts numbers."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_bit.evaluation import asking, label_metrics

if TYPE_CHECKING:
    from keras_bit.network.model import BiTModel


class NumberMistake(NamedTuple):
    """An image with a large error."""

    name: str
    image: np.ndarray  # float32 (height, width, channels), the model's input
    output: str
    true: float
    predicted: float


@dataclasses.dataclass(frozen=True)
class NumberEvaluation:
    """The result of `evaluate` for a model that predicts numbers.

    Args:
        predicted: float32 `(count, outputs)`.
        labels: float64 `(count, outputs)`.
        class_names: the names of the outputs.
        worst: the images with the largest errors, worst first, each with the output.
        report: the metrics for JSON. See `evaluate`.
    """

    predicted: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    worst: tuple[NumberMistake, ...]
    report: dict[str, Any]


def evaluate_numbers(
    model: "BiTModel",
    batches: Iterable[tuple[Any, Any]],
    *,
    class_names: tuple[str, ...],
    names: Sequence[str] | None,
    progress: bool,
) -> NumberEvaluation:
    """Runs the model on every image. See `evaluating.evaluate`.

    Args:
        class_names: the names of the model's outputs.
    """
    outputs = len(class_names)

    def checked(labels: np.ndarray, count: int) -> np.ndarray:
        fits = labels.shape == (count, outputs) or (outputs == 1 and labels.shape == (count,))
        if not fits or labels.dtype.kind not in "fiu" or not np.isfinite(labels).all():
            raise ValueError(
                f"`batches` must give {outputs} finite number{'s' * (outputs > 1)} for each image, got {labels.dtype} "
                f"of shape {labels.shape}."
            )
        return labels.astype(np.float64).reshape(count, outputs)

    def wrongness(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.abs(predicted - labels).max(axis=1)

    predicted, labels, worst = asking.ask(
        model, batches, names, progress=progress, checked=checked, scored=lambda given: given, wrongness=wrongness
    )
    mistakes = []
    for _, index, image in worst.worst_first():
        place = int(np.abs(predicted[index] - labels[index]).argmax())
        values = float(labels[index, place]), float(predicted[index, place])
        mistakes.append(NumberMistake(asking.name_of(index, names), image, class_names[place], *values))
    report = _report(predicted, labels, class_names, mistakes)
    return NumberEvaluation(predicted, labels, class_names, tuple(mistakes), report)


def _report(
    predicted: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], mistakes: Sequence[NumberMistake]
) -> dict[str, Any]:
    scores = [label_metrics.number_score(*columns) for columns in zip(predicted.T, labels.T, strict=True)]
    known = [score.r2 for score in scores if score.r2 is not None]
    return {
        "problem_type": asking.NUMBER,
        "images": len(labels),
        "outputs": len(class_names),
        "mean_absolute_error": float(np.mean([score.mean_absolute_error for score in scores])),
        "root_mean_squared_error": float(np.mean([score.root_mean_squared_error for score in scores])),
        "r2": float(np.mean(known)) if known else None,
        "per_output": [
            {
                "output": name,
                **score._asdict(),
                "mean": float(column.mean()),
                "standard_deviation": float(column.std()),
            }
            for name, score, column in zip(class_names, scores, labels.T, strict=True)
        ],
        "worst": [{key: value for key, value in mistake._asdict().items() if key != "image"} for mistake in mistakes],
    }
