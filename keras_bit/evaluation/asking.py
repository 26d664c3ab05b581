"""Runs a model on every image of a data set, and collects its answers, the labels, and its worst mistakes."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_bit import wording
from keras_bit.network.problem_types import NUMBER, ONE, SEVERAL

if TYPE_CHECKING:
    from keras_bit.network.model import BiTModel

WORST = 24  # mistakes on the sheet
ACTIVATIONS = {ONE: "softmax", SEVERAL: "sigmoid", NUMBER: "linear"}  # of the head; logits are allowed too


class Head(NamedTuple):
    """A model's kind of output: `problem_type`, one of transformers' three, and whether it gives logits."""

    problem_type: str
    logits: bool


def head_of(model: "BiTModel") -> Head:
    """Returns the kind of output of a model's head.

    Raises:
        ValueError: the model has no head, or the head's activation does not fit the problem type.
    """
    from keras_bit.network.model import head_activation

    head = next((layer for layer in model.layers if layer.name == "predictions"), None)
    if head is None:
        raise ValueError(
            "`model` must have the head `predictions`, got a model without it. Build it with include_top=True."
        )
    expected = head_activation(model.config) or "linear"
    kind = next(kind for kind, activation in ACTIVATIONS.items() if activation == expected)
    activation = getattr(head.activation, "__name__", repr(head.activation))
    if activation not in (expected, "linear"):
        scores = "plain numbers" if kind == NUMBER else f"probabilities by a {expected}, or logits,"
        raise ValueError(
            f"`model` must give {scores} for {kind}, got a head with {activation}. Build it with "
            f"classifier_activation={None if kind == NUMBER else expected!r}."
        )
    return Head(kind, activation == "linear" and kind != NUMBER)


class Worst:
    """The images with a model's worst mistakes, at most `WORST`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, np.ndarray]] = []

    def add(self, wrongness: float, index: int, image: np.ndarray) -> None:
        # The number decides between equal ones, so that images are never compared, and the earlier one stays.
        place = (wrongness, -index)
        if len(self._heap) < WORST:
            heapq.heappush(self._heap, (*place, image.copy()))  # a view would keep its whole batch in memory
        elif place > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (*place, image.copy()))

    def worst_first(self) -> list[tuple[float, int, np.ndarray]]:
        """Yields wrongness, number of the image, and image."""
        ordered = sorted(self._heap, reverse=True, key=lambda item: item[:2])
        return [(wrongness, -minus_index, image) for wrongness, minus_index, image in ordered]


def ask(
    model: "BiTModel",
    batches: Iterable[tuple[Any, Any]],
    names: Sequence[str] | None,
    *,
    progress: bool,
    checked: Callable[[np.ndarray, int], np.ndarray],
    scored: Callable[[np.ndarray], np.ndarray],
    wrongness: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, Worst]:
    """Returns the model's scores for every image, the images' labels, and the worst mistakes.

    Args:
        names: the names of the images; the list may grow while `batches` is read.
        progress: whether to show a bar.
        checked: a function from labels and the number of images to checked labels; raises for invalid ones.
        scored: a function from the model's output, float32 `(batch, outputs)`, to scores.
        wrongness: a function from scores and labels to a number for each image; NaN for a correct answer.

    Raises:
        ValueError: `batches` has no image, the model gives NaN, or the number of `names` is wrong.
    """
    found, all_labels, worst, count = [], [], Worst(), 0
    for images, given in shown(batches, progress):
        labels = checked(to_numpy(given) if not isinstance(given, list | tuple) else np.array(given), len(images))
        scores = scored(np.asarray(to_numpy(model.predict_on_batch(images)), np.float32))
        if (nan := np.flatnonzero(np.isnan(scores).any(axis=1))).size:
            which = count + int(nan[0]) if names is None else names[count + int(nan[0])]
            raise ValueError(f"`model` gives NaN for the image {which}. Check its weights, and the range of float16.")
        for index, wrong in enumerate(wrongness(scores, labels)):
            if not np.isnan(wrong):
                worst.add(float(wrong), count + index, images[index])
        found.append(scores)
        all_labels.append(labels)
        count += len(labels)
    if not count:
        raise ValueError("`batches` must give at least one image, got none.")
    if names is not None and len(names) != count:
        raise ValueError(f"`names` must be one for each of the {count:,} images, got {len(names):,}.")
    return np.concatenate(found), np.concatenate(all_labels), worst


def name_of(index: int, names: Sequence[str] | None) -> str:
    return str(index) if names is None else str(names[index])


def same_names(batches: Any, class_names: Sequence[str] | None, model_names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the outputs, which must be those of the data's columns, in order.

    Raises:
        ValueError: the data has other names.
    """
    own = getattr(batches, "class_names", None)
    given = tuple(class_names or own or model_names)
    numbers = tuple(map(str, range(len(model_names))))
    if len(given) != len(model_names) or (class_names is None and given not in (model_names, numbers)):
        raise ValueError(
            f"`batches` must have the model's labels in their order ({wording.some(map(repr, model_names), 3)}), got "
            f"{wording.some(map(repr, given), 3)}. Pass `class_names=` to `image_dataset`, in the model's order."
        )
    return given if class_names is not None else model_names


def shown(
    batches: Iterable[tuple[Any, Any]], progress: bool, what: str = "evaluate"
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yields the batches, with a progress bar after two seconds."""
    from tqdm import tqdm

    count = getattr(batches, "num_images", None)
    with tqdm(desc=what, total=count, unit=" images", delay=2, leave=False, disable=not progress) as bar:
        for images, labels in batches:
            images = to_numpy(images)
            yield images, labels
            bar.update(len(images))


def to_numpy(values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "numpy"):  # TensorFlow's tensors under another backend
        return values.numpy()
    import keras

    return keras.ops.convert_to_numpy(values)
