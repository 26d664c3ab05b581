"""Evaluates a model on images with labels: its answers, metrics, and the worst mistakes."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_bit import wording
from keras_bit.counts import check_whole
from keras_bit.evaluation import asking, metrics
from keras_bit.evaluation.class_map import labels_of
from keras_bit.evaluation.numbers import NumberEvaluation, evaluate_numbers
from keras_bit.evaluation.several import SeveralEvaluation, evaluate_several

if TYPE_CHECKING:
    from keras_bit.network.model import BiTModel

ANOTHER = "(another class)"  # a class of the model that the data lacks


class Mistake(NamedTuple):
    """An image with a wrong answer."""

    name: str
    image: np.ndarray  # float32 (height, width, channels), the model's input
    true: str
    predicted: str
    probability: float  # of the prediction
    true_probability: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Args:
        probabilities: float32 `(count, classes)` over all classes of the model.
        labels: int64 `(count,)`, the numbers of the data's classes.
        predicted: int64 `(count,)`, the model's answers in the same numbers; `len(class_names)` for a class that the
            data lacks.
        class_names: the names of the data's classes.
        worst: the mistakes with the highest confidence, highest first.
        report: the metrics for JSON. See `evaluate`.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    class_names: tuple[str, ...]
    worst: tuple[Mistake, ...]
    report: dict[str, Any]

    def confusion(self) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        """Returns the confusion matrix of the classes that occur, with the names of its rows and columns.

        Predictions of classes that do not occur are in a last column, if there are any.
        """
        classes = len(self.class_names)
        occurring = np.unique(self.labels)
        place = np.full(classes + 1, len(occurring))
        place[occurring] = np.arange(len(occurring))
        matrix = metrics.confusion_matrix(place[self.labels], place[self.predicted], len(occurring) + 1)[:-1]
        names = tuple(self.class_names[index] for index in occurring)
        if not matrix[:, -1].any():
            return matrix[:, :-1], names, names
        return matrix, names, (*names, ANOTHER)


AnyEvaluation = Evaluation | SeveralEvaluation | NumberEvaluation


def evaluate(
    model: "BiTModel",
    batches: Iterable[tuple[Any, Any]],
    *,
    class_names: Sequence[str] | None = None,
    label_map: Sequence[Sequence[int]] | None = None,
    top_k: int = 5,
    names: Sequence[str] | None = None,
    progress: bool = True,
) -> AnyEvaluation:
    """Runs the model on every image and computes metrics.

    Args:
        model: a model of keras_bit with its head; `predictions` may give logits or probabilities (by a softmax, or for
            several labels by a sigmoid).
        batches: float32 images `(batch, height, width, channels)` and whole numbers `(batch,)`; for several labels rows
            of 0 and 1 `(batch, classes)`, for numbers floats `(batch,)` or `(batch, outputs)`. As from
            `keras_bit.image_dataset` for evaluation. They are read once.
        class_names: the names of the labels in `batches`; by default the model's own labels.
        label_map: for each label in `batches`, the model's classes that count as right, at least one. `None`: the
            labels are the model's classes. `class_map.match` makes it from folders' names.
        top_k: number of answers per image for `top_k_accuracy`, at most all classes.
        names: the names of the images, in order; the list may grow while `batches` is read. By default
            `batches.names`, or the numbers of the images from 0.
        progress: whether to show a bar with images per second after two seconds.

    Returns:
        For one class per image an `Evaluation`, whose `report` has

        * `images`, `classes` (of the model), `classes_that_occur`, `right`;
        * `top_1_accuracy` with `top_1_interval` (95 %, Wilson), `top_k_accuracy` with `top_k`, `mean_recall` (of the
          classes that occur), `log_loss` (nats): if several classes count as right, that of the likeliest one;
        * `calibration`: `expected_calibration_error`, `mean_confidence`, `bins`;
        * `per_class`: for every class that occurs, `class`, `examples`, `predicted`, `right`, `precision`, `recall`,
          `f1`;
        * `confusions`: `true`, `predicted`, `count` of every confusion, the most frequent first;
        * `worst`: `name`, `true`, `predicted`, `probability`, `true_probability` of the mistakes on the sheet.

        For several labels per image a `SeveralEvaluation`, whose `report` has

        * `problem_type`, `images`, `classes`, `classes_that_occur`;
        * `mean_average_precision` and `macro_f1` (of the classes that occur), `micro_f1`, `exact_match` (the share of
          images with all labels right), `label_accuracy`, `log_loss` (nats, the mean over labels); a label is predicted
          if its probability is at least 0.5;
        * `calibration`, of the probabilities of all labels together, compared with the share of images with the label;
        * `per_class`, as above, with `average_precision`; `worst`: `name`, `true`, `predicted`, `log_loss`.

        For a regression a `NumberEvaluation`, whose `report` has

        * `problem_type`, `images`, `outputs`;
        * `mean_absolute_error`, `root_mean_squared_error` and `r2`, each the mean over the outputs;
        * `per_output`: the same for each output, with `mean` and `standard_deviation` of the labels;
        * `worst`: `name`, `output`, `true`, `predicted` of the largest errors.

    Raises:
        ValueError: the model's head does not fit; a label is not one of the classes; the data set has other classes
            than the model, or no image; the model gives NaN.

    The numbers are checked against scikit-learn's `average_precision_score`, `f1_score` and `r2_score`.

    Memory holds the probabilities (for a moment twice), a batch and the worst mistakes.
    """
    check_whole("top_k", top_k)
    head = check_model(model)
    model_names = labels_of(model.config)
    names = getattr(batches, "names", None) if names is None else names
    if head.problem_type != asking.ONE:
        if label_map is not None:
            raise ValueError(
                f"`label_map` is for one class per image, got a model for {head.problem_type}. Leave it out."
            )
        outputs = asking.same_names(batches, class_names, model_names)
        if head.problem_type == asking.NUMBER:
            return evaluate_numbers(model, batches, class_names=outputs, names=names, progress=progress)
        return evaluate_several(model, batches, logits=head.logits, class_names=outputs, names=names, progress=progress)
    class_names = _told_apart(_class_names(batches, class_names, label_map, model_names, model.config.has_named_labels))
    model_names = _told_apart(model_names)
    accepted = _accepted(label_map, class_names, len(model_names))

    def wrongness(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        answers = metrics.predictions(probabilities)
        right = [answer in accepted[label] for answer, label in zip(answers.tolist(), labels.tolist(), strict=True)]
        return np.where(right, np.nan, probabilities.max(axis=1))

    probabilities, labels, worst = asking.ask(
        model,
        batches,
        names,
        progress=progress,
        checked=lambda given, count: _checked_labels(given, count, len(accepted)),
        scored=_softmax if head.logits else lambda given: given,
        wrongness=wrongness,
    )

    best = metrics.predictions(probabilities)
    predicted = _as_data_classes(best, labels, accepted)
    # The likeliest class that counts as right; without a map there is only one.
    likeliest = _likeliest(probabilities, labels, accepted)

    def said(index: int) -> str:
        return class_names[predicted[index]] if predicted[index] < len(class_names) else model_names[best[index]]

    mistakes = tuple(
        Mistake(
            name=asking.name_of(index, names),
            image=image,
            true=class_names[labels[index]],
            predicted=said(index),
            probability=probability,
            true_probability=float(probabilities[index, likeliest[index]]),
        )
        for probability, index, image in worst.worst_first()
    )
    evaluation = Evaluation(probabilities, labels, predicted, class_names, mistakes, {})
    wrong = np.flatnonzero(predicted != labels).tolist()
    mixed_up = Counter((class_names[labels[index]], said(index)) for index in wrong)
    return dataclasses.replace(evaluation, report=_report(evaluation, likeliest, top_k, mixed_up))


def check_model(model: "BiTModel") -> asking.Head:
    """Refuses a model without a head, or with another activation. Returns its kind of output.

    Raises:
        ValueError: it has no head, another activation, or only one class.
    """
    head = asking.head_of(model)
    if head.problem_type == asking.ONE and model.config.num_labels < 2:
        raise ValueError(
            "`model` must have at least two classes, got one. Use two outputs for two classes; one output is for "
            "several labels or a number, by `problem_type`."
        )
    return head


def _class_names(
    batches: Any,
    class_names: Sequence[str] | None,
    label_map: Sequence[Sequence[int]] | None,
    model_names: tuple[str, ...],
    named: bool,
) -> tuple[str, ...]:
    """Returns the names of the labels in `batches`."""
    own = getattr(batches, "class_names", None)
    expected = len(model_names) if label_map is None else len(label_map)
    numbers = tuple(str(index) for index in range(expected))
    if label_map is None and not class_names:
        if not own or tuple(own) == numbers:
            return model_names  # the labels are numbers of the model's classes
        if named and tuple(own) != model_names:
            # A directory's labels count its own folders; taken as the model's, they would be silently wrong.
            raise ValueError(
                f"`batches` must have the model's classes ({_some(model_names)}), got other class names "
                f"({_some(own)}). Pass `label_map=match(batches.class_names, model.config)`, with `match` from "
                "`keras_bit.evaluation.class_map`."
            )
    given = tuple(class_names or own or numbers)
    if len(given) != expected:
        what = "of the model's classes" if label_map is None else "of the labels in `label_map`"
        raise ValueError(f"`class_names` must be one for each {what}, {expected}, got {len(given)}: {_some(given)}.")
    return given


def _told_apart(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns unique names; equal ones get their numbers: ImageNet's `crane (134)` and `crane (517)`."""
    times = Counter(names)
    return tuple(f"{name} ({index})" if times[name] > 1 else name for index, name in enumerate(names))


def _some(names: Sequence[str]) -> str:
    return wording.some(map(repr, names), most=3)


def _accepted(
    label_map: Sequence[Sequence[int]] | None, class_names: tuple[str, ...], classes: int
) -> list[tuple[int, ...]]:
    """Returns for each of the data's classes the model's classes that are right, in order."""
    if label_map is None:
        return [(index,) for index in range(classes)]
    accepted = [tuple(sorted(set(map(int, right)))) for right in label_map]
    for name, right in zip(class_names, accepted, strict=True):
        if not right or right[0] < 0 or right[-1] >= classes:
            raise ValueError(
                f"`label_map` must give {name!r} at least one class, each in [0, {classes}), got {list(right)}."
            )
    return accepted


def _checked_labels(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`batches` must give a whole number for each image, {(count,)}, got {labels.dtype} of shape "
            f"{labels.shape}. Rows with a number per class, as MixUp makes them, have no single right answer. "
            "Evaluate without MixUp."
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"`batches` must give labels in [0, {classes}), got {labels.min()} to {labels.max()}: there are {classes} "
            "class names."
        )
    return labels.astype(np.int64)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)


def _as_data_classes(best: np.ndarray, labels: np.ndarray, accepted: list[tuple[int, ...]]) -> np.ndarray:
    """Converts the model's answers to the data's classes: the image's own if right, else the first possible one."""
    owner: dict[int, int] = {}
    for label, right in enumerate(accepted):
        for index in right:
            owner.setdefault(index, label)
    answers = zip(best.tolist(), labels.tolist(), strict=True)
    return np.array(
        [label if index in accepted[label] else owner.get(index, len(accepted)) for index, label in answers], np.int64
    )


def _likeliest(probabilities: np.ndarray, labels: np.ndarray, accepted: list[tuple[int, ...]]) -> np.ndarray:
    """Returns for each image the class with the highest probability among the right ones."""
    found = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows, right = np.flatnonzero(labels == label), np.array(accepted[label])
        found[rows] = right[probabilities[np.ix_(rows, right)].argmax(axis=1)]
    return found


def _report(evaluation: Evaluation, likeliest: np.ndarray, top_k: int, mixed_up: Counter) -> dict[str, Any]:
    probabilities, right = evaluation.probabilities, evaluation.predicted == evaluation.labels
    count, classes = probabilities.shape
    matrix, names, _ = evaluation.confusion()
    square = np.zeros((matrix.shape[1],) * 2, np.int64)
    square[: len(matrix)] = matrix
    scores = metrics.per_class(square)[: len(names)]
    confidences = probabilities.max(axis=1)
    calibration = metrics.calibration(confidences, right)
    return {
        "images": count,
        "classes": classes,
        "classes_that_occur": len(names),
        "right": int(right.sum()),
        "top_1_accuracy": metrics.top_k(probabilities, likeliest, 1),
        "top_1_interval": list(metrics.wilson_interval(int(right.sum()), count)),
        "top_k": min(top_k, classes),
        "top_k_accuracy": metrics.top_k(probabilities, likeliest, top_k),
        "mean_recall": float(np.mean([score.recall for score in scores])),
        "log_loss": metrics.log_loss(probabilities, likeliest),
        "calibration": {
            "expected_calibration_error": calibration.error,
            "mean_confidence": float(confidences.mean(dtype=np.float64)),
            "bins": [dataclasses.asdict(part) for part in calibration.bins],
        },
        "per_class": [{"class": name, **score._asdict()} for name, score in zip(names, scores, strict=True)],
        "confusions": [
            {"true": true, "predicted": predicted, "count": times}
            for (true, predicted), times in sorted(mixed_up.items(), key=lambda item: (-item[1], item[0]))
        ],
        "worst": [
            {key: value for key, value in mistake._asdict().items() if key != "image"} for mistake in evaluation.worst
        ],
    }
