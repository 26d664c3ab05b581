"""Converts scores to class names, offline."""

import functools
import importlib.resources
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from keras_bit import wording

SHOWN = 8  # classes in a message
# Names of classes in the order of the outputs, or a mapping from index (a string in JSON) to name.
Labels = Sequence[str] | Mapping[int, str] | Mapping[str, str]

# The class lists in the package: number of classes, the list's name, its file.
CLASS_LISTS = {
    1000: ("ImageNet-1k", "imagenet1k.tsv"),
    21843: ("ImageNet-21k", "imagenet21k.tsv"),  # the BiT-M pre-training heads; 21,841 would be ImageNet's fall11.tar
}


def imagenet_labels(classes: int = 1000) -> tuple[tuple[str, str], ...]:
    """Returns `(wordnet_id, names)` of each class of ImageNet-1k or ImageNet-21k, in the order of the model's outputs.

    `names` holds every WordNet name of the class, in the form of transformers' `id2label`:

    Examples:
        >>> imagenet_labels()[0]
        ('n01440764', 'tench, Tinca tinca')
        >>> imagenet_labels(21843)[359]
        ('n01440764', 'tench, Tinca tinca')

    Only the wordnet ids are unique. Two classes of ImageNet-1k are called "crane" (134, the bird, and 517, the
    machine); in ImageNet-21k, 1128 classes share their names with another.

    ImageNet-21k has general classes besides special ones ("fish" is 3692). It contains the classes of ImageNet-1k in
    the same order, except "teddy, teddy bear" (n04399382).

    Args:
        classes: 1000 for ImageNet-1k, 21843 for ImageNet-21k, as in Google's pre-training heads.

    Returns:
        `classes` pairs of strings. Each list is read once, on first use, from a file in the package.

    Raises:
        ValueError: `classes` is another number.

    Source: the lists in timm 1.0.31, by `convert/labels.py`.
    """
    if classes not in CLASS_LISTS:
        raise ValueError(f"`classes` must be {_known_numbers()}; got {classes!r}.")
    return _read_table(CLASS_LISTS[classes][1])


def labels_of_checkpoint(id2label: Mapping[int, str]) -> Mapping[int, str] | None:
    """Returns the `labels` of `decode_predictions` for a checkpoint's `id2label`.

    `None` if they are `LABEL_0`, `LABEL_1` ... for as many classes as ImageNet has.
    """
    says_nothing = all(name == f"LABEL_{index}" for index, name in id2label.items())
    return None if says_nothing and len(id2label) in CLASS_LISTS else id2label


def decode_predictions(preds: Any, top: int = 5, *, labels: Labels | None = None) -> list[list[tuple[str, str, float]]]:
    """Returns the best classes of every image, as in `keras.applications`, for ImageNet or for your own labels.

    Examples:
        >>> decode_predictions([[0.1, 0.2, 0.7]], top=2, labels=["cat", "dog", "zebra"])
        [[('2', 'zebra', 0.7), ('1', 'dog', 0.2)]]

    Args:
        preds: scores `(batch, classes)`, an array, nested list or tensor; probabilities or logits, higher is better.
        top: number of classes per image, from 1 to all.
        labels: `None` for the classes of ImageNet-1k (1000) or ImageNet-21k in Google's order (21,843), by their
            number. For other models, the class names in the order of the outputs, or a dict from index to name such as
            `model.config.id2label` (keys 0 or "0").

    Returns:
        A list per image of `(wordnet_id, name, score)`, best first; equal scores go by class index, lowest first.
        `name` is the class's first name with underscores ("great_white_shark"), as in `keras.applications` for
        ImageNet-1k. With `labels` it is `(str(index), name, score)`, with `name` exactly as given. `score` is a Python
        float.

    Raises:
        ValueError: `preds` is not a two-dimensional array of numbers or has NaN; its number of classes differs from
            `labels` or, without it, from ImageNet's; `top` is not a whole number of at least 1; `labels` does not have
            exactly one name for each class.

    Source: keras 3.15 `applications/imagenet_utils.py`, whose order of equal scores and of NaN is left to `argsort`.
    """
    top = checked_top(top)
    scores = _as_scores(preds)
    classes = scores.shape[1]
    if labels is None:
        if classes not in CLASS_LISTS:
            raise ValueError(
                f"`preds` must have {_known_numbers()} classes if `labels` is not given; got {classes} classes, shape "
                f"{scores.shape}. Pass `labels=`, the {classes} class names in the order of the model's outputs, for "
                "instance `model.config.id2label`."
            )
        identified = _keras_labels(classes)
    else:
        identified = tuple((str(index), name) for index, name in enumerate(_as_names(labels, classes)))

    # A stable sort of the negated scores keeps the lower index first for equal scores.
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(*identified[index], float(row[index])) for index in indices]
        for row, indices in zip(scores, best, strict=True)
    ]


def checked_top(top: Any) -> int:
    """Returns `top` as an int.

    Raises:
        ValueError: it is not a whole number of at least 1.
    """
    try:
        number = operator.index(top)
    except TypeError:
        raise ValueError(f"`top` must be a whole number of at least 1; got {top!r}.") from None
    if number < 1:
        raise ValueError(f"`top` must be a whole number of at least 1; got {top}.")
    return number


def names_of(labels: Labels, classes: int) -> tuple[str, ...]:
    """Returns the names of classes 0 to `classes - 1`, from a sequence or a dict from index to name such as `id2label`.

    Raises:
        ValueError: `labels` does not have exactly one name for each class.
    """
    return tuple(_as_names(labels, classes))


def _known_numbers() -> str:
    return " or ".join(f"{classes} ({name})" for classes, (name, _) in CLASS_LISTS.items())


@functools.cache  # cached here, because calls of `imagenet_labels` have several forms: `()`, `(1000)`, `(classes=1000)`
def _read_table(file: str) -> tuple[tuple[str, str], ...]:
    table = importlib.resources.files("keras_bit").joinpath(file).read_text(encoding="utf-8")
    pairs = (line.split("\t") for line in table.splitlines())
    return tuple((wordnet_id, names) for wordnet_id, names in pairs)


@functools.cache
def _keras_labels(classes: int) -> tuple[tuple[str, str], ...]:
    """Returns `(wordnet_id, name)` with Keras' names: the first name, with underscores for spaces."""
    return tuple((wordnet_id, names.split(", ")[0].replace(" ", "_")) for wordnet_id, names in imagenet_labels(classes))


def _as_scores(preds: Any) -> np.ndarray:
    """Checks `preds` and converts it to float64, which holds every float16, bfloat16 and float32 exactly."""
    try:
        if isinstance(preds, np.ndarray | list | tuple):
            scores = np.asarray(preds, dtype=np.float64)
        else:
            import keras  # imported here, because arrays and the table need no backend

            scores = keras.ops.convert_to_numpy(preds).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`preds` must be scores of shape (batch, classes); got a {type(preds).__name__} that is not an array of "
            f"numbers ({error}). Pass one array or tensor, with the same number of classes for every image."
        ) from error
    if scores.ndim != 2:
        remedy = (
            "For one image add the batch axis: `numpy.expand_dims(preds, 0)`."
            if scores.ndim == 1
            else "Pass the output of a model with its classification head (`include_top=True`)."
        )
        raise ValueError(f"`preds` must be scores of shape (batch, classes); got shape {scores.shape}. {remedy}")
    if (images := np.flatnonzero(np.isnan(scores).any(axis=1))).size:
        raise ValueError(
            f"`preds` must be numbers that can be ordered; got NaN for {images.size} of {len(scores)} images, first "
            f"at index {images[0]}. Check the weights and the input, or the range of float16."
        )
    return scores


def _as_names(labels: Labels, classes: int) -> list[str]:
    """Returns the names of classes 0 to `classes - 1`; one error lists everything that does not fit."""
    if isinstance(labels, str | bytes | Set) or not isinstance(labels, Iterable):
        raise ValueError(
            f"`labels` must be a sequence of {classes} names or a dict from index to name; got "
            f"{type(labels).__name__}. Pass a list in the order of the model's outputs."
        )
    if isinstance(labels, Mapping):
        names = _from_mapping(labels, classes)
    else:
        names = list(labels)
        if len(names) != classes:
            raise ValueError(
                f"`labels` must have a name for each of the {classes} classes of `preds`; got {len(names)}. Pass the "
                "names of the model that gave these scores."
            )
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"`labels` must be names (strings); got {name!r} for class {index}. Pass one string each.")
    return [str(name) for name in names]  # also converts numpy's strings to plain ones


def _from_mapping(labels: Mapping[int, str] | Mapping[str, str], classes: int) -> list[str]:
    by_index: dict[int, str] = {}
    misfits = []
    for key, name in labels.items():
        index = int(key) if isinstance(key, str) and key.isdecimal() else key
        if isinstance(index, int | np.integer) and 0 <= index < classes and index not in by_index:
            by_index[int(index)] = name
        else:
            misfits.append(key)
    missing = [index for index in range(classes) if index not in by_index]
    if missing or misfits:
        problems = [f"without a name: {wording.some(missing, SHOWN)}"] if missing else []
        problems += [f"not an index of its own: {wording.some(map(repr, misfits), SHOWN)}"] if misfits else []
        raise ValueError(
            f"`labels` must map each index from 0 to {classes - 1}, once, to a name; {'; '.join(problems)}. Pass the "
            "`id2label` of the model that gave these scores (`label2id` is the reverse)."
        )
    return [by_index[index] for index in range(classes)]
