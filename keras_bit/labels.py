"""From scores to class names, offline."""

import functools
import importlib.resources
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from keras_bit import wording

SHOWN = 8  # classes in a message
# Names of classes in the order of the outputs, or from index, which JSON makes a string, to name.
Labels = Sequence[str] | Mapping[int, str] | Mapping[str, str]

# The class lists inside the package: number of classes, the list's name, its table.
CLASS_LISTS = {
    1000: ("ImageNet-1k", "imagenet1k.tsv"),
    21843: ("ImageNet-21k", "imagenet21k.tsv"),  # the BiT-M pre-training heads; 21,841 would be ImageNet's fall11.tar
}


def imagenet_labels(classes: int = 1000) -> tuple[tuple[str, str], ...]:
    """The `(wordnet_id, names)` of the classes of ImageNet-1k or ImageNet-21k, in the order of the model's outputs.

    `names` holds every name that WordNet has for the class, in the form transformers' `id2label` uses:

    Examples:
        >>> imagenet_labels()[0]
        ('n01440764', 'tench, Tinca tinca')
        >>> imagenet_labels(21843)[359]
        ('n01440764', 'tench, Tinca tinca')

    Only the wordnet ids are unique. Two classes of ImageNet-1k are called "crane" (134, the bird, and 517, the
    machine); in ImageNet-21k 1128 classes have the names of another.

    ImageNet-21k has general classes beside special ones ("fish" is 3692) and, in the same order, the classes of
    ImageNet-1k but one: it lacks "teddy, teddy bear" (n04399382).

    Args:
        classes: 1000 for ImageNet-1k, 21843 for ImageNet-21k as Google's pre-training heads have it.

    Returns:
        `classes` pairs of strings. Each list is read once, when it is first asked for, from its table inside the
        package.

    Raises:
        ValueError: `classes` is another number.

    Source: the lists in timm 1.0.31, by `convert/labels.py`.
    """
    if classes not in CLASS_LISTS:
        raise ValueError(f"`classes` must be {_known_numbers()}; got {classes!r}.")
    return _read_table(CLASS_LISTS[classes][1])


def labels_of_checkpoint(id2label: Mapping[int, str]) -> Mapping[int, str] | None:
    """The `labels` of `decode_predictions` for a checkpoint's `id2label`.

    `None` where the checkpoint says `LABEL_0`, `LABEL_1` ... of as many classes as ImageNet has, which says nothing.
    """
    says_nothing = all(name == f"LABEL_{index}" for index, name in id2label.items())
    return None if says_nothing and len(id2label) in CLASS_LISTS else id2label


def decode_predictions(preds: Any, top: int = 5, *, labels: Labels | None = None) -> list[list[tuple[str, str, float]]]:
    """The best classes of every image, as `keras.applications` gives them, for ImageNet or for your own labels.

    Examples:
        >>> decode_predictions([[0.1, 0.2, 0.7]], top=2, labels=["cat", "dog", "zebra"])
        [[('2', 'zebra', 0.7), ('1', 'dog', 0.2)]]

    Args:
        preds: scores `(batch, classes)`, an array, nested list or tensor; probabilities or logits, higher is better.
        top: how many classes per image, at least 1; more than there are gives them all.
        labels: `None` for the classes of ImageNet, 1000 (ImageNet-1k) or 21,843 (ImageNet-21k in Google's order), told
            apart by the number of classes; for any other model its class names in the order of its outputs, or a dict
            from index to name such as `model.config.id2label` (keys 0 or "0").

    Returns:
        A list per image of `(wordnet_id, name, score)`, best first; equal scores go by class index, lowest first.
        `name` is the class's first name with underscores ("great_white_shark"), for ImageNet-1k the name that
        `keras.applications` gives. With `labels` the tuple stays three long and the first entry is still the class's
        identifier, here its index as a string: `(str(index), name, score)`, with `name` exactly as given. `score` is a
        Python float.

    Raises:
        ValueError: `preds` is not a two-dimensional array of numbers or has NaN; it has not as many classes as `labels`
            or, without it, a list of ImageNet has; `top` is not a whole number of at least 1; `labels` is not one name
            each for 0 to classes - 1.

    Source: keras 3.15 `applications/imagenet_utils.py`, whose order of equal scores and of NaN is left to `argsort`.
    """
    top = checked_top(top)
    scores = _as_scores(preds)
    classes = scores.shape[1]
    if labels is None:
        if classes not in CLASS_LISTS:
            raise ValueError(
                f"`preds` must have {_known_numbers()} classes where `labels` is not given; got {classes} classes, "
                f"shape {scores.shape}. Pass `labels=`, the {classes} class names in the order of the model's outputs, "
                "for instance `model.config.id2label`."
            )
        identified = _keras_labels(classes)
    else:
        identified = tuple((str(index), name) for index, name in enumerate(_as_names(labels, classes)))

    # Stable on the negated scores: a tie keeps the lower index first, which reversing an ascending sort would not.
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(*identified[index], float(row[index])) for index in indices]
        for row, indices in zip(scores, best, strict=True)
    ]


def checked_top(top: Any) -> int:
    """`top` as an int.

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
    """The names of classes 0 to `classes - 1`, from a sequence or a dict from index to name as `id2label`.

    Raises:
        ValueError: `labels` is not one name each for 0 to classes - 1.
    """
    return tuple(_as_names(labels, classes))


def _known_numbers() -> str:
    return " or ".join(f"{classes} ({name})" for classes, (name, _) in CLASS_LISTS.items())


@functools.cache  # here, where a list has one key, and not on `imagenet_labels`: `()`, `(1000)`, `(classes=1000)`
def _read_table(file: str) -> tuple[tuple[str, str], ...]:
    table = importlib.resources.files("keras_bit").joinpath(file).read_text(encoding="utf-8")
    pairs = (line.split("\t") for line in table.splitlines())
    return tuple((wordnet_id, names) for wordnet_id, names in pairs)


@functools.cache
def _keras_labels(classes: int) -> tuple[tuple[str, str], ...]:
    """`(wordnet_id, name)` with Keras' names: the first one, underscores for spaces."""
    return tuple((wordnet_id, names.split(", ")[0].replace(" ", "_")) for wordnet_id, names in imagenet_labels(classes))


def _as_scores(preds: Any) -> np.ndarray:
    """`preds` as float64, which holds every float16, bfloat16 and float32 exactly; checked."""
    try:
        if isinstance(preds, np.ndarray | list | tuple):
            scores = np.asarray(preds, dtype=np.float64)
        else:
            import keras  # here: arrays and the table need no backend

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
    """The names of classes 0 to `classes - 1`; all that does not fit in one error."""
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
    return [str(name) for name in names]  # numpy's strings too become plain ones


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
