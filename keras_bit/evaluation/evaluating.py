"""How good a model is on images with labels: its answers, the numbers, and the worst mistakes."""

import dataclasses
import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_bit import files
from keras_bit.counts import check_whole
from keras_bit.evaluation import metrics
from keras_bit.evaluation.class_map import labels_of

if TYPE_CHECKING:
    from keras_bit.network.model import BiTModel

WORST = 24  # mistakes on the sheet
ANOTHER = "(another class)"  # a class of the model that is not one of the data's


class Mistake(NamedTuple):
    """An image that was answered wrongly."""

    name: str
    image: np.ndarray  # float32 (height, width, channels), as the model got it
    true: str
    predicted: str
    probability: float  # of the prediction
    true_probability: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Args:
        probabilities: float32 `(count, classes)` over all classes of the model.
        labels: int64 `(count,)`, what each image is, as the data counts its classes.
        predicted: int64 `(count,)`, what the model says, counted alike; `len(class_names)` for a class of the model
            that is not one of the data's.
        class_names: of the data's classes.
        worst: the mistakes that the model was surest of, the surest first.
        report: the numbers, as JSON has them. See `evaluate`.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    class_names: tuple[str, ...]
    worst: tuple[Mistake, ...]
    report: dict[str, Any]

    def confusion(self) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        """The confusion matrix of the classes that occur, with the names of its rows and of its columns.

        What is taken for a class that does not occur stands in a last column, where there is such a thing.
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


def evaluate(
    model: "BiTModel",
    batches: Iterable[tuple[Any, Any]],
    *,
    class_names: Sequence[str] | None = None,
    label_map: Sequence[Sequence[int]] | None = None,
    top_k: int = 5,
    names: Sequence[str] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Asks the model about every image and counts.

    Args:
        model: a single-label classifier of keras_bit with its head; `predictions` may end in a softmax or in logits.
        batches: float32 images `(batch, height, width, channels)` and whole numbers `(batch,)`, as
            `keras_bit.image_dataset` gives them for evaluation. Read once.
        class_names: of the labels in `batches`; the model's own labels by default.
        label_map: for each of the labels in `batches`, the classes of the model that count as right, at least one.
            `None`: the labels are the model's classes. `class_map.match` finds it from folders' names.
        top_k: how many answers the image may have for `top_k_accuracy`; all, if the model has fewer classes.
        names: of the images, in the order in which they come; a list that grows as `batches` is read will do. By
            default `batches.names`, or their numbers from 0 on.
        progress: whether to show a bar with images per second, where it takes longer than two seconds.

    Returns:
        An `Evaluation`, whose `report` has

        * `pictures`, `classes` (of the model), `classes_that_occur`, `right`;
        * `top_1_accuracy` with `top_1_interval` (95 %, Wilson), `top_k_accuracy` with `top_k`, `mean_recall` (of the
          classes that occur), `log_loss` (nats): where several classes count as right, of the likeliest of them;
        * `calibration`: `expected_calibration_error`, `mean_confidence`, `bins`;
        * `per_class`: of every class that occurs `class`, `examples`, `predicted`, `right`, `precision`, `recall`,
          `f1`;
        * `confusions`: `true`, `predicted`, `count` of every mix-up, the most frequent first;
        * `worst`: `name`, `true`, `predicted`, `probability`, `true_probability` of the mistakes on the sheet.

    Raises:
        ValueError: the model is not a single-label classifier; a label is not one of the classes; the data set names
            other classes than the model; there is no image; the model gives NaN.

    Memory holds the probabilities (for a moment twice), a batch and the worst mistakes.
    """
    check_whole("top_k", top_k)
    logits = check_model(model)
    model_names = labels_of(model.config)
    class_names = _told_apart(_class_names(batches, class_names, label_map, model_names, model.config.has_named_labels))
    model_names = _told_apart(model_names)
    accepted = _accepted(label_map, class_names, len(model_names))
    names = getattr(batches, "names", None) if names is None else names

    probabilities, labels, worst = _ask(model, _shown(batches, progress), logits, accepted, names)
    if names is not None and len(names) != len(labels):
        raise ValueError(f"`names` must be one for each of the {len(labels):,} images, got {len(names):,}.")

    best = metrics.predictions(probabilities)
    predicted = _as_data_classes(best, labels, accepted)
    # The likeliest of the classes that count as right; without a map there is one.
    likeliest = _likeliest(probabilities, labels, accepted)

    def said(index: int) -> str:
        return class_names[predicted[index]] if predicted[index] < len(class_names) else model_names[best[index]]

    mistakes = tuple(
        Mistake(
            name=str(index) if names is None else str(names[index]),
            image=image,
            true=class_names[labels[index]],
            predicted=said(index),
            probability=probability,
            true_probability=float(probabilities[index, likeliest[index]]),
        )
        for probability, index, image in worst.surest_first()
    )
    evaluation = Evaluation(probabilities, labels, predicted, class_names, mistakes, {})
    wrong = np.flatnonzero(predicted != labels).tolist()
    mixed_up = Counter((class_names[labels[index]], said(index)) for index in wrong)
    return dataclasses.replace(evaluation, report=_report(evaluation, likeliest, top_k, mixed_up))


def check_model(model: "BiTModel") -> bool:
    """Refuses what is not a single-label classifier. Returns whether it gives logits, not probabilities."""
    head = next((layer for layer in model.layers if layer.name == "predictions"), None)
    if head is None:
        raise ValueError("`model` must have its head `predictions`, got one without. Build it with include_top=True.")
    config = model.config
    if config.problem_type in ("multi_label_classification", "regression") or config.num_labels < 2:
        raise ValueError(
            "`model` must tell classes apart, of which each image has one: there is no accuracy otherwise. Got "
            f"problem_type {config.problem_type!r} with {config.num_labels} label{'s' * (config.num_labels != 1)}. "
            "`model.compile(loss=..., metrics=...)` and `model.evaluate(image_dataset(...))` measure others: "
            "keras.metrics.AUC(curve='PR', multi_label=True) for several labels, MeanAbsoluteError for numbers."
        )
    activation = getattr(head.activation, "__name__", repr(head.activation))
    if activation not in ("softmax", "linear"):
        raise ValueError(
            f"`model` must give probabilities by a softmax, or logits; got a head with {activation}. Build it with "
            "classifier_activation='softmax'."
        )
    return activation == "linear"


class _Worst:
    """The wrong answers that a model was surest of, `WORST` at most, each with its image."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, np.ndarray]] = []

    def add(self, probability: float, index: int, image: np.ndarray) -> None:
        # The number decides between equal ones, so that no images are compared: the earlier stays.
        place = (probability, -index)
        if len(self._heap) < WORST:
            heapq.heappush(self._heap, (*place, image.copy()))  # a view would keep its whole batch
        elif place > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (*place, image.copy()))

    def surest_first(self) -> list[tuple[float, int, np.ndarray]]:
        """Probability, number of the image, image."""
        ordered = sorted(self._heap, reverse=True, key=lambda item: item[:2])
        return [(probability, -minus_index, image) for probability, minus_index, image in ordered]


def _ask(
    model: "BiTModel",
    batches: Iterable[tuple[np.ndarray, Any]],
    logits: bool,
    accepted: list[tuple[int, ...]],
    names: Sequence[str] | None,
) -> tuple[np.ndarray, np.ndarray, _Worst]:
    """The model's probabilities for every image, the images' labels, and the worst mistakes."""
    found, all_labels, worst, count = [], [], _Worst(), 0
    for images, given in batches:
        labels = _checked_labels(given, images, len(accepted))
        probabilities = np.asarray(_to_numpy(model.predict_on_batch(images)), np.float32)
        if logits:
            probabilities = _softmax(probabilities)
        if (nan := np.flatnonzero(np.isnan(probabilities).any(axis=1))).size:
            which = count + int(nan[0]) if names is None else names[count + int(nan[0])]
            raise ValueError(f"`model` gives NaN for the image {which}. Check its weights, and the range of float16.")
        for index, predicted in enumerate(metrics.predictions(probabilities)):
            if predicted not in accepted[labels[index]]:
                worst.add(float(probabilities[index, predicted]), count + index, images[index])
        found.append(probabilities)
        all_labels.append(labels)
        count += len(labels)
    if not count:
        raise ValueError("`batches` must give at least one image, got none.")
    return np.concatenate(found), np.concatenate(all_labels), worst


def _class_names(
    batches: Any,
    class_names: Sequence[str] | None,
    label_map: Sequence[Sequence[int]] | None,
    model_names: tuple[str, ...],
    named: bool,
) -> tuple[str, ...]:
    """What the labels in `batches` are called."""
    own = getattr(batches, "class_names", None)
    expected = len(model_names) if label_map is None else len(label_map)
    numbers = tuple(str(index) for index in range(expected))
    if label_map is None and not class_names:
        if not own or tuple(own) == numbers:
            return model_names  # the labels are numbers of the model's classes
        if named and tuple(own) != model_names:
            # A directory's labels count its own folders: taken for the model's they would be wrong without a sign.
            raise ValueError(
                f"`batches` must count the model's classes ({_some(model_names)}), got other class names "
                f"({_some(own)}). Pass `label_map=class_map.match(batches.class_names, model.config)`."
            )
    given = tuple(class_names or own or numbers)
    if len(given) != expected:
        what = "of the model's classes" if label_map is None else "of the labels in `label_map`"
        raise ValueError(f"`class_names` must be one for each {what}, {expected}, got {len(given)}: {_some(given)}.")
    return given


def _told_apart(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, where several classes have one with their numbers: ImageNet's `crane (134)` and `crane (517)`."""
    times = Counter(names)
    return tuple(f"{name} ({index})" if times[name] > 1 else name for index, name in enumerate(names))


def _some(names: Sequence[str]) -> str:
    return files.some(map(repr, names), most=3)


def _accepted(
    label_map: Sequence[Sequence[int]] | None, class_names: tuple[str, ...], classes: int
) -> list[tuple[int, ...]]:
    """For each of the data's classes, the model's classes that are right, in order."""
    if label_map is None:
        return [(index,) for index in range(classes)]
    accepted = [tuple(sorted(set(map(int, right)))) for right in label_map]
    for name, right in zip(class_names, accepted, strict=True):
        if not right or right[0] < 0 or right[-1] >= classes:
            raise ValueError(
                f"`label_map` must give {name!r} at least one class, each in [0, {classes}), got {list(right)}."
            )
    return accepted


def _shown(batches: Iterable[tuple[Any, Any]], progress: bool) -> Iterable[tuple[np.ndarray, Any]]:
    from tqdm import tqdm

    count = getattr(batches, "num_images", None)
    with tqdm(desc="evaluate", total=count, unit=" images", delay=2, leave=False, disable=not progress) as bar:
        for images, labels in batches:
            images = _to_numpy(images)
            yield images, labels
            bar.update(len(images))


def _to_numpy(values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "numpy"):  # TensorFlow's tensors, which under another backend are not Keras'
        return values.numpy()
    import keras

    return keras.ops.convert_to_numpy(values)


def _checked_labels(labels: Any, images: np.ndarray, classes: int) -> np.ndarray:
    labels = _to_numpy(labels) if not isinstance(labels, list | tuple) else np.array(labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`batches` must give a whole number for each image, {(len(images),)}, got {labels.dtype} of shape "
            f"{labels.shape}. Rows with a number per class, as MixUp makes them, have no one right answer."
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
    """The model's answers as the data's classes: the image's own where that is right, else the first it can be."""
    owner: dict[int, int] = {}
    for label, right in enumerate(accepted):
        for index in right:
            owner.setdefault(index, label)
    answers = zip(best.tolist(), labels.tolist(), strict=True)
    return np.array(
        [label if index in accepted[label] else owner.get(index, len(accepted)) for index, label in answers], np.int64
    )


def _likeliest(probabilities: np.ndarray, labels: np.ndarray, accepted: list[tuple[int, ...]]) -> np.ndarray:
    """Of the classes that are right for each image, the one that the model thinks likeliest."""
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
        "pictures": count,
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
